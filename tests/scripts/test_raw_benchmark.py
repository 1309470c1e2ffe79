# SPDX-License-Identifier: Apache-2.0
"""The rows of raw scans from end to end: their limits, the first result, and a device that only sleeps."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scripts.benchmark import raw
from scripts.benchmark.host import make_scene
from scripts.benchmark.sleeping import unmoved
from vxm_convert.errors import ArtifactError
from vxm_convert.sim.engine.program import Program

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def row(**changed: float) -> dict:
    figures = {
        "scans": 8,
        "host_cpu_seconds": 10.0,
        "device_busy": 0.7,
        "scans_per_second": 0.25,
        "host_bound": 0.2,
        "first_seconds": 9.0,
        "peak_gib": 1.9,
        "stages": {"decode": 2.5},
    }
    return {**figures, **changed}


def result(**rows: dict) -> dict:
    names = (raw._NETWORK, raw._COHORT, raw._RAW, raw._SLEEPING)
    found = {name: row(**rows.get(key, {})) for key, name in zip(("one", "cohort", "raw", "sleeping"), names)}
    return {"sleep": 0.3, "processors": 2, "rows": found, "beyond": [], "machine": {"idle": False, "load_per_cpu": 2.0}}


def test_each_limit_is_named() -> None:
    assert raw.beyond(result()) == []
    slow = result(
        one={"first_seconds": 10.5, "peak_gib": 2.05},
        cohort={"peak_gib": 2.35},
        raw={"peak_gib": 2.6, "device_busy": 0.5, "host_cpu_seconds": 12.5},
        sleeping={"scans_per_second": 0.15, "peak_gib": 9.0},
    )
    said = raw.beyond(slow)
    assert len(said) == 7 and "peak memory of raw 2.60 GiB, more than 2.5" in said
    assert "more than 12 host CPU-s per raw scan" in said
    assert "fewer than 0.167 scans/s with a device that sleeps" in said
    slow["beyond"] = said
    text = raw.table(slow)
    assert all(f"BEYOND a limit: {one}" in text for one in said) and "raw, CPU-s per scan: decode 2.50" in text
    assert "load 2.00 per CPU" in text


def test_the_first_result_is_the_folder_that_was_whole_first(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no subject was registered"):
        raw.first_result(tmp_path)
    for name, ages in (("late", (5, 90)), ("early", (10, 40)), ("qc", (1, 2))):
        (tmp_path / name).mkdir()
        for number, age in enumerate(ages):
            path = tmp_path / name / (f"{number}.nii.gz" if name != "qc" else f"{number}.png")
            path.write_bytes(b"x")
            os.utime(str(path), (age, age))
    assert raw.first_result(tmp_path) == 40


def test_the_atlas_lies_where_its_grid_says() -> None:
    scene = make_scene((16, 16, 32))
    cube = raw.on_cube(scene)
    at = np.argwhere(cube == scene.fixed.max())[0]
    home = np.argwhere(scene.fixed == scene.fixed.max())[0]
    here, there = scene.atlas.affine, scene.placement.network.affine
    assert np.allclose(here[:3, :3] @ at + here[:3, 3], there[:3, :3] @ home + there[:3, 3])


def test_the_sleeping_device_is_called_as_the_simulated_one() -> None:
    names = [list(inspect.signature(function).parameters)[1:] for function in (unmoved, Program.lend)]
    assert names[0] == names[1]


def test_the_sleeping_device_moves_nothing() -> None:
    moving = np.random.RandomState(0).rand(1, 2, 3, 4, 1).astype(np.float32)
    tensors = [
        SimpleNamespace(shape=[1, 2, 3, 4, 3], dtype=np.float32),
        SimpleNamespace(shape=[1, 2, 3, 4, 1], dtype=np.float32),
    ]
    flow, moved = unmoved(SimpleNamespace(outputs=tensors), [moving, moving + 1])
    assert np.array_equal(moved, moving) and flow.shape == (1, 2, 3, 4, 3) and not flow.any()
