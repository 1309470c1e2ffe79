# SPDX-License-Identifier: Apache-2.0
"""Difference between two tensors: error statistics and the figures of Ascend's comparer, float64, in chunks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.ascend import KL_FLOOR, AscendMetrics, Moments, boolean_only, from_sums, undefined
from vxm_convert.metrics.chunked import chunks, in_order, inner, percentiles, tasks
from vxm_convert.metrics.pairs import Pair, PairSums

PERCENTS = (50.0, 99.0, 99.9)


@dataclass(frozen=True)
class ErrorStats:
    """Difference of `test` from `reference`, over the finite pairs only.

    Non-finite values are counted, never averaged away: `finite` is False as soon as either side has one. An undefined
    figure (cosine of a zero vector, PSNR of equal arrays) is None.
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
        return {
            **asdict(self),
            "max_index": list(self.max_index),
            "first_bad_index": None if bad is None else list(bad),
        }


@dataclass(frozen=True)
class TensorComparison:
    """Both sets of figures of one pair of tensors, and the histogram of |error| by octaves (see `Spread.octaves`; {} if
    not requested).
    """

    stats: ErrorStats
    ascend: AscendMetrics
    histogram: Dict[str, List[float]]


def compare_tensors(
    test: np.ndarray,
    reference: np.ndarray,
    peak: Optional[float] = None,
    where: Optional[np.ndarray] = None,
    histogram: bool = True,
) -> TensorComparison:
    """Compare two tensors of the same shape.

    Parameters
    ----------
    test, reference : ndarray, any equal shape, real or bool dtype; memory-mapped files are read piece by piece. What is
        kept for the percentiles takes 8 bytes per element, 4 from `chunked.MOST_DOUBLES` elements on.
    peak : float — the signal's full scale for PSNR = 10 log10(peak² / MSE); None omits PSNR.
    where : ndarray of bool, same shape — selected elements; None for all.
    histogram : bool — False leaves it empty and saves a fifth of the time.

    Raises
    ------
    VolumeError
        If shapes differ or are empty.
    """
    pair, sums = _first_look(test, reference, where, True, histogram)
    divergence = _divergence(pair, sums)
    stats = _stats(pair, sums, peak)
    return TensorComparison(stats, _ascend(sums, divergence, test.dtype), sums.errors.octaves() if histogram else {})


def error_stats(
    test: np.ndarray, reference: np.ndarray, peak: Optional[float] = None, where: Optional[np.ndarray] = None
) -> ErrorStats:
    """The error statistics alone, in less than half the time; see `compare_tensors`."""
    return _stats(*_first_look(test, reference, where, False, False), peak)


def _first_look(
    test: np.ndarray, reference: np.ndarray, where: Optional[np.ndarray], all_figures: bool, histogram: bool
) -> Tuple[Pair, PairSums]:
    check_same_shape(test, reference)
    if where is not None:
        check_same_shape(where, reference)
    pair, sums = Pair(test, reference, where), PairSums(all_figures, histogram)
    for part in in_order(lambda a, b: pair.first_pass(a, b, PairSums(all_figures, histogram)), tasks(test.size)):
        sums.merge(part)
    return pair, sums


def _divergence(pair: Pair, sums: PairSums) -> float:
    """The Kullback-Leibler divergence Σ p ln(p/q), p from x, in a second pass, because it needs the extremes.

    p and q are the tensors scaled to 0..1 by their extremes, floored, and divided by their sums P and Q. So the
    divergence is Σ p' ln(p'/q') / P − ln(P/Q), with p', q' before the division. A constant tensor scales to zeros,
    which is uniform.
    """
    (shift_x, scale_x), (shift_y, scale_y) = _scaling(sums.x), _scaling(sums.y)

    def work(start: int, stop: int) -> Tuple[float, float, float]:
        total_p = total_q = mixed = 0.0
        for low, high in chunks(start, stop):
            x, y = pair.finite(low, high, known=not sums.nan + sums.inf)
            if not x.size:
                continue
            p, q = _scaled(x, shift_x, scale_x), _scaled(y, shift_y, scale_y)
            total_p += float(p.sum())
            total_q += float(q.sum())
            np.divide(p, q, out=q)
            mixed += inner(p, np.log(q, out=q))
        return total_p, total_q, mixed

    total_p = total_q = mixed = 0.0
    for p, q, m in in_order(work, tasks(pair.test.size)):
        total_p, total_q, mixed = total_p + p, total_q + q, mixed + m
    return mixed / total_p - math.log(total_p / total_q) if total_p else math.nan


def _scaled(values: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """(values − shift)·scale, at least the floor; overwrites `values`."""
    values -= shift
    values *= scale
    # NumPy before 1.20 compares element by element: checking first whether any is below is faster.
    return values if values.min() >= KL_FLOOR else np.maximum(values, KL_FLOOR, out=values)


def _scaling(moments: Moments) -> Tuple[float, float]:
    width = moments.high - moments.low
    return (
        (moments.low, 1.0 / width) if moments.n and 0 < width < math.inf else (moments.low if moments.n else 0.0, 0.0)
    )


def _stats(pair: Pair, sums: PairSums, peak: Optional[float]) -> ErrorStats:
    n, shape = sums.errors.n, pair.test.shape
    p50, p99, p999 = percentiles(pair.errors, n, PERCENTS)
    mse = sums.dd / max(n, 1)
    norm_x, norm_y = math.sqrt(sums.xx), math.sqrt(sums.yy)
    cosine = one_minus = None
    if norm_x > 0 and norm_y > 0:
        cosine = min(1.0, sums.xy / (norm_x * norm_y))
        # 1 − cos = (|x−y|² − (|x|−|y|)²) / (2|x||y|): keeps digits when cos itself rounds to 1.
        gap = sums.gap / (norm_x + norm_y)
        one_minus = max(0.0, (sums.dd - gap * gap) / (2 * norm_x * norm_y))
    return ErrorStats(
        n=n,
        nan_count=sums.nan,
        inf_count=sums.inf,
        max_abs=sums.errors.max,
        max_index=index_of(sums.errors.max_at, shape),
        mean_abs=sums.errors.mean,
        p50_abs=p50,
        p99_abs=p99,
        p999_abs=p999,
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


def index_of(flat: int, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """Index of a flat position, C order."""
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def check_same_shape(test: np.ndarray, reference: np.ndarray) -> None:
    """Raises VolumeError if shapes differ or are empty."""
    if test.shape != reference.shape or test.size == 0:
        raise VolumeError(f"comparison: shapes {test.shape} and {reference.shape}, expected two equal, non-empty ones")
