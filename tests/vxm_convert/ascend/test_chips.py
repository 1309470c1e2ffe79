# SPDX-License-Identifier: Apache-2.0
"""The tables of chips: every figure has a source, plans suit the chip, and what is unknown is said."""

from __future__ import annotations

import pytest

from vxm_convert.ascend.chips import CHIPS, canonical, chip_of, family_of, runs_on
from vxm_convert.ascend.families import FAMILIES
from vxm_convert.model.precision import PLANS, plan_for


def test_every_chip_has_a_family_and_a_source() -> None:
    assert {chip.family for chip in CHIPS.values()} == set(FAMILIES)
    for name, chip in CHIPS.items():
        assert chip.source and (chip.speed is None or chip.speed.clock_source), name
        assert chip.most_memory is None or (chip.memory is not None and chip.most_memory > chip.memory), name


def test_what_a_family_does_not_know_is_said() -> None:
    for family in FAMILIES.values():
        assert bool(family.conv3d) == bool(family.conv3d_source)
        assert (family.saturates is None) == (not family.saturates_source)
        assert bool(family.unknown) == (family.name != "910"), family.name
        if family.widening_conv is None:
            assert any("convolution returns fp32" in sentence for sentence in family.unknown), family.name


@pytest.mark.parametrize(
    "soc, accurate_splits, family",
    [
        ("Ascend910A", True, "910"),
        ("Ascend910B", True, "910"),
        ("Ascend910B3", False, "910B"),
        ("Ascend910_9392", False, "910_93"),
        ("Ascend310P3", True, "310P"),
        ("Ascend999", True, None),
    ],
)
def test_the_plan_suits_the_chip(soc: str, accurate_splits: bool, family: str) -> None:
    """True fp32 convolutions gain nothing from weights in two parts; `balanced` stays fp16 everywhere."""
    accurate = plan_for("accurate", soc)
    assert (accurate.name, accurate.mode) == ("accurate", "force_fp32")
    assert bool(accurate.split_weights) == accurate_splits
    assert plan_for("balanced", soc) == PLANS["balanced"] and plan_for("fast", soc) == PLANS["fast"]
    found = family_of(soc)
    assert (found and found.name) == family


def test_names_are_exact() -> None:
    assert canonical("Ascend910") == "Ascend910A" and chip_of("ascend910a") is None
    assert chip_of("Ascend310P2") is None and chip_of("Ascend310P4") is None, "8.1 has no platform file of them"
    assert runs_on("Ascend910", "Ascend910ProB") and not runs_on("Ascend910B", "Ascend910B1")
    assert not runs_on("Ascend310P3", "") and runs_on("Ascend310P3", "Ascend310P3")
