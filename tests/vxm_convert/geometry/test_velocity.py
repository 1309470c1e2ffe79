# SPDX-License-Identifier: Apache-2.0
"""The inverse by the negative velocity: the network's own integration repeated, and how well the two undo each
other.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import reference
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.inversion import invert, measure
from vxm_convert.geometry.velocity import double, integrate, inverse_flow

HALF = (12, 14, 16)
FULL = tuple(2 * n for n in HALF)
STEPS = 7
GRID = Grid(FULL, np.diag([-1.5, 1.0, 1.0, 1.0]))


def velocity(seed: int = 0, peak: float = 2.0) -> np.ndarray:
    """Smooth, largest in the middle, 0 at the border as in a brain's background."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in HALF), indexing="ij")
    bump = np.prod([np.cos(np.pi / 2 * a) ** 2 for a in axes], axis=0)
    noise = np.stack([reference.smooth_noise(HALF, seed + d, 2.0, 1.0) for d in range(3)], axis=-1)
    field = bump[..., np.newaxis] * noise
    return (peak * field / np.abs(field).max()).astype(np.float32)


def test_the_forward_flow_is_the_networks():
    """Against the reference in NumPy, which follows the published network."""
    found = double(integrate(velocity(), STEPS))
    expected = 2 * reference.resize_double(reference.integrate(velocity()[np.newaxis], STEPS))[0]
    assert found.shape == FULL + (3,) and np.abs(found).max() > 2
    assert np.abs(found - expected).max() < 1e-5


def test_the_negative_velocity_undoes_the_flow():
    forward = Warp(double(integrate(velocity(), STEPS)), GRID, GRID)
    report = measure(forward, Warp(inverse_flow(velocity(), STEPS), GRID, GRID), "negative velocity")
    wrong = measure(forward, Warp(inverse_flow(-velocity(), STEPS), GRID, GRID), "negative velocity")
    assert report.method == "negative velocity" and report.folded == 0 and report.not_converged == 0
    assert report.moving_mm.mean < 0.05 and report.fixed_mm.p95 < 0.25 and report.fixed_mm.max < 1.2
    assert wrong.fixed_mm.p95 > 2, "a velocity of the wrong sign is seen"
    by_search, _, _ = invert(forward)
    assert np.abs(by_search.u - inverse_flow(velocity(), STEPS)).max() < 0.8, "both ways lead to the same map"


def test_no_velocity_no_inverse():
    for wrong in (np.zeros((4, 4, 4)), np.zeros((4, 4, 4, 2)), np.full((4, 4, 4, 3), np.nan)):
        with pytest.raises(VolumeError, match="velocity: array"):
            inverse_flow(wrong, STEPS)
    assert not inverse_flow(np.zeros((2, 3, 4, 3)), STEPS).any()
