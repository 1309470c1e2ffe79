# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that do not assume images: activations, comparisons, matrix products, reductions, selection and
padding.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from vxm_convert.sim.frontends.onnx.ops import OnnxNode, Translator, binary, unary
from vxm_convert.sim.refusal import AtcRefusal

Handler = Callable[[Translator, OnnxNode], None]


#: Wider than any border; larger widths come from damaged files and are refused.
MAX_PAD = 1 << 16


def _refuse(node: OnnxNode, why: str) -> AtcRefusal:
    return AtcRefusal("E20001", f"{node.name} ({node.type}): {why}")


def _ints(made: Translator, node: OnnxNode, position: int, key: str) -> Optional[List[int]]:
    """An attribute of old opsets that is a constant operand in new ones."""
    if node.attrs.get(key) is not None:
        return [int(n) for n in np.atleast_1d(node.attrs[key])]
    value = made.const(node, position)
    return None if value is None else [int(n) for n in value.reshape(-1)]


def _number(made: Translator, node: OnnxNode, value: float) -> str:
    return made.constant(f"{node.name}/number", np.float32(value))


def _scaled(made: Translator, node: OnnxNode, tensor: str, factor: float, op: str = "Mul") -> str:
    return made.emit(op, node.name, [tensor, _number(made, node, factor)])


def _elu(made: Translator, node: OnnxNode) -> None:
    alpha = float(node.attrs.get("alpha", 1.0))
    if alpha == 1.0:
        unary("Elu")(made, node)
        return
    order = made.order(node.inputs[0], len(made.shape(node.inputs[0], node)))
    source = made.get(node.inputs[0], order)
    below = made.emit("Elu", node.name, [_scaled(made, node, source, 0.0, "Minimum")])
    made.put(
        node,
        made.emit("AddV2", node.name, [made.emit("Relu", node.name, [source]), _scaled(made, node, below, alpha)]),
        order,
    )


def _selu(made: Translator, node: OnnxNode) -> None:
    if (
        abs(node.attrs.get("alpha", 1.6732632) - 1.6732632) > 1e-5
        or abs(node.attrs.get("gamma", 1.050701) - 1.050701) > 1e-5
    ):
        raise _refuse(node, "alpha and gamma other than the usual ones are not supported")
    unary("Selu")(made, node)


def _hard(made: Translator, node: OnnxNode) -> None:
    """HardSigmoid ``clip(alpha · x + beta, 0, 1)``; HardSwish is x times that."""
    swish = node.type == "HardSwish"
    alpha, beta = (1 / 6, 0.5) if swish else (node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5))
    order = made.order(node.inputs[0], len(made.shape(node.inputs[0], node)))
    source = made.get(node.inputs[0], order)
    tensor = _scaled(made, node, _scaled(made, node, source, float(alpha)), float(beta), "AddV2")
    tensor = _scaled(made, node, _scaled(made, node, tensor, 0.0, "Maximum"), 1.0, "Minimum")
    made.put(node, made.emit("Mul", node.name, [source, tensor]) if swish else tensor, order)


def _prelu(made: Translator, node: OnnxNode) -> None:
    source = made.get(node.inputs[0])
    below = made.emit("Mul", node.name, [_scaled(made, node, source, 0.0, "Minimum"), made.get(node.inputs[1])])
    made.put(node, made.emit("AddV2", node.name, [made.emit("Relu", node.name, [source]), below]))


def _mean(made: Translator, node: OnnxNode) -> None:
    binary("AddV2")(made, node)
    value = made.values[node.outputs[0]]
    made.put(node, _scaled(made, node, value.tensor, 1 / len(node.inputs)), value.order)


def _mod(made: Translator, node: OnnxNode) -> None:
    binary("Mod" if node.attrs.get("fmod") else "FloorMod")(made, node)


def _xor(made: Translator, node: OnnxNode) -> None:
    binary("NotEqual")(made, node)


def _where(made: Translator, node: OnnxNode) -> None:
    made.put(node, made.emit("SelectV2", node.name, [made.get(name) for name in node.inputs]))


def _softmax(made: Translator, node: OnnxNode) -> None:
    """Along one axis; before opset 13 along all from an axis on."""
    shape = made.shape(node.inputs[0], node)
    if made.opset < 13:
        axis = node.attrs.get("axis", 1) % len(shape)
        rows = made.constant(f"{node.name}/rows", np.int32([int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))]))
        flat = made.emit(
            node.type, node.name, [made.emit("Reshape", f"{node.name}/flat", [made.get(node.inputs[0]), rows])]
        )
        made.put(
            node,
            made.emit("Reshape", f"{node.name}/back", [flat, made.constant(f"{node.name}/shape", np.int32(shape))]),
        )
        return
    axis = node.attrs.get("axis", -1) % len(shape)
    order = tuple(len(shape) - 1 if k == axis else k - (k > axis) for k in range(len(shape)))
    made.put(node, made.emit(node.type, node.name, [made.get(node.inputs[0], order)]), order)


def _gemm(made: Translator, node: OnnxNode) -> None:
    """``alpha · A' · B' + beta · C``."""
    tensor = made.emit(
        "MatMul",
        node.name,
        [made.get(node.inputs[0]), made.get(node.inputs[1])],
        transpose_a=bool(node.attrs.get("transA")),
        transpose_b=bool(node.attrs.get("transB")),
    )
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    if alpha != 1.0:
        tensor = _scaled(made, node, tensor, alpha)
    if len(node.inputs) > 2 and node.inputs[2]:
        offset = made.get(node.inputs[2])
        tensor = made.emit("AddV2", node.name, [tensor, offset if beta == 1.0 else _scaled(made, node, offset, beta)])
    made.put(node, tensor)


def _matmul(made: Translator, node: OnnxNode) -> None:
    ranks = [len(made.shape(name, node)) for name in node.inputs]
    if min(ranks) < 2:
        raise _refuse(node, f"operands of ranks {ranks}; a vector needs an Unsqueeze")
    made.put(
        node,
        made.emit(
            "MatMul" if ranks == [2, 2] else "BatchMatMulV2", node.name, [made.get(name) for name in node.inputs]
        ),
    )


def _reduce(op: str, before: str = "", after: str = "") -> Handler:
    """A reduction, with a function of the elements before it and one of the result after it."""

    def build(made: Translator, node: OnnxNode) -> None:
        rank = len(made.shape(node.inputs[0], node))
        axes = _ints(made, node, 1, "axes")
        tensor = made.get(node.inputs[0])
        tensor = made.emit(before, f"{node.name}/{before}", [tensor]) if before else tensor
        if axes or not node.attrs.get("noop_with_empty_axes"):
            where = made.constant(
                f"{node.name}/axes", np.int32([axis % rank for axis in axes] if axes else range(rank))
            )
            tensor = made.emit(op, node.name, [tensor, where], keep_dims=bool(node.attrs.get("keepdims", 1)))
        tensor = made.emit(after, f"{node.name}/{after}", [tensor]) if after else tensor
        made.put(node, tensor)

    return build


def _arg(made: Translator, node: OnnxNode) -> None:
    if node.attrs.get("select_last_index"):
        raise _refuse(node, "select_last_index is not supported")
    axis = made.constant(f"{node.name}/axis", np.int32(node.attrs.get("axis", 0)))
    tensor = made.emit(node.type, node.name, [made.get(node.inputs[0]), axis], output_type="int64")
    shape = made.constant(f"{node.name}/shape", np.int32(made.shape(node.outputs[0], node)))
    made.put(node, made.emit("Reshape", f"{node.name}/keep", [tensor, shape]))


def _top(made: Translator, node: OnnxNode) -> None:
    shape = made.shape(node.inputs[0], node)
    axis, count = node.attrs.get("axis", -1) % len(shape), made.const(node, 1)
    if count is None or not node.attrs.get("largest", 1):
        raise _refuse(node, "expected a constant count, and the largest values")
    order = tuple(len(shape) - 1 if k == axis else k - (k > axis) for k in range(len(shape)))
    number = made.constant(f"{node.name}/k", np.int32(count.reshape(-1)[0]))
    tensor = made.emit("TopKV2", node.name, [made.get(node.inputs[0], order), number])
    made.put(node, tensor, order)
    if len(node.outputs) > 1 and node.outputs[1]:
        made.put(node, made.emit("Cast", f"{node.name}/places", [f"{tensor}:1"], DstT="int64"), order, 1)


def _cumsum(made: Translator, node: OnnxNode) -> None:
    axis = _ints(made, node, 1, "axis")
    if axis is None:
        raise _refuse(node, "expected a constant axis")
    operands = [made.get(node.inputs[0]), made.constant(f"{node.name}/axis", np.int32(axis[0]))]
    flags = {key: bool(node.attrs.get(key)) for key in ("exclusive", "reverse")}
    made.put(node, made.emit("Cumsum", node.name, operands, **flags))


def _slice(made: Translator, node: OnnxNode) -> None:
    """Operands, or attributes before opset 10; any steps."""
    shape = made.shape(node.inputs[0], node)
    starts, ends = _ints(made, node, 1, "starts"), _ints(made, node, 2, "ends")
    if starts is None or ends is None:
        raise _refuse(node, "expected constant starts and ends")
    axes, steps = _ints(made, node, 3, "axes"), _ints(made, node, 4, "steps")
    axes = list(range(len(starts))) if axes is None else axes
    plan = [(0, side, 1) for side in shape]
    for position, axis in enumerate(axes):
        step = steps[position] if steps else 1
        plan[axis] = slice(starts[position], ends[position], step).indices(shape[axis])
    # Backwards past the first element ends "nowhere", which only the mask can express.
    open_end = sum(1 << axis for axis, (_, stop, step) in enumerate(plan) if step < 0 and stop < 0)
    parts = [
        made.constant(f"{node.name}/{key}", np.int32([entry[k] for entry in plan]))
        for k, key in enumerate(("begin", "end", "steps"))
    ]
    made.put(node, made.emit("StridedSlice", node.name, [made.get(node.inputs[0])] + parts, end_mask=open_end))


def _pad(made: Translator, node: OnnxNode) -> None:
    shape, mode = made.shape(node.inputs[0], node), node.attrs.get("mode", b"constant")
    mode = mode.decode("utf-8", "replace") if isinstance(mode, bytes) else mode
    pads = _ints(made, node, 1, "pads")
    if (
        pads is None
        or len(pads) != 2 * len(shape)
        or min(pads) < 0
        or max(pads) > MAX_PAD
        or mode not in ("constant", "reflect", "edge")
    ):
        raise _refuse(node, f"pads {pads} in mode {mode} for shape {shape}; expected constant widths of 0 to {MAX_PAD}")
    value = made.const(node, 2)
    filler = np.asarray(node.attrs.get("value", 0.0) if value is None else value.reshape(-1)[0])
    tensor = made.get(node.inputs[0])
    if mode == "edge":
        for axis, side in enumerate(shape):
            before, after = pads[axis], pads[axis + len(shape)]
            if before or after:
                places = np.clip(np.arange(-before, side + after), 0, side - 1).astype(np.int32)
                tensor = _take(made, node, tensor, places, axis)
        made.put(node, tensor)
        return
    table = made.constant(f"{node.name}/pads", np.int32([[pads[i], pads[i + len(shape)]] for i in range(len(shape))]))
    if mode == "reflect":
        made.put(node, made.emit("MirrorPad", node.name, [tensor, table], mode="REFLECT"))
    else:
        made.put(
            node,
            made.emit(
                "PadV2", node.name, [tensor, table, made.constant(f"{node.name}/filler", filler.astype(np.float32))]
            ),
        )


def _take(made: Translator, node: OnnxNode, tensor: str, places: np.ndarray, axis: int) -> str:
    operands = [
        tensor,
        made.constant(f"{node.name}/places", places),
        made.constant(f"{node.name}/axis", np.int32(axis)),
    ]
    return made.emit("GatherV2", node.name, operands)


def _gather(made: Translator, node: OnnxNode) -> None:
    """Negative constant indices count from the end, which TensorFlow's Gather does not support."""
    axis = node.attrs.get("axis", 0) % len(made.shape(node.inputs[0], node))
    side, known = made.shape(node.inputs[0], node)[axis], made.consts.get(node.inputs[1])
    if known is None:
        indices = made.get(node.inputs[1])
    else:
        indices = made.constant(f"{node.name}/places", np.where(known < 0, known + side, known).astype(known.dtype))
    operands = [made.get(node.inputs[0]), indices, made.constant(f"{node.name}/axis", np.int32(axis))]
    made.put(node, made.emit("GatherV2", node.name, operands))


def _gather_elements(made: Translator, node: OnnxNode) -> None:
    """The operand gives the index of one axis, the position in the result all others: a GatherNd."""
    shape, target = made.shape(node.inputs[0], node), made.shape(node.outputs[0], node)
    axis, known = node.attrs.get("axis", 0) % len(shape), made.consts.get(node.inputs[1])
    if known is not None:
        given = made.constant(
            f"{node.name}/given", np.where(known < 0, known + shape[axis], known).astype(np.int32)[..., None]
        )
    else:
        cast = made.emit("Cast", f"{node.name}/whole", [made.get(node.inputs[1])], DstT="int32")
        given = made.emit(
            "Reshape", f"{node.name}/last", [cast, made.constant(f"{node.name}/shape", np.int32(target + (1,)))]
        )
    parts = []
    for other in range(len(shape)):
        row = np.arange(target[other], dtype=np.int32).reshape([-1 if k == other else 1 for k in range(len(shape))])
        places = np.broadcast_to(row, target)
        parts.append(
            given
            if other == axis
            else made.constant(f"{node.name}/axis_{other}", np.ascontiguousarray(places)[..., None])
        )
    if len(parts) > 1:
        given = made.emit(
            "ConcatV2", f"{node.name}/index", parts + [made.constant(f"{node.name}/join", np.int32(-1))], N=len(parts)
        )
    made.put(node, made.emit("GatherNd", node.name, [made.get(node.inputs[0]), given]))


def _gather_nd(made: Translator, node: OnnxNode) -> None:
    if node.attrs.get("batch_dims"):
        raise _refuse(node, "batch_dims is not supported")
    made.put(node, made.emit("GatherNd", node.name, [made.get(node.inputs[0]), made.get(node.inputs[1])]))


def _scatter_nd(made: Translator, node: OnnxNode) -> None:
    """Rows are replaced: old ones are masked out, new ones are scattered into zeros and added."""
    indices, shape = made.const(node, 1), made.shape(node.inputs[0], node)
    reduction = node.attrs.get("reduction", b"none")
    rows = np.empty((0, 1)) if indices is None else indices.reshape(-1, indices.shape[-1])
    if indices is None or reduction not in (b"none", "none") or len(np.unique(rows, axis=0)) != len(rows):
        raise _refuse(node, "expected constant indices, each index once, and no reduction")
    places = np.where(indices < 0, indices + np.array(shape[: indices.shape[-1]]), indices)
    mask = np.ones(shape, np.float32)
    mask[tuple(np.moveaxis(places, -1, 0))] = 0
    kept = made.emit("Mul", f"{node.name}/kept", [made.get(node.inputs[0]), made.constant(f"{node.name}/mask", mask)])
    operands = [made.constant(f"{node.name}/places", places.astype(np.int32)), made.get(node.inputs[2])]
    new = made.emit("ScatterNd", f"{node.name}/new", operands + [made.constant(f"{node.name}/shape", np.int32(shape))])
    made.put(node, made.emit("AddV2", node.name, [kept, new]))


def _one_hot(made: Translator, node: OnnxNode) -> None:
    depth, values = made.const(node, 1), made.const(node, 2)
    if depth is None or values is None:
        raise _refuse(node, "expected a constant depth and constant values")
    count, known = int(depth.reshape(-1)[0]), made.consts.get(node.inputs[0])
    # Shape inference does not know the depth.
    shape = list(made.shape(node.inputs[0], node))
    axis = int(node.attrs.get("axis", -1)) % (len(shape) + 1)
    made.shapes.setdefault(node.outputs[0], tuple(shape[:axis] + [count] + shape[axis:]))
    source = made.get(node.inputs[0])
    if known is not None:
        source = made.constant(f"{node.name}/indices", np.where(known < 0, known + count, known))
    consts: Sequence[Any] = (np.int32(count), values[1], values[0])
    operands = [source] + [
        made.constant(f"{node.name}/{key}", value) for key, value in zip(("depth", "on", "off"), consts)
    ]
    made.put(node, made.emit("OneHot", node.name, operands, axis=axis))


HANDLERS: Dict[str, Handler] = {
    "Elu": _elu,
    "Selu": _selu,
    "HardSigmoid": _hard,
    "HardSwish": _hard,
    "PRelu": _prelu,
    "Mean": _mean,
    "Mod": _mod,
    "Xor": _xor,
    "Where": _where,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceMean": _reduce("Mean"),
    "ReduceSum": _reduce("Sum"),
    "ReduceMax": _reduce("Max"),
    "ReduceMin": _reduce("Min"),
    "ReduceProd": _reduce("Prod"),
    "ReduceL1": _reduce("Sum", "Abs"),
    "ReduceL2": _reduce("Sum", "Square", "Sqrt"),
    "ReduceSumSquare": _reduce("Sum", "Square"),
    "ReduceLogSum": _reduce("Sum", "", "Log"),
    "ReduceLogSumExp": _reduce("Sum", "Exp", "Log"),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "TopK": _top,
    "CumSum": _cumsum,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    **{
        name: unary(name)
        for name in "Log Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Reciprocal Ceil Sign Softplus "
        "Softsign".split()
    },
    "Not": unary("LogicalNot"),
    "IsNaN": unary("IsNan"),
    **{
        name: binary(op)
        for name, op in {
            "Pow": "Pow",
            "And": "LogicalAnd",
            "Or": "LogicalOr",
            "Equal": "Equal",
            "Less": "Less",
            "LessOrEqual": "LessEqual",
            "Greater": "Greater",
            "GreaterOrEqual": "GreaterEqual",
            "Sum": "AddV2",
        }.items()
    },
}
