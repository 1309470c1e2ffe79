# SPDX-License-Identifier: Apache-2.0
"""The diffeomorphic variant: its loss against NumPy, sampling, the inverse, and the way of a trained one to an offline
model.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from tests.support import reference  # noqa: E402
from tests.support.losses import check_gradients, reference_kl  # noqa: E402
from train.data.dataset import placeholders  # noqa: E402
from train.devices.base import Backend  # noqa: E402
from train.graph.training_graph import build_training_graph  # noqa: E402
from vxm_convert.metrics.jacobian import folding  # noqa: E402
from vxm_convert.network.integrate import double_flow, integrate_velocity  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.network.unet import build_velocity_posterior  # noqa: E402

pytestmark = pytest.mark.tf

#: of the graphs that are trained here: TensorFlow takes seconds to optimise the gradients of seven
STEPS = 2


def smooth_field(shape: tuple, seed: int, amplitude: float) -> np.ndarray:
    return np.stack([reference.smooth_noise(shape + (3,), seed + i, 2.0, amplitude) for i in range(2)])


def evaluate(build: Callable, array: np.ndarray) -> np.ndarray:
    with tf.Graph().as_default(), tf.Session() as session:
        entry = tf.placeholder(array.dtype.name, array.shape)
        return session.run(build(entry), {entry: array})


@pytest.mark.parametrize("steps", [1, 7])
def test_integration_and_resize_match_numpy(steps: int) -> None:
    velocity = smooth_field((8, 6, 10), 0, 3.0)
    flow = evaluate(lambda v: integrate_velocity(v, steps), velocity)
    np.testing.assert_allclose(flow, reference.integrate(velocity, steps), atol=1e-12)
    np.testing.assert_allclose(evaluate(double_flow, flow), reference.resize_double(2.0 * flow), atol=1e-12)


def test_the_integrated_warp_does_not_fold_and_has_an_inverse() -> None:
    velocity = smooth_field((16, 16, 16), 3, 3.0)
    there, back = (evaluate(lambda v: integrate_velocity(v, 7), sign * velocity) for sign in (1, -1))
    assert all(folding(item).n_folded == 0 for item in there)
    composed = there + reference.warp_linear(back, there)
    inner = (slice(None),) + (slice(4, 12),) * 3
    assert np.abs(composed[inner]).max() < 0.1 < 1.0 < np.abs(there[inner]).max()


def test_gradients_of_integration_and_resize() -> None:
    velocity = smooth_field((4, 5, 3), 6, 1.3)
    check_gradients(lambda v: tf.reduce_mean(tf.square(double_flow(integrate_velocity(v, 3)))), velocity)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.usefixtures("no_update")
def test_the_loss_is_that_of_the_paper(make_settings: Callable, bidirectional: bool) -> None:
    settings = make_settings("miccai2018", 2, STEPS, bidirectional=bidirectional, prior_lambda=25.0, image_sigma=0.05)
    spec = settings.spec
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = placeholders(spec, False)
        built = build_training_graph(settings, inputs, Backend(settings))
        posterior = build_velocity_posterior(inputs["moving"], inputs["fixed"], spec)
        weights = reference.random_weights(spec, 1)
        for variable in tf.trainable_variables():
            variable.load(weights[variable.op.name], session)
        feeds = {inputs[name]: value for name, value in batch(spec.image_shape, spec.velocity_shape).items()}
        (mean, log_sigma), values, images = session.run([posterior, built.scalars, built.images], feeds)
    moving, fixed, noise = (feeds[inputs[name]] for name in ("moving", "fixed", "noise"))
    velocity = mean + np.exp(log_sigma / 2.0) * noise

    def moved(image: np.ndarray, field: np.ndarray) -> np.ndarray:
        return reference.warp_linear(image, reference.resize_double(2.0 * reference.integrate(field, STEPS)))

    np.testing.assert_allclose(images["moved"], moved(moving, velocity), atol=2e-4)
    error = np.mean((moved(moving, velocity) - fixed) ** 2)
    if bidirectional:
        error = (error + np.mean((moved(fixed, -velocity) - moving) ** 2)) / 2
    divergence = reference_kl(mean.astype(float), log_sigma.astype(float), 25.0)
    assert values["image"] == pytest.approx(error, rel=1e-3) and values["flow"] == pytest.approx(divergence, rel=1e-4)
    assert values["loss"] == pytest.approx(error / 0.05**2 + divergence, rel=1e-3)
    assert np.abs(images["moved"] - moving).max() > 0.1, "the warp is the identity"


@pytest.mark.usefixtures("no_update")
def test_noise_moves_the_sample_by_its_deviation(make_settings: Callable) -> None:
    settings = make_settings("miccai2018", 1, STEPS)
    spec = settings.spec
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = placeholders(spec, False)
        built = build_training_graph(settings, inputs, Backend(settings))
        gradient = tf.gradients(
            built.scalars["image"], [v for v in tf.trainable_variables() if v.op.name == "log_sigma/bias"]
        )[0]
        session.run(tf.global_variables_initializer())
        feeds = {inputs[name]: value for name, value in batch(spec.image_shape, spec.velocity_shape).items()}
        sampled, slope = session.run([built.images["flow"], gradient], feeds)
        still = session.run(built.images["flow"], {**feeds, inputs["noise"]: np.zeros(spec.velocity_shape, np.float32)})
    # log σ² starts at −10; even voxels of the flow are twice the half-resolution displacement.
    even = (sampled - still)[:, ::2, ::2, ::2]
    assert even.std() == pytest.approx(2 * np.exp(-5.0), rel=0.15)
    assert np.abs(still).max() < 1e-2 and np.abs(slope).max() > 0


def batch(image_shape: tuple, velocity_shape: tuple) -> Dict[str, np.ndarray]:
    rng = np.random.RandomState(2)
    images = [reference.smooth_noise(image_shape[1:4], seed, 1.5, 0.5) + 0.5 for seed in range(2 * image_shape[0])]
    moving, fixed = (np.stack(images[i::2])[..., None].astype(np.float32) for i in (0, 1))
    return {"moving": moving, "fixed": fixed, "noise": rng.standard_normal(velocity_shape).astype(np.float32)}
