# SPDX-License-Identifier: Apache-2.0
"""Where a displacement field folds, and the distribution of its Jacobian determinant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from vxm_convert.metrics.chunked import in_order, percentiles

#: planes of the first axis per step
SLAB = 4
#: edges of the histogram of the determinant, and the number of bins
_HISTOGRAM = (-1.0, 3.0, 80)
_PERCENTS = (1.0, 50.0, 99.0)


@dataclass(frozen=True)
class Folding:
    """Folding, where x + u(x) is not locally one to one: voxels with a Jacobian determinant of at most zero."""

    n_voxels: int
    n_folded: int
    minimum: float
    maximum: float = math.nan

    @property
    def fraction(self) -> float:
        return self.n_folded / self.n_voxels


@dataclass(frozen=True)
class JacobianStats:
    """Folding, percentiles and histogram of the determinant over voxels with a finite one; NaN if there are none."""

    folding: Folding
    p01: float
    p50: float
    p99: float
    maximum: float
    histogram: Dict[str, List[float]]

    def to_dict(self) -> Dict[str, Any]:
        return {"min": self.folding.minimum, "p01": self.p01, "p50": self.p50, "p99": self.p99, "max": self.maximum}


def jacobian_slabs(flow_vox: np.ndarray) -> Iterator[np.ndarray]:
    """Jacobian determinant of x + u(x), slab by slab along the first axis.

    Central differences inside, one-sided at the faces (as numpy.gradient).

    Parameters
    ----------
    flow_vox : ndarray, shape (X, Y, Z, 3) — displacement in voxels, every side at least 2.

    Yields
    ------
    ndarray, shape (n, Y, Z), float64.
    """
    return in_order(lambda start, stop: _determinant(flow_vox, start, stop), _slabs(flow_vox.shape[0]))


def _slabs(size: int) -> List[Tuple[int, int]]:
    return [(start, min(start + SLAB, size)) for start in range(0, size, SLAB)]


def _determinant(flow_vox: np.ndarray, start: int, stop: int) -> np.ndarray:
    low, high = max(start - 1, 0), min(stop + 1, flow_vox.shape[0])
    # One halo plane on each side makes the slab's own planes central; there is none at the volume's faces.
    block = np.moveaxis(np.asarray(flow_vox[low:high]), -1, 0).astype(np.float64, order="C")
    inner = slice(start - low, start - low + stop - start)
    central = (low, high) == (start - 1, stop + 1)
    with np.errstate(invalid="ignore", over="ignore"):
        rows = [
            [
                part[2:] - part[:-2] if central else _twice_derivative(part, 0)[inner],
                _twice_derivative(part[inner], 1),
                _twice_derivative(part[inner], 2),
            ]
            for part in block
        ]
        for axis in range(3):
            rows[axis][axis] += 2.0
        (a, b, c), (d, e, f), (g, h, i) = rows
        a *= _minor(e, i, f, h)
        b *= _minor(d, i, f, g)
        c *= _minor(d, h, e, g)
        a -= b
        a += c
        # Determinant of twice the matrix: a power of two changes no digit.
        a *= 0.125
        return a


def _minor(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """a b - c d."""
    out = a * b
    out -= c * d
    return out


def _twice_derivative(values: np.ndarray, axis: int) -> np.ndarray:
    """Twice numpy.gradient along one axis, with unit steps, in one operation instead of eight."""
    out = np.empty_like(values)
    source, target = np.moveaxis(values, axis, 0), np.moveaxis(out, axis, 0)
    np.subtract(source[2:], source[:-2], out=target[1:-1])
    for face, inside, outside in ((0, 1, 0), (-1, -1, -2)):
        np.subtract(source[inside], source[outside], out=target[face])
        target[face] *= 2.0
    return out


def folding(flow_vox: np.ndarray) -> Folding:
    """Count voxels with a determinant of at most zero (non-finite ones count as folded); see `jacobian_slabs`."""
    folded, minimum, maximum = 0, math.inf, -math.inf
    for slab in jacobian_slabs(flow_vox):
        folded += _count_folded(slab)
        finite = _finite(slab)
        if finite.size:
            minimum, maximum = min(minimum, float(finite.min())), max(maximum, float(finite.max()))
    return Folding(int(np.prod(flow_vox.shape[:3])), folded, minimum, maximum)


def jacobian_stats(flow_vox: np.ndarray) -> JacobianStats:
    """Folding and distribution of the determinant; keeps one float32 per voxel for the percentiles."""
    low, high, bins = _HISTOGRAM
    folded, minimum, maximum, used = 0, math.inf, -math.inf, 0
    kept = np.empty(int(np.prod(flow_vox.shape[:3])), dtype=np.float32)
    counts = np.zeros(bins + 2, dtype=np.int64)
    for some in in_order(lambda start, stop: _Slab(_determinant(flow_vox, start, stop)), _slabs(flow_vox.shape[0])):
        folded += some.folded
        minimum, maximum = min(minimum, some.minimum), max(maximum, some.maximum)
        kept[used : used + some.values.size] = some.values
        used += some.values.size
        counts += some.counts
    known = kept[:used]
    p01, p50, p99 = percentiles(known, used, _PERCENTS) if used else [math.nan] * 3
    histogram: Dict[str, Any] = {
        "edges": [float(edge) for edge in np.linspace(low, high, bins + 1)],
        "counts": [int(c) for c in counts[1:-1]],
        "below": int(counts[0]),
        "above": int(counts[-1]),
    }
    stats = Folding(kept.size, folded, minimum, maximum)
    return JacobianStats(stats, p01, p50, p99, float(known.max()) if used else math.nan, histogram)


class _Slab:
    """Figures of one slab of determinants."""

    def __init__(self, slab: np.ndarray) -> None:
        low, high, bins = _HISTOGRAM
        self.folded = _count_folded(slab)
        finite = _finite(slab)
        self.minimum, self.maximum = (
            (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)
        )
        with np.errstate(over="ignore"):
            self.values = finite.astype(np.float32)
        finite -= low
        finite *= bins / (high - low)
        finite += 1.0
        if not low <= self.minimum <= self.maximum < high:
            finite = np.minimum(np.maximum(finite, 0.0), bins + 1.0)
        self.counts = np.bincount(finite.astype(np.intp), minlength=bins + 2)


def _count_folded(slab: np.ndarray) -> int:
    with np.errstate(invalid="ignore"):
        return int(slab.size - np.count_nonzero(slab > 0))


def _finite(slab: np.ndarray) -> np.ndarray:
    flat = slab.reshape(-1)
    return flat if math.isfinite(float(flat.sum())) else flat[np.isfinite(flat)]
