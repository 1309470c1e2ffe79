# SPDX-License-Identifier: Apache-2.0
"""Gradients against central differences, and the divergence of the diffeomorphic loss counted voxel by voxel."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import pytest

from vxm_convert.network.tf1 import tf

STEP = 1e-6
PROBES = 12


def check_gradients(build: Callable[..., Any], *arrays: np.ndarray) -> None:
    """d build / d array at the largest and at random entries of every array equals the central difference."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.float64, a.shape) for a in arrays]
        loss = build(*inputs)
        assert loss.shape.as_list() == [] and loss.dtype == tf.float64
        gradients = session.run(tf.gradients(loss, inputs), dict(zip(inputs, arrays)))
        for number, (array, gradient) in enumerate(zip(arrays, gradients)):
            assert np.abs(gradient).max() > 0
            picks = list(np.random.RandomState(number).choice(array.size, PROBES, replace=False)) + [
                int(np.abs(gradient).argmax())
            ]
            for at in picks:
                values = []
                for sign in (1, -1):
                    moved = array.copy()
                    moved.reshape(-1)[at] += sign * STEP
                    values.append(session.run(loss, {**dict(zip(inputs, arrays)), inputs[number]: moved}))
                slope = (values[0] - values[1]) / (2 * STEP)
                assert gradient.reshape(-1)[at] == pytest.approx(
                    slope, rel=1e-5, abs=1e-6 * np.abs(gradient).max() + 1e-9
                )


def neighbours(sides: tuple) -> np.ndarray:
    """Counted one by one."""
    count = np.zeros(sides)
    for at in np.ndindex(*sides):
        for axis in range(3):
            for step in (-1, 1):
                count[at] += 0 <= at[axis] + step < sides[axis]
    return count


def reference_kl(mean: np.ndarray, log_sigma: np.ndarray, prior_lambda: float) -> float:
    """From the sums over voxels and pairs of neighbours, not from whole arrays."""
    sides = mean.shape[1:4]
    degree, sigma, n = neighbours(sides), 0.0, 3
    for at in np.ndindex(*mean.shape):
        sigma += prior_lambda * degree[at[1:4]] * np.exp(log_sigma[at]) - log_sigma[at]
    slopes = 0.0
    for axis in (1, 2, 3):
        total, pairs = 0.0, 0
        for at in np.ndindex(*mean.shape):
            if at[axis] + 1 < mean.shape[axis]:
                beside = at[:axis] + (at[axis] + 1,) + at[axis + 1 :]
                total, pairs = total + (mean[beside] - mean[at]) ** 2, pairs + 1
        slopes += total / pairs
    return 0.5 * n * (sigma / mean.size + prior_lambda * 0.5 * slopes / n)
