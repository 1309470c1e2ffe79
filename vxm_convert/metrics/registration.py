# SPDX-License-Identifier: Apache-2.0
"""Differences of two displacement fields in the units of registration: end-point error, sampling positions, flips of
the voxel below.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from vxm_convert.metrics.flows import Flows, Summary, VoxelPositions, is_unit
from vxm_convert.metrics.tensors import check_same_shape, index_of

_ONES = (1.0, 1.0, 1.0)


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
    #: by octaves, see `chunked.Spread.octaves`; not part of `to_dict`
    histogram: Dict[str, List[float]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> Dict[str, Any]:
        data = {**asdict(self), "max_index": list(self.max_index)}
        del data["histogram"]
        return data


@dataclass(frozen=True)
class SamplingError:
    """Distance in voxels between the sampling positions of two flows, and how often it changes the blended voxels.

    Positions are x + u clamped to the grid, as the warp clamps them: beyond the border a displacement has no effect. A
    flip is a voxel and axis in which the lower neighbour, ⌊x + u⌋, differs.
    """

    n: int
    position_max: float
    position_p999: float
    position_mean: float
    floor_flip_fraction: float

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FlowErrors:
    """Result of one pass over two flows."""

    voxel: EndPointError
    mm: EndPointError
    sampling: SamplingError


def end_point_error(
    test: np.ndarray, reference: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0), unit: str = "voxel"
) -> EndPointError:
    """End-point error of two flows.

    Parameters
    ----------
    test, reference : ndarray, shape (…, 3) — displacement in voxels.
    spacing : three floats — voxel sizes that turn components into `unit` (mm), or ones for voxels.

    Voxels where either flow is not finite are excluded; `error_stats` counts them.
    """
    check_same_shape(test, reference)
    flows = Flows(test, reference, [spacing], None)
    return _end_point_error(flows.summaries()[0], unit, test.shape)


def sampling_error(test: np.ndarray, reference: np.ndarray) -> SamplingError:
    """Sampling positions of two flows, shape (X, Y, Z, 3), displacement in voxels; voxels with NaN or Inf are excluded."""
    check_same_shape(test, reference)
    flows = Flows(test, reference, [], VoxelPositions(test.shape[:3]))
    return _sampling_error(flows.summaries()[0], flows.flips)


def flow_errors(test: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> FlowErrors:
    """Both of the above for flows with shape (X, Y, Z, 3), in voxels and in mm with the voxel sizes `spacing`, in one
    pass.
    """
    check_same_shape(test, reference)
    same = is_unit(spacing)
    flows = Flows(test, reference, [_ONES] if same else [_ONES, spacing], VoxelPositions(test.shape[:3]))
    found = flows.summaries()
    voxel = _end_point_error(found[0], "voxel", test.shape)
    mm = replace(voxel, unit="mm") if same else _end_point_error(found[1], "mm", test.shape)
    return FlowErrors(voxel, mm, _sampling_error(found[-1], flows.flips))


def _end_point_error(found: Summary, unit: str, shape: Tuple[int, ...]) -> EndPointError:
    spread, (p99, p999) = found
    return EndPointError(
        unit, spread.n, spread.max, index_of(spread.max_at, shape[:-1]), spread.mean, p99, p999, spread.octaves()
    )


def _sampling_error(found: Summary, flips: int) -> SamplingError:
    spread, (p999,) = found
    return SamplingError(spread.n, spread.max, p999, spread.mean, flips / max(3 * spread.n, 1))
