# SPDX-License-Identifier: Apache-2.0
"""Chunks of large arrays, worked on by a few threads and merged in order: memory does not grow with the array.

Owns how arrays are cut, and exact percentiles of a stream that never stands in memory as a whole. Results do not depend
on the number of threads, because partial sums are merged in the order of the chunks.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

#: elements per chunk: two dozen float64 temporaries of this size stay in a core's cache
CHUNK = 1 << 15
#: chunks per unit of work of one thread
CHUNKS_PER_TASK = 32
#: memory bandwidth, not cores, is what more threads would wait for
MAX_THREADS = 4
#: values that are gathered to be sorted; a bin of the histogram with more is cut again
GATHERED = 1 << 19
#: bins by the upper half of a float32: sign, exponent, 7 bits of the mantissa
KEYS = 1 << 15
_KEYS_PER_OCTAVE = 128
_FLOAT32_BIAS = 127
#: exponents of the outer edges of histograms
_LOWEST_EDGE, _HIGHEST_EDGE = -24, 8
#: each chunk of a task waits with a histogram of this many bits
_RADIX_BITS = 11


def tasks(n: int, multiple: int = 1) -> Iterator[Tuple[int, int]]:
    """(start, stop) of each unit of work over n items of `multiple` elements each."""
    step = max(1, CHUNK // multiple) * CHUNKS_PER_TASK
    for start in range(0, n, step):
        yield start, min(start + step, n)


def chunks(start: int, stop: int, multiple: int = 1) -> Iterator[Tuple[int, int]]:
    """(start, stop) of each chunk of one unit of work."""
    step = max(1, CHUNK // multiple)
    for low in range(start, stop, step):
        yield low, min(low + step, stop)


def in_order(work: Callable[[int, int], Any], parts: Iterable[Tuple[int, int]]) -> Iterator[Any]:
    """`work(start, stop)` of every part, in the order of the parts; NumPy lets other threads run while it computes."""
    parts = list(parts)
    threads = min(MAX_THREADS, os.cpu_count() or 1, len(parts))
    if threads <= 1:
        for part in parts:
            yield work(*part)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        for part in parts:
            waiting.append(pool.submit(work, *part))
            # Results hold histograms: only a few may wait at a time.
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def cut(array: np.ndarray, start: int, stop: int, dtype: Any = np.float64) -> np.ndarray:
    """Elements start..stop in C order as a new array, without a copy of the whole."""
    return every(array, slice(start, stop), dtype)


def every(array: np.ndarray, at: slice, dtype: Any) -> np.ndarray:
    """Elements that a slice takes from the array in C order, as a new array."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return np.asarray(flat[at]).astype(dtype)


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """Σ x·y. Not ``x @ y``: a BLAS that starts threads of its own for 32768 elements takes twenty times as long."""
    return float(np.einsum("i,i->", x, y))


def keys_of(values: np.ndarray) -> np.ndarray:
    """Bin of each value (float64, at least 0): grows with the value, never with its float32 rounding alone."""
    with np.errstate(over="ignore", under="ignore"):
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.intp)


def count_keys(values: np.ndarray) -> np.ndarray:
    """How many values lie in each bin."""
    return np.bincount(keys_of(values), minlength=KEYS + 1)


class Spread:
    """Sum, largest value and, where asked for, histogram of non-negative values that come chunk by chunk.

    `counts` is None without a histogram, which costs as much as all the rest.
    """

    def __init__(self, histogram: bool = True) -> None:
        self.n, self.total, self.max, self.max_at = 0, 0.0, 0.0, 0
        self.counts: Optional[np.ndarray] = np.zeros(KEYS + 1, dtype=np.int64) if histogram else None

    def add(self, values: np.ndarray, positions: Callable[[int], int]) -> None:
        """Take float64 values; `positions` says where in the array the i-th of them stands."""
        if not values.size:
            return
        largest = float(values.max())
        # Where it stands costs three times as much, and few chunks have a new maximum.
        if largest > self.max or not self.n:
            self.max, self.max_at = largest, positions(int(values.argmax()))
        self.n += values.size
        self.total += float(values.sum())
        if self.counts is not None:
            self.counts += count_keys(values)

    def merge(self, later: Spread) -> None:
        """Take what another part of the stream found, which lies behind this one."""
        if later.n and (later.max > self.max or not self.n):
            self.max, self.max_at = later.max, later.max_at
        self.n += later.n
        self.total += later.total
        if self.counts is not None:
            self.counts += later.counts

    @property
    def mean(self) -> float:
        return self.total / max(self.n, 1)

    def octaves(self) -> Dict[str, Any]:
        """Histogram with edges at powers of two; the same edges for every stream, so that histograms can be added.

        What lies outside of the edges, exact zeros included, is counted in the entries ``below`` and ``above``.
        """
        first, last = (_KEYS_PER_OCTAVE * (exponent + _FLOAT32_BIAS) for exponent in (_LOWEST_EDGE, _HIGHEST_EDGE))
        rows = self.counts[first:last].reshape(-1, _KEYS_PER_OCTAVE).sum(axis=1)
        return {
            "edges": [2.0**exponent for exponent in range(_LOWEST_EDGE, _HIGHEST_EDGE + 1)],
            "counts": [int(count) for count in rows],
            "below": int(self.counts[:first].sum()),
            "above": int(self.counts[last:].sum()),
        }


class Percentiles:
    """Exact percentiles of a stream whose `Spread` is known; a second look at the stream gathers the few values that
    decide.

    Linear interpolation between order statistics, as numpy.percentile. `scan(pick)` must stream the same values once
    more and yield `pick(values)` of each chunk.
    """

    def __init__(self, spread: Spread, percents: Sequence[float]) -> None:
        self._n = spread.n
        # Equal tensors: their one crowded bin would be cut again for every rank, each a look at the whole stream.
        self._all_zero = spread.max == 0 and spread.counts[0] == spread.n
        self._positions = [(spread.n - 1) * q / 100.0 for q in percents]
        ranks = (
            {rank for p in self._positions for rank in (int(math.floor(p)), int(math.ceil(p)))} if spread.n else set()
        )
        below = np.cumsum(spread.counts)
        #: bin → (values in the bins before it, ranks that lie in it)
        self._bins: Dict[int, Tuple[int, List[int]]] = {}
        for rank in sorted(ranks):
            key = int(np.searchsorted(below, rank, side="right"))
            self._bins.setdefault(key, (int(below[key] - spread.counts[key]), []))[1].append(rank)
        self._small = [key for key in self._bins if spread.counts[key] <= GATHERED]
        self._large = [key for key in self._bins if spread.counts[key] > GATHERED]
        self._found: Dict[int, List[np.ndarray]] = {key: [] for key in self._small}

    def pick(self, values: np.ndarray) -> Dict[int, np.ndarray]:
        """The values of a chunk that may decide; give the result to `gather`."""
        if not self._small:
            return {}
        keys = keys_of(values)
        return {key: values[keys == key] for key in self._small}

    def gather(self, picked: Dict[int, np.ndarray]) -> None:
        for key, values in picked.items():
            if values.size:
                self._found[key].append(values)

    def values(self, scan: Callable[[Callable[[np.ndarray], Any]], Iterable[Any]]) -> List[float]:
        """The percentiles, in the order in which they were asked for; 0 for an empty stream."""
        if not self._n or self._all_zero:
            return [0.0] * len(self._positions)
        ordered: Dict[int, float] = {}
        for key in self._small:
            below, ranks = self._bins[key]
            values = np.sort(np.concatenate(self._found[key]))
            ordered.update((rank, float(values[rank - below])) for rank in ranks)
        for key in self._large:
            below, ranks = self._bins[key]
            ends = _ends(scan, key)
            ordered.update((rank, _cut_again(scan, key, rank - below, *ends)) for rank in ranks)
        return [between(position, ordered.__getitem__) for position in self._positions]


def between(position: float, value_of: Callable[[int], float]) -> float:
    """Linear interpolation between the order statistics around a position; `value_of` gives the one of a rank."""
    low, high = value_of(int(math.floor(position))), value_of(int(math.ceil(position)))
    return low + (position - math.floor(position)) * (high - low)


def _members(values: np.ndarray, key: int) -> np.ndarray:
    """Bits of the values of one bin: those of non-negative float64 order as the numbers."""
    return values[keys_of(values) == key].view(np.int64)


def _ends(scan: Callable[[Callable[[np.ndarray], Any]], Iterable[Any]], key: int) -> Tuple[int, int]:
    """Bits of the least and the largest value of a bin; equal where the bin holds one value, as in images with a
    background.
    """

    def ends(values: np.ndarray) -> Tuple[int, ...]:
        bits = _members(values, key)
        return (int(bits.min()), int(bits.max())) if bits.size else ()

    found = [pair for pair in scan(ends) if pair]
    return min(low for low, _ in found), max(high for _, high in found)


def _cut_again(
    scan: Callable[[Callable[[np.ndarray], Any]], Iterable[Any]], key: int, rank: int, low: int, high: int
) -> float:
    """The `rank`-th smallest value of a crowded bin, whose values have bits from `low` to `high`: the range is cut
    until one is left.
    """
    while low < high:
        shift = max(0, (high - low).bit_length() - _RADIX_BITS)

        def histogram(values: np.ndarray, low: int = low, high: int = high, shift: int = shift) -> np.ndarray:
            bits = _members(values, key)
            bits = bits[(bits >= low) & (bits <= high)]
            return np.bincount((bits - low) >> shift, minlength=(1 << _RADIX_BITS))

        counts = np.cumsum(sum(scan(histogram)))
        at = int(np.searchsorted(counts, rank, side="right"))
        rank -= int(counts[at - 1]) if at else 0
        low, high = low + (at << shift), min(high, low + ((at + 1) << shift) - 1)
    return float(np.array(low, dtype=np.int64).view(np.float64))
