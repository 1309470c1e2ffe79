# SPDX-License-Identifier: Apache-2.0
"""Losses against independent NumPy references that follow the formulas voxel by voxel."""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from tests.support.losses import neighbours, reference_kl  # noqa: E402
from train.graph.losses import (
    NCC_EPSILON,
    flow_gradient,
    label_overlap,
    mean_squared_error,
    negative_local_correlation,
    velocity_divergence,
)
from vxm_convert.errors import SpecError  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402

pytestmark = pytest.mark.tf


def evaluate(build: Callable, *arrays: np.ndarray) -> float:
    with tf.Graph().as_default(), tf.Session() as session:
        return float(session.run(build(*(tf.constant(a) for a in arrays))))


def images(shape: tuple = (2, 12, 11, 13, 1), seed: int = 0) -> tuple:
    rng = np.random.RandomState(seed)
    return rng.rand(*shape).astype(np.float32), rng.rand(*shape).astype(np.float32)


def reference_ncc(moved: np.ndarray, fixed: np.ndarray, window: int) -> float:
    """Window by window in float64; voxels beyond the border count as zeros, the divisor stays window³."""
    half, size, values = window // 2, float(window**3), []
    for i, j in zip(fixed[..., 0].astype(np.float64), moved[..., 0].astype(np.float64)):
        i, j = np.pad(i, half, mode="constant"), np.pad(j, half, mode="constant")
        for at in np.ndindex(*fixed.shape[1:4]):
            box = tuple(slice(a, a + window) for a in at)
            a, b = i[box], j[box]
            mean_a, mean_b = a.sum() / size, b.sum() / size
            cross = ((a - mean_a) * (b - mean_b)).sum()
            values.append(cross**2 / (((a - mean_a) ** 2).sum() * ((b - mean_b) ** 2).sum() + NCC_EPSILON))
    return -float(np.mean(values))


def test_mse() -> None:
    moved, fixed = images()
    assert evaluate(mean_squared_error, moved, fixed) == pytest.approx(
        np.mean((moved.astype(float) - fixed) ** 2), rel=1e-6
    )


@pytest.mark.parametrize("window", [3, 9])
def test_ncc_is_the_windowed_correlation(window: int) -> None:
    moved, fixed = images()
    got = evaluate(lambda m, f: negative_local_correlation(m, f, window), moved, fixed)
    assert got == pytest.approx(reference_ncc(moved, fixed, window), abs=2e-5)


def test_ncc_does_not_see_scale_and_offset_inside() -> None:
    _, fixed = images()
    assert evaluate(negative_local_correlation, fixed, fixed) == pytest.approx(-1.0, abs=1e-3)
    assert evaluate(negative_local_correlation, (0.5 * fixed).astype(np.float32), fixed) == pytest.approx(
        -1.0, abs=1e-3
    )


def test_ncc_of_flat_images_is_finite() -> None:
    flat = np.full((1, 10, 10, 10, 1), 0.5, np.float32)
    assert np.isfinite(evaluate(negative_local_correlation, flat, flat))


def test_ncc_takes_one_channel_only() -> None:
    pair = np.zeros((1, 9, 9, 9, 2), np.float32)
    with pytest.raises(SpecError, match="2 channels"):
        evaluate(negative_local_correlation, pair, pair)


@pytest.mark.parametrize("penalty, measure", [("l1", np.abs), ("l2", np.square)])
def test_flow_gradient(penalty: str, measure: Callable) -> None:
    flow = np.random.RandomState(1).normal(size=(2, 5, 6, 7, 3)).astype(np.float32)
    expected = np.mean([measure(np.diff(flow.astype(float), axis=axis)).mean() for axis in (1, 2, 3)])
    assert evaluate(lambda f: flow_gradient(f, penalty), flow) == pytest.approx(expected, rel=1e-5)


def test_flow_gradient_of_a_ramp_is_known() -> None:
    ramp = np.zeros((1, 4, 4, 4, 3), np.float32)
    ramp[..., 0] = 2.0 * np.arange(4).reshape(1, 4, 1, 1)
    # One of three channels changes by 2 along one of three axes: 4 / 3 / 3.
    assert evaluate(flow_gradient, ramp) == pytest.approx(4.0 / 9.0, rel=1e-6)


@pytest.mark.parametrize("prior_lambda", [10.0, 25.0])
def test_kl_is_that_of_the_graph_laplacian(prior_lambda: float) -> None:
    rng = np.random.RandomState(2)
    mean, log_sigma = rng.normal(size=(2, 2, 4, 5, 6, 3))
    got = evaluate(lambda m, s: velocity_divergence(m, s, prior_lambda), mean, log_sigma)
    assert got == pytest.approx(reference_kl(mean, log_sigma, prior_lambda), rel=1e-10)


def test_kl_rises_with_roughness_and_has_its_minimum_in_the_variance() -> None:
    flat = np.zeros((1, 6, 6, 6, 3))
    rough = np.random.RandomState(3).normal(size=flat.shape)
    best = np.broadcast_to(-np.log(10.0 * neighbours((6, 6, 6)))[None, ..., None], flat.shape)

    def kl(mean: np.ndarray, log_sigma: np.ndarray) -> float:
        return evaluate(lambda m, s: velocity_divergence(m, s, 10.0), mean, log_sigma)

    assert kl(rough, best) > kl(flat, best)
    assert kl(flat, best) < min(kl(flat, best + 0.01), kl(flat, best - 0.01))


def reference_dice(moved: np.ndarray, fixed: np.ndarray) -> float:
    scores = []
    for item in range(moved.shape[0]):
        for label in range(moved.shape[-1]):
            a, b = moved[item, ..., label], fixed[item, ..., label]
            if a.sum() + b.sum() > 0:
                scores.append(2 * (a * b).sum() / (a.sum() + b.sum()))
    return 1 - float(np.mean(scores))


def test_dice_counts_only_labels_that_are_there() -> None:
    rng = np.random.RandomState(4)
    moved, fixed = rng.rand(2, 2, 5, 4, 6, 4)
    moved[0, ..., 1] = fixed[0, ..., 1] = 0.0  # nowhere: left out
    moved[1, ..., 2] = 0.0  # in one only: 0
    assert evaluate(label_overlap, moved, fixed) == pytest.approx(reference_dice(moved, fixed), rel=1e-10)


def test_dice_of_equal_and_of_empty_segmentations() -> None:
    one_hot = np.eye(3)[np.random.RandomState(5).randint(0, 3, (2, 4, 4, 4))]
    assert evaluate(label_overlap, one_hot, one_hot) == pytest.approx(0.0, abs=1e-12)
    assert evaluate(label_overlap, np.zeros_like(one_hot), np.zeros_like(one_hot)) == 0.0
