# SPDX-License-Identifier: Apache-2.0
"""Error statistics, end-point error, Dice and the Jacobian, in float64, in chunks: memory does not grow with the volume.

One definition for export's parity and the runner's precision report. NumPy only; no limits live here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError

_CHUNK = 1 << 20
_SLAB = 8
#: the largest errors kept for percentiles: p99 is the lowest that is asked for
_TAIL = 0.01


@dataclass(frozen=True)
class ErrorStats:
    """How far `test` is from `reference`, over the finite pairs only.

    Non-finite values are counted, never averaged away: `finite` is False as soon as either side has one. Where a figure is
    undefined (cosine of a zero vector, PSNR of equal arrays) it is None.
    """

    n: int
    nan_count: int
    inf_count: int
    max_abs: float
    max_index: Tuple[int, ...]
    mean_abs: float
    p99_abs: float
    p999_abs: float
    rmse: float
    cosine: Optional[float]
    one_minus_cosine: Optional[float]
    relative_euclidean: Optional[float]
    psnr_db: Optional[float]
    psnr_peak: Optional[float]

    @property
    def finite(self) -> bool:
        return self.nan_count == 0 and self.inf_count == 0

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "max_index": list(self.max_index)}


@dataclass(frozen=True)
class EndPointError:
    """Length of the difference of two displacement fields per voxel, in one unit."""

    unit: str
    n: int
    max: float
    max_index: Tuple[int, ...]
    mean: float
    p99: float
    p999: float

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "max_index": list(self.max_index)}


@dataclass(frozen=True)
class DiceScores:
    """Dice per label and their mean over the labels present in both segmentations (`n_labels` of them)."""

    per_label: Dict[int, float]
    mean: float
    n_labels: int


@dataclass(frozen=True)
class Folding:
    """Where x + u(x) is not locally one to one: voxels with a Jacobian determinant of at most zero."""

    n_voxels: int
    n_folded: int
    minimum: float

    @property
    def fraction(self) -> float:
        return self.n_folded / self.n_voxels


class _Tail:
    """Exact upper percentiles of a stream of known length: keeps only the largest values."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.keep = min(n, int(math.ceil(n * _TAIL)) + 2)
        self.values = np.empty(0)

    def add(self, chunk: np.ndarray) -> None:
        merged = np.concatenate([self.values, chunk])
        if merged.size > self.keep:
            merged = np.partition(merged, merged.size - self.keep)[-self.keep :]
        self.values = merged

    def percentile(self, q: float, n: int) -> float:
        """Linear interpolation between order statistics, as numpy.percentile; `n` values were added."""
        if n == 0:
            return 0.0
        ordered = np.sort(self.values)
        position = (n - 1) * q / 100.0 - (n - ordered.size)
        low = int(math.floor(position))
        high = min(low + 1, ordered.size - 1)
        return float(ordered[low] + (position - low) * (ordered[high] - ordered[low]))


def error_stats(test: np.ndarray, reference: np.ndarray, peak: Optional[float] = None) -> ErrorStats:
    """Compare two arrays of one shape.

    Parameters
    ----------
    test, reference : ndarray, any equal shape, real dtype.
    peak : float — the signal's full scale for PSNR = 10 log10(peak² / MSE); None leaves PSNR out.
    """
    _check_same_shape(test, reference)
    sums = dict.fromkeys(("abs", "sq", "aa", "bb", "ab", "difference"), 0.0)
    nan_count = inf_count = used = 0
    max_abs, max_at, tail = 0.0, 0, _Tail(test.size)
    for start, a, b in _pairs(test, reference):
        nan = np.isnan(a) | np.isnan(b)
        good = np.isfinite(a) & np.isfinite(b)
        nan_count += int(nan.sum())
        inf_count += int((~good & ~nan).sum())
        a, b = np.where(good, a, 0.0), np.where(good, b, 0.0)
        d = a - b
        error = np.abs(d)
        at = int(error.argmax())
        if error[at] > max_abs:
            max_abs, max_at = float(error[at]), start + at
        sums["abs"] += error.sum()
        sums["sq"] += d @ d
        sums["aa"] += a @ a
        sums["bb"] += b @ b
        sums["ab"] += a @ b
        sums["difference"] += d @ (a + b)
        used += int(good.sum())
        tail.add(error[good])
    return _finish(test.shape, used, nan_count, inf_count, max_abs, max_at, sums, tail, peak)


def _finish(
    shape: Tuple[int, ...],
    used: int,
    nan_count: int,
    inf_count: int,
    max_abs: float,
    max_at: int,
    sums: Dict[str, float],
    tail: _Tail,
    peak: Optional[float],
) -> ErrorStats:
    mse = sums["sq"] / max(used, 1)
    norm_a, norm_b = math.sqrt(sums["aa"]), math.sqrt(sums["bb"])
    cosine = one_minus = None
    if norm_a > 0 and norm_b > 0:
        cosine = min(1.0, sums["ab"] / (norm_a * norm_b))
        # 1 − cos = (|a−b|² − (|a|−|b|)²) / (2|a||b|): keeps digits where cos itself rounds to 1.
        gap = sums["difference"] / (norm_a + norm_b)
        one_minus = max(0.0, (sums["sq"] - gap * gap) / (2 * norm_a * norm_b))
    return ErrorStats(
        n=used,
        nan_count=nan_count,
        inf_count=inf_count,
        max_abs=max_abs,
        max_index=_index(max_at, shape),
        mean_abs=sums["abs"] / max(used, 1),
        p99_abs=tail.percentile(99.0, used),
        p999_abs=tail.percentile(99.9, used),
        rmse=math.sqrt(mse),
        cosine=cosine,
        one_minus_cosine=one_minus,
        relative_euclidean=math.sqrt(sums["sq"]) / norm_b if norm_b > 0 else None,
        psnr_db=10 * math.log10(peak * peak / mse) if peak and mse > 0 else None,
        psnr_peak=peak,
    )


def end_point_error(
    test: np.ndarray, reference: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), unit: str = "voxel"
) -> EndPointError:
    """End-point error of two flows.

    Parameters
    ----------
    test, reference : ndarray, shape (…, 3) — displacement in voxels.
    spacing : three floats — voxel sizes that turn components into `unit` (mm), or ones for voxels.

    Voxels where either flow is not finite are left out; `error_stats` counts them.
    """
    _check_same_shape(test, reference)
    scale = np.asarray(spacing, dtype=np.float64)
    total, used, best, best_at = 0.0, 0, 0.0, 0
    tail = _Tail(test.size // 3)
    for start, a, b in _pairs(test, reference, multiple=3):
        with np.errstate(invalid="ignore"):
            length = np.sqrt((((a - b).reshape(-1, 3) * scale) ** 2).sum(axis=1))
        good = np.isfinite(length)
        used += int(good.sum())
        length = np.where(good, length, 0.0)
        at = int(length.argmax())
        if length[at] > best:
            best, best_at = float(length[at]), start // 3 + at
        total += length.sum()
        tail.add(length[good])
    return EndPointError(
        unit, used, best, _index(best_at, test.shape[:-1]), total / max(used, 1), tail.percentile(99.0, used), tail.percentile(99.9, used)
    )


def dice(test: np.ndarray, reference: np.ndarray, labels: Sequence[int]) -> DiceScores:
    """Dice = 2|A∩B| / (|A|+|B|) per label; NaN, and left out of the mean, where a label is absent from either segmentation.

    (Some older code scores an absent label 0, which drags the mean down; Learn2Reg uses NaN as here.)
    """
    _check_same_shape(test, reference)
    ids = np.unique(np.asarray(labels, dtype=np.int64))
    size = len(ids) + 1
    joint = np.zeros((size, size), dtype=np.int64)
    for _, a, b in _pairs(test, reference, dtype=np.int64):
        joint += np.bincount(_slot(a, ids) * size + _slot(b, ids), minlength=size * size).reshape(size, size)
    count_a, count_b, both = joint.sum(axis=1), joint.sum(axis=0), np.diag(joint)
    scores = {
        int(label): 2.0 * both[i + 1] / (count_a[i + 1] + count_b[i + 1]) if count_a[i + 1] and count_b[i + 1] else float("nan")
        for i, label in enumerate(ids)
    }
    present = [score for score in scores.values() if not math.isnan(score)]
    return DiceScores(scores, float(np.mean(present)) if present else float("nan"), len(present))


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
    size = flow_vox.shape[0]
    for start in range(0, size, _SLAB):
        stop = min(start + _SLAB, size)
        low, high = max(start - 1, 0), min(stop + 1, size)
        # One halo plane each side makes the slab's own planes central; at the volume's faces there is none.
        block = flow_vox[low:high].astype(np.float64)
        inner = slice(start - low, start - low + stop - start)
        rows = [[g[inner] for g in np.gradient(block[..., component])] for component in range(3)]
        for axis in range(3):
            rows[axis][axis] = rows[axis][axis] + 1.0
        (a, b, c), (d, e, f), (g, h, i) = rows
        yield a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def folding(flow_vox: np.ndarray) -> Folding:
    """Count voxels with a determinant of at most zero (non-finite ones count as folded); see `jacobian_slabs`."""
    folded, minimum = 0, math.inf
    for slab in jacobian_slabs(flow_vox):
        with np.errstate(invalid="ignore"):
            folded += int(np.count_nonzero(~(slab > 0)))
        finite = slab[np.isfinite(slab)]
        minimum = min(minimum, float(finite.min())) if finite.size else minimum
    return Folding(int(np.prod(flow_vox.shape[:3])), folded, minimum)


def _pairs(a: np.ndarray, b: np.ndarray, multiple: int = 1, dtype: Any = np.float64) -> Iterator[Tuple[int, np.ndarray, np.ndarray]]:
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    step = _CHUNK // multiple * multiple
    for start in range(0, flat_a.size, step):
        yield start, flat_a[start : start + step].astype(dtype), flat_b[start : start + step].astype(dtype)


def _slot(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """1 + position of each value in the sorted `ids`, 0 for others."""
    at = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    return np.where(ids[at] == values, at + 1, 0)


def _index(flat: int, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _check_same_shape(test: np.ndarray, reference: np.ndarray) -> None:
    if test.shape != reference.shape or test.size == 0:
        raise VolumeError(f"comparison: shapes {test.shape} and {reference.shape}, expected two equal, non-empty ones")
