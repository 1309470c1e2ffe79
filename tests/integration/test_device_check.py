# SPDX-License-Identifier: Apache-2.0
"""The rungs of the whole network, on a model that an export wrote; and a profiled run of the runner."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Dict, List

import pytest

from om_runner.__main__ import main
from om_runner.device_check import layer_rung
from tests.om_runner.device_check.climbing import climbed, fresh_device
from tests.support.stages import SHAPE, Cohort
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, MEASURED, NOT_DONE, Point

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf
__all__ = ["fresh_device"]
GRID = ",".join(str(side) for side in SHAPE)


def test_a_network_without_tensorflow_is_compared_with_the_simulator(exported: Path, tmp_path: Path) -> None:
    points = climbed(tmp_path, "full_size", exported=str(exported), shape=GRID, reference_python="/nowhere/python")
    compared = [point for point in points if "device against simulator" in point.name]
    assert [point.state for point in compared] == [AS_PREDICTED] * 2
    assert all("flow p99.9 0.0000 voxel" in point.found for point in compared)
    assert {point.name.split(":")[0] for point in compared} == {"full_size, balanced", "full_size, fast"}
    assert all("SIMULATED" in point.found for point in points if point.state == MEASURED)


def test_an_export_of_another_shape_is_not_climbed(exported: Path, tmp_path: Path) -> None:
    (point,) = climbed(tmp_path, "full_size", exported=str(exported), shape="16,16,16")
    assert point.state == NOT_DONE and "--exported has the shape" in point.found


def layer_points(exported: Path, tmp_path: Path, monkeypatch: Any, *chip: str) -> List[Point]:
    monkeypatch.setattr(layer_rung, "SMALL_SHAPE", GRID)
    return climbed(tmp_path, "layers", *chip, exported=str(exported), reference_python="/nowhere/python")


@pytest.mark.slow
def test_every_layer_is_dumped_and_equals_the_prediction(exported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (point,) = layer_points(exported, tmp_path, monkeypatch)
    assert point.state == AS_PREDICTED and "largest distance 0" in point.found
    with open(str(tmp_path / "layers" / "layers.csv"), encoding="utf-8") as handle:
        rows: List[Dict[str, str]] = list(csv.DictReader(handle))
    assert len(rows) > 40 and f"{len(rows)} of " in point.found
    assert {row["equal_share"] for row in rows} == {"1.0"} and {row["from_tensorflow"] for row in rows} == {""}


def test_wrong_numbers_in_one_operator_are_named(exported: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (point,) = layer_points(exported, tmp_path, monkeypatch, "flipped_kernel")
    assert point.state == DIFFERS and point.assumption == "layers"
    assert "the first beyond it is conv3d" in point.found and "Conv3D" in point.found


@pytest.mark.slow
def test_the_network_and_its_layers_against_tensorflow(tmp_path: Path) -> None:
    for rung in ("tensorflow", "network", "layers", "operators"):
        points = climbed(tmp_path, rung, short=False)
        assert points and {point.state for point in points} <= {AS_PREDICTED, MEASURED}, points


def test_a_run_with_times_of_operators(exported: Path, cohort: Cohort, tmp_path: Path) -> None:
    argv = ["--input", str(cohort.scans), "--atlas", str(cohort.atlas), "--model", str(exported / "vxm.om")]
    argv += ["--out", str(tmp_path), "--compare", "none", "--toolchain", "sim", "--profile-ops", "-q"]
    assert main(argv) == 0
    with open(str(tmp_path / "precision" / "op_times.csv"), encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    slowest = {row["type"] for row in rows[:3]}
    assert "Conv3D" in slowest and all(row["measured_by"].startswith("SIMULATED") for row in rows)
    assert all(
        float(row["estimate_ms"]) > 0 for row in rows if row["type"] == "Conv3D" and "_rest" not in row["operator"]
    )
    assert "op_times.csv" in (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")
