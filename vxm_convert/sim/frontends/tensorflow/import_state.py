# SPDX-License-Identifier: Apache-2.0
"""State of an import: operators made so far, aliases, dead branches, and the small helpers that handlers use."""

from __future__ import annotations

from typing import Callable, Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.refusal import AtcRefusal

Shape = Tuple[int, ...]
PASS_THROUGH = ("Identity", "StopGradient", "Snapshot", "PreventGradient", "PlaceholderWithDefault", "LoopCond")
_LAYOUTS = {4: "NHWC", 5: "NDHWC"}


class Importer:
    """Collects operators while walking the graph."""

    def __init__(
        self,
        nodes: List[TfNode],
        input_shapes: Dict[str, Shape],
        handlers: Dict[str, Callable[[Importer, TfNode], None]],
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.input_shapes = input_shapes
        self.handlers = handlers
        self.ops: Dict[str, Op] = {}
        self.aliases: Dict[str, str] = {}
        #: tensors of branches that are never taken
        self.dead: Set[str] = set()
        #: tensor arrays by the name of their flow tensor: the tensor of each element
        self.arrays: Dict[str, Tuple[Optional[str], ...]] = {}
        #: node, or ``node:index`` if outputs differ → input-dependent predicates around it, and their values
        self.conditions: Dict[str, FrozenSet[Tuple[str, bool]]] = {}
        #: copy made of a loop's body → (node it was copied from, "frame#iteration")
        self.copies: Dict[str, Tuple[str, str]] = {}

    def tensor(self, name: str) -> str:
        """``node`` or ``node:index`` of the pb → ``op:index`` of the compiled graph."""
        node, _, index = name.partition(":")
        full = f"{node}:{index or 0}"
        return self.aliases.get(full, full)

    def desc(self, name: str) -> Desc:
        tensor = self.tensor(name)
        op_name, _, index = tensor.rpartition(":")
        op = self.ops.get(op_name)
        if op is None or not index.isdigit() or int(index) >= len(op.output_descs):
            raise AtcRefusal("E13026", f"{tensor} is not a tensor of the compiled graph")
        return op.output_descs[int(index)]

    def constant(self, name: str) -> Optional[np.ndarray]:
        """Value of a tensor that is known at compile time, or None."""
        op = self.ops.get(self.tensor(name).rpartition(":")[0])
        return None if op is None else op.data

    def const(self, node: TfNode, position: int, ours: bool = False) -> np.ndarray:
        """Value of a constant operand; the device needs it at compile time, or with `ours` only this simulator does."""
        data = self.constant(node.inputs[position])
        if data is None and ours:
            raise AtcRefusal(
                "E20001",
                f"operand {position} of {node.name} ({node.op}) is not a constant",
                "The 910 takes a tensor here; the simulated compiler does not.",
                "Compile with the real ATC (VXM_TOOLCHAIN=cann).",
            )
        if data is None:
            raise AtcRefusal(
                "E20001",
                f"operand {position} of {node.name} ({node.op}) is not a constant",
                "The kernel needs this operand when the model is compiled.",
                "Freeze the graph with static shapes.",
            )
        return data

    def ints(self, node: TfNode, position: int) -> List[int]:
        """A constant operand as a list of integers."""
        return [int(n) for n in np.atleast_1d(self.const(node, position))]

    def ints_of(self, node: TfNode, position: int) -> List[int]:
        """A constant operand of any shape, as one list in C order."""
        return [int(n) for n in self.const(node, position).reshape(-1)]

    def add(
        self,
        node: TfNode,
        ge_type: str,
        inputs: Sequence[str],
        outputs: Sequence[Tuple[str, Shape]],
        layout: str = "",
        **attrs: object,
    ) -> None:
        """Append an operator whose inputs are tensors of the pb and whose outputs are (dtype, shape)."""
        sources = [self.tensor(name) for name in inputs]
        descs = [self.desc(name) for name in inputs]
        result = [Desc(dtype, tuple(int(n) for n in shape), layout or layout_of(shape)) for dtype, shape in outputs]
        original, iteration = self.copies.get(node.name, (node.name, ""))
        attrs.setdefault("_datadump_original_op_names", [original])
        if iteration:
            attrs["vxm_unrolled_iteration"] = iteration
        self.ops[node.name] = Op(node.name, ge_type, sources, dict(attrs), descs, result)

    def add_const(self, name: str, value: np.ndarray) -> str:
        """Append a constant; returns its tensor. There is no float64 on the device's engines."""
        value = np.asarray(value)
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        desc = Desc(value.dtype.name, value.shape, layout_of(value.shape))
        self.ops[name] = Op(name, "Const", [], {"_datadump_original_op_names": [name]}, [], [desc], value)
        return f"{name}:0"


def layout_of(shape: Sequence[int]) -> str:
    """Four and five dimensions are images and volumes with channels last; everything else has no layout."""
    return _LAYOUTS.get(len(shape), "ND")


def original_names(op: Op) -> List[str]:
    """Nodes of the framework's graph that became an operator."""
    names: Optional[List[str]] = op.attrs.get("_datadump_original_op_names")
    return names or []


def axis_of(node: TfNode, value: int, rank: int) -> int:
    """A possibly negative axis, checked against the rank."""
    axis = int(value) + rank if int(value) < 0 else int(value)
    if not 0 <= axis < rank:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): axis {value} of a tensor of rank {rank}")
    return axis


def broadcast(node: TfNode, *shapes: Shape) -> Shape:
    """Shape of an element-wise result, without allocating it."""
    try:
        return tuple(np.broadcast(*(np.broadcast_to(np.empty(()), shape) for shape in shapes)).shape)
    except ValueError as exc:
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): shapes {' and '.join(map(str, shapes))} do not broadcast"
        ) from exc
