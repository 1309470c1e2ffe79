# SPDX-License-Identifier: Apache-2.0
"""Spatial transform by a displacement field, linear and nearest. Owns sampling; does not depend on the network.

The value at fixed voxel p is the volume at p + u(p), edges replicated. The textbook form adds p and u in floating
point, which in fp16 rounds positions beyond index 128 to eighths of a voxel. Here the position is never a float:

    b = p + int(floor(u))      integer, exact
    f = u − floor(u)           in [0, 1), exact in the precision of u
    value = Σ over the 8 corners of clamp(b or b + 1), blended with f axis by axis

Why this is the same function as clamping the position p + u to [0, S − 1] before interpolating, S being a side: p is
a whole number, so floor(p + u) = p + floor(u) and the fraction is the same. Inside, nothing is clamped. For p + u < 0,
b ≤ −1, so b and b + 1 both clamp to 0; for p + u ≥ S − 1, they both clamp to S − 1, or f = 0 there: equal
corners blend to themselves for any f. The derivative agrees too: equal corners make it 0 outside.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import SpecError
from vxm_convert.network.tf1 import tf

_MAX_INDEX = 2**31 - 1


def warp_linear(volume: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Sample `volume` at p + flow(p), trilinearly, edges replicated.

    Parameters
    ----------
    volume : tf.Tensor, shape (B, X, Y, Z, C), floating — static shape.
    flow : tf.Tensor, shape (B, X, Y, Z, 3), floating — displacement in voxels, axis order as the array ('ij').

    Returns
    ------- tf.Tensor, shape (B, X, Y, Z, C). Its gradient with respect to `flow` passes only through the fraction.

    Raises
    ------
    SpecError
        If B·X·Y·Z does not fit a 32-bit index.
    """
    shape = _check_shapes(volume, flow)
    with tf.name_scope("warp"):
        low, high, fractions = _corners(flow, shape[1:4])
        table = _as_table(volume, shape)
        if shape[4] > 1:
            fractions = [tf.reshape(f, shape[:4] + (1,)) for f in fractions]
        corners = [tf.gather(table, index, axis=0) for index in _corner_indices(low, high, shape)]
        # Corners are ordered with Z fastest: blend Z, then Y, then X, halving the list each time.
        for fraction in reversed(fractions):
            corners = [_blend(a, b, fraction) for a, b in zip(corners[0::2], corners[1::2])]
        return tf.reshape(corners[0], shape)


def warp_nearest(volume: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Sample `volume` at the voxel nearest to p + flow(p), halves to even, edges replicated; for label maps.

    Parameters
    ----------
    volume : tf.Tensor, shape (B, X, Y, Z, C), any dtype — static shape.
    flow : tf.Tensor, shape (B, X, Y, Z, 3), float32 — displacement in voxels, axis order as the array ('ij').
    """
    shape = _check_shapes(volume, flow)
    with tf.name_scope("warp_nearest"):
        coordinates = []
        for grid, displacement, side in zip(_voxel_grids(shape[1:4]), tf.unstack(flow, axis=-1), shape[1:4]):
            position = tf.round(grid.astype(np.float32) + displacement)
            coordinates.append(tf.cast(_clamp(position, 0.0, float(side - 1)), tf.int32))
        index = _corner_indices(coordinates, None, shape)[0]
        return tf.reshape(tf.gather(_as_table(volume, shape), index, axis=0), shape)


def _corners(flow: tf.Tensor, sides: Sequence[int]) -> Tuple[List[tf.Tensor], List[tf.Tensor], List[tf.Tensor]]:
    """Per axis: clamped low corner, clamped high corner (int32) and fraction, each (B, X, Y, Z)."""
    low, high, fractions = [], [], []
    for grid, displacement, side in zip(_voxel_grids(sides), tf.unstack(flow, axis=-1), sides):
        # A displacement of a whole side already leaves the grid, so this bound changes no value and keeps the cast in
        # range.
        bounded = _clamp(displacement, -float(side), float(side))
        whole = tf.floor(bounded)
        base = grid + tf.cast(whole, tf.int32)
        low.append(_clamp(base, 0, side - 1))
        high.append(_clamp(base + 1, 0, side - 1))
        fractions.append(bounded - whole)
    return low, high, fractions


def _corner_indices(low: List[tf.Tensor], high: Optional[List[tf.Tensor]], shape: Tuple[int, ...]) -> List[tf.Tensor]:
    """Rows of the flattened volume for the corners, Z fastest; for `low` alone if `high` is None."""
    batch, _, y, z, _ = shape
    options = [[axis] for axis in low] if high is None else [list(pair) for pair in zip(low, high)]
    stride_x, stride_y = np.int32(y * z), np.int32(z)
    rows = [x * stride_x for x in options[0]]
    if batch > 1:
        starts = (np.arange(batch, dtype=np.int32) * np.int32(int(np.prod(shape[1:4])))).reshape(batch, 1, 1, 1)
        rows = [row + starts for row in rows]
    columns = [axis * stride_y for axis in options[1]]
    planes = [row + column for row in rows for column in columns]
    return [plane + last for plane in planes for last in options[2]]


def _blend(low: tf.Tensor, high: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    return low + fraction * (high - low)


def _clamp(tensor: tf.Tensor, lower: float, upper: float) -> tf.Tensor:
    return tf.minimum(tf.maximum(tensor, lower), upper)


def _voxel_grids(sides: Sequence[int]) -> List[np.ndarray]:
    """Voxel indices per axis, shaped to broadcast over (B, X, Y, Z): constants of S values, not of a volume."""
    grids = []
    for axis, side in enumerate(sides):
        shape = [1, 1, 1, 1]
        shape[axis + 1] = side
        grids.append(np.arange(side, dtype=np.int32).reshape(shape))
    return grids


def _as_table(volume: tf.Tensor, shape: Tuple[int, ...]) -> tf.Tensor:
    rows = int(np.prod(shape[:4], dtype=np.int64))
    return tf.reshape(volume, (rows,) if shape[4] == 1 else (rows, shape[4]))


def _check_shapes(volume: tf.Tensor, flow: tf.Tensor) -> Tuple[int, ...]:
    shape = tuple(volume.shape.as_list())
    flow_shape = tuple(flow.shape.as_list())
    if len(shape) != 5 or None in shape or flow_shape != shape[:4] + (3,):
        raise SpecError(
            f"warp: volume {shape} and flow {flow_shape}, expected static (B, X, Y, Z, C) and (B, X, Y, Z, 3)"
        )
    voxels = int(np.prod(shape[:4], dtype=np.int64))
    if voxels > _MAX_INDEX:
        raise SpecError(
            f"warp: batch and volume {shape[:4]} have {voxels} voxels, a 32-bit index ends at {_MAX_INDEX}; lower the "
            "batch"
        )
    return shape
