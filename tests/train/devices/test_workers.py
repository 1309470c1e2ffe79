# SPDX-License-Identifier: Apache-2.0
"""Training in two processes: together they do what one does with twice the batch; what happens when one is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from tests.support.forked import VARIABLE  # noqa: E402
from train.__main__ import main  # noqa: E402
from vxm_convert.errors import SpecError  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("forked_commands")]


def free_ports(count: int) -> List[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def options(cohort: Path, out: Path, *more: str) -> List[str]:
    return [
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--out",
        str(out),
        "--variant",
        "vm1",
        "--epochs",
        "1",
        "--steps-per-epoch",
        "3",
        "--lr",
        "1e-3",
        "--no-tensorboard",
        "--device",
        "cpu",
        "--threads",
        "2",
        "--quiet",
        *more,
    ]


def start(argv: List[str], root: Path, environment: Dict[str, str] = os.environ) -> subprocess.Popen:
    command = [sys.executable, "-m", "train"] + argv
    return subprocess.Popen(command, cwd=str(root), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def losses(folder: Path) -> List[Dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "event" not in line]


def test_two_processes_do_what_one_does_with_twice_the_batch(cohort: Path, project_root: Path, tmp_path: Path) -> None:
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    # One as a user starts it, one forked.
    environments = ({name: value for name, value in os.environ.items() if name != VARIABLE}, os.environ)
    both = [
        start(options(cohort, tmp_path / "two", "--workers", workers, "--rank", str(rank)), project_root, environment)
        for rank, environment in enumerate(environments)
    ]
    assert main(options(cohort, tmp_path / "one", "--batch", "2")) == 0
    for process in both:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
    one, first, second = (losses(tmp_path / name) for name in ("one", "two", "two/worker-1"))
    assert len(one) == len(first) == len(second) == 3
    for single, a, b in zip(one, first, second):
        assert abs(a["loss"] - b["loss"]) > 1e-3 * single["loss"], "both saw the same scan"
        assert (a["loss"] + b["loss"]) / 2 == pytest.approx(single["loss"], rel=1e-3)
    assert sorted(p.name for p in (tmp_path / "two").glob("*.index")) == ["model-0.index", "model-3.index"]
    assert not list((tmp_path / "two" / "worker-1").glob("model-*"))
    readers = [tf.train.NewCheckpointReader(str(tmp_path / name / "model-3")) for name in ("one", "two")]
    assert readers[0].get_variable_to_shape_map() == readers[1].get_variable_to_shape_map()
    for name in readers[0].get_variable_to_shape_map():
        if name.endswith("/Adam"):
            alone, averaged = (reader.get_tensor(name) for reader in readers)
            np.testing.assert_allclose(averaged, alone, rtol=0.02, atol=0.02 * np.abs(alone).max(), err_msg=name)


@pytest.mark.slow
def test_a_worker_that_is_left_alone_says_so(cohort: Path, project_root: Path, tmp_path: Path) -> None:
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    alone = start(options(cohort, tmp_path / "o", "--workers", workers, "--worker-timeout", "1"), project_root)
    _, error = alone.communicate(timeout=300)
    assert alone.returncode == 1 and b"step 0: another worker has not answered for 1 s" in error
    assert (tmp_path / "o" / "model-0.state.json").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": ("a:1",)},
        {"workers": ("a:1", "a:1")},
        {"workers": ("a", "b")},
        {"workers": ("a:1", "b:1"), "rank": 2},
        {"rank": 1},
        {"workers": ("a:1", "b:1"), "worker_timeout": 0},
        {"workers": ("a:1", "b:1"), "device": "npu"},
    ],
)
def test_impossible_workers_are_refused(make_settings: Callable, changes: dict) -> None:
    with pytest.raises(SpecError):
        make_settings(**changes)
