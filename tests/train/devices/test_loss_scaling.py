# SPDX-License-Identifier: Apache-2.0
"""Loss scaling: what an overflow does to weights, moments, counters and the scale; and that good steps are those
without it.
"""

from __future__ import annotations

from typing import Any, Callable, List

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from train.devices.loss_scaling import SCALE_VARIABLES, scaled  # noqa: E402
from train.settings.run import ScaleSettings  # noqa: E402
from vxm_convert.errors import SpecError  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("plain_graphs")]


class Trainer:
    """One weight; the loss is slope · weight, so that a slope of 1e38 overflows under any scale above 3.

    The maximum stands between them because TensorFlow would multiply a constant scale with its inverse beforehand.
    """

    def __init__(self, settings: ScaleSettings) -> None:
        with tf.Graph().as_default() as graph:
            self._slope = tf.placeholder(tf.float32, [])
            self._weight = tf.get_variable("w", initializer=1.0)
            self._step = tf.train.get_or_create_global_step()
            optimizer, self._scale = scaled(tf.train.AdamOptimizer(0.1), settings)
            self._update = optimizer.minimize(self._slope * tf.maximum(self._weight, -9.0), global_step=self._step)
            self.names = {v.op.name for v in tf.global_variables()}
            self._session = tf.Session(graph=graph)
            self._session.run(tf.global_variables_initializer())
            self._moment = graph.get_tensor_by_name("w/Adam:0")

    def step(self, slope: float) -> None:
        self._session.run(self._update, {self._slope: slope})

    def state(self) -> List[float]:
        """Weight, Adam's first moment, updates made, scale."""
        values = [self._weight, self._moment, self._step] + ([] if self._scale is None else [self._scale])
        return [float(v) for v in self._session.run(values)]


@pytest.mark.parametrize("kind", ["fixed", "exponential"])
def test_a_step_that_overflows_changes_nothing_but_the_scale(kind: str) -> None:
    trainer = Trainer(ScaleSettings(kind, 1024.0, grow_every=100, shrink_after=1))
    trainer.step(2.0)
    before = trainer.state()
    assert before[2:] == [1.0, 1024.0] and before[1] == pytest.approx(0.2)
    trainer.step(1e38)
    after = trainer.state()
    assert after[:3] == before[:3]
    assert after[3] == (1024.0 if kind == "fixed" else 512.0)


def test_the_scale_halves_after_two_overflows_and_doubles_after_three_good_steps_in_a_row() -> None:
    trainer = Trainer(ScaleSettings("exponential", 1024.0, grow_every=3, shrink_after=2))
    scales = []
    for slope in (1e38, 1.0, 1e38, 1.0, 1.0, 1.0, 1.0, 1.0, 1e38, 1.0, 1.0, 1.0):
        trainer.step(slope)
        scales.append(trainer.state()[3])
    assert scales == [1024, 1024, 512, 512, 512, 1024, 1024, 1024, 1024, 1024, 1024, 2048]
    assert trainer.state()[2] == 9


def test_the_scale_never_falls_below_one_nor_rises_to_infinity() -> None:
    low = Trainer(ScaleSettings("exponential", 1.0, shrink_after=1))
    low.step(np.inf)
    assert low.state()[3] == 1.0
    high = Trainer(ScaleSettings("exponential", 2.0**100, grow_every=1))
    for _ in range(30):
        high.step(1e-12)
    assert np.isfinite(high.state()[3]) and high.state()[2] == 30


def test_good_steps_are_those_of_plain_adam() -> None:
    trainers = [Trainer(ScaleSettings(kind, 2.0**32)) for kind in ("none", "fixed", "exponential")]
    for slope in (0.3, -2.0, 1e-9):
        for trainer in trainers:
            trainer.step(slope)
    states = [trainer.state()[:3] for trainer in trainers]
    assert states[0] == states[1] == states[2]


def test_names_of_variables() -> None:
    adam = {"w", "w/Adam", "w/Adam_1", "global_step"}
    assert Trainer(ScaleSettings()).names == adam | {"beta1_power", "beta2_power"}
    # As in checkpoints of runs on a 910.
    inside = adam | {"cond/beta1_power", "cond/beta2_power"}
    assert Trainer(ScaleSettings("fixed")).names == inside
    assert Trainer(ScaleSettings("exponential")).names == inside | set(SCALE_VARIABLES)


@pytest.mark.parametrize(
    "changes", [{"kind": "dynamic"}, {"value": 0.5}, {"value": float("nan")}, {"grow_every": 0}, {"shrink_after": 0}]
)
def test_impossible_scalings_are_refused(changes: dict) -> None:
    with pytest.raises(SpecError):
        ScaleSettings(**changes)


def test_scale_and_skipped_steps_are_logged(make_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five steps get a gradient that is not finite; the run goes on, and the log says so."""
    import json

    from train.data.cohort import read_cohort
    from train.graph import training_graph as model
    from train.run import loop

    def poisoned(loss: Any, step: Any, backend: Any, rate: float) -> Any:
        optimizer, scale = backend.scaled(tf.train.AdamOptimizer(rate))
        calls = tf.get_variable("calls", initializer=0, trainable=False)
        with tf.control_dependencies([tf.assign_add(calls, 1)]):
            factor = tf.cond(tf.less_equal(calls.read_value(), 2), lambda: float("inf"), lambda: 1.0)
        # The gradient is that of loss · factor, the loss that is shown stays finite.
        return optimizer.minimize(loss * factor, global_step=step), scale

    monkeypatch.setattr(model, "_build_update", poisoned)
    settings = make_settings(epochs=1, steps_per_epoch=5, scale=ScaleSettings("exponential", 4096.0))
    loop.train(settings, read_cohort(settings.data, settings.seed), {})
    epoch, warning = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()[-2:]]
    assert warning["event"] == "warning" and warning["text"].startswith("2 of 5 steps overflowed")
    assert (epoch["loss_scale"], epoch["skipped"], epoch["steps"]) == (2048.0, 2, 5)
    assert "loss scale 2048, 2 steps skipped" in (settings.out / "train.log").read_text().splitlines()[-1]
    assert json.loads((settings.out / "model-5.state.json").read_text())["skipped"] == 2
