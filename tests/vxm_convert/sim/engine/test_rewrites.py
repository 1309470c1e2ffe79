# SPDX-License-Identifier: Apache-2.0
"""Every engine rewrite against the graph without it; the switches; which rewrites an engine takes by itself."""

from __future__ import annotations

import copy
import re

import numpy as np
import onnx
import pytest

from tests.support.graphs import PbBuilder, compile_pb, conv_attrs, run_pb, up_conv_graph
from vxm_convert.errors import ToolchainError
from vxm_convert.sim.engine import backends as engines
from vxm_convert.sim.engine.load import load_program
from vxm_convert.sim.engine.lowering.lower import PASSES, lower
from vxm_convert.sim.engine.rewrites import settings as rewrites
from vxm_convert.sim.engine.rewrites.lanes import fill_lanes
from vxm_convert.sim.engine.rewrites.parities import split_phases
from vxm_convert.sim.engine.rewrites.transposed import fold_upsampling
from vxm_convert.sim.engine.rewrites.upsampling import find_upsampling
from vxm_convert.sim.version import SIM_VERSION
from vxm_convert.toolchain.find import find_toolchain

ENGINES = ("openvino", "onnxruntime")
OUTPUTS = [("flow", 0), ("y", 0)]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setenv("VXM_SIM_ENGINE", request.param)
    return request.param


@pytest.fixture
def graph(tmp_path):
    """An upsampling with its convolution, and a convolution to three channels behind: the end of the network."""
    pb = up_conv_graph(np.random.RandomState(0), filters=9)
    weights = np.random.RandomState(2).randn(3, 3, 3, 9, 3).astype(np.float32) * 0.1
    conv = pb.node("Conv3D", "flow_conv", "y", pb.const("flow_kernel", weights), **conv_attrs())
    pb.node("BiasAdd", "flow", conv, pb.const("flow_bias", np.array([0.3, -0.2, 0.1], np.float32)), data_format="NHWC")
    return pb.save(tmp_path / "g.pb")


def _feeds():
    rng = np.random.RandomState(1)
    return [rng.rand(1, 4, 4, 4, 8).astype(np.float32), rng.rand(1, 8, 8, 8, 2).astype(np.float32)]


def _run(graph, folder, monkeypatch, names, mode):
    monkeypatch.setenv("VXM_SIM_REWRITES", names)
    return run_pb(graph, folder / "g.om", OUTPUTS, _feeds(), mode)


def _types(ops):
    return [op.type for op in ops]


@pytest.mark.parametrize("names", sorted(rewrites.REWRITES) + ["all", "auto"])
def test_every_rewrite_gives_the_plain_graphs_sums(names, engine, graph, tmp_path, monkeypatch):
    """Without the rounding between the layers, which would make steps of it, nothing but the order of the sums is
    left.
    """
    monkeypatch.setenv("VXM_SIM_ROUNDING", "off")
    for plain, fast in zip(*(_run(graph, tmp_path, monkeypatch, chosen, "force_fp32") for chosen in ("none", names))):
        np.testing.assert_allclose(fast, plain, rtol=0, atol=5e-6)


@pytest.mark.parametrize("names", sorted(rewrites.REWRITES) + ["all"])
def test_every_rewrite_rounds_where_the_plain_graph_does(names, engine, graph, tmp_path, monkeypatch):
    plain, fast = (_run(graph, tmp_path, monkeypatch, chosen, "force_fp16") for chosen in ("none", names))
    for one, other in zip(plain, fast):
        assert np.array_equal(other, other.astype(np.float16))
        # a value beside the middle of two fp16 numbers may round either way, and so may what is made of it
        step = np.spacing(np.abs(one).max().astype(np.float16)).astype(np.float32)
        assert np.abs(one - other).max() <= step and (one != other).mean() < 0.05


def test_lanes_computes_four_voxels_at_a_time(graph, tmp_path):
    ops = fill_lanes(compile_pb(graph, tmp_path / "g.om", OUTPUTS).graph)
    wide = next(op for op in ops if op.name == "flow_conv/lanes")
    assert wide.input_descs[1].shape == (4, 4, 3, 9, 12) and wide.output_descs[0].shape == (1, 4, 4, 8, 12)
    # the operator's name stays with its result, so that dumps find it
    assert next(op for op in ops if op.name == "flow_conv").type == "Interleave"


@pytest.mark.parametrize(
    "shape, filters", [((1, 7, 8, 8, 9), 3), ((1, 8, 7, 8, 9), 3), ((1, 8, 8, 8, 9), 5), ((1, 8, 8, 8, 2), 3)]
)
def test_lanes_leaves_other_convolutions_alone(shape, filters, tmp_path):
    pb = PbBuilder()
    kernel = pb.const("w", np.ones((3, 3, 3, shape[-1], filters), np.float32))
    pb.node("Conv3D", "y", pb.placeholder("x", shape), kernel, **conv_attrs())
    ops = compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)]).graph
    assert _types(fill_lanes(ops)) == _types(ops)


def test_lanes_with_a_batch_an_odd_last_axis_and_no_bias(engine, tmp_path, monkeypatch):
    rng = np.random.RandomState(4)
    pb = PbBuilder()
    pb.node(
        "Conv3D",
        "y",
        pb.placeholder("x", (2, 4, 6, 5, 8)),
        pb.const("w", rng.randn(3, 3, 3, 8, 1).astype(np.float32)),
        **conv_attrs(),
    )
    path, feeds = pb.save(tmp_path / "g.pb"), [rng.rand(2, 4, 6, 5, 8).astype(np.float32)]
    results = []
    for names in ("none", "lanes"):
        monkeypatch.setenv("VXM_SIM_REWRITES", names)
        results += run_pb(path, tmp_path / "g.om", [("y", 0)], feeds, "force_fp32")
    np.testing.assert_allclose(*results, rtol=0, atol=2e-5)


def test_phases_are_disjoint_parts_of_the_transposed_kernel(graph, tmp_path):
    transposed = fold_upsampling(find_upsampling(compile_pb(graph, tmp_path / "g.om", OUTPUTS).graph))
    ops = split_phases(transposed)
    kernel = next(op.data for op in transposed if op.name == "conv/phase_kernel")
    parts = [op.data for op in ops if op.name.startswith("conv/phase_up/") and op.type == "Const"]
    assert "ConvTranspose3D" not in _types(ops) and len(parts) == 8
    assert sorted(np.concatenate([part.ravel() for part in parts])) == sorted(kernel.ravel())


def test_single_channels_are_joined_to_the_bit(engine, tmp_path, monkeypatch):
    rng = np.random.RandomState(5)
    pb = PbBuilder()
    images = [pb.placeholder(name, (2, 4, 4, 4, 1)) for name in "ab"]
    both = pb.node("ConcatV2", "both", *images, pb.const("axis", np.array(-1, np.int32)), N=2)
    pb.node("LeakyRelu", "y", both, alpha=0.2)
    path, feeds = pb.save(tmp_path / "g.pb"), [rng.randn(2, 4, 4, 4, 1).astype(np.float32) for _ in "ab"]
    results = []
    for names in ("none", "channels"):
        monkeypatch.setenv("VXM_SIM_REWRITES", names)
        results += run_pb(path, tmp_path / "g.om", [("y", 0)], feeds)
    assert np.array_equal(*results) and np.array_equal(results[0] > 0, np.concatenate(feeds, 4) > 0)


def test_dumps_see_through_the_rewrites(engine, graph, tmp_path, monkeypatch):
    """What a convolution gives can be dumped whether it was rewritten or not."""
    monkeypatch.setenv("VXM_SIM_ROUNDING", "off")
    found = []
    for names in ("none", "all"):
        monkeypatch.setenv("VXM_SIM_REWRITES", names)
        program = load_program(compile_pb(graph, tmp_path / "g.om", OUTPUTS, "force_fp32"))
        found.append(
            {name: value for name, _, value in program.run_with_dumps(_feeds(), ["conv:0", "flow_conv:0", "up:0"])}
        )
    assert set(found[0]) == set(found[1]) == {"conv", "flow_conv", "up"}
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=0, atol=5e-6)


def _lowered(graph, folder, settings):
    return lower([copy.copy(op) for op in compile_pb(graph, folder / "g.om", OUTPUTS).graph], settings)


def test_onnx_runtime_gets_no_transposed_convolution(graph, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("VXM_SIM_ENGINE", "onnxruntime")
    serialized, _, _ = _lowered(graph, tmp_path, rewrites.settings(engines.find_engine().fastest(), {}))
    kinds = [node.op_type for node in onnx.load_from_string(serialized).graph.node]
    assert "ConvTranspose" not in kinds and kinds.count("Conv") == 8 + 2
    # asked for by name, it has to take it
    asked = _lowered(graph, tmp_path, rewrites.settings((), {"VXM_SIM_REWRITES": "transposed"}))[0]
    assert "ConvTranspose" in [node.op_type for node in onnx.load_from_string(asked).graph.node]


@pytest.mark.parametrize(
    "kernel, phases", [("jit_gemm_FP32", True), ("jit_avx512_FP32", False), ("brgconv_avx2_f32", False)]
)
def test_openvino_splits_phases_where_it_has_no_direct_kernel(kernel, phases, monkeypatch):
    monkeypatch.setattr(engines, "_transposed_kernel", lambda: kernel)
    engines._fastest_in_openvino.cache_clear()
    try:
        assert engines._fastest_in_openvino() == set(rewrites.REWRITES) - (set() if phases else {"phases"})
    finally:
        engines._fastest_in_openvino.cache_clear()


def test_openvino_names_its_kernel():
    pytest.importorskip("openvino")
    assert "_" in engines._transposed_kernel()


def test_openvino_interleaves_in_its_own_layout(graph, tmp_path):
    pytest.importorskip("openvino")
    model = engines._core().read_model(_lowered(graph, tmp_path, rewrites.Settings(frozenset(rewrites.REWRITES)))[0])
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    engines._interleave_in_blocks(model)
    after = [node.get_type_name() for node in model.get_ordered_ops()]
    assert "DepthToSpace" not in before and after.count("DepthToSpace") == 1
    # the one of `lanes` spreads over two axes, for which there is no such operator
    assert before.count("Transpose") - after.count("Transpose") == 1


def test_the_passes_have_the_names_and_the_order_of_the_table():
    assert list(PASSES) == [name for name in rewrites.REWRITES if name in PASSES]
    assert set(rewrites.REWRITES) - set(PASSES) == {"winograd", "channels"}


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", {"lanes"}),
        ("auto", {"lanes"}),
        ("none", set()),
        ("all", set(rewrites.REWRITES)),
        ("channels, lanes", {"channels", "lanes"}),
        ("phases", {"phases", "transposed", "upsampling"}),
        ("transposed", {"transposed", "upsampling"}),
    ],
)
def test_choice_of_rewrites(value, expected):
    assert rewrites.settings(["lanes"], {"VXM_SIM_REWRITES": value}) == (expected, True)


@pytest.mark.parametrize("value", ["fast", "lanes,,channels", "lanes channels", "LANES", "none,lanes", ","])
def test_an_unknown_rewrite_is_refused_with_the_names(value):
    with pytest.raises(
        ToolchainError, match="VXM_SIM_REWRITES: got .*auto, all, none, or some of upsampling, .*channels"
    ):
        find_toolchain("sim", {"VXM_SIM_REWRITES": value})


@pytest.mark.parametrize("value", ["0", "OFF", "no", "on,off"])
def test_another_value_for_the_rounding_is_refused(value):
    with pytest.raises(ToolchainError, match="VXM_SIM_ROUNDING: got .*expected on or off"):
        find_toolchain("sim", {"VXM_SIM_ROUNDING": value})


def test_an_unknown_engine_is_refused(monkeypatch):
    monkeypatch.setenv("VXM_SIM_ENGINE", "tensorrt")
    with pytest.raises(ToolchainError, match="VXM_SIM_ENGINE: got 'tensorrt', expected auto, openvino or onnxruntime"):
        engines.find_engine()


def test_without_rounding_the_device_says_so_and_does_not_round(engine, graph, tmp_path, monkeypatch, caplog):
    rounded = _run(graph, tmp_path, monkeypatch, "auto", "force_fp16")
    assert "NOT round" not in caplog.text
    monkeypatch.setenv("VXM_SIM_ROUNDING", "off")
    raw = _run(graph, tmp_path, monkeypatch, "auto", "force_fp16")
    assert "does NOT round as a 910 does" in caplog.text
    for one, other in zip(rounded, raw):
        assert np.array_equal(one, one.astype(np.float16)) and not np.array_equal(other, other.astype(np.float16))
        np.testing.assert_allclose(one, other, rtol=0, atol=0.01)
    marked = find_toolchain("sim", {"VXM_SIM_ROUNDING": "off"}).describe()["version"]
    assert marked.startswith(SIM_VERSION) and "ROUNDING OFF" in marked
    assert find_toolchain("sim", {}).describe()["version"] == SIM_VERSION


def test_the_documented_table_has_every_rewrite(project_root):
    text = (project_root / "docs" / "precision.md").read_text(encoding="utf-8")
    table = text[text.index("`VXM_SIM_REWRITES` chooses") : text.index("`auto`, the default")]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == list(rewrites.REWRITES)
