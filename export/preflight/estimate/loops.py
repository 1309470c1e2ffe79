# SPDX-License-Identifier: Apache-2.0
"""How often each node of a TensorFlow 1 graph runs: loops of Enter … Exit, and their number of steps where a constant
bounds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs
from vxm_convert.formats.tf_graph import TfNode

#: no loop over more steps is believed
MAX_STEPS = 1 << 20
_PASSES = 4
_Frame = Tuple[str, ...]


@dataclass(frozen=True)
class Loops:
    """`steps`: node → how often it runs; a loop of unknown length counts once. `unknown`: names of such loops."""

    steps: Dict[str, int]
    unknown: Tuple[str, ...]


def find_loops(view: GraphView) -> Loops:
    """Nodes outside of loops are left out of `steps`."""
    nodes = {node.name: node for node in view.nodes}
    frames = _frames(view)
    lengths: Dict[str, Optional[int]] = {name: None for frame in frames.values() for name in frame}
    for node in view.nodes:
        if node.op == "LoopCond" and frames.get(node.name):
            lengths[frames[node.name][-1]] = _length(node, nodes)
    steps = {}
    for name, frame in frames.items():
        if frame:
            steps[name] = int(
                min(
                    MAX_STEPS,
                    np.prod([1 if lengths[loop] is None else lengths[loop] for loop in frame], dtype=np.float64),
                )
            )
    return Loops(steps, tuple(sorted(name for name, length in lengths.items() if length is None)))


def _frames(view: GraphView) -> Dict[str, _Frame]:
    """Node → loops around it, outermost first. Back edges make a second look necessary, nothing makes a fifth."""
    found: Dict[str, _Frame] = {}
    for _ in range(_PASSES):
        before = dict(found)
        for node in view.nodes:
            around = max(
                (found.get(tensor.rpartition(":")[0], ()) for tensor in data_inputs(node)), key=len, default=()
            )
            if node.op in ("Enter", "RefEnter"):
                around = around + (str(node.attrs.get("frame_name", node.name)),)
            elif node.op in ("Exit", "RefExit"):
                around = around[:-1]
            found[node.name] = around
        if found == before:
            break
    return found


def _length(cond: TfNode, nodes: Dict[str, TfNode]) -> Optional[int]:
    """Steps of the loop that a LoopCond closes: the least of the bounds that its condition has, None without a constant
    one.
    """
    lengths = [
        length for less in _conditions(cond, nodes) for length in (_steps_of(less, nodes),) if length is not None
    ]
    return min(lengths, default=None)


def _conditions(node: TfNode, nodes: Dict[str, TfNode]) -> Iterator[TfNode]:
    """The Less nodes behind a condition; only "and" joins them, as "or" would mean the largest bound."""
    stack: List[TfNode] = [node]
    for _ in range(len(nodes)):
        if not stack:
            return
        here = stack.pop()
        if here.op == "Less":
            yield here
        elif here.op in ("LoopCond", "LogicalAnd", "Identity"):
            stack += [nodes[name] for name in _sources(here) if name in nodes]


def _steps_of(less: TfNode, nodes: Dict[str, TfNode]) -> Optional[int]:
    sources = _sources(less)
    if len(sources) != 2:
        return None
    counter, limit = _behind(sources[0], nodes), _constant(sources[1], nodes)
    if counter is None or counter.op != "Merge" or limit is None:
        return None
    parts = [_behind(name, nodes) for name in _sources(counter)]
    starts = [_constant(part.name, nodes) for part in parts if part is not None and part.op in ("Enter", "Const")]
    added = [_increment(part, nodes) for part in parts if part is not None and part.op in ("Add", "AddV2")]
    if len(starts) != 1 or starts[0] is None or len(added) != 1 or not added[0] or added[0] < 0:
        return None
    return int(max(0.0, min(float(MAX_STEPS), np.ceil((limit - starts[0]) / added[0]))))


def _increment(node: TfNode, nodes: Dict[str, TfNode]) -> Optional[float]:
    known = [value for value in (_constant(name, nodes) for name in _sources(node)) if value is not None]
    return known[0] if len(known) == 1 else None


def _sources(node: TfNode) -> List[str]:
    return [tensor.rpartition(":")[0] for tensor in data_inputs(node)]


def _behind(
    name: str, nodes: Dict[str, TfNode], through: Tuple[str, ...] = ("Identity", "NextIteration", "Switch")
) -> Optional[TfNode]:
    """The node behind others that pass on their first input."""
    node = nodes.get(name)
    for _ in range(len(nodes)):
        if node is None or node.op not in through or not _sources(node):
            return node
        node = nodes.get(_sources(node)[0])
    return None


def _constant(name: str, nodes: Dict[str, TfNode]) -> Optional[float]:
    """The value of a constant of one element, also where it enters a loop."""
    node = _behind(name, nodes, ("Identity", "Enter", "RefEnter"))
    if node is None or node.op != "Const":
        return None
    value = np.asarray(node.attrs.get("value"))
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        return None
    return float(value.reshape(()))
