# SPDX-License-Identifier: Apache-2.0
"""Every vector operator of the simulated device against NumPy's float16, on random and extreme inputs, on every
engine.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, image_conv_attrs, run_pb
from vxm_convert.sim.engine.lowering.fp16_lookup import table_of

ENGINES = ("openvino", "onnxruntime")
SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1,
        -1,
        2,
        -2,
        0.5,
        3,
        -3,
        65504,
        -65504,
        60000,
        -60000,
        256,
        -256,
        6,
        6.004,
        11,
        -11,
        2.0**-14,
        2.0**-24,
        -(2.0**-24),
        2.0**-15,
        6e-5,
        -6e-5,
        1e-3,
        1e-4,
        0.1,
        -0.1,
        2.5,
        -2.5,
        1023.5,
        100,
        -20,
    ],
    np.float32,
)


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setenv("VXM_SIM_ENGINE", request.param)


def _operands():
    """All pairs of special values, and random ones over the whole range of exponents; on the fp16 grid."""
    rng = np.random.RandomState(5)
    wide = (rng.uniform(-1, 1, (2, 4000)) * 2.0 ** rng.randint(-24, 16, (2, 4000))).astype(np.float32)
    left = np.concatenate([np.repeat(SPECIAL, len(SPECIAL)), wide[0], rng.uniform(-4, 4, 4000)])
    right = np.concatenate([np.tile(SPECIAL, len(SPECIAL)), wide[1], rng.uniform(-4, 4, 4000)])
    return [v.astype(np.float16).astype(np.float32) for v in (left, right)]


def _device(values):
    """What the 910 makes of an fp32 result: NaN → 0, beyond ±65504 → ±65504, else to nearest even."""
    finite = np.where(np.isnan(values), 0, values)
    return np.clip(finite, -65504, 65504).astype(np.float16).astype(np.float32)


def _run(tmp_path, op, operands, mode="force_fp16", **attrs):
    pb = PbBuilder()
    names = [pb.placeholder(f"x{k}", v.shape, v.dtype.name) for k, v in enumerate(operands)]
    pb.node(op, "y", *names, **attrs)
    return run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], list(operands), mode)[0]


def _half(function):
    """fp32 operands on the fp16 grid → one rounding."""

    def model(*operands):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _device(function(*operands))

    return model


EXACT_BINARY = {
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Div": np.divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "DivNoNan": lambda a, b: np.where(b == 0, 0, a / b),
    "FloorDiv": lambda a, b: np.floor(a / b),
    "FloorMod": lambda a, b: a - np.floor(a / b) * b,
    "SquaredDifference": lambda a, b: _device(a - b) ** 2,
}


@pytest.mark.parametrize("op", sorted(EXACT_BINARY))
def test_binary_operators_are_exact(op, engine, tmp_path):
    operands = _operands()
    if op == "FloorMod":
        # Above 12 bits the quotient's product is inexact in fp32, and engines differ in fusing it with the subtraction.
        operands = [v[np.abs(operands[0]) <= np.abs(operands[1]) * 4096] for v in operands]
    got, want = _run(tmp_path, op, operands), _half(EXACT_BINARY[op])(*operands)
    wrong = got != want
    assert not wrong.any(), [
        (a, b, g, w) for a, b, g, w in zip(operands[0][wrong], operands[1][wrong], got[wrong], want[wrong])
    ][:5]


EXACT_UNARY = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Square": np.square,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Rint": np.rint,
    "Sign": np.sign,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Relu6": lambda x: np.clip(x, 0, 6),
    "LeakyRelu": lambda x: np.where(x < 0, x * np.float32(np.float16(0.2)), x),
}


@pytest.mark.parametrize("op", sorted(EXACT_UNARY))
def test_unary_operators_are_exact(op, engine, tmp_path):
    x = _operands()[0]
    got, want = _run(tmp_path, op, [x]), _half(EXACT_UNARY[op])(x)
    wrong = got != want
    assert not wrong.any(), list(zip(x[wrong], got[wrong], want[wrong]))[:5]


#: The function in float64, rounded to fp32 as the vector unit holds it, then to fp16. Where NumPy has the function for
#: float16, that is what it computes, bit for bit.
FUNCTIONS = {
    "Exp": np.exp,
    "Log": np.log,
    "Log1p": np.log1p,
    "Expm1": np.expm1,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Sin": np.sin,
    "Cos": np.cos,
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x + 0.0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Erf": np.vectorize(math.erf),
    "Tan": np.tan,
    "Atan": np.arctan,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Erfc": np.vectorize(math.erfc),
    "Selu": lambda x: 1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.expm1(x), x),
}
ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@pytest.mark.parametrize("op", sorted(set(EXACT_UNARY) | set(FUNCTIONS)))
def test_unary_operators_are_exact_for_all_fp16_numbers(op, engine, tmp_path):
    """All 65 536: subnormals, both zeros, infinities and NaN, which are cleared where they come in."""
    x = _device(ALL_HALVES)
    if op in FUNCTIONS:
        want = _half(lambda v: FUNCTIONS[op](v.astype(np.float64)).astype(np.float32))(x)
    else:
        want = _half(EXACT_UNARY[op])(x)
    got = _run(tmp_path, op, [ALL_HALVES])
    wrong = got != want
    assert not wrong.any(), (wrong.sum(), list(zip(x[wrong], got[wrong], want[wrong]))[:5])


@pytest.mark.parametrize(
    "op, function", [("Exp", np.exp), ("Log", np.log), ("Tanh", np.tanh), ("Sin", np.sin), ("Expm1", np.expm1)]
)
def test_tables_hold_what_numpy_computes_in_float16(op, function):
    x = _device(ALL_HALVES).astype(np.float16)
    with np.errstate(all="ignore"):
        want = _device(function(x).astype(np.float32))
    # NumPy's fp32 functions may be off by a last place, depending on the processor; that moves a result beside a
    # midpoint.
    differs = table_of(op) != want
    assert differs.sum() <= 8 and np.abs(table_of(op) - want)[differs].sum() < 1


@pytest.mark.parametrize("op", ["Exp", "Erf", "Elu", "Selu", "Sigmoid", "Softplus", "Tan", "Acos", "Cosh", "Erfc"])
def test_functions_of_fp32_kernels(op, engine, tmp_path):
    x = np.random.RandomState(1).uniform(-0.99, 0.99, 4000).astype(np.float32)
    got, want = _run(tmp_path, op, [x], "force_fp32"), FUNCTIONS[op](x.astype(np.float64))
    assert np.abs(got - want).max() < 2e-6 * np.abs(want).max() and not np.array_equal(got, got.astype(np.float16))


def test_a_channels_first_function_keeps_its_order(engine, tmp_path):
    rng = np.random.RandomState(2)
    x, w = rng.randn(1, 4, 5, 3).astype(np.float32), (rng.randn(1, 1, 3, 6) * 0.5).astype(np.float32)
    pb = PbBuilder()
    pb.node("Conv2D", "conv", pb.placeholder("x", x.shape), pb.const("w", w), **image_conv_attrs())
    pb.node("Tanh", "y", "conv")
    conv, y = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("conv", 0), ("y", 0)], [x])
    want = _half(lambda v: np.tanh(v.astype(np.float64)).astype(np.float32))(conv)
    assert np.array_equal(y, want) and np.ptp(y) > 1


COMPARISONS = {
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
}


@pytest.mark.parametrize("op", sorted(COMPARISONS))
def test_comparisons_see_fp16(op, engine, tmp_path):
    left, right = _operands()
    # Equal in fp16, different in fp32.
    left, right = np.append(left, np.float32(1.0001)), np.append(right, np.float32(1.0))
    got = _run(tmp_path, op, [left, right])
    assert got.dtype == np.bool_ and np.array_equal(
        got, COMPARISONS[op](left.astype(np.float16), right.astype(np.float16))
    )


@pytest.mark.parametrize("op, model", [("FloorDiv", np.floor_divide), ("FloorMod", np.mod)])
def test_integer_division_rounds_down_and_is_exact(op, model, engine, tmp_path):
    rng = np.random.RandomState(0)
    left = np.append(rng.randint(-(1 << 30), 1 << 30, 500), [0, 7, -7, 7, -7, 1 << 30]).astype(np.int32)
    right = np.append(rng.choice([-70001, -300, -111, 67, 200, 12345], 500), [5, 3, 3, -3, -3, 1 << 29]).astype(
        np.int32
    )
    assert np.array_equal(_run(tmp_path, op, [left, right]), model(left, right))


@pytest.mark.parametrize(
    "op, x, want",
    [
        ("Log", [0.0, -1.0, 1.0], [-65504, 0, 0]),
        ("Sqrt", [-1.0, 4.0], [0, 2]),
        ("Rsqrt", [0.0, -1.0, 4.0], [65504, 0, 0.5]),
        ("Exp", [12.0, -30.0, 0.0], [65504, 0, 1]),
        ("Reciprocal", [0.0, 2.0], [65504, 0.5]),
    ],
)
def test_what_is_no_number_becomes_one(op, x, want, engine, tmp_path):
    assert _run(tmp_path, op, [np.array(x, np.float32)]).tolist() == want


def test_nan_of_an_fp32_kernel_is_cleared_by_the_cast_behind_it(engine, tmp_path):
    """0 / 0 in fp32, copied, then read by the cube, which takes fp16."""
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 2, 2, 1))
    ratio = pb.node("RealDiv", "ratio", x, x)
    shape = pb.const("shape", np.array([1, 2, 2, 1], np.int32))
    w = pb.const("w", np.ones((1, 1, 1, 1), np.float32))
    pb.node("Conv2D", "y", pb.node("Reshape", "copy", ratio, shape), w, **image_conv_attrs())
    data = np.array([0, 1, 0, 2], np.float32).reshape(1, 2, 2, 1)
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [data], "force_fp32")
    assert got.reshape(-1).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("op, function", [("Sum", np.sum), ("Mean", np.mean), ("Max", np.max), ("Min", np.min)])
def test_reductions_add_in_fp32_and_round_once(op, function, engine, tmp_path):
    x = np.random.RandomState(2).rand(7, 300).astype(np.float16).astype(np.float32)
    pb = PbBuilder()
    pb.node(op, "y", pb.placeholder("x", x.shape), pb.const("axes", np.array([1], np.int32)), keep_dims=False)
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    want = function(x.astype(np.float64), axis=1)
    assert (np.abs(got - want) <= np.spacing(want.astype(np.float16)).astype(np.float64) * 0.51).all()
    assert np.array_equal(got, got.astype(np.float16))


@pytest.mark.parametrize("kind", ["MatMul", "Conv2D", "Conv2DBackpropInput"])
def test_cube_operators_are_within_half_a_step_of_the_exact_sum(kind, engine, tmp_path):
    rng = np.random.RandomState(1)
    pb = PbBuilder()
    half = [v.astype(np.float16).astype(np.float32) for v in (rng.rand(12, 64), rng.randn(64, 24) * 0.1)]
    x, w = half
    exact = x.astype(np.float64) @ w.astype(np.float64)
    if kind == "MatMul":
        pb.node(kind, "y", pb.placeholder("x", x.shape), pb.const("w", w), transpose_a=False, transpose_b=False)
    elif kind == "Conv2D":
        pb.node(
            kind, "y", pb.placeholder("x", (1, 3, 4, 64)), pb.const("w", w.reshape(1, 1, 64, 24)), **image_conv_attrs()
        )
    else:
        sizes = pb.const("sizes", np.array([1, 3, 4, 24], np.int32))
        pb.node(
            kind,
            "y",
            sizes,
            pb.const("w", w.T.reshape(1, 1, 24, 64).copy()),
            pb.placeholder("x", (1, 3, 4, 64)),
            **image_conv_attrs(),
        )
    feed = x if kind == "MatMul" else x.reshape(1, 3, 4, 64)
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [feed])
    error = np.abs(got.reshape(exact.shape) - exact)
    assert (error <= np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64) * 0.501 + 2e-6).all()
    assert (error > 0).mean() > 0.5
