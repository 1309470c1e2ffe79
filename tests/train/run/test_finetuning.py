# SPDX-License-Identifier: Apache-2.0
"""Training goes on from the weights that were trained on an Ascend 910, at full size, on a real brain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from train.__main__ import main  # noqa: E402


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.real_data
def test_the_loss_falls_from_the_first_step(shared_data: Path, tmp_path: Path) -> None:
    """Three steps on one scan, about a minute each on two cores; later losses against that of the weights as they
    came.
    """
    scans = tmp_path / "scans.txt"
    scans.write_text(str((shared_data / "brains" / "vxm_test.npz").resolve()) + "\n")
    out = tmp_path / "run"
    argv = [
        "--data",
        str(scans),
        "--atlas",
        str(shared_data / "brains" / "atlas_fsaverage.npz"),
        "--out",
        str(out),
        "--epochs",
        "1",
        "--steps-per-epoch",
        "3",
        "--init",
        str(shared_data / "weights" / "vm2_mse_ascend910"),
        "--device",
        "cpu",
        "--no-tensorboard",
    ]
    assert main(argv) == 0
    steps = [
        record for record in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "event" not in record
    ]
    losses = [step["loss"] for step in steps]
    # An untrained network leaves the scan where it is: 1.84e-3.
    assert losses[0] < 1e-3 and steps[0]["displacement"] > 0.1
    assert losses[1] < losses[0] and losses[2] < losses[0]
    assert (out / "train_report.html").is_file()
