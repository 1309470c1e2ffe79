# SPDX-License-Identifier: Apache-2.0
"""How two results differ: error statistics, Dice, distances, folding, label sets; NumPy only, and no limits."""
