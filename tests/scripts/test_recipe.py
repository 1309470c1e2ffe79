# SPDX-License-Identifier: Apache-2.0
"""The yardstick computes what our graph computes, from the same weights, by the operations its description names."""

from __future__ import annotations

from collections import Counter
from typing import Dict

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from scripts.benchmark import recipe  # noqa: E402
from train.graph.losses import flow_gradient, mean_squared_error  # noqa: E402
from vxm_convert.errors import SpecError  # noqa: E402
from vxm_convert.model.spec import ModelSpec  # noqa: E402
from vxm_convert.model.variables import expected_variables  # noqa: E402
from vxm_convert.network.inference_graph import build_inference_graph  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.network.unet import build_unet  # noqa: E402
from vxm_convert.network.warp import warp_linear  # noqa: E402

pytestmark = pytest.mark.tf

SPEC = ModelSpec("vm1", (16, 32, 16), 2)


def weights() -> Dict[str, np.ndarray]:
    """Large enough that the flow leaves the grid here and there."""
    rng = np.random.RandomState(1)
    return {
        name: (rng.standard_normal(shape) * (0.15 if len(shape) > 1 else 1.0)).astype(np.float32)
        for name, shape in expected_variables(SPEC).items()
    }


def pair() -> Dict[str, np.ndarray]:
    rng = np.random.RandomState(2)
    return {name: rng.random_sample(SPEC.image_shape).astype(np.float32) for name in ("moving", "fixed")}


def ours() -> Dict[str, np.ndarray]:
    with build_inference_graph(SPEC).as_default(), tf.Session() as session:
        for variable in tf.global_variables():
            variable.load(weights()[variable.op.name], session)
        return session.run(
            {"moved": "moved:0", "flow": "flow_field:0"}, {name + ":0": value for name, value in pair().items()}
        )


def test_the_same_registration_from_the_same_weights() -> None:
    frozen, feeds, fetches = recipe.inference_graph(SPEC, weights())
    expected = ours()
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen, name="")
        found = session.run(fetches, {feeds[name]: value for name, value in pair().items()})
    assert np.abs(expected["flow"]).max() > 2 and np.abs(found["moved"] - pair()["moving"]).max() > 0.3
    np.testing.assert_allclose(found["flow"], expected["flow"], atol=2e-5 * np.abs(expected["flow"]).max())
    np.testing.assert_allclose(found["moved"], expected["moved"], atol=2e-4)
    operations = Counter(node.op for node in frozen.node)
    assert (
        operations["Split"] == 12
        and operations["GatherV2"] == 8
        and operations["LoopCond"] == 1
        and operations["Conv3D"] == 11
    )


def test_the_same_loss_and_gradients() -> None:
    results = []
    for theirs in (True, False):
        with tf.Graph().as_default(), tf.Session() as session:
            if theirs:
                inputs, loss, _ = recipe.build_training(SPEC, 1e-4, 0.01)
            else:
                inputs = {name: tf.placeholder(tf.float32, SPEC.image_shape) for name in ("moving", "fixed")}
                flow = build_unet(inputs["moving"], inputs["fixed"], SPEC)
                loss = mean_squared_error(warp_linear(inputs["moving"], flow), inputs["fixed"]) + 0.01 * flow_gradient(
                    flow
                )
            slope = tf.gradients(loss, [v for v in tf.trainable_variables() if v.op.name == "conv3d_9/kernel"])
            session.run(tf.global_variables_initializer())
            for variable in tf.trainable_variables():
                # A small flow: where a position lies on a voxel, the two may take the slope of another side.
                variable.load(
                    weights()[variable.op.name] * (0.02 if variable.op.name == "flow/kernel" else 0.7), session
                )
            results.append(session.run([loss] + slope, {inputs[name]: value for name, value in pair().items()}))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    assert np.abs(results[1][1]).max() > 0
    np.testing.assert_allclose(results[0][1], results[1][1], atol=2e-3 * np.abs(results[1][1]).max())


def test_a_diffeomorphic_network_is_refused() -> None:
    with pytest.raises(SpecError, match="miccai2018"):
        recipe.inference_graph(ModelSpec("miccai2018", (16, 16, 16)), {})
