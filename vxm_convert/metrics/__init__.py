# SPDX-License-Identifier: Apache-2.0
"""Differences between two results: error statistics, Dice, distances, folding, label sets; NumPy only, and no limits."""
