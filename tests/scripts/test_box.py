# SPDX-License-Identifier: Apache-2.0
"""Weights in the box are the mean of their checkpoints, and every loader takes them; the box that is shipped is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.box import CURVE_NAME, curve_of, main, mean_weights
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.spec_file import SpecFile, read_spec
from vxm_convert.model.variables import expected_variables
from vxm_convert.weights.files import find_checkpoint

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

SPEC = ModelSpec("vm1", (160, 192, 224))


def random_weights(seed: int) -> dict:
    rng = np.random.RandomState(seed)
    return {name: rng.rand(*shape).astype(np.float32) for name, shape in expected_variables(SPEC).items()}


def write_run(folder: Path) -> None:
    folder.mkdir()
    records = [{"step": n, "loss": 1.0, "loss_dice": 0.5 - n / 1000} for n in range(100)]
    validation = {"dice": 0.6, "dice_before": 0.5}
    records.append({"event": "epoch", "epoch": 0, "steps": 100, "loss_dice": 0.4, "validation": validation})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def test_the_mean_is_that_of_all_networks() -> None:
    networks = [random_weights(seed) for seed in range(3)]
    for name, value in mean_weights(networks).items():
        assert value.dtype == np.float32
        assert value == pytest.approx(sum(one[name] for one in networks) / 3, abs=1e-6)


def test_the_curve_is_the_log_in_bins(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    at, missed, validated = curve_of(tmp_path / "run")
    assert at == pytest.approx([24.5, 74.5])
    assert missed == pytest.approx([0.5 - 0.0245, 0.5 - 0.0745])
    assert validated.tolist() == [[100, 0.5, 0.6]]


@pytest.mark.tf
def test_a_box_is_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    from scripts.box import _save
    from vxm_convert.network.restore import load_weights

    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        _save(random_weights(seed), tmp_path / str(seed))
    write_run(tmp_path / "run")
    box = tmp_path / "box"
    words = ["--variant", "vm1", "--checkpoints", str(tmp_path / "0" / "model"), str(tmp_path / "1"), "--out", str(box)]
    assert main(words + ["--runs", str(tmp_path / "run")]) == 0
    wanted = mean_weights([random_weights(0), random_weights(1)])
    found = load_weights(find_checkpoint(box), SPEC)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert read_spec(box) == SpecFile(SPEC, "contrast")
    listed = read_manifest(box / "SHA256SUMS")
    assert CURVE_NAME in listed and "model.index" in listed
    assert all(sha256_of(box / name) == digest for name, digest in listed.items())
