# SPDX-License-Identifier: Apache-2.0
"""The table of searches: its starts, failures and distances, and a run that goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scripts import affine_table
from scripts.affine_table import apart, coarser, read_rows, somewhere, table
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.npz import write_npz

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")
SHAPE = (16, 32, 16)


def row(engine: str, start: int, shift: float = 0.0, refused: bool = False) -> dict:
    pull = np.eye(4)
    pull[0, 3] = shift
    return {
        "engine": engine,
        "scan": "a.npz",
        "start": start,
        "cpu_seconds": 2.0,
        "pull": None if refused else pull.tolist(),
    }


def test_starts_stay_within_their_limits() -> None:
    assert np.array_equal(somewhere(0, 30, 30), np.eye(4))
    ways = [somewhere(start, 30, 10) for start in range(1, 40)]
    turned = [apart(way, np.eye(4), np.zeros((1, 3))) for way in ways]
    shifts, angles = np.array(turned).T
    assert 8 < shifts.max() <= 10 and 25 < angles.max() <= 30 and angles.min() < 10
    assert all(np.linalg.det(way[:3, :3]) == pytest.approx(1) for way in ways)


def test_coarser_voxels_keep_their_place() -> None:
    grid, image = Grid((5, 4, 4), np.diag([1.0, 2.0, 3.0, 1.0])), np.zeros((5, 4, 4), np.float32)
    image[2:4, :2, 2:] = 8
    small, wide = coarser(image, grid, 2)
    assert small.shape == wide.shape == (2, 2, 2) and small[1, 0, 1] == 8 and small.sum() == 8
    assert np.allclose(apply_affine(wide.affine, np.array([1, 0, 1])), np.array([2.5, 0.5 * 2, 2.5 * 3]))


def test_what_failed_is_counted() -> None:
    rows = [row("numba", start, 0.1 * start) for start in range(5)] + [row("numba", 5, 50.0)]
    rows += [row("scipy", 0, 0.3), row("scipy", 1, 0.3), row("scipy", 7, refused=True)]
    lines = table(rows, np.zeros((1, 3))).splitlines()
    assert "| compiled loops | a.npz | 6 | 0 | 1 | 8.400 (49.750) | 2.00 |" in lines
    assert "| SimpleITK | a.npz | 3 | 1 | 0 | 0.000 (0.000) | 2.00 |" in lines
    assert "| a.npz | 2 | 0.250 (0.300) | 0.000 (0.000) | 0.050 mm, 0.000° |" in lines


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name in ("atlas.npz", "a.npz", "b.npz"):
        write_npz(tmp_path / name, {"vol": np.full(SHAPE, 9, np.uint8)})
    asked = []

    def search(target, image, grid, compiled):
        asked.append(compiled)
        if len(asked) == 3:
            raise VolumeError("the two brains do not meet")
        return SimpleNamespace(affine=Affine(grid.affine @ np.linalg.inv(target.grid.affine)))

    monkeypatch.setattr(affine_table, "search_affine", search)
    words = ["--input", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--atlas", str(tmp_path / "atlas.npz")]
    words += ["--shape", "16,32,16", "--out", str(tmp_path / "out"), "--engines", "scipy"]
    assert affine_table.main([*words, "--starts", "3"]) == 0
    kept = tmp_path / "out" / affine_table.ROWS_NAME
    assert [json.loads(line)["start"] for line in kept.read_text().splitlines()] == [0, 0, 1]
    kept.write_text(kept.read_text() + '{"engine": "sci')
    assert affine_table.main([*words, "--starts", "4"]) == 0 and len(asked) == 4
    rows = read_rows(kept)
    assert [(one["scan"], one["start"], one["pull"] is None) for one in rows] == [
        ("a.npz", 0, False),
        ("b.npz", 0, False),
        ("a.npz", 1, True),
        ("b.npz", 1, False),
    ]
    assert all(np.allclose(one["pull"], np.eye(4)) for one in rows if one["pull"])
    said = capsys.readouterr()
    assert "| SimpleITK | all | 4 | 1 | 0 | 0.000 (0.000) |" in said.out and "do not meet" in said.err
    assert affine_table.main([*words, "--starts", "9", "--minutes", "0"]) == 0 and len(asked) == 4
