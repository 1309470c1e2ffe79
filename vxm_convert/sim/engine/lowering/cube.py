# SPDX-License-Identifier: Apache-2.0
"""Cube operators and related ones: operands on the fp16 grid, products added in fp32, one rounding of the sum."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value


def _spatial(op: Op, key: str) -> List[int]:
    """The spatial entries of an attribute that has one per axis."""
    values = list(op.attrs[key])
    return values[2:] if op.attrs.get("data_format") == "NCHW" else values[1:-1]


def _first(op: Op) -> bool:
    """Whether the engine's channels-first order differs from the graph's own."""
    return op.attrs.get("data_format") != "NCHW"


def _kernel(weights: np.ndarray) -> np.ndarray:
    """(spatial…, C, N) → (N, C, spatial…)."""
    rank = weights.ndim
    return weights.transpose((rank - 1, rank - 2) + tuple(range(rank - 2)))


def _conv(state: Lowering, op: Op) -> List[Value]:
    kernel = _kernel(state.weight(op.inputs[1]))
    return [_convolve(state, op, kernel, op.attrs.get("groups") or 1)]


def _depthwise(state: Lowering, op: Op) -> List[Value]:
    """(H, W, C, M): channel c gives channels c·M … c·M + M − 1."""
    weights = state.weight(op.inputs[1])
    height, width, channels, times = weights.shape
    return [_convolve(state, op, weights.transpose(2, 3, 0, 1).reshape(channels * times, 1, height, width), channels)]


def _convolve(state: Lowering, op: Op, kernel: np.ndarray, groups: int) -> Value:
    operands = [state.get(op.inputs[0], _first(op)), state.builder.constant(kernel)]
    operands += [state.builder.constant(state.consts[source].data) for source in op.inputs[2:]]
    pads = op.attrs["pads"]
    name = state.builder.one(
        "Conv",
        *operands,
        strides=_spatial(op, "strides"),
        pads=pads[0::2] + pads[1::2],
        dilations=_spatial(op, "dilations"),
        kernel_shape=list(kernel.shape[2:]),
        **({"group": groups} if groups > 1 else {}),
    )
    return Value(name, _first(op))


def _conv_backprop(state: Lowering, op: Op) -> List[Value]:
    """The gradient of a convolution with respect to its input, which is ONNX's ConvTranspose with that convolution's
    filter.
    """
    kernel = _kernel(state.weight(op.inputs[0]))
    strides, dilations, pads = _spatial(op, "strides"), _spatial(op, "dilations"), op.attrs["pads"]
    small, large = _sides(op.input_descs[1].logical_shape, op), _sides(op.output_descs[0].logical_shape, op)
    # The voxels at the end of an axis that the forward convolution did not reach.
    rest = [
        big - ((n - 1) * stride + (width - 1) * dilation + 1 - before - after)
        for big, n, stride, width, dilation, before, after in zip(
            large, small, strides, kernel.shape[2:], dilations, pads[0::2], pads[1::2]
        )
    ]
    name = state.builder.one(
        "ConvTranspose",
        state.get(op.inputs[1], _first(op)),
        state.builder.constant(kernel),
        strides=strides,
        dilations=dilations,
        pads=pads[0::2] + pads[1::2],
        kernel_shape=list(kernel.shape[2:]),
        output_padding=rest,
    )
    return [Value(name, _first(op))]


def _sides(shape: Tuple[int, ...], op: Op) -> Tuple[int, ...]:
    return shape[2:] if op.attrs.get("data_format") == "NCHW" else shape[1:-1]


def _phase_transpose(state: Lowering, op: Op) -> List[Value]:
    """Made by the rewrite `transposed`: kernel 4, stride 2, padding 1 along every axis."""
    filters = state.builder.constant(state.consts[op.inputs[1]].value.transpose(3, 4, 0, 1, 2))
    name = state.builder.one(
        "ConvTranspose", state.get(op.inputs[0], True), filters, kernel_shape=[4] * 3, strides=[2] * 3, pads=[1] * 6
    )
    return [Value(name, True)]


def _bias_add(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    rank = len(op.output_descs[0].logical_shape)
    channel = 1 if first or op.attrs.get("data_format") == "NCHW" else rank - 1
    shape = (-1,) if channel == rank - 1 else (1, -1) + (1,) * (rank - 2)
    bias = state.consts.get(op.inputs[1])
    if bias is not None:
        operand = state.builder.constant(bias.value.reshape(shape))
    else:
        operand = state.builder.one("Reshape", state.get(op.inputs[1]), state.integers(shape))
    return [Value(state.builder.one("Add", state.get(op.inputs[0], first), operand), first)]


def _batch_norm(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    rank = len(op.output_descs[0].logical_shape)
    channel = 1 if first or op.attrs.get("data_format") == "NCHW" else rank - 1
    shape = (1, -1) + (1,) * (rank - 2) if channel == 1 else (-1,)
    if op.attrs.get("is_training"):
        return [Value(_normalise(state, op, first, [axis for axis in range(rank) if axis != channel], shape), first)]
    scale, offset = (state.builder.constant(state.consts[source].value.reshape(shape)) for source in op.inputs[1:3])
    scaled = state.builder.one("Mul", state.get(op.inputs[0], first), scale)
    return [Value(state.builder.one("Add", scaled, offset), first)]


def _normalise(state: Lowering, op: Op, first: bool, axes: List[int], shape: Tuple[int, ...]) -> str:
    """Uses the mean and variance of the batch itself, all in fp32."""
    builder, x = state.builder, state.get(op.inputs[0], first)
    scale, offset = (builder.one("Reshape", state.get(source), state.integers(shape)) for source in op.inputs[1:3])
    centred = builder.one("Sub", x, builder.one("ReduceMean", x, axes=axes, keepdims=1))
    variance = builder.one("ReduceMean", builder.one("Mul", centred, centred), axes=axes, keepdims=1)
    deviation = builder.one("Sqrt", builder.one("Add", variance, builder.scalar(op.attrs["epsilon"])))
    return builder.one("Add", builder.one("Mul", builder.one("Div", centred, deviation), scale), offset)


def _matmul(state: Lowering, op: Op) -> List[Value]:
    keys = ("transpose_x1", "transpose_x2") if op.type == "MatMulV2" else ("adj_x1", "adj_x2")
    operands = [_turned(state, op, position, bool(op.attrs.get(key))) for position, key in enumerate(keys)]
    name = state.builder.one("MatMul", *operands)
    if len(op.inputs) > 2:
        name = state.builder.one("Add", name, state.get(op.inputs[2]))
    return [Value(name, False)]


def _turned(state: Lowering, op: Op, position: int, turn: bool) -> str:
    name = state.get(op.inputs[position])
    if not turn:
        return name
    rank = len(op.input_descs[position].logical_shape)
    return state.builder.one("Transpose", name, perm=list(range(rank - 2)) + [rank - 1, rank - 2])


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "Conv3D": _conv,
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "Conv2DBackpropInputD": _conv_backprop,
    "Conv3DBackpropInputD": _conv_backprop,
    "ConvTranspose3D": _phase_transpose,
    "BiasAdd": _bias_add,
    "BatchNorm": _batch_norm,
    "MatMulV2": _matmul,
    "BatchMatMul": _matmul,
}
