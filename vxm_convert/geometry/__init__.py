# SPDX-License-Identifier: Apache-2.0
"""Grids, displacement fields and affines in world space: composition, inversion, resampling, folding; no files."""
