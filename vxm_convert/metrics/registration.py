# SPDX-License-Identifier: Apache-2.0
"""Differences of two displacement fields in the units of registration: end-point error, sampling positions, flips of the voxel below."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from vxm_convert.metrics import streams
from vxm_convert.metrics.streams import cut
from vxm_convert.metrics.tensors import check_same_shape, index_of, summarise


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
    #: by octaves, see `streams.Spread.octaves`; not part of `to_dict`
    histogram: Dict[str, List[float]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> Dict[str, Any]:
        data = {**asdict(self), "max_index": list(self.max_index)}
        del data["histogram"]
        return data


@dataclass(frozen=True)
class SamplingError:
    """How far apart two flows sample the moving image, in voxels, and how often that changes the voxels that are blended.

    Positions are x + u clamped to the grid, as the warp clamps them: beyond the border a displacement has no effect. A flip is
    a voxel and axis in which the lower neighbour, ⌊x + u⌋, differs.
    """

    n: int
    position_max: float
    position_p999: float
    position_mean: float
    floor_flip_fraction: float

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


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
    check_same_shape(test, reference)
    sizes = [float(size) for size in spacing]

    def lengths(start: int, stop: int) -> np.ndarray:
        return _length(cut(test, 3 * start, 3 * stop) - cut(reference, 3 * start, 3 * stop), sizes)

    spread, (p99, p999) = summarise(test.size // 3, lengths, 3, (99.0, 99.9))
    at = index_of(spread.max_at, test.shape[:-1])
    return EndPointError(unit, spread.n, spread.max, at, spread.mean, p99, p999, spread.octaves())


def sampling_error(test: np.ndarray, reference: np.ndarray) -> SamplingError:
    """Sampling positions of two flows, shape (X, Y, Z, 3), displacement in voxels; voxels with NaN or Inf are left out."""
    check_same_shape(test, reference)
    grid = _Grid(test.shape[:3])
    #: first voxel of a chunk → flips in it; the second look at the chunk need not count again
    flips: Dict[int, int] = {}

    def distances(start: int, stop: int) -> np.ndarray:
        a, b = grid.positions(test, start, stop), grid.positions(reference, start, stop)
        length = _length((a - b).reshape(-1), (1.0, 1.0, 1.0))
        if start not in flips:
            flipped = np.floor(a) != np.floor(b)
            flips[start] = int(np.count_nonzero(flipped if np.isfinite(length.sum()) else flipped[np.isfinite(length)]))
        return length

    spread, (p999,) = summarise(test.size // 3, distances, 3, (99.9,))
    return SamplingError(spread.n, spread.max, p999, spread.mean, sum(flips.values()) / max(3 * spread.n, 1))


def _length(difference: np.ndarray, sizes: Sequence[float]) -> np.ndarray:
    """Euclidean length of flat (n·3) vectors whose components are scaled by `sizes`."""
    vectors = difference.reshape(-1, 3)
    with np.errstate(invalid="ignore", over="ignore"):
        if tuple(sizes) != (1.0, 1.0, 1.0):
            vectors = vectors * sizes
        return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


class _Grid:
    """Voxel indices of a grid (X, Y, Z) in C order, without a division per voxel and axis."""

    def __init__(self, shape: Tuple[int, ...]) -> None:
        self.last = np.array(shape, dtype=np.float64) - 1.0
        self.plane = shape[1] * shape[2]
        # One plane of (0, y, z), longer by a chunk, so that every chunk finds its own as one slice.
        rows = np.arange(self.plane + streams.CHUNK) % self.plane
        self.table = np.stack([np.zeros(rows.size), rows // shape[2], rows % shape[2]], axis=-1).astype(np.float64)

    def positions(self, flow: np.ndarray, start: int, stop: int) -> np.ndarray:
        """x + u of voxels start..stop, clamped to the grid; (n, 3) float64, NaN where u is not finite."""
        at = cut(flow, 3 * start, 3 * stop).reshape(-1, 3)
        bad = None if np.isfinite(at.sum()) else ~np.isfinite(at)
        offset = start % self.plane
        at += self.table[offset : offset + len(at)]
        at[:, 0] += np.arange(start, stop) // self.plane
        np.maximum(at, 0.0, out=at)
        np.minimum(at, self.last, out=at)
        if bad is not None:
            at[bad] = np.nan
        return at
