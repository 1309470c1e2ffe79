# SPDX-License-Identifier: Apache-2.0
"""Flows and determinants: figures of one pass against those of single functions and of whole-array NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from vxm_convert.metrics import chunked
from vxm_convert.metrics.jacobian import jacobian_stats
from vxm_convert.metrics.registration import end_point_error, flow_errors, sampling_error

SHAPE = (17, 19, 23)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks and units of work that a test's arrays fill many times."""
    monkeypatch.setattr(chunked, "CHUNK", 393)
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 2)


def flows(seed=4):
    rng = np.random.RandomState(seed)
    there = rng.uniform(-4, 4, SHAPE + (3,)).astype(np.float32)
    return (there + 0.2 * rng.standard_normal(there.shape)).astype(np.float32), there


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_flow_errors_are_those_of_the_single_functions(spacing):
    here, there = flows()
    here[3, 4, 5, 1], there[6, 7, 8, 0], here[9, 9, 9] = np.nan, np.inf, -np.inf
    there[9, 9, 9] = -np.inf
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
