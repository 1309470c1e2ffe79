# SPDX-License-Identifier: Apache-2.0
"""One small cohort and one exported model with random weights, shared by all tests across stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.export.conftest import write_checkpoint
from tests.support.reference import random_weights
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (32, 32, 32)
BATCH = 2
SUBJECTS = 3


class Cohort(NamedTuple):
    """Phantom scans and their atlas."""

    scans: Path
    atlas: Path


def run_stage(cwd: Path, *argv: Any) -> subprocess.CompletedProcess:
    """``python -m …`` in a process of its own, started elsewhere than in the project."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m"] + [str(a) for a in argv]
    return subprocess.run(command, cwd=str(cwd), env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PhantomSettings(SHAPE, SUBJECTS))
    return Cohort(folder / SCANS_FOLDER, folder / ATLAS_FILE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of vm2 as a TensorFlow checkpoint; its prefix."""
    return write_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "model", random_weights(ModelSpec("vm2", SHAPE), seed=11)
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder of an export at batch 2, balanced, ONNX included."""
    out = tmp_path_factory.mktemp("export") / "vxm"
    shape = ",".join(str(n) for n in SHAPE)
    done = run_stage(
        out.parent,
        "export",
        "--checkpoint",
        checkpoint,
        "--shape",
        shape,
        "--batch",
        BATCH,
        "--precision",
        "balanced",
        "--toolchain",
        "sim",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    return out
