# SPDX-License-Identifier: Apache-2.0
"""The host's stages of one raw scan are measured with every engine, and the table has a row for each."""

from __future__ import annotations

import json
import os
from pathlib import Path

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
    assert host.main(["--out", str(tmp_path), "--shape", "32,48,48"]) == 0
    assert compiled.VARIABLE not in os.environ
    found = json.loads((tmp_path / host.RESULT_NAME).read_text())
    slow, fast = found["cpu_seconds"]["scipy"], found["cpu_seconds"]["numba"]
    assert list(slow) == list(fast) and slow["inverse with its error"] > 0 and slow["all"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert {"affine search", "moved scan", "inverse written", "all"} <= {line[:46].strip() for line in lines}
    assert [path.name for path in tmp_path.iterdir()] == [host.RESULT_NAME]
