# SPDX-License-Identifier: Apache-2.0
"""Gradients of every loss, of the warp and of the integration against central differences, in float64, batch of 2."""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from tests.support.losses import check_gradients  # noqa: E402
from train.graph import losses  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.network.warp import warp_linear  # noqa: E402

pytestmark = pytest.mark.tf

GRID = (2, 6, 5, 7)


def images() -> Tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    return rng.rand(*GRID + (1,)), rng.rand(*GRID + (1,))


def field(seed: int, scale: float = 1.0) -> np.ndarray:
    """Displacements away from whole numbers, where the linear warp has a kink."""
    values = scale * np.random.RandomState(seed).standard_normal(GRID + (3,))
    return np.where(np.abs(values - np.rint(values)) < 1e-3, values + 0.01, values)


CASES: Dict[str, Tuple[Callable[..., Any], Tuple[np.ndarray, ...]]] = {
    "mse": (losses.mean_squared_error, images()),
    "ncc": (losses.negative_local_correlation, images()),
    "grad l1": (lambda flow: losses.flow_gradient(flow, "l1"), (field(1),)),
    "grad l2": (lambda flow: losses.flow_gradient(flow, "l2"), (field(1),)),
    "kl": (lambda mean, log_sigma: losses.velocity_divergence(mean, log_sigma, 10.0), (field(2), field(3))),
    "dice": (losses.label_overlap, (np.abs(field(4)), np.abs(field(5)))),
    "warp": (lambda volume, flow: tf.reduce_mean(tf.square(warp_linear(volume, flow))), (images()[0], field(6, 1.5))),
    "warp of three channels": (
        lambda volume, flow: tf.reduce_mean(tf.square(warp_linear(volume, flow))),
        (field(7), field(8)),
    ),
    "mse behind the warp": (
        lambda volume, fixed, flow: losses.mean_squared_error(warp_linear(volume, flow), fixed),
        images() + (field(9),),
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_gradient_equals_the_finite_difference(case: str) -> None:
    build, arrays = CASES[case]
    check_gradients(build, *arrays)


def test_the_warp_is_no_identity_and_its_flow_has_a_gradient() -> None:
    """The public Ascend recipe broke exactly here: its warp returned the volume, so that nothing was learnt."""
    volume, fixed = images()
    flow = field(10, 1.5)
    with tf.Graph().as_default(), tf.Session() as session:
        entry = tf.constant(flow)
        moved = warp_linear(tf.constant(volume), entry)
        loss = losses.mean_squared_error(moved, tf.constant(fixed))
        moved, slope = session.run([moved, tf.gradients(loss, entry)[0]])
    assert np.abs(moved - volume).max() > 0.3
    assert np.abs(slope).max() > 1e-4 and np.count_nonzero(slope) > slope.size // 4
