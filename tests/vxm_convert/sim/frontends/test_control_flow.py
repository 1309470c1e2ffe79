# SPDX-License-Identifier: Apache-2.0
"""Version-1 loops, conditionals and tensor arrays in the simulated compiler, written node by node."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb, run_pb
from vxm_convert.sim.refusal import AtcRefusal

INT = np.dtype("int32")


def _loop(pb, limit, body):
    """``i = 0; v = x; while i < limit: v = body(i, v); i += 1``; returns the node that leaves with v."""
    enters = {
        "i": pb.node("Enter", "w/i", pb.const("start", np.array(0, np.int32)), frame_name="w/frame", is_constant=False),
        "v": pb.node("Enter", "w/v", "x", frame_name="w/frame", is_constant=False),
        "limit": pb.node("Enter", "w/limit", limit, frame_name="w/frame", is_constant=True),
    }
    for key in "iv":
        pb.node("Merge", f"w/merge_{key}", enters[key], f"w/next_{key}")
    condition = pb.node("LoopCond", "w/cond", pb.node("Less", "w/less", "w/merge_i", enters["limit"]))
    for key in "iv":
        pb.node("Switch", f"w/switch_{key}", f"w/merge_{key}", condition)
    i, v = (pb.node("Identity", f"w/now_{key}", f"w/switch_{key}:1") for key in "iv")
    pb.node("NextIteration", "w/next_i", pb.node("AddV2", "w/more", i, pb.const("w/one", np.array(1, np.int32))))
    pb.node("NextIteration", "w/next_v", body(i, v))
    return pb.node("Exit", "w/exit", "w/switch_v")


def _sum_of_counters(pb, limit):
    def body(i, v):
        number = pb.node("Cast", "w/float", i, SrcT=INT, DstT=np.dtype("float32"))
        return pb.node("AddV2", "w/add", pb.node("Mul", "w/twice", v, "two"), number)

    pb.const("two", np.array(2, np.float32))
    pb.node("Identity", "y", _loop(pb, limit, body))


def test_a_loop_with_a_known_count_is_unrolled(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    _sum_of_counters(pb, pb.const("limit", np.array(4, np.int32)))
    path = pb.save(tmp_path / "g.pb")
    model = compile_pb(path, tmp_path / "g.om", [("y", 0)])
    assert model.attrs["vxm_unrolled_loops"] == ["w/frame: 4"]
    assert [op.name for op in model.graph if op.type == "Mul"] == [f"w/twice/iteration_{n}" for n in range(4)]
    assert {tuple(op.attrs["_datadump_original_op_names"]) for op in model.graph if op.type == "Mul"} == {("w/twice",)}
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [np.array([0, 1, -2], np.float32)])
    want = np.array([0, 1, -2])
    for i in range(4):
        want = want * 2 + i
    assert got.tolist() == want.tolist()


def test_names_of_a_loop_body_may_be_kept(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    _sum_of_counters(pb, pb.const("limit", np.array(2, np.int32)))
    model = compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], keep=["w/twice"])
    assert {op.output_descs[0].dtype for op in model.graph if op.type == "Mul"} == {"float32"}
    assert {op.output_descs[0].dtype for op in model.graph if op.type == "Add"} == {"float16"}


def test_a_loop_that_never_runs_gives_what_entered(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    _sum_of_counters(pb, pb.const("limit", np.array(0, np.int32)))
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [np.array([5, 6, 7], np.float32)])
    assert got.tolist() == [5, 6, 7]


@pytest.mark.parametrize("limit, text", [(None, "trip count"), (100000, "more than 1024 times")])
def test_counts_that_cannot_be_unrolled_are_refused(limit, text, tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    count = pb.placeholder("count", (), "int32") if limit is None else pb.const("limit", np.array(limit, np.int32))
    _sum_of_counters(pb, count)
    with pytest.raises(AtcRefusal, match=text) as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    assert caught.value.code == "E20001" and "w/frame" in caught.value.message


def test_a_cycle_outside_of_a_loop_is_refused(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    pb.node("AddV2", "a", "x", "b")
    pb.node("Relu", "b", "a")
    with pytest.raises(AtcRefusal, match="depends on itself") as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("b", 0)])
    assert caught.value.code == "E13026"


def test_unsupported_operators_inside_a_loop_are_named(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3,))
    inside = _loop(pb, pb.const("limit", np.array(2, np.int32)), lambda i, v: pb.node("Lgamma", "w/bad", v))
    pb.node("Digamma", "y", inside)
    with pytest.raises(AtcRefusal, match=r"(?=.*w/bad \(Lgamma\))(?=.*y \(Digamma\))") as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    assert caught.value.code == "E13010"


def _conditional(pb, predicate):
    pb.node("Switch", "s", "x", predicate)
    pb.node("Merge", "y", pb.node("Neg", "no", "s"), pb.node("Relu", "yes", "s:1"))
    return pb


@pytest.mark.parametrize("taken", [True, False])
def test_a_conditional_with_a_known_predicate_keeps_one_branch(taken, tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (2,))
    path = _conditional(pb, pb.const("p", np.array(taken))).save(tmp_path / "g.pb")
    kinds = {op.type for op in compile_pb(path, tmp_path / "g.om", [("y", 0)]).graph}
    assert ("Relu" in kinds, "Neg" in kinds) == (taken, not taken)
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [np.array([-1, 2], np.float32)])
    assert got.tolist() == ([0, 2] if taken else [1, -2])


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_conditional_on_the_input_computes_both_branches_and_selects(shape, tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (2,))
    path = _conditional(pb, pb.placeholder("p", shape, "bool")).save(tmp_path / "g.pb")
    for taken, want in ((True, [0, 2]), (False, [1, -2])):
        (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [np.array([-1, 2], np.float32), np.full(shape, taken)])
        assert got.tolist() == want


def test_a_conditional_on_more_than_one_truth_value_is_refused(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (2,))
    _conditional(pb, pb.placeholder("p", (2,), "bool"))
    with pytest.raises(AtcRefusal, match="one truth value"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def _array(pb, size, rows):
    handle = pb.node("TensorArrayV3", "ta", pb.const("size", np.array(size, np.int32)), dtype=np.dtype("float32"))
    flow = pb.node("TensorArrayScatterV3", "put", handle, pb.const("rows", np.array(rows, np.int32)), "x", "ta:1")
    return handle, flow


def test_tensor_arrays_keep_their_elements_by_index(tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3, 2))
    handle, flow = _array(pb, 3, [2, 0, 1])
    second = pb.node(
        "TensorArrayReadV3", "read", handle, pb.const("two", np.array(2, np.int32)), flow, dtype=np.dtype("float32")
    )
    written = pb.node("TensorArrayWriteV3", "write", handle, "two", pb.node("Neg", "neg", second), flow)
    order = pb.const("order", np.array([0, 1, 2, 2], np.int32))
    pb.node("TensorArrayGatherV3", "y", handle, order, written, dtype=np.dtype("float32"))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x])
    assert np.array_equal(got, [x[1], x[2], -x[0], -x[0]])


@pytest.mark.parametrize(
    "size, rows, text",
    [(4, [0, 1, 2], "before it was written"), (2, [0, 1, 2], "tensor array of 2"), (1 << 20, [0, 1, 2], "at most")],
)
def test_wrong_use_of_a_tensor_array_is_refused(size, rows, text, tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (3, 2))
    handle, flow = _array(pb, size, rows)
    pb.node("TensorArrayReadV3", "y", handle, pb.const("at", np.array(3, np.int32)), flow, dtype=np.dtype("float32"))
    with pytest.raises(AtcRefusal, match=text):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


@pytest.mark.parametrize(
    "op, inputs",
    [
        ("ConcatV2", ()),
        ("Conv2D", ("x",)),
        ("Unpack", ("x",)),
        ("Cast", ("x",)),
        ("AddV2", ("x",)),
        ("Switch", ("x",)),
        ("Identity", ()),
        ("Exit", ("x",)),
        ("NextIteration", ("x",)),
    ],
)
def test_nodes_without_their_operands_are_refused(op, inputs, tmp_path):
    pb = PbBuilder()
    pb.placeholder("x", (2, 2))
    pb.node(op, "y", *inputs)
    with pytest.raises(AtcRefusal):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
