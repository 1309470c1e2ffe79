# SPDX-License-Identifier: Apache-2.0
"""Chips that differ from the simulator in one assumption each are named by the check, in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest

from tests.om_runner.device_check.climbing import climbed, fresh_device, touched
from tests.support.planted_chips import COMPILING, RUNNING
from vxm_convert.device_check.points import AS_PREDICTED, MEASURED, NOT_DONE

__all__ = ["fresh_device"]

#: chip → (rung, assumption, words of the explanation, other assumptions that the difference cannot leave alone)
PLANTED = {
    "rounds_toward_zero": ("conv3d", "rounding", "it rounds toward zero", ()),
    "gives_infinity": ("conv3d", "saturation", "it gives infinity", ()),
    "keeps_nan": ("conv3d", "nan", "NaN stays NaN", ()),
    "flushes_subnormals": ("conv3d", "subnormals", "they become 0", ("accumulation",)),
    "adds_in_half": ("conv3d", "accumulation", "no known alternative", ("bias", "fp32_results")),
    "half_results": ("conv3d", "fp32_results", "the other dtype of the result", ("bias",)),
    "late_bias": ("conv3d", "bias", "the sum is rounded before the bias is added", ("fp32_results",)),
    "flipped_kernel": ("conv3d", "geometry", "the kernel is flipped", ()),
    "swapped_outputs": ("conv3d", "output_order", "values and negated are exchanged", ()),
    "cut_weights": ("conv3d", "weights", "weights are rounded toward zero", ()),
    "fused_leaky_relu": ("leaky_relu", "no_fusion", "one fused kernel", ()),
    "single_slope": ("leaky_relu", "slope", "the slope is fp32", ("no_fusion",)),
    "no_half_leaky_relu": ("leaky_relu", "operator_table", "LeakyRelu", ("slope", "no_fusion")),
    "truncating_floor": ("warp", "floor", "it truncates", ("vector_fp32", "no_fusion")),
    "rounding_cast": ("warp", "cast", "it rounds to nearest", ()),
    "half_index": ("gather", "indices", "indices pass through fp16", ()),
}


#: compile in a process of their own, or load the large graph of the warp
_SLOW = ("cut_weights", "truncating_floor", "rounding_cast")


def _case(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else [])


def test_every_planted_chip_is_tried() -> None:
    assert set(PLANTED) == (set(RUNNING) | set(COMPILING)) - {"no_leaky_relu"}


@pytest.mark.parametrize("rung", ["gather", "leaky_relu"])  # the others: test_check.py
def test_an_honest_simulator_is_as_predicted(rung: str, tmp_path: Path) -> None:
    points = climbed(tmp_path, rung)
    assert {point.state for point in points} <= {AS_PREDICTED, MEASURED, NOT_DONE}
    assert sum(point.state == AS_PREDICTED for point in points) >= 3


@pytest.mark.parametrize("name", [_case(name) for name in PLANTED])
def test_a_planted_difference_is_named(name: str, tmp_path: Path) -> None:
    rung, assumption, words, others = PLANTED[name]
    found: Dict[str, str] = touched(climbed(tmp_path, rung, name))
    assert words in found[assumption]
    assert set(found) - set(others) == {assumption}
    kept = list((tmp_path / "differing").glob("*.npz"))
    assert kept, "the arrays that are needed to correct the simulator are not kept"
