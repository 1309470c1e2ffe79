# SPDX-License-Identifier: Apache-2.0
"""``make bench``: which parts run with what, what becomes of their figures, limits, page and plot. The parts have tests
of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List
from xml.etree import ElementTree

import numpy as np
import pytest

from scripts.benchmark import __main__ as bench
from scripts.benchmark import scaling
from scripts.benchmark.common import machine, spread
from scripts.benchmark.plot import bars_of, draw
from scripts.stages import Ran, StageFailed
from vxm_convert.errors import EXIT_TOLERANCE

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

ROWS = [
    {
        "name": name,
        "way": way,
        "title": title,
        "wall_seconds": spread([wall]),
        "cpu_seconds": spread([2 * wall]),
        "wall_ratio": 8.0 / wall,
    }
    for name, way, title, wall in (
        ("recipe", "recipe", "existing recipe", 8.0),
        ("device", "ours", "SIMULATED <device>", 2.0),
    )
]


class Part:
    """Stands in for a part's module."""

    RESULT_NAME = "part.json"

    @staticmethod
    def table(result: Dict[str, Any]) -> str:
        return "figures of " + result["kind"]


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extra: List[str], code: int = 0) -> Any:
    calls: List[List[str]] = []

    def stage(arguments: List[str]) -> Ran:
        calls.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        kind = arguments[0].split(".")[-1]
        (out / Part.RESULT_NAME).write_text(json.dumps({"kind": kind, "rows": ROWS}))
        if code and kind == "inference":
            raise StageFailed("beyond", code)
        return Ran(0.0, 0, 0.0)

    monkeypatch.setattr(bench, "PARTS", tuple(part._replace(module=Part) for part in bench.PARTS))
    monkeypatch.setattr(bench, "run_stage", stage)
    return bench.main(["--out", str(tmp_path / "b"), "--model", "m/vxm.om", *extra]), calls


def load(monkeypatch: pytest.MonkeyPatch, idle: bool) -> None:
    monkeypatch.setattr(bench, "machine", lambda: {**machine(), "idle": idle, "load_per_cpu": 0.1 if idle else 2.0})


def test_docs_are_not_made_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    load(monkeypatch, idle=False)
    code, calls = run(monkeypatch, tmp_path, ["--docs", str(tmp_path / "docs")])
    assert code == 1 and not calls and not (tmp_path / "docs").exists()
    assert "the machine is busy (load 2.00 per CPU, expected at most 0.3)" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, [])[0] == 0, "figures for oneself are made at any time"


def test_every_part_runs_once_and_the_page_has_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load(monkeypatch, idle=True)
    code, calls = run(monkeypatch, tmp_path, ["--docs", str(tmp_path / "docs")])
    assert code == 0
    assert [call[0] for call in calls] == [f"scripts.benchmark.{part.name}" for part in bench.PARTS]
    assert len(calls) == 11
    assert calls[0][1:3] == ["--model", "m/vxm.om"]
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert all(f"figures of {part.name}" in page and f"## {part.title}" in page for part in bench.PARTS)
    assert (
        "**simulated**" in page
        and "(pictures/benchmarks.svg)" in page
        and (tmp_path / "docs" / "pictures" / "benchmarks.svg").is_file()
    )
    assert set(json.loads((tmp_path / "b" / "bench.json").read_text())["parts"]) == {part.name for part in bench.PARTS}


def test_only_some_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, calls = run(monkeypatch, tmp_path, ["--parts", "files", "scaling"])
    assert code == 0 and [call[0].split(".")[-1] for call in calls] == ["scaling", "files"]


@pytest.mark.parametrize(
    "extra, words",
    [(["--min-speedup", "5"], "registration 4.00 x"), (["--min-training-speedup", "4.5"], "training step 4.00 x")],
)
def test_a_ratio_below_its_limit_is_said_and_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture, extra: List[str], words: str
) -> None:
    code, _ = run(monkeypatch, tmp_path, extra)
    assert code == EXIT_TOLERANCE and words in capsys.readouterr().err


@pytest.mark.parametrize("code, expected, parts", [(EXIT_TOLERANCE, EXIT_TOLERANCE, 11), (1, 1, 1)])
def test_a_part_beyond_its_limits_goes_on_a_failed_one_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, expected: int, parts: int
) -> None:
    ended, calls = run(monkeypatch, tmp_path, [], code)
    assert ended == expected and len(calls) == parts


def test_the_plot_is_xml_and_names_every_bar() -> None:
    failed = {"way": "x", "title": "too large", "failure": "memory"}
    text = draw({"inference": {"rows": ROWS}, "training": {"rows": ROWS + [failed]}})
    words = [node.text for node in ElementTree.fromstring(text).iter() if node.tag.endswith("text")]
    assert words.count("SIMULATED <device>") == 2 and "4.00 s (4.00 ×)" in words and "too large" not in words
    assert [round(bar.ratio, 6) for bar in bars_of(ROWS)] == [1.0, 4.0]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponents_are_those_of_the_power_law(power: float) -> None:
    x = np.array([1, 2, 4, 8.0])
    assert scaling.exponent(x, 3.0 * x**power) == pytest.approx(power, abs=1e-3)
    rows = [{"scans": n, "cpu_seconds": 5.0 + 2.0 * n} for n in (1, 2, 4, 8)]
    assert scaling._beyond_start(rows) == pytest.approx(1.0, abs=1e-3)


def test_the_same_number_of_scans_is_registered_again_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = []

    def stage(arguments: List[str]) -> Ran:
        out = Path(arguments[arguments.index("--out") + 1])
        assert not any(out.iterdir()), "what stands there would be taken over"
        folders.append(out)
        (out / "metrics.tsv").write_text("device_seconds\n1.5\n")
        return Ran(2.0, 1 << 30, 1.0)

    monkeypatch.setattr(scaling, "run_stage", stage)
    assert (
        scaling._register(tmp_path, 1)
        == scaling._register(tmp_path, 1)
        == {"seconds": 2.0, "cpu_seconds": 1.0, "peak_gib": 1.0, "device_seconds": 1.5}
    )
    assert len(set(folders)) == 2
