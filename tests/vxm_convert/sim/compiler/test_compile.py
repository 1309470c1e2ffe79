# SPDX-License-Identifier: Apache-2.0
"""What the simulated compiler decides: dtypes per mode, casts, layouts, refusals; and that engine rewrites change
nothing.
"""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb, run_pb, up_conv_graph
from vxm_convert.sim.engine import backends as engines
from vxm_convert.sim.engine import program as engine_module
from vxm_convert.sim.engine.load import load_program
from vxm_convert.sim.engine.rewrites.transposed import fold_upsampling
from vxm_convert.sim.engine.rewrites.upsampling import find_upsampling
from vxm_convert.sim.refusal import AtcRefusal


@pytest.fixture
def graph(tmp_path):
    return up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")


def _dtypes(model, op_type):
    return {(op.input_descs[0].dtype, op.output_descs[0].dtype) for op in model.graph if op.type == op_type}


@pytest.mark.parametrize(
    "mode, conv, vector",
    [
        ("force_fp16", ("float16", "float16"), "float16"),
        ("allow_fp32_to_fp16", ("float16", "float16"), "float32"),
        ("allow_mix_precision", ("float16", "float16"), "float16"),
        ("force_fp32", ("float16", "float32"), "float32"),
        ("cube_fp16in_fp32out", ("float16", "float32"), "float32"),
    ],
)
def test_dtypes_of_each_mode(mode, conv, vector, graph, tmp_path):
    model = compile_pb(graph, tmp_path / "g.om", [("y", 0)], mode)
    assert _dtypes(model, "Conv3D") == {conv}
    assert _dtypes(model, "LeakyRelu") == {(vector, vector)}
    assert [d.dtype for op in model.graph if op.type in ("Data", "NetOutput") for d in op.output_descs] == [
        "float32"
    ] * 3


@pytest.mark.parametrize(
    "mode, conv", [("force_fp16", "float16"), ("allow_fp32_to_fp16", "float16"), ("force_fp32", "float32")]
)
def test_an_a2_has_fp32_convolutions_and_none_that_widen(mode, conv, graph, tmp_path):
    """8.1's table: fp32 to fp32, no fp16 to fp32; fe.ini lists Conv3D under fp16."""
    model = compile_pb(graph, tmp_path / "g.om", [("y", 0)], mode, soc="Ascend910B3")
    assert _dtypes(model, "Conv3D") == {(conv, conv)} and model.soc_version == "Ascend910B3"
    assert compile_pb(graph, tmp_path / "g.om", [("y", 0)], mode, keep=["conv"], soc="Ascend910B3")
    with pytest.raises(AtcRefusal, match="takes fp16 and returns fp32"):
        compile_pb(graph, tmp_path / "g.om", [("y", 0)], "cube_fp16in_fp32out", soc="Ascend910B3")


def test_fp32_convolutions_compute_in_fp32(graph, tmp_path):
    rng = np.random.RandomState(1)
    feeds = [rng.rand(1, 4, 4, 4, 8).astype(np.float32), rng.rand(1, 8, 8, 8, 2).astype(np.float32)]
    exact = load_program(compile_pb(graph, tmp_path / "a.om", [("y", 0)], "must_keep_origin_dtype", soc="Ascend910B3"))
    half = load_program(compile_pb(graph, tmp_path / "b.om", [("y", 0)], "force_fp32"))
    (a,), (b,) = exact.run(feeds), half.run(feeds)
    assert 1e-5 < np.abs(a - b).max() < 1e-2, "fp16 operands make the difference"


@pytest.mark.parametrize("soc, least", [("Ascend310", 2.0**-16), ("Ascend910A", 0.0), ("Ascend310P3", 0.0)])
def test_the_smallest_sigmoid_is_that_of_the_chip_that_was_seen(soc, least, tmp_path):
    """A real 310 never gave less than 2^-16; of other chips there is no evidence, so they give the rounded function."""
    pb = PbBuilder()
    pb.node("Sigmoid", "y", pb.placeholder("x", (1, 4)))
    model = compile_pb(pb.save(tmp_path / "s.pb"), tmp_path / "s.om", [("y", 0)], soc=soc)
    (got,) = load_program(model).run([np.array([[-60000, -12, 0, 20]], np.float32)])
    assert got[0, 0] == least and got[0, 1] == max(least, np.float16(1 / (1 + np.exp(12.0))))
    assert got[0, 2:].tolist() == [0.5, 1.0]


def test_must_keep_origin_dtype_is_refused_by_name(graph, tmp_path):
    with pytest.raises(AtcRefusal, match=r"conv \(Conv3D\)") as caught:
        compile_pb(graph, tmp_path / "g.om", [("y", 0)], "must_keep_origin_dtype")
    assert caught.value.code == "E20001" and "force_fp32" in caught.value.solution
    assert not (tmp_path / "g.om").exists()


def test_keep_dtype_keeps_single_nodes(graph, tmp_path):
    model = compile_pb(graph, tmp_path / "g.om", [("y", 0)], "force_fp16", keep=["y"])
    assert _dtypes(model, "LeakyRelu") == {("float32", "float32")} and _dtypes(model, "ConcatV2D") == {
        ("float16", "float16")
    }
    # A bias that was fused into its convolution has no attributes of its own any more.
    model = compile_pb(graph, tmp_path / "g.om", [("y", 0)], "force_fp16", keep=["bias_add"])
    assert _dtypes(model, "Conv3D") == {("float16", "float16")}


@pytest.mark.parametrize("mode", ["force_fp16", "allow_fp32_to_fp16", "allow_mix_precision", "force_fp32"])
def test_a_convolution_in_keep_dtype_is_refused_in_every_mode(mode, graph, tmp_path):
    """The real selection forbids the step from float to float16 for kept nodes, and Conv3D has no fp32 kernel."""
    with pytest.raises(AtcRefusal, match=r"keeps float32 for 1 operators: conv \(Conv3D\)") as caught:
        compile_pb(graph, tmp_path / "g.om", [("y", 0)], mode, keep=["conv"])
    assert caught.value.code == "EZ3003" and "--customize_dtypes" in caught.value.solution


def test_an_unknown_name_in_keep_dtype_changes_nothing(graph, tmp_path):
    named = compile_pb(graph, tmp_path / "a.om", [("y", 0)], keep=["nowhere"])
    plain = compile_pb(graph, tmp_path / "b.om", [("y", 0)])
    assert named.attrs.pop("vxm_ignored_keep_dtype") == ["nowhere"]
    assert [(op.name, op.output_descs) for op in named.graph] == [(op.name, op.output_descs) for op in plain.graph]


def test_convolution_is_stored_in_blocks(graph, tmp_path):
    model = compile_pb(graph, tmp_path / "g.om", [("y", 0)])
    conv = next(op for op in model.graph if op.type == "Conv3D")
    assert [d.layout for d in conv.input_descs] == ["NDC1HWC0", "FRACTAL_Z_3D", "ND"]
    assert conv.output_descs[0].shape == (1, 8, 1, 8, 8, 16) and conv.output_descs[0].origin_shape == (1, 8, 8, 8, 5)
    assert conv.attrs["_datadump_original_op_names"] == ["conv", "bias_add"]
    assert any(op.name.startswith("trans_TransData_") for op in model.graph)
    assert any(op.name.startswith("trans_Cast_") for op in model.graph)


def test_every_unsupported_operator_is_named(tmp_path):
    pb = PbBuilder()
    x = pb.placeholder("x", (4,))
    pb.node("Betainc", "first", x, x, x)
    pb.node("Lgamma", "second", "first")
    with pytest.raises(AtcRefusal, match=r"first \(Betainc\), second \(Lgamma\)") as caught:
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("second", 0)])
    assert caught.value.code == "E13010"


def test_outputs_keep_the_names_of_the_graph(graph, tmp_path):
    """``node:index``, as GE records them and the runtime returns them; without --out_nodes those of the leaves."""
    asked = load_program(compile_pb(graph, tmp_path / "a.om", [("y", 0), ("up", 0)]))
    assert [d.name for d in asked.outputs] == ["y:0", "up:0"]
    assert [d.name for d in load_program(compile_pb(graph, tmp_path / "b.om", [])).outputs] == ["y:0"]


@pytest.mark.parametrize("outputs, code", [([("nowhere", 0)], "E10016")])
def test_wrong_output_name(outputs, code, graph, tmp_path):
    with pytest.raises(AtcRefusal) as caught:
        compile_pb(graph, tmp_path / "g.om", outputs)
    assert caught.value.code == code


def test_rewrites_are_found(graph, tmp_path):
    ops = compile_pb(graph, tmp_path / "g.om", [("y", 0)]).graph
    found = find_upsampling(ops)
    assert [op.type for op in found].count("Upsample") == 1 and [op.type for op in found].count("ConcatV2D") == 1
    folded = fold_upsampling(found)
    assert {"ConvTranspose3D", "Conv3D", "Add"} <= {op.type for op in folded} and "ConcatV2D" not in {
        op.type for op in folded
    }


@pytest.mark.parametrize("mode", ["force_fp16", "allow_fp32_to_fp16", "force_fp32"])
def test_rewrites_give_the_plain_graphs_numbers(mode, graph, tmp_path, monkeypatch):
    """Before the rounding both forms differ by the order of an fp32 sum; after it by at most one fp16 step."""
    pytest.importorskip("openvino")
    rng = np.random.RandomState(1)
    feeds = [rng.rand(1, 4, 4, 4, 8).astype(np.float32), rng.rand(1, 8, 8, 8, 2).astype(np.float32)]
    (fast,) = run_pb(graph, tmp_path / "a.om", [("y", 0)], feeds, mode)
    monkeypatch.setenv("VXM_SIM_REWRITES", "none")
    (plain,) = run_pb(graph, tmp_path / "b.om", [("y", 0)], feeds, mode)
    if mode == "force_fp32":
        np.testing.assert_allclose(fast, plain, rtol=2e-6, atol=2e-6)
    else:
        step = np.spacing(np.abs(plain).astype(np.float16)).astype(np.float32)
        assert (np.abs(fast - plain) <= step).all() and (fast != plain).mean() < 0.01


def test_upsampling_along_two_axes_only_is_left_alone(tmp_path):
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 2, 3, 4, 5))
    axis = pb.const("axis", np.array(-1, np.int32))
    z = pb.node("ConcatV2", "dz", x, x, axis, N=2)
    z = pb.node("Reshape", "rz", z, pb.const("sz", np.array([1, 2, 3, 40], np.int32)))
    y = pb.node("ConcatV2", "dy", z, z, axis, N=2)
    pb.node("Reshape", "y", y, pb.const("sy", np.array([1, 2, 6, 8, 5], np.int32)))
    data = np.arange(120, dtype=np.float32).reshape(1, 2, 3, 4, 5)
    path = pb.save(tmp_path / "g.pb")
    assert "Upsample" not in {op.type for op in find_upsampling(compile_pb(path, tmp_path / "g.om", [("y", 0)]).graph)}
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [data])
    assert np.array_equal(got, data.repeat(2, 2).repeat(2, 3))


def test_output_names_and_order_follow_the_request(graph, tmp_path):
    model = compile_pb(graph, tmp_path / "g.om", [("up", 0), ("y", 0)])
    program = load_program(model)
    assert [d.name for d in program.outputs] == ["up:0", "y:0"] and [d.name for d in program.inputs] == ["x", "skip"]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("mode", ["force_fp32", "force_fp16"])
def test_results_belong_to_the_caller(graph, tmp_path, monkeypatch, engine, mode):
    pytest.importorskip(engine)
    monkeypatch.setenv("VXM_SIM_ENGINE", engine)
    program = load_program(compile_pb(graph, tmp_path / "g.om", [("up", 0), ("y", 0)], mode))
    feeds = [np.full(desc.shape, 0.5, desc.dtype) for desc in program.inputs]
    first = program.run(feeds)
    kept = [result.copy() for result in first]
    others = program.run([feed + 1 for feed in feeds])
    # neither another run nor the caller's own writing reaches into them
    assert all(np.array_equal(a, b) and not np.array_equal(a, c) for a, b, c in zip(first, kept, others))
    for result in others:
        result[...] = 7
    assert all(np.array_equal(a, b) for a, b in zip(program.run(feeds), kept))


def test_a_large_model_is_not_held_in_two_forms(graph, tmp_path, monkeypatch):
    """Running and dumping take turns, and neither changes what the other gives."""
    alive, engine = [], engines._openvino

    def watched(*lowered):
        runner = engine(*lowered)
        alive.append(weakref.ref(runner))
        return runner

    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "_openvino", watched)
    for limit in (0, 1 << 62):
        monkeypatch.setattr(engine_module, "LARGE", limit)
        del alive[:]
        program = load_program(compile_pb(graph, tmp_path / "g.om", [("y", 0)]))
        feeds = [np.full(desc.shape, 0.5, desc.dtype) for desc in program.inputs]
        (first,) = program.run(feeds)
        for _ in range(2):
            dumped = [array for _, _, array in program.run_with_dumps(feeds, [f"{program.ops[-1].name}:0"])]
            assert sum(r() is not None for r in alive) == (1 if limit == 0 else 2)
            np.testing.assert_array_equal(dumped[0].reshape(first.shape), first)
            np.testing.assert_array_equal(program.run(feeds)[0], first)
            assert sum(r() is not None for r in alive) == (1 if limit == 0 else 2)
        assert len(alive) == (5 if limit == 0 else 2)


def test_equal_requests_give_equal_bytes(graph, tmp_path):
    compile_pb(graph, tmp_path / "a.om", [("y", 0)])
    compile_pb(graph, tmp_path / "b.om", [("y", 0)])
    assert (tmp_path / "a.om").read_bytes() == (tmp_path / "b.om").read_bytes()
