# SPDX-License-Identifier: Apache-2.0
"""Training on synthetic pairs: its loss against NumPy, its learning rate, and a run that is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from train.__main__ import main  # noqa: E402
from train.data.dataset import placeholders  # noqa: E402
from train.data.synthetic import SyntheticLoader, synthetic_orders  # noqa: E402
from train.devices.open import open_backend  # noqa: E402
from train.graph.training_graph import build_training_graph  # noqa: E402
from train.options import build_parser, settings_from  # noqa: E402
from vxm_convert.geometry.reference_warp import warp_linear  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.synthetic.training_pairs import SCORED  # noqa: E402

pytestmark = pytest.mark.tf
SHAPE = (16, 32, 16)
WORDS = "--synthetic --shape 16,32,16 --variant vm1 --threads 1 --no-tensorboard --validation-pairs 2 --quiet".split()
MORE = "--steps-per-epoch 2 --lr 1e-3 --dice-weight 0.05 --lambda 0.03".split()


def records(folder: Path) -> List[Dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    # How long a step took differs from run to run.
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("seconds")} for line in lines]


def test_the_loss_is_that_of_plain_images_and_numbered_labels(no_update: None) -> None:
    settings, _ = settings_from(build_parser().parse_args(WORDS + MORE + ["--lr-half-life", "4", "--makers", "0"]))
    order, _ = synthetic_orders(settings.data.synthetic, settings.spec, 0)
    sample = SyntheticLoader(settings.spec, 0, 0).arrays(order.pair(0), 0)
    with tf.Graph().as_default(), tf.Session() as session:
        built = build_training_graph(settings, placeholders(settings.spec, True, True), open_backend(settings))
        # A network with weights of some size, so that the flow is not zero.
        session.run(tf.global_variables_initializer())
        session.run([v.assign_add(tf.random_normal(v.shape, stddev=0.05, seed=1)) for v in tf.trainable_variables()])
        session.run(built.step.assign(8))
        feeds = {built.inputs[name]: value[np.newaxis] for name, value in sample.items()}
        found, flow = session.run([built.scalars, built.images["flow"]], feeds)
    flow = flow[0]
    assert np.abs(flow).max() > 0.1
    moved = warp_linear(sample["moving_plain"][..., 0], flow)
    assert found["image"] == pytest.approx(np.mean((moved - sample["fixed_plain"][..., 0]) ** 2), rel=1e-4)
    missed = []
    for label in range(1, 1 + SCORED):
        a, b = (np.asarray(sample[name] == label, np.float32) for name in ("moving_seg", "fixed_seg"))
        a = warp_linear(a, flow)
        if a.sum() + b.sum() > 0:
            missed.append(1 - 2 * (a * b).sum() / (a.sum() + b.sum()))
    assert found["dice"] == pytest.approx(np.mean(missed), rel=1e-4)
    assert found["loss"] == pytest.approx(found["image"] + 0.03 * found["flow"] + 0.05 * found["dice"], rel=1e-5)
    assert found["learning_rate"] == pytest.approx(1e-3 / 4)


@pytest.mark.usefixtures("plain_graphs")
def test_a_resumed_run_is_the_run_without_a_break(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(WORDS + MORE + ["--epochs", "2", "--out", str(whole)]) == 0
    assert main(WORDS + MORE + ["--epochs", "1", "--out", str(parts)]) == 0
    assert main(WORDS + MORE + ["--epochs", "2", "--resume", "--makers", "2", "--out", str(parts)]) == 0
    assert records(whole) == records(parts)
    epochs = [record for record in records(whole) if record.get("event") == "epoch"]
    assert len(epochs) == 2 and all(epoch["validation"]["pairs"] == 2 for epoch in epochs)
    last = [tf.train.load_checkpoint(str(folder / "model-4")) for folder in (whole, parts)]
    for name in last[0].get_variable_to_shape_map():
        assert np.array_equal(last[0].get_tensor(name), last[1].get_tensor(name))


@pytest.mark.parametrize("words", [["--synthetic"], ["--synthetic", "--shape", "16,16,16", "--data", "scans"]])
def test_options_that_make_no_run_are_refused(words: List[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(words + ["--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert "pass --" in message or "leave them out" in message
