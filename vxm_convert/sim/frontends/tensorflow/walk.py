# SPDX-License-Identifier: Apache-2.0
"""Orders of a TensorFlow graph's nodes, without recursion (graphs are deep). Control edges carry no data and are
ignored.
"""

from __future__ import annotations

from typing import AbstractSet, Callable, Dict, Iterable, List

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.refusal import AtcRefusal


def sources_of(node: TfNode) -> List[str]:
    """Names of the nodes that a node reads."""
    return [entry.partition(":")[0] for entry in node.inputs if not entry.startswith("^")]


def reachable(nodes: Dict[str, TfNode], roots: Iterable[str]) -> List[TfNode]:
    """Every node the roots need, operands before readers as far as loops allow; placeholders come first."""
    first = [node for node in nodes.values() if node.op == "Placeholder"]
    return first + _post_order(nodes, roots, sources_of, {node.name for node in first}, loops=True)


def ordered(
    nodes: Dict[str, TfNode], roots: Iterable[str], needs: Callable[[TfNode], List[str]], known: AbstractSet[str]
) -> List[TfNode]:
    """Nodes that the roots need and that are not `known` yet, operands first; raises AtcRefusal E13026 for a cycle."""
    return _post_order(nodes, roots, needs, known, loops=False)


def _post_order(
    nodes: Dict[str, TfNode],
    roots: Iterable[str],
    needs: Callable[[TfNode], List[str]],
    known: AbstractSet[str],
    loops: bool,
) -> List[TfNode]:
    order: List[TfNode] = []
    done = set(known)
    open_nodes = set()
    stack = [(name, False) for name in reversed(list(roots))]
    while stack:
        name, expanded = stack.pop()
        if name in done:
            continue
        if name not in nodes:
            raise AtcRefusal("E13026", f"a node reads {name}, which the graph does not have")
        if expanded:
            done.add(name)
            open_nodes.discard(name)
            order.append(nodes[name])
            continue
        if name in open_nodes:
            if loops:
                continue
            raise AtcRefusal("E13026", f"node {name} depends on itself, and not through a while loop's NextIteration")
        open_nodes.add(name)
        stack.append((name, True))
        stack.extend((source, False) for source in reversed(needs(nodes[name])) if source not in done)
    return order
