# SPDX-License-Identifier: Apache-2.0
"""Flags of ATC that a user may pass: which, with what values, and what contradicts the plan."""

from __future__ import annotations

import pytest

from vxm_convert.ascend.atc_flags import ALLOWED, KEPT_NAMES, REFUSED, V2_MODES, check_flags, kept_name, split_flag
from vxm_convert.errors import SpecError
from vxm_convert.sim.atc.flags import FLAGS


def test_every_flag_is_one_of_atc_and_stands_on_one_list() -> None:
    assert set(ALLOWED) | set(REFUSED) <= set(FLAGS) and not set(ALLOWED) & set(REFUSED)
    for name, flag in ALLOWED.items():
        assert set(flag.values) <= set(FLAGS[name].legal or flag.values), name
        assert bool(flag.values) + bool(flag.pattern) + bool(flag.suffix) + flag.folder == 1, name
    assert kept_name("op_precision_mode") == "atc_op_precision_mode.ini" and kept_name("modify_mixlist") in KEPT_NAMES


@pytest.mark.parametrize(
    "text, found",
    [
        ("deterministic=1", ("deterministic", "1")),
        ("--op-select-implmode=high_precision", ("op_select_implmode", "high_precision")),
        ("optypelist_for_implmode=Conv3D,ReduceMeanD", ("optypelist_for_implmode", "Conv3D,ReduceMeanD")),
        ("op_precision_mode=some/file.ini", ("op_precision_mode", "some/file.ini")),
    ],
)
def test_a_flag_is_taken(text: str, found: tuple) -> None:
    assert split_flag(text) == found


@pytest.mark.parametrize(
    "text, words",
    [
        ("deterministic", "expected NAME=VALUE"),
        ("deterministc=1", "did you mean 'deterministic'"),
        ("model=x", "sets it from the contract"),
        ("precision_mode=force_fp16", "--precision or --plan"),
        ("external_weight=1", "beside the model"),
        ("auto_tune_mode=RL", "AOE"),
        ("deterministic=2", "one of 0, 1"),
        ("aicore_num=0", "number of AI cores"),
        ("optypelist_for_implmode=a;b", "operator types"),
        ("op_precision_mode=", "expected file"),
        ("fusion_switch_file=a\nb", "expected file"),
    ],
)
def test_a_flag_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        split_flag(text)


def test_flags_must_fit_the_plan_and_each_other() -> None:
    for newer, mode in V2_MODES.items():
        check_flags({"precision_mode_v2": newer}, mode, False)
    with pytest.raises(SpecError, match="is force_fp16, the plan says allow_fp32_to_fp16"):
        check_flags({"precision_mode_v2": "fp16"}, "allow_fp32_to_fp16", False)
    with pytest.raises(SpecError, match="fp32_results"):
        check_flags({"customize_dtypes": kept_name("customize_dtypes")}, "force_fp16", True)
    with pytest.raises(SpecError, match="needs --atc-flag op_select_implmode"):
        check_flags({"optypelist_for_implmode": "Conv3D"}, "force_fp16", False)
    with pytest.raises(SpecError, match=r"expected atc_op_precision_mode\.ini beside the model"):
        check_flags({"op_precision_mode": "../../etc/passwd"}, "force_fp16", False)
