# SPDX-License-Identifier: Apache-2.0
"""The baseline file and its rules: what is worse, what may be written, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict

import pytest
import yaml

from scripts.ratchet import compare, improved, read_baseline, tightened, write_baseline
from vxm_convert.errors import ArtifactError, FormatError, PrecisionError

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

BASELINE: Dict[str, Any] = {
    "schema": 1,
    "setup": {"variant": "vm2"},
    "made_with": {"engine": "x 1"},
    "figures": {"epe_voxel.max": {"unit": "voxel", "slack": 0.1}, "moved.psnr_db": {"unit": "dB", "slack": 0.1}},
    "plans": {
        "fast": {"n": 2, "epe_voxel.max": 0.02, "moved.psnr_db": 80.0},
        "balanced": {"n": 2, "epe_voxel.max": 0.01, "moved.psnr_db": 90.0},
    },
    "accepted": [],
}


def measured(**fast: float) -> Dict[str, Dict[str, float]]:
    rows = copy.deepcopy(BASELINE["plans"])
    rows["fast"].update({name.replace("__", "."): value for name, value in fast.items()})
    return rows


@pytest.mark.parametrize(
    "change, worse",
    [
        ({}, []),
        ({"epe_voxel__max": 0.0219}, []),
        ({"epe_voxel__max": 0.0221}, ["epe_voxel.max"]),
        ({"epe_voxel__max": float("nan")}, ["epe_voxel.max"]),
        # 20 log10(1.1) = 0.828 dB
        ({"moved__psnr_db": 79.2}, []),
        ({"moved__psnr_db": 79.1}, ["moved.psnr_db"]),
        ({"moved__psnr_db": float("inf")}, []),
        ({"epe_voxel__max": 0.03, "moved__psnr_db": 70.0}, ["epe_voxel.max", "moved.psnr_db"]),
    ],
)
def test_what_is_worse(change: Dict[str, float], worse: Any) -> None:
    found = compare(BASELINE, measured(**change))
    assert [(f.plan, f.figure) for f in found] == [("fast", figure) for figure in worse]


def test_a_finding_names_plan_figure_old_and_new() -> None:
    text = str(compare(BASELINE, measured(epe_voxel__max=0.03))[0])
    assert text == "fast epe_voxel.max: 0.03 voxel, baseline 0.02, at most 0.022 is allowed"


def test_a_plan_that_vanished_or_is_new_does_not_pass() -> None:
    rows = measured()
    del rows["balanced"]
    with pytest.raises(PrecisionError, match="plans fast, the baseline has balanced, fast"):
        compare(BASELINE, rows)
    with pytest.raises(PrecisionError):
        compare(BASELINE, {**measured(), "new": measured()["fast"]})


def test_what_got_better_is_told() -> None:
    assert improved(BASELINE, measured()) == []
    assert improved(BASELINE, measured(epe_voxel__max=0.015, moved__psnr_db=80.5)) == ["fast epe_voxel.max"]


def update(
    baseline: Dict[str, Any], rows: Dict[str, Any], why: str = "", made_with: Any = None, **change: Any
) -> Dict[str, Any]:
    setup, figures = change.get("setup", BASELINE["setup"]), change.get("figures", BASELINE["figures"])
    return tightened(baseline, rows, why, made_with or {}, setup, figures)


def test_an_update_tightens_and_does_not_loosen_even_within_the_slack() -> None:
    data = update(BASELINE, measured(epe_voxel__max=0.015), made_with={"engine": "x 2"})
    assert (
        data["plans"]["fast"]["epe_voxel.max"] == 0.015
        and data["made_with"] == {"engine": "x 2"}
        and data["accepted"] == []
    )
    for why in ("", "  "):
        with pytest.raises(PrecisionError, match="fast epe_voxel.max: 0.02 to 0.0201 voxel.*--allow-worse"):
            update(BASELINE, measured(epe_voxel__max=0.0201), why)


@pytest.mark.parametrize(
    "rows, change, text",
    [
        ({"fast": BASELINE["plans"]["fast"]}, {}, "plan balanced is gone"),
        (measured(), {"setup": {"variant": "vm1"}}, "another setup"),
        (
            measured(),
            {"figures": {"epe_voxel.max": BASELINE["figures"]["epe_voxel.max"]}},
            "figure moved.psnr_db is gone",
        ),
        (
            measured(),
            {"figures": {**BASELINE["figures"], "epe_voxel.max": {"unit": "voxel", "slack": 0.2}}},
            "slack of epe_voxel.max: 0.1 to 0.2",
        ),
    ],
)
def test_what_is_held_cannot_shrink_without_a_reason(rows: Any, change: Any, text: str) -> None:
    with pytest.raises(PrecisionError, match=text):
        update(BASELINE, rows, **change)
    assert text in update(BASELINE, rows, "because", **change)["accepted"][0]["changes"][0]


def test_new_plans_and_smaller_slacks_need_no_reason() -> None:
    figures = {**BASELINE["figures"], "epe_voxel.max": {"unit": "voxel", "slack": 0.05}}
    assert update(BASELINE, {**measured(), "new": measured()["fast"]}, figures=figures)["accepted"] == []


def test_a_reason_is_recorded_with_what_it_accepted() -> None:
    data = update(BASELINE, measured(epe_voxel__max=0.05), "the device rounds so")
    assert data["plans"]["fast"]["epe_voxel.max"] == 0.05
    assert data["accepted"] == [
        {"reason": "the device rounds so", "changes": ["fast epe_voxel.max: 0.02 to 0.05 voxel"]}
    ]
    again = update(data, data["plans"], "nothing is worse")
    assert again["accepted"] == data["accepted"], "a reason without a change is not recorded, an old one stays"


def test_the_file_goes_round(tmp_path: Path) -> None:
    write_baseline(tmp_path / "numerics.yaml", BASELINE)
    assert read_baseline(tmp_path / "numerics.yaml") == BASELINE
    with pytest.raises(ArtifactError, match="fast moved.psnr_db is not finite"):
        write_baseline(tmp_path / "x.yaml", {**BASELINE, "plans": measured(moved__psnr_db=float("inf"))})
    assert not (tmp_path / "x.yaml").exists()


def spoil(**change: Any) -> str:
    return yaml.safe_dump({**copy.deepcopy(BASELINE), **change})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        "!!python/object/apply:os.getcwd []",
        spoil(schema=2),
        spoil(surprise=1),
        spoil(plans={"fast": {"n": 2}}),
        spoil(figures={"epe_voxel.max": {"unit": "voxel"}}),
        spoil(figures={"epe_voxel.max": {"unit": "voxel", "slack": -1}}),
        spoil(plans={"fast": {"n": 2, "epe_voxel.max": float("nan"), "moved.psnr_db": 1.0}}),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "numerics.yaml").write_text(text)
    with pytest.raises(FormatError, match="--update"):
        read_baseline(tmp_path / "numerics.yaml")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="--update"):
        read_baseline(tmp_path / "none.yaml")
