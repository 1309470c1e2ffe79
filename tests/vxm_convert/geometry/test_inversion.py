# SPDX-License-Identifier: Apache-2.0
"""Inversion, folds, and the Jacobian: against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.support.grids import ISO, PAIRS, displacement, known_warp, some_affine
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp, index_block
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.geometry.inversion import NOT_CONVERGED, OUTSIDE, invert
from vxm_convert.geometry.jacobian import determinant, jacobian_figures, strict_folds
from vxm_convert.geometry.maps import compose


@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_inverse_undoes_the_warp(pair):
    fixed, moving = PAIRS[pair]
    inverse, mask, report = invert(known_warp(fixed, moving))
    assert inverse.fixed == moving and inverse.moving == fixed
    assert (
        report.moving_mm.n > 500
        and report.moving_mm.max <= 1e-3
        and report.not_converged == np.count_nonzero(mask & NOT_CONVERGED) == 0
    )
    assert report.folded == 0 and report.outside == np.count_nonzero(mask & OUTSIDE) > 0
    assert report.fixed_mm.n > 500 and report.fixed_mm.mean < 0.05 and report.fixed_mm.p95 <= report.fixed_mm.max < 0.5
    some = np.argwhere(mask == 0)[::20]
    at = some + inverse.u[tuple(some.T)]
    some, at = (values[np.all((at >= 0) & (at <= np.array(fixed.shape) - 1), axis=1)] for values in (some, at))
    p, q = apply_affine(fixed.affine, at), apply_affine(moving.affine, some)
    assert len(p) > 30
    # The warp is sampled on voxels of about 1 mm, so it differs from the formula by its interpolation error.
    assert np.linalg.norm(p + displacement(p) - q, axis=-1).max() < 0.05


def test_folds_are_marked_and_counted():
    x = index_block(ISO.shape, slice(0, ISO.shape[0]))
    u = np.zeros(ISO.shape + (3,))
    u[..., 0] = 4 * np.sin(x[..., 0])
    warp = Warp(u, ISO, ISO)
    _, mask, report = invert(warp)
    assert report.folded == np.count_nonzero(mask & 1) > 0
    with pytest.raises(VolumeError, match="no inverse"):
        invert(Warp(-x, ISO, ISO))


def test_determinant_is_a_volume_ratio_for_any_pair_of_grids():
    matrix = some_affine().pull
    for fixed, moving in PAIRS.values():
        warp = compose([Affine(matrix)], fixed, moving)
        np.testing.assert_allclose(determinant(warp), np.linalg.det(matrix[:3, :3]), rtol=1e-6)
        figures = jacobian_figures(warp)
        assert figures.folded == figures.strict_folded == 0 and figures.sdlogj < 1e-6


def test_strict_folding_by_brute_force():
    u = np.random.RandomState(2).uniform(-0.7, 0.7, (11, 6, 5, 3))
    grid = Grid((11, 6, 5), np.eye(4))
    m = index_block(grid.shape, slice(0, 11)) + u
    expected = np.zeros(grid.shape, bool)
    for index in np.ndindex(*grid.shape):
        for side in itertools.product((1, -1), repeat=3):
            columns = []
            for axis, step in enumerate(side):
                other = list(index)
                other[axis] += step if 0 <= index[axis] + step < grid.shape[axis] else -step
                sign = other[axis] - index[axis]
                columns.append((m[tuple(other)] - m[index]) * sign)
            expected[index] |= np.linalg.det(np.array(columns).T) <= 0
    assert np.array_equal(strict_folds(Warp(u, grid, grid)), expected) and 0.05 < expected.mean() < 0.95


def test_sdlogj_and_learn2regs_version_of_it():
    u = np.random.RandomState(2).uniform(-0.7, 0.7, (12, 11, 10, 3))
    grid = Grid((12, 11, 10), np.eye(4))
    gradients = [np.gradient(u[..., c]) for c in range(3)]
    j = np.linalg.det(np.moveaxis(np.array(gradients), (0, 1), (-2, -1)) + np.eye(3))
    figures, theirs = jacobian_figures(Warp(u, grid, grid)), jacobian_figures(Warp(u, grid, grid), l2r_compat=True)
    assert (
        figures.sdlogj == pytest.approx(np.log(np.maximum(j, 1e-9)).std(), rel=1e-4)
        and "max(J, 1e-9)" in figures.sdlogj_formula
    )
    assert (
        theirs.sdlogj == pytest.approx(np.log(j[2:-2, 2:-2, 2:-2] + 3).std(), rel=1e-4)
        and theirs.folded == 0 < figures.folded
    )
    assert figures.folded == np.count_nonzero(j <= 0) and figures.strict_folded > figures.folded
    with pytest.raises(VolumeError, match="mask"):
        jacobian_figures(Warp(u, grid, grid), np.zeros(grid.shape, bool))
