# SPDX-License-Identifier: Apache-2.0
"""A short real training run: what it writes, that it learns, repeats, validates and stops on a loss that is no
number.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

import train.devices.base as backends  # noqa: E402
from tests.support import reference  # noqa: E402
from tests.support.training import SHAPE  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.data.cohort import Cohort, read_cohort  # noqa: E402
from train.data.dataset import placeholders  # noqa: E402
from train.data.loading import Loader  # noqa: E402
from train.data.pairs import Pair  # noqa: E402
from train.graph.training_graph import TrainingGraph, build_training_graph  # noqa: E402
from train.run import loop  # noqa: E402
from train.run.records import format_step  # noqa: E402
from train.settings.run import TrainSettings  # noqa: E402
from vxm_convert.errors import ArtifactError, TrainingError  # noqa: E402
from vxm_convert.model.spec import ModelSpec  # noqa: E402
from vxm_convert.model.variables import expected_variables  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.synthetic.heads import PhantomSettings, write_cohort  # noqa: E402

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("plain_graphs")]


def cohort_of(settings: TrainSettings) -> Cohort:
    return read_cohort(settings.data, settings.seed)


def train(settings: TrainSettings, made_from: Dict[str, str] = None) -> loop.Trained:
    return loop.train(settings, cohort_of(settings), made_from or {})


def records_of(folder: Path) -> List[Dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_of(folder: Path) -> List[Dict]:
    return [line for line in records_of(folder) if "event" not in line]


def graph_of(settings: TrainSettings) -> TrainingGraph:
    with tf.Graph().as_default():
        tf.set_random_seed(settings.seed)
        return build_training_graph(
            settings, placeholders(settings.spec, settings.loss.dice_weight > 0), backends.Backend(settings)
        )


def feeds_of(settings: TrainSettings, built: TrainingGraph) -> Dict:
    atlas = settings.data.atlas
    loader = Loader(settings.spec, atlas, atlas, settings.loss.dice_weight > 0)
    scan = settings.data.source / "sub-01.npz"
    sample = loader.arrays(Pair(scan, None, scan), 0)
    return {tensor: np.broadcast_to(sample[name], tensor.shape.as_list()) for name, tensor in built.inputs.items()}


def test_a_run_learns_writes_named_variables_and_keeps_the_newest(make_settings: Callable) -> None:
    settings = make_settings(steps_per_epoch=14, learning_rate=4e-3)
    trained = train(settings, {"atlas": "0" * 64})
    assert trained.last.name == "model-42" and trained.best is None
    assert sorted(p.name for p in settings.out.glob("*.index")) == ["model-28.index", "model-42.index"]
    assert sorted(p.name for p in settings.out.glob("*.json")) == [
        "model-28.data-00000-of-00001.json",
        "model-28.index.json",
        "model-28.state.json",
        "model-42.data-00000-of-00001.json",
        "model-42.index.json",
        "model-42.state.json",
        "spec.json",
        "split.json",
    ]
    assert not list(settings.out.glob("*.meta")) and not (settings.out / "tensorboard").exists()
    assert ModelSpec.from_dict(json.loads((settings.out / "spec.json").read_text())) == settings.spec
    assert [Path(p).name for p in json.loads((settings.out / "split.json").read_text())["train"]] == [
        f"sub-0{n}.npz" for n in (1, 2, 3)
    ]
    reader = tf.train.NewCheckpointReader(str(trained.last))
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    for name, shape in expected_variables(settings.spec).items():
        assert shapes[name] == shapes[name + "/Adam"] == shapes[name + "/Adam_1"] == tuple(shape)
    assert reader.get_tensor("global_step") == 42
    steps = steps_of(settings.out)
    assert [s["step"] for s in steps] == list(range(42))
    for step in steps:
        assert step["loss"] == pytest.approx(step["loss_mse"] + 0.01 * step["loss_flow"], rel=1e-4)
    assert np.mean([s["loss"] for s in steps[-6:]]) < 0.8 * np.mean([s["loss"] for s in steps[:6]])
    assert steps[0]["displacement"] < 1e-3 and steps[-1]["displacement"] > 0.1
    log = (settings.out / "train.log").read_text().splitlines()
    assert len(log) == 45 and re.match(
        r"step 0 ---> loss: [\d.e-]+, loss_mse: [\d.e-]+, loss_flow: [\d.e-]+, time: [\d.]+$", log[0]
    )
    assert log[14].startswith("epoch 1: loss ")


@pytest.mark.usefixtures("no_update")
def test_one_seed_one_beginning(make_settings: Callable) -> None:
    kernels = []
    for seed in (7, 7, 8):
        built = graph_of(make_settings(seed=seed))
        with built.graph.as_default(), tf.Session() as session:
            session.run(tf.global_variables_initializer())
            kernels.append(session.run("conv3d_3/kernel:0"))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3


@pytest.mark.parametrize("variant", ["vm1", "miccai2018"])
@pytest.mark.usefixtures("no_update")
def test_initial_weights_are_as_published(make_settings: Callable, variant: str) -> None:
    settings = make_settings(variant, integration_steps=1 if variant == "miccai2018" else None)
    built = graph_of(settings)
    with built.graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values = {v.op.name: session.run(v) for v in tf.trainable_variables()}
    assert set(values) == set(expected_variables(settings.spec))
    fan_in = 27 * values["conv3d_5/kernel"].shape[3]
    assert values["conv3d_5/kernel"].std() == pytest.approx(np.sqrt(2.0 / fan_in), rel=0.03)
    assert values["flow/kernel"].std() == pytest.approx(1e-5, rel=0.15)
    assert not values["flow/bias"].any()
    if variant == "miccai2018":
        assert values["log_sigma/kernel"].std() == pytest.approx(1e-10, rel=0.15) and np.all(
            values["log_sigma/bias"] == -10
        )


def test_only_training_nodes_choose_the_lean_kernels(make_settings: Callable) -> None:
    nodes = graph_of(make_settings(convolutions="direct")).graph.as_graph_def().node
    labels = {n.op: n.attr["_kernel"].s for n in nodes if n.op.startswith("Conv3D")}
    assert labels == {
        "Conv3D": b"",
        "Conv3DBackpropFilterV2": b"eigen_tensor",
        "Conv3DBackpropInputV2": b"eigen_tensor",
    }


def test_every_form_and_kernel_computes_the_same_gradients(
    make_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same initial weights, which are a matter of the seed alone."""
    updated = []
    for form, labels in (("direct", {}), ("direct", backends.CPU_KERNELS), ("blocks", {})):
        monkeypatch.setattr(backends, "CPU_KERNELS", labels)
        settings = make_settings(convolutions=form)
        built = graph_of(settings)
        with built.graph.as_default(), tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(built.train_op, feeds_of(settings, built))
            # Adam's first moment after one step is 0.1 times the gradient.
            updated.append(session.run([v for v in tf.global_variables() if v.op.name.endswith("kernel/Adam")]))
    for default, lean, blocks in zip(*updated):
        for other in (lean, blocks):
            np.testing.assert_allclose(other, default, rtol=2e-3, atol=1e-4 * np.abs(default).max())


@pytest.mark.usefixtures("no_update")
def test_the_dice_term_is_the_overlap_of_the_warped_labels(make_settings: Callable) -> None:
    settings = make_settings(dice_weight=0.5)
    built = graph_of(settings)
    with built.graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        feeds = feeds_of(settings, built)
        values = session.run(built.scalars, feeds)
        slope = session.run(tf.gradients(built.scalars["dice"], built.images["flow"])[0], feeds)
    segs = [feeds[built.inputs[name]] for name in ("moving_seg", "fixed_seg")]
    present = [n for n in range(1, 64) if any((seg == n).any() for seg in segs)]
    scores = [
        2 * ((segs[0] == n) & (segs[1] == n)).sum() / ((segs[0] == n).sum() + (segs[1] == n).sum()) for n in present
    ]
    # The flow of an untrained network is almost zero.
    assert values["dice"] == pytest.approx(1 - np.mean(scores), abs=1e-3)
    assert values["loss"] == pytest.approx(values["image"] + 0.01 * values["flow"] + 0.5 * values["dice"], rel=1e-5)
    assert np.abs(slope).max() > 1e-5


def test_validation_ranks_checkpoints_and_the_best_stays(
    make_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, 0.7, 0.5, float("nan"), 0.7, 0.6])
    monkeypatch.setattr(loop, "score_of", lambda result: ("dice", next(scores)))
    settings = make_settings(split=(0.67, 0.33, 0.0), epochs=6, steps_per_epoch=1)
    trained = train(settings)
    assert (trained.last.name, trained.best.name) == ("model-6", "model-2")
    assert sorted(p.name for p in settings.out.glob("*.index")) == ["model-2.index", "model-5.index", "model-6.index"]
    assert json.loads((settings.out / "best.json").read_text()) == {
        "checkpoint": "model-2",
        "figure": "dice",
        "score": 0.7,
        "step": 2,
    }
    epochs = [r for r in records_of(settings.out) if r.get("event") == "epoch"]
    result = epochs[0]["validation"]
    assert result["pairs"] == 1 and 0 < result["dice"] < 1 and result["image"] > 0
    assert result["dice"] == pytest.approx(result["dice_before"], abs=0.05)


def test_a_loss_that_is_no_number_stops_and_names_the_scan(
    make_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(steps_per_epoch=4)
    original, poisoned = Loader.arrays, []

    def arrays(self: Loader, pair: Pair, sample: int) -> Dict:
        found = original(self, pair, sample)
        if sample == 5:
            poisoned.append(pair.moving.name)
            found["moving"] = found["moving"] * np.float32("nan")
        return found

    monkeypatch.setattr(Loader, "arrays", arrays)
    with pytest.raises(TrainingError) as caught:
        train(settings)
    assert "step 5" in str(caught.value) and poisoned[0] in str(caught.value) and "model-4" in str(caught.value)
    assert records_of(settings.out)[-1]["event"] == "loss not finite"
    reader = tf.train.NewCheckpointReader(str(settings.out / "model-4"))
    assert all(np.isfinite(reader.get_tensor(name)).all() for name in expected_variables(settings.spec))
    assert not (settings.out / "model-12.index").exists()


def test_a_scan_that_vanishes_is_named(make_settings: Callable, tmp_path: Path) -> None:
    settings = make_settings(steps_per_epoch=4)
    cohort = cohort_of(settings)
    gone = replace(cohort.train[0], moving=tmp_path / "gone.npz")
    with pytest.raises(TrainingError, match="step 0: .*gone.npz: no such file.*--resume"):
        loop.train(settings, Cohort((gone,)), {})


@pytest.mark.usefixtures("no_update")
def test_two_runs_are_not_mixed(make_settings: Callable) -> None:
    settings = make_settings()
    settings.out.mkdir()
    (settings.out / "model-3.index").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="another run"):
        train(settings)


def test_the_command_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "o"
    argv = [
        "--data",
        str(cohort / "scans"),
        "--pairs",
        "scans",
        "--out",
        str(out),
        "--variant",
        "vm1",
        "--epochs",
        "1",
        "--batch",
        "2",
        "--loss",
        "ncc",
        "--penalty",
        "l1",
        "--augment",
        "flip",
        "--cache",
    ]
    assert main(argv) == 0
    assert capsys.readouterr().out.strip() == f"checkpoint: {out / 'model-2'}"
    assert any(re.search(r"epoch 1: loss -0\.\d+ \(ncc", record.getMessage()) for record in caplog.records)
    step = steps_of(out)[0]
    assert step["loss"] == pytest.approx(step["loss_ncc"] + step["loss_flow"], rel=1e-5)
    tags = {
        value.tag: value
        for path in (out / "tensorboard").iterdir()
        for event in tf.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"loss", "loss_ncc", "loss_flow", "learning_rate", "moving", "fixed", "moved", "warped grid"} <= set(tags)
    picture = tags["moved"].image
    assert (picture.height, picture.width) == (SHAPE[1], SHAPE[2] + SHAPE[2] + SHAPE[1])
    with tf.Session() as session:
        pixels = session.run(tf.image.decode_png(picture.encoded_image_string))
    assert pixels.shape == (picture.height, picture.width, 1) and pixels.max() > 50


def test_step_lines_have_the_form_of_earlier_logs() -> None:
    record = {"step": 7, "loss": 0.00995, "loss_mse": 0.0095, "loss_flow": 1.1e-10, "seconds": 2.3}
    assert format_step(record, "mse") == "step 7 ---> loss: 0.00995, loss_mse: 0.0095, loss_flow: 1.1e-10, time: 2.300"


def reachable(folder: Path) -> Tuple[float, float]:
    """The loss without any deformation and that of the true ones, mean over the cohort.

    What is left with the true ones is noise, interpolation and the smoothness they cost.
    """
    atlas = np.load(str(folder / "atlas.npz"))["vol"][None, ..., None] / 255.0
    still, losses = [], []
    for scan in sorted((folder / "scans").iterdir()):
        vol = np.load(str(scan))["vol"][None, ..., None] / 255.0
        truth = np.load(str(folder / "truth" / (scan.stem + "_flow.npz")))
        flow = truth[truth.files[0]][None].astype(np.float64)
        still.append(np.mean((vol - atlas) ** 2))
        slopes = [np.mean(np.diff(flow, axis=axis) ** 2) for axis in (1, 2, 3)]
        losses.append(np.mean((reference.warp_linear(vol, flow) - atlas) ** 2) + 0.01 * np.mean(slopes))
    return float(np.mean(still)), float(np.mean(losses))


@pytest.mark.slow
def test_700_steps_reach_most_of_what_can_be_reached(make_settings: Callable, tmp_path: Path) -> None:
    """As the recipe: MSE, λ 0.01, batch 1, 700 steps; the loss covers at least 60 % of the way to that of the true
    warps.
    """
    cohort = tmp_path / "moved_more"
    write_cohort(cohort, PhantomSettings(SHAPE, subjects=3, displacement=0.12))
    settings = make_settings(
        "vm2", epochs=1, steps_per_epoch=700, learning_rate=1e-3, cache=True, atlas=cohort / "atlas.npz"
    )
    settings = replace(settings, data=replace(settings.data, source=cohort / "scans"))
    train(settings)
    losses = [s["loss"] for s in steps_of(settings.out)]
    # Not the first steps' losses: the network learns from the second one on.
    (start, floor), end = reachable(cohort), np.mean(losses[-30:])
    assert floor < 0.5 * start and losses[0] > 0.6 * start
    assert start - end > 0.6 * (start - floor), f"from {start:.3g} to {end:.3g}, {floor:.3g} can be reached"
