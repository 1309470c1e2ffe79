# SPDX-License-Identifier: Apache-2.0
"""Percentiles caught in the first look: exact, no second look where the sample was right, another one where it
misled.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.vxm_convert.metrics.test_tensors import distributions
from vxm_convert.metrics import brackets, streams
from vxm_convert.metrics.jacobian import jacobian_stats
from vxm_convert.metrics.registration import end_point_error, flow_errors, sampling_error
from vxm_convert.metrics.tensors import compare_tensors, error_stats

SHAPE = (17, 19, 23)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Samples of 256 values, chunks and units of work that a test's arrays fill many times."""
    monkeypatch.setattr(brackets, "SAMPLE", 256)
    monkeypatch.setattr(streams, "CHUNK", 393)
    monkeypatch.setattr(streams, "CHUNKS_PER_TASK", 2)


@pytest.fixture
def looks(monkeypatch):
    """How often a stream was looked at again."""
    counted = []

    class Counted(streams.Percentiles):
        def __init__(self, *args):
            counted.append(1)
            super().__init__(*args)

    monkeypatch.setattr(brackets, "Percentiles", Counted)
    return counted


def percentiles_of(stats):
    return [stats.p50_abs, stats.p99_abs, stats.p999_abs]


@pytest.mark.parametrize("gathered", [10, 1 << 19])
@pytest.mark.parametrize("name", sorted(distributions()))
def test_percentiles_are_exact_however_the_errors_lie(monkeypatch, name, gathered):
    monkeypatch.setattr(streams, "GATHERED", gathered)
    errors = distributions()[name]
    for stats in (error_stats(errors, np.zeros_like(errors)), compare_tensors(errors, np.zeros_like(errors)).stats):
        assert percentiles_of(stats) == pytest.approx(list(np.percentile(errors, [50, 99, 99.9])), rel=1e-12, abs=0)


def test_a_good_sample_needs_one_look(looks):
    errors = np.random.RandomState(0).standard_normal(20011)
    stats = error_stats(errors, np.zeros_like(errors))
    assert (
        percentiles_of(stats) == pytest.approx(list(np.percentile(np.abs(errors), [50, 99, 99.9])), rel=1e-12)
        and not looks
    )


def test_a_sample_that_misleads_costs_a_look_and_no_digit(looks):
    errors = np.random.RandomState(0).rand(20011) + 5.0
    errors[brackets.sample_positions(errors.size)] = 0.25
    stats = error_stats(errors, np.zeros_like(errors))
    assert percentiles_of(stats) == pytest.approx(list(np.percentile(errors, [50, 99, 99.9])), rel=1e-12) and looks


def test_brackets_keep_no_more_than_may_be_gathered(monkeypatch, looks):
    monkeypatch.setattr(streams, "GATHERED", 100)
    errors = np.random.RandomState(0).rand(20011)
    stats = error_stats(errors, np.zeros_like(errors))
    assert percentiles_of(stats) == pytest.approx(list(np.percentile(errors, [50, 99, 99.9])), rel=1e-12) and looks
    caught = brackets.Caught(brackets.Brackets(errors[:256], (50.0,)))
    for start in range(0, errors.size, 100):
        caught.add(errors[start : start + 100])
    assert caught.values(errors.size) is None and caught._kept == [None]


def test_short_streams_have_no_sample_and_long_ones_meet_every_plane():
    assert brackets.sample_positions(256 * 8 - 1) is None
    for n in (256 * 8, 160 * 192 * 224 * 3, 64**3):
        step = brackets.sample_positions(n).step
        assert math.gcd(step, n) == 1 and n // step >= 256 // 2


def flows(seed=4):
    rng = np.random.RandomState(seed)
    there = rng.uniform(-4, 4, SHAPE + (3,)).astype(np.float32)
    return (there + 0.2 * rng.standard_normal(there.shape)).astype(np.float32), there


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
@pytest.mark.parametrize("sample", [256, 1 << 20])
def test_flow_errors_are_those_of_the_single_functions(monkeypatch, spacing, sample):
    here, there = flows()
    here[3, 4, 5, 1], there[6, 7, 8, 0], here[9, 9, 9] = np.nan, np.inf, -np.inf
    there[9, 9, 9] = -np.inf
    monkeypatch.setattr(brackets, "SAMPLE", sample)
    found = flow_errors(here, there, spacing)
    assert found.voxel == end_point_error(here, there) and found.voxel.n == here.size // 3 - 3
    assert (
        found.mm == end_point_error(here, there, spacing, "mm")
        and found.mm.histogram == end_point_error(here, there, spacing).histogram
    )
    assert found.sampling == sampling_error(here, there)
    with np.errstate(invalid="ignore"):
        length = np.linalg.norm((here.astype(np.float64) - there) * spacing, axis=-1)
    assert found.mm.p999 == pytest.approx(np.percentile(length[np.isfinite(length)], 99.9), rel=1e-12)


def test_flows_in_another_order_have_the_same_figures():
    here, there = flows()
    assert flow_errors(np.asfortranarray(here), np.asfortranarray(there), (1, 1, 1)) == flow_errors(
        here, there, (1, 1, 1)
    )


@pytest.mark.parametrize("still", [False, True])
def test_percentiles_of_the_determinant_are_exact(still):
    flow = flows()[1] * np.float32(0 if still else 0.2)
    rows = np.stack([np.stack(np.gradient(flow[..., c].astype(np.float64)), axis=-1) for c in range(3)], axis=-2)
    found = jacobian_stats(flow)
    expected = np.percentile(np.linalg.det(rows + np.eye(3)), (1, 50, 99))
    assert [found.p01, found.p50, found.p99] == pytest.approx(list(expected), rel=1e-5)
