# SPDX-License-Identifier: Apache-2.0
"""The decisions that a graph offers, grouped: nodes that may keep fp32, convolutions that may return it, and layers
whose weights may be split.
"""

from __future__ import annotations

from typing import Dict, List

from export.preflight.view.graph import GraphView
from export.tune.cost import SPLIT, GraphCost
from export.tune.search import Group

_LAYER_PARTS = ("kernel", "Conv3D", "BiasAdd")


def scope_groups(view: GraphView, cost: GraphCost) -> List[Group]:
    """Nodes of one top-level name scope together, in graph order, and one group per layer that can be split.

    A node is offered if keeping it alone changes a dtype of it; a convolution, which cannot be kept, offers its result.
    """
    scopes: Dict[str, List[str]] = {}
    for node in view.nodes:
        atom = cost.decision(node.name)
        if atom is not None:
            scopes.setdefault(node.name.split("/")[0], []).append(atom)
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


def split_group(group: Group) -> List[Group]:
    """Its parts: each decision alone."""
    return [Group(atom, (atom,)) for atom in group.atoms] if len(group.atoms) > 1 else [group]


def _title(scope: str, names: List[str]) -> str:
    return names[0] if len(names) == 1 else scope + "/*"
