# SPDX-License-Identifier: Apache-2.0
"""The 910's blocked layouts: weights for the cube unit and 5-D feature maps. 16 × 16 blocks, zero padded.

Layouts as the open GE sources define them (`base/formats/format_transfers/format_transfer_dhwcn_fractal_z_3D.cc`
and its neighbours), cross-checked there against a file that the real ATC wrote.
"""
from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.errors import FormatError

BLOCK = 16


def blocks(n: int) -> int:
    """How many blocks of 16 hold `n` entries."""
    return -(-n // BLOCK)


def fractal_z_3d_shape(dhwcn: Tuple[int, ...]) -> Tuple[int, int, int, int]:
    """Storage shape of a (D, H, W, C, N) filter: (D·C1·H·W, N1, 16, 16)."""
    depth, height, width, channels, filters = dhwcn
    return depth * blocks(channels) * height * width, blocks(filters), BLOCK, BLOCK


def pack_fractal_z_3d(weights: np.ndarray) -> np.ndarray:
    """(D, H, W, C, N) → (D·C1·H·W, N1, N0, C0), index order D, C1, H, W, N1, N0, C0; same dtype."""
    if weights.ndim != 5:
        raise FormatError(f"FRACTAL_Z_3D: got a filter of rank {weights.ndim}, expected 5 (D, H, W, C, N)")
    depth, height, width, channels, filters = weights.shape
    c1, n1 = blocks(channels), blocks(filters)
    padded = np.zeros((depth, height, width, c1 * BLOCK, n1 * BLOCK), weights.dtype)
    padded[..., :channels, :filters] = weights
    split = padded.reshape(depth, height, width, c1, BLOCK, n1, BLOCK)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 2, 5, 6, 4)).reshape(fractal_z_3d_shape(weights.shape))


def unpack_fractal_z_3d(packed: np.ndarray, dhwcn: Tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack_fractal_z_3d` for a filter of shape `dhwcn`; raises FormatError when the shapes disagree."""
    if len(dhwcn) != 5 or packed.shape != fractal_z_3d_shape(dhwcn):
        raise FormatError(f"FRACTAL_Z_3D: storage shape {packed.shape} does not hold a filter of shape {tuple(dhwcn)}")
    depth, height, width, channels, filters = dhwcn
    c1, n1 = blocks(channels), blocks(filters)
    split = packed.reshape(depth, c1, height, width, n1, BLOCK, BLOCK).transpose(0, 2, 3, 1, 6, 4, 5)
    return np.ascontiguousarray(split.reshape(depth, height, width, c1 * BLOCK, n1 * BLOCK)[..., :channels, :filters])


def ndc1hwc0_shape(ndhwc: Tuple[int, ...]) -> Tuple[int, ...]:
    """Storage shape of an (N, D, H, W, C) feature map: (N, D, C1, H, W, 16)."""
    batch, depth, height, width, channels = ndhwc
    return batch, depth, blocks(channels), height, width, BLOCK
