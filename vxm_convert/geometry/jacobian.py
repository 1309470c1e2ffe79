# SPDX-License-Identifier: Apache-2.0
"""The Jacobian of a warp in space: determinant by central differences, the strict test of folding, SDlogJ with its
formula.

The determinant is that of fixed RAS → moving RAS (volume ratio), det(M) / det(F) · det(I + ∂u/∂x), so that different
axes or voxel sizes do not count as folds. For equal grids it is the determinant of the voxel map.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp, slabs
from vxm_convert.metrics.jacobian import jacobian_slabs

_FLOOR = 1e-9
_STRICT_SLAB = 8
SDLOGJ_FORMULA = "standard deviation (divisor n) of ln(max(J, 1e-9))"
L2R_FORMULA = (
    "standard deviation (divisor n) of ln(max(J + 3, 1e-9)) without the outer 2 voxels; folds counted after "
    "that shift (always 0)"
)


@dataclass(frozen=True)
class JacobianFigures:
    """Determinant of a warp.

    Parameters
    ----------
    folded, folded_fraction : voxels with a determinant of at most 0 by central differences.
    strict_folded, strict_fraction : voxels where any of the 8 determinants of one-sided differences is at most 0.
    sdlogj, sdlogj_formula : spread of the logarithm and its formula.
    """

    n_voxels: int
    folded: int
    folded_fraction: float
    strict_folded: int
    strict_fraction: float
    min: float
    p01: float
    p50: float
    p99: float
    max: float
    mean: float
    sdlogj: float
    sdlogj_formula: str

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


def determinant(warp: Warp) -> np.ndarray:
    """Determinant of the map in space, float32."""
    _check_size(warp)
    if _by_loops(warp):
        return loops.determinants(warp.u, _scale(warp))
    out = np.empty(warp.fixed.shape, dtype=np.float32)
    for part, block in _slabs_of(warp):
        out[part] = block
    return out


def folds(warp: Warp) -> np.ndarray:
    """Where the determinant is not above 0; bool."""
    _check_size(warp)
    if _by_loops(warp):
        return loops.folds(warp.u, _scale(warp))
    out = np.empty(warp.fixed.shape, dtype=bool)
    for part, block in _slabs_of(warp):
        out[part] = ~(block > 0)
    return out


def _slabs_of(warp: Warp) -> Iterator[Tuple[slice, np.ndarray]]:
    """The determinant slab by slab along the first axis, float64."""
    scale, at = _scale(warp), 0
    for block in jacobian_slabs(warp.u):
        yield slice(at, at + block.shape[0]), block * scale
        at += block.shape[0]


def _by_loops(warp: Warp) -> bool:
    return warp.u.dtype == np.float32 and compiled_for(warp.fixed.shape)


def _check_size(warp: Warp) -> None:
    if min(warp.fixed.shape) < 2:
        raise VolumeError(f"Jacobian: a warp on {warp.fixed.describe()}, expected at least 2 voxels along each axis")


def strict_folds(warp: Warp) -> np.ndarray:
    """Where any of the eight determinants of forward or backward differences is at most 0; bool.

    At the faces only existing differences count.
    """
    _check_size(warp)
    shape, scale = warp.fixed.shape, _scale(warp)
    out = np.zeros(shape, dtype=bool)
    for part in slabs(shape[0], _STRICT_SLAB):
        low, high = max(part.start - 1, 0), min(part.stop + 1, shape[0])
        sides = _one_sided(warp.u[low:high].astype(np.float64))
        inner = slice(part.start - low, part.stop - low)
        for choice in np.ndindex(2, 2, 2):
            columns = [sides[axis][side][inner] for axis, side in enumerate(choice)]
            out[part] |= ~(_determinant(columns) * scale > 0)
    return out


def jacobian_figures(warp: Warp, mask: Optional[np.ndarray] = None, l2r_compat: bool = False) -> JacobianFigures:
    """All figures, over the whole grid or where `mask` is true.

    With `l2r_compat`, SDlogJ and the count of folds follow the public Learn2Reg evaluation, whose shift by 3 hides
    folds.
    """
    full = determinant(warp)
    if mask is not None and (mask.shape != full.shape or not mask.any()):
        raise VolumeError(
            f"Jacobian: mask of shape {mask.shape} with {int(np.count_nonzero(mask))} voxels, expected some on "
            f"{full.shape}"
        )
    strict = strict_folds(warp)
    values, strict = (full.ravel(), strict.ravel()) if mask is None else (full[mask], strict[mask])
    folded = int(np.count_nonzero(~(values > 0)))
    low, median, high = (float(v) for v in np.percentile(values, (1, 50, 99)))
    if l2r_compat:
        inner = full[2:-2, 2:-2, 2:-2] if min(full.shape) > 4 else full
        spread, formula, folded = _sd_log(inner + 3.0), L2R_FORMULA, 0
    else:
        spread, formula = _sd_log(values), SDLOGJ_FORMULA
    n, n_strict = int(values.size), int(np.count_nonzero(strict))
    return JacobianFigures(
        n_voxels=n,
        folded=folded,
        folded_fraction=folded / n,
        strict_folded=n_strict,
        strict_fraction=n_strict / n,
        min=float(values.min()),
        p01=low,
        p50=median,
        p99=high,
        max=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        sdlogj=spread,
        sdlogj_formula=formula,
    )


def _scale(warp: Warp) -> float:
    """det(M) / det(F): 1 for equal grids, negative if one of them is mirrored in the array."""
    return float(np.linalg.det(warp.moving.affine[:3, :3]) / np.linalg.det(warp.fixed.affine[:3, :3]))


def _sd_log(values: np.ndarray) -> float:
    return float(np.log(np.maximum(values.astype(np.float64), _FLOOR)).std())


def _one_sided(u: np.ndarray) -> List[Tuple[np.ndarray, np.ndarray]]:
    """(forward, backward) differences of x + u per axis, with the existing one repeated at the faces; each (…, 3)."""
    sides = []
    for axis in range(3):
        step = np.diff(u, axis=axis)
        step[..., axis] += 1.0
        first, last = np.take(step, [0], axis=axis), np.take(step, [-1], axis=axis)
        sides.append((np.concatenate([step, last], axis=axis), np.concatenate([first, step], axis=axis)))
    return sides


def _determinant(columns: Sequence[np.ndarray]) -> np.ndarray:
    a, b, c = columns
    return np.einsum("...i,...i->...", a, np.cross(b, c))
