# SPDX-License-Identifier: Apache-2.0
"""The decisions that a graph offers, grouped: nodes that may keep fp32, and layers whose weights may be split."""

from __future__ import annotations

from typing import Dict, List, Set

from export.preflight.view.graph import GraphView
from export.tune.cost import SPLIT, GraphCost, is_cube
from export.tune.search import Group

_LAYER_PARTS = ("kernel", "Conv3D", "BiasAdd")


def scope_groups(view: GraphView, cost: GraphCost) -> List[Group]:
    """Nodes of one top-level name scope together, in graph order, and one group per layer that can be split.

    A node is offered if keeping it alone changes a dtype of it.
    """
    scopes: Dict[str, List[str]] = {}
    for node in view.nodes:
        if cost.changes(node.name):
            scopes.setdefault(node.name.split("/")[0], []).append(node.name)
    groups = [Group(_title(scope, names), tuple(names)) for scope, names in scopes.items()]
    return groups + split_groups(view)


def split_groups(view: GraphView) -> List[Group]:
    """Layers that the pass `export.passes.apply.split_weights` knows how to split."""
    names = {node.name for node in view.nodes}
    layers = [
        node.name[: -len("/Conv3D")] for node in view.nodes if node.op == "Conv3D" and node.name.endswith("/Conv3D")
    ]
    return [
        Group(SPLIT + layer, (SPLIT + layer,))
        for layer in layers
        if all(f"{layer}/{part}" in names for part in _LAYER_PARTS)
    ]


def split_group(view: GraphView, group: Group) -> List[Group]:
    """Its parts: each node alone, a convolution with its bias."""
    if len(group.atoms) < 2:
        return [group]
    readers = {
        node.inputs[0].partition(":")[0]: node.name for node in view.nodes if node.op == "BiasAdd" and node.inputs
    }
    cubes = {node.name for node in view.nodes if is_cube(node)}
    parts: List[Group] = []
    taken: Set[str] = set()
    for name in group.atoms:
        if name in taken:
            continue
        bias = readers.get(name) if name in cubes else None
        atoms = (name, bias) if bias in group.atoms else (name,)
        taken.update(atoms)
        parts.append(Group(name, atoms))
    return parts


def _title(scope: str, names: List[str]) -> str:
    return names[0] if len(names) == 1 else scope + "/*"
