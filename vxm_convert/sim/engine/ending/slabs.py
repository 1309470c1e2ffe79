# SPDX-License-Identifier: Apache-2.0
"""The graph behind the flow, for a few planes at a time: a warp that gathers from the moving image, above all.

Its tensors have the flow's size and it has many: whole, they take more memory than the network before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.sim.compiler.layouts import unpacked

#: Operators whose result at a voxel depends on that voxel of their operands alone.
_EACH = frozenset("Add Sub Mul RealDiv Maximum Minimum Floor Neg Abs Cast TransData".split())
#: What costs nothing to be repeated for every slab.
_FREE = frozenset(("Data", "Const", "Reshape", "TransData"))


class Slabs(NamedTuple):
    """A graph of some planes; behind the inputs of the whole one it reads the same planes of some of its constants."""

    ops: List[Op]
    constants: List[np.ndarray]


def in_slabs(ops: List[Op], flow: Op, planes: int) -> Optional[Slabs]:
    """The graph for so many planes of its input `flow`, channels first, or None where a result needs other planes.

    Every result is computed by the same operators, in the same order, as in the whole graph.
    """
    batch, _, depth = flow.output_descs[0].shape[:3]
    if batch != 1 or depth % planes:
        return None
    constants = {f"{op.name}:0": op for op in ops if op.data is not None}
    cut: Set[str] = {f"{flow.name}:0"}
    along: Set[str] = set()
    for op in ops:
        if not cut.intersection(op.inputs):
            if op is not flow and op.type not in _FREE:
                return None
            continue
        beside = _beside(op, cut, constants, depth)
        if beside is None or any(desc.logical_shape[1] != depth for desc in op.output_descs):
            return None
        along.update(beside)
        cut.update(f"{op.name}:{index}" for index in range(len(op.output_descs)))
    inputs = [op for op in ops if op.type == "Data" and op is not flow]
    inputs += [replace(flow, output_descs=[_thin(flow.output_descs[0], 2, planes)])]
    sliced = [constants[name] for name in sorted(along)]
    inputs += [Op(op.name, "Data", [], {}, [], [_thin(op.output_descs[0], 1, planes)]) for op in sliced]
    rest = [op for op in ops if op.type != "Data" and f"{op.name}:0" not in along]
    return Slabs(inputs + [_thinned(op, cut | along, planes) for op in rest], [unpacked(op) for op in sliced])


def _beside(op: Op, cut: Set[str], constants: Dict[str, Op], depth: int) -> Optional[List[str]]:
    """The constants that have to be cut with the other operands of an operator, or None if it cannot be cut."""
    others = [source for source in op.inputs if source not in cut]
    shapes = [desc.logical_shape for desc in op.input_descs]
    if op.type in _EACH:
        rank = len(op.output_descs[0].logical_shape)
        sides = {source: _side(constants.get(source), rank) for source in others}
        return [name for name, side in sides.items() if side == depth] if set(sides.values()) <= {1, depth} else None
    return [] if _whole(op, others, shapes) else None


def _whole(op: Op, others: List[str], shapes: List[Tuple[int, ...]]) -> bool:
    """Whether an operator that moves values keeps the planes apart; `others` are its operands that are not cut."""
    if op.type == "Unpack":
        return op.attrs["axis"] in (-1, len(shapes[0]) - 1)
    if op.type == "GatherV2D":
        return others == op.inputs[:1] and len(shapes[0]) == 1 and op.output_descs[0].shape == shapes[1]
    if op.type == "Reshape":
        return shapes[0][:4] == op.output_descs[0].logical_shape[:4]
    return op.type == "NetOutput" and not others


def _side(constant: Optional[Op], rank: int) -> int:
    """How long a constant is along the planes of an operand of this rank; 0 if it is no constant, or cannot be told."""
    if constant is None:
        return 0
    shape = constant.output_descs[0].logical_shape
    if len(shape) == rank:
        return int(shape[1])
    return 1 if len(shape) < rank - 1 else 0


def _thin(desc: Desc, axis: int, planes: int) -> Desc:
    def thin(shape: Tuple[int, ...]) -> Tuple[int, ...]:
        return shape[:axis] + (planes,) + shape[axis + 1 :] if shape else shape

    return replace(desc, shape=thin(desc.shape), origin_shape=thin(desc.origin_shape))


def _thinned(op: Op, cut: Set[str], planes: int) -> Op:
    """The operator for so many planes, if it is one that is cut."""
    if not cut.intersection(op.inputs):
        return op
    attrs = dict(op.attrs)
    outputs = [_thin(desc, 1, planes) for desc in op.output_descs]
    if op.type == "Reshape":
        attrs["shape"] = list(outputs[0].logical_shape)
    inputs = [_thin(desc, 1, planes) if source in cut else desc for source, desc in zip(op.inputs, op.input_descs)]
    return replace(op, attrs=attrs, input_descs=inputs, output_descs=outputs)
