# SPDX-License-Identifier: Apache-2.0
"""Chunks of large arrays, worked on by a few threads and merged in order, without float64 copies of the arrays.

Owns the division of arrays, and percentiles of the value per element that a pass keeps. Results do not depend on the
number of threads, because partial sums are merged in the order of the chunks.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

import numpy as np

from vxm_convert.processor_time import add_others, timed

#: elements per chunk: two dozen float64 temporaries of this size stay in a core's cache
CHUNK = 1 << 15
#: chunks per unit of work of one thread
CHUNKS_PER_TASK = 32
#: more threads would only wait for memory bandwidth
MAX_THREADS = 4
#: values whose errors are kept as float64 until their percentiles are known (1 GiB); more are kept as float32, so that a
#: percentile of them has seven digits
MOST_DOUBLES = 1 << 27
#: bins of `Spread.counts`, by the exponent of a float32
_OCTAVES, _BIAS = 256, 127
#: exponents of the outer edges of histograms
_LOWEST_EDGE, _HIGHEST_EDGE = -24, 8


def tasks(n: int, multiple: int = 1) -> Iterator[Tuple[int, int]]:
    """(start, stop) of each unit of work over n items of `multiple` elements each."""
    step = max(1, CHUNK // multiple) * CHUNKS_PER_TASK
    for start in range(0, n, step):
        yield start, min(start + step, n)


T = TypeVar("T")


def chunks(start: int, stop: int, multiple: int = 1) -> Iterator[Tuple[int, int]]:
    """(start, stop) of each chunk of one unit of work."""
    step = max(1, CHUNK // multiple)
    for low in range(start, stop, step):
        yield low, min(low + step, stop)


def in_order(work: Callable[[int, int], T], parts: Iterable[Tuple[int, int]]) -> Iterator[T]:
    """`work(start, stop)` of every part, in the order of the parts; NumPy lets other threads run while it computes."""
    parts = list(parts)
    threads = min(MAX_THREADS, os.cpu_count() or 1, len(parts))
    if threads <= 1:
        for part in parts:
            yield work(*part)
        return

    def next_of(waiting: Deque[Future[Tuple[T, float]]]) -> T:
        value, seconds = waiting.popleft().result()
        add_others(seconds)
        return value

    with ThreadPoolExecutor(threads) as pool:
        waiting: Deque[Future[Tuple[T, float]]] = deque()
        for part in parts:
            waiting.append(pool.submit(timed(work), *part))
            # Results contain histograms: only a few may wait at the same time.
            if len(waiting) > 2 * threads:
                yield next_of(waiting)
        while waiting:
            yield next_of(waiting)


def cut(array: np.ndarray, start: int, stop: int, dtype: np.dtype = np.float64) -> np.ndarray:
    """Elements start..stop in C order as a new array, without a copy of the whole."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return np.asarray(flat[start:stop]).astype(dtype)


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """Σ x·y. Not ``x @ y``: a BLAS that starts its own threads for 32768 elements takes twenty times as long."""
    return float(np.einsum("i,i->", x, y))


def kept(n: int) -> np.ndarray:
    """An array for n values for `percentiles`; set excluded values to infinity."""
    return np.empty(n, dtype=np.float64 if n <= MOST_DOUBLES else np.float32)


def percentiles(values: np.ndarray, n: int, percents: Sequence[float]) -> List[float]:
    """Exact percentiles of the n finite ones of `values`, 0 if there are none; changes the order of the array.

    Linear interpolation between order statistics, as numpy.percentile, in float64 for any dtype and NumPy version.
    """
    if not n:
        return [0.0] * len(percents)
    positions = [(n - 1) * percent / 100.0 for percent in percents]
    values.partition(sorted({rank for at in positions for rank in (int(math.floor(at)), int(math.ceil(at)))}))
    return [_between(at, float(values[int(math.floor(at))]), float(values[int(math.ceil(at))])) for at in positions]


def _between(position: float, low: float, high: float) -> float:
    return low + (position - math.floor(position)) * (high - low)


class Spread:
    """Sum, largest value and optional histogram of non-negative values that arrive chunk by chunk.

    `counts` is None without a histogram, which takes as long as everything else.
    """

    def __init__(self, histogram: bool = True) -> None:
        self.n, self.total, self.max, self.max_at = 0, 0.0, 0.0, 0
        self.counts: Optional[np.ndarray] = np.zeros(_OCTAVES, dtype=np.int64) if histogram else None

    def add(self, values: np.ndarray, start: int, chosen: Optional[np.ndarray] = None) -> None:
        """Take float64 values that lie in the array from `start` on: all of them, or those at `chosen`."""
        if not values.size:
            return
        largest = float(values.max())
        # Finding its position takes three times as long, and few chunks have a new maximum.
        if largest > self.max or not self.n:
            at = int(values.argmax())
            self.max, self.max_at = largest, start + (at if chosen is None else int(chosen[at]))
        self.n += values.size
        self.total += float(values.sum())
        if self.counts is not None:
            self.counts += _count_octaves(values)

    def merge(self, later: Spread) -> None:
        """Merge the result of a later part of the stream."""
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

        Values outside the edges, including exact zeros, count in the entries ``below`` and ``above``.
        """
        if self.counts is None:
            raise ValueError("this stream was made without a histogram")
        first, last = _LOWEST_EDGE + _BIAS, _HIGHEST_EDGE + _BIAS
        return {
            "edges": [2.0**exponent for exponent in range(_LOWEST_EDGE, _HIGHEST_EDGE + 1)],
            "counts": [int(count) for count in self.counts[first:last]],
            "below": int(self.counts[:first].sum()),
            "above": int(self.counts[last:].sum()),
        }


def _count_octaves(values: np.ndarray) -> np.ndarray:
    """Number of values (at least 0) per exponent, rounded to float32."""
    with np.errstate(over="ignore", under="ignore"):
        return np.bincount(values.astype(np.float32).view(np.uint32) >> 23, minlength=_OCTAVES)
