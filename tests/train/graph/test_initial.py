# SPDX-License-Identifier: Apache-2.0
"""Runs that start from given weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
pytest.importorskip("h5py")

from tests.support.checkpoints import write_checkpoint, write_h5  # noqa: E402
from tests.support.reference import random_weights  # noqa: E402
from train.data.cohort import read_cohort  # noqa: E402
from train.run.loop import train  # noqa: E402
from vxm_convert.artifacts.files import sha256_of  # noqa: E402
from vxm_convert.errors import CheckpointError  # noqa: E402
from vxm_convert.model.spec import ModelSpec  # noqa: E402
from vxm_convert.model.variables import expected_variables  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("plain_graphs")]


def weights_of(prefix: Path, spec: ModelSpec) -> dict:
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in expected_variables(spec)}


@pytest.mark.parametrize("kind", ["npu checkpoint", "h5", "h5 xy"])
def test_a_run_starts_from_the_weights_alone(make_settings: Callable, tmp_path: Path, kind: str) -> None:
    """A checkpoint of an Ascend 910 holds the optimizer of another run under names of loss scaling; none of it is
    taken.
    """
    spec = make_settings().spec
    weights = random_weights(spec)
    if kind == "npu checkpoint":
        state = {
            name + slot: np.full_like(value, 7) for name, value in weights.items() for slot in ("/Adam", "/Adam_1")
        }
        powers = {
            "cond/beta1_power": np.float32(5.6e-45),
            "cond/beta2_power": np.float32(0),
            "Variable": np.int32(33422),
        }
        source = write_checkpoint(tmp_path / "npu", {**weights, **state, **powers})
    else:
        source = write_h5(tmp_path / "weights.h5", weights)
    settings = make_settings(epochs=1, steps_per_epoch=1, init=source, h5_indexing="xy" if kind == "h5 xy" else "ij")
    train(settings, read_cohort(settings.data, 0), {})
    for name, value in weights_of(settings.out / "model-0", spec).items():
        swapped = kind == "h5 xy" and name.startswith("flow/")
        np.testing.assert_array_equal(value, weights[name][..., [1, 0, 2]] if swapped else weights[name])
    reader = tf.train.NewCheckpointReader(str(settings.out / "model-0"))
    assert reader.get_tensor("global_step") == 0 and not reader.get_tensor("conv3d/kernel/Adam").any()
    side = json.loads((settings.out / "model-1.index.json").read_text())
    origin = source if kind != "npu checkpoint" else Path(str(source) + ".data-00000-of-00001")
    assert side["made_from"]["init checkpoint"] == sha256_of(origin)


def test_weights_of_another_network_are_refused(make_settings: Callable, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "vm2", random_weights(ModelSpec("vm2", (16, 16, 32))))
    settings = make_settings(init=source)
    with pytest.raises(CheckpointError, match="these weights fit --variant vm2"):
        train(settings, read_cohort(settings.data, 0), {})
    assert not list(settings.out.glob("model-*"))


@pytest.mark.slow
@pytest.mark.real_data
def test_the_checkpoint_of_a_910_and_published_weights_are_taken(
    make_settings: Callable, shared_data: Path, tmp_path: Path
) -> None:
    weights = shared_data / "weights"
    for number, (variant, source) in enumerate(
        (("vm2", weights / "vm2_mse_ascend910"), ("miccai2018", weights / "published_h5" / "miccai2018_10_02_init1.h5"))
    ):
        steps = 1 if variant == "miccai2018" else None
        settings = make_settings(
            variant, 1, steps, epochs=1, steps_per_epoch=1, init=source, out=tmp_path / str(number)
        )
        train(settings, read_cohort(settings.data, 0), {})
        values = weights_of(settings.out / "model-0", settings.spec)
        assert values["flow/kernel"].std() > 1e-4
