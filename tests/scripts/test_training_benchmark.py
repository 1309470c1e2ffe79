# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training steps: its turns, its table, a way that fails. Times are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.benchmark.training import main, table

pytestmark = pytest.mark.usefixtures("forked_commands")

SPREAD = {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}


@pytest.mark.tf
def test_ways_take_turns_on_the_same_pair_and_a_failure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    broken = tmp_path / "env" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\necho out of memory >&2\nexit 134\n")
    broken.chmod(0o755)
    out = tmp_path / "bench"
    assert (
        main(
            [
                "--shape",
                "16,16,16",
                "--variant",
                "vm1",
                "--steps",
                "2",
                "--ways",
                "recipe,blocks",
                "--threads",
                "1",
                "--out",
                str(out),
                "--other-python",
                str(broken),
            ]
        )
        == 0
    )
    result = json.loads((out / "training.json").read_text())
    rows = result["rows"]
    assert [row["way"] for row in rows] == ["recipe", "blocks"] * 2
    for row in rows[:2]:
        assert (
            row["wall_seconds"]["n"] == row["cpu_seconds"]["n"] == 2
            and row["wall_seconds"]["min"] > 0
            and 0.1 < row["peak_gib"] < 4
        )
        assert " 1.15." in row["tensorflow"] and len(row["losses"]) == 3
    # Another graph, other kernels, another reader: the same three losses, which change from step to step.
    assert rows[1]["losses"] == pytest.approx(rows[0]["losses"], rel=1e-3) and result["losses_agree"]
    assert len(set(rows[0]["losses"])) == 3
    assert all(row["failure"] == "ended with 134: out of memory" for row in rows[2:])
    text = capsys.readouterr().out
    assert (
        "n = 2 after 1 to warm up" in text
        and "vm1 16x16x16" in text
        and "out of memory" in text
        and "DIFFER" not in text
    )


def test_the_table_has_ratios_against_its_first_row() -> None:
    row = {
        "title": "one",
        "tensorflow": "tensorflow 1.15.0",
        "wall_seconds": SPREAD,
        "cpu_seconds": SPREAD,
        "peak_gib": 6.0,
    }
    fast = {
        **row,
        "title": "two",
        "wall_seconds": {**SPREAD, "median": 0.5},
        "cpu_seconds": {**SPREAD, "median": 0.4},
        "peak_gib": 1.5,
    }
    model = {"variant": "vm2", "volume_shape": [80, 96, 112], "batch": 1}
    lines = table(
        {
            "model": model,
            "steps": 3,
            "rows": [row, fast],
            "losses_agree": False,
            "machine": {"cpus": 2, "load_per_cpu": 0.9, "idle": False},
        }
    ).splitlines()
    assert lines[2].split()[-6:] == ["2.00", "1.00", "2.00", "1.00", "6.00", "1.00"]
    assert lines[3].split()[-6:] == ["0.50", "4.00", "0.40", "5.00", "1.50", "4.00"]
    assert "DIFFER" in lines[4] and "busy" in lines[5]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ways", "recipe,fast"], "'fast'"),
        (["--ways", ","], "0 ways"),
        (["--steps", "0"], "got 0"),
        (["--shape", "80,96"], "80,96"),
    ],
)
def test_wrong_options_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list, message: str
) -> None:
    assert main(options + ["--out", str(tmp_path / "o")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_python_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert (
        main(
            [
                "--shape",
                "16,16,16",
                "--ways",
                "recipe",
                "--out",
                str(tmp_path / "o"),
                "--other-python",
                str(tmp_path / "none"),
            ]
        )
        == 1
    )
    assert "none: cannot be started" in capsys.readouterr().err
