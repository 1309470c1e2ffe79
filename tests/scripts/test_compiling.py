# SPDX-License-Identifier: Apache-2.0
"""The benchmark of compilation: what counts, what the table says, and one true run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scripts.benchmark import compiling
from scripts.benchmark.compiling import RESULT_NAME, build_parser, compiling_seconds, main, table
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


def result(seconds: float, **more: float) -> dict:
    empty = {"host": seconds, **more}
    full = dict.fromkeys(empty, 0.25)
    return {"cache": {"empty": empty, "full": full}, "limit": 10.0, "machine": {"idle": False, "load_per_cpu": 0.5}}


def test_the_verdict_follows_the_sum() -> None:
    assert compiling_seconds(result(7.0, **{"simulated device": 2.5})) == 9.5
    assert "9.5 s, once per installation; within the limit of 10 s" in table(result(9.5))
    assert "BEYOND the limit" in table(result(10.5)) and "load 0.50 per CPU" in table(result(10.5))


@pytest.mark.parametrize("seconds, code", [(1.0, EXIT_OK), (10.1, EXIT_TOLERANCE)])
def test_both_caches_are_measured_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, code: int
) -> None:
    folders = []

    def process() -> dict:
        folders.append(os.environ["NUMBA_CACHE_DIR"])
        return {"host": seconds if len(folders) == 1 else 0.1}

    monkeypatch.setattr(compiling, "_in_own_process", process)
    assert main(["--out", str(tmp_path)]) == code
    assert len(folders) == 2 and folders[0] == folders[1] and not Path(folders[0]).exists()
    written = json.loads((tmp_path / RESULT_NAME).read_text())
    assert written["cache"]["empty"]["host"] == seconds and written["cache"]["full"]["host"] == 0.1


def test_here_prints_the_seconds_of_loops_that_are_loaded(capsys: pytest.CaptureFixture) -> None:
    """From the cache of this installation; a compilation of its own would take 10 s of every run of the tests."""
    pytest.importorskip("numba")
    assert build_parser().parse_args(["--here"]).here
    assert main(["--here"]) == EXIT_OK
    seconds = json.loads(capsys.readouterr().out)
    assert seconds["host"] >= 0.0 and {*seconds} <= {"host", "simulated device"}
