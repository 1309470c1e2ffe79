# SPDX-License-Identifier: Apache-2.0
"""Vector operators, element by element: computed in fp32 on fp16 operands and rounded once, except where a function
documents otherwise.
"""

from __future__ import annotations

from typing import Callable, Dict, List

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value

INTEGERS = ("int32", "int64")
_ONNX_TYPES = {"float32": 1, "float16": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}


def _follow(state: Lowering, op: Op, kind: str, **attrs: float) -> List[Value]:
    first = state.is_first(op.inputs[0])
    return [Value(state.builder.one(kind, state.get(op.inputs[0], first), **attrs), first)]


def _unary(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    return lambda state, op: _follow(state, op, kind)


def _shared_order(state: Lowering, op: Op) -> bool:
    """Channels first only where all operands have one shape; broadcasting counts axes from the graph's end."""
    shapes = {desc.logical_shape for desc in op.input_descs}
    return len(shapes) == 1 and any(state.is_first(source) for source in op.inputs)


def _binary(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    def build(state: Lowering, op: Op) -> List[Value]:
        first = _shared_order(state, op)
        return [Value(state.builder.one(kind, *(state.get(source, first) for source in op.inputs)), first)]

    return build


def _bound(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    """Maximum and Minimum. OpenVINO turns an integer bound by one number into an fp32 clamp, which is exact only up to
    2**24; with a vector as bound it stays an integer operation.
    """
    plain = _binary(kind)

    def build(state: Lowering, op: Op) -> List[Value]:
        width = op.output_descs[0].logical_shape[-1:]
        scalars = [source for source in op.inputs if source in state.consts and state.consts[source].value.size == 1]
        if op.output_descs[0].dtype not in INTEGERS or len(scalars) != 1 or not width:
            return plain(state, op)
        vector = state.builder.constant(np.full(width, state.consts[scalars[0]].value.reshape(-1)[0]))
        other = next(source for source in op.inputs if source not in scalars)
        return [Value(state.builder.one(kind, state.get(other), vector), False)]

    return build


def _clip(state: Lowering, op: Op) -> List[Value]:
    names = [state.get(source) for source in op.inputs]
    return [Value(state.builder.one("Max", state.builder.one("Min", names[0], names[2]), names[1]), False)]


def _sum(state: Lowering, op: Op) -> List[Value]:
    """AddN: the kernel adds in fp32 and rounds once."""
    first = _shared_order(state, op)
    names = [state.get(source, first) for source in op.inputs]
    total = names[0]
    for name in names[1:]:
        total = state.builder.one("Add", total, name)
    return [Value(total, first)]


def _leaky_relu(state: Lowering, op: Op) -> List[Value]:
    # The slope is an operand of the kernel and has the kernel's type.
    slope = np.dtype(op.input_descs[0].dtype).type(op.attrs["negative_slope"])
    return _follow(state, op, "LeakyRelu", alpha=float(slope))


def _relu6(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    limits = [state.builder.scalar(0.0), state.builder.scalar(6.0)]
    return [Value(state.builder.one("Clip", state.get(op.inputs[0], first), *limits), first)]


def _square(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    return [Value(state.builder.one("Mul", name, name), first)]


def _squared_difference(state: Lowering, op: Op) -> List[Value]:
    """Two instructions: the difference is rounded before it is squared."""
    (value,) = _binary("Sub")(state, op)
    name = state.builder.round_half(value.name) if op.output_descs[0].dtype == "float16" else value.name
    return [Value(state.builder.one("Mul", name, name), value.channels_first)]


def _rsqrt(state: Lowering, op: Op) -> List[Value]:
    root = _follow(state, op, "Sqrt")[0]
    return [Value(state.builder.one("Div", state.builder.scalar(1.0), root.name), root.channels_first)]


def _near_zero(state: Lowering, x: str, far: str, square: float, cubic: float) -> str:
    """``x + square · x² + cubic · x³`` near zero, where adding 1 first would lose x; `far` elsewhere."""
    builder = state.builder
    inner = builder.one("Add", builder.scalar(square), builder.one("Mul", x, builder.scalar(cubic)))
    near = builder.one("Mul", x, builder.one("Add", builder.scalar(1.0), builder.one("Mul", x, inner)))
    return builder.one("Where", builder.one("Less", builder.one("Abs", x), builder.scalar(4e-3)), near, far)


def _log_of_one_and(state: Lowering, x: str) -> str:
    return _near_zero(
        state, x, state.builder.one("Log", state.builder.one("Add", x, state.builder.scalar(1.0))), -0.5, 1 / 3
    )


def _log1p(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    return [Value(_log_of_one_and(state, state.get(op.inputs[0], first)), first)]


def _expm1(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    x = state.get(op.inputs[0], first)
    far = state.builder.one("Sub", state.builder.one("Exp", x), state.builder.scalar(1.0))
    return [Value(_near_zero(state, x, far, 0.5, 1 / 6), first)]


def _softplus(state: Lowering, op: Op) -> List[Value]:
    """``max(x, 0) + log(1 + exp(−|x|))``, which neither overflows nor loses small results."""
    builder, first = state.builder, state.is_first(op.inputs[0])
    x = state.get(op.inputs[0], first)
    small = _log_of_one_and(state, builder.one("Exp", builder.one("Neg", builder.one("Abs", x))))
    return [Value(builder.one("Add", builder.one("Relu", x), small), first)]


def _sigmoid(state: Lowering, op: Op) -> List[Value]:
    """``1 / (1 + exp(−x))``: the engines' own approximations are coarser than fp16 near zero."""
    builder, first = state.builder, state.is_first(op.inputs[0])
    power = builder.one("Exp", builder.one("Neg", state.get(op.inputs[0], first)))
    return [Value(builder.one("Div", builder.scalar(1.0), builder.one("Add", builder.scalar(1.0), power)), first)]


def _div_no_nan(state: Lowering, op: Op) -> List[Value]:
    left, right = (state.get(source) for source in op.inputs)
    zero = state.builder.one("Equal", right, state.builder.scalar(0.0))
    return [
        Value(state.builder.one("Where", zero, state.builder.scalar(0.0), state.builder.one("Div", left, right)), False)
    ]


def _floor_divide(state: Lowering, op: Op) -> List[Value]:
    """Towards minus infinity. Integers: ONNX truncates, so the quotient is lowered if the remainder has the other sign."""
    builder = state.builder
    left, right = (state.get(source) for source in op.inputs)
    if op.output_descs[0].dtype not in INTEGERS:
        return [Value(_floored(state, builder.one("Div", left, right)), False)]
    quotient, _, wrong = _integer_division(state, op, left, right)
    one = builder.constant(np.array(1, op.output_descs[0].dtype))
    return [Value(builder.one("Where", wrong, builder.one("Sub", quotient, one), quotient), False)]


def _floor_mod(state: Lowering, op: Op) -> List[Value]:
    """Remainder of FloorDiv, with the divisor's sign."""
    builder = state.builder
    left, right = (state.get(source) for source in op.inputs)
    if op.output_descs[0].dtype not in INTEGERS:
        floor = _floored(state, builder.one("Div", left, right))
        return [Value(builder.one("Sub", left, builder.one("Mul", floor, right)), False)]
    _, rest, wrong = _integer_division(state, op, left, right)
    return [Value(builder.one("Where", wrong, builder.one("Add", rest, right), rest), False)]


def _floored(state: Lowering, name: str) -> str:
    """From 2**23 on, all fp32 numbers are integers; ONNX Runtime's Floor is wrong at infinity."""
    small = state.builder.one("Less", state.builder.one("Abs", name), state.builder.scalar(2.0**23))
    return state.builder.one("Where", small, state.builder.one("Floor", name), name)


def _integer_division(state: Lowering, op: Op, left: str, right: str) -> List[str]:
    """(quotient, remainder, mask of remainders with the other sign than the divisor); x / 0 counts as x / 1.

    Engines may divide integers in fp32, so the remainder is divided once more; quotients below 2**24 are exact then.
    """
    builder, dtype = state.builder, op.output_descs[0].dtype
    zero, one = (builder.constant(np.array(n, dtype)) for n in (0, 1))
    safe = builder.one("Where", builder.one("Equal", right, zero), one, right)
    guess = builder.one("Div", left, safe)
    quotient = builder.one(
        "Add", guess, builder.one("Div", builder.one("Sub", left, builder.one("Mul", guess, safe)), safe)
    )
    rest = builder.one("Sub", left, builder.one("Mul", quotient, safe))
    signs = builder.one("Xor", builder.one("Less", rest, zero), builder.one("Less", safe, zero))
    return [quotient, rest, builder.one("And", builder.one("Not", builder.one("Equal", rest, zero)), signs)]


def _truncated(state: Lowering, op: Op) -> List[Value]:
    """TruncateDiv and its remainder (Mod, TruncateMod), which has the dividend's sign."""
    builder = state.builder
    left, right = (state.get(source) for source in op.inputs)
    dtype = op.output_descs[0].dtype
    if dtype in INTEGERS:
        quotient, rest, _ = _integer_division(state, op, left, right)
        # If the remainder has the divisor's sign but not the dividend's, the quotient is too large by one.
        zero, one = (builder.constant(np.array(n, dtype)) for n in (0, 1))
        against = builder.one("Xor", builder.one("Less", rest, zero), builder.one("Less", left, zero))
        against = builder.one("And", builder.one("Not", builder.one("Equal", rest, zero)), against)
        sign = builder.one(
            "Where",
            builder.one("Xor", builder.one("Less", left, zero), builder.one("Less", right, zero)),
            one,
            builder.constant(np.array(-1, dtype)),
        )
        step = builder.one("Where", against, sign, zero)
        quotient = builder.one("Add", quotient, step)
        rest = builder.one("Sub", left, builder.one("Mul", quotient, right))
        return [Value(quotient if op.type == "TruncateDiv" else rest, False)]
    ratio = builder.one("Div", left, right)
    size = _floored(state, builder.one("Abs", ratio))
    whole = builder.one("Where", builder.one("Less", ratio, builder.scalar(0.0)), builder.one("Neg", size), size)
    return [Value(builder.one("Sub", left, builder.one("Mul", whole, right)), False)]


def _zero_wins(kind: str, deciding: int) -> Callable[[Lowering, Op], List[Value]]:
    """Xdivy, Xlogy, MulNoNan: 0 if the deciding operand is 0, for any value of the other."""

    def build(state: Lowering, op: Op) -> List[Value]:
        builder = state.builder
        left, right = (state.get(source) for source in op.inputs)
        zero = builder.one("Equal", (left, right)[deciding], builder.scalar(0.0))
        second = builder.one("Log", right) if kind == "Log" else right
        value = builder.one("Div" if kind == "Div" else "Mul", left, second)
        return [Value(builder.one("Where", zero, builder.scalar(0.0), value), False)]

    return build


def _erfc(state: Lowering, op: Op) -> List[Value]:
    (value,) = _follow(state, op, "Erf")
    return [Value(state.builder.one("Sub", state.builder.scalar(1.0), value.name), value.channels_first)]


def _is_finite(state: Lowering, op: Op) -> List[Value]:
    builder, first = state.builder, state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    either = builder.one("Or", builder.one("IsNaN", name), builder.one("IsInf", name))
    return [Value(builder.one("Not", either), first)]


def _not_equal(state: Lowering, op: Op) -> List[Value]:
    (value,) = _binary("Equal")(state, op)
    return [Value(state.builder.one("Not", value.name), value.channels_first)]


def _select(state: Lowering, op: Op) -> List[Value]:
    condition = state.get(op.inputs[0])
    shape = tuple(op.attrs["condition_shape"])
    if shape != op.input_descs[0].logical_shape:
        condition = state.builder.one("Reshape", condition, state.integers(shape))
    return [Value(state.builder.one("Where", condition, *(state.get(source) for source in op.inputs[1:])), False)]


def _cast(state: Lowering, op: Op) -> List[Value]:
    source, target = op.input_descs[0].dtype, op.output_descs[0].dtype
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    if {source, target} <= {"float16", "float32"}:
        return [Value(name, first)]
    if op.inputs[0] in state.doubtful:
        name = state.builder.clear_nan(name)
    return [Value(state.builder.one("Cast", name, to=_ONNX_TYPES[target]), first)]


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "LeakyRelu": _leaky_relu,
    "Relu6": _relu6,
    "Square": _square,
    "Rsqrt": _rsqrt,
    "Cast": _cast,
    "AddN": _sum,
    "ClipByValue": _clip,
    "SquaredDifference": _squared_difference,
    "Log1p": _log1p,
    "Expm1": _expm1,
    "Softplus": _softplus,
    "Sigmoid": _sigmoid,
    "DivNoNan": _div_no_nan,
    "FloorDiv": _floor_divide,
    "FloorMod": _floor_mod,
    "NotEqual": _not_equal,
    "Select": _select,
    "SelectV2": _select,
    "Maximum": _bound("Max"),
    "Minimum": _bound("Min"),
    "Rint": _unary("Round"),
    "LogicalNot": _unary("Not"),
    "Inv": _unary("Reciprocal"),
    "AccumulateNV2": _sum,
    "TruncateDiv": _truncated,
    "Mod": _truncated,
    "TruncateMod": _truncated,
    "Xdivy": _zero_wins("Div", 0),
    "Xlogy": _zero_wins("Log", 0),
    "MulNoNan": _zero_wins("Mul", 1),
    "Erfc": _erfc,
    "IsFinite": _is_finite,
    "IsNan": _unary("IsNaN"),
    "IsInf": _unary("IsInf"),
    **{
        name: _unary(name)
        for name in (
            "Relu Elu Selu Tanh Abs Neg Exp Log Sqrt Floor Ceil Round Sign Softsign Reciprocal Erf Sin Cos Tan Asin "
            "Acos "
            "Atan Sinh Cosh Asinh Acosh Atanh"
        ).split()
    },
    **{
        name: _binary(kind)
        for name, kind in {
            "Add": "Add",
            "Sub": "Sub",
            "Mul": "Mul",
            "RealDiv": "Div",
            "Div": "Div",
            "Pow": "Pow",
            "LogicalAnd": "And",
            "LogicalOr": "Or",
            "Less": "Less",
            "LessEqual": "LessOrEqual",
            "Greater": "Greater",
            "GreaterEqual": "GreaterOrEqual",
            "Equal": "Equal",
        }.items()
    },
}
