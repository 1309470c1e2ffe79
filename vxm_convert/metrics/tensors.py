# SPDX-License-Identifier: Apache-2.0
"""How far one tensor is from another: error statistics and the figures of Ascend's comparer, in two passes, float64, in chunks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.ascend import EPSILON, KL_FLOOR, AscendMetrics, Moments, boolean_only, from_sums, undefined
from vxm_convert.metrics.streams import Percentiles, Spread, chunks, cut, in_order, inner, tasks

PERCENTS = (50.0, 99.0, 99.9)


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
    p50_abs: float
    p99_abs: float
    p999_abs: float
    rmse: float
    cosine: Optional[float]
    one_minus_cosine: Optional[float]
    relative_euclidean: Optional[float]
    psnr_db: Optional[float]
    psnr_peak: Optional[float]
    snr_db: Optional[float]
    first_bad_index: Optional[Tuple[int, ...]]

    @property
    def finite(self) -> bool:
        return self.nan_count == 0 and self.inf_count == 0

    def to_dict(self) -> Dict[str, Any]:
        bad = self.first_bad_index
        return {**asdict(self), "max_index": list(self.max_index), "first_bad_index": None if bad is None else list(bad)}


@dataclass(frozen=True)
class TensorComparison:
    """Both sets of figures of one pair of tensors, and the histogram of |error| by octaves (see `Spread.octaves`)."""

    stats: ErrorStats
    ascend: AscendMetrics
    histogram: Dict[str, List[float]]


class PairSums:
    """What one pass over two tensors x (test) and y (reference) adds up; d = x − y."""

    def __init__(self) -> None:
        self.nan, self.inf, self.first_bad = 0, 0, -1
        self.dd = self.xx = self.yy = self.xy = self.gap = self.relative = self.relative_max = 0.0
        self.x, self.y, self.errors = Moments(), Moments(), Spread()

    def add(self, x: np.ndarray, y: np.ndarray, positions: Callable[[int], int]) -> None:
        """Take finite float64 values."""
        if not x.size:
            return
        d = x - y
        error = np.abs(d)
        self.errors.add(error, positions)
        self.dd += inner(d, d)
        self.xy += inner(x, y)
        self.gap += inner(d, x + y)
        self._add_relative(error, y)
        for tensor, moments, squares in ((x, self.x, "xx"), (y, self.y, "yy")):
            setattr(self, squares, getattr(self, squares) + inner(tensor, tensor))
            mean = float(tensor.mean())
            away = tensor - mean
            moments.add(tensor.size, mean, inner(away, away), float(tensor.min()), float(tensor.max()))

    def _add_relative(self, error: np.ndarray, y: np.ndarray) -> None:
        # |x/y − 1| = |x − y| / |y|, without the rounding of x/y.
        size = np.abs(y)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = error / size
        ratio[size <= EPSILON] = 0.0
        self.relative += float(ratio.sum())
        self.relative_max = max(self.relative_max, float(ratio.max()))

    def merge(self, later: PairSums) -> None:
        """Take the sums of the part behind this one."""
        for name in ("nan", "inf", "dd", "xx", "yy", "xy", "gap", "relative"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.relative_max = max(self.relative_max, later.relative_max)
        if self.first_bad < 0:
            self.first_bad = later.first_bad
        for mine, other in ((self.x, later.x), (self.y, later.y)):
            mine.add(other.n, other.mean, other.m2, other.low, other.high)
        self.errors.merge(later.errors)


class _Pair:
    """Two tensors and an optional mask, read chunk by chunk."""

    def __init__(self, test: np.ndarray, reference: np.ndarray, where: Optional[np.ndarray]) -> None:
        self.test, self.reference, self.where = test, reference, where

    def read(self, start: int, stop: int) -> Tuple[np.ndarray, np.ndarray, Optional[np.ndarray], np.ndarray]:
        """x, y, which elements of the chunk they are (None: all), and for non-finite pairs 1 (Inf) or 2 (NaN)."""
        x, y = cut(self.test, start, stop), cut(self.reference, start, stop)
        wanted = None if self.where is None else cut(self.where, start, stop, bool)
        if wanted is None and math.isfinite(float(x.sum())) and math.isfinite(float(y.sum())):
            return x, y, None, _NONE_BAD
        bad = np.where(np.isnan(x) | np.isnan(y), 2, np.where(np.isfinite(x) & np.isfinite(y), 0, 1))
        if wanted is not None:
            bad[~wanted] = 0
        good = np.flatnonzero((bad == 0) if wanted is None else (bad == 0) & wanted)
        return x[good], y[good], good, bad

    def first_pass(self, start: int, stop: int) -> PairSums:
        sums = PairSums()
        for low, high in chunks(start, stop):
            x, y, good, bad = self.read(low, high)
            if bad.size and bad.any():
                sums.nan += int((bad == 2).sum())
                sums.inf += int((bad == 1).sum())
                sums.first_bad = low + int(bad.nonzero()[0][0]) if sums.first_bad < 0 else sums.first_bad
            sums.add(x, y, lambda at, low=low, good=good: low + (at if good is None else int(good[at])))
        return sums

    def scan(self, pick: Callable[[np.ndarray], Any]) -> Iterator[Any]:
        """`pick` of the absolute errors of every chunk."""
        for part in in_order(lambda a, b: [pick(self._errors(*c)) for c in chunks(a, b)], tasks(self.test.size)):
            yield from part

    def _errors(self, start: int, stop: int) -> np.ndarray:
        x, y, _, _ = self.read(start, stop)
        return np.abs(x - y)


_NONE_BAD = np.zeros(0, dtype=np.int64)


def compare_tensors(
    test: np.ndarray, reference: np.ndarray, peak: Optional[float] = None, where: Optional[np.ndarray] = None
) -> TensorComparison:
    """Compare two tensors of one shape.

    Parameters
    ----------
    test, reference : ndarray, any equal shape, real or bool dtype; memory-mapped files are read piece by piece.
    peak : float — the signal's full scale for PSNR = 10 log10(peak² / MSE); None leaves PSNR out.
    where : ndarray of bool, same shape — which elements count; None for all.

    Raises
    ------
    VolumeError
        Shapes that differ or are empty.
    """
    check_same_shape(test, reference)
    if where is not None:
        check_same_shape(where, reference)
    pair, sums = _Pair(test, reference, where), PairSums()
    for part in in_order(pair.first_pass, tasks(test.size)):
        sums.merge(part)
    percentiles = Percentiles(sums.errors, PERCENTS)
    divergence = _second_pass(pair, sums, percentiles)
    stats = _stats(test.shape, sums, percentiles.values(pair.scan), peak)
    return TensorComparison(stats, _ascend(sums, divergence, test.dtype), sums.errors.octaves())


def error_stats(test: np.ndarray, reference: np.ndarray, peak: Optional[float] = None, where: Optional[np.ndarray] = None) -> ErrorStats:
    """The error statistics alone; see `compare_tensors`."""
    return compare_tensors(test, reference, peak, where).stats


def _second_pass(pair: _Pair, sums: PairSums, percentiles: Percentiles) -> float:
    """Gather what decides the percentiles; returns the Kullback-Leibler divergence Σ p ln(p/q), p from x.

    p and q are the tensors scaled to 0..1 by their extremes, floored, and divided by their sums P and Q. So the divergence is
    Σ p' ln(p'/q') / P − ln(P/Q), with p', q' before the division. A constant tensor scales to zeros, which is uniform.
    """
    (shift_x, scale_x), (shift_y, scale_y) = _scaling(sums.x), _scaling(sums.y)

    def work(start: int, stop: int) -> Tuple[float, float, float, List[Dict[int, np.ndarray]]]:
        total_p = total_q = mixed = 0.0
        picked = []
        for low, high in chunks(start, stop):
            x, y, _, _ = pair.read(low, high)
            picked.append(percentiles.pick(np.abs(x - y)))
            p, q = np.maximum((x - shift_x) * scale_x, KL_FLOOR), np.maximum((y - shift_y) * scale_y, KL_FLOOR)
            total_p += float(p.sum())
            total_q += float(q.sum())
            mixed += inner(p, np.log(p / q))
        return total_p, total_q, mixed, picked

    total_p = total_q = mixed = 0.0
    for p, q, m, picked in in_order(work, tasks(pair.test.size)):
        total_p, total_q, mixed = total_p + p, total_q + q, mixed + m
        for some in picked:
            percentiles.gather(some)
    return mixed / total_p - math.log(total_p / total_q) if total_p else math.nan


def _scaling(moments: Moments) -> Tuple[float, float]:
    width = moments.high - moments.low
    return (moments.low, 1.0 / width) if moments.n and 0 < width < math.inf else (moments.low if moments.n else 0.0, 0.0)


def _stats(shape: Tuple[int, ...], sums: PairSums, percentiles: List[float], peak: Optional[float]) -> ErrorStats:
    n = sums.errors.n
    mse = sums.dd / max(n, 1)
    norm_x, norm_y = math.sqrt(sums.xx), math.sqrt(sums.yy)
    cosine = one_minus = None
    if norm_x > 0 and norm_y > 0:
        cosine = min(1.0, sums.xy / (norm_x * norm_y))
        # 1 − cos = (|x−y|² − (|x|−|y|)²) / (2|x||y|): keeps digits where cos itself rounds to 1.
        gap = sums.gap / (norm_x + norm_y)
        one_minus = max(0.0, (sums.dd - gap * gap) / (2 * norm_x * norm_y))
    return ErrorStats(
        n=n,
        nan_count=sums.nan,
        inf_count=sums.inf,
        max_abs=sums.errors.max,
        max_index=index_of(sums.errors.max_at, shape),
        mean_abs=sums.errors.mean,
        p50_abs=percentiles[0],
        p99_abs=percentiles[1],
        p999_abs=percentiles[2],
        rmse=math.sqrt(mse),
        cosine=cosine,
        one_minus_cosine=one_minus,
        relative_euclidean=math.sqrt(sums.dd) / norm_y if norm_y > 0 else None,
        psnr_db=10 * math.log10(peak * peak / mse) if peak and mse > 0 else None,
        psnr_peak=peak,
        snr_db=10 * math.log10(sums.yy / sums.dd) if sums.dd > 0 and sums.yy > 0 else None,
        first_bad_index=index_of(sums.first_bad, shape) if sums.first_bad >= 0 else None,
    )


def _ascend(sums: PairSums, divergence: float, dtype: np.dtype) -> AscendMetrics:
    if sums.nan or sums.inf:
        return undefined(f"{sums.nan} pairs with NaN and {sums.inf} with Inf.")
    if not sums.errors.n:
        return undefined("No values to compare.")
    made = from_sums(sums, divergence)
    return boolean_only(made) if dtype == np.bool_ else made


def summarise(
    n: int, read: Callable[[int, int], np.ndarray], multiple: int = 1, percents: Iterable[float] = PERCENTS
) -> Tuple[Spread, List[float]]:
    """Spread and percentiles of n derived values, e.g. lengths of vectors; `read(start, stop)` gives them, NaN where one does not count.

    Parameters
    ----------
    multiple : int — elements that one value is made from: sets the size of the chunks.
    """

    def values_of(start: int, stop: int) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        values = read(start, stop)
        if math.isfinite(float(values.sum())):
            return values, None
        good = np.flatnonzero(np.isfinite(values))
        return values[good], good

    def first(start: int, stop: int) -> Spread:
        spread = Spread()
        for low, high in chunks(start, stop, multiple):
            values, good = values_of(low, high)
            spread.add(values, lambda at, low=low, good=good: low + (at if good is None else int(good[at])))
        return spread

    def scan(pick: Callable[[np.ndarray], Any]) -> Iterator[Any]:
        for part in in_order(lambda a, b: [pick(values_of(*c)[0]) for c in chunks(a, b, multiple)], tasks(n, multiple)):
            yield from part

    spread = Spread()
    for part in in_order(first, tasks(n, multiple)):
        spread.merge(part)
    percentiles = Percentiles(spread, list(percents))
    for picked in scan(percentiles.pick):
        percentiles.gather(picked)
    return spread, percentiles.values(scan)


def index_of(flat: int, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """Index of a flat position, C order."""
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def check_same_shape(test: np.ndarray, reference: np.ndarray) -> None:
    """Raises VolumeError for shapes that differ or are empty."""
    if test.shape != reference.shape or test.size == 0:
        raise VolumeError(f"comparison: shapes {test.shape} and {reference.shape}, expected two equal, non-empty ones")
