# SPDX-License-Identifier: Apache-2.0
"""The comparer's benchmark: its data, its record with the number of runs behind each figure, its limits. Times are not
judged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from om_runner.precision.store import REFERENCE_FLOW, REFERENCE_MOVED
from scripts.benchmark.comparer import anatomy, main, stored_subject
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, label_set

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

SHAPE = (16, 32, 16)
NO_LIMIT = ["--max-compare-seconds", "1e9", "--max-report-seconds", "1e9"]


def arguments(out: Path, scans: int = 2) -> Any:
    return ["--shape", ",".join(map(str, SHAPE)), "--scans", str(scans), "--repeats", "2", "--out", str(out)]


def test_the_data_have_every_structure_and_errors_of_the_size_of_rounding() -> None:
    image, seg = anatomy(SHAPE)
    assert set(np.unique(seg)) == {0, *label_set(DEFAULT_LABEL_SET)} and image.min() == 0 < image.max() < 1
    subject = stored_subject(image, 3)
    error = np.abs(subject["flow"] - subject[REFERENCE_FLOW])
    assert subject["flow"].shape == SHAPE + (3,) and 1e-4 < error.mean() < 1e-2
    assert subject["moved"].dtype == subject[REFERENCE_MOVED].dtype == np.float32
    assert not np.array_equal(subject["flow"], stored_subject(image, 4)["flow"])


def test_the_record_says_what_was_run_and_how_often(tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(tmp_path) + NO_LIMIT) == 0
    found = json.loads((tmp_path / "comparer.json").read_text())
    assert found["shape"] == list(SHAPE) and found["pair"]["elements"] == 3 * np.prod(SHAPE)
    assert found["pair"]["n"] == len(found["pair"]["all_seconds"]) == 2
    assert (
        found["report"]["scans"] == 2
        and found["report"]["n"] == 1
        and found["report"]["references"] == "from the cache"
    )
    assert (
        set(found["report"]["files"]) >= {"report.json", "report.csv", "report.html"}
        and min(found["report"]["files"].values()) > 500
    )
    out = capsys.readouterr().out
    assert "n = 2" in out and "n = 1" in out and "report of 2 scans" in out
    assert [path.name for path in tmp_path.iterdir()] == ["comparer.json"]


@pytest.mark.parametrize("beyond", ["--max-compare-seconds", "--max-report-seconds"])
def test_a_limit_that_is_passed_is_exit_code_3(tmp_path: Path, beyond: str) -> None:
    assert main(arguments(tmp_path, 1) + NO_LIMIT + [beyond, "0"]) == 3
    assert (tmp_path / "comparer.json").exists()


def test_no_scans_is_one_message(tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(tmp_path, 0)) == 1
    assert "--scans 0" in capsys.readouterr().err
