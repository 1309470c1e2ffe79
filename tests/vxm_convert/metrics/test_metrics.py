# SPDX-License-Identifier: Apache-2.0
"""Statistics against whole-array NumPy, Dice and Jacobian of known cases, the nearest warp's rule, label sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vxm_convert.artifacts.reports import finite, flatten, write_report_csv
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.metrics import chunked, jacobian
from vxm_convert.metrics.jacobian import folding, jacobian_slabs
from vxm_convert.metrics.labels import LABEL_SETS, label_name, label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.registration import end_point_error
from vxm_convert.metrics.tensors import error_stats
from vxm_convert.scans.scan_file import ScanFile


@pytest.fixture
def small_chunks(monkeypatch):
    """Many chunks and slabs, so that their seams are tested."""
    monkeypatch.setattr(chunked, "CHUNK", 97)
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 2)
    monkeypatch.setattr(jacobian, "SLAB", 3)


def pair(shape=(7, 9, 11)):
    rng = np.random.RandomState(3)
    reference = rng.standard_normal(shape).astype(np.float32)
    return (reference + 0.01 * rng.standard_normal(shape) ** 3).astype(np.float32), reference


def test_error_stats_equal_whole_array_numpy(small_chunks):
    test, reference = pair()
    a, b = test.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    error = np.abs(a - b)
    stats = error_stats(test, reference, peak=1.0)
    assert stats.n == a.size and stats.finite
    assert stats.max_abs == error.max() and stats.max_index == np.unravel_index(error.argmax(), test.shape)
    assert stats.mean_abs == pytest.approx(error.mean(), rel=1e-12)
    assert stats.p99_abs == pytest.approx(np.percentile(error, 99), rel=1e-12)
    assert stats.p999_abs == pytest.approx(np.percentile(error, 99.9), rel=1e-12)
    assert stats.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert stats.cosine == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)), rel=1e-12)
    assert stats.one_minus_cosine == pytest.approx(1 - a @ b / np.sqrt(a @ a * (b @ b)), rel=1e-6)
    assert stats.relative_euclidean == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-12)
    assert stats.psnr_db == pytest.approx(10 * np.log10(1 / (error**2).mean()), rel=1e-12)


def test_one_minus_cosine_keeps_digits_where_cosine_rounds_to_one():
    reference = np.ones(1000)
    test = reference.copy()
    test[0] += 1e-9
    stats = error_stats(test, reference)
    assert stats.cosine == pytest.approx(1.0, abs=1e-15)
    assert stats.one_minus_cosine == pytest.approx(0.5 * 1e-18 / 1000 * (1 - 1 / 1000), rel=1e-3)


def test_equal_arrays():
    stats = error_stats(np.ones((3, 4)), np.ones((3, 4)), peak=1.0)
    assert (stats.max_abs, stats.psnr_db, stats.one_minus_cosine) == (0.0, None, 0.0)


def test_nan_and_inf_are_counted_and_left_out(small_chunks):
    test, reference = pair()
    test[1, 2, 3] = np.nan
    reference[4, 5, 6] = np.inf
    stats = error_stats(test, reference)
    assert (stats.nan_count, stats.inf_count, stats.n, stats.finite) == (1, 1, test.size - 2, False)
    assert math.isfinite(stats.max_abs) and math.isfinite(stats.rmse)
    everything = error_stats(np.full(5, np.nan), np.ones(5))
    assert everything.n == 0 and everything.nan_count == 5


def test_end_point_error(small_chunks):
    rng = np.random.RandomState(0)
    reference = rng.standard_normal((5, 6, 7, 3)).astype(np.float32)
    test = (reference + 0.1 * rng.standard_normal(reference.shape)).astype(np.float32)
    for spacing, unit in (((1, 1, 1), "voxel"), ((1.0, 2.0, 0.5), "mm")):
        length = np.linalg.norm((test.astype(np.float64) - reference) * spacing, axis=-1)
        found = end_point_error(test, reference, spacing, unit)
        assert (found.unit, found.n, found.max) == (unit, length.size, pytest.approx(length.max(), rel=1e-12))
        assert found.max_index == np.unravel_index(length.argmax(), length.shape)
        assert found.mean == pytest.approx(length.mean(), rel=1e-12)
        assert found.p999 == pytest.approx(np.percentile(length, 99.9), rel=1e-12)


def test_shapes_must_agree():
    with pytest.raises(VolumeError, match="equal, non-empty"):
        error_stats(np.zeros(3), np.zeros(4))


def test_dice_of_a_known_case(small_chunks):
    fixed = np.array([1, 1, 1, 1, 2, 2, 0, 0, 5])
    moved = np.array([1, 1, 2, 0, 2, 2, 1, 0, 0])
    scores = dice(moved, fixed, [1, 2, 5, 9])
    assert scores.per_label[1] == pytest.approx(2 * 2 / (3 + 4)) and scores.per_label[2] == pytest.approx(
        2 * 2 / (3 + 2)
    )
    assert math.isnan(scores.per_label[5]) and math.isnan(scores.per_label[9]), "absent from one side, absent from both"
    assert scores.n_labels == 2 and scores.mean == pytest.approx((4 / 7 + 4 / 5) / 2)


def test_dice_with_no_label_present_is_undefined():
    scores = dice(np.zeros(4, int), np.zeros(4, int), [3])
    assert math.isnan(scores.mean) and scores.n_labels == 0


def grid(shape):
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)


def test_jacobian_of_linear_fields_is_exact(small_chunks):
    shape = (8, 5, 6)
    matrix = np.array([[0.1, 0.2, 0.0], [-0.1, 0.3, 0.05], [0.0, 0.1, -0.4]])
    flow = grid(shape) @ matrix.T
    found = np.concatenate(list(jacobian_slabs(flow)))
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + matrix), rtol=1e-9)
    assert folding(flow).n_folded == 0


def test_jacobian_slabs_have_no_seams(small_chunks):
    flow = np.random.RandomState(0).uniform(-1, 1, (10, 6, 7, 3))
    rows = [np.gradient(flow[..., c]) for c in range(3)]
    whole = np.stack([np.stack(r, axis=-1) for r in rows], axis=-2) + np.eye(3)
    np.testing.assert_allclose(np.concatenate(list(jacobian_slabs(flow))), np.linalg.det(whole), atol=1e-12)


def test_folding_of_a_mirror_and_of_nan():
    flow = np.zeros((6, 4, 4, 3))
    flow[..., 0] = -2 * grid((6, 4, 4))[..., 0]
    assert folding(flow).fraction == 1.0 and folding(flow).minimum == -1.0
    still = np.zeros((6, 4, 4, 3))
    still[2, 2, 2, 0] = np.nan
    assert folding(still).n_folded > 0


def test_nearest_warp_rounds_half_to_even_and_clamps():
    labels = np.arange(5 * 1 * 1, dtype=np.int16).reshape(5, 1, 1) * 10
    flow = np.zeros((5, 1, 1, 3), np.float32)
    flow[:, 0, 0, 0] = (0.5, 0.5, 0.5, -9, 1e30)
    # Positions 0.5, 1.5, 2.5 go to 0, 2, 2.
    assert warp_nearest(labels, flow)[:, 0, 0].tolist() == [0, 20, 20, 0, 40]
    assert warp_nearest(labels, flow).dtype == np.int16


def test_nearest_warp_of_a_shift_crosses_slabs(monkeypatch):
    monkeypatch.setattr("vxm_convert.geometry.reference_warp._SLAB", 3)
    labels = np.random.RandomState(0).randint(0, 9, (8, 4, 5))
    flow = np.zeros((8, 4, 5, 3), np.float32)
    flow[..., 0], flow[..., 2] = 2, -1
    expected = labels[np.minimum(np.arange(8) + 2, 7)][:, :, np.maximum(np.arange(5) - 1, 0)]
    assert np.array_equal(warp_nearest(labels, flow), expected)


def test_nearest_warp_refuses_nan_and_other_shapes():
    with pytest.raises(VolumeError, match="NaN or Inf"):
        warp_nearest(np.zeros((2, 2, 2)), np.full((2, 2, 2, 3), np.nan, np.float32))
    with pytest.raises(VolumeError, match="expected a flow of"):
        warp_nearest(np.zeros((2, 2, 2)), np.zeros((2, 2, 3, 3), np.float32))


def test_label_sets_have_the_published_members():
    assert {name: len(labels) for name, labels in LABEL_SETS.items()} == {"paper30": 30, "seed30": 30, "common24": 24}
    assert set(LABEL_SETS["common24"]) == set(LABEL_SETS["paper30"]) & set(LABEL_SETS["seed30"])
    assert set(LABEL_SETS["paper30"]) - set(LABEL_SETS["seed30"]) == {12, 18, 31, 51, 52, 63}
    assert set(LABEL_SETS["seed30"]) - set(LABEL_SETS["paper30"]) == {0, 251, 252, 253, 254, 255}
    assert label_name(17) == "Left-Hippocampus" and label_name(999) == "label-999"
    with pytest.raises(VolumeError, match="common24, paper30, seed30"):
        label_set("mine")


@pytest.mark.real_data
@pytest.mark.parametrize("name, before", [("vxm_test", 0.651), ("bert", 0.599), ("niivue_fs", 0.494), ("dfsp", 0.576)])
def test_dice_before_registration_is_the_published_one(shared_data, name, before):
    atlas = ScanFile(shared_data / "brains" / "atlas_fsaverage.npz").labels()
    scores = dice(ScanFile(shared_data / "brains" / f"{name}.npz").labels().data, atlas.data, label_set("paper30"))
    assert round(scores.mean, 3) == before and scores.n_labels == 30


def test_reports_turn_undefined_figures_into_null(tmp_path):
    assert finite({"a": [math.nan, 1.5], "b": {"c": np.float32(2), "d": math.inf}}) == {
        "a": [None, 1.5],
        "b": {"c": 2.0, "d": None},
    }
    assert flatten({"s": "x", "m": {"max": 1.0, "at": [1, 2]}}) == {"s": "x", "m.max": 1.0, "m.at": "1 2"}
    write_report_csv(tmp_path / "r.csv", [{"s": 'a,"b', "x": None}, {"s": "c", "y": 1}])
    assert (tmp_path / "r.csv").read_text(encoding="utf-8") == 's,x,y\n"a,""b",,\nc,,1\n'
