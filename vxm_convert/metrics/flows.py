# SPDX-License-Identifier: Apache-2.0
"""Reads two displacement fields once, chunk by chunk: lengths of the difference of the fields and of their sampling
positions.
"""

from __future__ import annotations

import math
from typing import List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.metrics import chunked
from vxm_convert.metrics.chunked import Spread, chunks, cut, in_order, kept, percentiles, tasks

Summary = Tuple[Spread, List[float]]
_EPE_PERCENTS = (99.0, 99.9)
_POSITION_PERCENTS = (99.9,)


class Flows:
    """Two flows and lengths per voxel: of their difference in several units, then of the difference of positions.

    Parameters
    ----------
    units : sequence of three floats each — voxel sizes; an entry per end-point error.
    grid : VoxelPositions or None — for the sampling positions; None omits them.
    """

    def __init__(
        self, test: np.ndarray, reference: np.ndarray, units: Sequence[Sequence[float]], grid: Optional[VoxelPositions]
    ) -> None:
        self._test, self._reference, self._grid = test, reference, grid
        #: None for ones: no multiplication needed
        self._units = [None if is_unit(unit) else _repeated([float(size) for size in unit]) for unit in units]
        self._percents = [_EPE_PERCENTS] * len(units) + ([] if grid is None else [_POSITION_PERCENTS])
        self._with_histogram = [True] * len(units) + ([] if grid is None else [False])
        self.flips = 0

    def summaries(self) -> List[Summary]:
        """Spread and percentiles of every length; sets `flips`."""
        spreads = [Spread(histogram) for histogram in self._with_histogram]
        lengths = [kept(self._n) for _ in spreads]
        for parts, flips in in_order(lambda start, stop: self._look(start, stop, lengths), tasks(self._n, 3)):
            self.flips += flips
            for spread, part in zip(spreads, parts):
                spread.merge(part)
        return [
            (spread, percentiles(values, spread.n, percents))
            for spread, values, percents in zip(spreads, lengths, self._percents)
        ]

    @property
    def _n(self) -> int:
        return int(self._test.size) // 3

    def _look(self, start: int, stop: int, kept_lengths: Sequence[np.ndarray]) -> Tuple[List[Spread], int]:
        """Spreads of the lengths of some voxels, which are also stored in the arrays, with infinity for excluded
        voxels.
        """
        parts = [Spread(histogram) for histogram in self._with_histogram]
        flips = 0
        for low, high in chunks(start, stop, 3):
            lengths, flipped = self._lengths(low, high)
            flips += flipped
            for values, spread, out in zip(lengths, parts, kept_lengths):
                good = None if math.isfinite(float(values.sum())) else np.flatnonzero(np.isfinite(values))
                values = values if good is None else values[good]
                spread.add(values, low, good)
                out[low : low + values.size] = values
                out[low + values.size : high] = math.inf
        return parts, flips

    def _lengths(self, start: int, stop: int) -> Tuple[List[np.ndarray], int]:
        """The lengths of voxels start..stop, not finite for excluded voxels, and the number of differing floors of
        positions.
        """
        x, y = cut(self._test, 3 * start, 3 * stop), cut(self._reference, 3 * start, 3 * stop)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = x - y
            out = [_length(difference if unit is None else difference * unit[: x.size]) for unit in self._units]
            if self._grid is None:
                return out, 0
            # Finite differences come from finite flows.
            known = bool(out) and math.isfinite(float(out[0].sum()))
            a, b = (self._grid.positions(flow, start, stop, known) for flow in (x, y))
            length = _length(a - b)
        out.append(length)
        if math.isfinite(float(length.sum())):
            # At least 0, so truncation is rounding down; numpy.floor takes ten times as long before NumPy 1.20.
            return out, int(np.count_nonzero(a.astype(np.int32) != b.astype(np.int32)))
        flipped = (np.floor(a) != np.floor(b)).reshape(-1, 3)
        return out, int(np.count_nonzero(flipped[np.isfinite(length)]))


def is_unit(spacing: Sequence[float]) -> bool:
    """Whether a unit is the voxel itself."""
    return all(float(size) == 1.0 for size in spacing)


def _length(difference: np.ndarray) -> np.ndarray:
    """Euclidean length of flat (n·3) vectors."""
    squares = difference * difference
    # One sum per component: sums over an axis of three are slow.
    total = squares[2::3] + squares[1::3]
    total += squares[0::3]
    return np.sqrt(total, out=total)


def _repeated(triple: Sequence[float]) -> np.ndarray:
    """Three repeated numbers for flat vectors of a chunk: broadcasting over an axis of three is slow."""
    return np.tile(np.asarray(triple, dtype=np.float64), chunked.CHUNK // 3 + 1)


class VoxelPositions:
    """Voxel indices of a grid (X, Y, Z) in C order, without a division per voxel and axis."""

    def __init__(self, shape: Tuple[int, ...]) -> None:
        self._last = _repeated([side - 1.0 for side in shape])
        self._plane = shape[1] * shape[2]
        # One plane of (0, y, z), extended by a chunk, so that every chunk is one slice of it.
        rows = np.arange(self._plane + chunked.CHUNK) % self._plane
        self._table = (
            np.stack([np.zeros(rows.size), rows // shape[2], rows % shape[2]], axis=-1).astype(np.float64).reshape(-1)
        )

    def positions(self, flow: np.ndarray, start: int, stop: int, known: bool) -> np.ndarray:
        """x + u of voxels start..stop, clamped to the grid, NaN if u is not finite; `flow` is flat float64 and
        overwritten.

        `known`: every u is finite.
        """
        offset = 3 * (start % self._plane)
        bad = None if known or math.isfinite(float(flow.sum())) else ~np.isfinite(flow)
        flow += self._table[offset : offset + flow.size]
        for x in range(start // self._plane, (stop - 1) // self._plane + 1):
            low, high = max(x * self._plane, start) - start, min((x + 1) * self._plane, stop) - start
            flow[3 * low : 3 * high : 3] += x
        last = self._last[: flow.size]
        # Few are outside: comparing takes half the time of numpy.maximum and minimum before NumPy 1.20.
        np.copyto(flow, 0.0, where=flow < 0.0)
        np.copyto(flow, last, where=flow > last)
        if bad is not None:
            flow[bad] = np.nan
        return flow
