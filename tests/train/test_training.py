# SPDX-License-Identifier: Apache-2.0
"""A short real training run: what it writes, that it learns, repeats and stops on a loss that is no number."""
from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

import train.loop as loop  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.loop import StepRecord, build_training_graph, format_step  # noqa: E402
from train.pairs import PairSource, find_scans  # noqa: E402
from train.settings import TrainSettings  # noqa: E402
from vxm_convert.errors import ArtifactError, TrainingError  # noqa: E402
from vxm_convert.network.names import expected_variables  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.phantom import PhantomSettings, write_cohort  # noqa: E402
from vxm_convert.spec import ModelSpec  # noqa: E402

pytestmark = pytest.mark.tf

SHAPE = (16, 16, 32)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PhantomSettings(SHAPE, subjects=2, seed=0, displacement=0.1))
    return folder


@pytest.fixture
def settings(cohort: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings(cohort / "scans", cohort / "atlas.npz", tmp_path / "run", ModelSpec("vm1", SHAPE), learning_rate=2e-3, epochs=3,
                         steps_per_epoch=4, keep=2)


def source_of(settings: TrainSettings) -> PairSource:
    return PairSource(find_scans(settings.data, settings.atlas), settings.atlas, SHAPE, settings.spec.batch, settings.seed)


def steps_of(folder: Path) -> List[Dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "event" not in line]


def test_a_run_writes_named_variables_and_keeps_the_newest(settings: TrainSettings) -> None:
    last = loop.train(settings, source_of(settings), {"atlas": "0" * 64})
    assert last.name == "model-12"
    assert sorted(p.name for p in settings.out.glob("*.index")) == ["model-12.index", "model-8.index"]
    assert sorted(p.name for p in settings.out.glob("*.json")) == [
        "model-12.data-00000-of-00001.json", "model-12.index.json", "model-8.data-00000-of-00001.json", "model-8.index.json", "spec.json"]
    assert not list(settings.out.glob("*.meta"))
    assert ModelSpec.from_dict(json.loads((settings.out / "spec.json").read_text())) == settings.spec
    reader = tf.train.NewCheckpointReader(str(last))
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    for name, shape in expected_variables(settings.spec).items():
        assert shapes[name] == shapes[name + "/Adam"] == shapes[name + "/Adam_1"] == tuple(shape)
    assert reader.get_tensor("global_step") == 12
    steps = steps_of(settings.out)
    assert [s["step"] for s in steps] == list(range(12))
    for step in steps:
        assert step["loss"] == pytest.approx(step["loss_mse"] + 0.01 * step["loss_flow"], rel=1e-4)


def test_it_learns(settings: TrainSettings) -> None:
    longer = replace(settings, epochs=1, steps_per_epoch=60, learning_rate=4e-3)
    loop.train(longer, source_of(longer), {})
    losses = [s["loss"] for s in steps_of(longer.out)]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_one_seed_one_beginning(settings: TrainSettings, tmp_path: Path) -> None:
    runs = [replace(settings, epochs=1, out=tmp_path / name, seed=seed) for name, seed in (("a", 7), ("b", 7), ("c", 8))]
    for run in runs:
        loop.train(run, source_of(run), {})
    kernels = [tf.train.load_variable(str(run.out / "model-0"), "conv3d_3/kernel") for run in runs]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3


def test_initial_weights_are_as_published(settings: TrainSettings) -> None:
    built = build_training_graph(settings)
    with built.graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values = {v.op.name: session.run(v) for v in tf.trainable_variables()}
    assert set(values) == set(expected_variables(settings.spec))
    fan_in = 27 * values["conv3d_5/kernel"].shape[3]
    assert values["conv3d_5/kernel"].std() == pytest.approx(np.sqrt(2.0 / fan_in), rel=0.03)
    assert values["flow/kernel"].std() == pytest.approx(1e-5, rel=0.15)
    assert not values["flow/bias"].any()


def test_only_training_nodes_choose_the_lean_kernels(settings: TrainSettings) -> None:
    nodes = build_training_graph(settings).graph.as_graph_def().node
    labels = {n.op: n.attr["_kernel"].s for n in nodes if n.op.startswith("Conv3D")}
    assert labels == {"Conv3D": b"", "Conv3DBackpropFilterV2": b"eigen_tensor", "Conv3DBackpropInputV2": b"eigen_tensor"}


def test_the_lean_kernels_compute_the_same_gradients(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(settings)
    batch = next(source.batches())
    updated = []
    for labels in (loop._CPU_KERNELS, {}):
        monkeypatch.setattr(loop, "_CPU_KERNELS", labels)
        built = build_training_graph(settings)
        with built.graph.as_default(), tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(built.train_op, {built.moving: batch.moving, built.fixed: source.fixed})
            # Adam's first moment after one step is 0.1 times the gradient.
            updated.append(session.run([v for v in tf.global_variables() if v.op.name.endswith("kernel/Adam")]))
    for lean, default in zip(*updated):
        np.testing.assert_allclose(lean, default, rtol=2e-3, atol=1e-4 * np.abs(default).max())


def test_a_loss_that_is_no_number_stops_and_names_the_scan(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(settings)
    first = source_of(settings)
    poisoned = next(b for i, b in enumerate(first.batches()) if i == 5)
    original = source.batches

    def batches():
        for index, batch in enumerate(original()):
            yield replace(batch, moving=batch.moving * np.float32("nan")) if index == 5 else batch

    monkeypatch.setattr(source, "batches", batches)
    with pytest.raises(TrainingError) as caught:
        loop.train(settings, source, {})
    assert "step 5" in str(caught.value) and poisoned.paths[0].name in str(caught.value) and "model-4" in str(caught.value)
    reader = tf.train.NewCheckpointReader(str(settings.out / "model-4"))
    assert all(np.isfinite(reader.get_tensor(name)).all() for name in expected_variables(settings.spec))
    assert not (settings.out / "model-12.index").exists()


def test_two_runs_are_not_mixed(settings: TrainSettings) -> None:
    settings.out.mkdir()
    (settings.out / "model-3.index").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="another run"):
        loop.train(settings, source_of(settings), {})


def test_the_command_line(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    argv = ["--data", str(cohort / "scans"), "--atlas", str(cohort / "atlas.npz"), "--out", str(tmp_path / "o"), "--variant", "vm1",
            "--epochs", "1", "--batch", "2", "--loss", "ncc"]
    assert main(argv) == 0
    assert capsys.readouterr().out.strip() == f"checkpoint: {tmp_path / 'o' / 'model-1'}"
    assert any(re.search(r"epoch 1/1: loss -0\.\d+ \(ncc", record.getMessage()) for record in caplog.records)


def test_step_lines_have_the_form_of_earlier_logs() -> None:
    assert format_step(StepRecord(7, 0.00995, 0.0095, 1.1e-10, 2.3), "mse") == \
        "step 7 ---> loss: 0.00995, loss_mse: 0.0095, loss_flow: 1.1e-10, time: 2.300"
