# SPDX-License-Identifier: Apache-2.0
"""A displacement field in memory and its conversion to other frames. Opens no file.

In memory a warp is `u`: at index x of the fixed grid, the moving image is read at voxel m = x + u(x) of the moving grid
(pull). The moving grid may be any grid; u is then an index difference between two grids and includes the difference of
their origins and axes. A displacement in a frame (mm) is d(x) = A_M m − A_F x with the two grids' voxel → frame
matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterator, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.compiled import as_field, compiled_for, kernel, mapped, plain, rows_of
from vxm_convert.geometry.grids import Grid, apply_affine

SLAB = 8


@dataclass(frozen=True)
class Warp:
    """A dense map from the fixed grid to moving voxels.

    Parameters
    ----------
    u : ndarray, shape (X, Y, Z, 3), float32 or float64 — voxels: moving index minus fixed index, component order as the
        array axes.
    fixed : Grid — whose shape is (X, Y, Z).
    moving : Grid

    Raises
    ------
    VolumeError
        If the shapes disagree.
    """

    # At a prompt, its millions of numbers would fill the screen.
    u: np.ndarray = field(repr=False)
    fixed: Grid
    moving: Grid

    def __post_init__(self) -> None:
        if self.u.shape != self.fixed.shape + (3,) or self.u.dtype.kind != "f":
            raise VolumeError(
                f"warp: array {self.u.shape} of {self.u.dtype}, expected floats of shape {self.fixed.shape + (3,)}"
            )

    def on_moving(self, moving: Grid) -> Warp:
        """The same map in space, with positions in voxels of another moving grid; float64, float32 from compiled loops."""
        if np.array_equal(moving.affine, self.moving.affine):
            return Warp(self.u, self.fixed, moving)
        if compiled_for(self.u.shape):
            # m' = R (x + u), so u' = R u + (R - I) x.
            there = moving.inverse @ self.moving.affine
            return Warp(mapped(self.u, there[:3, :3], there - np.eye(4)), self.fixed, moving)
        ras = to_frame(self.u, self.fixed.affine, self.moving.affine, np.float64)
        return Warp(from_frame(ras, self.fixed.affine, moving.affine), self.fixed, moving)

    def in_frame(self, frame: str, dtype: type = np.float64) -> np.ndarray:
        """Displacement in mm along the axes of ``ras``, ``lps`` or ``fsl``; shape (X, Y, Z, 3)."""
        return to_frame(self.u, self.fixed.frame_matrix(frame), self.moving.frame_matrix(frame), dtype)

    def positions(self, part: slice) -> np.ndarray:
        """Moving voxel m = x + u of the planes `part` of the first axis; (n, Y, Z, 3) float64."""
        return index_block(self.fixed.shape, part) + self.u[part]


def warp_from_frame(field: np.ndarray, frame: str, fixed: Grid, moving: Grid) -> Warp:
    """A warp from its displacement in mm along the axes of a frame, shape (X, Y, Z, 3). float64."""
    if field.shape != fixed.shape + (3,):
        raise VolumeError(f"warp: array {field.shape}, expected shape {fixed.shape + (3,)}")
    return Warp(from_frame(field, fixed.frame_matrix(frame), moving.frame_matrix(frame)), fixed, moving)


def identity_warp(fixed: Grid, moving: Grid) -> Warp:
    """The identity in space; float64."""
    return Warp(
        from_frame(np.broadcast_to(np.zeros(3), fixed.shape + (3,)), fixed.affine, moving.affine), fixed, moving
    )


def to_frame(u: np.ndarray, fixed: np.ndarray, moving: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """d = A_M (x + u) − A_F x.

    Parameters
    ----------
    u : ndarray, shape (X, Y, Z, 3) — voxels.
    fixed, moving : ndarray, shape (4, 4) — A_F and A_M, voxel index → frame (mm).
    dtype — of the result; the arithmetic is float64.
    """
    if u.dtype == dtype == np.float32 and compiled_for(u.shape):
        return mapped(u, moving[:3, :3], moving - fixed)
    out = np.empty(u.shape, dtype=dtype)
    # A_M u + (A_M − A_F) x: for equal grids the large coordinates cancel exactly.
    for part in slabs(u.shape[0]):
        out[part] = u[part].astype(np.float64) @ moving[:3, :3].T + _offset(u.shape, part, moving - fixed)
    return out


def frame_planes(u: np.ndarray, fixed: np.ndarray, moving: np.ndarray) -> Optional[Callable[[int, slice], np.ndarray]]:
    """`to_frame` of a float32 field by compiled loops, to float32, a part at a time and with the same bits; None where
    loops are not compiled.

    Returns
    -------
    Of a component and planes of the third axis: its values there, shape (planes, Y, X).
    """
    if u.dtype != np.float32 or not compiled_for(u.shape):
        return None
    source, loop = as_field(u), kernel("component")
    turn, along = plain(moving[:3, :3], np.float64), rows_of(moving - fixed)

    def planes(component: int, part: slice) -> np.ndarray:
        out = np.empty((part.stop - part.start,) + u.shape[1::-1], dtype=np.float32)
        loop(source, turn[component], along[component], part.start, out)
        return out

    return planes


def from_frame(field: np.ndarray, fixed: np.ndarray, moving: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """The inverse of `to_frame`: voxels u from a displacement in a frame (mm)."""
    out = np.empty(field.shape, dtype=dtype)
    back = np.linalg.inv(moving[:3, :3]).T
    for part in slabs(field.shape[0]):
        out[part] = (field[part].astype(np.float64) - _offset(field.shape, part, moving - fixed)) @ back
    return out


def slabs(size: int, step: int = SLAB) -> Iterator[slice]:
    """Slices that cover an axis, `step` planes each, so that temporary arrays stay small."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def index_block(shape: Tuple[int, ...], part: slice) -> np.ndarray:
    """Voxel indices of the planes `part` of the first axis: (n, Y, Z, 3), float64."""
    block = np.empty((part.stop - part.start, shape[1], shape[2], 3))
    block[..., 0] = np.arange(part.start, part.stop)[:, np.newaxis, np.newaxis]
    block[..., 1] = np.arange(shape[1])[:, np.newaxis]
    block[..., 2] = np.arange(shape[2])
    return block


def check_finite(field: np.ndarray, what: str, expected: str = "finite displacements") -> None:
    """Raise VolumeError with the count and the first index of NaN or Inf."""
    bad, first = 0, None
    for part in slabs(field.shape[0]):
        wrong = ~np.isfinite(field[part])
        n = int(np.count_nonzero(wrong))
        if n and first is None:
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            first = (int(at[0]) + part.start,) + tuple(int(i) for i in at[1:])
        bad += n
    if bad:
        raise VolumeError(f"{what}: {bad} values are NaN or infinite, the first at index {first}; expected {expected}")


def _offset(shape: Tuple[int, ...], part: slice, difference: np.ndarray) -> np.ndarray:
    """(A_M − A_F) x of a slab, in mm; one zero vector if the grids are equal."""
    return apply_affine(difference, index_block(shape, part)) if difference.any() else np.zeros(3)
