# SPDX-License-Identifier: Apache-2.0
"""The reference's nearest-neighbour warp in NumPy, for segmentations; intensities are warped inside the model."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.errors import VolumeError

_SLAB = 16


def warp_nearest(labels: np.ndarray, flow_vox: np.ndarray) -> np.ndarray:
    """Labels at the displaced positions: index = rint(p + u), ties to even, clamped to the grid (edge replication).

    Positions are float32 as in the reference (VoxelMorph's SpatialTransformer, ``tf.round`` then clip), so that ties fall alike.

    Parameters
    ----------
    labels : ndarray, shape (X, Y, Z), any dtype — on the moving grid.
    flow_vox : ndarray, shape (X, Y, Z, 3), float32 — displacement in voxels of *fixed*, added to the fixed index.

    Returns
    -------
    ndarray, shape (X, Y, Z), dtype of `labels`.

    Raises
    ------
    VolumeError
        When shapes do not match or the flow holds NaN or Inf.
    """
    shape = labels.shape
    if flow_vox.shape != shape + (3,):
        raise VolumeError(f"nearest warp: labels {shape}, flow {flow_vox.shape}, expected a flow of {shape + (3,)}")
    out = np.empty_like(labels)
    for start in range(0, shape[0], _SLAB):
        part = flow_vox[start : start + _SLAB]
        if not np.isfinite(part).all():
            raise VolumeError("nearest warp: the flow holds NaN or Inf; expected finite displacements from the model")
        out[start : start + _SLAB] = labels[_nearest_index(part, start, shape)]
    return out


def _nearest_index(part: np.ndarray, start: int, shape: Tuple[int, ...]) -> Tuple[np.ndarray, ...]:
    grid = np.meshgrid(np.arange(start, start + part.shape[0]), np.arange(shape[1]), np.arange(shape[2]), indexing="ij", sparse=True)
    positions = (grid[d].astype(np.float32) + part[..., d].astype(np.float32) for d in range(3))
    # Clipped as floats: a displacement beyond int32 must not wrap around.
    return tuple(np.clip(np.rint(p), 0, side - 1).astype(np.intp) for p, side in zip(positions, shape))
