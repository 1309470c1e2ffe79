# SPDX-License-Identifier: Apache-2.0
"""Compiled graph → ONNX that a CPU engine executes with the 910's rounding.

Convolutions want channels first, the graph has them last. Every value therefore carries the axis order it is in, and
a transposition appears only where a reader needs the other one.
"""
from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from vxm_convert.formats.fractal import unpack_fractal_z_3d
from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.onnx_graph import OnnxBuilder
from vxm_convert.sim.phase import fold_upsampling
from vxm_convert.sim.refusal import AtcRefusal
from vxm_convert.sim.upsampling import find_upsampling

TO_FIRST, TO_LAST = [0, 4, 1, 2, 3], [0, 2, 3, 4, 1]
#: Operators that only move or select values: what goes in on the fp16 grid comes out on it.
EXACT = frozenset(
    "ConcatV2D Reshape TransposeD GatherV2D Unpack Pack TileD SliceD StridedSliceD TransData Maximum Minimum Relu Neg Abs Floor Round "
    "Upsample NetOutput".split()
)


class Value(NamedTuple):
    """An ONNX value: its name and whether a volume has its channels first."""

    name: str
    channels_first: bool


class Lowering:
    """State while walking the operators."""

    def __init__(self, ops: List[Op]) -> None:
        self.builder = OnnxBuilder()
        self.values: Dict[str, Value] = {}
        self.consts = {f"{op.name}:0": op for op in ops if op.data is not None}
        self._turned: Dict[Tuple[str, bool], Value] = {}

    def get(self, tensor: str, channels_first: bool = False) -> str:
        """Name of the value of `tensor` in the wanted axis order."""
        if tensor in self.consts and tensor not in self.values:
            self.values[tensor] = Value(self.builder.constant(self.consts[tensor].data), False)
        value = self.values[tensor]
        if value.channels_first == channels_first:
            return value.name
        key = (value.name, channels_first)
        if key not in self._turned:
            name = self.builder.one("Transpose", value.name, perm=TO_FIRST if channels_first else TO_LAST)
            self._turned[key] = Value(name, channels_first)
        return self._turned[key].name

    def is_first(self, tensor: str) -> bool:
        return tensor in self.values and self.values[tensor].channels_first


def lower(ops: List[Op]) -> Tuple[bytes, List[str], List[str]]:
    """(serialised ONNX, input names, output names); order as the Data and NetOutput operators have it."""
    ops = fold_upsampling(find_upsampling(ops))
    state = Lowering(ops)
    inputs: List[Tuple[str, str, Tuple[int, ...]]] = []
    net_output = ops[-1]
    for op in ops:
        if op.type == "Data":
            desc = op.output_descs[0]
            name = f"input_{len(inputs)}"
            inputs.append((name, desc.dtype, desc.shape))
            state.values[f"{op.name}:0"] = Value(name, False)
        elif op.data is None and op.type != "NetOutput":
            _lower_op(state, op)
    outputs = [
        (state.get(source), f"output_{number}", desc.dtype, desc.logical_shape)
        for number, (source, desc) in enumerate(zip(net_output.inputs, net_output.output_descs))
    ]
    return state.builder.finish(inputs, outputs), [name for name, _, _ in inputs], [name for _, name, _, _ in outputs]


def _lower_op(state: Lowering, op: Op) -> None:
    if op.type not in LOWERINGS:
        raise AtcRefusal("E19999", f"{op.name}: the simulated device has no kernel for {op.type}")
    results = LOWERINGS[op.type](state, op)
    for index, (value, desc) in enumerate(zip(results, op.output_descs)):
        if desc.dtype == "float16" and op.type not in EXACT and not _already_half(op):
            value = Value(state.builder.round_half(value.name), value.channels_first)
        state.values[f"{op.name}:{index}"] = value


def _already_half(op: Op) -> bool:
    return op.type == "Cast" and op.input_descs[0].dtype == "float16"


def _follow(state: Lowering, op: Op, kind: str, **attrs: float) -> List[Value]:
    first = state.is_first(op.inputs[0])
    return [Value(state.builder.one(kind, state.get(op.inputs[0], first), **attrs), first)]


def _unary(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    return lambda state, op: _follow(state, op, kind)


def _binary(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    def build(state: Lowering, op: Op) -> List[Value]:
        shapes = {desc.logical_shape for desc in op.input_descs}
        first = len(shapes) == 1 and any(state.is_first(source) for source in op.inputs)
        return [Value(state.builder.one(kind, *(state.get(source, first) for source in op.inputs)), first)]

    return build


def _bound(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    """Maximum and Minimum. OpenVINO turns an integer bound by one number into an fp32 clamp, which cannot count beyond 2**24;
    written as a vector the bound stays an integer operation."""
    plain = _binary(kind)

    def build(state: Lowering, op: Op) -> List[Value]:
        width = op.output_descs[0].logical_shape[-1:]
        scalars = [source for source in op.inputs if source in state.consts and state.consts[source].data.size == 1]
        if op.output_descs[0].dtype not in ("int32", "int64") or len(scalars) != 1 or not width:
            return plain(state, op)
        vector = state.builder.constant(np.full(width, state.consts[scalars[0]].data.reshape(-1)[0]))
        other = next(source for source in op.inputs if source not in scalars)
        return [Value(state.builder.one(kind, state.get(other), vector), False)]

    return build


def _bias_add(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    bias = state.consts[op.inputs[1]].data
    shape = (1, -1, 1, 1, 1) if first else (-1,)
    return [Value(state.builder.one("Add", state.get(op.inputs[0], first), state.builder.constant(bias.reshape(shape))), first)]


def _leaky_relu(state: Lowering, op: Op) -> List[Value]:
    # The slope is an operand of the kernel and has the kernel's type.
    slope = np.dtype(op.input_descs[0].dtype).type(op.attrs["negative_slope"])
    return _follow(state, op, "LeakyRelu", alpha=float(slope))


def _square(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    return [Value(state.builder.one("Mul", name, name), first)]


def _rsqrt(state: Lowering, op: Op) -> List[Value]:
    root = _follow(state, op, "Sqrt")[0]
    return [Value(state.builder.one("Div", state.builder.scalar(1.0), root.name), root.channels_first)]


def _cast(state: Lowering, op: Op) -> List[Value]:
    source, target = op.input_descs[0].dtype, op.output_descs[0].dtype
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    if {source, target} <= {"float16", "float32"}:
        return [Value(name, first)]
    numbers = {"float32": 1, "float16": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9}
    return [Value(state.builder.one("Cast", name, to=numbers[target]), first)]


def _conv3d(state: Lowering, op: Op) -> List[Value]:
    filters = state.consts[op.inputs[1]]
    desc = filters.output_descs[0]
    dhwcn = filters.data if desc.layout == "DHWCN" else unpack_fractal_z_3d(filters.data, desc.logical_shape).astype(np.float32)
    operands = [state.get(op.inputs[0], True), state.builder.constant(dhwcn.transpose(4, 3, 0, 1, 2))]
    operands += [state.builder.constant(state.consts[source].data) for source in op.inputs[2:]]
    pads = op.attrs["pads"]
    name = state.builder.one(
        "Conv", *operands, strides=op.attrs["strides"][1:4], pads=pads[0::2] + pads[1::2], dilations=op.attrs["dilations"][1:4],
        kernel_shape=list(desc.logical_shape[:3]),
    )
    return [Value(name, True)]


def _conv_transpose(state: Lowering, op: Op) -> List[Value]:
    """Made by `phase`: kernel 4, stride 2, padding 1 along every axis."""
    filters = state.builder.constant(state.consts[op.inputs[1]].data.transpose(3, 4, 0, 1, 2))
    name = state.builder.one(
        "ConvTranspose", state.get(op.inputs[0], True), filters, kernel_shape=[4] * 3, strides=[2] * 3, pads=[1] * 6,
    )
    return [Value(name, True)]


def _concat(state: Lowering, op: Op) -> List[Value]:
    axis = op.attrs["concat_dim"]
    first = len(op.output_descs[0].logical_shape) == 5 and any(state.is_first(source) for source in op.inputs)
    if first:
        axis = {0: 0, 1: 2, 2: 3, 3: 4, 4: 1}[axis]
    return [Value(state.builder.one("Concat", *(state.get(source, first) for source in op.inputs), axis=axis), first)]


def _upsample(state: Lowering, op: Op) -> List[Value]:
    scales = state.builder.constant(np.array([1, 1, 2, 2, 2], np.float32))
    name = state.builder.one(
        "Resize", state.get(op.inputs[0], True), "", scales,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )
    return [Value(name, True)]


def _reshape(state: Lowering, op: Op) -> List[Value]:
    shape = state.builder.constant(np.array(op.output_descs[0].logical_shape, np.int64))
    return [Value(state.builder.one("Reshape", state.get(op.inputs[0]), shape), False)]


def _gather(state: Lowering, op: Op) -> List[Value]:
    return [Value(state.builder.one("Gather", state.get(op.inputs[0]), state.get(op.inputs[1]), axis=op.attrs["axis"]), False)]


def _unpack(state: Lowering, op: Op) -> List[Value]:
    """Split the axis into single slices and drop it; channels may lie first."""
    axis, count = op.attrs["axis"], op.attrs["num"]
    shape = op.input_descs[0].logical_shape
    first = state.is_first(op.inputs[0]) and axis == len(shape) - 1
    source = state.get(op.inputs[0], first)
    where = state.builder.constant(np.array([1 if first else axis], np.int64))
    if count == 1:
        return [Value(state.builder.one("Squeeze", source, where), False)]
    parts = state.builder.node("Split", [source], count, axis=1 if first else axis)
    return [Value(state.builder.one("Squeeze", part, where), False) for part in parts]


def _pack(state: Lowering, op: Op) -> List[Value]:
    where = state.builder.constant(np.array([op.attrs["axis"]], np.int64))
    parts = [state.builder.one("Unsqueeze", state.get(source), where) for source in op.inputs]
    return [Value(state.builder.one("Concat", *parts, axis=op.attrs["axis"]), False)]


def _slice(state: Lowering, op: Op) -> List[Value]:
    offsets, size = np.array(op.attrs["offsets"], np.int64), np.array(op.attrs["size"], np.int64)
    operands = [state.builder.constant(offsets), state.builder.constant(offsets + size)]
    name = state.builder.one("Slice", state.get(op.inputs[0]), *operands)
    shape = op.output_descs[0].logical_shape
    if tuple(size) != shape:
        name = state.builder.one("Reshape", name, state.builder.constant(np.array(shape, np.int64)))
    return [Value(name, False)]


def _transpose(state: Lowering, op: Op) -> List[Value]:
    return [Value(state.builder.one("Transpose", state.get(op.inputs[0]), perm=op.attrs["perm"]), False)]


def _tile(state: Lowering, op: Op) -> List[Value]:
    repeats = state.builder.constant(np.array(op.attrs["multiples"], np.int64))
    return [Value(state.builder.one("Tile", state.get(op.inputs[0]), repeats), False)]


def _trans_data(state: Lowering, op: Op) -> List[Value]:
    """A layout of the device; the engine keeps its own."""
    return [state.values.get(op.inputs[0]) or Value(state.get(op.inputs[0]), False)]


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "Conv3D": _conv3d, "BiasAdd": _bias_add, "LeakyRelu": _leaky_relu, "Square": _square, "Rsqrt": _rsqrt, "Cast": _cast,
    "ConcatV2D": _concat, "Reshape": _reshape, "GatherV2D": _gather, "Unpack": _unpack, "Pack": _pack, "SliceD": _slice,
    "StridedSliceD": _slice,
    "TransposeD": _transpose, "TileD": _tile, "TransData": _trans_data, "Upsample": _upsample,
    "ConvTranspose3D": _conv_transpose,
    **{name: _unary(name) for name in "Relu Elu Sigmoid Tanh Abs Neg Exp Sqrt Floor Round".split()},
    **{name: _binary(kind) for name, kind in {
        "Add": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div",
    }.items()},
    "Maximum": _bound("Max"), "Minimum": _bound("Min"),
}
