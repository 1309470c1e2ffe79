# SPDX-License-Identifier: Apache-2.0
"""A run that is killed at any moment and resumed ends with the weights of the unbroken run, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from tests.support.forked import run_python  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.run.checkpoints import CheckpointFolder  # noqa: E402
from train.run.resume import cut_metrics  # noqa: E402
from vxm_convert.model.spec import ModelSpec  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

pytestmark = pytest.mark.tf

#: the process kills itself: at the moment that the record of a step is to be written, or a checkpoint's state
KILLER = """
import os, signal, sys
import train.run.checkpoints, train.run.records
kind, number = sys.argv[1], int(sys.argv[2])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "step":
    write = train.run.records.Records.write
    train.run.records.Records.write = lambda self, record: die() if record.get("step") == number else write(self, record)
else:
    write_json = train.run.checkpoints.write_json
    train.run.checkpoints.write_json = lambda path, data: die() if path.name == f"model-{number}.state.json" else write_json(path, data)
from train.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
#: three scans, one for validation; five steps per epoch, checkpoints at 2, 4, 5, 6, 8, 10
PLAIN = ["--variant", "vm1", "--split", "0.67,0.33,0", "--augment", "flip,intensity", "--batch", "2"]
DIFFEOMORPHIC = ["--variant", "miccai2018", "--integration-steps", "2"]


def options(cohort: Path, out: Path, more: List[str]) -> List[str]:
    return [
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--out",
        str(out),
        "--epochs",
        "2",
        "--quiet",
        "--steps-per-epoch",
        "5",
        "--save-every",
        "2",
        "--lr",
        "1e-3",
        "--threads",
        "2",
        "--no-tensorboard",
        "--device",
        "cpu",
    ] + more


def variables(prefix: Path) -> Dict[str, np.ndarray]:
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def logged(folder: Path) -> List[Dict]:
    """Without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = variables(one / "model-10"), variables(other / "model-10")
    assert set(first) == set(second) and any(name.endswith("/Adam_1") for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert logged(one) == logged(other)
    logs = [
        [line.split("time:")[0] for line in (folder / "train.log").read_text().splitlines() if line.startswith("step")]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10
    states = [json.loads((folder / "model-10.state.json").read_text()) for folder in (one, other)]
    assert states[0]["best"] == states[1]["best"] and states[0]["watch"] == states[1]["watch"]


def kill(cohort: Path, project_root: Path, out: Path, more: List[str], kind: str, number: int) -> None:
    words = ["-c", KILLER, kind, str(number), *options(cohort, out, more)]
    done = run_python(words, project_root, dict(os.environ))
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def unbroken(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert main(options(cohort, out, PLAIN)) == 0
    return out


def newest_state(out: Path) -> int:
    return max(int(p.name[len("model-") :].split(".")[0]) for p in out.glob("*.state.json"))


def test_killed_twice_and_resumed(cohort: Path, project_root: Path, unbroken: Path, tmp_path: Path) -> None:
    """In the middle of an epoch; then, resumed from a checkpoint in its middle, while a checkpoint is written."""
    out = tmp_path / "run"
    kill(cohort, project_root, out, PLAIN, "step", 4)
    assert newest_state(out) == 4
    kill(cohort, project_root, out, PLAIN + ["--resume"], "state", 6)
    assert (out / "model-6.index").exists() and newest_state(out) == 5
    assert main(options(cohort, out, PLAIN) + ["--resume"]) == 0
    assert_same_run(unbroken, out)


@pytest.mark.slow
def test_killed_and_resumed_with_sampled_velocities(cohort: Path, project_root: Path, tmp_path: Path) -> None:
    assert main(options(cohort, tmp_path / "a", DIFFEOMORPHIC)) == 0
    kill(cohort, project_root, tmp_path / "b", DIFFEOMORPHIC, "step", 3)
    assert main(options(cohort, tmp_path / "b", DIFFEOMORPHIC) + ["--resume"]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.usefixtures("no_update")
@pytest.mark.parametrize(
    "change, message",
    [
        (["--lr", "0.002"], "lr: 0.001 in the checkpoint, 0.002 now"),
        (["--seed", "1"], "seed: 0 in the checkpoint, 1 now"),
        (["--batch", "1"], "model: "),
        (["--variant", "vm2"], "model: "),
    ],
)
def test_another_run_is_not_resumed(
    cohort: Path, unbroken: Path, capsys: pytest.CaptureFixture, change: List[str], message: str
) -> None:
    before = {p: p.stat().st_mtime_ns for p in unbroken.iterdir()}
    assert main(options(cohort, unbroken, PLAIN) + ["--resume"] + change) == 1
    text = capsys.readouterr().err
    assert "this is another run" in text and message in text
    assert {p: p.stat().st_mtime_ns for p in unbroken.iterdir()} == before


@pytest.mark.usefixtures("no_update")
def test_other_scans_are_another_run(
    cohort: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scans = tmp_path / "cohort" / "scans"
    scans.mkdir(parents=True)
    for number in (1, 2, 3):
        content = (cohort / "scans" / f"sub-0{3 if number == 2 else number}.npz").read_bytes()
        (scans / f"sub-0{number}.npz").write_bytes(content)
    argv = options(cohort, unbroken, PLAIN) + ["--resume", "--data", str(scans)]
    assert main(argv) == 1
    assert "scan sub-02.npz: the bytes have changed" in capsys.readouterr().err


@pytest.mark.usefixtures("no_update")
def test_nothing_whole_to_resume_from(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(options(cohort, tmp_path / "run", PLAIN) + ["--resume"]) == 1
    assert "no complete checkpoint to resume from" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over(cohort: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(str(unbroken), str(out))
    final = variables(out / "model-10")
    data = out / "model-10.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    (out / "model-8.state.json").write_text("{")
    assert main(options(cohort, out, PLAIN) + ["--resume"]) == 0
    for name, value in variables(out / "model-10").items():
        np.testing.assert_array_equal(value, final[name], err_msg=name)


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 0},
        {"step": 1},
        {"event": "epoch", "epoch": 0},
        {"event": "warning", "step": 1},
        {"step": 2},
        {"event": "epoch", "epoch": 1},
        {"event": "warning", "step": 3},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"step": 1, "lo')
    kept = cut_metrics(path, 2, 1)
    assert kept == lines[:4]
    assert [json.loads(line) for line in path.read_text().splitlines()] == kept


def test_what_a_kill_while_saving_left_is_cleared(tmp_path):
    """Temporary files of TensorFlow's Saver and of this project; checkpoints stay."""
    left = (
        "checkpoint.tmp0123",
        "model-2.data-00000-of-00001.tempstate456",
        "model-2.index.tempstate7",
        ".tmp-ab-best.json",
    )
    kept = ("model-1.index", "model-1.data-00000-of-00001", "checkpoint")
    for name in left + kept:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "model-2_temp_ab12").mkdir()
    with tf.Graph().as_default():
        tf.get_variable("x", ())
        CheckpointFolder(tmp_path, ModelSpec("vm1", (16, 16, 16), 1), 1, {}, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
