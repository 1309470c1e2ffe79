# SPDX-License-Identifier: Apache-2.0
"""Sampling positions, the linear warp of the reference, distribution of the Jacobian: against plain NumPy and known
cases.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.support import reference
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.reference_warp import warp_linear
from vxm_convert.metrics import chunked, jacobian
from vxm_convert.metrics.jacobian import folding, jacobian_stats
from vxm_convert.metrics.overlap import dice
from vxm_convert.metrics.registration import sampling_error

SHAPE = (7, 9, 11)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 95)
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 2)
    monkeypatch.setattr(jacobian, "SLAB", 3)


def grid(shape=SHAPE):
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)


def test_sampling_error_equals_whole_array_numpy(small_chunks):
    rng = np.random.RandomState(2)
    there = rng.uniform(-6, 6, SHAPE + (3,)).astype(np.float32)
    here = (there + 0.2 * rng.standard_normal(there.shape)).astype(np.float32)
    a, b = (np.clip(grid() + flow, 0, np.array(SHAPE) - 1) for flow in (here, there))
    distance = np.linalg.norm(a - b, axis=-1)
    found = sampling_error(here, there)
    assert found.n == distance.size
    assert found.position_max == pytest.approx(distance.max(), rel=1e-12)
    assert found.position_mean == pytest.approx(distance.mean(), rel=1e-12)
    assert found.position_p999 == pytest.approx(np.percentile(distance, 99.9), rel=1e-12)
    assert (
        found.floor_flip_fraction == pytest.approx((np.floor(a) != np.floor(b)).mean(), rel=1e-12)
        and found.floor_flip_fraction > 0
    )


def test_beyond_the_border_a_flow_has_no_effect():
    there = np.zeros((4, 4, 4, 3), np.float32)
    there[0, :, :, 0] = -3
    here = there.copy()
    here[0, :, :, 0] = -2
    found = sampling_error(here, there)
    assert (found.position_max, found.floor_flip_fraction) == (0.0, 0.0)


def test_one_flip_is_counted_once_and_nan_is_left_out(small_chunks):
    there = np.full(SHAPE + (3,), 0.25, np.float32)
    here = there.copy()
    here[2, 3, 4, 1] = -0.25
    here[5, 5, 5] = np.nan
    found = sampling_error(here, there)
    n = int(np.prod(SHAPE)) - 1
    assert (
        found.n == n
        and found.floor_flip_fraction == pytest.approx(1 / (3 * n))
        and found.position_max == pytest.approx(0.5)
    )


def test_linear_warp_equals_the_plain_form_inside_and_far_outside():
    rng = np.random.RandomState(0)
    image = rng.rand(*SHAPE)
    for size in (0.9, 4.0, 30.0, 1e9):
        flow = rng.uniform(-size, size, SHAPE + (3,))
        plain = reference.warp_linear(image[None, ..., None], flow[None])[0, ..., 0]
        np.testing.assert_allclose(warp_linear(image, flow), plain, atol=1e-6 if size > 1e6 else 1e-13)


def test_linear_warp_of_whole_steps_and_of_nan():
    image = np.random.RandomState(0).rand(*SHAPE).astype(np.float32)
    flow = np.zeros(SHAPE + (3,), np.float32)
    flow[..., 0], flow[..., 2] = 2, -1
    expected = image[np.minimum(np.arange(7) + 2, 6)][:, :, np.maximum(np.arange(11) - 1, 0)]
    np.testing.assert_array_equal(warp_linear(image, flow), expected.astype(np.float64))
    flow[1, 2, 3, 1] = np.inf
    warped = warp_linear(image, flow)
    assert np.isnan(warped[1, 2, 3]) and np.isnan(warped).sum() == 1
    with pytest.raises(VolumeError, match="expected a flow of"):
        warp_linear(image, flow[:-1])


def test_jacobian_distribution_equals_numpy(small_chunks):
    flow = np.random.RandomState(1).uniform(-0.6, 0.6, SHAPE + (3,)).astype(np.float32)
    rows = np.stack([np.stack(np.gradient(flow[..., c].astype(np.float64)), axis=-1) for c in range(3)], axis=-2)
    determinant = np.linalg.det(rows + np.eye(3))
    found = jacobian_stats(flow)
    assert found.folding == folding(flow) and found.folding.n_folded == (determinant <= 0).sum() > 0
    expected = [determinant.min(), *np.percentile(determinant, (1, 50, 99)), determinant.max()]
    assert list(found.to_dict().values()) == pytest.approx(expected, rel=1e-5)
    counts, _ = np.histogram(determinant, bins=found.histogram["edges"])
    assert found.histogram["counts"] == counts.tolist()
    assert sum(counts) + found.histogram["below"] + found.histogram["above"] == determinant.size


def test_jacobian_of_nan_only_is_undefined():
    found = jacobian_stats(np.full((3, 3, 3, 3), np.nan, np.float32))
    assert found.folding.fraction == 1.0 and math.isnan(found.p50) and math.isnan(found.maximum)


@pytest.mark.parametrize(
    "labels, values", [([2, 70000], [0, 2, 70000, -5]), ([-3, 4], [0, -3, 4, 9]), ([1, 2], [-7, 1, 2, 1 << 40])]
)
def test_dice_of_ids_that_no_table_holds(small_chunks, labels, values):
    rng = np.random.RandomState(3)
    a, b = (rng.choice(np.array(values, dtype=np.int64), SHAPE) for _ in range(2))
    found = dice(a, b, labels)
    for label in labels:
        expected = 2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())
        assert found.per_label[label] == pytest.approx(expected)
