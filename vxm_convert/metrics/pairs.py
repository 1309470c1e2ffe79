# SPDX-License-Identifier: Apache-2.0
"""Sums of one pass over a pair of tensors, and how it is read: in chunks, with a mask, without non-finite values."""

from __future__ import annotations

import math
from typing import Optional, Tuple

import numpy as np

from vxm_convert.metrics.ascend import EPSILON, Moments
from vxm_convert.metrics.chunked import Spread, chunks, cut, inner, kept

#: Σ(x − mean)² from Σx² and the mean has twelve digits where it is at least this share of Σx²
_DIGITS_LEFT = 1e-4


class PairSums:
    """Sums of one pass over two tensors x (test) and y (reference); d = x − y.

    Parameters
    ----------
    all_figures : bool — also the sums for Ascend's figures; False leaves `x`, `y` and the relative errors empty.
    histogram : bool — of the errors.
    """

    def __init__(self, all_figures: bool, histogram: bool) -> None:
        self.all_figures = all_figures
        self.nan, self.inf, self.first_bad = 0, 0, -1
        self.dd = self.xx = self.yy = self.xy = self.gap = self.relative = self.relative_max = 0.0
        self.x, self.y, self.errors = Moments(), Moments(), Spread(histogram)

    def add(self, x: np.ndarray, y: np.ndarray, d: np.ndarray, dd: float, error: np.ndarray) -> None:
        """Add finite float64 values, their differences, the sum of squared ones, and the absolute ones."""
        if not x.size:
            return
        self.dd += dd
        self.xy += inner(x, y)
        self.gap += inner(d, x + y)
        xx, yy = inner(x, x), inner(y, y)
        self.xx += xx
        self.yy += yy
        if self.all_figures:
            self._add_relative(error, y)
            _add_moments(self.x, x, xx)
            _add_moments(self.y, y, yy)

    def _add_relative(self, error: np.ndarray, y: np.ndarray) -> None:
        # |x/y − 1| = |x − y| / |y|, without the rounding of x/y.
        size = np.abs(y)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = error / size
        if size.min() <= EPSILON:
            ratio[size <= EPSILON] = 0.0
        self.relative += float(ratio.sum())
        self.relative_max = max(self.relative_max, float(ratio.max()))

    def merge(self, later: PairSums) -> None:
        """Merge the sums of a later part."""
        for name in ("nan", "inf", "dd", "xx", "yy", "xy", "gap", "relative"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.relative_max = max(self.relative_max, later.relative_max)
        if self.first_bad < 0:
            self.first_bad = later.first_bad
        for mine, other in ((self.x, later.x), (self.y, later.y)):
            mine.add(other.n, other.mean, other.m2, other.low, other.high)
        self.errors.merge(later.errors)


def _add_moments(moments: Moments, tensor: np.ndarray, squares: float) -> None:
    mean = float(tensor.mean())
    m2 = squares - tensor.size * mean * mean
    # Two sums instead of two more passes; if they nearly cancel, too few digits would remain.
    if squares and not m2 > _DIGITS_LEFT * squares:
        away = tensor - mean
        m2 = inner(away, away)
    moments.add(tensor.size, mean, m2, float(tensor.min()), float(tensor.max()))


class Pair:
    """Two tensors and an optional mask, read chunk by chunk. `errors` are the absolute ones, infinite for excluded
    pairs; available after `first_pass`.
    """

    def __init__(self, test: np.ndarray, reference: np.ndarray, where: Optional[np.ndarray]) -> None:
        self.test, self.reference, self.where = test, reference, where
        self.errors = kept(test.size)

    def first_pass(self, start: int, stop: int, sums: PairSums) -> PairSums:
        """Add the elements between two positions to empty sums."""
        self.errors[start:stop] = math.inf
        with np.errstate(invalid="ignore", over="ignore"):
            for low, high in chunks(start, stop):
                good = self._wanted(low, high)
                if good is not None and not good.size:
                    continue
                x, y = self._cut(low, high, good)
                d = x - y
                dd = inner(d, d)
                if not math.isfinite(dd):
                    x, y, good = self._only_finite(x, y, good, low, sums)
                    d = x - y
                    dd = inner(d, d)
                error = np.abs(d)
                self.errors[low : low + error.size] = error
                sums.errors.add(error, low, good)
                sums.add(x, y, d, dd, error)
        return sums

    def finite(self, start: int, stop: int, known: bool = False) -> Tuple[np.ndarray, np.ndarray]:
        """x and y of a chunk where both are finite and selected by the mask; float64. `known`: all are finite, by an
        earlier pass.
        """
        x, y = self._cut(start, stop, self._wanted(start, stop))
        if known or math.isfinite(float(x.sum())) and math.isfinite(float(y.sum())):
            return x, y
        good = np.isfinite(x) & np.isfinite(y)
        return x[good], y[good]

    def _wanted(self, start: int, stop: int) -> Optional[np.ndarray]:
        """Positions in the chunk that the mask selects; None for all of them."""
        if self.where is None:
            return None
        wanted = cut(self.where, start, stop, bool)
        return None if wanted.all() else np.flatnonzero(wanted)

    def _cut(self, start: int, stop: int, good: Optional[np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
        x, y = cut(self.test, start, stop), cut(self.reference, start, stop)
        return (x, y) if good is None else (x[good], y[good])

    @staticmethod
    def _only_finite(
        x: np.ndarray, y: np.ndarray, good: Optional[np.ndarray], low: int, sums: PairSums
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count the pairs of a chunk that are not finite; returns the others and their positions in the chunk."""
        nan = np.isnan(x) | np.isnan(y)
        finite = np.isfinite(x) & np.isfinite(y)
        at = np.arange(x.size) if good is None else good
        bad = at[~finite]
        sums.nan += int(nan.sum())
        sums.inf += int(bad.size - nan.sum())
        if bad.size and sums.first_bad < 0:
            sums.first_bad = low + int(bad[0])
        return x[finite], y[finite], at[finite]
