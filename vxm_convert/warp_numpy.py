# SPDX-License-Identifier: Apache-2.0
"""The reference's warps in NumPy: nearest neighbour for segmentations, linear in float64 to judge the model's own warp."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.streams import in_order

_SLAB = 4


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
    slabs = [(start, min(start + _SLAB, shape[0])) for start in range(0, shape[0], _SLAB)]
    return np.concatenate(list(in_order(lambda start, stop: _nearest_slab(labels, flow_vox[start:stop], start), slabs)))


def _nearest_slab(labels: np.ndarray, part: np.ndarray, start: int) -> np.ndarray:
    if not np.isfinite(part).all():
        raise VolumeError("nearest warp: the flow holds NaN or Inf; expected finite displacements from the model")
    return labels[_nearest_index(part, start, labels.shape)]


def _nearest_index(part: np.ndarray, start: int, shape: Tuple[int, ...]) -> Tuple[np.ndarray, ...]:
    grid = np.meshgrid(np.arange(start, start + part.shape[0]), np.arange(shape[1]), np.arange(shape[2]), indexing="ij", sparse=True)
    positions = (grid[d].astype(np.float32) + part[..., d].astype(np.float32) for d in range(3))
    # Clipped as floats: a displacement beyond int32 must not wrap around.
    return tuple(np.clip(np.rint(p), 0, side - 1).astype(np.intp) for p, side in zip(positions, shape))


def warp_linear(image: np.ndarray, flow_vox: np.ndarray) -> np.ndarray:
    """The network's linear warp in float64: the blend at p + u of the eight neighbours ⌊p + u⌋ and ⌊p + u⌋ + 1, clamped to the grid.

    Against it, the moved image of a device shows what the device's own warp adds to the error, whatever the flow is worth.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), real dtype — on the moving grid.
    flow_vox : ndarray, shape (X, Y, Z, 3) — displacement in voxels of *fixed*, added to the fixed index.

    Returns
    -------
    ndarray, shape (X, Y, Z), float64 — NaN where the flow is not finite.

    Raises
    ------
    VolumeError
        When shapes do not match.
    """
    shape = image.shape
    if flow_vox.shape != shape + (3,):
        raise VolumeError(f"linear warp: image {shape}, flow {flow_vox.shape}, expected a flow of {shape + (3,)}")
    flat = np.asarray(image, dtype=np.float64).reshape(-1)
    slabs = [(plane, min(plane + 1, shape[0])) for plane in range(shape[0])]
    return np.concatenate(list(in_order(lambda start, stop: _blend(flat, flow_vox[start:stop], start, shape), slabs)))


def _blend(flat: np.ndarray, part: np.ndarray, start: int, shape: Tuple[int, ...]) -> np.ndarray:
    """One slab of `warp_linear`; `flat` is the whole image in C order."""
    grid = np.meshgrid(np.arange(start, start + part.shape[0]), np.arange(shape[1]), np.arange(shape[2]), indexing="ij", sparse=True)
    strides = (shape[1] * shape[2], shape[2], 1)
    offsets, weights = [], []
    good = np.isfinite(part).all(axis=-1)
    for axis, side in enumerate(shape):
        u = part[..., axis].astype(np.float64)
        u[~good] = 0.0
        whole = np.floor(u)
        weights.append(u - whole)
        # Beyond the grid every displacement ends at its border: clipped before it is an integer.
        base = grid[axis] + np.clip(whole, -side - 1, side + 1).astype(np.int64)
        offsets.append([np.clip(base + step, 0, side - 1) * strides[axis] for step in (0, 1)])
    lines = []
    for x in offsets[0]:
        planes = [x + y for y in offsets[1]]
        rows = [_between(flat[p + offsets[2][0]], flat[p + offsets[2][1]], weights[2]) for p in planes]
        lines.append(_between(rows[0], rows[1], weights[1]))
    out = _between(lines[0], lines[1], weights[0])
    out[~good] = np.nan
    return out


def _between(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return a + (b - a) * weight
