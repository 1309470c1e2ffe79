# SPDX-License-Identifier: Apache-2.0
"""Numerical inversion of a map in space by damped fixed-point iteration, point by point; and the error of any inverse.

For a target point q it seeks the source p with T(p) = q: p ← p + s · A⁻¹ (q − T(p)), where A is the affine part of T
and s is halved whenever the residual grows. It converges if T differs from A by less than A itself; in a fold it finds
one of the preimages, or none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import SLAB, Warp, index_block, slabs
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.geometry.jacobian import folds
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.geometry.resample import resample, sample_nearest

#: any two programs that keep to it end within 1e-3 voxel of each other, at 1 mm
TOLERANCE_MM = 4e-4
MAX_ITERATIONS = 60
_SAMPLES = 12
#: values of the mask image
INSIDE_FOLD, NOT_CONVERGED, OUTSIDE = 1, 2, 4


@dataclass(frozen=True)
class Consistency:
    """Distances in mm over `n` voxels."""

    n: int
    mean: float
    p95: float
    max: float


@dataclass(frozen=True)
class InverseReport:
    """The accuracy of an inversion.

    Parameters
    ----------
    moving_mm : Consistency — |T(T⁻¹(q)) − q| at the moving voxels whose preimage is on the fixed grid.
    fixed_mm : Consistency — |T⁻¹(T(p)) − p| at the fixed voxels that T maps onto the moving grid, T⁻¹ interpolated
        linearly.
    folded : int — moving voxels whose preimage is in a fold (determinant at most 0).
    method : str — ``fixed point``, or ``negative velocity``, which needs no iteration.
    not_converged, outside : int — moving voxels with a residual above the tolerance, and those with a preimage outside
        the fixed grid.
    """

    moving_mm: Consistency
    fixed_mm: Consistency
    folded: int
    not_converged: int
    outside: int
    tolerance_mm: float
    method: str = "fixed point"

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


def solve(
    mapping: Callable[[np.ndarray], np.ndarray],
    points: np.ndarray,
    affine: np.ndarray,
    tolerance: float = TOLERANCE_MM,
    max_iterations: int = MAX_ITERATIONS,
) -> Tuple[np.ndarray, np.ndarray]:
    """Preimages of points under a map.

    Parameters
    ----------
    mapping : callable — RAS points (n, 3) → RAS points (n, 3), mm.
    points : ndarray, shape (n, 3) — targets, RAS mm.
    affine : ndarray, shape (4, 4) — the map's affine part, which determines start and step.

    Returns
    -------
    found : ndarray, shape (n, 3) — RAS mm; residual : ndarray, shape (n,) — |T(found) − point| in mm.
    """
    back = np.linalg.inv(affine)
    found = apply_affine(back, points)
    error = points - mapping(found)
    residual, step = np.linalg.norm(error, axis=-1), np.ones(len(points))
    for _ in range(max_iterations):
        active = np.flatnonzero((residual > tolerance) & (step > 1e-3))
        if not active.size:
            break
        trial = found[active] + step[active, np.newaxis] * (error[active] @ back[:3, :3].T)
        trial_error = points[active] - mapping(trial)
        trial_residual = np.linalg.norm(trial_error, axis=-1)
        better = trial_residual < residual[active]
        step[active[~better]] *= 0.5
        chosen = active[better]
        found[chosen], error[chosen], residual[chosen] = trial[better], trial_error[better], trial_residual[better]
    return found, residual


def invert(
    warp: Warp, target: Optional[Grid] = None, tolerance: float = TOLERANCE_MM
) -> Tuple[Warp, np.ndarray, InverseReport]:
    """The inverse of a warp as a warp.

    Parameters
    ----------
    target : Grid — grid of the inverse; default: the moving grid.

    Returns
    -------
    inverse : Warp — float32, from `target` to the fixed grid: moving points to fixed points, resamples the fixed image.
    mask : ndarray, shape of `target`, uint8 — sum of 1 (in a fold), 2 (not converged), 4 (preimage outside the fixed
        grid).
    report : InverseReport
    """
    target, affine = target or warp.moving, affine_part(warp)
    if compiled_for(target.shape):
        return _compiled(warp, target, affine, tolerance)
    mapping = SpaceMap([warp])
    u, mask = np.empty(target.shape + (3,), dtype=np.float32), np.zeros(target.shape, dtype=np.uint8)
    folded, errors = folds(warp), []
    for part in slabs(target.shape[0]):
        index = index_block(target.shape, part)
        found, residual = solve(mapping, apply_affine(target.affine, index).reshape(-1, 3), affine, tolerance)
        at = apply_affine(warp.fixed.inverse, found)
        inside = warp.fixed.contains(at)
        flags = np.where(inside & sample_nearest(folded, at), INSIDE_FOLD, 0) + np.where(
            residual > tolerance, NOT_CONVERGED, 0
        )
        mask[part] = (flags + np.where(inside, 0, OUTSIDE)).reshape(index.shape[:3])
        u[part] = at.reshape(index.shape) - index
        errors.append(residual[inside].astype(np.float32))
    inverse = Warp(u, target, warp.fixed)
    both_ways = _back_and_forth(mapping, inverse, warp.fixed)
    return inverse, mask, InverseReport(_summary(errors), both_ways, *_counts(mask), tolerance)


def _compiled(warp: Warp, target: Grid, affine: np.ndarray, tolerance: float) -> Tuple[Warp, np.ndarray, InverseReport]:
    """`invert` by compiled loops: Newton's steps, each voxel from the solution of the one before."""
    u, residual, mask = loops.inverted(warp, target, affine, folds(warp), tolerance, MAX_ITERATIONS)
    inverse = Warp(u, target, warp.fixed)
    figures = _spread(residual), _spread(loops.there_and_back(warp, inverse))
    return inverse, mask, InverseReport(*figures, *_counts(mask), tolerance)


def _measured(warp: Warp, inverse: Warp, method: str) -> InverseReport:
    """`measure` by compiled loops."""
    there = loops.there_and_back(inverse, warp)
    folded = resample(folds(warp).view(np.uint8), inverse, "nearest")
    figures = _spread(there), _spread(loops.there_and_back(warp, inverse))
    in_fold, outside = int(np.count_nonzero(folded)), int(np.count_nonzero(there < 0))
    return InverseReport(*figures, in_fold, 0, outside, TOLERANCE_MM, method)


def _spread(distances: np.ndarray) -> Consistency:
    """Of the points on the grid; the others are −1."""
    return Consistency(*loops.spread(distances, 95))


def _counts(mask: np.ndarray) -> Tuple[int, int, int]:
    """Voxels in folds, not converged, outside."""
    in_fold, unsolved, outside = (int(np.count_nonzero(mask & flag)) for flag in (INSIDE_FOLD, NOT_CONVERGED, OUTSIDE))
    return in_fold, unsolved, outside


def measure(warp: Warp, inverse: Warp, method: str) -> InverseReport:
    """The accuracy of an inverse from another method; no voxel counts as not converged.

    Parameters
    ----------
    warp, inverse : Warp — fixed to moving grid, and back.
    """
    if compiled_for(inverse.fixed.shape):
        return _measured(warp, inverse, method)
    mapping, back, folded = SpaceMap([warp]), SpaceMap([inverse]), folds(warp)
    errors, counts = [], np.zeros(2, dtype=int)
    for part in slabs(inverse.fixed.shape[0]):
        q = apply_affine(inverse.fixed.affine, index_block(inverse.fixed.shape, part)).reshape(-1, 3)
        p = back(q)
        at = apply_affine(warp.fixed.inverse, p)
        inside = warp.fixed.contains(at)
        counts += np.count_nonzero(inside & sample_nearest(folded, at)), np.count_nonzero(~inside)
        errors.append(np.linalg.norm(mapping(p[inside]) - q[inside], axis=-1).astype(np.float32))
    both_ways = _summary(errors), _back_and_forth(mapping, inverse, warp.fixed)
    return InverseReport(*both_ways, int(counts[0]), 0, int(counts[1]), TOLERANCE_MM, method)


def affine_part(warp: Warp) -> np.ndarray:
    """The affine map (RAS → RAS, 4×4) that is closest to a warp in the least-squares sense, from a coarse sample of its
    voxels.
    """
    axes = [np.unique(np.linspace(0, n - 1, min(n, _SAMPLES)).round().astype(int)) for n in warp.fixed.shape]
    if min(len(axis) for axis in axes) < 2:
        raise VolumeError(f"inversion: a warp on {warp.fixed.describe()}, expected at least 2 voxels along each axis")
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    p = apply_affine(warp.fixed.affine, index)
    q = apply_affine(warp.moving.affine, index + warp.u[tuple(index.T)])
    centre = p.mean(axis=0)
    solution = np.linalg.lstsq(np.hstack([p - centre, np.ones((len(p), 1))]), q, rcond=None)[0]
    matrix = np.eye(4)
    matrix[:3, :3] = solution[:3].T
    matrix[:3, 3] = solution[3] - matrix[:3, :3] @ centre
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-3:
        raise VolumeError("inversion: the warp collapses space and has no inverse; was it read in the right format?")
    return matrix


def _back_and_forth(mapping: SpaceMap, inverse: Warp, fixed: Grid) -> Consistency:
    back, errors = SpaceMap([inverse]), []
    for part in slabs(fixed.shape[0], SLAB):
        p = apply_affine(fixed.affine, index_block(fixed.shape, part)).reshape(-1, 3)
        q = mapping(p)
        inside = inverse.fixed.contains(apply_affine(inverse.fixed.inverse, q))
        errors.append(np.linalg.norm(back(q[inside]) - p[inside], axis=-1).astype(np.float32))
    return _summary(errors)


def _summary(parts: Sequence[np.ndarray]) -> Consistency:
    values = np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
    if not values.size:
        return Consistency(0, 0.0, 0.0, 0.0)
    return Consistency(
        int(values.size), float(values.mean(dtype=np.float64)), float(np.percentile(values, 95)), float(values.max())
    )
