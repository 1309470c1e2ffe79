# SPDX-License-Identifier: Apache-2.0
"""Smooth noise has the statistics it claims; random deformations can be undone."""

from __future__ import annotations

import numpy as np
import pytest

from vxm_convert.metrics.jacobian import folding
from vxm_convert.synthetic.fields import enlarge, grid_of, integrate, random_displacement, sample, smooth_noise

SHAPE = (40, 48, 44)
PARTS = ((40.0, 3.0), (20.0, 1.8), (10.0, 0.7))


def test_noise_has_unit_variance_everywhere() -> None:
    rng = np.random.RandomState(0)
    many = np.stack([smooth_noise(rng, (12, 12, 12), 4.0) for _ in range(600)])
    assert many.dtype == np.float32
    assert np.abs(many.mean(axis=0)).max() < 0.4
    assert many.var(axis=0) == pytest.approx(1.0, abs=0.35)
    assert many.var() == pytest.approx(1.0, abs=0.02)


def test_noise_is_smoother_with_wider_knots() -> None:
    steps = [
        np.abs(np.diff(smooth_noise(np.random.RandomState(1), SHAPE, scale), axis=0)).mean() for scale in (3, 6, 12)
    ]
    assert steps[0] > 1.5 * steps[1] > 2.2 * steps[2] > 0


def test_axes_keep_their_order() -> None:
    assert smooth_noise(np.random.RandomState(2), (6, 9, 14), 5.0).shape == (6, 9, 14)
    assert random_displacement(np.random.RandomState(2), (6, 10, 14), PARTS).shape == (3, 6, 10, 14)


def test_enlarging_is_linear_between_voxels() -> None:
    coarse = np.random.RandomState(3).rand(2, 4, 5, 6).astype(np.float32)
    fine = enlarge(coarse, (6, 8, 10))
    assert fine == pytest.approx(sample(coarse, grid_of((6, 8, 10)) / 2), abs=1e-6)


def test_a_deformation_and_that_of_the_negative_velocity_undo_each_other() -> None:
    rng = np.random.RandomState(4)
    velocity = np.stack([3.0 * smooth_noise(rng, SHAPE, 12.0) for _ in range(3)])
    forth, back = integrate(velocity), integrate(-velocity)
    at = grid_of(SHAPE) + back
    rest = back + sample(forth, at)
    inside = np.all([(a > 4) & (a < side - 5) for a, side in zip(at, SHAPE)], axis=0)
    assert np.abs(forth).max() > 4.0
    assert np.abs(rest[:, inside]).max() < 0.4
    assert np.abs(rest[:, inside]).mean() < 0.06


@pytest.mark.parametrize("seed", range(4))
def test_deformations_have_the_size_of_those_between_brains_and_do_not_fold(seed: int) -> None:
    displacement = random_displacement(np.random.RandomState(seed), SHAPE, PARTS)
    assert displacement.dtype == np.float32
    assert 4.0 < np.linalg.norm(displacement, axis=0).max() < 25.0
    assert folding(np.moveaxis(displacement, 0, -1)).fraction == 0
