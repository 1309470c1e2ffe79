# SPDX-License-Identifier: Apache-2.0
"""Scans that we make: heads with anatomy and pairs of random shapes, with known warps."""
