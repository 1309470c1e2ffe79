# SPDX-License-Identifier: Apache-2.0
"""Functions of a graph's library (version-2 control flow), written node by node."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb, run_pb
from vxm_convert.errors import FormatError
from vxm_convert.sim.refusal import AtcRefusal


class _WithFunctions(PbBuilder):
    """Adds functions to the graph's library."""

    def function(self, name, args, returns, nodes):
        """`nodes` are (op, name, inputs); inputs and `returns` as function bodies write them (``node:output:0``)."""
        made = self.graph.library.function.add()
        made.signature.name = name
        for arg in args:
            made.signature.input_arg.add(name=arg)
        for number, source in enumerate(returns):
            made.signature.output_arg.add(name=f"r{number}")
            made.ret.add(key=f"r{number}", value=source)
        for op, inner, inputs, calls in nodes:
            node = made.node_def.add(name=inner, op=op)
            node.input.extend(inputs)
            for key, called in calls.items():
                node.attr.add(key=key).value.func.name = called

    def call(self, op, name, *inputs, **functions):
        self.node(op, name, *inputs)
        for key, called in functions.items():
            self.graph.node[-1].attr.add(key=key).value.func.name = called
        return name


def test_calls_are_copied_in_with_names_of_their_own(tmp_path):
    pb = _WithFunctions()
    pb.function("inner", ["a"], ["n:y:0", "a"], [("Neg", "n", ["a"], {})])
    pb.function(
        "outer",
        ["a", "b"],
        ["s:z:0"],
        [
            ("PartitionedCall", "c", ["a"], {"f": "inner"}),
            ("Mul", "s", ["c:output:0", "b"], {}),
            ("Lgamma", "unused", ["a"], {}),
        ],
    )
    x = pb.placeholder("x", (3,))
    first = pb.call("PartitionedCall", "one", x, x, f="outer")
    second = pb.call("StatefulPartitionedCall", "two", first, x, f="outer")
    pb.node("AddV2", "y", first, second)
    model = compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    assert {"one/outer/s", "two/outer/s", "one/outer/c/inner/n"} <= {op.name for op in model.graph}
    (got,) = run_pb(tmp_path / "g.pb", tmp_path / "g.om", [("y", 0)], [np.array([1, 2, -3], np.float32)])
    assert got.tolist() == [0, 4, -36]


@pytest.mark.parametrize(
    "returns, op, calls, code, text",
    [
        (["a"], "PartitionedCall", {"f": "nowhere"}, "E12013", "y (PartitionedCall) calls nowhere"),
        (["a"], "PartitionedCall", {}, "E12013", "y"),
        (["n:y:0"], "PartitionedCall", {"f": "made"}, "E13010", "n (Lgamma)"),
        (["b"], "PartitionedCall", {"f": "made"}, "E13026", "reads b"),
    ],
)
def test_wrong_functions_are_refused(returns, op, calls, code, text, tmp_path):
    pb = _WithFunctions()
    pb.function("made", ["a"], returns, [("Lgamma", "n", ["a"], {})])
    pb.call(op, "y", pb.placeholder("x", (3,)), **calls)
    with pytest.raises(AtcRefusal, match=re.escape(text)) as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    assert caught.value.code == code


@pytest.mark.parametrize("returns, text", [(["a", "a"], "expected one truth value"), ([], "expected one truth value")])
def test_a_loop_has_one_condition(returns, text, tmp_path):
    pb = _WithFunctions()
    pb.function("made", ["a"], returns, [])
    pb.call("While", "y", pb.placeholder("x", (3,)), cond="made", body="made")
    with pytest.raises(AtcRefusal, match=text):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_functions_that_do_not_fit_together_are_refused_when_the_graph_is_read(tmp_path):
    pb = _WithFunctions()
    pb.function("made", ["a", "a"], ["a"], [])
    pb.call("PartitionedCall", "y", pb.placeholder("x", (3,)), "x", f="made")
    with pytest.raises(FormatError, match="names appear twice"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    del pb.graph.library.function[0].signature.input_arg[1], pb.graph.library.function[0].ret[0]
    with pytest.raises(FormatError, match="does not define its results r0"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_functions_that_call_themselves_are_refused_when_the_graph_is_read(tmp_path):
    pb = _WithFunctions()
    pb.function("a", ["x"], ["c:output:0"], [("PartitionedCall", "c", ["x"], {"f": "b"})])
    pb.function("b", ["x"], ["c:output:0"], [("PartitionedCall", "c", ["x"], {"f": "a"})])
    pb.call("PartitionedCall", "y", pb.placeholder("x", (3,)), f="a")
    with pytest.raises(FormatError, match="calls itself"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_calls_that_multiply_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vxm_convert.sim.frontends.tensorflow.functions.MAX_COPIED", 1000)
    pb = _WithFunctions()
    pb.function("f0", ["x"], ["n:y:0"], [("Neg", "n", ["x"], {})])
    for level in range(1, 20):
        pb.function(
            f"f{level}",
            ["x"],
            ["b:output:0"],
            [
                ("PartitionedCall", "a", ["x"], {"f": f"f{level - 1}"}),
                ("PartitionedCall", "b", ["a:output:0"], {"f": f"f{level - 1}"}),
            ],
        )
    pb.call("PartitionedCall", "y", pb.placeholder("x", (3,)), f="f19")
    with pytest.raises(AtcRefusal, match="inline more than 1000"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_a_functional_loop_whose_end_depends_on_the_input_is_refused(tmp_path):
    pb = _WithFunctions()
    pb.function("test", ["a"], ["g:z:0"], [("Less", "g", ["a", "a"], {})])
    pb.function("body", ["a"], ["n:y:0"], [("Neg", "n", ["a"], {})])
    pb.call("While", "y", pb.placeholder("x", ()), cond="test", body="body")
    with pytest.raises(AtcRefusal, match="loop y: its condition depends on the input"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_damaged_graphs_with_functions_are_refused_and_nothing_else(tmp_path):
    """Some changes leave a graph that compiles; none may end in another error."""
    pb = _WithFunctions()
    pb.function("inner", ["a"], ["n:y:0", "a"], [("Neg", "n", ["a"], {})])
    pb.function(
        "outer",
        ["a", "b"],
        ["s:z:0"],
        [("PartitionedCall", "c", ["a"], {"f": "inner"}), ("Mul", "s", ["c:output:0", "b"], {})],
    )
    x = pb.placeholder("x", (3,))
    pb.node(
        "AddV2",
        "y",
        pb.call("PartitionedCall", "one", x, x, f="outer"),
        pb.call("PartitionedCall", "two", x, x, f="outer"),
    )
    content, rng, refused = pb.save(tmp_path / "g.pb").read_bytes(), np.random.RandomState(0), 0
    for _ in range(500):
        changed = bytearray(content)
        changed[rng.randint(len(content))] ^= 1 << rng.randint(8)
        (tmp_path / "g.pb").write_bytes(bytes(changed))
        try:
            compile_pb(tmp_path / "g.pb", tmp_path / "g.om", [("y", 0)])
        except (AtcRefusal, FormatError):
            refused += 1
    assert 300 < refused < 500
