# SPDX-License-Identifier: Apache-2.0
"""``make finetune-table`` and ``make shapes-table``: what they run, the table they print, the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from scripts import training_tables
from scripts.stages import Ran
from vxm_convert.errors import EXIT_TOLERANCE

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

SCANS = {"bert": (0.60, 0.71), "dfsp": (0.50, 0.65)}


class Stages:
    """Stands in for the stages: writes the tables they would, and remembers how it was called."""

    def __init__(self, gains: List[float]) -> None:
        self.gains = gains
        self.calls: List[List[str]] = []

    def __call__(self, arguments: List[str]) -> Ran:
        self.calls.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        if arguments[0] == "om_runner":
            gain = self.gains.pop(0)
            lines = ["subject\tsource\tdice_before\tdice_after\tfolding_fraction"]
            lines += [f"{name}\t{name}.npz\t{before}\t{before + gain}\t0.001" for name, (before, _) in SCANS.items()]
            (out / "metrics.tsv").write_text("\n".join(lines) + "\n")
            (out / "run.json").write_text(json.dumps({"toolchain": {"kind": "simulated", "version": "1"}}))
        elif arguments[0] == "train":
            records: List[Dict[str, Any]] = [
                {"step": 0, "loss": 3.0},
                {"event": "epoch", "loss": 2.0},
                {"event": "epoch", "loss": 1.5},
            ]
            (out / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return Ran(0.0, 0, 0.0)


class FakeContract:
    """Of the exported model, as far as the table needs it."""

    class model:
        @staticmethod
        def to_dict() -> Dict[str, Any]:
            return {"variant": "vm2", "volume_shape": [16, 16, 16]}

    class precision:
        name = "balanced"


def run(monkeypatch: pytest.MonkeyPatch, gains: List[float], argv: List[str]) -> Any:
    stages = Stages(gains)
    monkeypatch.setattr(training_tables, "run_stage", stages)
    monkeypatch.setattr(training_tables.GraphContract, "load", lambda path: FakeContract)
    return training_tables.main(argv), stages.calls


def test_fine_tuning_compares_before_and_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = [
        "finetune",
        "--init",
        "ck",
        "--input",
        str(tmp_path / "scans"),
        "--atlas",
        "a.npz",
        "--out",
        str(tmp_path / "t"),
    ]
    code, calls = run(monkeypatch, [0.1, 0.2], argv)
    assert code == 0
    assert [call[0] for call in calls] == ["export", "om_runner", "train", "export", "om_runner"]
    assert calls[2][calls[2].index("--init") + 1] == "ck" and calls[3][calls[3].index("--checkpoint") + 1] == str(
        tmp_path / "t" / "train"
    )
    assert (tmp_path / "t" / "scans.txt").read_text().splitlines() == [
        str((tmp_path / "scans" / f"{n}.npz").resolve()) for n in SCANS
    ]
    text = capsys.readouterr().out
    assert "| scan | before registration | weights as they came | after fine-tuning |" in text
    assert "| bert | 0.6000 | 0.7000 | 0.8000 |" in text and "| mean | 0.5500 | 0.6500 | 0.7500 |" in text
    assert (
        "simulated toolchain 1, n = 2" in text
        and "each epoch: 2, 1.5" in text
        and "| folded voxels, % |  | 0.100 | 0.100 |" in text
    )
    assert json.loads((tmp_path / "t" / "table.json").read_text())["losses"] == [2.0, 1.5]


@pytest.mark.parametrize("gain, expected", [(0.02, 0), (-0.02, EXIT_TOLERANCE)])
def test_shapes_come_first_and_a_fall_is_no_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gain: float, expected: int
) -> None:
    code, calls = run(monkeypatch, [gain], ["shapes", "--input", "s", "--atlas", "a.npz", "--out", str(tmp_path / "t")])
    assert code == expected
    assert calls[0][:4] == ["vxm_convert", "phantom", "--kind", "shapes"]
    assert [call[0] for call in calls[1:]] == ["train", "export", "om_runner"]
    assert (
        calls[1][calls[1].index("--data") + 1] == str(tmp_path / "t" / "shapes" / "pairs.csv")
        and "--init" not in calls[1]
    )


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.real_data
def test_a_network_that_saw_shapes_only_registers_real_brains(shared_data: Path, tmp_path: Path) -> None:
    """The defaults of the command, about half an hour on two cores; exit code 0 means that the mean Dice rose over the
    affine one.
    """
    pytest.importorskip("tensorflow")
    brains = shared_data / "brains"
    argv = [
        "shapes",
        "--input",
        str(brains),
        "--atlas",
        str(brains / "atlas_fsaverage.npz"),
        "--out",
        str(tmp_path / "t"),
    ]
    assert training_tables.main(argv) == 0
    columns = json.loads((tmp_path / "t" / "table.json").read_text())["columns"]
    assert all(row["dice_after"] > row["dice_before"] for row in columns["trained on shapes only"].values())
