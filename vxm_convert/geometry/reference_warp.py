# SPDX-License-Identifier: Apache-2.0
"""The reference's warps in NumPy: nearest neighbour for segmentations, linear in float64 to assess the model's own
warp.
"""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.chunked import in_order

_SLAB = 4
#: float32 numbers from 2**23 to 2**24 are whole; their middle allows sums of both signs
_NO_FRACTION = np.float32(1.5 * 2**23)
_EXACT = 2**22 - 1


def warp_nearest(labels: np.ndarray, flow_vox: np.ndarray) -> np.ndarray:
    """Labels at the displaced positions: index = rint(p + u), ties to even, clamped to the grid (edge replication).

    Positions are float32 as in the reference (VoxelMorph's SpatialTransformer, ``tf.round`` then clip), so that ties
    round the same way.

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
        If shapes do not match or the flow contains NaN or Inf.
    """
    shape = labels.shape
    if flow_vox.shape != shape + (3,):
        raise VolumeError(f"nearest warp: labels {shape}, flow {flow_vox.shape}, expected a flow of {shape + (3,)}")
    flat = np.ascontiguousarray(labels).reshape(-1)
    return _by_slabs(
        lambda start, stop: _nearest_slab(flat, flow_vox[start:stop], start, shape), np.empty(shape, flat.dtype), _SLAB
    )


def _by_slabs(work: Callable[[int, int], np.ndarray], out: np.ndarray, planes: int) -> np.ndarray:
    """Fill `out` with the results of `work(start, stop)` for the planes from start to stop of the first axis."""

    def fill(start: int, stop: int) -> None:
        out[start:stop] = work(start, stop)

    for _ in in_order(fill, [(start, min(start + planes, len(out))) for start in range(0, len(out), planes)]):
        pass
    return out


def _nearest_slab(flat: np.ndarray, part: np.ndarray, start: int, shape: Tuple[int, ...]) -> np.ndarray:
    """One slab of `warp_nearest`; `flat` holds all labels in C order."""
    if not _all_finite(part):
        raise VolumeError("nearest warp: the flow contains NaN or Inf; expected finite displacements from the model")
    x, y, z = (
        _nearest_index(part[..., axis], grid, side)
        for axis, (grid, side) in enumerate(zip(_indices(part, start), shape))
    )
    x *= shape[1]
    x += y
    x *= shape[2]
    x += z
    return flat[x]


def _nearest_index(u: np.ndarray, grid: np.ndarray, side: int) -> np.ndarray:
    position = grid.astype(np.float32) + u.astype(np.float32)
    if position.min() < -_EXACT or position.max() > _EXACT:
        # Computed as floats: a displacement beyond int32 must not wrap around.
        position = np.clip(position, -1, side)
    # Rounds to even like numpy.rint, which takes ten times as long before NumPy 1.20: no float32 beyond this has a
    # fraction.
    position += _NO_FRACTION
    position -= _NO_FRACTION
    return _clamped(position.astype(np.intp), side)


def _clamped(index: np.ndarray, side: int) -> np.ndarray:
    np.maximum(index, 0, out=index)
    return np.minimum(index, side - 1, out=index)


def _indices(part: np.ndarray, start: int) -> List[np.ndarray]:
    """Index of every voxel of a slab along each axis, for broadcasting."""
    x = np.arange(start, start + part.shape[0])
    grids: List[np.ndarray] = np.meshgrid(
        x, np.arange(part.shape[1]), np.arange(part.shape[2]), indexing="ij", sparse=True
    )
    return grids


def _all_finite(part: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum shows it in one pass; large finite values may overflow in it.
        return bool(np.isfinite(part.sum()) or np.isfinite(part).all())


def warp_linear(image: np.ndarray, flow_vox: np.ndarray) -> np.ndarray:
    """The network's linear warp in float64: the blend at p + u of the eight neighbours ⌊p + u⌋ and ⌊p + u⌋ + 1, clamped
    to the grid.

    Compared with it, the moved image of a device shows the error of the device's own warp, independent of the flow.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), real dtype — on the moving grid.
    flow_vox : ndarray, shape (X, Y, Z, 3) — displacement in voxels of *fixed*, added to the fixed index.

    Returns
    ------- ndarray, shape (X, Y, Z), float64 — NaN if the flow is not finite.

    Raises
    ------
    VolumeError
        When shapes do not match.
    """
    shape = image.shape
    if flow_vox.shape != shape + (3,):
        raise VolumeError(f"linear warp: image {shape}, flow {flow_vox.shape}, expected a flow of {shape + (3,)}")
    flat = np.ascontiguousarray(image).reshape(-1)
    return _by_slabs(
        lambda start, stop: _blend(flat, flow_vox[start:stop], start, shape), np.empty(shape, np.float64), 1
    )


def _blend(flat: np.ndarray, part: np.ndarray, start: int, shape: Tuple[int, ...]) -> np.ndarray:
    """One slab of `warp_linear`; `flat` is the whole image in C order."""
    good = None if _all_finite(part) else np.isfinite(part).all(axis=-1)
    strides = (shape[1] * shape[2], shape[2], 1)
    offsets, weights = [], []
    # Half the bytes of NumPy's own index type; these passes are bound by memory.
    index = np.int32 if flat.size < 2**31 else np.int64
    for axis, (grid, side) in enumerate(zip(_indices(part, start), shape)):
        u = part[..., axis].astype(np.float64)
        if good is not None:
            u[~good] = 0.0
        below, weight = _floor(u, side)
        weights.append(weight)
        below = below.astype(index)
        below += grid.astype(index)
        above = _clamped(below + 1, side)
        offsets.append([_clamped(below, side) * strides[axis], above * strides[axis]])
    lines = []
    for x in offsets[0]:
        planes = [x + y for y in offsets[1]]
        near, far = offsets[2]
        rows = [
            _between(flat[p + near].astype(np.float64), flat[p + far].astype(np.float64), weights[2]) for p in planes
        ]
        lines.append(_between(rows[0], rows[1], weights[1]))
    out = _between(lines[0], lines[1], weights[0])
    if good is not None:
        out[~good] = np.nan
    return out


def _floor(u: np.ndarray, side: int) -> Tuple[np.ndarray, np.ndarray]:
    """Largest whole number at most u, and the fraction of u; overwrites u."""
    if u.min() < -side - 1 or u.max() > side + 1:
        # Beyond the grid every displacement ends at its border, where both neighbours are the same voxel.
        np.clip(u, -side - 1, side + 1, out=u)
    whole = np.floor(u)
    u -= whole
    return whole, u


def _between(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """a + (b − a) weight; overwrites b."""
    b -= a
    b *= weight
    b += a
    return b
