# SPDX-License-Identifier: Apache-2.0
"""Nodes that select values: slices, gathers, one-hot vectors, scatters."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, Shape, axis_of
from vxm_convert.sim.refusal import AtcRefusal


class SlicePlan(NamedTuple):
    """Per axis of the source: first index, count, step; and the shape of the result."""

    offsets: List[int]
    sizes: List[int]
    steps: List[int]
    shape: Shape


#: largest number of (index, element) pairs of a ScatterNd with indices that the graph computes
MAX_SCATTERED = 1 << 26


def plan_slice(
    node: TfNode, shape: Shape, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]
) -> SlicePlan:
    """A StridedSlice with all five masks, as `tensorflow/core/util/strided_slice_op.cc` defines them."""
    masks = {
        key: int(node.attrs.get(f"{key}_mask") or 0) for key in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if bin(masks["ellipsis"]).count("1") > 1:
        raise AtcRefusal("E20001", f"{node.name}: more than one ellipsis")
    taken = sum(not (masks["new_axis"] >> i & 1 or masks["ellipsis"] >> i & 1) for i in range(len(begin)))
    if taken > len(shape):
        raise AtcRefusal("E20001", f"{node.name}: {taken} slices of a tensor of rank {len(shape)}")
    plan: List[Tuple[int, int, int]] = []
    result: List[int] = []
    for i, (first, last, step) in enumerate(zip(begin, end, strides)):
        if masks["ellipsis"] >> i & 1:
            for _ in range(len(shape) - taken):
                result.append(shape[len(plan)])
                plan.append((0, shape[len(plan)], 1))
        elif masks["new_axis"] >> i & 1:
            result.append(1)
        else:
            single = bool(masks["shrink_axis"] >> i & 1)
            entry = _one_axis(
                node, shape[len(plan)], first, last, step, single, masks["begin"] >> i & 1, masks["end"] >> i & 1
            )
            plan.append(entry)
            if not single:
                result.append(entry[1])
    for side in shape[len(plan) :]:
        result.append(side)
        plan.append((0, side, 1))
    return SlicePlan([p[0] for p in plan], [p[1] for p in plan], [p[2] for p in plan], tuple(result))


def _one_axis(
    node: TfNode, side: int, first: int, last: int, step: int, single: bool, open_begin: int, open_end: int
) -> Tuple[int, int, int]:
    if step == 0 or (single and not -side <= first < side):
        raise AtcRefusal("E20001", f"{node.name}: slice {first}:{last}:{step} of an axis of side {side}")
    if single:
        return first % side, 1, 1
    start, stop, step = slice(None if open_begin else first, None if open_end else last, step).indices(side)
    return start, len(range(start, stop, step)), step


def _strided_slice(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    plan = plan_slice(node, source.shape, *(importer.ints(node, k) for k in (1, 2, 3)))
    strides: Dict[str, Any] = {"strides": plan.steps} if set(plan.steps) - {1} else {}
    importer.add(
        node,
        "StridedSliceD",
        node.inputs[:1],
        [(source.dtype, plan.shape)],
        offsets=plan.offsets,
        size=plan.sizes,
        **strides,
    )


def _slice(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    begin = importer.ints(node, 1)
    size = [n if n != -1 else side - b for n, side, b in zip(importer.ints(node, 2), source.shape, begin)]
    importer.add(
        node, "SliceD", node.inputs[:1], [(source.dtype, tuple(size))], source.layout, offsets=begin, size=size
    )


def _gather(importer: Importer, node: TfNode) -> None:
    source, indices = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    axis = axis_of(node, int(importer.const(node, 2)), len(source.shape)) if node.op == "GatherV2" else 0
    batch = int(node.attrs.get("batch_dims") or 0)
    batch += len(indices.shape) if batch < 0 else 0
    if not 0 <= batch <= min(axis, len(indices.shape)) or source.shape[:batch] != indices.shape[:batch]:
        raise AtcRefusal(
            "E20001", f"{node.name}: batch_dims {batch} of {source.shape} and indices {indices.shape}, axis {axis}"
        )
    shape = source.shape[:axis] + indices.shape[batch:] + source.shape[axis + 1 :]
    importer.add(node, "GatherV2D", node.inputs[:2], [(source.dtype, shape)], axis=axis, batch_dims=batch)


def _gather_nd(importer: Importer, node: TfNode) -> None:
    source, indices = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    depth = indices.shape[-1] if indices.shape else 0
    if not 0 < depth <= len(source.shape):
        raise AtcRefusal("E20001", f"{node.name}: indices of shape {indices.shape} into {source.shape}")
    importer.add(node, "GatherNd", node.inputs[:2], [(source.dtype, indices.shape[:-1] + source.shape[depth:])])


def _one_hot(importer: Importer, node: TfNode) -> None:
    indices = importer.desc(node.inputs[0])
    depth = int(importer.const(node, 1))
    dtype = importer.desc(node.inputs[2]).dtype
    axis = axis_of(node, node.attrs.get("axis", -1), len(indices.shape) + 1)
    shape = indices.shape[:axis] + (depth,) + indices.shape[axis:]
    importer.add(
        node, "OneHotD", [node.inputs[0], node.inputs[2], node.inputs[3]], [(dtype, shape)], axis=axis, depth=depth
    )


def _scatter_nd(importer: Importer, node: TfNode) -> None:
    """Values of equal indices are added. Only the shape must be constant (8.1's table of the 910); constant indices are
    checked here.
    """
    indices, updates = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    shape, known = tuple(importer.ints(node, 2)), importer.constant(node.inputs[0])
    depth = indices.shape[-1] if indices.shape else 0
    fits = 0 < depth <= len(shape) and updates.shape == indices.shape[:-1] + shape[depth:]
    if not fits or (known is not None and not ((known >= 0) & (known < np.array(shape[:depth], np.int64))).all()):
        raise AtcRefusal("E20001", f"{node.name}: ScatterNd of {updates.shape} by indices {indices.shape} into {shape}")
    if known is None and indices.count // depth * int(np.prod(shape, dtype=np.int64)) > MAX_SCATTERED:
        raise AtcRefusal(
            "E20001",
            f"{node.name}: {indices.count // depth} indices of a tensor into {shape}; the simulated device takes up to "
            f"{MAX_SCATTERED} pairs of an index and an element",
            "The 910 takes them; the simulator compares every index with every element.",
            "Compile with the real ATC (VXM_TOOLCHAIN=cann), or make the indices constant.",
        )
    importer.add(node, OPS[node.op].ge_type, node.inputs[:2], [(updates.dtype, shape)], shape=list(shape))


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "GatherV2": _gather,
    "Gather": _gather,
    "GatherNd": _gather_nd,
    "OneHot": _one_hot,
    "ScatterNd": _scatter_nd,
}
