# SPDX-License-Identifier: Apache-2.0
"""The audit as a user starts it, on real models and the simulated device, with and without a device that misbehaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from om_runner.__main__ import main
from tests.support.stages import BATCH, SHAPE, Cohort, run_stage

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The model of batch 1 of the same checkpoint and plan."""
    out = tmp_path_factory.mktemp("single") / "vxm"
    shape = ",".join(str(n) for n in SHAPE)
    done = run_stage(
        out.parent,
        "export",
        "--checkpoint",
        checkpoint,
        "--shape",
        shape,
        "--toolchain",
        "sim",
        "--skip-onnx",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    return out / "vxm.om"


def audit(cohort: Cohort, exported: Path, out: Path, *extra: Any) -> int:
    return main(
        [
            "audit",
            "--input",
            str(cohort.scans),
            "--atlas",
            str(cohort.atlas),
            "--model",
            str(exported / "vxm.om"),
            "--out",
            str(out),
            "--toolchain",
            "sim",
            *map(str, extra),
        ]
    )


def test_the_simulated_device_is_deterministic(cohort, exported, single, tmp_path, capsys) -> None:
    assert audit(cohort, exported, tmp_path / "out", "--other-model", single) == 0
    report = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    own = [check for check in report["checks"] if check["name"] != "other model"]
    assert {check["verdict"] for check in own} == {"bit-equal"} and len(own) == 6
    assert report["checks"][-1]["name"] == "other model" and report["checks"][-1]["verdict"] in (
        "bit-equal",
        "within profile",
    )
    assert report["simulated"] is True and report["model"]["batch"] == BATCH and report["other_model"]["batch"] == 1
    said = capsys.readouterr().out
    assert "SIMULATED" in said.splitlines()[0] and f"a model of batch 1 instead of {BATCH}" in said


def test_a_device_that_wavers_fails_an_exact_profile_and_passes_research(
    cohort, exported, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "unsteady_output:0")
    exact = tmp_path / "exact.yaml"
    exact.write_text(
        "schema: 1\nname: exact\nlimits:\n  moved.max_abs: {max: 0}\n  epe_voxel.max: {max: 0}\n", encoding="utf-8"
    )
    assert audit(cohort, exported, tmp_path / "a", "--limit", "2", "--profile", exact) == 3
    said = capsys.readouterr()
    assert "beyond profile" in said.out and "differ beyond profile" in said.err and "Traceback" not in said.err
    assert audit(cohort, exported, tmp_path / "b", "--limit", "2") == 0
    assert "within profile" in capsys.readouterr().out


def test_a_device_that_writes_half_an_output_stops_it(cohort, exported, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "half_output:1")
    assert audit(cohort, exported, tmp_path / "out", "--limit", "1") == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and "reported success but left" in said and "unwritten" in said
    assert not (tmp_path / "out" / "audit.json").exists()


def test_another_network_is_refused_before_the_device_is_touched(cohort, exported, single, tmp_path, capsys) -> None:
    done = run_stage(
        tmp_path,
        "om_runner",
        "audit",
        "--input",
        cohort.scans,
        "--atlas",
        cohort.atlas,
        "--model",
        exported / "vxm.om",
        "--other-model",
        tmp_path / "none.om",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 1 and "none.om" in done.stderr and not (tmp_path / "out").exists()
