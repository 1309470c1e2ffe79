# SPDX-License-Identifier: Apache-2.0
"""How two results differ, in float64 and in chunks: memory does not grow with the volume. NumPy only; no limits live here.

One definition for export's parity, the runner's precision report and the comparison layer by layer. `tensors` compares any two
arrays, `ascend` holds the definitions of Ascend's comparer, `registration` compares flows, `overlap` segmentations, `jacobian`
folding; `streams` cuts arrays into chunks and `brackets` finds percentiles in the first look at them.
"""

from __future__ import annotations

from vxm_convert.metrics.ascend import ASCEND_NAMES, AscendMetrics
from vxm_convert.metrics.jacobian import Folding, JacobianStats, folding, jacobian_slabs, jacobian_stats
from vxm_convert.metrics.overlap import DiceScores, dice
from vxm_convert.metrics.registration import EndPointError, FlowErrors, SamplingError, end_point_error, flow_errors, sampling_error
from vxm_convert.metrics.tensors import ErrorStats, TensorComparison, compare_tensors, error_stats

__all__ = [
    "ASCEND_NAMES",
    "AscendMetrics",
    "DiceScores",
    "EndPointError",
    "ErrorStats",
    "FlowErrors",
    "Folding",
    "JacobianStats",
    "SamplingError",
    "TensorComparison",
    "compare_tensors",
    "dice",
    "end_point_error",
    "error_stats",
    "flow_errors",
    "folding",
    "jacobian_slabs",
    "jacobian_stats",
    "sampling_error",
]
