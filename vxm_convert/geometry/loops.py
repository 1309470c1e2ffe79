# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over whole grids, NumPy arrays in and out. Callers ask `compiled.compiled_for` first; their own NumPy or
SciPy code is the reference.

Fields of displacement are float32 here. At 256 voxels that is a step of 1.5e-5 voxel.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.geometry.compiled import as_field, by_planes, kernel, plain, rows_of
from vxm_convert.geometry.fields import Warp, index_block
from vxm_convert.geometry.grids import Grid, apply_affine

_NO_FIELD = np.empty((0, 0, 0, 3), dtype=np.float32)
_IDENTITY = np.eye(4)[:3]


def can_resample(image: np.ndarray, interpolation: str) -> bool:
    """Whether the loops take this image: float64 is for the reference, and labels must fit int32."""
    if interpolation == "linear":
        return image.dtype.kind in "uibf" and image.dtype != np.float64
    if interpolation == "labels" and image.dtype.kind in "ui" and image.dtype.itemsize >= 4 and image.size:
        limits = np.iinfo(np.int32)
        return bool(limits.min <= int(image.min()) and int(image.max()) <= limits.max)
    return True


def resampled(
    image: np.ndarray,
    shape: Tuple[int, int, int],
    matrix: np.ndarray,
    u: Optional[np.ndarray],
    interpolation: str,
    zero: bool,
    fill: float = 0,
) -> np.ndarray:
    """An image on a grid of `shape`, at the positions matrix · x + u.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z) — one that `can_resample` accepts.
    matrix : ndarray, shape (4, 4) — voxel → voxel of the image.
    u : ndarray, shape (…, 3), or None — voxels of the image.
    interpolation : str — ``linear``, ``nearest`` or ``labels``, as in `resample`.
    zero : bool — `fill` outside the box of the image's voxels; else its border.

    Returns
    -------
    ndarray — float32 for ``linear``, else the image's dtype.
    """
    rows, field = np.ascontiguousarray(matrix[:3], dtype=np.float64), _NO_FIELD if u is None else as_field(u)
    out = np.empty(shape, dtype=np.float32 if interpolation == "linear" else image.dtype)

    def displaced(part: slice) -> np.ndarray:
        return field if u is None else field[part]

    if interpolation == "linear":
        source, loop = plain(image, np.float32), kernel("linear")
        by_planes(shape[0], lambda part: loop(source, rows, displaced(part), part.start, zero, float(fill), out[part]))
    elif interpolation == "labels":
        source, loop = plain(image, np.int32), kernel("labels")
        found = out if out.dtype == np.int32 else np.empty(shape, dtype=np.int32)

        def vote(part: slice) -> None:
            room = np.empty(8, np.int32), np.empty(8)
            loop(source, rows, displaced(part), part.start, zero, int(fill), *room, found[part])

        by_planes(shape[0], vote)
        out = found.astype(image.dtype, copy=False)
    else:
        flat, gather = np.ascontiguousarray(image).reshape(-1), kernel("nearest")

        def take(part: slice) -> None:
            at = np.empty((part.stop - part.start,) + shape[1:], dtype=np.int64)
            gather(image.shape, rows, displaced(part), part.start, zero, at)
            flat.take(at, mode="clip", out=out[part])
            if zero:
                out[part][at < 0] = fill

        by_planes(shape[0], take)
    return out


class Link(NamedTuple):
    """One warp of a chain for the loops.

    Parameters
    ----------
    before : ndarray, shape (3, 4) — to the warp's fixed voxels.
    field : ndarray, shape (X, Y, Z, 3), float32 — voxels.
    skew : ndarray, shape (3, 4) — A_M⁻¹ A_F: how the loops continue a field beyond its grid.
    """

    before: np.ndarray
    field: np.ndarray
    skew: np.ndarray


def link(warp: Warp, before: np.ndarray) -> Link:
    """A warp after an affine `before`, shape (4, 4), to its fixed voxels."""
    return Link(rows_of(before), as_field(warp.u), rows_of(warp.moving.inverse @ warp.fixed.affine))


def composed(links: Sequence[Link], after: np.ndarray, shape: Tuple[int, int, int], zero: bool) -> np.ndarray:
    """Displacement on a grid of `shape`: through the warps in order, then `after`, shape (4, 4), minus the voxel itself.

    Parameters
    ----------
    zero : bool — beyond a warp's grid points stay where they are; else they move as its border does.

    Returns
    -------
    ndarray, shape (X, Y, Z, 3), float32.
    """
    out, last = np.empty(shape + (3,), dtype=np.float32), rows_of(after)
    if len(links) <= 1:
        # Without a warp: one voxel that does not move, continued over the whole grid.
        one = links[0] if links else Link(_IDENTITY, np.zeros((1, 1, 1, 3), dtype=np.float32), _IDENTITY)
        loop = kernel("compose")
        by_planes(shape[0], lambda part: loop(*one, last, zero and bool(links), part.start, out[part]))
        return out
    step = kernel("through")

    def chain(part: slice) -> None:
        index = index_block(shape, part)
        points = index.reshape(-1, 3).copy()
        for one in links:
            step(*one, zero, points)
        out[part] = apply_affine(after, points).reshape(index.shape) - index

    by_planes(shape[0], chain)
    return out


def added(flow: np.ndarray) -> np.ndarray:
    """flow + flow∘(id + flow), borders repeated; (X, Y, Z, 3) float32 in and out."""
    out, field, step = np.empty(flow.shape, dtype=np.float32), as_field(flow), kernel("through")

    def double(part: slice) -> None:
        index = index_block(flow.shape, part)
        points = (index + field[part]).reshape(-1, 3)
        step(_IDENTITY, field, _IDENTITY, False, points)
        out[part] = points.reshape(index.shape) - index

    by_planes(flow.shape[0], double)
    return out


def inverted(
    warp: Warp, target: Grid, affine: np.ndarray, folded: np.ndarray, tolerance: float, iterations: int
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Preimages of the voxels of `target` under a warp.

    Parameters
    ----------
    affine : ndarray, shape (4, 4) — the warp's affine part, RAS mm.
    folded : ndarray, shape of the fixed grid, bool.
    tolerance : float — mm.

    Returns
    -------
    u : ndarray, shape (X, Y, Z, 3), float32 — fixed voxel minus target voxel; residual : float32, mm, −1 outside the fixed
    grid; mask : uint8, sum of 1 (in a fold), 2 (not solved), 4 (outside).
    """
    shape = target.shape
    u, residual, mask = np.empty(shape + (3,), np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint8)
    back = warp.fixed.inverse @ np.linalg.inv(affine)
    forward = link(warp, np.eye(4))
    matrices = (back @ warp.moving.affine, back @ target.affine, warp.moving.inverse @ target.affine)
    inward, home, to_moving = (rows_of(matrix) for matrix in matrices)
    mm = rows_of(warp.moving.affine)
    folds, loop = np.ascontiguousarray(folded).view(np.uint8), kernel("invert")
    by_planes(
        shape[0],
        lambda part: loop(
            forward.field,
            forward.skew,
            inward,
            home,
            to_moving,
            mm,
            folds,
            tolerance,
            iterations,
            part.start,
            np.empty((shape[2], 3)),
            u[part],
            residual[part],
            mask[part],
        ),
    )
    return u, residual, mask


def there_and_back(warp: Warp, back: Warp) -> np.ndarray:
    """Distance in mm of every fixed voxel of `warp` from itself after `warp` and then `back`; −1 where `warp` leaves the
    grid of `back`. float32.
    """
    out, u, loop = np.empty(warp.fixed.shape, dtype=np.float32), as_field(warp.u), kernel("there_and_back")
    # The last voxels are compared with the first ones, so both must be of one grid.
    way_back = link(back.on_moving(warp.fixed), back.fixed.inverse @ warp.moving.affine)
    mm = rows_of(warp.fixed.affine)
    by_planes(out.shape[0], lambda part: loop(u, *way_back, mm, part.start, out[part]))
    return out


def spread(values: np.ndarray, percent: float) -> Tuple[int, float, float, float]:
    """Number, mean, percentile and largest of the values that are at least 0, float32; all 0 where there are none."""
    flat, counts = plain(values, np.float32).ravel(), np.zeros(1 << 15, dtype=np.int64)
    bits = flat.view(np.int32)
    total, largest = kernel("spread")(flat, bits, counts)
    below = np.cumsum(counts)
    n = int(below[-1])
    if not n:
        return 0, 0.0, 0.0, 0.0
    # The two values around the percentile are the only ones to be found exactly; few share their upper bits.
    rank = percent / 100 * (n - 1)
    low, high = (int(np.searchsorted(below, at, side="right")) for at in (int(rank), min(int(rank) + 1, n - 1)))
    near = np.sort(flat[(bits >= low << 16) & (bits < (high + 1) << 16)])
    first = int(rank) - int(below[low] - counts[low])
    value, after = float(near[first]), float(near[min(first + 1, len(near) - 1)])
    return n, total / n, value + (rank - int(rank)) * (after - value), float(largest)


def determinants(u: np.ndarray, scale: float) -> np.ndarray:
    """Determinant of I + du/dx, times `scale`, of a float32 field; float32."""
    out, field, loop = np.empty(u.shape[:3], dtype=np.float32), as_field(u), kernel("determinant")
    by_planes(u.shape[0], lambda part: loop(field, scale, part.start, out[part]))
    return out


def folds(u: np.ndarray, scale: float) -> np.ndarray:
    """Where the determinant of I + du/dx, times `scale`, is not above 0; bool. The determinants are never in memory as a
    whole.
    """
    out, field, loop = np.empty(u.shape[:3], dtype=bool), as_field(u), kernel("determinant")

    def judge(part: slice) -> None:
        block = np.empty((part.stop - part.start,) + u.shape[1:3], dtype=np.float32)
        loop(field, scale, part.start, block)
        out[part] = ~(block > 0)

    by_planes(u.shape[0], judge)
    return out
