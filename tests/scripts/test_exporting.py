# SPDX-License-Identifier: Apache-2.0
"""The steps of an export are told apart by what it announces, each with its seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scripts.benchmark import exporting
from scripts.stages import StageFailed

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def test_steps_end_where_the_next_begins(capsys: pytest.CaptureFixture) -> None:
    clock = iter([(1.0, 0.5), (3.5, 4.5), (4.0, 4.75)])
    lines = ["WARNING simulated\n", "12:00 [1/6] reading a\n", "[2/6] parity: the graph\n", "written\n"]
    found = exporting.phases_of(lines, lambda: next(clock))
    assert found == [
        {"phase": "starting", "seconds": 1.0, "cpu_seconds": 0.5},
        {"phase": "reading a", "seconds": 2.5, "cpu_seconds": 4.0},
        {"phase": "parity", "seconds": 0.5, "cpu_seconds": 0.25},
    ]
    assert capsys.readouterr().err == "".join(lines)


def test_steps_add_up_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text("print('[1/2] one', flush=True); sum(range(3000000)); print('[2/2] two', flush=True)")
    ran, phases = exporting.exported(["stand_in"])
    assert [phase["phase"] for phase in phases] == ["starting", "one", "two"]
    assert sum(phase["cpu_seconds"] for phase in phases) == pytest.approx(ran.cpu_seconds, abs=0.02)
    assert phases[1]["cpu_seconds"] > 0 and ran.peak_bytes > 1 << 20
    stand_in.write_text("import sys; sys.exit(3)")
    with pytest.raises(StageFailed, match="exit code 3"):
        exporting.exported(["stand_in"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_seconds_of_a_process() -> None:
    assert exporting.cpu_of(os.getpid()) > 0 and exporting.cpu_of(2**22 + 1) == 0.0


def test_the_table_lists_steps_below_each_export() -> None:
    row = {"export": "with vxm.onnx", "seconds": 25.0, "cpu_seconds": 40.0, "peak_gib": 3.0}
    row["phases"] = [{"phase": "parity", "seconds": 9.0, "cpu_seconds": 16.0}]
    lines = exporting.table({"variant": "vm2", "shape": "1,2,3", "rows": [row]}).splitlines()
    assert lines[1].split() == ["with", "vxm.onnx", "25.0", "40.0", "3.00", "1"] and lines[2].split() == [
        "parity",
        "9.0",
        "16.0",
    ]
