# SPDX-License-Identifier: Apache-2.0
"""The estimate of time on a chip: arithmetic, what must be dearer than what, batches, loops, labels, and ``--batch
auto``.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from export.__main__ import build_parser, main
from export.plans import save_plan
from export.preflight.check import run_preflight
from export.preflight.estimate.loops import find_loops
from export.preflight.estimate.speeds import (
    BURST,
    CUBE_PRODUCTS,
    CUBE_SHARE,
    LAUNCH,
    MEMORY_SHARE,
    SPEEDS,
    assumptions,
    device_of,
)
from export.preflight.estimate.text import estimate_table
from export.preflight.estimate.timing import BatchEstimate, LayerTime, TimeEstimate, recommend
from export.preflight.view.graph import read_view
from tests.support.graphs import PbBuilder, conv_attrs, up_conv_graph
from vxm_convert.model.precision import PLANS, PrecisionPlan

FAST, SINGLE = PLANS["fast"], PrecisionPlan("custom", "force_fp32")
FULL = (1, 160, 192, 224)
INT = np.dtype("int32")


def estimate(
    pb: PbBuilder, tmp_path: Path, plan: PrecisionPlan = FAST, soc: str = "Ascend910A", outputs: Any = ()
) -> TimeEstimate:
    return run_preflight(pb.save(tmp_path / "graph.pb"), soc, plan, outputs).time


def layer(found: TimeEstimate, node: str, op: str = "") -> LayerTime:
    (chosen,) = [row for row in found.layers if row.node == node and (not op or row.op == op)]
    return chosen


def conv_graph(channels: int = 2, filters: int = 4, shape: Any = (1, 16, 16, 16)) -> PbBuilder:
    pb = PbBuilder()
    kernel = pb.const("kernel", np.zeros((3, 3, 3, channels, filters), np.float32))
    pb.node("Conv3D", "conv", pb.placeholder("x", tuple(shape) + (channels,)), kernel, **conv_attrs())
    return pb


def test_a_convolution_counts_products_in_blocks_of_sixteen(tmp_path: Path) -> None:
    row = layer(estimate(conv_graph(shape=FULL), tmp_path), "conv", "Conv3D")
    voxels = 160 * 192 * 224
    assert row.flop == 2 * voxels * 27 * 16 * 16
    blocks = voxels * 16 * 2
    assert row.nbytes == 2 * blocks + 4 * 27 * 2 * 4
    cube = voxels * 27 * 16 * 16 / (32 * 1e9 * CUBE_PRODUCTS * CUBE_SHARE)
    memory = row.nbytes / (1200e9 * MEMORY_SHARE)
    assert row.seconds == pytest.approx(LAUNCH + max(cube, memory)) and row.bound == (
        "cube unit" if cube > memory else "memory"
    )


def test_more_channels_are_never_cheaper(tmp_path: Path) -> None:
    for grow in ("channels", "filters"):
        seconds = [
            layer(estimate(conv_graph(shape=FULL, **{grow: n}), tmp_path), "conv", "Conv3D").seconds
            for n in range(1, 50, 3)
        ]
        assert all(a <= b for a, b in zip(seconds, seconds[1:])) and seconds[-1] > 1.5 * seconds[0], grow


@pytest.mark.parametrize("soc", [soc for soc in SPEEDS if soc.startswith("Ascend310")])
def test_an_inference_card_is_slower_than_a_910(tmp_path: Path, soc: str) -> None:
    graph = up_conv_graph(np.random.RandomState(0), side=32)
    assert estimate(graph, tmp_path, soc=soc).seconds > 2 * estimate(graph, tmp_path).seconds


@pytest.mark.parametrize("op", ["AddV2", "Mul", "Maximum"])
def test_vector_operators_are_dearer_in_fp32(tmp_path: Path, op: str) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", FULL)
    # Behind another operator, so that no cast at the model's edge counts.
    pb.node("Neg", "y", pb.node(op, "it", pb.node("Neg", "n", x), pb.node("Abs", "a", x)))
    half, single = (layer(estimate(pb, tmp_path, plan), "it", op) for plan in (FAST, SINGLE))
    assert single.nbytes == 2 * half.nbytes and single.seconds > 1.5 * half.seconds


def test_conversions_at_the_edge_of_a_convolution_are_counted(tmp_path: Path) -> None:
    found = estimate(conv_graph(shape=FULL), tmp_path)
    into = [(row.op, row.kind) for row in found.layers if row.node == "conv" and row.kind in ("cast", "layout")]
    assert into == [
        ("Cast of x:0", "cast"),
        ("TransData of x:0", "layout"),
        ("Cast of conv:0", "cast"),
        ("TransData of conv:0", "layout"),
    ]
    voxels = 160 * 192 * 224
    assert layer(found, "conv", "Cast of x:0").nbytes == voxels * 2 * (4 + 2)
    assert layer(found, "conv", "TransData of x:0").nbytes == voxels * (2 + 16) * 2


def test_only_a_bias_that_nobody_else_reads_around_is_part_of_its_convolution(tmp_path: Path) -> None:
    for others in (0, 1):
        pb = conv_graph()
        pb.node("BiasAdd", "biased", "conv", pb.const("bias", np.zeros(4, np.float32)), data_format="NHWC")
        if others:
            pb.node("Neg", "more", "conv")
        assert sum(row.op == "BiasAdd" for row in estimate(pb, tmp_path).layers) == others


def gather_graph(op: str, rows: int, channels: int, batch: int = 1) -> PbBuilder:
    pb = PbBuilder()
    index = pb.placeholder("index", (batch * rows, 1) if op == "GatherNd" else (batch * rows,), "int32")
    table = pb.placeholder("table", (batch * rows, channels))
    if op == "GatherNd":
        pb.node(op, "it", table, index, Tparams=np.dtype("float32"))
    else:
        pb.node(op, "it", table, index, pb.const("axis", np.array(0, np.int32)), Tparams=np.dtype("float32"))
    return pb


def test_gathering_costs_by_the_row(tmp_path: Path) -> None:
    narrow, wide = (
        layer(estimate(gather_graph("GatherV2", 1 << 20, n), tmp_path, SINGLE), "it", "GatherV2") for n in (1, 2)
    )
    assert narrow.bound == "gathering" and narrow.seconds == pytest.approx(wide.seconds)
    assert narrow.nbytes == (1 << 20) * (4 + 4 + 4) + 4
    # A constant table: the rows are read, not all of it.
    pb = PbBuilder()
    index, table = pb.placeholder("index", (1 << 10,), "int32"), pb.const("table", np.zeros((1 << 16, 4), np.float32))
    pb.node("GatherV2", "it", table, index, pb.const("axis", np.array(0, np.int32)), Tparams=np.dtype("float32"))
    assert layer(estimate(pb, tmp_path, SINGLE), "it", "GatherV2").nbytes == (1 << 10) * (4 + 16 + 16) + 4
    slow = layer(estimate(gather_graph("GatherNd", 1 << 20, 1), tmp_path, SINGLE), "it", "GatherNd")
    assert slow.seconds > 3 * narrow.seconds
    # Whole slices are a copy: memory decides.
    assert layer(estimate(gather_graph("GatherV2", 64, 1 << 20), tmp_path, SINGLE), "it", "GatherV2").bound == "memory"


def test_short_pieces_move_more_than_they_hold(tmp_path: Path) -> None:
    def joined(axis: int) -> LayerTime:
        pb = PbBuilder()
        x, y = pb.placeholder("x", (64, 64, 64)), pb.placeholder("y", (64, 64, 64))
        parts = [
            pb.node("ExpandDims", f"e{name}", name, pb.const(f"last{name}", np.array(-1, np.int32))) for name in (x, y)
        ]
        pb.node("ConcatV2", "it", *parts, pb.const("axis", np.array(axis, np.int32)), N=2)
        return layer(estimate(pb, tmp_path, SINGLE), "it", "ConcatV2")

    size = 2 * 64**3 * 4
    assert joined(0).nbytes == 2 * size + 4
    assert joined(-1).nbytes == 2 * size * BURST // 4 + 4


def split_upsampling(side: int, channels: int) -> PbBuilder:
    """UpSampling3D as Keras writes it: along each axis every slice twice."""
    pb = PbBuilder()
    net, shape = pb.placeholder("x", (1, side, side, side, channels)), [1, side, side, side, channels]
    for axis in (1, 2, 3):
        axis_const = pb.const(f"axis{axis}", np.array(axis, np.int32))
        pb.node("Split", f"split{axis}", axis_const, net, num_split=side)
        slices = [f"split{axis}" + (f":{k}" if k else "") for k in range(side) for _ in range(2)]
        net = pb.node("ConcatV2", f"joined{axis}", *slices, axis_const, N=2 * side)
        shape[axis] *= 2
    pb.node("Neg", "y", net)
    return pb


def block_upsampling(side: int, channels: int) -> PbBuilder:
    """The same by three concatenations of a tensor with itself."""
    pb = PbBuilder()
    axis, net = pb.const("axis", np.array(-1, np.int32)), pb.placeholder("x", (1, side, side, side, channels))
    row = side * channels
    for number, shape in enumerate(
        [(1, side, side, 2 * row), (1, side, 4 * side * row), (1, 2 * side, 2 * side, 2 * side, channels)]
    ):
        net = pb.node("ConcatV2", f"joined{number}", net, net, axis, N=2)
        net = pb.node("Reshape", f"shaped{number}", net, pb.const(f"shape{number}", np.array(shape, np.int32)))
    pb.node("Neg", "y", net)
    return pb


@pytest.mark.parametrize("side, channels", [(8, 32), (32, 32), (80, 32)])
def test_upsampling_by_slices_is_slower_than_by_blocks(tmp_path: Path, side: int, channels: int) -> None:
    slices = estimate(split_upsampling(side, channels), tmp_path).kinds()["move"]
    assert slices > 1.3 * estimate(block_upsampling(side, channels), tmp_path).kinds()["move"]


def loop_graph(limit: Any, body: str = "Neg") -> PbBuilder:
    """``i = 0; v = x; while i < limit: v = body(v); i += 1``."""
    pb = PbBuilder()
    pb.placeholder("x", (64, 64))
    limit = pb.placeholder("limit", (), "int32") if limit is None else pb.const("limit", np.array(limit, np.int32))
    for name, source in (("i", pb.const("start", np.array(0, np.int32))), ("v", "x"), ("n", limit)):
        pb.node("Enter", f"w/{name}", source, frame_name="w/frame", is_constant=name == "n")
    for name in "iv":
        pb.node("Merge", f"w/merge_{name}", f"w/{name}", f"w/next_{name}")
    pb.node("LoopCond", "w/cond", pb.node("Less", "w/less", "w/merge_i", "w/n"))
    for name in "iv":
        pb.node("Switch", f"w/switch_{name}", f"w/merge_{name}", "w/cond")
        pb.node("Identity", f"w/now_{name}", f"w/switch_{name}:1")
    pb.node(
        "NextIteration", "w/next_i", pb.node("AddV2", "w/more", "w/now_i", pb.const("w/one", np.array(1, np.int32)))
    )
    pb.node("NextIteration", "w/next_v", pb.node(body, "w/body", "w/now_v"))
    pb.node("Neg", "y", pb.node("Exit", "w/exit", "w/switch_v"))
    return pb


@pytest.mark.parametrize(
    "limit, steps, unknown", [(7, 7, ()), (0, 0, ()), (None, 1, ("w/frame",)), (1 << 30, 1 << 20, ())]
)
def test_steps_of_a_loop(tmp_path: Path, limit: Optional[int], steps: int, unknown: Any) -> None:
    loops = find_loops(read_view(loop_graph(limit).save(tmp_path / "graph.pb"), ["y:0"]))
    assert loops.unknown == unknown and loops.steps["w/body"] == loops.steps["w/less"] == steps
    assert "y" not in loops.steps and "w/exit" not in loops.steps


def test_a_loop_costs_each_step_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    few, many = (estimate(loop_graph(n), tmp_path, outputs=["y:0"]) for n in (2, 20))
    assert many.seconds > 5 * few.seconds and many.kinds()["control flow"] > 0
    text = "\n".join(estimate_table(estimate(loop_graph(None), tmp_path, outputs=["y:0"])))
    assert (
        "at least that" in text
        and "1 loops an unknown length" in text
        and "at least that" not in "\n".join(estimate_table(estimate(conv_graph(), tmp_path)))
    )


def test_a_function_that_is_not_looked_into_is_told(tmp_path: Path) -> None:
    pb = PbBuilder()
    pb.node("Neg", "y", pb.node("StatelessWhile", "w", pb.placeholder("x", (4, 4))))
    assert estimate(pb, tmp_path).unknown >= 1


@pytest.mark.tf
@pytest.mark.parametrize("shape", [(16, 16, 16), FULL[1:]])
def test_a_warp_in_map_fn_is_slower_than_ours(tmp_path: Path, shape: Any) -> None:
    """The same kernels inside a loop of one step: tensor arrays on the AI CPU and control flow come on top."""
    tf = pytest.importorskip("tensorflow").compat.v1
    from export.preflight.view.shapes import tensorflow_shapes
    from vxm_convert.network.warp import warp_linear

    def saved(name: str, warp: Any) -> TimeEstimate:
        with tf.Graph().as_default() as graph:
            tf.identity(
                warp(
                    tf.placeholder(tf.float32, (1,) + shape + (1,), name="moving"),
                    tf.placeholder(tf.float32, (1,) + shape + (3,), name="flow"),
                ),
                name="moved",
            )
            (tmp_path / name).write_bytes(graph.as_graph_def().SerializeToString())
        return run_preflight(tmp_path / name, "Ascend910A", FAST, ["moved:0"], tensorflow_shapes(tmp_path / name)).time

    def single(pair: Any) -> Any:
        return warp_linear(pair[0][tf.newaxis], pair[1][tf.newaxis])[0]

    ours = saved("ours.pb", warp_linear)
    looped = saved("looped.pb", lambda moving, flow: tf.map_fn(single, (moving, flow), dtype=tf.float32))
    assert ours.unknown == looped.unknown == 0 and looped.endless == ()
    assert looped.kinds()["AI CPU"] > 0 and looped.kinds()["control flow"] > 0
    assert looped.seconds > 1.2 * ours.seconds


@pytest.mark.tf
@pytest.mark.parametrize("shape", [(16, 16, 32), FULL[1:]])
def test_the_existing_recipes_graph_is_slower_than_ours(
    tmp_path: Path, shape: Any, weights: Dict[str, np.ndarray]
) -> None:
    """Split and ConcatV2 for upsampling, tf.map_fn for the warp; shapes inside the loop are found without TensorFlow
    too.
    """
    pytest.importorskip("tensorflow")
    recipe = pytest.importorskip("scripts.benchmark.recipe")
    from export import freeze
    from export.contracts import build_contract
    from export.preflight.view.shapes import tensorflow_shapes
    from vxm_convert.model.spec import ModelSpec

    spec, pb = ModelSpec("vm2", shape), tmp_path / "frozen.pb"
    freeze.write_pb(freeze.freeze(build_contract(spec, FAST, "Ascend910A"), weights), pb)
    ours = run_preflight(pb, "Ascend910A", FAST).time
    graph_def, _, fetches = recipe.inference_graph(spec, weights)
    pb.write_bytes(graph_def.SerializeToString())
    theirs, without = (
        run_preflight(pb, "Ascend910A", FAST, list(fetches.values()), known).time
        for known in (tensorflow_shapes(pb), None)
    )
    assert theirs.unknown == ours.unknown == 0 and theirs.endless == ()
    assert theirs.seconds > 1.3 * ours.seconds and theirs.kinds()["move"] > 1.1 * ours.kinds()["move"]
    assert theirs.kinds()["AI CPU"] > 0 and "AI CPU" not in ours.kinds()
    assert without.seconds == pytest.approx(theirs.seconds) and without.unknown == 0


@pytest.mark.tf
def test_scaling_one_graph_is_what_a_graph_of_that_batch_gives(tmp_path: Path, weights: Dict[str, np.ndarray]) -> None:
    pytest.importorskip("tensorflow")
    from export import freeze
    from export.contracts import build_contract
    from vxm_convert.model.spec import ModelSpec

    made: Dict[int, TimeEstimate] = {}
    for batch in (1, 2, 4):
        contract = build_contract(ModelSpec("vm2", (16, 16, 32), batch), FAST, "Ascend910A")
        freeze.write_pb(freeze.freeze(contract, weights), tmp_path / "frozen.pb")
        made[batch] = run_preflight(tmp_path / "frozen.pb", "Ascend910A", FAST).time
    assert all(found.batch == batch for batch, found in made.items())
    for batch, found in made.items():
        (row,) = [row for row in made[1].batches if row.batch == batch]
        (own,) = [row for row in found.batches if row.batch == batch]
        assert own.seconds == pytest.approx(found.seconds)
        # A batch adds the offsets of its volumes to the gathered indices: a few more small kernels.
        assert row.seconds == pytest.approx(own.seconds, rel=0.1) and row.memory == pytest.approx(own.memory, rel=0.05)


def test_batches_cost_more_per_run_and_less_per_scan(tmp_path: Path) -> None:
    rows = estimate(up_conv_graph(np.random.RandomState(0), side=16), tmp_path).batches
    assert [row.batch for row in rows] == [1, 2, 4, 8]
    assert all(
        a.seconds < b.seconds and a.ms_per_scan >= b.ms_per_scan and a.memory < b.memory for a, b in zip(rows, rows[1:])
    )


@pytest.mark.parametrize(
    "table, chosen",
    [
        ([(1, 10, True), (2, 18, True), (4, 32, True)], 4),
        ([(1, 10, True), (2, 18, True), (4, 32, False)], 2),
        ([(1, 10, True), (2, 19.9, True), (4, 39.8, True)], 1),
        ([(1, 10, False), (2, 18, False)], None),
        ([(1, 10, None), (2, 18, None)], None),
        ([], None),
    ],
)
def test_the_advised_batch(table: List[Any], chosen: Optional[int]) -> None:
    assert recommend([BatchEstimate(batch, ms * 1e-3, 0, fits) for batch, ms, fits in table]) == chosen


def test_a_batch_that_leaves_no_room_is_not_advised(tmp_path: Path) -> None:
    # 7 volumes of 16 channels in fp32 blocks: above 85 % of a 310's 8 GiB from batch 2 on.
    pb = PbBuilder()
    net = pb.placeholder("x", FULL + (128,))
    pb.node("Neg", "y", pb.node("Neg", "n", net))
    found = estimate(pb, tmp_path, soc="Ascend310")
    assert [row.fits for row in found.batches] == [False] * 4 and found.recommended is None
    assert "no batch fits" in "\n".join(estimate_table(found))


def test_an_unknown_chip_borrows_figures_and_says_so(tmp_path: Path) -> None:
    found = estimate(conv_graph(), tmp_path, soc="Ascend910B4")
    text = "\n".join(estimate_table(found))
    assert "no figures for Ascend910B4: those of Ascend910A were taken [assumed]" in text and found.recommended is None
    assert "no batch is advised" in text
    assert device_of("Ascend910").known and device_of("Ascend910").figures_of == "Ascend910A"


@pytest.mark.parametrize("shape", [(1 << 62,) * 40, (3, 0, 5), (), (-3, 4)])
def test_absurd_shapes_give_some_number(tmp_path: Path, shape: Any) -> None:
    pb = PbBuilder()
    x = pb.placeholder("x", shape)
    y = pb.node("ConcatV2", "c", x, x, pb.const("axis", np.array(7, np.int32)), N=2)
    pb.node(
        "Conv3D", "z", pb.node("Pack", "p", y, y, axis=-9, N=2), pb.const("k", np.zeros(3, np.float32)), **conv_attrs()
    )
    pb.node("GatherNd", "g", x, pb.placeholder("i", (2, 9), "int32"))
    pb.node("BiasAdd", "b")
    pb.node("MatMul", "m", x, x)
    assert np.isfinite(estimate(pb, tmp_path).seconds)


def test_the_command_prints_it_labelled_with_its_assumptions(tmp_path: Path, capsys: Any) -> None:
    pb = conv_graph().save(tmp_path / "graph.pb")
    assert main(["preflight", "--pb", str(pb), "-q"]) == 0
    assert "ESTIMATE" not in capsys.readouterr().out
    assert main(["preflight", "--pb", str(pb), "--estimate", "--out", str(tmp_path / "out"), "-q"]) == 0
    out = capsys.readouterr().out
    assert "not a measurement" in out and "take batch 8" in out
    assert all(
        "ESTIMATE" in line
        for line in out.splitlines()
        if line.startswith("  ") and "by kind" in line or "slowest" in line
    )
    for what, value, source in assumptions(device_of("Ascend910A")):
        assert f"{what}: {value} [{source}]" in out
    report = json.loads((tmp_path / "out" / "preflight.json").read_text())["estimate"]
    assert (
        "not a measurement" in report["label"] and report["recommended_batch"] == 8 and len(report["assumptions"]) > 10
    )
    rows = {row["node"]: row for row in csv.DictReader((tmp_path / "out" / "preflight.csv").read_text().splitlines())}
    conv = [row for row in report["layers"] if row["node"] == "conv" and row["op"] == "Conv3D"]
    assert (
        float(rows["conv"]["estimate_ms"]) > 1e3 * conv[0]["seconds"] > 0
        and float(rows["conv"]["estimate_convert_ms"]) > 0
    )
    total = sum(float(row["estimate_ms"]) + float(row["estimate_convert_ms"]) for row in rows.values())
    assert total == pytest.approx(1e3 * report["seconds"], rel=1e-3)


@pytest.mark.parametrize(
    "more",
    [
        "--pb @other.pb",
        "--input-shape x:1,16,16,32,2",
        "--soc-version Ascend310",
        "--out-nodes gone:0",
        "--out @out",
        "--estimate",
        "--precision fast",
        "--plan @plan.json",
    ],
)
def test_an_option_of_the_check_changes_what_it_says(more: str, tmp_path: Path, capsys: Any) -> None:
    conv_graph().save(tmp_path / "graph.pb")
    up_conv_graph(np.random.RandomState(0)).save(tmp_path / "other.pb")
    save_plan(tmp_path / "plan.json", PrecisionPlan("mine", "force_fp16"))
    found = []
    for line in ("preflight -q --pb @graph.pb", f"preflight -q --pb @graph.pb {more}"):
        code = main([word.replace("@", f"{tmp_path}/") for word in line.split()])
        found.append((code, capsys.readouterr().out, sorted(path.name for path in tmp_path.iterdir())))
    assert found[0] != found[1]


@pytest.mark.parametrize("text", ["many", "2.5", ""])
def test_a_batch_is_a_number_or_auto(text: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--checkpoint", "x", "--out", "y", "--batch", text])
    assert ended.value.code == 2 and "expected a whole number or auto" in capsys.readouterr().err


@pytest.mark.tf
def test_an_export_takes_the_advised_batch_and_records_it(tmp_path: Path, checkpoint: Path, capsys: Any) -> None:
    pytest.importorskip("tensorflow")
    arguments = [
        "--checkpoint",
        str(checkpoint),
        "--shape",
        "16,16,16",
        "--toolchain",
        "sim",
        "--skip-onnx",
        "--batch",
        "auto",
        "-q",
    ]
    assert main(arguments + ["--out", str(tmp_path)]) == 0
    contract = json.loads((tmp_path / "contract.json").read_text())
    choice = json.loads((tmp_path / "parity.json").read_text())["batch_choice"]
    best = recommend(
        [
            BatchEstimate(row["batch"], row["ms_per_scan"] * row["batch"] * 1e-3, row["memory_bytes"], row["fits"])
            for row in choice["batches"]
        ]
    )
    assert contract["model"]["batch"] == choice["batch"] == best > 1
    assert choice["asked"] == "auto" and "not a measurement" in choice["label"]
    assert contract["tools"]["batch"] == "auto; " + choice["why"] and "ESTIMATE" in choice["why"]
    capsys.readouterr()
    assert main(arguments + ["--out", str(tmp_path / "other"), "--soc-version", "Ascend910B4"]) == 1
    assert "--batch auto: no batch is advised" in capsys.readouterr().err
