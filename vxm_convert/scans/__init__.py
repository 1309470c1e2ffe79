# SPDX-License-Identifier: Apache-2.0
"""Scans from disk: discovery, headers, grids, what is trusted, voxels, and their way onto the network grid."""
