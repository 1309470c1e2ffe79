# SPDX-License-Identifier: Apache-2.0
"""Compiled loops against SciPy's path and brute force: borders, folds, anisotropic and oblique grids, threads, choice."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.grids import ISO, PAIRS, known_warp, some_affine
from vxm_convert.errors import ToolchainError
from vxm_convert.geometry import compiled, jacobian
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp, index_block, to_frame
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.inversion import NOT_CONVERGED, invert, measure
from vxm_convert.geometry.jacobian import determinant
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.resample import resample
from vxm_convert.geometry.velocity import inverse_flow
from vxm_convert.processor_time import thread_seconds
from vxm_convert.scans.conform import Placement, conform

pytest.importorskip("numba")
PAIR_NAMES = sorted(PAIRS)


@pytest.fixture()
def both(monkeypatch):
    """A function that calls another by SciPy, then by compiled loops."""

    def call(work, *args, **options):
        results = []
        for engine in ("scipy", "numba"):
            monkeypatch.setenv(compiled.VARIABLE, engine)
            results.append(work(*args, **options))
        return results

    return call


def as_float32(warp: Warp) -> Warp:
    return Warp(warp.u.astype(np.float32), warp.fixed, warp.moving)


def wild(grid: Grid, size: float, seed: int = 0) -> np.ndarray:
    """Displacements beyond the borders and with folds."""
    return np.random.RandomState(seed).uniform(-size, size, grid.shape + (3,)).astype(np.float32)


@pytest.mark.parametrize("edge", ["zero", "clamp"])
@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_linear_is_scipys(both, pair, edge):
    fixed, moving = PAIRS[pair]
    image = np.random.RandomState(3).uniform(0, 200, moving.shape)
    for warp in (as_float32(known_warp(fixed, moving)), Warp(wild(fixed, 15), fixed, moving)):
        for source in (image.astype(np.float32), image.astype(np.uint8), image.astype(">i2"), image[::-1, :, ::-1]):
            slow, fast = both(resample, source, warp, "linear", edge, fill=-7)
            assert slow.dtype == fast.dtype and np.abs(slow - fast).max() <= 1e-4 * 200
            assert (slow == -7).any() == (edge == "zero")


def test_linear_with_voxels_that_are_not_finite(both):
    image = np.random.RandomState(3).uniform(0, 1, ISO.shape).astype(np.float32)
    image[4:6, 3, 7], image[9, 9, 9] = np.nan, np.inf
    u = wild(ISO, 3)
    u[::2] = np.rint(u[::2])
    slow, fast = both(resample, image, Warp(u, ISO, ISO), "linear", "clamp")
    assert 10 < np.isnan(slow).sum() < 500 and np.array_equal(np.isnan(slow), np.isnan(fast))
    np.testing.assert_allclose(fast, slow, atol=1e-5)


@pytest.mark.parametrize("edge", ["zero", "clamp"])
@pytest.mark.parametrize("how", ["nearest", "labels"])
@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_labels_are_scipys(both, pair, how, edge):
    fixed, moving = PAIRS[pair]
    ids = np.random.RandomState(1).choice([2, 3, 7, 251, 16777217], moving.shape)
    halves = (np.rint(wild(fixed, 8) * 2) / 2).astype(np.float32)
    for warp in (
        as_float32(known_warp(fixed, moving)),
        Warp(wild(fixed, 15), fixed, moving),
        Warp(halves, fixed, moving),
    ):
        for source in (ids.astype(np.int32), (ids % 256).astype(np.uint8), ids.astype(np.int64)):
            slow, fast = both(resample, source, warp, how, edge)
            assert slow.dtype == fast.dtype and np.array_equal(slow, fast)


def test_ids_that_do_not_fit_are_left_to_the_reference(both):
    ids = np.full(ISO.shape, 2**40, dtype=np.int64)
    slow, fast = both(resample, ids, Warp(wild(ISO, 2), ISO, ISO), "labels", "clamp")
    assert (slow == 2**40).all() and (fast == 2**40).all()


@pytest.mark.parametrize("beyond", ["edge", "zero"])
@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_composition_is_the_reference(both, pair, beyond):
    fixed, moving = PAIRS[pair]
    there, affine = as_float32(known_warp(fixed, moving)), some_affine()
    second = Warp(wild(moving, 1.5), moving, fixed)
    for steps in ([there, affine], [affine, there], [affine], [affine, there, second, affine], [there, second]):
        slow, fast = (warp.u for warp in both(compose, steps, fixed, moving, beyond))
        off = np.abs(slow - fast).max(axis=-1)
        # A point within rounding of the border may be on either side, where `zero` jumps.
        assert np.count_nonzero(off > 1e-3) <= (2 if beyond == "zero" else 0)
    assert fast.dtype == np.float32


def test_frames_and_other_moving_grids(both):
    fixed, moving = PAIRS["oblique"]
    warp = as_float32(known_warp(fixed, moving))
    slow, fast = both(to_frame, warp.u, fixed.affine, moving.affine, np.float32)
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    slow, fast = (found.u for found in both(warp.on_moving, fixed))
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_conforming_a_scan(both):
    fixed, moving = PAIRS["LIA from anisotropic LPS"]
    image = np.random.RandomState(0).uniform(0, 255, moving.shape).astype(np.float32)
    for how, edge in (("linear", "zero"), ("linear", "clamp"), ("nearest", "zero"), ("labels", "zero")):
        scan = image if how == "linear" else image.astype(np.int32)
        slow, fast = both(conform, scan, Placement(fixed, moving, some_affine()), how, edge)
        assert slow.dtype == fast.dtype
        np.testing.assert_allclose(fast, slow, atol=2e-4 * 255 if how == "linear" else 0)
    turned = Placement(Grid(ISO.shape, ISO.affine @ np.diag([-1.0, 1, 1, 1])), ISO, Affine(np.eye(4)))
    slow, fast = both(conform, np.resize(image, ISO.shape), turned)
    assert turned.copies and np.array_equal(slow, fast)


def test_determinants(both):
    for u in (wild(ISO, 0.4), as_float32(known_warp(*PAIRS["oblique"])).u):
        grid = Grid(u.shape[:3], np.eye(4))
        slow, fast = both(determinant, Warp(u, grid, ISO))
        np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert (slow != 1).any()


@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_inverse_is_the_reference(both, pair):
    fixed, moving = PAIRS[pair]
    warp = as_float32(known_warp(fixed, moving))
    (slow, slow_mask, slow_report), (fast, mask, report) = both(invert, warp, tolerance=1e-4)
    assert np.abs(slow.u - fast.u).max() < 1e-3 and np.count_nonzero(slow_mask != mask) <= 5
    assert report.not_converged == 0 and report.moving_mm.max <= 1e-4 and abs(report.outside - slow_report.outside) <= 5
    assert report.fixed_mm.n == pytest.approx(slow_report.fixed_mm.n, abs=3)
    for figure in ("mean", "p95", "max"):
        assert getattr(report.fixed_mm, figure) == pytest.approx(getattr(slow_report.fixed_mm, figure), rel=0.02)
    slow_measured, measured = both(measure, warp, slow, "given")
    assert measured.folded == slow_measured.folded == 0 and abs(measured.outside - slow_measured.outside) <= 5
    assert measured.moving_mm.mean == pytest.approx(slow_measured.moving_mm.mean, rel=0.05, abs=1e-5)
    assert measured.fixed_mm.p95 == pytest.approx(slow_measured.fixed_mm.p95, rel=0.02)


def test_inverse_onto_another_grid(both):
    fixed, moving = PAIRS["oblique"]
    warp = as_float32(known_warp(fixed, moving))
    (slow, _, _), (fast, _, report) = both(invert, warp, target=ISO, tolerance=1e-4)
    assert fast.fixed == ISO and np.abs(slow.u - fast.u).max() < 1e-3 and report.moving_mm.n > 500


def test_inverse_of_a_field_with_folds(both):
    x = index_block(ISO.shape, slice(0, ISO.shape[0]))
    u = np.zeros(ISO.shape + (3,), dtype=np.float32)
    u[..., 0] = 4 * np.sin(x[..., 0])
    (_, slow_mask, slow), (inverse, mask, report) = both(invert, Warp(u, ISO, ISO))
    # Each finds one of the preimages; a point whose residual is small has been found.
    assert report.folded > 0 and report.not_converged <= slow.not_converged and report.moving_mm.n > 500
    at = np.argwhere(mask < NOT_CONVERGED)
    found = at + inverse.u[tuple(at.T)]
    flat = np.floor(found).astype(int)
    ahead = np.minimum(flat + 1, np.array(ISO.shape) - 1)
    weight = found[:, 0] - flat[:, 0]
    middle = np.clip(flat[:, 0], 0, None), ahead[:, 0]
    there = found[:, 0] + (1 - weight) * 4 * np.sin(middle[0]) + weight * 4 * np.sin(middle[1])
    inside = (found[:, 0] >= 0) & (found[:, 0] <= ISO.shape[0] - 1)
    assert inside.sum() > 500 and np.abs(there - at[:, 0])[inside].max() < 2e-3


def test_negative_velocity(both):
    velocity = np.random.RandomState(0).normal(0, 0.5, (8, 9, 10, 3)).astype(np.float32)
    slow, fast = both(inverse_flow, velocity, 7)
    np.testing.assert_allclose(fast, slow, atol=1e-4)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    fixed, moving = PAIRS["oblique"]
    warp, image = as_float32(known_warp(fixed, moving)), np.random.RandomState(0).rand(*moving.shape).astype(np.float32)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(compiled, "_places", compiled.Places(threads))
        inverse, mask, report = invert(warp)
        arrays = (resample(image, warp), compose([warp, some_affine()], fixed, moving).u, inverse.u, mask)
        found.append([array.tobytes() for array in arrays] + [report])
    assert found[0] == found[1]


def test_places_are_shared():
    places = compiled.Places(3)
    with places.some(2) as first, places.some(9) as second, places.some(9) as third:
        assert (first, second, third) == (2, 1, 1)
    with places.some(9) as all_of_them:
        assert all_of_them == 3


def test_the_choice(monkeypatch):
    small, large = (16, 16, 16), (128, 128, 128)
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    assert not compiled.compiled_for(small) and compiled.compiled_for(large)
    monkeypatch.setenv(compiled.VARIABLE, "scipy")
    assert not compiled.compiled_for(large)
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    assert compiled.compiled_for(small)
    monkeypatch.setenv(compiled.VARIABLE, "cuda")
    with pytest.raises(ToolchainError, match="VXM_HOST: got 'cuda', expected one of auto, numba, scipy"):
        compiled.check_engine()


def test_without_numba(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(compiled, "_missing", None)
    monkeypatch.setenv(compiled.VARIABLE, "auto")
    with caplog.at_level(logging.WARNING):
        assert not compiled.compiled_for((128, 128, 128)) and not compiled.compiled_for((128, 128, 128))
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["numba is missing"]
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    with pytest.raises(ToolchainError, match="numba cannot be imported"):
        compiled.compiled_for((128, 128, 128))


@pytest.mark.parametrize("engine", ["numba", "scipy"])
@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_parts_of_the_determinants_have_the_bits_of_the_whole(monkeypatch, engine, pair):
    monkeypatch.setenv(compiled.VARIABLE, engine)
    monkeypatch.setattr(jacobian, "_RANGE_SLAB", 5)
    fixed, moving = PAIRS[pair]
    warp = Warp(wild(fixed, 1.2), fixed, moving)
    whole = determinant(warp)
    for axis, side in enumerate(fixed.shape):
        for index in (0, 1, side // 2, side - 1):
            assert np.array_equal(jacobian.determinant_plane(warp, axis, index), np.take(whole, [index], axis))
    folded = ~(whole > 0)
    extent = jacobian.determinant_range(warp)
    assert extent == (np.count_nonzero(folded), whole.min(), whole.max()) and 0 < extent.folded < whole.size
    assert np.array_equal(jacobian.folds(warp), folded)


_ONE_LOOP = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from vxm_convert.geometry import compiled, jacobian
out = np.empty((2, 3, 4, 3), np.float32)
compiled.kernel("linear_map")(out * 0, np.eye(3), np.eye(4)[:3], 0, out)
assert out[1, 2, 3].tolist() == [1, 2, 3]
"""


def test_compilation_is_said_and_kept(project_root, tmp_path):
    def run(folder):
        return subprocess.run(
            [sys.executable, "-c", _ONE_LOOP],
            cwd=str(project_root),
            env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
            stderr=subprocess.PIPE,
            check=True,
            timeout=120,
        ).stderr.decode()

    assert run(tmp_path).count("compiling loops") == 1
    assert "compiling" not in run(tmp_path)


def test_a_change_of_any_file_beside_a_loop_gives_its_compiled_code_another_name(tmp_path):
    """numba asks only whether the loop's own file has changed."""

    def named(text):
        (tmp_path / "helpers.py").write_text(text)
        compiled._sources.cache_clear()
        return compiled._sources(str(tmp_path))

    assert named("a = 1") == named("a = 1") != named("a = 2")
    loop = compiled.kernel("linear_map")
    assert loop.py_func.__qualname__ == f"linear_map_{compiled._sources(os.path.dirname(compiled.__file__))}"


def test_processor_time_of_the_threads_of_loops_is_that_of_the_caller(monkeypatch):
    def work(_part):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    for threads in (1, 3):
        monkeypatch.setattr(compiled, "_places", compiled.Places(threads))
        begun = thread_seconds()
        compiled.by_planes(4 * compiled._PLANES, work)
        assert thread_seconds() - begun >= 0.08
