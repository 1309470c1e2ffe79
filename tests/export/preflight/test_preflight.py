# SPDX-License-Identifier: Apache-2.0
"""Preflight: every rule with a graph that breaks it and one that does not, memory by arithmetic, reports, command
line.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from export.__main__ import main
from export.preflight.check import Preflight, run_preflight, table, write_reports
from export.preflight.rules.conv3d import l1_bytes
from export.preflight.view.graph import read_view
from export.preflight.view.memory import blocked_bytes
from export.preflight.view.shapes import infer_shapes, tensorflow_shapes
from tests.support.fuzz import outcomes
from tests.support.graphs import PbBuilder, compile_pb, conv_attrs, up_conv_graph
from vxm_convert.ascend.operators import OPS
from vxm_convert.errors import ContractError, FormatError, ToolchainError, VxmError
from vxm_convert.model.precision import PLANS, PrecisionPlan

FAST = PLANS["fast"]
MIB = 1 << 20


def check(
    pb: PbBuilder, tmp_path: Path, plan: PrecisionPlan = FAST, soc: str = "Ascend910A", outputs: Any = ()
) -> Preflight:
    return run_preflight(pb.save(tmp_path / "graph.pb"), soc, plan, outputs)


def kinds(result: Preflight, severity: str = "") -> List[str]:
    return [finding.kind for finding in result.findings if not severity or finding.severity == severity]


def conv_graph(shape: Any = (1, 8, 8, 8, 2), kernel: Any = (3, 3, 3), channels: int = 0, **attrs: Any) -> PbBuilder:
    pb = PbBuilder()
    x = pb.placeholder("x", shape)
    weights = pb.const("kernel", np.zeros(tuple(kernel) + (channels or shape[-1], 4), np.float32))
    pb.node("Conv3D", "conv", x, weights, **{**conv_attrs(), **attrs})
    return pb


def one_op(op: str, *shape: int, **attrs: Any) -> PbBuilder:
    pb = PbBuilder()
    pb.node(op, "it", pb.placeholder("x", shape or (1, 4)), **attrs)
    return pb


def test_a_graph_of_ours_has_no_findings(tmp_path: Path) -> None:
    result = check(up_conv_graph(np.random.RandomState(0)), tmp_path)
    assert result.findings == () and result.unknown_shapes == 0
    assert result.engines == {"AI Core": 7, "GE local": 5, "constant": 6}
    result.check()


def test_every_unsupported_operator_is_named_not_only_the_first(tmp_path: Path) -> None:
    pb = PbBuilder()
    a = pb.node("Strange", "a", pb.placeholder("x", (1, 4)))
    b = pb.node("Stranger", "b", a)
    pb.node("Relu", "y", b)
    result = check(pb, tmp_path)
    assert kinds(result, "error") == ["unsupported"]
    assert result.findings[0].nodes == ("a", "b") and result.findings[0].ops == ("Strange", "Stranger")
    with pytest.raises(ToolchainError, match=r"Strange, Stranger x2 \(a, b\).*do this: replace") as caught:
        result.check()
    assert "1 fault for Ascend910A" in str(caught.value)


@pytest.mark.parametrize(
    "op, kind, severity",
    [
        ("NoOp", "no-op", "error"),
        ("VariableV2", "not-frozen", "error"),
        ("MirrorPad", "ai-cpu", "warning"),
        ("RandomStandardNormal", "ai-cpu", "warning"),
        ("Enter", "loop", "warning"),
        ("LoopCond", "loop", "warning"),
        ("StatelessWhile", "function", "warning"),
        ("TensorArrayWriteV3", "loop-on-cpu", "warning"),
        ("GatherNd", "slow", "note"),
    ],
)
def test_operators_with_a_price_or_none(tmp_path: Path, op: str, kind: str, severity: str) -> None:
    pb = PbBuilder()
    pb.node(op, "it", pb.placeholder("x", (1, 4)))
    pb.node("Relu", "y", "it")
    result = check(pb, tmp_path)
    found = {finding.kind: finding for finding in result.findings}
    assert found[kind].severity == severity and found[kind].nodes == ("it",)
    assert all(finding.do for finding in result.findings)
    assert (severity == "error") == (result.count("error") > 0)


def test_leaving_the_ai_core_has_a_cost_in_bytes(tmp_path: Path) -> None:
    pb = PbBuilder()
    pads = pb.const("pads", np.zeros((2, 2), np.int32))
    pb.node("MirrorPad", "y", pb.placeholder("x", (256, 1024)), pads)
    assert "2.0 MiB leave the AI Core" in check(pb, tmp_path).findings[0].what


def test_a_control_edge_to_a_no_op_is_an_error_and_a_dead_one_a_warning(tmp_path: Path) -> None:
    pb = one_op("Relu")
    pb.node("NoOp", "init")
    assert kinds(check(pb, tmp_path)) == ["dead"]
    pb.node("Relu", "z", "it", "^init")
    assert kinds(check(pb, tmp_path), "error") == ["no-op"]


@pytest.mark.parametrize(
    "shape, dtype, kind",
    [
        ((-1, 4), "float32", "dynamic"),
        ((0, 4), "float32", "dynamic"),
        ((1, 4), "float64", "input-dtype"),
        ((1, 4), "int16", "input-dtype"),
    ],
)
def test_inputs_that_cannot_be(tmp_path: Path, shape: Any, dtype: str, kind: str) -> None:
    pb = PbBuilder()
    pb.node("Identity", "y", pb.placeholder("x", shape, dtype))
    result = check(pb, tmp_path)
    assert kind in kinds(result, "error")


@pytest.mark.parametrize(
    "graph, said",
    [
        (dict(dilations=[1, 2, 1, 1, 1]), "E60038"),
        (dict(channels=3), "E60010"),
        (dict(strides=[1, 1, 64, 1, 1]), "stride along H is 64"),
        (dict(dilations=[1, 1, 1, 256, 1]), "dilation along W is 256"),
        (dict(shape=(1, 2, 2, 2, 1), kernel=(256, 1, 1)), "kernel along D is 256"),
        (dict(shape=(1, 2, 4097, 2, 1)), "image along H is 4097"),
        (dict(shape=(1, 2, 200, 224, 1), kernel=(1, 200, 1)), "E60026"),
        (dict(shape=(1, 2, 2, 2, 1), kernel=(3, 3, 3), padding="VALID"), "no output is left"),
        (dict(shape=(1, 2, 2, 4, 1), kernel=(1, 1, 255), dilations=[1, 1, 1, 3, 1]), "E60013"),
        (dict(data_format="NCDHW"), "channels last"),
    ],
)
def test_limits_of_conv3d(tmp_path: Path, graph: Dict[str, Any], said: str) -> None:
    result = check(conv_graph(**graph), tmp_path)
    complaints = [f"{f.what}; {f.do}" for f in result.findings if f.kind == "conv3d" and f.severity == "error"]
    assert any(said in text for text in complaints), complaints


@pytest.mark.parametrize(
    "graph",
    [
        {},
        dict(dilations=[1, 1, 2, 2, 1]),
        dict(strides=[1, 2, 2, 2, 1]),
        dict(shape=(1, 160, 192, 224, 2)),
        dict(strides=[1, 63, 63, 63, 1]),
        dict(shape=(1, 255, 1, 1, 1), kernel=(255, 1, 1)),
    ],
)
def test_convolutions_within_the_limits(tmp_path: Path, graph: Dict[str, Any]) -> None:
    assert check(conv_graph(**graph), tmp_path).findings == ()


def test_rows_in_l1_by_the_kernels_own_formula() -> None:
    # W = 224, 3x3 kernel, stride 1: (0 + 1) * 1 + 3 = 4 rows of 224 * 16 channels * 2 bytes.
    assert l1_bytes(224, 224, 3, 1, 1) == 28672
    assert l1_bytes(8, 8, 3, 2, 2) == ((2 + 1) * 2 + 5) * 8 * 32


@pytest.mark.parametrize(
    "mode, kind, severity",
    [
        ("must_keep_origin_dtype", "dtype", "error"),
        ("force_fp32", "", ""),
        ("allow_mix_precision", "", ""),
        ("cube_fp16in_fp32out", "", ""),
    ],
)
def test_a_convolution_cannot_stay_float32(tmp_path: Path, mode: str, kind: str, severity: str) -> None:
    result = check(conv_graph(), tmp_path, PrecisionPlan("custom", mode))
    assert [(f.kind, f.severity) for f in result.findings] == ([(kind, severity)] if kind else [])
    row = next(row for row in result.rows if row["node"] == "conv")
    assert row["float_in"] == "float16" and (row["dtype"] == "float32") == (
        mode in ("force_fp32", "cube_fp16in_fp32out")
    )


def test_dtypes_follow_mode_and_kept_nodes(tmp_path: Path) -> None:
    pb = PbBuilder()
    a = pb.node("Relu", "a", pb.placeholder("x", (1, 4)))
    pb.node("Floor", "b", a)

    def chosen(mode: str, *keep: str) -> List[str]:
        result = check(pb, tmp_path, PrecisionPlan("custom", mode, keep))
        return [row["dtype"] for row in result.rows if row["node"] in "ab"]

    assert chosen("force_fp16") == ["float16", "float16"]
    assert chosen("allow_fp32_to_fp16") == chosen("force_fp32") == ["float32", "float32"]
    assert chosen("force_fp16", "b") == ["float16", "float32"]
    assert chosen("allow_mix_precision") == ["float32", "float32"], "operators of neither list follow their predecessor"


def test_a_kernel_that_only_does_fp16_is_a_warning(tmp_path: Path) -> None:
    pb = one_op("AvgPool3D", 1, 4, 4, 4, 1, ksize=[1, 2, 2, 2, 1], strides=[1, 2, 2, 2, 1], padding="SAME")
    assert kinds(check(pb, tmp_path, PLANS["accurate"]), "warning") == ["dtype"]
    assert kinds(check(pb, tmp_path)) == []


def test_kept_nodes_must_exist(tmp_path: Path) -> None:
    result = check(one_op("Relu"), tmp_path, PrecisionPlan("custom", "force_fp16", ("gone",)))
    assert [(f.kind, f.nodes) for f in result.findings] == [("keep-dtype", ("gone",))]
    assert kinds(result, "error") == ["keep-dtype"], "ATC would only mention it in its log"
    plan = PrecisionPlan("custom", "force_fp16", fp32_results=("gone", "it"))
    assert [f.nodes for f in check(one_op("Relu"), tmp_path, plan).findings] == [("gone",), ("it",)]


def test_a_convolution_cannot_be_kept_but_may_return_float32(tmp_path: Path) -> None:
    result = check(conv_graph(), tmp_path, PrecisionPlan("custom", "force_fp16", ("conv",)))
    assert [(f.kind, f.severity, f.nodes) for f in result.findings] == [("keep-dtype", "error", ("conv",))]
    assert "EZ3003" in result.findings[0].what and "fp32_results" in result.findings[0].do
    wide = check(conv_graph(), tmp_path, PrecisionPlan("custom", "force_fp16", fp32_results=("conv",)))
    assert wide.findings == ()
    assert [(row["float_in"], row["dtype"]) for row in wide.rows if row["node"] == "conv"] == [("float16", "float32")]
    pb = up_conv_graph(np.random.RandomState(0))
    fused = check(pb, tmp_path, PrecisionPlan("custom", "force_fp16", ("bias_add",)))
    assert [(f.kind, f.severity, f.nodes) for f in fused.findings] == [("keep-dtype", "warning", ("bias_add",))]


def test_int64_arithmetic_and_many_splits_are_remarked(tmp_path: Path) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 32), "int64")
    pb.node("Add", "y", x, x)
    pb.node("Split", "parts", pb.const("axis", np.array(1, np.int32)), x, num_split=32)
    pb.node("Identity", "z", "parts:31")
    assert set(kinds(check(pb, tmp_path))) == {"wide", "slow"}


@pytest.mark.parametrize(
    "soc, warned",
    [
        ("Ascend910A", False),
        ("Ascend910", False),
        ("Ascend910ProB", False),
        ("Ascend910B1", True),
        ("Ascend310P3", True),
        ("Ascend999", True),
    ],
)
def test_chips_that_the_table_is_not_about(tmp_path: Path, soc: str, warned: bool) -> None:
    assert kinds(check(one_op("Relu"), tmp_path, soc=soc)) == (["chip"] if warned else [])


def test_other_chips_say_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    accurate = PLANS["accurate"]
    result = check(conv_graph(), tmp_path, accurate, "Ascend910B3")
    assert [(row["float_in"], row["dtype"]) for row in result.rows if row["node"] == "conv"] == [("float32", "float32")]
    assert "Atlas A2" in result.findings[0].what and "infinities" in result.findings[0].what
    plan = PrecisionPlan("x", "must_keep_origin_dtype")
    assert kinds(check(conv_graph(), tmp_path, plan, "Ascend910B3"), "error") == []
    widening = check(conv_graph(), tmp_path, PrecisionPlan("x", "cube_fp16in_fp32out"), "Ascend910B3")
    assert any(f.kind == "dtype" and "does not have" in f.what for f in widening.findings)
    pb = PbBuilder()
    pb.node("Cast", "base", pb.placeholder("x", (1, 4)), SrcT=np.dtype("float32"), DstT=np.dtype("int32"))
    assert any("no AI Core kernel of Cast" in f.what for f in check(pb, tmp_path, soc="Ascend310").findings)
    assert not any("kernel of Cast" in f.what for f in check(pb, tmp_path, soc="Ascend310P3").findings)


def test_memory_between_the_smallest_and_the_largest_card_is_a_warning(tmp_path: Path) -> None:
    def findings(gib: float) -> List[str]:
        side = int(gib * (1 << 30) / 4 / 2)
        result = check(one_op("Relu", side), tmp_path, PLANS["accurate"], "Ascend310P3")
        return [f.severity for f in result.findings if f.kind == "memory"]

    assert findings(5) == [] and findings(15) == ["warning"] and findings(30) == ["error"]


def test_open_sides_are_closed_as_by_atc(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A graph with a batch of -1 compiles with --input_shape, and is no error here either."""
    pb = PbBuilder()
    pb.node("Relu", "y", pb.placeholder("x", (-1, 4)))
    path = pb.save(tmp_path / "open.pb")
    assert main(["preflight", "--pb", str(path)]) == 1
    assert "--input-shape" in capsys.readouterr().out
    assert main(["preflight", "--pb", str(path), "--input-shape", "x:2,4", "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "preflight.json").read_text())["nodes"]
    assert [row["shape"] for row in rows] == ["2x4", "2x4"]
    for text, words in (
        ("x:2", "2 sides in the graph, 1 were given"),
        ("z:2,4", "has no input z"),
        ("x:0,4", "numbers above 0"),
        ("x:2,4;x:2,4", "each node once"),
        ("x:1~4,4", "expected node:number"),
    ):
        assert main(["preflight", "--pb", str(path), "--input-shape", text]) == 1
        assert words in capsys.readouterr().err, text


def test_outputs_of_loops_have_no_size_on_a_device(tmp_path: Path) -> None:
    def loop(pb: PbBuilder) -> str:
        x = pb.placeholder("x", (1, 4))
        into = pb.node("Enter", "enter", x, frame_name="f", T=np.dtype("float32"))
        return pb.node("Exit", "exit", into, T=np.dtype("float32"))

    pb = PbBuilder()
    pb.node("Relu", "y", loop(pb))
    result = check(pb, tmp_path)
    assert [f.nodes for f in result.findings if f.kind == "no-size"] == [("y",)]
    shaped = PbBuilder()
    fixed = shaped.node("Reshape", "r", loop(shaped), shaped.const("shape", np.array([1, 4], np.int32)))
    shaped.node("Relu", "y", fixed)
    assert "no-size" not in kinds(check(shaped, tmp_path))
    assert "no-size" not in kinds(check(one_op("Relu"), tmp_path))


def test_sixteen_channels_of_a_full_volume_take_210_mib() -> None:
    sizes = [blocked_bytes((1, 160, 192, 224, channels), 2) for channels in (1, 3, 16, 17)]
    assert sizes == [210 * MIB, 210 * MIB, 210 * MIB, 420 * MIB]


def test_memory_is_the_peak_of_what_lives_together(tmp_path: Path) -> None:
    volume = (1, 160, 192, 224, 1)
    pb = PbBuilder()
    node = pb.placeholder("x", volume)
    for index, (before, after) in enumerate([(1, 16), (16, 16), (16, 16)]):
        weights = pb.const(f"kernel{index}", np.zeros((3, 3, 3, before, after), np.float32))
        node = pb.node("Conv3D", f"conv{index}", node, weights, **conv_attrs())
    memory = check(pb, tmp_path, outputs=["conv2:0"]).memory
    # Input in blocks + first output, first + second output, second + third: always two volumes.
    assert memory.peak == 2 * 210 * MIB and memory.batch == 1 and memory.unknown == 0
    assert memory.weights == 3 * 27 * 16 * 16 * 2
    assert memory.edges == 4 * (1 + 16) * 160 * 192 * 224
    assert memory.largest_batch(32 << 30) == int((32 << 30) * 0.85 - memory.weights) // (memory.edges + memory.peak)


def test_images_are_kept_in_blocks_too(tmp_path: Path) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 64, 64, 3))
    kernel = pb.const("kernel", np.zeros((3, 3, 3, 8), np.float32))
    pb.node("Conv2D", "y", x, kernel, strides=[1, 1, 1, 1], padding="SAME", data_format="NHWC")
    result = check(pb, tmp_path)
    assert result.memory.peak == 2 * 64 * 64 * 16 * 2 and result.memory.weights == 9 * 16 * 16 * 2
    assert result.count("error") == 0


def test_a_skip_connection_lives_until_it_is_read(tmp_path: Path) -> None:
    pb = PbBuilder()
    first = pb.node("Relu", "first", pb.placeholder("x", (1, 1024)))
    second = pb.node("Exp", "second", first)
    third = pb.node("Neg", "third", second)
    pb.node("Add", "last", third, first)
    memory = check(pb, tmp_path, PLANS["accurate"]).memory
    assert memory.peak == 3 * 4096 and memory.peak_node in ("third", "last")


@pytest.mark.parametrize("mode", ["force_fp16", "allow_fp32_to_fp16"])
def test_the_estimate_is_near_what_the_simulated_compiler_reserves(tmp_path: Path, mode: str) -> None:
    path = up_conv_graph(np.random.RandomState(0), side=16).save(tmp_path / "graph.pb")
    model = compile_pb(path, tmp_path / "graph.om", [("y", 0)], mode)
    memory = run_preflight(path, "Ascend910A", PrecisionPlan("custom", mode), ["y:0"]).memory
    assert 0.7 < memory.peak / model.attrs["memory_size"] < 1.4
    assert 0.5 < memory.weights / len(model.weights) <= 1.0, "the file aligns each constant to 512 bytes"


def test_too_much_memory_is_an_error_with_a_batch_that_fits(tmp_path: Path) -> None:
    result = check(conv_graph(shape=(60, 160, 192, 224, 16)), tmp_path)
    finding = result.findings[0]
    assert (finding.kind, finding.severity) == ("memory", "error") and "--batch " in finding.do
    fitting = int(finding.do.split()[-1])
    assert 1 <= fitting < 60
    assert kinds(check(conv_graph(shape=(fitting, 160, 192, 224, 16)), tmp_path)) == []
    assert kinds(check(conv_graph(shape=(1, 2048, 1024, 1024, 16)), tmp_path)) == ["memory"]


def test_what_the_walker_does_not_know_stays_unknown(tmp_path: Path) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 8, 8, 8, 2))
    odd = pb.node("Strange", "odd", x)
    pb.node("Conv3D", "conv", odd, pb.const("kernel", np.zeros((3, 3, 3, 2, 4), np.float32)), **conv_attrs())
    result = check(pb, tmp_path)
    assert result.unknown_shapes == 2 and result.memory.unknown > 0 and result.memory.largest_batch(1 << 40) is None
    assert "shape unknown 2" in "\n".join(table(result)) and "unknown size" in "\n".join(table(result))
    assert next(row["shape"] for row in result.rows if row["node"] == "conv") == "unknown"


def test_a_loop_does_not_confuse_the_order(tmp_path: Path) -> None:
    pb = PbBuilder()
    enter = pb.node("Enter", "enter", pb.placeholder("x", (1, 4)))
    merge = pb.node("Merge", "merge", enter, "next")
    pb.node("NextIteration", "next", pb.node("Relu", "step", merge))
    pb.node("Exit", "exit", "step")
    result = check(pb, tmp_path)
    assert [f.kind for f in result.findings] == ["loop", "no-size"] and result.findings[0].nodes == (
        "enter",
        "next",
        "merge",
        "exit",
    )


def test_shapes_of_the_walker_are_tensorflows(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from vxm_convert.network.tf1 import tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (2, 4, 6, 8, 3), "x")
        y = tf.reshape(tf.transpose(tf.concat([x, x], -1), [0, 3, 1, 2, 4]), (2, -1, 24))
        y = tf.pad(tf.expand_dims(tf.gather(y, [0, 1], axis=1), 0), [[0, 0], [1, 0], [0, 2], [0, 0]])
        y = tf.squeeze(tf.tile(y, [1, 1, 2, 1]), [0]) + tf.ones((1, 8, 1))
        first, _ = tf.split(y, 2, axis=1)
        y = tf.stack(tf.unstack(first, axis=2)[:2], axis=0)
        tf.identity(tf.reduce_mean(y, axis=[1], keep_dims=True), "y")
        tf.identity(tf.nn.conv3d(x, tf.zeros((3, 3, 3, 3, 5)), [1, 2, 2, 2, 1], "VALID"), "z")
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    view = read_view(path, ["y:0", "z:0"])
    expected = tensorflow_shapes(path)
    known = {name: shape for name, shape in infer_shapes(view.nodes).items() if shape is not None}
    assert {name: expected[name] for name in known} == known
    assert known["y:0"] == expected["y:0"] and known["z:0"] == (2, 1, 2, 3, 5)


@pytest.mark.parametrize("variant", ["vm2", "vm2double"])
def test_the_network_as_exported_has_no_errors(tmp_path: Path, variant: str) -> None:
    pytest.importorskip("tensorflow")
    from export.contracts import build_contract
    from export.freeze import freeze, write_pb
    from tests.support.reference import random_weights
    from vxm_convert.model.spec import ModelSpec

    spec = ModelSpec(variant, (16, 16, 32))
    contract = build_contract(spec, PLANS["balanced"], "Ascend910A")
    write_pb(freeze(contract, random_weights(spec, seed=1)), tmp_path / "frozen.pb")
    outputs = [tensor.tensor_name for tensor in contract.outputs]
    result = run_preflight(tmp_path / "frozen.pb", "Ascend910A", contract.precision, outputs)
    assert [finding for finding in result.findings if finding.severity != "note"] == []
    assert result.unknown_shapes == 0, [row for row in result.rows if row["shape"] == "unknown"]
    assert result.memory.batch == 1


def test_a_map_fn_graph_gets_a_warning_and_no_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from vxm_convert.network.tf1 import tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, (2, 8, 8), "x")
        tf.identity(tf.map_fn(lambda image: tf.gather(image, [0, 3]) * 2.0, x), "y")
    (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    result = run_preflight(tmp_path / "graph.pb", "Ascend910A", FAST, ["y:0"], tensorflow_shapes(tmp_path / "graph.pb"))
    assert set(kinds(result, "warning")) == {"loop", "loop-on-cpu", "no-size"}
    assert kinds(result, "error") == []
    assert "TensorArrayGatherV3" in {op for finding in result.findings for op in finding.ops}
    assert all("map_fn" in finding.do for finding in result.findings if finding.severity == "warning")


def test_reports_hold_a_row_per_node_and_name_the_toolchain(tmp_path: Path) -> None:
    pb = conv_graph(dilations=[1, 2, 1, 1, 1])
    result = check(pb, tmp_path)
    write_reports(result, tmp_path, {"kind": "simulator", "version": "sim-0", "simulated": True})
    report = json.loads((tmp_path / "preflight.json").read_text())
    assert report["toolchain"]["kind"] == "simulator" and report["simulated"] is True
    assert report["findings"][0]["kind"] == "conv3d" and report["findings"][0]["nodes"] == ["conv"]
    assert report["memory"]["available"] == 32 << 30 and report["memory"]["total"] == result.memory.total
    with open(str(tmp_path / "preflight.csv"), newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["node"] for row in rows] == ["x", "kernel", "conv"]
    assert (
        rows[2]["engine"] == "AI Core"
        and rows[2]["severity"] == "error"
        and rows[2]["shape"] == "1x8x8x8x4"
        and rows[2]["do"]
    )


def test_the_table_puts_findings_first_and_counts_last(tmp_path: Path) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 4))
    for index in range(5):
        x = pb.node("TensorArrayWriteV3", f"write{index}", x)
    pb.node("Strange", "y", x)
    lines = table(check(pb, tmp_path))
    assert lines[1].startswith("  error    unsupported") and lines[3].startswith("  warning  loop-on-cpu")
    assert "x5 (write0, write1, write2, …)" in lines[3] and "write4" not in "\n".join(lines)
    assert lines[-1] == "  1 errors, 1 warnings, 0 notes"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good, bad = conv_graph().save(tmp_path / "good.pb"), one_op("Strange").save(tmp_path / "bad.pb")
    assert main(["preflight", "--pb", str(good), "--out", str(tmp_path / "out"), "--precision", "fast"]) == 0
    assert "preflight of good.pb for Ascend910A, precision fast (force_fp16)" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["preflight.csv", "preflight.json"]
    assert json.loads((tmp_path / "out/preflight.json").read_text())["toolchain"] == {"kind": "none"}
    assert main(["preflight", "--pb", str(bad)]) == 1
    assert "unsupported" in capsys.readouterr().out
    assert main(["preflight", "--pb", str(good), "--out-nodes", "gone:0"]) == 1
    assert "has no node gone" in capsys.readouterr().err
    assert main(["preflight", "--pb", str(tmp_path / "none.pb")]) == 1
    assert "cannot read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["preflight"])
    assert caught.value.code == 2


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x0a\x02\x0a\x00"])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "graph.pb").write_bytes(data)
    with pytest.raises(FormatError):
        run_preflight(tmp_path / "graph.pb", "Ascend910A", FAST)


def test_damaged_graphs_are_findings_or_one_message(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    good, rng = up_conv_graph(np.random.RandomState(0)).save(path).read_bytes(), np.random.RandomState(1)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        assert table(run_preflight(path, "Ascend910A", FAST))

    def damaged() -> Iterator[bytes]:
        for _ in range(300):
            data = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                data[rng.randint(len(data))] = rng.randint(256)
            yield bytes(data)

    taken, refused = outcomes(read, good, damaged(), VxmError)
    assert taken > 20 and refused > 20, (taken, refused)


def test_a_reader_of_nothing_is_refused(tmp_path: Path) -> None:
    pb = PbBuilder()
    pb.node("Relu", "y", "gone")
    with pytest.raises(ContractError, match="reads gone"):
        check(pb, tmp_path)


@pytest.mark.tf
def test_errors_stop_the_export_and_keep_the_table(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import export.preflight.rules.nodes as rules

    monkeypatch.setattr(rules, "OPS", {name: row for name, row in OPS.items() if name != "Floor"})
    arguments = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--skip-onnx", "--shape", "16,16,32"]
    arguments += ["--toolchain", "sim"]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "preflight:" in said and "Floor" in said and "--preflight report" in said and "ATC:" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["preflight-failed.csv"]
    assert main(arguments + ["--preflight", "report"]) == 0
    assert (tmp_path / "out/vxm.om").exists() and not (tmp_path / "out/preflight-failed.csv").exists()
    assert any(
        f["kind"] == "unsupported" for f in json.loads((tmp_path / "out/preflight.json").read_text())["findings"]
    )
