# SPDX-License-Identifier: Apache-2.0
"""Synthetic scans with known warps: heads with anatomy, and pairs of random shapes."""
