# SPDX-License-Identifier: Apache-2.0
"""One small cohort and one exported model with random weights, shared by all tests across stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkpoints import write_checkpoint
from tests.support.once import made_once
from tests.support.reference import random_weights
from tests.support.stages import BATCH, SHAPE, SUBJECTS, Cohort, run_stage
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = made_once(tmp_path_factory, "cohort", lambda made: write_cohort(made, PhantomSettings(SHAPE, SUBJECTS)))
    return Cohort(folder / SCANS_FOLDER, folder / ATLAS_FILE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of vm2 as a TensorFlow checkpoint; its prefix."""

    def make(folder: Path) -> None:
        write_checkpoint(folder / "model", random_weights(ModelSpec("vm2", SHAPE), seed=11))

    return made_once(tmp_path_factory, "checkpoint", make) / "model"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The folder of an export at batch 2, balanced, ONNX included."""

    def make(folder: Path) -> None:
        words = ["--shape", ",".join(map(str, SHAPE)), "--batch", BATCH, "--precision", "balanced"]
        words += ["--toolchain", "sim", "--out", folder / "vxm"]
        done = run_stage(folder, "export", "--checkpoint", checkpoint, *words)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "exported", make) / "vxm"
