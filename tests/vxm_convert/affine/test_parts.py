# SPDX-License-Identifier: Apache-2.0
"""Parts of the compiled search: blurs, points, mutual information with its derivatives, and descents."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tests.support.grids import turn
from vxm_convert.affine.descent import descended, settled
from vxm_convert.affine.levels import (
    BINS,
    BRICK_MM,
    MARGIN,
    Blurred,
    Points,
    blurred,
    in_bricks,
    mass,
    pyramid,
    sampled,
)
from vxm_convert.affine.mutual import Free, Information, Turned, turns
from vxm_convert.affine.schedule import LEVELS, PARTED, NotFound, levels_for
from vxm_convert.geometry.grids import apply_affine, grid_of_geometry
from vxm_convert.geometry.resample import sample_linear

pytest.importorskip("numba")

GRID = grid_of_geometry((40, 36, 44), (1.0, 1.2, 0.9), turn(0.1, -0.2, 0.05), (5.0, -3.0, 2.0))


def image(seed: int = 0) -> np.ndarray:
    """A smooth ball of noise, 0 at the border."""
    noise = ndimage.gaussian_filter(np.random.RandomState(seed).normal(size=GRID.shape), 2.0)
    ball = sum(((np.indices(GRID.shape)[d] - (GRID.shape[d] - 1) / 2) / GRID.shape[d]) ** 2 for d in range(3)) < 0.14
    return np.where(ball, 1.0 + 3.0 * noise, 0.0).astype(np.float32)


def test_a_blur_is_scipys_on_every_nth_voxel():
    found, grid = blurred(image(), GRID, 2.0, 2.0)
    sigmas = [2.0 / mm for mm in GRID.spacing_mm]
    steps = (2, 1, 2)
    # SciPy's reach is rounded, ours is not below four standard deviations.
    expected = image().astype(np.float64)
    for axis, sigma in enumerate(sigmas):
        expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="nearest", truncate=np.ceil(4 * sigma) / sigma)
    np.testing.assert_allclose(found, expected[tuple(slice(None, None, step) for step in steps)], atol=2e-6)
    np.testing.assert_allclose(apply_affine(grid.affine, (3, 4, 5)), apply_affine(GRID.affine, (6, 4, 10)))


def test_levels_are_blurred_by_their_own_width():
    for level, found in zip(LEVELS, pyramid(image(), GRID)):
        alone = blurred(image(), GRID, level.sigma_mm, 0.0)[0]
        steps = tuple(slice(None, None, int(round(b / a))) for a, b in zip(GRID.spacing_mm, found.grid.spacing_mm))
        np.testing.assert_allclose(found.data, alone[steps], atol=0.02)
        assert found.lowest == found.data.min() and found.highest == found.data.max()
        assert (found.steep.size > 0) is (level is LEVELS[-1])


def test_centre_and_radius_of_a_mass():
    box = np.zeros(GRID.shape, np.float32)
    box[10:13, 20, 30] = 2.0
    centre, radius = mass(box, GRID)
    np.testing.assert_allclose(centre, apply_affine(GRID.affine, (11, 20, 30)))
    assert radius == pytest.approx(np.sqrt(2 / 3) * GRID.spacing_mm[0])
    with pytest.raises(NotFound, match="empty"):
        mass(np.zeros(GRID.shape, np.float32), GRID)


def test_points_are_spread_over_the_atlas_and_have_its_intensities():
    atlas = sampled(image(), GRID)
    for level, points, blur in zip(LEVELS, atlas.levels, pyramid(image(), GRID, steep=False)):
        voxels = apply_affine(GRID.inverse, points.at + atlas.centre)
        whole = np.prod(level.shape(GRID.shape))
        assert len(points.at) == np.ceil(whole / np.ceil(1 / level.share_of(GRID.shape)))
        np.testing.assert_allclose(voxels.mean(axis=0), (np.asarray(GRID.shape) - 1) / 2, atol=1.5)
        assert np.std(voxels - np.rint(voxels)) > 0.25, "not on the voxels"
        scale, shift = blur.bin_scale()
        places = sample_linear(blur.data, apply_affine(blur.grid.inverse, points.at + atlas.centre)) * scale + shift
        assert np.abs(points.bins + 0.5 - places).max() < 0.5 + 1e-3 or points.bins.max() == BINS - MARGIN - 1


def test_points_are_those_of_itk():
    """The first variates of ITK's generator with this seed, by Box and Muller, from its source."""
    atlas = sampled(image(), GRID)
    level, state = LEVELS[0], np.random.RandomState(20170901)
    one, two = state.randint(0, 2**32, size=(3, 2), dtype=np.uint32).T
    variate = np.sqrt(-2 * np.log(1 - (one + 0.5) / 2**32)) * np.cos(2 * np.pi * two / 2**32)
    first = apply_affine(GRID.affine, (np.asarray(GRID.shape) - np.asarray(GRID.shape) // 8 * 8 + 7) / 2)
    # LPS: x of ITK runs to the left, y to the back.
    expected = first + variate / 3 * np.asarray(GRID.spacing_mm) * level.shrink * (-1, -1, 1)
    apart = np.linalg.norm(atlas.levels[0].at + atlas.centre - expected, axis=1)
    assert apart.min() < 1e-4


def test_points_are_sorted_into_cubes():
    at = np.random.RandomState(1).uniform(-40, 60, size=(3000, 3))
    order = in_bricks(at)
    cubes = np.floor(at[order] / BRICK_MM)
    assert np.array_equal(np.sort(order), np.arange(3000))
    assert 1 + np.count_nonzero(np.diff(cubes, axis=0).any(axis=1)) == len(np.unique(cubes, axis=0))


def test_small_images_have_fewer_levels():
    assert levels_for(64) == [0, 1, 2] and levels_for(40) == [1, 2] and levels_for(6) == [2]


def scene(steep: bool = False):
    """Points inside the scan under all maps of these tests, and the scan as it is."""
    random = np.random.RandomState(3)
    at = random.uniform(-9, 9, size=(4000, 3)).astype(np.float32)
    bins = random.randint(MARGIN, BINS - MARGIN, size=4000).astype(np.uint8)
    data = image(1)
    bins[::2] = np.clip(
        data[tuple(np.rint(apply_affine(GRID.inverse, at[::2] + GRID.centre_ras)).astype(int).T)] * 9, 2, 29
    )
    empty = np.empty((0, 0, 0), np.float32)
    return Points(at, bins), Blurred(data, data * 2 if steep else empty, GRID, float(data.min()), float(data.max()))


def by_hand(points: Points, scan: Blurred, matrix: np.ndarray) -> float:
    """Negative mutual information from its definition."""
    at = apply_affine(scan.grid.inverse, points.at @ matrix[:, :3].T + matrix[:, 3])
    scale, shift = scan.bin_scale()
    places = sample_linear(scan.data, at) * scale + shift
    joint = np.zeros((BINS, BINS))
    for row, place in zip(points.bins, places):
        x = np.abs(np.arange(BINS) - place)
        joint[row] += np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0))
    joint /= joint.sum()
    rows, columns = np.nonzero(joint)
    p = joint[rows, columns]
    return -float(np.sum(p * np.log(p / joint.sum(axis=1)[rows] / joint.sum(axis=0)[columns])))


def some_map() -> np.ndarray:
    found = np.column_stack([turn(0.05, 0.02, -0.04) @ np.diag([1.02, 0.97, 1.01]), GRID.centre_ras + (0.7, -0.4, 0.3)])
    return found


def test_mutual_information_is_its_definition():
    points, scan = scene()
    assert Information(points, scan)(some_map())[0] == pytest.approx(by_hand(points, scan, some_map()), abs=1e-6)


@pytest.mark.parametrize("kind", [Free, Turned])
def test_derivatives_are_differences(kind):
    points, scan = scene()
    function = kind(Information(points, scan), 9.0)
    at = function.flat(some_map()) if kind is Free else np.array([0.4, -0.3, 0.2, *some_map()[:, 3]])
    slope = function(at)[1]
    for index in range(len(at)):
        step = np.zeros(len(at))
        step[index] = 0.01
        difference = (function(at + step)[0] - function(at - step)[0]) / 0.02
        assert slope[index] == pytest.approx(difference, abs=0.03 * np.abs(slope).max())


def test_derivatives_are_those_of_the_steep_image():
    points, scan = scene()
    value, slope = Information(points, scan)(some_map())
    again, steep = Information(*scene(steep=True))(some_map())
    assert again == value
    np.testing.assert_allclose(steep, 2 * slope, rtol=1e-6, atol=1e-12)


def test_beyond_the_scan_background_goes_on_and_a_cut_brain_does_not():
    points, scan = scene()
    away = some_map()
    away[:, 3] += 1000.0
    assert Information(points, scan)(away)[0] == pytest.approx(0.0, abs=1e-9), "all points count as background"
    full = Blurred(scan.data + 5.0, scan.steep, GRID, 0.0, scan.highest + 5.0)
    with pytest.raises(NotFound, match=PARTED.split(";")[0]):
        Information(points, full)(away)


def test_turns_are_rotations_with_their_derivatives():
    angles = np.array([0.3, -0.5, 0.2])
    matrix, slopes = turns(angles)
    np.testing.assert_allclose(matrix, turn(0, 0, 0.2) @ turn(0, -0.5, 0) @ turn(0.3, 0, 0), atol=1e-12)
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-5
        np.testing.assert_allclose(slopes[axis], (turns(angles + step)[0] - turns(angles - step)[0]) / 2e-5, atol=1e-8)


def banana(x: np.ndarray):
    """Rosenbrock's function."""
    a, b = x
    return 100 * (b - a * a) ** 2 + (1 - a) ** 2, np.array([-400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)])


def test_a_descent_finds_the_minimum_of_a_valley():
    end = descended(banana, np.array([-1.2, 1.0]), 0.5, 1e-6)
    np.testing.assert_allclose(end.at, (1, 1), atol=1e-4)


def test_a_descent_takes_no_step_that_is_too_long():
    seen = []
    descended(lambda x: seen.append(x.copy()) or banana(x), np.array([-1.2, 1.0]), 0.1, 1e-6)
    assert np.linalg.norm(seen[1] - seen[0]) <= 0.1 + 1e-12


def test_an_end_is_settled_where_the_derivatives_vanish():
    def skewed(x):
        """Values whose minimum is not where the derivatives vanish."""
        return float(np.sum((x - 0.1) ** 2)), 2 * x * (1.0, 3.0)

    end = descended(skewed, np.array([0.8, -0.7]), 0.5, 0.03)
    np.testing.assert_allclose(settled(skewed, end, 0.5, 1e-4).at, (0, 0), atol=1e-4)
    restless = settled(lambda x: (0.0, np.ones(2)), end, 0.5, 1e-4)
    assert restless is end, "no zero was reached"
