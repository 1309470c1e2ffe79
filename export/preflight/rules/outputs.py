# SPDX-License-Identifier: Apache-2.0
"""Outputs whose size a compiled model does not know: they come out of a loop that the device decides about."""

from __future__ import annotations

from typing import List

from export.preflight.rules.nodes import WARNING, Finding
from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs

_UNBOUNDED = frozenset(
    "Exit RefExit While StatelessWhile TensorArrayGatherV3 TensorArrayReadV3 TensorArrayConcatV3".split()
)
#: operators that give a result a shape of its own, where that shape is a constant
_RESHAPES = {"Reshape": 1, "BroadcastTo": 1, "Fill": 0}


def unsized_outputs(view: GraphView) -> List[Finding]:
    """A warning for every output that depends on the result of a loop without getting a constant shape afterwards.

    pyACL then reports a size of 0 or more than any tensor needs, and tools such as msame want the size by hand.
    """
    nodes = {node.name: node for node in view.nodes}
    found = []
    for output in view.outputs:
        start = output.rpartition(":")[0]
        stack, seen = [start], {start}
        while stack:
            node = nodes.get(stack.pop())
            if node is None or node.name in view.folded:
                continue
            if node.op in _UNBOUNDED:
                what = f"output {output} comes out of a loop ({node.name}): on a device it has no known size"
                do = (
                    "write the loop out for the fixed batch (no tf.map_fn), reshape the output to a constant shape, or "
                    "give its buffer a size by hand (msame --outputSize, or pyACL's null data buffer)"
                )
                found.append(Finding(WARNING, "no-size", what, do, (start,), (nodes[start].op,)))
                break
            sources = data_inputs(node)
            place = _RESHAPES.get(node.op)
            if place is not None and len(sources) > place and sources[place].rpartition(":")[0] in view.folded:
                continue
            for source in sources:
                name = source.rpartition(":")[0]
                if name not in seen:
                    seen.add(name)
                    stack.append(name)
    return found
