# SPDX-License-Identifier: Apache-2.0
"""Walks the graph in order and resolves version-1 control flow: conditionals with a known predicate, loops with a known
trip count.

A while loop is unrolled by partial evaluation: the importer follows its variables iteration by iteration, the condition
must fold to a constant each time, and the body is copied as ``node/iteration_<n>``. The real compiler keeps the loop
and runs its TensorArray nodes on the AI CPU, so a compiled loop is larger here, and its time per step says nothing
about a device; operators of a copy carry ``vxm_unrolled_iteration``, and the model names its loops in
``vxm_unrolled_loops``.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence, Set

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow import branches, functions
from vxm_convert.sim.frontends.tensorflow.folding import fold
from vxm_convert.sim.frontends.tensorflow.functions import MAX_ITERATIONS
from vxm_convert.sim.frontends.tensorflow.import_state import PASS_THROUGH, Importer
from vxm_convert.sim.frontends.tensorflow.walk import ordered, sources_of
from vxm_convert.sim.refusal import AtcRefusal

_VERSION_1 = frozenset("Enter Merge Switch LoopCond NextIteration Exit".split())
OPERATORS = _VERSION_1 | functions.OPERATORS


class Loop(NamedTuple):
    """Nodes of one while frame. `merges[i]` starts as ``enter`` and continues as what its NextIteration reads."""

    frame: str
    enters: List[TfNode]
    merges: List[TfNode]
    condition: TfNode
    exits: List[TfNode]


def import_all(importer: Importer, roots: List[str], needed: List[TfNode]) -> None:
    """Import what the roots need (`needed`, in any order); placeholders come first, in the graph's order."""
    _check_operands(needed)
    placeholders = [node for node in importer.nodes.values() if node.op == "Placeholder"]
    walker = _Walker(importer, needed)
    walker.run(placeholders, "", set())
    walker.run(walker.order(roots, {node.name for node in placeholders}), "", set())


def _check_operands(nodes: Iterable[TfNode]) -> None:
    for node in nodes:
        least = 2 if node.op == "Switch" else 1
        if (node.op in _VERSION_1 or node.op in PASS_THROUGH) and len(sources_of(node)) < least:
            raise AtcRefusal(
                "E13026", f"{node.name} ({node.op}) has {len(sources_of(node))} operands, expected {least} or more"
            )


class _Walker:
    def __init__(self, importer: Importer, needed: List[TfNode]) -> None:
        self.importer = importer
        self.caller = functions.Caller(importer, self._run_body)
        self.loops = _find_loops({node.name: node for node in needed})
        self.by_exit = {node.name: loop for loop in self.loops for node in loop.exits}
        self.finished: Set[str] = set()
        #: "frame#iteration" of the copies being made
        self.iteration = ""

    def order(self, roots: List[str], known: Set[str]) -> List[TfNode]:
        return ordered(self.importer.nodes, roots, self._needs, known)

    def _needs(self, node: TfNode) -> List[str]:
        """A loop counts as one node: its exits need its inputs."""
        if node.name in self.by_exit:
            return [source for enter in self.by_exit[node.name].enters for source in sources_of(enter)]
        return sources_of(node)

    def run(self, nodes: List[TfNode], suffix: str, local: Set[str]) -> None:
        """Import nodes in order; those in `local` are copies with `suffix`."""
        for node in nodes:
            if node.name in self.by_exit:
                self._unroll(self.by_exit[node.name], suffix, local)
            elif node.op == "Const":
                if node.name not in self.importer.ops:
                    import_node(self.importer, node)
            else:
                copy = _copy(node, suffix, local)
                if copy is not node:
                    self.importer.copies[copy.name] = (node.name, self.iteration)
                if copy.op in functions.OPERATORS:
                    self.caller.expand(copy, self.iteration if copy is not node else "")
                else:
                    import_node(self.importer, copy)

    def _run_body(self, nodes: Dict[str, TfNode], args: Sequence[str], roots: Sequence[str]) -> None:
        """Import a function's nodes, which already have unique names."""
        _check_operands(nodes.values())
        nodes.update(branches.pin_constants(nodes))
        self.importer.nodes.update(nodes)
        self.by_exit.update({node.name: loop for loop in _find_loops(nodes) for node in loop.exits})
        known = set(args)
        self.run(self.order([root for root in roots if root not in known], known), "", set())

    def _unroll(self, loop: Loop, suffix: str, local: Set[str]) -> None:
        if loop.frame + suffix in self.finished:
            return
        self.finished.add(loop.frame + suffix)
        importer, nodes = self.importer, self.importer.nodes
        bound = {node.name for node in loop.enters + loop.merges}
        test = self.order([loop.condition.name], bound)
        following = [_next_of(merge, nodes) for merge in loop.merges]
        body = self.order([sources_of(node)[0] for node in following], bound | {node.name for node in test})
        inner = bound | {node.name for node in test + body if node.op != "Const"}
        entered = {node.name: importer.tensor(_rename(node.inputs[0], suffix, local)) for node in loop.enters}
        values = [entered[_enter_of(merge, nodes).name] for merge in loop.merges]
        for iteration in range(MAX_ITERATIONS + 1):
            inside = f"{suffix}/iteration_{iteration}"
            self.iteration = f"{loop.frame}#{iteration}"
            for name, value in entered.items():
                importer.aliases[f"{name}{inside}:0"] = value
            for merge, value in zip(loop.merges, values):
                importer.aliases[f"{merge.name}{inside}:0"] = value
            self.run(test, inside, inner)
            if not self._goes_on(loop, inside):
                break
            self._check_count(loop, iteration)
            self.run(body, inside, inner)
            values = [importer.tensor(_rename(node.inputs[0], inside, inner)) for node in following]
        for node in loop.exits:
            source = sources_of(nodes[sources_of(node)[0]])[0]
            position = [m.name for m in loop.merges].index(source)
            importer.aliases[f"{_rename(node.name, suffix, local)}:0"] = values[position]

    def _goes_on(self, loop: Loop, inside: str) -> bool:
        value = self.importer.constant(f"{loop.condition.name}{inside}")
        if value is None:
            raise AtcRefusal(
                "E20001",
                f"loop {loop.frame}: its condition {loop.condition.name} depends on the input, so its trip count is "
                "not known",
                "The simulated compiler unrolls loops and needs a static count.",
                "Fix the batch size, or export without the loop.",
            )
        return bool(value)

    @staticmethod
    def _check_count(loop: Loop, iteration: int) -> None:
        if iteration >= MAX_ITERATIONS:
            raise AtcRefusal(
                "E20001", f"loop {loop.frame} runs more than {MAX_ITERATIONS} times; the simulated compiler unrolls it"
            )


def _rename(name: str, suffix: str, local: Set[str]) -> str:
    node, colon, index = name.partition(":")
    return f"{node}{suffix}{colon}{index}" if node in local else name


def _copy(node: TfNode, suffix: str, local: Set[str]) -> TfNode:
    if node.name not in local:
        return node
    inputs = tuple(_rename(name, suffix, local) for name in node.inputs if not name.startswith("^"))
    return TfNode(node.name + suffix, node.op, inputs, node.attrs)


def _find_loops(nodes: Dict[str, TfNode]) -> List[Loop]:
    frames: Dict[str, List[TfNode]] = {}
    for node in nodes.values():
        if node.op == "Enter":
            frames.setdefault(str(node.attrs.get("frame_name")), []).append(node)
    merged = {node.name: node for node in nodes.values() if node.op == "Merge"}
    switches = [node for node in nodes.values() if node.op == "Switch"]
    exits = [node for node in nodes.values() if node.op == "Exit"]
    return [_loop(frame, enters, merged, switches, exits, nodes) for frame, enters in frames.items()]


def _loop(
    frame: str,
    enters: List[TfNode],
    merged: Dict[str, TfNode],
    switches: List[TfNode],
    exits: List[TfNode],
    nodes: Dict[str, TfNode],
) -> Loop:
    names = {node.name for node in enters}
    merges = [node for node in merged.values() if names & set(sources_of(node))]
    own = {node.name for node in merges}
    conditions = {sources_of(node)[1]: node for node in switches if sources_of(node)[0] in own}
    if len(conditions) != 1 or next(iter(conditions)) not in nodes:
        raise AtcRefusal("E13026", f"loop {frame} has {len(conditions)} conditions, expected 1")
    own_switches = {node.name for node in switches if sources_of(node)[0] in own}
    leaving = [node for node in exits if sources_of(node)[0] in own_switches]
    return Loop(frame, enters, merges, nodes[next(iter(conditions))], leaving)


def _enter_of(merge: TfNode, nodes: Dict[str, TfNode]) -> TfNode:
    return next(nodes[name] for name in sources_of(merge) if nodes[name].op == "Enter")


def _next_of(merge: TfNode, nodes: Dict[str, TfNode]) -> TfNode:
    found = [nodes[name] for name in sources_of(merge) if name in nodes and nodes[name].op == "NextIteration"]
    if len(found) != 1:
        raise AtcRefusal("E13026", f"loop variable {merge.name} has {len(found)} NextIteration nodes, expected 1")
    return found[0]


def import_node(importer: Importer, node: TfNode) -> None:
    """Import one node whose operands are known: alias, constant, dead branch, or the operator its handler makes."""
    sources = [importer.tensor(name) for name in node.inputs if not name.startswith("^")]
    dead = [source in importer.dead for source in sources]
    if node.op == "Merge" and not all(dead):
        branches.import_merge(importer, node, sources)
    elif node.op == "IdentityN":
        importer.aliases.update({f"{node.name}:{index}": source for index, source in enumerate(sources)})
    elif any(dead):
        importer.dead.update(
            f"{node.name}:{index}" for index in range(int(node.attrs.get("num") or node.attrs.get("num_split") or 2))
        )
    elif node.op in PASS_THROUGH:
        importer.aliases[f"{node.name}:0"] = sources[0]
    elif node.op == "Switch":
        branches.import_switch(importer, node, sources)
    else:
        _import_operator(importer, node)
    if node.op not in ("Switch", "Merge"):
        branches.note_conditions(importer, node)


def _import_operator(importer: Importer, node: TfNode) -> None:
    values = fold(importer, node)
    if values is not None:
        for index, value in enumerate(values):
            name = f"{node.name}_{index}" if index else node.name
            importer.aliases[f"{node.name}:{index}"] = importer.add_const(name, value)
        return
    handler: Callable[[Importer, TfNode], None] = importer.handlers.get(node.op, _refuse)
    try:
        handler(importer, node)
    except (IndexError, KeyError, ValueError, TypeError) as exc:
        raise AtcRefusal(
            "E13026", f"{node.name}: its operands or attributes are not those of a {node.op} node ({exc!r})"
        ) from exc
    made = importer.ops.get(node.name)
    for desc in made.output_descs if made is not None and made.data is None else ():
        if any(side <= 0 for side in desc.shape):
            raise AtcRefusal(
                "E20001", f"{node.name} ({node.op}) has shape {desc.shape}; every side must be known and above 0"
            )


def _refuse(importer: Importer, node: TfNode) -> None:
    raise AtcRefusal(
        "E20001",
        f"{node.name} ({node.op}): its operands must be known when the model is compiled",
        solution="Freeze with static shapes.",
    )
