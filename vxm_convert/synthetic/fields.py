# SPDX-License-Identifier: Apache-2.0
"""Smooth random fields and smooth invertible deformations, fast enough to be made for every training step.

A field is a cubic B-spline with random coefficients: three small matrix products instead of a filter over the whole volume.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from vxm_convert.lazy import LazyModule

ndimage = LazyModule("scipy.ndimage")

#: halvings of the velocity before it is squared; the largest part is then below half a voxel
_SQUARINGS = 5
#: deformations are integrated on a grid of half the resolution
_COARSE = 2


def smooth_noise(rng: np.random.RandomState, shape: Sequence[int], scale: float) -> np.ndarray:
    """Gaussian random field of mean 0 and variance 1.

    Parameters
    ----------
    scale : float — distance of the spline's knots in voxels, at least 1; a bump is about two of them wide.

    Returns
    -------
    ndarray, shape `shape` (three sides), float32.
    """
    weights = [_spline_weights(side, scale, rng.uniform()) for side in shape]
    field = rng.standard_normal([w.shape[1] for w in weights]).astype(np.float32)
    for weight in weights:
        # The first axis is contracted and the new one goes last: after three turns the order is the old one.
        field = np.tensordot(field, weight, axes=(0, 1))
    return field


def random_displacement(
    rng: np.random.RandomState, shape: Sequence[int], parts: Sequence[Tuple[float, float]]
) -> np.ndarray:
    """Displacement of a random diffeomorphism: a stationary velocity, integrated for unit time.

    Parameters
    ----------
    shape : three even sides.
    parts : sequence of (scale, spread) — knot distance in voxels and standard deviation of a velocity component in voxels;
        the velocity is the sum of one field for each.

    Returns
    -------
    ndarray, shape (3, X, Y, Z), float32 — voxels, axis order as the array.
    """
    coarse = [side // _COARSE + 1 for side in shape]
    velocity = np.zeros([3] + coarse, np.float32)
    for scale, spread in parts:
        for component in velocity:
            component += spread / _COARSE * smooth_noise(rng, coarse, scale / _COARSE)
    return enlarge(integrate(velocity), shape) * _COARSE


def integrate(velocity: np.ndarray) -> np.ndarray:
    """exp(v)(p) − p by scaling and squaring; (3, X, Y, Z) float32 in voxels."""
    displacement = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        at = grid_of(velocity.shape[1:]) + displacement
        displacement = displacement + sample(displacement, at)
    return displacement


def sample(components: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Every component (C, X, Y, Z) at voxel coordinates (3, …), linear, edges replicated; float32."""
    return np.stack(
        [ndimage.map_coordinates(c, at, np.float32, order=1, mode="nearest", prefilter=False) for c in components]
    )


def grid_of(shape: Sequence[int]) -> np.ndarray:
    """(3, X, Y, Z) float32 voxel indices."""
    return np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape), indexing="ij"))


def enlarge(components: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(C, X/2 + 1, Y/2 + 1, Z/2 + 1) → (C, X, Y, Z): voxel 2i is voxel i of the coarse grid, those between are means."""
    for axis, side in enumerate(shape, 1):
        low = np.take(components, np.arange(side) // _COARSE, axis)
        components = 0.5 * (low + np.take(components, (np.arange(side) + 1) // _COARSE, axis))
    return components


def _spline_weights(side: int, scale: float, start: float) -> np.ndarray:
    """(side, knots) values of the cubic B-splines at the voxels, each row scaled to unit sum of squares."""
    position = np.arange(side) / scale + start
    knot = np.floor(position).astype(int)
    t = position - knot
    values = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    weights = np.zeros((side, knot[-1] + 4), np.float32)
    rows = np.arange(side)
    for place in range(4):
        weights[rows, knot + place] = values[:, place]
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)
