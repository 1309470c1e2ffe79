# SPDX-License-Identifier: Apache-2.0
"""A diffeomorphic model gives its velocity beside the flow, and the runner makes the inverse of its negative."""

from __future__ import annotations

import json

import pytest

from tests.support.checkpoints import write_checkpoint
from tests.support.reference import random_weights
from tests.support.stages import SHAPE, run_stage
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.spec import ModelSpec

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf


def test_the_inverse_is_the_negative_velocitys(tmp_path, cohort):
    spec = ModelSpec("miccai2018", SHAPE)
    checkpoint = write_checkpoint(tmp_path / "model", random_weights(spec, seed=3))
    base = (
        "--checkpoint",
        checkpoint,
        "--variant",
        spec.variant,
        "--shape",
        ",".join(map(str, SHAPE)),
        "--toolchain",
        "sim",
    )
    done = run_stage(tmp_path, "export", *base, "--skip-onnx", "--out", tmp_path / "vxm")
    assert done.returncode == 0, done.stderr
    contract = GraphContract.load(tmp_path / "vxm" / "contract.json")
    assert contract.tensor("velocity").shape == (1, 16, 16, 16, 3)
    done = run_stage(
        tmp_path,
        "om_runner",
        "--input",
        cohort.scans,
        "--atlas",
        cohort.atlas,
        "--model",
        tmp_path / "vxm" / "vxm.om",
        "--out",
        tmp_path / "out",
        "--compare",
        "none",
        "--outputs",
        "warp,inverse,seg",
        "--limit",
        1,
    )
    # 1: the scans beyond the limit are missing.
    assert done.returncode == 1 and "error of the inverse warp (negative velocity) " in done.stderr, done.stderr
    side = json.loads((tmp_path / "out" / "sub-01" / "inverse.nii.gz.json").read_text(encoding="utf-8"))
    reached = side["consistency"]
    assert reached["method"] == "negative velocity" and reached["not_converged"] == 0
    assert 0 < reached["fixed_mm"]["mean"] < 0.5 and reached["moving_mm"]["n"] > 1000
