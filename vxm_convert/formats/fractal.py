# SPDX-License-Identifier: Apache-2.0
"""The 910's blocked layouts: weights for the cube unit and blocked feature maps. 16 × 16 blocks, zero padded.

Layouts as the open GE sources define them (`base/formats/format_transfers/format_transfer_dhwcn_fractal_z_3D.cc` and
similar files); the layouts of images and matrices were checked against a file that the real ATC wrote.
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


def fractal_z_shape(hwcn: Tuple[int, ...]) -> Tuple[int, int, int, int]:
    """Storage shape of an (H, W, C, N) filter: (C1·H·W, N1, 16, 16)."""
    return fractal_z_3d_shape((1,) + tuple(hwcn))


def pack_fractal_z(weights: np.ndarray) -> np.ndarray:
    """(H, W, C, N) → (C1·H·W, N1, N0, C0), index order C1, H, W, N1, N0, C0; same dtype."""
    if weights.ndim != 4:
        raise FormatError(f"FRACTAL_Z: got a filter of rank {weights.ndim}, expected 4 (H, W, C, N)")
    return pack_fractal_z_3d(weights[np.newaxis])


def unpack_fractal_z(packed: np.ndarray, hwcn: Tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack_fractal_z` for a filter of shape `hwcn`; raises FormatError when the shapes disagree."""
    if len(hwcn) != 4 or packed.shape != fractal_z_shape(hwcn):
        raise FormatError(f"FRACTAL_Z: storage shape {packed.shape} does not hold a filter of shape {tuple(hwcn)}")
    return unpack_fractal_z_3d(packed, (1,) + tuple(hwcn))[0]


def fractal_nz_shape(matrix: Tuple[int, ...]) -> Tuple[int, int, int, int]:
    """Storage shape of an (M, N) matrix: (N1, M1, 16, 16)."""
    rows, columns = matrix
    return blocks(columns), blocks(rows), BLOCK, BLOCK


def pack_fractal_nz(matrix: np.ndarray) -> np.ndarray:
    """(M, N) → (N1, M1, M0, N0): columns of blocks, each block row by row; same dtype."""
    if matrix.ndim != 2:
        raise FormatError(f"FRACTAL_NZ: got rank {matrix.ndim}, expected 2 (M, N)")
    n1, m1, _, _ = fractal_nz_shape(matrix.shape)
    padded = np.zeros((m1 * BLOCK, n1 * BLOCK), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return np.ascontiguousarray(padded.reshape(m1, BLOCK, n1, BLOCK).transpose(2, 0, 1, 3))


def unpack_fractal_nz(packed: np.ndarray, matrix: Tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack_fractal_nz` for a matrix of shape `matrix`; raises FormatError when the shapes disagree."""
    if len(matrix) != 2 or packed.shape != fractal_nz_shape(matrix):
        raise FormatError(f"FRACTAL_NZ: storage shape {packed.shape} does not hold a matrix of shape {tuple(matrix)}")
    n1, m1, _, _ = packed.shape
    return np.ascontiguousarray(packed.transpose(1, 2, 0, 3).reshape(m1 * BLOCK, n1 * BLOCK)[: matrix[0], : matrix[1]])


def ndc1hwc0_shape(ndhwc: Tuple[int, ...]) -> Tuple[int, ...]:
    """Storage shape of an (N, D, H, W, C) feature map: (N, D, C1, H, W, 16)."""
    batch, depth, height, width, channels = ndhwc
    return batch, depth, blocks(channels), height, width, BLOCK


def nc1hwc0_shape(nhwc: Tuple[int, ...]) -> Tuple[int, ...]:
    """Storage shape of an (N, H, W, C) feature map: (N, C1, H, W, 16)."""
    batch, height, width, channels = nhwc
    return batch, blocks(channels), height, width, BLOCK


def unpack_feature_map(stored: np.ndarray, shape: Tuple[int, ...], first: bool = False) -> np.ndarray:
    """Blocks of 16 channels → the plain tensor: (N, [D,] C1, H, W, 16) → `shape`; same dtype.

    Parameters
    ----------
    shape : tuple of int — that of the plain tensor.
    first : bool — whether the plain tensor has its channels at axis 1 instead of last.

    Raises
    ------
    FormatError
        The shapes disagree.
    """
    last = tuple(shape[:1] + shape[2:] + shape[1:2]) if first else tuple(shape)
    wanted = {4: nc1hwc0_shape, 5: ndc1hwc0_shape}.get(len(last), lambda _: ())(last)
    if not wanted or stored.shape != wanted:
        raise FormatError(
            f"blocked feature map: storage shape {stored.shape} does not hold a tensor of shape {tuple(shape)}"
        )
    # The block of channels goes from before (height, width) to the end, where its 16 entries are.
    plain = np.moveaxis(stored, -4, -2)
    channels = last[-1]
    result = np.empty(last, stored.dtype)
    for block in range(blocks(channels)):
        start = block * BLOCK
        stop = min(start + BLOCK, channels)
        result[..., start:stop] = plain[..., block, : stop - start]
    return np.moveaxis(result, -1, 1) if first else result
