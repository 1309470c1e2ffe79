# SPDX-License-Identifier: Apache-2.0
"""The convolutions of full size by compiled loops: what they compute, which graphs have such an ending, and what the
graph behind is cut into.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.support.graphs import compile_pb, conv_attrs, up_conv_graph
from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.sim.engine import program as programs
from vxm_convert.sim.engine.ending import find, run
from vxm_convert.sim.engine.ending.find import find_ending
from vxm_convert.sim.engine.ending.slabs import in_slabs
from vxm_convert.sim.engine.load import load_program
from vxm_convert.sim.numerics import round_to_half

SIDE, CHANNELS = 32, 16


@pytest.fixture(autouse=True)
def loops(monkeypatch):
    """The loops wherever they can be compiled, and for small volumes."""
    pytest.importorskip("numba")
    from llvmlite.binding import get_host_cpu_features

    if not get_host_cpu_features().get("f16c"):
        pytest.skip("this processor does not convert fp16")
    monkeypatch.setattr(programs, "usable", lambda: True)
    monkeypatch.setattr(find, "LEAST_VOXELS", 1)


def network(rng, plain=1, outputs=3, warp=True, channels=CHANNELS, scale=0.1):
    """The end of a network: doubled volume, convolutions, flow; behind it, each voxel of the skip's first channel from
    where the flow points to.
    """
    pb = up_conv_graph(rng, SIDE // 2, channels, 2, CHANNELS)
    value = "y"
    for number in range(plain):
        kernel = pb.const(f"k{number}", (rng.randn(3, 3, 3, CHANNELS, CHANNELS) * scale).astype(np.float32))
        value = pb.node("Conv3D", f"plain{number}", value, kernel, **conv_attrs())
        value = pb.node(
            "BiasAdd", f"b{number}", value, pb.const(f"v{number}", rng.randn(CHANNELS).astype(np.float32)),
            data_format="NHWC",
        )  # fmt: skip
        value = pb.node("LeakyRelu", f"l{number}", value, alpha=0.2)
    kernel = pb.const("flow_kernel", (rng.randn(3, 3, 3, CHANNELS, outputs) * scale).astype(np.float32))
    value = pb.node("Conv3D", "flow_conv", value, kernel, **conv_attrs())
    pb.node("BiasAdd", "flow", value, pb.const("flow_bias", rng.randn(outputs).astype(np.float32)), data_format="NHWC")
    if warp:
        _warp(pb)
    return pb


def _warp(pb):
    """The nearest voxel below, and the fractions that are lost, added."""
    integer = dict(T=np.dtype(np.int32))
    pb.placeholder("image", (1, SIDE, SIDE, SIDE, 1))
    pb.node("Unpack", "u", "flow", axis=4, num=3)
    place = moved = pb.node("Reshape", "line", "image", pb.const("line_shape", np.array([-1], np.int32)))
    for axis, part in enumerate(("u", "u:1", "u:2")):
        shape = [1] * 4
        shape[1 + axis] = SIDE
        floor = pb.node("Floor", f"floor{axis}", part)
        whole = pb.node("Cast", f"int{axis}", floor, SrcT=np.dtype(np.float32), DstT=np.dtype(np.int32))
        at = pb.node(
            "Add",
            f"at{axis}",
            whole,
            pb.const(f"grid{axis}", np.arange(SIDE, dtype=np.int32).reshape(shape)),
            **integer,
        )
        at = pb.node("Maximum", f"low{axis}", at, pb.const(f"zero{axis}", np.array(0, np.int32)), **integer)
        at = pb.node("Minimum", f"high{axis}", at, pb.const(f"end{axis}", np.array(SIDE - 1, np.int32)), **integer)
        at = pb.node("Mul", f"by{axis}", at, pb.const(f"step{axis}", np.array(SIDE ** (2 - axis), np.int32)), **integer)
        place = pb.node("Add", f"place{axis}", place, at, **integer) if axis else at
        rest = pb.node("Sub", f"rest{axis}", part, floor)
        moved = pb.node("Add", f"moved{axis}", moved, rest) if axis else rest
    found = pb.node("GatherV2", "found", "line", place, pb.const("along", np.array(0, np.int32)))
    moved = pb.node("Add", "shifted", found, moved)
    pb.node("Reshape", "moved", moved, pb.const("moved_shape", np.array([1, SIDE, SIDE, SIDE, 1], np.int32)))


AXES = [f"{name}{axis}" for name in ("floor", "int", "rest", "moved") for axis in range(3)]
WARP = ("line", "u", "found", "shifted", "moved", *AXES)
BOTH = [("moved", 0), ("flow", 0)]


def compiled(pb, folder, outputs=BOTH, keep=WARP):
    return compile_pb(pb.save(folder / "g.pb"), folder / "g.om", outputs, keep=keep if ("moved", 0) in outputs else ())


def ending_of(model):
    return find_ending([copy.copy(op) for op in model.graph])


def feeds(model, size=1.0):
    rng = np.random.RandomState(1)
    data = sorted((op for op in model.graph if op.type == "Data"), key=lambda op: op.attrs["index"])
    return [(rng.randn(*op.output_descs[0].shape) * size).astype(op.output_descs[0].dtype) for op in data]


def results(model, monkeypatch, names, size=1.0):
    monkeypatch.setenv("VXM_SIM_REWRITES", names)
    return load_program(model).run(feeds(model, size))


def assert_rounds_alike(plain, fast):
    """On the fp16 grid; a value beside the middle of two numbers may round either way, and so may what follows."""
    assert np.array_equal(fast, round_to_half(fast))
    step = np.spacing(np.abs(plain).max().astype(np.float16)).astype(np.float32)
    assert np.abs(plain - fast).max() <= step and (plain != fast).mean() < 0.1


@pytest.mark.parametrize("plain, channels", [(0, 16), (1, 16), (2, 32)])
def test_the_flow_is_as_far_from_an_engines_as_that_is_from_anothers(plain, channels, tmp_path, monkeypatch):
    """Two engines add in different orders, and what rounds the other way goes on through the next layers."""
    model = compiled(network(np.random.RandomState(0), plain, channels=channels), tmp_path)
    assert len(ending_of(model).convolutions) == plain + 2
    flows = {}
    for engine in ("openvino", "onnxruntime"):
        pytest.importorskip(engine)
        monkeypatch.setenv("VXM_SIM_ENGINE", engine)
        (moved, flow), (fast_moved, fast_flow) = (results(model, monkeypatch, names) for names in ("none", "winograd"))
        same = (flow == fast_flow).all(-1, keepdims=True)
        assert np.array_equal(moved[same], fast_moved[same])
        flows[engine] = flow, fast_flow
    (flow, fast), (other, other_fast) = flows.values()
    assert flow.std() > 0.1
    usual = np.abs(flow - other).mean()
    for plainly, quickly in ((flow, fast), (other, other_fast)):
        assert np.array_equal(quickly, round_to_half(quickly))
        assert np.abs(plainly - quickly).mean() < 1.25 * usual


def test_sums_agree_to_the_last_bits_of_fp32(tmp_path, monkeypatch):
    """Against sums in fp64, before anything rounds to fp16."""
    from vxm_convert.sim.engine.ending.flow import FlowLayer
    from vxm_convert.sim.engine.ending.spaces import span

    rng = np.random.RandomState(5)
    x = rng.randn(8, 12, 20, 32).astype(np.float16)
    weights = (rng.randn(3, 3, 3, 32, 3) * 0.1).astype(np.float16).astype(np.float32)
    layer = find.Convolution(weights, rng.randn(3).astype(np.float32), False, 1.0)
    out = np.empty((3, 8, 12, 20), np.float32)
    FlowLayer(layer, 8, 20).make(x.view(np.uint16), span(0, 8), span(0, 12), out)
    padded = np.pad(x.astype(np.float64), ((1, 1),) * 3 + ((0, 0),))
    expected = sum(
        padded[i : i + 8, j : j + 12, k : k + 20] @ layer.weights[i, j, k].astype(np.float64)
        for i in range(3)
        for j in range(3)
        for k in range(3)
    )
    np.testing.assert_allclose(out, np.moveaxis(expected + layer.bias, -1, 0), rtol=0, atol=1e-5)


def test_large_values_saturate(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0), scale=30.0, warp=False), tmp_path, [("flow", 0)])
    (plain,), (fast,) = (results(model, monkeypatch, names, 3000.0) for names in ("none", "winograd"))
    assert np.abs(fast).max() == 65504 and np.isfinite(fast).all()
    assert (np.sign(plain) == np.sign(fast)).mean() > 0.99
    saturated = np.abs(plain) == 65504
    assert 0.2 < saturated.mean() and (fast[saturated] == plain[saturated]).mean() > 0.99


def test_vectors_round_as_numpy_does():
    from numba import njit

    from vxm_convert.sim.engine.ending.vectors import round_all

    rng = np.random.RandomState(3)
    values = np.concatenate(
        [
            rng.randn(4000) * 10.0 ** rng.randint(-9, 6, 4000),
            np.arange(-2100, 2100) * 2.0**-25,
            [65503.9, 65504, 65519.9, 65520, -70000, np.inf, -np.inf, 0.0, -0.0, 2049.0, 2051.0],
        ]
    ).astype(np.float32)
    values = np.concatenate([values, np.zeros(-len(values) % 16, np.float32)])
    expected = round_to_half(values)
    njit(lambda array: round_all(array.ctypes.data, array.size // 16))(values)
    assert np.array_equal(values, expected) and np.array_equal(np.signbit(values), np.signbit(expected))


def test_threads_and_planes_change_no_bit(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(run, "_processors", lambda threads=threads: threads)
        found.append(results(model, monkeypatch, "winograd"))
    monkeypatch.setattr(run, "PLANES", 5)
    from vxm_convert.sim.engine import divided

    monkeypatch.setattr(divided, "PLANES", 5)
    found.append(results(model, monkeypatch, "winograd"))
    for moved, flow in found[1:]:
        assert np.array_equal(moved, found[0][0]) and np.array_equal(flow, found[0][1])


def test_a_run_leaves_no_trace_in_the_next(tmp_path, monkeypatch):
    """Work space is used again: other inputs in between change nothing."""
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    monkeypatch.setenv("VXM_SIM_REWRITES", "winograd")
    program = load_program(model)
    first = program.run(feeds(model))
    program.run(feeds(model, 100.0))
    again = program.run(feeds(model))
    assert all(np.array_equal(one, other) for one, other in zip(first, again))


def test_results_are_written_into_their_places(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    monkeypatch.setenv("VXM_SIM_REWRITES", "winograd")
    program = load_program(model)
    places = [np.full(desc.shape, np.nan, np.float32) for desc in program.outputs]
    lent = program.lend(feeds(model), [places[0], None])
    assert np.shares_memory(lent[0], places[0])
    assert all(np.array_equal(one, other) for one, other in zip(lent, program.run(feeds(model))))


def test_every_volume_of_a_batch(tmp_path, monkeypatch):
    """The graph behind is whole then."""
    model = compiled(network(np.random.RandomState(0), warp=False), tmp_path, [("flow", 0)])
    ending = ending_of(model)
    assert in_slabs(ending.behind, ending.flow, 16) is not None
    pb = network(np.random.RandomState(0), warp=False)
    for node in pb.graph.node:
        _double_batch(node)
    twice = compiled(pb, tmp_path, [("flow", 0)])
    ending = ending_of(twice)
    assert ending.beside[0] == 2 and in_slabs(ending.behind, ending.flow, 16) is None
    (plain,), (fast,) = (results(twice, monkeypatch, names) for names in ("none", "winograd"))
    assert plain.shape[0] == 2 and not np.array_equal(plain[0], plain[1])
    assert_rounds_alike(plain, fast)


def _double_batch(node):
    """Placeholders and the shapes of Reshape start with 2 instead of 1."""
    for attr in node.attr:
        if node.op == "Placeholder" and attr.key == "shape":
            attr.value.shape.dim[0].size = 2
        elif node.name in ("sz", "sy", "sx") and attr.key == "value":
            shape = np.frombuffer(attr.value.tensor.tensor_content, np.int32).copy()
            shape[0] = 2
            attr.value.tensor.tensor_content = shape.tobytes()


def test_the_warp_is_cut_into_slabs(tmp_path):
    ending = ending_of(compiled(network(np.random.RandomState(0)), tmp_path))
    slabs = in_slabs(ending.behind, ending.flow, 16)
    assert [op.output_descs[0].shape for op in slabs.ops if op.type == "Data"][-2:] == [
        (1, 3, 16, 32, 32),
        (1, 16, 1, 1),
    ]
    assert [constant.shape for constant in slabs.constants] == [(1, 32, 1, 1)]
    assert {desc.shape for desc in slabs.ops[-1].output_descs} == {(1, 16, 32, 32, 1), (1, 16, 32, 32, 3)}
    assert in_slabs(ending.behind, ending.flow, 12) is None


@pytest.mark.parametrize("kind", ["mean over planes", "other planes", "work on the image", "image beside the flow"])
def test_what_needs_other_planes_is_not_cut(kind, tmp_path):
    pb = network(np.random.RandomState(0))
    if kind == "mean over planes":
        pb.node("Mean", "end", "shifted", pb.const("axes", np.array([1], np.int32)), keep_dims=True)
    elif kind == "other planes":
        pb.node("Transpose", "end", "shifted", pb.const("turn", np.array([0, 2, 1, 3], np.int32)))
    elif kind == "work on the image":
        pb.node("Add", "end", "moved", pb.node("Floor", "work", "image"))
    else:
        pb.node("Add", "end", "moved", "image")
    ending = ending_of(compiled(pb, tmp_path, [*BOTH, ("end", 0)], (*WARP, "end", "work")))
    assert ending is not None and in_slabs(ending.behind, ending.flow, 16) is None


@pytest.mark.parametrize("change", [dict(outputs=2), dict(outputs=4), dict(channels=8)])
def test_other_numbers_of_channels_are_left_to_the_engine(change, tmp_path):
    pb = network(np.random.RandomState(0), warp=False, **change)
    assert ending_of(compiled(pb, tmp_path, [("flow", 0)])) is None


@pytest.mark.parametrize("inner", ["plain0", "y", "conv"])
def test_a_graph_that_returns_an_inner_value_is_left_to_the_engine(inner, tmp_path):
    model = compiled(network(np.random.RandomState(0)), tmp_path, [*BOTH, (inner, 0)])
    assert ending_of(model) is None


def test_small_volumes_are_left_to_the_engine(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    assert ending_of(model) is not None
    monkeypatch.setattr(find, "LEAST_VOXELS", SIDE**3 + 1)
    assert ending_of(model) is None


def test_without_avx512_or_numba_the_engine_does_it(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    monkeypatch.setattr(programs, "usable", lambda: False)
    monkeypatch.setattr(programs, "run_with_ending", None)
    assert len(results(model, monkeypatch, "auto")) == 2


def test_without_rounding_the_engine_does_it(tmp_path, monkeypatch):
    """What is between the loops is fp16."""
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    monkeypatch.setenv("VXM_SIM_ROUNDING", "off")
    monkeypatch.setattr(programs, "run_with_ending", None)
    assert len(results(model, monkeypatch, "winograd")) == 2


def test_dumps_see_inside(tmp_path, monkeypatch):
    model = compiled(network(np.random.RandomState(0)), tmp_path)
    found = []
    for names in ("none", "winograd"):
        monkeypatch.setenv("VXM_SIM_REWRITES", names)
        program = load_program(model)
        found.append(
            {name: value for name, _, value in program.run_with_dumps(feeds(model), ["plain0:0", "shifted:0"])}
        )
    assert set(found[0]) == set(found[1]) == {"plain0", "shifted"}
    assert_rounds_alike(found[0]["plain0"].astype(np.float32), found[1]["plain0"].astype(np.float32))


@pytest.mark.parametrize(
    "types, narrow",
    [
        (["LeakyRelu float32", "Cast float16"], False),
        (["Cast float16", "LeakyRelu float16"], True),
        (["Cast float16", "Cast float32", "LeakyRelu float32", "Cast float16"], True),
        (["Cast float16"], False),
    ],
)
def test_a_sum_that_a_cast_rounds_before_leaky_relu_is_rounded(types, narrow):
    """The convolution itself gives fp32 in all of them."""
    made = {"n0:0": Op("n0", "Conv3D", [], {}, [], [Desc("float32", (1, 2, 2, 2, 16))])}
    for number, text in enumerate(types, start=1):
        kind, dtype = text.split()
        before = made[f"n{number - 1}:0"].output_descs
        after = [Desc(dtype, before[0].shape)]
        op = Op(f"n{number}", kind, [f"n{number - 1}:0"], {"negative_slope": 0.25}, before, after)
        made[f"n{number}:0"] = op
    source = find._walk(f"n{len(types)}:0", made)
    assert source.op.name == "n0" and source.narrow == narrow
    assert source.slopes == [0.25] * ("LeakyRelu" in " ".join(types))
