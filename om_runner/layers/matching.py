# SPDX-License-Identifier: Apache-2.0
"""Matches each tensor of an offline model to a tensor of the frozen graph; by name and attribute, never by position.

A compiler records the origin of an operator: ``_datadump_origin_name`` and ``_datadump_origin_output_index`` of an
output, else ``_datadump_original_op_names`` of the operator, where the output of the last one is that of a fused
operator. Operators with neither (inserted TransData, Cast) belong to no node but to their edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

from vxm_convert.errors import ContractError
from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.model.contract import GraphContract

NET_OUTPUT = "NetOutput"
#: given values, not computed ones
_SOURCES = ("Data", "Const", "Constant")
FLOATS = ("float16", "float32")
#: A small change of an input can change these results by a whole step.
_JUMPS = frozenset(
    "Floor Ceil Round Rint FloorDiv FloorMod Mod Sign Less LessEqual Greater GreaterEqual Equal NotEqual TruncateDiv "
    "TruncateMod "
    "ArgMax ArgMaxD ArgMaxV2 ArgMin ArgMinD TopK TopKV2 OneHot OneHotD".split()
)
#: Jump only in their indices, which are operand 1.
_INDEXED = frozenset("Gather GatherD GatherV2 GatherV2D GatherNd GatherElements ScatterNd ScatterNdD".split())


@dataclass(frozen=True)
class Layer:
    """One output tensor of one operator of the compiled graph.

    Parameters
    ----------
    op, type, output : str, str, int — operator of the offline model and number of its output.
    desc : Desc — dtype, storage shape and layout on the device.
    golden : str or None — ``node:index`` of the frozen graph, None if it belongs to no node.
    originals : tuple of str — nodes of the frozen graph from which the operator was made.
    inputs : tuple of str — golden names of its inputs, without constants.
    reason : str — reason for a missing golden tensor, for the table.
    reads : tuple of str — dtypes of the operator's operands.
    """

    op: str
    type: str
    output: int
    desc: Desc
    golden: Optional[str]
    originals: Tuple[str, ...]
    inputs: Tuple[str, ...]
    reason: str = ""
    reads: Tuple[str, ...] = ()

    @property
    def jumps(self) -> bool:
        """Whether the result is discontinuous: steps, comparisons, and everything that is not a float."""
        return self.type in _JUMPS or self.desc.dtype not in FLOATS

    @property
    def indexed(self) -> bool:
        return self.type in _INDEXED

    @property
    def elements(self) -> int:
        total = 1
        for side in self.desc.logical_shape:
            total *= side
        return total


class GoldenGraph:
    """The frozen graph, as far as it is needed to walk back from a tensor."""

    def __init__(self, nodes: Sequence[TfNode]) -> None:
        self.nodes = {node.name: node for node in nodes}

    def has(self, tensor: str) -> bool:
        return tensor.rpartition(":")[0] in self.nodes

    def behind(self, target: str, known: FrozenSet[str]) -> Tuple[List[str], List[str]]:
        """(tensors of `known` from which `target` is computed, nodes in between, including constants), sorted.

        Raises
        ------
        ContractError
            If the way back ends at an unknown input.
        """
        feeds, between, stack = set(), set(), [target.rpartition(":")[0]]
        while stack:
            name = stack.pop()
            if name in between:
                continue
            between.add(name)
            node = self.nodes[name]
            if node.op in ("Placeholder", "PlaceholderWithDefault"):
                raise ContractError(
                    f"frozen graph: {target} depends on the input {name}, which the offline model does not have"
                )
            for source in node.inputs:
                tensor = tensor_name(source)
                if source.startswith("^"):
                    continue
                if tensor in known:
                    feeds.add(tensor)
                else:
                    stack.append(tensor.rpartition(":")[0])
        return sorted(feeds), sorted(between)


def tensor_name(source: str) -> str:
    """``node`` or ``node:index`` → ``node:index``."""
    node, colon, index = source.rpartition(":")
    return source if colon and index.isdigit() and node else f"{source}:0"


def layers_of(ops: Sequence[Op], attrs: Dict[str, Any], contract: GraphContract, golden: GoldenGraph) -> List[Layer]:
    """Every computed tensor of the offline model in execution order, with the model's outputs last.

    Raises
    ------
    ContractError
        If an output or input of the model is not in the contract.
    """
    by_name = {op.name: op for op in ops}
    _check_inputs(ops, contract)
    layers: List[Layer] = []
    for op in ops:
        if op.type in _SOURCES or op.data is not None:
            continue
        inputs = _inputs_of(op, by_name)
        for index, desc in enumerate(results_of(op)):
            name, reason = _net_output(attrs, index, contract) if op.type == NET_OUTPUT else _golden_of(op, index)
            if name is not None and not golden.has(name):
                reason = f"the frozen graph has no node {name.rpartition(':')[0]}"
                name = None
            # A model output has the input of NetOutput at its position, not all of them.
            mine = _inputs_of(op, by_name, index) if op.type == NET_OUTPUT else inputs
            reads = tuple(d.dtype for d in op.input_descs)
            layers.append(Layer(op.name, op.type, index, desc, name, tuple(originals_of(op)), mine, reason, reads))
    return layers


def results_of(op: Op) -> Sequence[Desc]:
    """Descriptors of an operator's outputs; a NetOutput of the real ATC has those of its inputs only."""
    return op.input_descs if op.type == NET_OUTPUT and not op.output_descs else op.output_descs


def held_tensors(ops: Sequence[Op], layers: Sequence[Layer]) -> Dict[str, Desc]:
    """Golden tensor → its form on the device: the model's inputs and every layer that belongs to a node."""
    held = {f"{op.name}:0": op.output_descs[0] for op in ops if op.type == "Data"}
    for layer in layers:
        if layer.golden is not None:
            held.setdefault(layer.golden, layer.desc)
    return held


def originals_of(op: Op) -> List[str]:
    """Nodes of the frozen graph from which an operator was made; none if the compiler inserted it."""
    return [str(name) for name in op.attrs.get("_datadump_original_op_names") or []]


def _golden_of(op: Op, index: int) -> Tuple[Optional[str], str]:
    if op.attrs.get("vxm_unrolled_iteration"):
        return None, "one iteration of a loop, whose tensors are not in the graph"
    if op.output_descs[index].origin_name:
        return op.output_descs[index].origin_name, ""
    names = originals_of(op)
    return (f"{names[-1]}:{index}", "") if names else (None, "inserted by the compiler")


def _net_output(attrs: Dict[str, Any], index: int, contract: GraphContract) -> Tuple[Optional[str], str]:
    names = [str(name) for name in attrs.get("attr_model_out_nodes_name") or []]
    wanted = {spec.tensor_name for spec in contract.outputs}
    if index >= len(names) or names[index] not in wanted:
        got = names[index] if index < len(names) else "no name"
        raise ContractError(
            f"output {index} of the offline model is {got}, the contract has {', '.join(sorted(wanted))}; export again"
        )
    return names[index], ""


def _check_inputs(ops: Iterable[Op], contract: GraphContract) -> None:
    have = sorted(op.name for op in ops if op.type == "Data")
    want = sorted(spec.node for spec in contract.inputs)
    if have != want:
        raise ContractError(
            f"the offline model's inputs are {', '.join(have)}, the contract's {', '.join(want)}; export again"
        )


def _inputs_of(op: Op, by_name: Dict[str, Op], only: Optional[int] = None) -> Tuple[str, ...]:
    """Golden names of an operator's inputs, skipping operators that the compiler inserted."""
    sources = op.inputs if only is None else op.inputs[only : only + 1]
    return tuple(
        dict.fromkeys(name for name in (_behind_inserted(source, by_name) for source in sources) if name is not None)
    )


def _behind_inserted(source: str, by_name: Dict[str, Op]) -> Optional[str]:
    while True:
        node, _, index = source.rpartition(":")
        op = by_name[node]
        if op.type == "Data":
            return f"{op.name}:0"
        if op.data is not None or op.type in _SOURCES:
            return None
        name, _ = _golden_of(op, int(index))
        if name is not None or len(op.inputs) != 1:
            return name
        source = op.inputs[0]


def in_groups(layers: Sequence[Layer], sizes: Sequence[int], budget: int) -> List[List[Layer]]:
    """Consecutive layers whose sizes in bytes add up to at most `budget`; a larger one is a group of its own."""
    groups: List[List[Layer]] = []
    used = 0
    for layer, size in zip(layers, sizes):
        # The outputs of one operator stay together.
        same = bool(groups) and groups[-1][-1].op == layer.op
        if not groups or (used + size > budget and not same):
            groups.append([])
            used = 0
        groups[-1].append(layer)
        used += size
    return groups
