# SPDX-License-Identifier: Apache-2.0
"""The host's stages of one raw scan are measured with every engine, and the table has a row for each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import host
from vxm_convert.geometry import compiled

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def test_every_stage_is_measured_with_both_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("SimpleITK")
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    assert host.main(["--out", str(tmp_path), "--shape", "48,64,64"]) in (0, 3)
    assert compiled.VARIABLE not in os.environ
    found = json.loads((tmp_path / host.RESULT_NAME).read_text())
    slow, fast = found["cpu_seconds"]["scipy"], found["cpu_seconds"]["numba"]
    assert list(slow) == list(fast) and slow["inverse with its error"] > 0 and slow["all"] > 0
    assert set(found["differences"]) == set(host.LIMITS) and 0 < found["differences"]["moved scan"] < 1e-4
    lines = capsys.readouterr().out.splitlines()
    assert {"affine search", "moved scan", "inverse written", "all"} <= {line[:46].strip() for line in lines}
    assert [path.name for path in tmp_path.iterdir()] == [host.RESULT_NAME]


def test_results_that_differ_are_said() -> None:
    ones = {name: np.ones((4, 5, 10)) for name in host.LIMITS}
    ones["moved scan"][0, 0, 0] = ones["scan on the network grid"][0, 0, 0] = 11
    other = {name: array.copy() for name, array in ones.items()}
    assert set(host.compared(ones, other).values()) == {0.0}
    other["moved scan"][1, 1, 1] += 5e-3
    other["moved labels"][:2] = 2
    other["warp"][0, 0, 0] += 0.25
    found = host.compared(ones, other)
    assert found["moved scan"] == pytest.approx(5e-4) and found["moved labels"] == 0.5 and found["warp"] == 0.25
    said = host.table(
        {
            "shape": [4, 5, 10],
            "atlas": [4, 5, 10],
            "scan": [4, 5, 10],
            "cpu_seconds": {"numba": {"all": 1.0}},
            "differences": found,
            "machine": {"idle": True},
        }
    )
    assert "moved scan: apart by at most 5.0e-04 of the range, BEYOND the limit of 0.0001" in said
    assert "inverse: apart by at most 0.0e+00 voxel, within the limit of 0.001" in said
