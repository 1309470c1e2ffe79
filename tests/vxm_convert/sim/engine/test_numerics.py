# SPDX-License-Identifier: Apache-2.0
"""The rounding that the simulated device performs, against NumPy's float16: on every engine, at every kind of value."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, conv_attrs, run_pb
from vxm_convert.sim import numerics

ENGINES = ("openvino", "onnxruntime")


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setenv("VXM_SIM_ENGINE", request.param)
    return request.param


def _interesting_values() -> np.ndarray:
    """Every fp16 number, every midpoint between neighbours, one fp32 step beside each, overflow, tiny values; both
    signs.
    """
    half = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (half[1:] + half[:-1]) / 2
    points = np.concatenate([half, middle])
    beside = [np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))]
    extreme = np.array(
        [65504, 65519.996, 65520, 65536, 1e10, 3e38, 1e-8, 2.0**-25, 2.0**-26, 1e-30, 1e-38, 0.0], np.float32
    )
    positive = np.concatenate([points, extreme] + beside)
    return np.concatenate([positive, -positive]).astype(np.float32)


def _expected(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)


def test_host_rounding_saturates_and_clears_nan():
    got = numerics.round_to_half(np.array([np.inf, -np.inf, np.nan, 1e6, 65519, 2.0**-24, 2.0**-26], np.float32))
    assert got.tolist() == [65504, -65504, 0, 65504, 65504, 2.0**-24, 0]


def test_device_rounding_equals_numpy_float16(engine, tmp_path):
    values = _interesting_values()
    pb = PbBuilder()
    pb.node("Mul", "y", pb.placeholder("x", values.shape), pb.const("one", np.array(1.0, np.float32)))
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [values])
    wrong = got != _expected(values)
    assert not wrong.any(), list(zip(values[wrong][:5], got[wrong][:5], _expected(values)[wrong][:5]))


def test_every_operation_of_a_chain_rounds(engine, tmp_path):
    """(x + a) · b − a with a rounding after each step; leaving one out gives other numbers."""
    rng = np.random.RandomState(3)
    x, a, b = (rng.uniform(-4, 4, 20000).astype(np.float32) for _ in range(3))
    pb = PbBuilder()
    names = [pb.placeholder(name, x.shape) for name in "xab"]
    pb.node("AddV2", "sum", names[0], names[1])
    pb.node("Mul", "product", "sum", names[2])
    pb.node("Sub", "y", "product", names[1])
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x, a, b])
    hx, ha, hb = (v.astype(np.float16) for v in (x, a, b))
    assert np.array_equal(got, ((hx + ha) * hb - ha).astype(np.float32))
    late = ((hx.astype(np.float32) + ha) * hb - ha).astype(np.float16)
    assert not np.array_equal(got, late.astype(np.float32))


def test_fp32_mode_does_not_round(engine, tmp_path):
    x = np.random.RandomState(0).rand(1000).astype(np.float32)
    pb = PbBuilder()
    pb.node("Mul", "y", pb.placeholder("x", x.shape), pb.const("c", np.array(1.1, np.float32)))
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x], "force_fp32")
    assert np.array_equal(got, x * np.float32(1.1))


def test_overflow_saturates_and_nan_becomes_zero(engine, tmp_path):
    x = np.array([60000, -60000, np.inf, -np.inf, np.nan, 1.0], np.float32)
    pb = PbBuilder()
    pb.node("AddV2", "y", pb.placeholder("x", x.shape), "x")
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    assert got.tolist() == [65504, -65504, 65504, -65504, 0, 2]


def test_leaky_slope_has_the_kernels_type(engine, tmp_path):
    x = -np.linspace(0.1, 3, 500).astype(np.float32)
    pb = PbBuilder()
    pb.node("LeakyRelu", "y", pb.placeholder("x", x.shape), alpha=0.2)
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    half = x.astype(np.float16)
    assert np.array_equal(got, (half * np.float16(0.2)).astype(np.float32))


def test_convolution_takes_half_operands_and_rounds_the_sum(engine, tmp_path):
    """fp16 operands, fp32 accumulation, one rounding: at most one fp16 step from an exact sum, and on the fp16 grid."""
    rng = np.random.RandomState(1)
    x = rng.rand(1, 6, 6, 6, 4).astype(np.float32)
    w = (rng.randn(3, 3, 3, 4, 3) * 0.2).astype(np.float32)
    pb = PbBuilder()
    pb.node("Conv3D", "y", pb.placeholder("x", x.shape), pb.const("w", w), **conv_attrs())
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    xh, wh = (
        np.pad(v.astype(np.float16).astype(np.float64), pad)
        for v, pad in ((x, [(0, 0)] + [(1, 1)] * 3 + [(0, 0)]), (w, 0))
    )
    exact = sum(
        np.tensordot(xh[:, i : i + 6, j : j + 6, k : k + 6], wh[i, j, k], (4, 0))
        for i in range(3)
        for j in range(3)
        for k in range(3)
    )
    assert np.array_equal(got, got.astype(np.float16).astype(np.float32))
    assert (np.abs(got - exact) <= np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64) * 0.501 + 1e-7).all()
    unrounded = np.abs(exact - exact.astype(np.float16)) > 0
    assert unrounded.mean() > 0.5


def test_integer_indices_stay_exact_beyond_fp32(engine, tmp_path):
    """A batch of three full-size volumes has indices above 2**24, which fp32 cannot count."""
    base = np.arange(-3, 4, dtype=np.int32) + (1 << 24) + 1
    x = np.array([0.2, 1.7, 2.5, 3.5, -0.5, -1.5, 7.9], np.float32)
    pb = PbBuilder()
    floor = pb.node("Floor", "floor", pb.placeholder("x", x.shape))
    index = pb.node("Cast", "index", floor, SrcT=np.dtype("float32"), DstT=np.dtype("int32"))
    total = pb.node("AddV2", "total", index, pb.const("base", base))
    total = pb.node("Maximum", "low", total, pb.const("zero", np.array(0, np.int32)))
    pb.node("Minimum", "y", total, pb.const("top", np.array(1 << 25, np.int32)))
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    assert got.dtype == np.int32
    assert np.array_equal(got, base + np.floor(x).astype(np.int32))
