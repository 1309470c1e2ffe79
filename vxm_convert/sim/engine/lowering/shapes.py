# SPDX-License-Identifier: Apache-2.0
"""Operators that move values and never change them."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

import numpy as np
from onnx import TensorProto

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value, axis_in
from vxm_convert.sim.numerics import to_half


def _concat(state: Lowering, op: Op) -> List[Value]:
    rank = len(op.output_descs[0].logical_shape)
    first = rank in (4, 5) and (any(state.is_first(source) for source in op.inputs) or _joins_channels(state, op, rank))
    axis = axis_in(op.attrs["concat_dim"], rank, first)
    return [Value(state.builder.one("Concat", *(state.get(source, first) for source in op.inputs), axis=axis), first)]


def _joins_channels(state: Lowering, op: Op, rank: int) -> bool:
    """Images of one channel are joined with channels first: as whole images, not number by number."""
    narrow = all(desc.logical_shape[-1] == 1 for desc in op.input_descs)
    return "channels" in state.settings.rewrites and narrow and op.attrs["concat_dim"] == rank - 1


def _interleave(state: Lowering, op: Op) -> List[Value]:
    """Made by the rewrites `phases` and `lanes`: groups of channels become neighbouring voxels, the last axis fastest."""
    builder, factors, shape = state.builder, op.attrs["factors"], op.output_descs[0].logical_shape
    small = [side // factor for side, factor in zip(shape[1:4], factors)]
    wide = [factor for factor in factors if factor > 1]
    split = builder.one("Reshape", state.get(op.inputs[0], True), state.integers([shape[0], *wide, shape[4], *small]))
    perm, used = [0, len(wide) + 1], 0
    for axis, factor in enumerate(factors):
        perm.append(len(wide) + 2 + axis)
        if factor > 1:
            used += 1
            perm.append(used)
    turned = builder.one("Transpose", split, perm=perm)
    return [Value(builder.one("Reshape", turned, state.integers([shape[0], shape[4], *shape[1:4]])), True)]


def _upsample(state: Lowering, op: Op) -> List[Value]:
    scales = state.builder.constant(np.array([1, 1, 2, 2, 2], np.float32))
    name = state.builder.one(
        "Resize",
        state.get(op.inputs[0], True),
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return [Value(name, True)]


def _reshape(state: Lowering, op: Op) -> List[Value]:
    return [Value(_shaped(state, state.get(op.inputs[0]), op.output_descs[0].logical_shape), False)]


def _shaped(state: Lowering, name: str, shape: Tuple[int, ...]) -> str:
    """OpenVINO does not accept an empty list as the shape of a scalar; all axes are squeezed instead."""
    return state.builder.one("Reshape", name, state.integers(shape)) if shape else state.builder.one("Squeeze", name)


def _gather(state: Lowering, op: Op) -> List[Value]:
    if op.attrs.get("batch_dims"):
        return [Value(_gather_in_batches(state, op), False)]
    return [
        Value(
            state.builder.one("Gather", state.get(op.inputs[0]), state.get(op.inputs[1]), axis=op.attrs["axis"]), False
        )
    ]


def _gather_in_batches(state: Lowering, op: Op) -> str:
    """(batch…, outer…, axis, inner…) and (batch…, picks…): one Gather over the rows of all batches, numbered
    consecutively.
    """
    builder, axis, batch = state.builder, op.attrs["axis"], op.attrs["batch_dims"]
    source, indices = (desc.logical_shape for desc in op.input_descs)
    count, outer, picks = int(np.prod(source[:batch])), axis - batch, len(indices) - batch
    forward = list(range(batch)) + [axis] + list(range(batch, axis)) + list(range(axis + 1, len(source)))
    rows = builder.one("Transpose", state.get(op.inputs[0]), perm=forward)
    rest = source[batch:axis] + source[axis + 1 :]
    rows = builder.one("Reshape", rows, state.integers((count * source[axis],) + rest))
    starts = np.arange(count, dtype=np.int64).reshape(source[:batch] + (1,) * picks) * source[axis]
    places = builder.one("Add", builder.one("Cast", state.get(op.inputs[1]), to=7), builder.constant(starts))
    found = builder.one("Gather", rows, places, axis=0)
    # (batch…, picks…, outer…, inner…) → (batch…, outer…, picks…, inner…)
    middle = list(range(batch + picks, batch + picks + outer)) + list(range(batch, batch + picks))
    total = batch + picks + len(rest)
    return builder.one("Transpose", found, perm=list(range(batch)) + middle + list(range(batch + picks + outer, total)))


def _gather_nd(state: Lowering, op: Op) -> List[Value]:
    indices = state.builder.one("Cast", state.get(op.inputs[1]), to=7)
    return [Value(state.builder.one("GatherND", state.get(op.inputs[0]), indices), False)]


def _scatter_nd(state: Lowering, op: Op) -> List[Value]:
    """Rows with the same index are added first: ONNX's ScatterND of this opset keeps only one of them."""
    if op.inputs[0] not in state.consts:
        return _scatter_computed(state, op)
    desc, indices = op.output_descs[0], np.asarray(state.consts[op.inputs[0]].data, np.int64)
    rest = desc.logical_shape[indices.shape[-1] :]
    rows, back = np.unique(indices.reshape(-1, indices.shape[-1]), axis=0, return_inverse=True)
    back = np.asarray(back).reshape(-1)
    updates = state.builder.one("Reshape", state.get(op.inputs[1]), state.integers((len(back),) + rest))
    # Round k holds the k-th value of every index, or a zero.
    order = np.argsort(back, kind="stable")
    rank = np.zeros(len(back), np.int64)
    rank[order] = np.arange(len(back)) - np.searchsorted(back[order], back[order])
    padded = updates
    if len(rows) != len(back):
        zero = state.builder.constant(np.zeros((1,) + rest, desc.dtype))
        padded = state.builder.one("Concat", updates, zero, axis=0)
    total = ""
    for number in range(int(rank.max()) + 1):
        places = np.full(len(rows), len(back), np.int64)
        places[back[rank == number]] = np.nonzero(rank == number)[0]
        part = state.builder.one("Gather", padded, state.integers(places), axis=0)
        total = state.builder.one("Add", total, part) if total else part
    zeros = state.builder.constant(np.zeros(desc.logical_shape, desc.dtype))
    return [Value(state.builder.one("ScatterND", zeros, state.integers(rows), total), False)]


def _scatter_computed(state: Lowering, op: Op) -> List[Value]:
    """Indices that the graph computes: every one is compared with every place, and the hits are summed. An index outside
    the tensor hits nothing.
    """
    builder, desc = state.builder, op.output_descs[0]
    given, depth = op.input_descs[0].logical_shape, op.input_descs[0].logical_shape[-1]
    sides, rest = desc.logical_shape[:depth], desc.logical_shape[depth:]
    count, places, width = int(np.prod(given[:-1])), int(np.prod(sides)), int(np.prod(rest))
    table = builder.one("Reshape", state.get(op.inputs[0]), state.integers((count, depth)))
    flat = ""
    for axis, side in enumerate(sides):
        column = builder.one("Gather", table, state.integers(axis), axis=1)
        column = builder.one("Cast", column, to=TensorProto.INT64)
        clipped = builder.one("Max", builder.one("Min", column, state.integers(side - 1)), state.integers(0))
        # Outside along any axis: far below every place.
        lost = builder.one(
            "Where", builder.one("Equal", column, clipped), state.integers(0), state.integers(-(1 << 40))
        )
        step = builder.one("Mul", clipped, state.integers(int(np.prod(sides[axis + 1 :]))))
        part = builder.one("Add", step, lost)
        flat = builder.one("Add", flat, part) if flat else part
    numbers = state.integers(np.arange(places).reshape(places, 1))
    hit = builder.one("Equal", builder.one("Unsqueeze", flat, state.integers([0])), numbers)
    rows = builder.one("Reshape", state.get(op.inputs[1]), state.integers((1, count, width)))
    chosen = builder.one(
        "Where", builder.one("Unsqueeze", hit, state.integers([2])), rows, builder.constant(np.zeros((), desc.dtype))
    )
    total = builder.one("ReduceSum", chosen, state.integers([1]), keepdims=0)
    return [Value(builder.one("Reshape", total, state.integers(desc.logical_shape)), False)]


def _one_hot(state: Lowering, op: Op) -> List[Value]:
    """An index outside the depth, including negative ones, sets no "on" value."""
    builder, axis = state.builder, op.attrs["axis"]
    shape = [1] * len(op.output_descs[0].logical_shape)
    shape[axis] = op.attrs["depth"]
    numbers = builder.constant(np.arange(op.attrs["depth"], dtype=op.input_descs[0].dtype).reshape(shape))
    hit = builder.one("Equal", builder.one("Unsqueeze", state.get(op.inputs[0]), state.integers([axis])), numbers)
    return [Value(builder.one("Where", hit, state.get(op.inputs[1]), state.get(op.inputs[2])), False)]


def _unpack(state: Lowering, op: Op) -> List[Value]:
    """Split the axis into single slices and drop it; channels may lie first."""
    axis, count = op.attrs["axis"], op.attrs["num"]
    shape = op.input_descs[0].logical_shape
    first = state.is_first(op.inputs[0]) and axis == len(shape) - 1
    source = state.get(op.inputs[0], first)
    where = state.integers([1 if first else axis])
    if count == 1:
        return [Value(state.builder.one("Squeeze", source, where), False)]
    parts = state.builder.node("Split", [source], count, axis=1 if first else axis)
    return [Value(state.builder.one("Squeeze", part, where), False) for part in parts]


def _pack(state: Lowering, op: Op) -> List[Value]:
    where = state.integers([op.attrs["axis"]])
    parts = [state.builder.one("Unsqueeze", state.get(source), where) for source in op.inputs]
    return [Value(state.builder.one("Concat", *parts, axis=op.attrs["axis"]), False)]


def _split(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    source = state.get(op.inputs[0], first)
    if len(op.output_descs) == 1:
        return [Value(source, first)]
    axis = axis_in(op.attrs["split_dim"], len(op.input_descs[0].logical_shape), first)
    parts = state.builder.node(
        "Split", [source, state.integers(op.attrs["size_splits"])], len(op.output_descs), axis=axis
    )
    return [Value(part, first) for part in parts]


def _slice(state: Lowering, op: Op) -> List[Value]:
    offsets, size = np.array(op.attrs["offsets"], np.int64), np.array(op.attrs["size"], np.int64)
    steps = np.array(op.attrs.get("strides") or [1] * len(size), np.int64)
    # Backwards to the first element: ONNX would read an end of -1 as "before the last".
    ends = np.where((steps < 0) & (offsets + size * steps < 0), -(1 << 31), offsets + size * steps)
    if len(size) == 0:
        return [Value(state.get(op.inputs[0]), False)]
    operands = [state.builder.constant(offsets), state.builder.constant(ends)]
    if (steps != 1).any():
        operands += [state.integers(range(len(size))), state.builder.constant(steps)]
    name = state.builder.one("Slice", state.get(op.inputs[0]), *operands)
    shape = op.output_descs[0].logical_shape
    if tuple(size) != shape:
        name = _shaped(state, name, shape)
    return [Value(name, False)]


def _transpose(state: Lowering, op: Op) -> List[Value]:
    return [Value(state.builder.one("Transpose", state.get(op.inputs[0]), perm=op.attrs["perm"]), False)]


def _tile(state: Lowering, op: Op) -> List[Value]:
    repeats = state.integers(op.attrs["multiples"])
    return [Value(state.builder.one("Tile", state.get(op.inputs[0]), repeats), False)]


def _broadcast_to(state: Lowering, op: Op) -> List[Value]:
    return [
        Value(
            state.builder.one("Expand", state.get(op.inputs[0]), state.integers(op.output_descs[0].logical_shape)),
            False,
        )
    ]


def _pad(state: Lowering, op: Op) -> List[Value]:
    widths, dtype = op.attrs["paddings"], op.output_descs[0].dtype
    value = np.array(op.attrs.get("constant_values", 0.0))
    filler = state.builder.constant(to_half(value) if dtype == "float16" else value.astype(dtype))
    pads = state.integers(widths[0::2] + widths[1::2])
    return [Value(state.builder.one("Pad", state.get(op.inputs[0]), pads, filler, mode="constant"), False)]


def _mirror_pad(state: Lowering, op: Op) -> List[Value]:
    """Uses indices, axis by axis: ONNX has no symmetric mode."""
    name, widths = state.get(op.inputs[0]), op.attrs["paddings"]
    for axis, side in enumerate(op.input_descs[0].logical_shape):
        before, after = widths[2 * axis : 2 * axis + 2]
        if before or after:
            order = np.pad(
                np.arange(side), (before, after), "reflect" if op.attrs["mode"] == "REFLECT" else "symmetric"
            )
            name = state.builder.one("Gather", name, state.integers(order), axis=axis)
    return [Value(name, False)]


def _trans_data(state: Lowering, op: Op) -> List[Value]:
    """A layout of the device; the engine uses its own."""
    return [state.values.get(op.inputs[0]) or Value(state.get(op.inputs[0]), False)]


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "ConcatV2D": _concat,
    "ConcatD": _concat,
    "Reshape": _reshape,
    "GatherV2D": _gather,
    "GatherNd": _gather_nd,
    "Unpack": _unpack,
    "Pack": _pack,
    "SliceD": _slice,
    "StridedSliceD": _slice,
    "TransposeD": _transpose,
    "TileD": _tile,
    "TransData": _trans_data,
    "Upsample": _upsample,
    "Interleave": _interleave,
    "SplitD": _split,
    "SplitVD": _split,
    "BroadcastToD": _broadcast_to,
    "PadD": _pad,
    "PadV2D": _pad,
    "MirrorPad": _mirror_pad,
    "OneHotD": _one_hot,
    "ScatterNdD": _scatter_nd,
}
