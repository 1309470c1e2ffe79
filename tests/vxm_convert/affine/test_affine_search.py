# SPDX-License-Identifier: Apache-2.0
"""The search for an affine: known ones are found, by compiled loops as by SimpleITK, whatever else runs; what cannot be
found is refused.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional, Tuple

import numpy as np
import pytest

from tests.support.grids import points_of, turn
from vxm_convert.affine import affine_search
from vxm_convert.affine.affine_search import Target, check_search, search_affine
from vxm_convert.affine.levels import sampled
from vxm_convert.affine.simpleitk import one_thread
from vxm_convert.errors import ToolchainError, VolumeError
from vxm_convert.geometry import compiled
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.network_grid import network_affine

SHAPE = (32, 32, 48)
NETWORK = Grid(SHAPE, network_affine(SHAPE))
ENGINES = ("numba", "scipy")
BRAINS = Path("../shared/data/brains")
SUBJECTS = ("vxm_test", "bert", "niivue_fs", "dfsp")


@pytest.fixture
def engine(request, monkeypatch) -> str:
    pytest.importorskip({"numba": "numba", "scipy": "SimpleITK"}[request.param])
    monkeypatch.setenv(compiled.VARIABLE, request.param)
    return request.param


def rich_image_on(grid: Grid) -> np.ndarray:
    """An ellipsoid full of folds: enough for a registration to hold on to."""
    x, y, z = np.moveaxis(points_of(grid) - NETWORK.centre_ras, -1, 0)
    bright = (
        0.5 + 0.2 * np.sin(x / 2.5 + 0.4) * np.cos(z / 4) + 0.15 * np.cos(y / 3 + x / 6) + 0.1 * np.sin(z / 3.5 + y / 4)
    )
    return (bright * np.clip(6 - 6 * np.sqrt((x / 12) ** 2 + (y / 13.5) ** 2 + (z / 11) ** 2), 0, 1)).astype(np.float32)


def moved(pull: np.ndarray) -> Tuple[np.ndarray, Grid]:
    """The same, seen by another scanner after a known affine."""
    grid = oriented((52, 56, 60), "PIR", (1.1, 1.0, 1.2), apply_affine(pull, NETWORK.centre_ras))
    return rich_image_on(Grid(grid.shape, np.linalg.inv(pull) @ grid.affine)) ** 1.3 * 200, grid


def known(angles: Tuple[float, float, float], sizes: Tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    pull = np.eye(4)
    pull[:3, :3] = turn(*angles) @ np.diag(sizes)
    pull[:3, 3] = 6, -5, 4
    return pull


def apart(one: np.ndarray, other: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance (mm) of points after one matrix from the same after another."""
    return np.linalg.norm(apply_affine(one, points) - apply_affine(other, points), axis=-1)


def between(one: np.ndarray, other: np.ndarray) -> float:
    """Angle (degrees) between the rotations of two matrices."""
    left, _, right = np.linalg.svd(one[:3, :3] @ np.linalg.inv(other[:3, :3]))
    return float(np.rad2deg(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))


FIXED = rich_image_on(NETWORK)
TARGET = Target(FIXED, NETWORK)
INSIDE = points_of(NETWORK)[FIXED > 0.1]


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_known_affine_is_found_and_found_again(engine):
    pull = known((0.15, -0.1, 0.12), (1.08, 0.94, 1.03))
    found = search_affine(TARGET, *moved(pull))
    error = apart(found.affine.pull, pull, INSIDE)
    assert error.mean() < 0.4 and error.max() < 0.9 and found.overlap > 0.95, (error.mean(), error.max(), found.overlap)
    assert found.tool.startswith({"numba": "compiled loops, numba", "scipy": "SimpleITK"}[engine])
    assert np.array_equal(search_affine(Target(FIXED, NETWORK), *moved(pull)).affine.pull, found.affine.pull)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_rigid_search_changes_no_size(engine):
    pull = known((0.1, 0.05, -0.12))
    found = search_affine(TARGET, *moved(pull), kind="rigid").affine.pull
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)
    # SimpleITK stops before the end of a valley here.
    assert apart(found, pull, INSIDE).max() < {"numba": 0.6, "scipy": 1.5}[engine]


def test_searches_at_once_share_the_atlas_and_give_the_same_matrix(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    made = []
    monkeypatch.setattr(affine_search, "sampled", lambda *atlas: made.append(1) or sampled(*atlas))
    target, scan = Target(FIXED, NETWORK), moved(known((0.1, 0.05, -0.1)))
    with ThreadPoolExecutor(3) as pool:
        matrices = list(pool.map(lambda _: search_affine(target, *scan).affine.pull, range(6)))
    assert all(np.array_equal(matrices[0], other) for other in matrices) and len(made) == 1


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_what_cannot_be_searched_is_refused(engine):
    sheared = np.array(NETWORK.affine)
    sheared[0, 1] = 0.3
    with pytest.raises(VolumeError, match="moving image has sheared axes"):
        search_affine(TARGET, FIXED, Grid(SHAPE, sheared))
    empty = np.zeros(SHAPE, np.float32)
    with pytest.raises(VolumeError, match="--affine auto: no affine was found, because one of the two images is empty"):
        search_affine(TARGET, empty, NETWORK)
    with pytest.raises(VolumeError, match="one of the two images is empty"):
        search_affine(Target(empty, NETWORK), FIXED, NETWORK)
    for value in (np.nan, np.inf):
        broken = np.where(FIXED > FIXED.max() - 1e-3, np.float32(value), FIXED)
        with pytest.raises(VolumeError, match="the moving image: [0-9]+ values are NaN or infinite.*finite voxels"):
            search_affine(TARGET, broken, NETWORK)
        with pytest.raises(VolumeError, match="the fixed image: [0-9]+ values are NaN or infinite"):
            search_affine(Target(broken, NETWORK), FIXED, NETWORK)
    with pytest.raises(VolumeError, match="transform 'free', expected one of rigid, affine"):
        search_affine(TARGET, FIXED, NETWORK, "free")


def test_simpleitk_is_asked_for_only_where_it_searches(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    monkeypatch.setenv(compiled.VARIABLE, "scipy")
    with pytest.raises(ToolchainError, match="pip install SimpleITK"):
        search_affine(TARGET, FIXED, NETWORK)
    with pytest.raises(ToolchainError, match="--affine auto: SimpleITK is not installed"):
        check_search(SHAPE)
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    check_search(SHAPE)
    assert apart(search_affine(TARGET, FIXED, NETWORK).affine.pull, np.eye(4), INSIDE).max() < 0.4
    with pytest.raises(ToolchainError, match="prepare: SimpleITK is not installed"):
        search_affine(TARGET, FIXED, NETWORK, asked_by="prepare", compiled=False)


def test_searches_at_once_keep_one_thread_and_give_the_same_matrix():
    """SimpleITK's number of threads is global: a search that ends must not change it under one that runs."""
    itk = pytest.importorskip("SimpleITK")
    before = itk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    itk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        first, second = one_thread(itk), one_thread(itk)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert itk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
        second.__exit__(None, None, None)
        assert itk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
        grid = Grid((24, 24, 24), np.diag([2.0, 2.0, 2.0, 1.0]))
        at = np.indices(grid.shape) - 11.5
        fixed = np.where(np.sum(at**2, axis=0) < 80, 1 + 0.3 * np.sin(at[0]) * np.cos(at[2] / 2), 0).astype(np.float32)
        target, scan = Target(fixed, grid), np.roll(fixed, 2, axis=1)

        def search(_):
            return search_affine(target, scan, grid, "rigid", compiled=False).affine.pull

        alone = search(0)
        with ThreadPoolExecutor(3) as pool:
            assert all(np.array_equal(alone, found) for found in pool.map(search, range(6)))
    finally:
        itk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def brain(name: str, step: int) -> Tuple[np.ndarray, Grid]:
    """A real brain, its voxels averaged in cubes of `step`."""
    path = BRAINS / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    vol = np.load(str(path))["vol"].astype(np.float32)
    affine = network_affine(vol.shape)
    sides = [side // step for side in vol.shape]
    cubes = vol.reshape(sides[0], step, sides[1], step, sides[2], step)
    wide = np.diag([float(step)] * 3 + [1.0])
    wide[:3, 3] = (step - 1) / 2
    return cubes.mean(axis=(1, 3, 5), dtype=np.float32), Grid((sides[0], sides[1], sides[2]), affine @ wide)


def somewhere(seed: int, degrees: float, mm: float) -> np.ndarray:
    """A rotation by this angle about some axis, and a shift this far."""
    random = np.random.RandomState(seed)
    axis, shift = random.normal(size=3), random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle, found = np.deg2rad(degrees), np.eye(4)
    found[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    found[:3, 3] = shift / np.linalg.norm(shift) * mm
    return found


@pytest.mark.any_python("compares two engines; the tests around it run each of them on every Python")
def test_real_brains_end_where_simpleitk_ends(monkeypatch):
    pytest.importorskip("numba"), pytest.importorskip("SimpleITK")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    target = Target(*brain("atlas_fsaverage", 2))
    points = points_of(target.grid)[target.image > 5][::50]
    for number, name in enumerate(SUBJECTS[:2]):
        image, grid = brain(name, 2)
        placed = Grid(grid.shape, somewhere(number, 30, 30) @ grid.affine)
        one, other = (search_affine(target, image, placed, compiled=how).affine.pull for how in (True, False))
        error = apart(one, other, points)
        assert error.mean() < 0.4 and between(one, other) < 0.4, (name, error.mean(), error.max(), between(one, other))


@pytest.mark.parametrize("name", SUBJECTS)
def test_real_brains_end_at_one_place_from_anywhere(monkeypatch, name):
    pytest.importorskip("numba")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    target = Target(*brain("atlas_fsaverage", 2))
    points = points_of(target.grid)[target.image > 5][::50]
    image, grid = brain(name, 2)
    first: Optional[np.ndarray] = None
    for seed in range(4):
        way = somewhere(seed, 10.0 * seed, 30)
        found = search_affine(target, image, Grid(grid.shape, way @ grid.affine)).affine.pull
        back = Affine(way).inverse().pull @ found
        first = back if first is None else first
        assert apart(back, first, points).mean() < 0.2 and between(back, first) < 0.2
