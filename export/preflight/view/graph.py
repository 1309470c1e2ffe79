# SPDX-License-Identifier: Apache-2.0
"""A frozen graph as the compiler will see it: what the outputs need, in execution order, with shapes and dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from export.preflight.view.input_shapes import with_input_shapes
from export.preflight.view.shapes import Shape, Shapes, count, data_inputs, infer_shapes
from vxm_convert.ascend.operators import LOCAL, OPS
from vxm_convert.errors import ContractError
from vxm_convert.formats.tf_graph import TfNode, read_graph

_BOOLEAN = frozenset("Less LessEqual Greater GreaterEqual Equal NotEqual LogicalAnd LogicalOr LogicalNot".split())
#: attributes that name an operator's output dtype, in the order in which they count
_DTYPE_ATTRS = ("DstT", "out_type", "output_type", "Tparams", "T", "dtype", "Index")
_SHAPE_READERS = frozenset(("Shape", "Size", "Rank"))


@dataclass(frozen=True)
class GraphView:
    """What rules look at.

    Parameters
    ----------
    nodes : list of TfNode — needed for the outputs, producers first (loops closed anywhere).
    dead : list of TfNode — not needed; ATC's parser reads them all the same.
    shapes : dict — ``node:index`` → shape or None.
    dtypes : dict — node → NumPy name of its output's dtype, ``?`` where unknown.
    folded : frozenset of str — nodes that depend on constants only: the compiler computes them away.
    outputs : tuple of str — ``node:index``.
    """

    nodes: List[TfNode]
    dead: List[TfNode]
    shapes: Shapes
    dtypes: Dict[str, str]
    folded: FrozenSet[str]
    outputs: Tuple[str, ...]

    def shape(self, tensor: str) -> Shape:
        """A shape whose sides are all known, else None."""
        shape = self.shapes.get(tensor)
        return None if shape is None or -1 in shape else shape

    def dtype_of(self, tensor: str) -> str:
        return self.dtypes.get(tensor.rpartition(":")[0], "?")

    def nbytes(self, tensor: str) -> Optional[int]:
        """Bytes of a tensor as the graph has it, None where shape or dtype is unknown."""
        shape = self.shape(tensor)
        try:
            return None if shape is None else count(shape) * np.dtype(self.dtype_of(tensor)).itemsize
        except TypeError:
            return None


def read_view(
    path: Path,
    outputs: Sequence[str] = (),
    shapes: Optional[Shapes] = None,
    input_shapes: Optional[Mapping[str, Tuple[int, ...]]] = None,
) -> GraphView:
    """Read a frozen graph.

    Parameters
    ----------
    path : Path — ``frozen.pb``.
    outputs : sequence of str — ``node:index`` or ``node``; empty means every node that nothing reads.
    shapes : dict or None — e.g. TensorFlow's; None infers what the small walker knows.
    input_shapes : dict or None — input → shape that replaces the graph's.

    Raises
    ------
    ContractError
        An output that the graph does not have, or a node that reads one.
    FormatError, ArtifactError
        As `read_graph`.
    """
    nodes = {node.name: node for node in with_input_shapes(read_graph(path), input_shapes or {})}
    roots = [name if ":" in name else name + ":0" for name in outputs] or _leaves(list(nodes.values()))
    missing = sorted({root.rpartition(":")[0] for root in roots} - set(nodes))
    if missing:
        raise ContractError(f"{path}: has no node {', '.join(missing)}; pass --out-nodes with names that inspect shows")
    order = _in_order(path, nodes, [root.rpartition(":")[0] for root in roots])
    needed = {node.name for node in order}
    return GraphView(
        order,
        [node for node in nodes.values() if node.name not in needed],
        infer_shapes(order, shapes),
        _dtypes(order),
        _folded(order),
        tuple(roots),
    )


def _leaves(nodes: List[TfNode]) -> List[str]:
    used = {entry.partition(":")[0].lstrip("^") for node in nodes for entry in node.inputs}
    return [node.name + ":0" for node in nodes if node.name not in used and node.op not in ("NoOp", "Const")]


def _in_order(path: Path, nodes: Dict[str, TfNode], roots: List[str]) -> List[TfNode]:
    """Depth-first from the outputs, without recursion (graphs are deep); placeholders first, a loop's back edge is
    skipped.
    """
    order = [node for node in nodes.values() if node.op == "Placeholder"]
    done = {node.name for node in order}
    opened = set()
    stack = [(name, False) for name in reversed(roots)]
    while stack:
        name, expanded = stack.pop()
        if name in done or (name in opened and not expanded):
            continue
        if name not in nodes:
            raise ContractError(f"{path}: a node reads {name}, which the graph does not have; freeze the graph again")
        if expanded:
            done.add(name)
            order.append(nodes[name])
            continue
        opened.add(name)
        stack.append((name, True))
        sources = [entry.partition(":")[0].lstrip("^") for entry in nodes[name].inputs]
        stack.extend((source, False) for source in reversed(sources) if source not in done)
    return order


def _dtypes(order: List[TfNode]) -> Dict[str, str]:
    """Output dtype per node; where its attributes do not say, that of the first input."""
    found: Dict[str, str] = {}
    for node in order:
        said = [node.attrs[key] for key in _DTYPE_ATTRS if isinstance(node.attrs.get(key), str)]
        sources = data_inputs(node)
        if node.op in _BOOLEAN:
            found[node.name] = "bool"
        elif node.op == "Const" and "value" in node.attrs:
            found[node.name] = np.asarray(node.attrs["value"]).dtype.name
        elif node.op in _SHAPE_READERS:
            found[node.name] = node.attrs.get("out_type") or "int32"
        else:
            found[node.name] = said[0] if said else found.get(sources[0].rpartition(":")[0], "?") if sources else "?"
    return found


def _folded(order: List[TfNode]) -> FrozenSet[str]:
    """Constants, and what is computed from constants alone; random numbers and loops are not."""
    folded = set()
    for node in order:
        sources = [tensor.rpartition(":")[0] for tensor in data_inputs(node)]
        computable = (
            node.op in OPS
            and not node.op.startswith(("Random", "TensorArray"))
            and node.op not in ("Enter", "Merge", "Switch")
        )
        if node.op == "Const" or (sources and computable and all(source in folded for source in sources)):
            folded.add(node.name)
    return frozenset(folded)


def is_local(node: TfNode) -> bool:
    """Whether the graph engine handles it without a kernel."""
    return node.op in OPS and OPS[node.op].engine == LOCAL
