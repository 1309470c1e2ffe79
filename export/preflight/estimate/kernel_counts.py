# SPDX-License-Identifier: Apache-2.0
"""What cube operators, gathers and operators with many parts have to do, from their shapes; zeros where those are not
known.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from export.preflight.estimate.speeds import BURST, GATHER_CYCLES, GATHER_ND_CYCLES
from export.preflight.view.graph import GraphView
from export.preflight.view.memory import itemsize_of
from export.preflight.view.shapes import count, data_inputs
from vxm_convert.ascend.limits import CHANNEL_BLOCK
from vxm_convert.formats.tf_graph import TfNode

FORWARD = frozenset(("Conv3D", "Conv2D"))
BACKWARD = frozenset(("Conv3DBackpropInputV2", "Conv2DBackpropInput"))
PRODUCTS = frozenset(("MatMul", "BatchMatMul", "BatchMatMulV2"))
GATHERS = frozenset(("Gather", "GatherV2", "GatherNd"))
PARTED = frozenset("Split SplitV Concat ConcatV2 Pack Unpack".split())
_SPLITS = frozenset(("Split", "SplitV", "Unpack"))
#: where a node has its axis among the inputs
_AXIS_INPUT = {"Split": 0, "SplitV": 2, "Concat": 0, "ConcatV2": -1}


def cube_counts(view: GraphView, node: TfNode) -> Dict[str, int]:
    """``positions``: outputs along all axes but the channels; ``products`` of each, channels in full blocks."""
    shapes = [view.shape(name) for name in data_inputs(node)[:3]]
    out = view.shape(node.name + ":0")
    positions = products = 0
    if len(shapes) < 2 or shapes[1] is None or len(shapes[1]) < 2 or not out:
        return {"positions": 0, "products": 0}
    *kernel, inner, outer = shapes[1]
    if node.op in BACKWARD:
        # Every position of the small side meets the whole kernel.
        if len(shapes) > 2 and shapes[2]:
            positions, products = count(shapes[2][:-1]), count(kernel) * _padded(inner) * _padded(outer)
    elif node.op in PRODUCTS:
        if shapes[0] and len(shapes[0]) > 1:
            along = shapes[0][-2 if node.attrs.get("transpose_a") or node.attrs.get("adj_x") else -1]
            positions, products = count(out[:-1]), _padded(along) * _padded(out[-1])
    elif node.op in FORWARD:
        positions, products = count(out[:-1]), count(kernel) * _padded(inner) * _padded(outer)
    else:
        # Channel by channel: a block of channels at a time, of which the diagonal counts.
        positions, products = count(out[:-1]), count(kernel) * CHANNEL_BLOCK * _padded(out[-1])
    return {"positions": positions, "products": products}


def gather_counts(
    view: GraphView, node: TfNode, reads: Sequence[Optional[int]], common: Mapping[str, Any]
) -> Dict[str, Any]:
    """Rows, their bytes and cycles, and the other counts without the table, of which the rows are read and not all.

    Parameters
    ----------
    reads : sequence of int or None — bytes of the inputs that are no constants, in order.
    common : mapping — ``nbytes``, ``constant`` and ``unknown`` of the node.
    """
    names = (data_inputs(node) + ["", ""])[:2]
    source, indices, out = (view.shape(name) for name in names + [node.name + ":0"])
    counts = {**common, "row_cycles": GATHER_ND_CYCLES if node.op == "GatherNd" else GATHER_CYCLES}
    if source is None or indices is None or out is None:
        return {**counts, "unknown": True}
    if node.op == "GatherNd":
        row = count(source[indices[-1] if indices else 0 :])
    else:
        row = max(1, count(out) // max(1, count(indices)))
    constant = names[0].rpartition(":")[0] in view.folded
    table = (view.nbytes(names[0]) if constant else reads[0] if reads else 0) or 0
    counts["constant" if constant else "nbytes"] -= table
    return {**counts, "rows": count(out) // max(1, row), "row_bytes": row * max(1, table // max(1, count(source)))}


def wasted_bytes(view: GraphView, nodes: Mapping[str, TfNode], node: TfNode, dtype: str) -> int:
    """Bytes that a node with parts moves beyond those of its tensors, because what lies together is shorter than a
    burst.
    """
    axis = _axis(view, nodes, node) if node.op in PARTED else None
    if axis is None:
        return 0
    itemsize, total = itemsize_of(dtype), 0
    parts = results(view, node) if node.op in _SPLITS else data_inputs(node)
    for shape in (view.shape(name) for name in parts if name.rpartition(":")[0] not in view.folded):
        if shape:
            piece = count(shape[axis:]) * itemsize
            # Read and written.
            total += 2 * count(shape) * itemsize * (-(-BURST // max(1, piece)) - 1)
    return total


def results(view: GraphView, node: TfNode) -> List[str]:
    """Tensors that a node gives."""
    number = 1
    while f"{node.name}:{number}" in view.shapes:
        number += 1
    return [f"{node.name}:{index}" for index in range(number)]


def _axis(view: GraphView, nodes: Mapping[str, TfNode], node: TfNode) -> Optional[int]:
    """Axis of a Split or ConcatV2, counted from 0 or, negative, from the end; where a Pack puts its parts."""
    names = data_inputs(node)
    if node.op in ("Pack", "Unpack"):
        axis, part = node.attrs.get("axis") or 0, view.shape(names[0]) if names else None
        return None if part is None or not isinstance(axis, int) else axis % max(1, len(part) + (node.op == "Pack"))
    place = _AXIS_INPUT[node.op]
    if len(names) < max(2, place + 1):
        return None
    source = nodes.get(names[place].rpartition(":")[0])
    value = np.asarray(source.attrs.get("value")) if source is not None and source.op == "Const" else np.zeros(0)
    return int(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "iu" else None


def _padded(channels: int) -> int:
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
