# SPDX-License-Identifier: Apache-2.0
"""Exact percentiles in the pass that takes all other sums: a sample says between which two values each percentile will
lie.

The pass counts what is below and keeps what is between. The percentile is an order statistic of what was kept, not of
the sample; where the sample misled, `Caught.values` is None and the stream is looked at again by `streams.Percentiles`.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.metrics import streams
from vxm_convert.metrics.streams import Percentiles, Spread, between, count_keys

#: least values of a sample; streams with fewer than `_WORTH` times as many are cheap to look at twice
SAMPLE = 1 << 15
_WORTH = 8
#: larger streams have larger samples, so that brackets hold about as many values
_LONGEST_STEP = 512
#: half the width of a bracket, in standard deviations of a rank in a random sample
_DEVIATIONS = 5.0
#: from this percentile on few values are above, and taking them out is cheaper than comparing all once more
_TAIL = 90.0


class Brackets:
    """Where percentiles will lie: from ``low`` on and below ``high``, or exactly at ``low`` where the two are equal.

    Parameters
    ----------
    sample : ndarray, finite — spread evenly over the stream; empty for no guess.
    percents : floats, ascending.
    """

    def __init__(self, sample: np.ndarray, percents: Sequence[float]) -> None:
        self.percents = list(percents)
        self.ends: List[Tuple[float, float]] = []
        n = sample.size
        if not n:
            return
        ranks = []
        for percent in self.percents:
            share = percent / 100.0
            margin = _DEVIATIONS * math.sqrt(n * share * (1.0 - share)) + 2.0
            ranks.append((int((n - 1) * share - margin), int(math.ceil((n - 1) * share + margin))))
        inside = sorted({rank for pair in ranks for rank in pair if 0 <= rank < n})
        ordered = np.partition(sample, inside) if inside else sample
        self.ends = [
            (float(ordered[low]) if low >= 0 else -math.inf, float(ordered[high]) if high < n else math.inf)
            for low, high in ranks
        ]


def sample_positions(n: int) -> Optional[slice]:
    """Positions of a sample, evenly over a stream of n values; None for a stream that is short enough to be looked at
    twice.
    """
    step = min(n // SAMPLE, _LONGEST_STEP)
    if step < _WORTH:
        return None
    # A step that divides a side of the grid would see a few planes only.
    while math.gcd(step, n) > 1:
        step += 1
    return slice(None, None, step)


class Caught:
    """What one part of a stream has below and inside of each bracket."""

    def __init__(self, brackets: Brackets) -> None:
        self._brackets = brackets
        self._below = [0] * len(brackets.ends)
        self._inside = [0] * len(brackets.ends)
        self._kept: List[Optional[List[np.ndarray]]] = [[] for _ in brackets.ends]

    def add(self, values: np.ndarray) -> None:
        """Take finite values."""
        gone = 0
        for i, ((low, high), percent) in enumerate(zip(self._brackets.ends, self._brackets.percents)):
            wanted = values >= low
            if percent >= _TAIL:
                size = values.size
                values = values[wanted]
                gone += size - values.size
                self._below[i] += gone
                wanted = values < high if low < high else values == low
            else:
                self._below[i] += gone + values.size - int(np.count_nonzero(wanted))
                wanted &= values < high if low < high else values == low
            inside = int(np.count_nonzero(wanted))
            self._inside[i] += inside
            kept = self._kept[i]
            if inside and kept is not None and low < high:
                kept.append(values[wanted])
            self._bound(i)

    def merge(self, later: Caught) -> None:
        """Take what another part found."""
        for i, kept in enumerate(later._kept):
            self._below[i] += later._below[i]
            self._inside[i] += later._inside[i]
            mine = self._kept[i]
            if mine is not None and kept is not None:
                mine.extend(kept)
            self._bound(i)

    def _bound(self, i: int) -> None:
        """A bracket that holds too much was a bad guess: memory must not grow with it."""
        low, high = self._brackets.ends[i]
        if low < high and self._inside[i] > 2 * streams.GATHERED:
            self._kept[i] = None

    def values(self, n: int) -> Optional[List[float]]:
        """The percentiles of the n values that came, or None where one lies outside of its bracket."""
        if not n or not self._brackets.ends:
            return None
        out = []
        for i, ((low, high), percent) in enumerate(zip(self._brackets.ends, self._brackets.percents)):
            position = (n - 1) * percent / 100.0
            first, last = int(math.floor(position)) - self._below[i], int(math.ceil(position)) - self._below[i]
            kept = self._kept[i]
            if kept is None or first < 0 or last >= self._inside[i]:
                return None
            if low < high:
                ordered = np.partition(np.concatenate(kept), (first, last))
                out.append(between(position, lambda rank, i=i, ordered=ordered: float(ordered[rank - self._below[i]])))
            else:
                out.append(low)
        return out


def percentiles_of(
    caught: Caught,
    spread: Spread,
    percents: Sequence[float],
    scan: Callable[[Callable[[np.ndarray], Any]], Iterable[Any]],
) -> List[float]:
    """The percentiles that were caught, or those that `scan` finds in another look at the stream (see
    `streams.Percentiles`).
    """
    known = caught.values(spread.n)
    if known is not None:
        return known
    if spread.counts is None:
        spread.counts = np.zeros(streams.KEYS + 1, dtype=np.int64)
        for counts in scan(count_keys):
            spread.counts += counts
    exact = Percentiles(spread, percents)
    for picked in scan(exact.pick):
        exact.gather(picked)
    return exact.values(scan)
