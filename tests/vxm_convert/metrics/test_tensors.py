# SPDX-License-Identifier: Apache-2.0
"""Ascend's ten figures by plain formulas and special cases, exact percentiles, masks, memory that does not grow."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from vxm_convert.metrics import chunked
from vxm_convert.metrics.ascend import ASCEND_NAMES, EPSILON, KL_FLOOR
from vxm_convert.metrics.registration import end_point_error
from vxm_convert.metrics.tensors import compare_tensors, error_stats


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 89)
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 2)


def plain(x, y):
    """The comparer's figures written down once more, over whole arrays."""
    x, y = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    error = np.abs(x - y)
    relative = np.array([abs(a / b - 1) if abs(b) > EPSILON else 0.0 for a, b in zip(x, y)])
    p, q = (np.maximum((v - v.min()) / (v.max() - v.min()), KL_FLOOR) for v in (x, y))
    p, q = p / p.sum(), q / q.sum()
    shown = f"({x.mean():.3f};{x.std():.3f}),({y.mean():.3f};{y.std():.3f})"
    return {
        "CosineSimilarity": (x / np.sqrt((x**2).sum()) * (y / np.sqrt((y**2).sum()))).sum(),
        "MaxAbsoluteError": error.max(),
        "AccumulatedRelativeError": relative.sum(),
        "RelativeEuclideanDistance": math.sqrt((error**2).sum() / (y**2).sum()),
        "KullbackLeiblerDivergence": (p * np.log(p / q)).sum(),
        "StandardDeviation": shown,
        "MeanAbsoluteError": error.mean(),
        "RootMeanSquareError": math.sqrt((error**2).mean()),
        "MaxRelativeError": relative.max(),
        "MeanRelativeError": relative.mean(),
    }


def pair(dtype, seed=5, shape=(6, 7, 8, 3)):
    rng = np.random.RandomState(seed)
    y = 3 + 2 * rng.standard_normal(shape)
    y[rng.rand(*shape) < 0.1] = 0
    return (y + 0.05 * rng.standard_normal(shape)).astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", ">f4"])
def test_the_ten_figures_equal_plain_formulas(small_chunks, dtype):
    x, y = pair(dtype)
    found, expected = compare_tensors(x, y).ascend, plain(x, y)
    assert tuple(found.to_dict()) == ASCEND_NAMES and found.reason == ""
    for name in ASCEND_NAMES:
        if name == "StandardDeviation":
            assert found.figures[name] == expected[name]
        else:
            assert found.figures[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-14), name


@pytest.mark.parametrize(
    "x, y, cosine, why",
    [
        ([0, 0, 0], [0, 0, 0], 1.0, ""),
        ([0, 0, 0], [1, 2, 3], math.nan, "the device tensor are zero"),
        ([1, 2, 3], [0, 0, 0], math.nan, "the reference tensor are zero"),
        ([7], [-3], 1.0, ""),
        ([1, -2, 3], [-1, 2, -3], -1.0, ""),
    ],
)
def test_cosine_of_special_cases(x, y, cosine, why):
    found = compare_tensors(np.array(x, np.float32), np.array(y, np.float32)).ascend
    assert found.figures["CosineSimilarity"] == pytest.approx(cosine, nan_ok=True)
    assert (why in found.reason) and bool(why) == bool(found.reason)


def test_relative_figures_leave_out_what_counts_as_zero():
    x, y = np.array([1.0, 5.0, 3.0]), np.array([0.0, 2.2e-16, 2.0])
    found = compare_tensors(x, y).ascend.figures
    assert (found["AccumulatedRelativeError"], found["MaxRelativeError"]) == (0.5, 0.5)
    assert found["MeanRelativeError"] == pytest.approx(0.5 / 3), "the mean divides by all"
    zero = compare_tensors(np.ones(4), np.zeros(4)).ascend.figures
    assert zero["RelativeEuclideanDistance"] == 0.0 and zero["MaxAbsoluteError"] == 1.0


def test_divergence_has_a_floor_and_is_zero_for_equal_tensors():
    assert compare_tensors(np.arange(9.0), np.arange(9.0)).ascend.figures["KullbackLeiblerDivergence"] == 0.0
    p, q = np.array([1.0, KL_FLOOR]), np.array([KL_FLOOR, 1.0])
    expected = (p / p.sum() * np.log(p / q)).sum()
    found = compare_tensors(np.array([5.0, 1.0]), np.array([2.0, 4.0])).ascend.figures["KullbackLeiblerDivergence"]
    assert found == pytest.approx(expected, rel=1e-12)
    constant = compare_tensors(np.full(4, 3.0), np.full(4, 3.0)).ascend.figures
    assert constant["KullbackLeiblerDivergence"] == 0.0


def test_means_and_deviations_below_a_thousandth_are_shown_as_zero():
    x = np.array([9e-4, -9e-4])
    assert compare_tensors(x, x + 5).ascend.figures["StandardDeviation"] == "(0.000;0.000),(5.000;0.000)"
    far = 1e6 + np.array([1.0, 2.0, 3.0, 4.0])
    assert compare_tensors(far, far).ascend.figures["StandardDeviation"].startswith(f"(1000002.500;{far.std():.3f})")


def test_tiny_differences_are_visible():
    y = np.random.RandomState(0).standard_normal(5000)
    # Orthogonal to y: 1 − cos = 1 − 1/√(1 + t²) ≈ t²/2.
    away = np.roll(y, 1) - y * (y @ np.roll(y, 1)) / (y @ y)
    away *= np.linalg.norm(y) / np.linalg.norm(away)
    both = compare_tensors(y + away * math.sqrt(2e-8), y)
    assert both.ascend.figures["CosineSimilarity"] == pytest.approx(1 - 1e-8, abs=1e-13)
    assert both.stats.one_minus_cosine == pytest.approx(1e-8, rel=1e-6)
    assert both.ascend.figures["MaxAbsoluteError"] == both.stats.max_abs


def test_not_finite_values_leave_no_figure_and_a_reason(small_chunks):
    x, y = pair("float32")
    x[0, 1, 2, 0], x[3, 3, 3, 1], y[5, 5, 5, 2] = np.nan, -np.inf, np.inf
    both = compare_tensors(x, y)
    assert (both.stats.nan_count, both.stats.inf_count, both.stats.first_bad_index) == (1, 2, (0, 1, 2, 0))
    assert all(math.isnan(v) for name, v in both.ascend.figures.items() if name != "StandardDeviation")
    assert both.ascend.reason == "1 pairs with NaN and 2 with Inf."
    good = np.isfinite(x) & np.isfinite(y)
    assert both.stats.max_abs == np.abs(x.astype(np.float64) - y)[good].max(), "the statistics go on over the others"


def test_bool_tensors_have_two_figures():
    x, y = np.array([True, True, False]), np.array([True, False, False])
    found = compare_tensors(x, y).ascend
    known = {name for name, value in found.figures.items() if isinstance(value, float) and not math.isnan(value)}
    assert known == {"CosineSimilarity", "RelativeEuclideanDistance"} and "bool" in found.reason
    assert found.figures["CosineSimilarity"] == pytest.approx(1 / math.sqrt(2))


def distributions():
    rng = np.random.RandomState(1)
    n = 4001
    return {
        "one value": np.full(n, 0.3),
        "zeros": np.zeros(n),
        "two neighbours": np.where(np.arange(n) % 3 == 0, 0.3, np.nextafter(0.3, 1)),
        "narrow": 0.3 + 1e-9 * rng.rand(n),
        "wide": 10.0 ** rng.uniform(-60, 30, n),
        "beyond float32": np.where(np.arange(n) % 50 == 0, 1e100, 1e-60) * rng.rand(n),
        "mostly zero": np.where(rng.rand(n) < 0.985, 0.0, rng.rand(n)),
    }


@pytest.mark.parametrize("name", sorted(distributions()))
def test_percentiles_are_exact_however_the_errors_lie(small_chunks, name):
    errors = distributions()[name]
    for stats in (error_stats(errors, np.zeros_like(errors)), compare_tensors(errors, np.zeros_like(errors)).stats):
        assert [stats.p50_abs, stats.p99_abs, stats.p999_abs] == pytest.approx(
            list(np.percentile(errors, [50, 99, 99.9])), rel=1e-12, abs=0
        )
        assert stats.max_abs == errors.max()


def test_percentiles_of_very_many_values_have_seven_digits(small_chunks, monkeypatch):
    errors = np.random.RandomState(0).rand(4001)
    exact = error_stats(errors, np.zeros_like(errors))
    monkeypatch.setattr(chunked, "MOST_DOUBLES", 4000)
    rough = error_stats(errors, np.zeros_like(errors))
    assert rough.p99_abs == pytest.approx(exact.p99_abs, rel=1e-7) and rough.p99_abs != exact.p99_abs
    assert rough.max_abs == exact.max_abs and rough.mean_abs == exact.mean_abs


def test_a_mask_selects(small_chunks):
    x, y = pair("float32", shape=(5, 6, 7))
    mask = np.random.RandomState(0).rand(5, 6, 7) < 0.3
    x[~mask] = np.nan
    stats = error_stats(x, y, peak=2.0, where=mask)
    error = np.abs(x.astype(np.float64) - y)
    assert stats.finite and stats.n == mask.sum() and stats.max_abs == error[mask].max()
    assert stats.max_index == np.unravel_index(np.nanargmax(error), x.shape)
    assert stats.p50_abs == pytest.approx(np.percentile(error[mask], 50), rel=1e-12)
    assert error_stats(x, y, where=np.zeros_like(mask)).n == 0


def test_signal_to_noise(small_chunks):
    x, y = pair("float64")
    stats = error_stats(x, y)
    assert stats.snr_db == pytest.approx(10 * math.log10((y**2).sum() / ((x - y) ** 2).sum()), rel=1e-10)
    assert error_stats(y, y).snr_db is None


def test_views_of_any_order_and_scalars(small_chunks):
    x, y = pair("float32")
    straight = compare_tensors(x, y)
    assert compare_tensors(np.asfortranarray(x), np.asfortranarray(y)).stats == straight.stats
    assert compare_tensors(x[::-1], y[::-1]).stats.max_abs == straight.stats.max_abs
    assert compare_tensors(np.array(2.0), np.array(1.5)).stats.max_index == ()


def test_threads_change_nothing(monkeypatch):
    x, y = pair("float32", shape=(40, 40, 40, 3))
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 1)
    several = compare_tensors(x, y)
    monkeypatch.setattr(chunked, "MAX_THREADS", 1)
    assert compare_tensors(x, y) == several


def test_a_fault_in_a_thread_is_raised(monkeypatch):
    def fail(start, stop):
        raise ZeroDivisionError(start)

    with pytest.raises(ZeroDivisionError):
        list(chunked.in_order(fail, [(0, 1), (1, 2), (2, 3)]))


def test_histogram_by_octaves_counts_everything(small_chunks):
    errors = np.array([0.0, 1e-12, 0.3, 0.4, 0.5, 0.9, 2.0, 300.0, 2.0**-24])
    found = compare_tensors(errors, np.zeros(9)).histogram
    used = {edge: count for edge, count in zip(found["edges"], found["counts"]) if count}
    assert used == {0.25: 2, 0.5: 2, 2.0: 1, 2.0**-24: 1} and (found["below"], found["above"]) == (2, 1)
    assert len(found["edges"]) == len(found["counts"]) + 1 and found["edges"][-1] == 256.0
    other = compare_tensors(np.ones(3), np.ones(3)).histogram
    assert other["below"] == 3 and other["edges"] == found["edges"], (
        "edges are the same, so that histograms can be added"
    )


def peak_of(n):
    x = np.linspace(0, 1, n, dtype=np.float32)
    y = np.sqrt(x)
    tracemalloc.start()
    try:
        compare_tensors(x, y, peak=1.0)
        if n % 3 == 0:
            end_point_error(x.reshape(-1, 3), y.reshape(-1, 3))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_one_float64_per_element(monkeypatch):
    """Beyond what the chunks need, whatever the figures; float64 copies of both tensors would be twice that."""
    monkeypatch.setattr(chunked, "CHUNK", 1 << 12)
    monkeypatch.setattr(chunked, "CHUNKS_PER_TASK", 4)
    few, many = 3 << 15, 3 << 18
    grown = peak_of(many) - peak_of(few)
    assert grown < 1.1 * 8 * (many - few) + (1 << 20), grown
