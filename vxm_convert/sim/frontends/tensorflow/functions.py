# SPDX-License-Identifier: Apache-2.0
"""Version-2 control flow: calls of functions, conditionals and loops whose bodies are in the graph's function library.

The real compiler keeps the bodies as subgraphs that the device runs. Here the importer inlines a body at each call, a
loop body once per iteration; if the input decides a branch, both sides are computed and one is selected.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from vxm_convert.formats.tf_graph import TfFunction, TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.frontends.tensorflow.walk import reachable
from vxm_convert.sim.refusal import AtcRefusal

CALLS = frozenset("PartitionedCall StatefulPartitionedCall".split())
CHOICES = frozenset("If StatelessIf Case StatelessCase".split())
LOOPS = frozenset("While StatelessWhile".split())
OPERATORS = CALLS | CHOICES | LOOPS
#: Further unrolling would make a model that no device loads.
MAX_ITERATIONS = 1024
#: Largest number of inlined nodes in total; nested calls multiply.
MAX_COPIED = 1 << 18

#: Imports the body: (its nodes, names of the arguments, names of the results' nodes).
RunBody = Callable[[Dict[str, TfNode], Sequence[str], Sequence[str]], None]


def bodies_of(nodes: Sequence[TfNode]) -> Iterator[TfNode]:
    """Every node that the nodes' functions execute, each function once."""
    todo, seen = list(nodes), set()
    while todo:
        for function in functions_of(todo.pop()):
            if function.name not in seen:
                seen.add(function.name)
                inside = _needed(function)
                todo.extend(inside)
                yield from inside


def functions_of(node: TfNode) -> List[TfFunction]:
    """The functions that a node executes; E12013 if one is not in the library."""
    if node.op not in OPERATORS:
        return []
    keys = ("f",) if node.op in CALLS else ("cond", "body") if node.op in LOOPS else ("then_branch", "else_branch")
    found: Any = node.attrs.get("branches") if "Case" in node.op else [node.attrs.get(key) for key in keys]
    for function in found or [None]:
        if not isinstance(function, TfFunction) or function.missing:
            name = function.name if isinstance(function, TfFunction) else "no function"
            raise AtcRefusal(
                "E12013",
                f"{node.name} ({node.op}) calls {name}, which the graph's function library does not have",
                solution="Freeze the graph together with its functions.",
            )
    return list(found)


def _needed(function: TfFunction) -> List[TfNode]:
    nodes = {node.name: node for node in function.nodes}
    for name in function.args:
        nodes[name] = TfNode(name, "Placeholder", (), {})
    found = reachable(nodes, [name.partition(":")[0] for name in function.returns])
    return [node for node in found if node.name not in function.args]


class Caller:
    """Copies bodies into the graph that is being imported."""

    def __init__(self, importer: Importer, run_body: RunBody) -> None:
        self.importer = importer
        self.run_body = run_body
        self.copied = 0

    def expand(self, node: TfNode, iteration: str) -> None:
        """Import the functions of `node` and define its outputs; `iteration` marks copies inside another loop."""
        sources = [self.importer.tensor(name) for name in node.inputs if not name.startswith("^")]
        functions = functions_of(node)
        if any(source in self.importer.dead for source in sources):
            self.importer.dead.update(f"{node.name}:{index}" for index in range(max(len(f.returns) for f in functions)))
            return
        if node.op in CALLS:
            results = self._call(functions[0], node.name, node.name, sources, iteration)
        elif node.op in LOOPS:
            results = self._loop(node, functions, sources)
        else:
            results = self._choose(node, functions, sources, iteration)
        for index, tensor in enumerate(results):
            self.importer.aliases[f"{node.name}:{index}"] = tensor

    def _choose(self, node: TfNode, functions: List[TfFunction], sources: List[str], iteration: str) -> List[str]:
        value = self.importer.constant(sources[0])
        case = "Case" in node.op
        if value is not None:
            # Case takes the last branch for a number without a branch.
            last = len(functions) - 1
            picked = (int(value) if 0 <= int(value) <= last else last) if case else 1 - int(bool(value))
            return self._call(functions[picked], node.name, node.name, sources[1:], iteration)
        if case or self.importer.desc(sources[0]).shape:
            raise AtcRefusal(
                "E20001",
                f"{node.name} ({node.op}): which branch runs depends on the input",
                "The simulated compiler supports input-dependent branches only for conditionals with one truth value.",
            )
        taken, other = (
            self._call(function, f"{node.name}/{side}", node.name, sources[1:], iteration)
            for function, side in zip(functions, ("then", "else"))
        )
        return [self._select(node, index, sources[0], pair) for index, pair in enumerate(zip(taken, other))]

    def _select(self, node: TfNode, index: int, condition: str, pair: Tuple[str, str]) -> str:
        left, right = (self.importer.desc(name) for name in pair)
        if left.shape != right.shape or left.dtype != right.dtype:
            raise AtcRefusal(
                "E20001", f"{node.name}: result {index} is {left.shape} in one branch and {right.shape} in the other"
            )
        name = f"{node.name}/select_{index}"
        made = TfNode(name, "SelectV2", (condition,) + pair, {})
        self.importer.handlers["SelectV2"](self.importer, made)
        return f"{name}:0"

    def _loop(self, node: TfNode, functions: List[TfFunction], values: List[str]) -> List[str]:
        condition, body = functions
        for iteration in range(MAX_ITERATIONS + 1):
            prefix, label = f"{node.name}/iteration_{iteration}", f"{node.name}#{iteration}"
            tests = self._call(condition, f"{prefix}/cond", node.name, values, label)
            if len(tests) != 1:
                raise AtcRefusal(
                    "E13026",
                    f"{node.name} ({node.op}): its condition returns {len(tests)} results, expected one truth value",
                )
            goes_on = self.importer.constant(tests[0])
            if goes_on is None:
                raise AtcRefusal(
                    "E20001",
                    f"loop {node.name}: its condition depends on the input, so its trip count is not known",
                    "The simulated compiler unrolls loops and needs a static count.",
                    "Fix the batch size, or export without the loop.",
                )
            if not goes_on:
                break
            if iteration >= MAX_ITERATIONS:
                raise AtcRefusal(
                    "E20001",
                    f"loop {node.name} runs more than {MAX_ITERATIONS} times; the simulated compiler unrolls it",
                )
            values = self._call(body, prefix, node.name, values, label)
        return values

    def _call(self, function: TfFunction, prefix: str, origin: str, sources: List[str], iteration: str) -> List[str]:
        """Tensors of a function's results; its nodes become ``prefix/function/node``."""
        if len(sources) != len(function.args):
            raise AtcRefusal(
                "E13026", f"{origin}: {len(sources)} operands for function {function.name} of {len(function.args)}"
            )
        nodes = _needed(function)
        self.copied += len(nodes)
        if self.copied > MAX_COPIED:
            raise AtcRefusal("E20001", f"{origin}: calls inline more than {MAX_COPIED} nodes")
        scope = f"{prefix}/{function.name}"
        copies = {}
        for node in nodes:
            inputs = tuple(f"{scope}/{name}" for name in node.inputs if not name.startswith("^"))
            copies[f"{scope}/{node.name}"] = TfNode(f"{scope}/{node.name}", node.op, inputs, node.attrs)
            self.importer.copies[f"{scope}/{node.name}"] = (f"{origin}/{node.name}", iteration)
        args = [f"{scope}/{name}" for name in function.args]
        taken = [name for name in list(copies) + args if name in self.importer.nodes]
        if taken:
            raise AtcRefusal("E13026", f"{origin}: the graph already has a node {taken[0]}; rename it")
        self.importer.aliases.update({f"{name}:0": source for name, source in zip(args, sources)})
        results = [f"{scope}/{name}" for name in function.returns]
        self.run_body(copies, args, [name.partition(":")[0] for name in results])
        return [self.importer.tensor(name) for name in results]
