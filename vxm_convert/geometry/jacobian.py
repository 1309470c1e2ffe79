# SPDX-License-Identifier: Apache-2.0
"""The Jacobian of a warp in space: determinant by central differences, the strict test of folding, SDlogJ with its
formula.

The determinant is that of fixed RAS → moving RAS (volume ratio), det(M) / det(F) · det(I + ∂u/∂x), so that different
axes or voxel sizes do not count as folds. For equal grids it is the determinant of the voxel map.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry import loops
from vxm_convert.geometry.compiled import compiled_for
from vxm_convert.geometry.fields import Warp, slabs
from vxm_convert.metrics.jacobian import jacobian_slabs

_FLOOR = 1e-9
_STRICT_SLAB = 8
_RANGE_SLAB = 32
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
    return _Determinant(warp).of(warp.u)


def determinant_plane(warp: Warp, axis: int, index: int) -> np.ndarray:
    """One plane of `determinant`, computed from its neighbours alone; the side across it is 1."""
    low = max(index - 1, 0)
    near = [slice(None)] * 3
    near[axis] = slice(low, min(index + 2, warp.fixed.shape[axis]))
    return np.take(_Determinant(warp).of(warp.u[tuple(near)]), [index - low], axis)


class DeterminantRange(NamedTuple):
    """Extremes of `determinant`, and at how many voxels it is not above 0."""

    folded: int
    lowest: float
    highest: float


def determinant_range(warp: Warp) -> DeterminantRange:
    """The range of `determinant`, which is never in memory as a whole."""
    computed, parts = _Determinant(warp), []
    for part in slabs(warp.fixed.shape[0], _RANGE_SLAB):
        # With a neighbour on either side, which counts for nothing but the differences.
        low, high = max(part.start - 1, 0), min(part.stop + 1, warp.fixed.shape[0])
        values = computed.of(warp.u[low:high])[part.start - low : part.stop - low]
        parts.append((int(np.count_nonzero(~(values > 0))), float(values.min()), float(values.max())))
    folded, lowest, highest = zip(*parts)
    return DeterminantRange(sum(folded), float(np.min(lowest)), float(np.max(highest)))


def folds(warp: Warp) -> np.ndarray:
    """Where the determinant is not above 0; bool."""
    computed = _Determinant(warp)
    if computed.by_loops:
        return loops.folds(warp.u, computed.scale)
    out = np.empty(warp.fixed.shape, dtype=bool)
    for part, block in computed.slabs_of(warp.u):
        out[part] = ~(block > 0)
    return out


class _Determinant:
    """How a warp's determinants are computed, of the whole or of a part of its field with the same bits."""

    def __init__(self, warp: Warp) -> None:
        _check_size(warp)
        self.scale = _scale(warp)
        self.by_loops = warp.u.dtype == np.float32 and compiled_for(warp.fixed.shape)

    def of(self, u: np.ndarray) -> np.ndarray:
        """Of a field, float32."""
        if self.by_loops:
            return loops.determinants(u, self.scale)
        out = np.empty(u.shape[:3], dtype=np.float32)
        for part, block in self.slabs_of(u):
            out[part] = block
        return out

    def slabs_of(self, u: np.ndarray) -> Iterator[Tuple[slice, np.ndarray]]:
        """Slab by slab along the first axis, float64, without loops."""
        at = 0
        for block in jacobian_slabs(u):
            yield slice(at, at + block.shape[0]), block * self.scale
            at += block.shape[0]


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
