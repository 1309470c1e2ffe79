# SPDX-License-Identifier: Apache-2.0
"""One small cohort and one exported model with random weights, shared by all tests across stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkpoints import write_checkpoint
from tests.support.reference import random_weights
from tests.support.stages import BATCH, SHAPE, SUBJECTS, Cohort, run_stage
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort


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
