# SPDX-License-Identifier: Apache-2.0
"""Reductions, softmax, arg-max: computed in fp32 on the operands' values and rounded once, as the kernels do."""

from __future__ import annotations

from typing import Callable, Dict, List

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value


def _reduce(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    def build(state: Lowering, op: Op) -> List[Value]:
        name, axes, keep = state.get(op.inputs[0]), list(op.attrs["axes"]), int(op.attrs["keep_dims"])
        if not axes:
            return [Value(name, False)]
        if kind == "ReduceSum":
            return [Value(state.builder.one(kind, name, state.integers(axes), keepdims=keep), False)]
        return [Value(state.builder.one(kind, name, axes=axes, keepdims=keep), False)]

    return build


def _truth(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    """All is the minimum of 0 and 1, Any the maximum."""

    def build(state: Lowering, op: Op) -> List[Value]:
        numbers = state.builder.one("Cast", state.get(op.inputs[0]), to=1)
        if op.attrs["axes"]:
            numbers = state.builder.one(kind, numbers, axes=list(op.attrs["axes"]), keepdims=int(op.attrs["keep_dims"]))
        return [Value(state.builder.one("Cast", numbers, to=9), False)]

    return build


def _softmax(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    return lambda state, op: [Value(state.builder.one(kind, state.get(op.inputs[0]), axis=-1), False)]


def _arg(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    """Takes the first of equal values."""

    def build(state: Lowering, op: Op) -> List[Value]:
        name = state.builder.one(kind, state.get(op.inputs[0]), axis=op.attrs["dimension"], keepdims=0)
        return [Value(state.builder.one("Cast", name, to=6 if op.output_descs[0].dtype == "int32" else 7), False)]

    return build


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "ReduceMeanD": _reduce("ReduceMean"),
    "ReduceSumD": _reduce("ReduceSum"),
    "ReduceMaxD": _reduce("ReduceMax"),
    "ReduceMinD": _reduce("ReduceMin"),
    "ReduceProdD": _reduce("ReduceProd"),
    "SoftmaxV2": _softmax("Softmax"),
    "ReduceAllD": _truth("ReduceMin"),
    "ReduceAnyD": _truth("ReduceMax"),
    "LogSoftmaxV2": _softmax("LogSoftmax"),
    "ArgMaxD": _arg("ArgMax"),
    "ArgMinD": _arg("ArgMin"),
}
