# SPDX-License-Identifier: Apache-2.0
"""Functions of one fp16 number by table: exact, and the same on every engine and processor.

Each engine computes exp, erf and similar functions in fp32 with its own errors in the last places, so a result near the
middle of two fp16 numbers may round either way. fp16 has 65 536 numbers: the function is computed once for all of them,
in float64, rounded to fp32 as in the device's vector unit, then to fp16, and looked up. NumPy's float16 functions give
the same. A lookup takes a dozen passes over the tensor; arithmetic that is exact enough in fp32 (square root,
quotients) has no table, nor have the operators of a VoxelMorph graph.
"""

from __future__ import annotations

import math
from typing import Callable, Dict

import numpy as np

from vxm_convert.formats.ge_ir import LEAST_RESULT, Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value
from vxm_convert.sim.numerics import round_to_half

_LEAST = 2.0**-14
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

#: float64 on the values of all fp16 numbers; undefined results are NaN, which becomes 0, or infinite, which saturates.
FUNCTIONS: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Exp": np.exp,
    "Expm1": np.expm1,
    "Log": np.log,
    "Log1p": np.log1p,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tan": np.tan,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asinh": np.arcsinh,
    "Acosh": np.arccosh,
    "Atanh": np.arctanh,
    "Tanh": np.tanh,
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x + 0.0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Selu": lambda x: _SELU_SCALE * np.where(x < 0, _SELU_ALPHA * np.expm1(x), x),
    "Erf": lambda x: np.array([math.erf(value) for value in x]),
    "Erfc": lambda x: np.array([math.erfc(value) for value in x]),
}
_tables: Dict[str, np.ndarray] = {}


def has_table(op: Op) -> bool:
    """Whether an operator is a function with a table, from fp16 to fp16."""
    return op.type in FUNCTIONS and op.input_descs[0].dtype == op.output_descs[0].dtype == "float16"


def table_of(kind: str) -> np.ndarray:
    """float32, (65536,): results indexed by the bits of the fp16 operand, on the fp16 grid. Read-only."""
    if kind not in _tables:
        # Infinities and NaN cannot be operands: they have already been saturated.
        numbers = round_to_half(np.arange(1 << 16, dtype=np.uint16).view(np.float16)).astype(np.float64)
        with np.errstate(all="ignore"):
            _tables[kind] = round_to_half(FUNCTIONS[kind](numbers).astype(np.float32))
    return _tables[kind]


def lower_by_table(state: Lowering, op: Op) -> Value:
    """Look up the operand in its present axis order."""
    first = state.is_first(op.inputs[0])
    index = _bits(state, state.get(op.inputs[0], first))
    table, least = table_of(op.type), op.attrs.get(LEAST_RESULT)
    if least is not None:
        table = np.maximum(table, np.float32(least))
    return Value(state.builder.one("Gather", state.builder.constant(table), index, axis=0), first)


def _bits(state: Lowering, x: str) -> str:
    """int32 bits of an fp16 number stored in fp32; ONNX has no operator for this.

    With e = max(floor(log2 |x|), −14) they are ``1024·(e + 14) + 1024·|x|·2**−e``, and 2**15 more below zero. The
    largest number below a power of two is 7e-4 away from it in log2, so half of that is a safe margin for an inexact
    logarithm.
    """
    builder = state.builder
    size = builder.one("Abs", x)
    power = builder.one(
        "Mul", builder.one("Log", builder.one("Max", size, builder.scalar(_LEAST))), builder.scalar(1 / math.log(2))
    )
    step = builder.one("Floor", builder.one("Add", power, builder.scalar(14 + 3.5e-4)))
    scales = builder.constant(np.ldexp(np.float32(1024), 14 - np.arange(32)).astype(np.float32))
    scale = builder.one("Gather", scales, builder.one("Cast", step, to=6), axis=0)
    bits = builder.one("Add", builder.one("Mul", step, builder.scalar(1024.0)), builder.one("Mul", size, scale))
    below = builder.one(
        "Where", builder.one("Less", x, builder.scalar(0.0)), builder.scalar(32768.0), builder.scalar(0.0)
    )
    return builder.one("Cast", builder.one("Add", bits, below), to=6)
