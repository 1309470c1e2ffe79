# SPDX-License-Identifier: Apache-2.0
"""Pairs of grids and a displacement known in space, for the tests of geometry."""

from __future__ import annotations

import numpy as np

from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp, index_block
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry


def turn(a: float, b: float, c: float) -> np.ndarray:
    """A rotation about all three axes, radians."""
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


#: columns: array axes left, inferior, anterior
LIA = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
LPS_AXES = np.diag([-1.0, -1.0, 1.0])
ISO = Grid((18, 20, 22), np.array([[1.0, 0, 0, -9], [0, 1, 0, -10], [0, 0, 1, -11], [0, 0, 0, 1]]))
PAIRS = {
    "iso RAS": (ISO, grid_of_geometry((24, 22, 20), (1, 1, 1), np.eye(3), (5, -3, 2))),
    "LIA from anisotropic LPS": (
        grid_of_geometry((18, 22, 20), (1, 1, 1), LIA, (0, -13, 1)),
        grid_of_geometry((17, 19, 25), (1.2, 0.9, 1.5), LPS_AXES, (3, -10, 4)),
    ),
    "oblique": (
        grid_of_geometry((18, 20, 17), (1, 1.1, 0.9), turn(0.3, -0.2, 0.15), (4, -7, 9)),
        grid_of_geometry((20, 19, 21), (1.3, 0.8, 1.1), LIA @ turn(-0.2, 0.1, 0.3), (-3, 6, 2)),
    ),
}


#: points, RAS mm
SOME = np.array([[3.0, -4, 5], [-7, 2, 1], [0, 0, 0]])


def some_affine() -> Affine:
    """Turned, scaled by some per cent, shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn(0.1, -0.05, 0.2) @ np.diag([1.1, 0.95, 1.02])
    matrix[:3, 3] = (3, -5, 7)
    return Affine(matrix)


def displacement(ras: np.ndarray) -> np.ndarray:
    """A smooth displacement in RAS mm at points (…, 3) in RAS mm, up to 4 mm."""
    x, y, z = np.moveaxis(ras, -1, 0)
    return np.stack([2 * np.sin(y / 9) + 1, 1.5 * np.cos(z / 7), -2.5 * np.sin(x / 8 + y / 11)], axis=-1)


def points_of(grid: Grid) -> np.ndarray:
    """RAS mm of all voxels."""
    return apply_affine(grid.affine, index_block(grid.shape, slice(0, grid.shape[0])))


def known_warp(fixed: Grid, moving: Grid) -> Warp:
    """The warp of `displacement` between two grids, float64."""
    ras = points_of(fixed)
    target = apply_affine(moving.inverse, ras + displacement(ras))
    return Warp(target - index_block(fixed.shape, slice(0, fixed.shape[0])), fixed, moving)
