# SPDX-License-Identifier: Apache-2.0
"""Blocks moved between batch, image and channels; reversed axes; largest values; sums along an axis."""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value


def _shaped(state: Lowering, name: str, shape: Sequence[int]) -> str:
    return state.builder.one("Reshape", name, state.integers(list(shape)))


def _space_to_batch(state: Lowering, op: Op) -> List[Value]:
    """Pad; then (n, s·b, …, rest) → (n, s, b, …, rest) → (b…, n, s…, rest): the blocks' offsets become the slow part of
    the batch.
    """
    block, edges = op.attrs["block_shape"], op.attrs["edges"]
    source, target, axes = (
        op.input_descs[0].logical_shape,
        op.output_descs[0].logical_shape,
        len(op.attrs["block_shape"]),
    )
    rest = len(source) - 1 - axes
    name = state.get(op.inputs[0])
    if any(edges):
        pads = [0] + edges[0::2] + [0] * rest + [0] + edges[1::2] + [0] * rest
        name = state.builder.one("Pad", name, state.integers(pads), _zero(state, op), mode="constant")
    split = (
        [source[0]] + [n for side, width in zip(target[1:], block) for n in (side, width)] + list(source[1 + axes :])
    )
    perm = (
        list(range(2, 2 + 2 * axes, 2)) + [0] + list(range(1, 1 + 2 * axes, 2)) + list(range(1 + 2 * axes, len(split)))
    )
    name = state.builder.one("Transpose", _shaped(state, name, split), perm=perm)
    return [Value(_shaped(state, name, target), False)]


def _batch_to_space(state: Lowering, op: Op) -> List[Value]:
    block, edges = op.attrs["block_shape"], op.attrs["edges"]
    source, target, axes = (
        op.input_descs[0].logical_shape,
        op.output_descs[0].logical_shape,
        len(op.attrs["block_shape"]),
    )
    split = list(block) + [target[0]] + list(source[1:])
    perm = [axes]
    for axis in range(axes):
        perm += [axes + 1 + axis, axis]
    perm += list(range(1 + 2 * axes, len(split)))
    name = state.builder.one("Transpose", _shaped(state, state.get(op.inputs[0]), split), perm=perm)
    whole = [target[0]] + [side * width for side, width in zip(source[1:], block)] + list(source[1 + axes :])
    name = _shaped(state, name, whole)
    if any(edges):
        starts = [0] + edges[0::2]
        ends = [target[0]] + [start + side for start, side in zip(starts[1:], target[1:])]
        name = state.builder.one(
            "Slice", name, state.integers(starts), state.integers(ends), state.integers(range(len(starts)))
        )
    return [Value(name, False)]


def _zero(state: Lowering, op: Op) -> str:
    return state.builder.constant(np.zeros((), op.output_descs[0].dtype))


def _depth_to_space(state: Lowering, op: Op) -> List[Value]:
    n, height, width, channels = op.input_descs[0].logical_shape
    block = op.attrs["block_size"]
    name = _shaped(state, state.get(op.inputs[0]), [n, height, width, block, block, channels // block**2])
    name = state.builder.one("Transpose", name, perm=[0, 1, 3, 2, 4, 5])
    return [Value(_shaped(state, name, op.output_descs[0].logical_shape), False)]


def _space_to_depth(state: Lowering, op: Op) -> List[Value]:
    n, height, width, channels = op.input_descs[0].logical_shape
    block = op.attrs["block_size"]
    name = _shaped(state, state.get(op.inputs[0]), [n, height // block, block, width // block, block, channels])
    name = state.builder.one("Transpose", name, perm=[0, 1, 3, 2, 4, 5])
    return [Value(_shaped(state, name, op.output_descs[0].logical_shape), False)]


def _reverse(state: Lowering, op: Op) -> List[Value]:
    name = state.get(op.inputs[0])
    for axis in op.attrs["axis"]:
        order = np.arange(op.input_descs[0].logical_shape[axis] - 1, -1, -1)
        name = state.builder.one("Gather", name, state.integers(order), axis=axis)
    return [Value(name, False)]


def _top(state: Lowering, op: Op) -> List[Value]:
    values, places = state.builder.node(
        "TopK", [state.get(op.inputs[0]), state.integers([op.attrs["k"]])], 2, axis=-1, largest=1, sorted=1
    )
    return [Value(values, False), Value(state.builder.one("Cast", places, to=6), False)]


def _cumsum(state: Lowering, op: Op) -> List[Value]:
    axis = state.integers(op.attrs["axis"])
    flags = {key: int(op.attrs[key]) for key in ("exclusive", "reverse")}
    return [Value(state.builder.one("CumSum", state.get(op.inputs[0]), axis, **flags), False)]


def _local_response(state: Lowering, op: Op) -> List[Value]:
    """``x / (bias + alpha · sum of squares of the neighbouring channels) ** beta``; ONNX divides alpha by their
    number.
    """
    size = 2 * op.attrs["depth_radius"] + 1
    name = state.builder.one(
        "LRN",
        state.get(op.inputs[0], True),
        size=size,
        alpha=float(op.attrs["alpha"]) * size,
        beta=float(op.attrs["beta"]),
        bias=float(op.attrs["bias"]),
    )
    return [Value(name, True)]


def _half_square(state: Lowering, op: Op) -> List[Value]:
    name = state.get(op.inputs[0])
    square = state.builder.one("Mul", name, name)
    total = state.builder.one("ReduceSum", square, keepdims=0)
    return [Value(state.builder.one("Mul", total, state.builder.scalar(0.5)), False)]


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "SpaceToBatchNDD": _space_to_batch,
    "SpaceToBatchD": _space_to_batch,
    "BatchToSpaceNDD": _batch_to_space,
    "BatchToSpaceD": _batch_to_space,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ReverseV2D": _reverse,
    "TopKV2D": _top,
    "CumsumD": _cumsum,
    "LRN": _local_response,
    "L2Loss": _half_square,
}
