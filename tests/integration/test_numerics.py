# SPDX-License-Identifier: Apache-2.0
"""The numerics ratchet on the real chain: the committed figures hold, and worse arithmetic does not pass them."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict

import pytest

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

from scripts import numerics  # noqa: E402
from scripts.ratchet import compare, read_baseline  # noqa: E402
from vxm_convert.errors import PrecisionError  # noqa: E402
from vxm_convert.model.precision import PLANS  # noqa: E402


@pytest.fixture(scope="module")
def measured() -> Dict[str, Dict[str, float]]:
    """Every plan as it is, and a plan without its split weights, measured once."""
    return numerics.measure(numerics.Setup(), {**PLANS, "no split": replace(PLANS["balanced"], split_weights=())})


def test_no_figure_is_worse_than_the_committed_one(measured, capsys) -> None:
    baseline = read_baseline(numerics.BASELINE)
    assert baseline["setup"] == numerics.Setup().to_dict() and baseline["figures"] == numerics.FIGURES
    mine = {name: measured[name] for name in PLANS}
    assert compare(baseline, mine) == [], numerics.table(baseline, mine)


@pytest.mark.parametrize("stand_in", ["fast", "no split"])
def test_balanced_with_worse_arithmetic_fails(measured, stand_in) -> None:
    """What an edit of the plan or of the export's passes could silently do."""
    spoilt = {**{name: measured[name] for name in PLANS}, "balanced": measured[stand_in]}
    found = compare(read_baseline(numerics.BASELINE), spoilt)
    assert {f.plan for f in found} == {"balanced"}
    assert {"epe_voxel.mean", "epe_voxel.p999", "moved.psnr_db"} <= {f.figure for f in found}


def test_the_command_ends_with_3_and_names_figure_plan_old_and_new(measured, monkeypatch, capsys) -> None:
    spoilt = {**{name: measured[name] for name in PLANS}, "balanced": measured["fast"]}
    monkeypatch.setattr(numerics, "measure", lambda setup, plans: spoilt)
    assert numerics.main([]) == 3
    old = read_baseline(numerics.BASELINE)["plans"]["balanced"]["epe_voxel.p999"]
    new = measured["fast"]["epe_voxel.p999"]
    assert f"balanced epe_voxel.p999: {new:.5g} voxel, baseline {old:.5g}, at most" in capsys.readouterr().err


def test_the_command_updates_only_with_a_reason(measured, monkeypatch, tmp_path, capsys) -> None:
    path = tmp_path / "numerics.yaml"
    mine = {name: measured[name] for name in PLANS}
    monkeypatch.setattr(numerics, "measure", lambda setup, plans: mine)
    assert numerics.main(["--baseline", str(path)]) == 1
    assert numerics.main(["--baseline", str(path), "--update"]) == 0
    assert numerics.main(["--baseline", str(path)]) == 0
    assert "no figure is worse" in capsys.readouterr().out
    before = path.read_bytes()
    mine["balanced"] = measured["fast"]
    assert numerics.main(["--baseline", str(path), "--update"]) == 3
    assert path.read_bytes() == before
    assert numerics.main(["--baseline", str(path), "--update", "--allow-worse", "a device without fp32 vectors"]) == 0
    accepted = read_baseline(path)["accepted"]
    assert accepted[0]["reason"] == "a device without fp32 vectors" and any(
        "balanced epe_voxel.p999" in c for c in accepted[0]["changes"]
    )


def test_a_baseline_of_another_setup_is_refused(measured, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(numerics, "measure", lambda setup, plans: {name: measured[name] for name in PLANS})
    text = numerics.BASELINE.read_text(encoding="utf-8").replace("weights_seed: 11", "weights_seed: 12")
    path = tmp_path / "numerics.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PrecisionError, match="is of setup"):
        numerics.run(path)


def test_weights_and_scans_are_the_same_each_time() -> None:
    setup = numerics.Setup()
    first, second = (
        numerics.fixed_weights(numerics.ModelSpec(setup.variant, setup.shape), setup.weights_seed) for _ in range(2)
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert all(
        (a["moving"] == b["moving"]).all() for a, b in zip(numerics.phantom_pairs(setup), numerics.phantom_pairs(setup))
    )
