# SPDX-License-Identifier: Apache-2.0
"""Version-1 conditionals: Switch and Merge.

A known predicate makes one branch dead. If the input decides it (a fed ``is_training``), both branches are computed,
and Merge becomes a selection; a device would run one of them, with the same result.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, List, Optional, Tuple

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.frontends.tensorflow.walk import sources_of
from vxm_convert.sim.refusal import AtcRefusal

#: Conditions for a tensor to exist: (tensor of a predicate, its value) of every conditional around it.
Conditions = FrozenSet[Tuple[str, bool]]


def import_switch(importer: Importer, node: TfNode, sources: List[str]) -> None:
    predicate = importer.constant(sources[1])
    if predicate is not None:
        taken = int(bool(predicate))
        importer.aliases[f"{node.name}:{taken}"] = sources[0]
        importer.dead.add(f"{node.name}:{1 - taken}")
        return
    if importer.desc(sources[1]).count != 1:
        shape = importer.desc(sources[1]).shape
        raise AtcRefusal("E13026", f"{node.name} (Switch): the predicate has shape {shape}, expected one truth value")
    around = conditions_of(importer, node)
    for taken in (False, True):
        importer.aliases[f"{node.name}:{int(taken)}"] = sources[0]
        importer.conditions[f"{node.name}:{int(taken)}"] = around | {(sources[1], taken)}


def import_merge(importer: Importer, node: TfNode, sources: List[str]) -> None:
    dead = [source in importer.dead for source in sources]
    if len(sources) != 2 or any(dead):
        importer.aliases[f"{node.name}:0"] = sources[dead.index(False)]
        return
    names = [name for name in node.inputs if not name.startswith("^")]
    found = [_of_tensor(importer, name) for name in names]
    # The conditional that ends here is the one whose two values meet, or that only one side has.
    ending = [(tensor, value) for tensor, value in found[1] - found[0] if (tensor, not value) in found[0]]
    ending = ending or list(found[1] - found[0]) or [(tensor, not value) for tensor, value in found[0] - found[1]]
    if len(ending) != 1:
        raise AtcRefusal(
            "E20001",
            f"{node.name} (Merge): which branch runs depends on the input, and in more than one way",
            "The simulated compiler computes both branches of such conditionals and selects.",
            "Freeze with a constant predicate.",
        )
    predicate, second_is_true = ending[0]
    left, right = (importer.desc(source) for source in sources)
    if left.shape != right.shape or left.dtype != right.dtype:
        raise AtcRefusal("E20001", f"{node.name} (Merge): {left.shape} in one branch and {right.shape} in the other")
    true, false = (sources[1], sources[0]) if second_is_true else (sources[0], sources[1])
    importer.handlers["SelectV2"](importer, TfNode(node.name, "SelectV2", (predicate, true, false), {}))
    importer.conditions[f"{node.name}:0"] = frozenset(c for c in found[0] | found[1] if c[0] != predicate)


def conditions_of(importer: Importer, node: TfNode) -> Conditions:
    """All conditions for a node to run."""
    result: Conditions = frozenset()
    for name in node.inputs:
        result |= _of_tensor(importer, name) if not name.startswith("^") else frozenset()
    return result


def note_conditions(importer: Importer, node: TfNode) -> None:
    """Record a node's conditions for its outputs."""
    found = conditions_of(importer, node)
    if found:
        importer.conditions[node.name] = found


def _of_tensor(importer: Importer, name: str) -> Conditions:
    node, _, index = name.partition(":")
    return importer.conditions.get(f"{node}:{index or 0}") or importer.conditions.get(node) or frozenset()


def pin_constants(nodes: Dict[str, TfNode]) -> Dict[str, TfNode]:
    """Nodes to replace or add, so that a data edge connects constants of a branch to it.

    ``Merge(constant ^pivot, …)``  →  ``Merge(Switch(constant, predicate):k, …)``

    A constant is connected to its branch only by a control edge to the branch's pivot, an Identity after the
    predicate's Switch.
    """
    changed: Dict[str, TfNode] = {}
    for node in nodes.values():
        if node.op != "Merge":
            continue
        inputs = list(node.inputs)
        for number, name in enumerate(inputs):
            found = _pivot(nodes, name.partition(":")[0])
            if found is not None:
                predicate, taken = found
                made = TfNode(f"{node.name}/branch_{number}", "Switch", (name, predicate), {})
                changed[made.name] = made
                inputs[number] = f"{made.name}:{taken}"
        if inputs != list(node.inputs):
            changed[node.name] = TfNode(node.name, node.op, tuple(inputs), node.attrs)
    return changed


def _pivot(nodes: Dict[str, TfNode], start: str) -> Optional[Tuple[str, int]]:
    """(predicate, branch) of a tensor that does not depend on a Switch."""
    todo, seen, found = [start], {start}, None
    while todo:
        node = nodes.get(todo.pop())
        if node is None or node.op in ("Switch", "Merge", "Enter", "NextIteration", "Placeholder"):
            return None
        for name in node.inputs:
            if name.startswith("^"):
                found = found or _predicate_of(nodes, nodes.get(name[1:]))
        fresh = [name for name in sources_of(node) if name not in seen]
        seen.update(fresh)
        todo.extend(fresh)
    return found


def _predicate_of(nodes: Dict[str, TfNode], pivot: Optional[TfNode]) -> Optional[Tuple[str, int]]:
    sources = sources_of(pivot) if pivot is not None and pivot.op == "Identity" else []
    switch = nodes.get(sources[0]) if sources else None
    if switch is None or switch.op != "Switch" or len(switch.inputs) < 2:
        return None
    return switch.inputs[1], int(pivot.inputs[0].endswith(":1"))  # type: ignore[union-attr]
