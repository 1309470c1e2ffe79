# SPDX-License-Identifier: Apache-2.0
"""Small graphs with inputs whose results tell one assumption from its alternatives; NumPy only, nothing runs here."""
