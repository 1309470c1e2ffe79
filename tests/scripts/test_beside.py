# SPDX-License-Identifier: Apache-2.0
"""Our search, resampling and inversion beside those of other programs: a row for each, and what each must come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.benchmark import beside
from vxm_convert.geometry import compiled

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def test_every_program_does_the_same_work(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("SimpleITK")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    monkeypatch.setattr(beside, "_ants", lambda: None)
    assert beside.main(["--out", str(tmp_path), "--shape", "48,64,64"]) == 0
    rows = json.loads((tmp_path / beside.RESULT_NAME).read_text())["rows"]
    assert [row["work"] for row in rows] == ["affine search"] * 3 + ["resampling"] * 2 + ["inversion"] * 2
    ours, reference, other, inverse = (float(rows[number]["error"].split()[0]) for number in (0, 1, 4, 5))
    assert ours < 0.5 and reference < 0.5, "mm from the known transform"
    assert other < 1e-4 and inverse < 0.1
    said = capsys.readouterr().out
    assert all(row["program"] in said for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == [beside.RESULT_NAME]
