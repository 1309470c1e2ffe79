# SPDX-License-Identifier: Apache-2.0
"""Positions that fp16 cannot hold, found without running the graph; the suggestion is then proved on the simulated
device.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest

from export.__main__ import main
from export.plans import save_plan
from export.preflight.check import Preflight, run_preflight, write_reports
from export.preflight.rules.resolution import half_spacing
from export.preflight.view.positions import constant_span
from export.preflight.view.shapes import tensorflow_shapes
from tests.support.graphs import PbBuilder, compile_pb, image_conv_attrs
from vxm_convert.model.precision import PLANS, PrecisionPlan
from vxm_convert.sim.engine.load import load_program

FAST = PLANS["fast"]
SHAPE = (4, 3, 200)


def found(path: Path, plan: PrecisionPlan = FAST, outputs: Any = (), shapes: Any = None) -> Preflight:
    return run_preflight(path, "Ascend910A", plan, outputs, shapes)


def of_kind(result: Preflight, severity: str = "") -> List[Any]:
    return [f for f in result.findings if f.kind == "resolution" and severity in ("", f.severity)]


def row_warp(tmp_path: Path, side: int = 200, scale: float = 1.0) -> Path:
    """A line of `side` voxels, sampled at mesh + flow, linearly; `scale` is the unit of the mesh."""
    pb = PbBuilder()
    volume, flow = pb.placeholder("volume", (side,)), pb.placeholder("flow", (side,))
    mesh = pb.const("mesh", np.arange(side, dtype=np.float32) * np.float32(scale))
    position = pb.node("Add", "position", mesh, flow)
    if scale != 1:
        position = pb.node("RealDiv", "in_voxels", position, pb.const("unit", np.array(scale, np.float32)))
    low, high = pb.const("zero", np.array(0, np.float32)), pb.const("last", np.array(side - 1, np.float32))
    position = pb.node("Minimum", "clipped", pb.node("Maximum", "raised", position, low), high)
    base = pb.node("Floor", "base", position)
    fraction = pb.node("Sub", "fraction", position, base)
    index = pb.node("Cast", "index", base, SrcT=np.dtype("float32"), DstT=np.dtype("int32"))
    one, last = pb.const("one", np.array(1, np.int32)), pb.const("last_index", np.array(side - 1, np.int32))
    following = pb.node("Minimum", "index_up", pb.node("Add", "index_next", index, one), last, T=np.dtype("int32"))
    axis = pb.const("axis", np.array(0, np.int32))
    a = pb.node("GatherV2", "low", volume, index, axis, Tparams=np.dtype("float32"))
    b = pb.node("GatherV2", "high", volume, following, axis, Tparams=np.dtype("float32"))
    pb.node("Add", "moved", a, pb.node("Mul", "blend", fraction, pb.node("Sub", "slope", b, a)))
    return pb.save(tmp_path / "row.pb")


def test_the_spacing_of_fp16() -> None:
    for value in (0.0, 6e-8, 6.1e-5, 0.3, 1.0, 31.9, 32.0, 128.0, 223.0, 2047.0, 32769.0):
        assert half_spacing(value) == float(np.spacing(np.float16(value)))
    assert half_spacing(65504.0) == 32 and half_spacing(65505.0) is None


def test_the_naive_warp_is_found_with_its_figures(tmp_path: Path) -> None:
    result = found(row_warp(tmp_path))
    (warning,) = of_kind(result, "warning")
    assert set(warning.nodes) == {"position", "raised", "clipped", "base", "fraction"} == set(result.keep_dtype)
    assert "up to 199" in warning.what and "1/64" in warning.what and "1/8" in warning.what
    assert {(p.largest, p.spacing, p.step) for p in result.positions} == {(199.0, 0.125, 1 / 64)}


def test_the_suggestion_makes_the_device_right(tmp_path: Path) -> None:
    """With what the check says kept, the simulated device samples where it should; with any one node less it does
    not.
    """
    path = row_warp(tmp_path)
    keep = list(found(path).keep_dtype)
    rng = np.random.RandomState(0)
    volume, flow = (
        rng.rand(200).astype(np.float16).astype(np.float32),
        (rng.randint(-192, 192, 200) / 64).astype(np.float32),
    )
    position = np.clip(np.arange(200) + flow.astype(np.float64), 0, 199)
    base = np.floor(position).astype(int)
    expected = volume[base] + (position - base) * (volume[np.minimum(base + 1, 199)] - volume[base])

    def error(kept: List[str]) -> float:
        model = compile_pb(path, tmp_path / "row.om", [("moved", 0)], "force_fp16", kept)
        program = load_program(model)
        feeds = {"volume": volume, "flow": flow}
        return float(np.abs(program.run([feeds[d.name] for d in program.inputs])[0] - expected).max())

    assert error(keep) < 2e-3 < 3e-2 < error([])
    for name in ("position", "raised", "clipped", "fraction"):
        assert error([kept for kept in keep if kept != name]) > 1e-2, name


def test_under_a_plan_that_keeps_fp32_it_is_a_note(tmp_path: Path) -> None:
    path = row_warp(tmp_path)
    result = found(path, PLANS["balanced"])
    assert result.keep_dtype == () and [f.severity for f in of_kind(result)] == ["note"]
    names = ("position", "raised", "clipped", "base", "fraction")
    kept = found(path, PrecisionPlan("kept", "force_fp16", names))
    assert kept.keep_dtype == () and not of_kind(kept, "warning")
    partly = found(path, PrecisionPlan("partly", "force_fp16", names[:-1]))
    assert partly.keep_dtype == ("fraction",)
    mixed = found(path, PrecisionPlan("mixed", "allow_mix_precision"))
    assert set(mixed.keep_dtype) <= set(names)


def test_short_axes_and_other_units(tmp_path: Path) -> None:
    assert of_kind(found(row_warp(tmp_path, side=48))) == []
    # A mesh on −1…1 or 0…1 is as fine, relative to its length.
    normalised = found(row_warp(tmp_path, side=160, scale=1 / 159))
    assert {"position", "in_voxels", "clipped"} <= set(normalised.keep_dtype)


def test_reports_list_the_positions(tmp_path: Path) -> None:
    result = found(row_warp(tmp_path))
    write_reports(result, tmp_path, {"kind": "none"})
    data = json.loads((tmp_path / "preflight.json").read_text())
    assert data["keep_dtype"] == list(result.keep_dtype)
    assert data["positions"][0]["spacing"] == 0.125 and data["positions"][0]["node"] in result.keep_dtype
    assert "resolution" in (tmp_path / "preflight.csv").read_text()


def test_the_command_says_it_and_a_plan_settles_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = row_warp(tmp_path)
    assert main(["preflight", "--pb", str(path), "--precision", "fast"]) == 0
    shown = capsys.readouterr().out
    assert "resolution" in shown and "1/64" in shown and "--keep_dtype" in shown
    save_plan(tmp_path / "plan.json", PrecisionPlan("kept", "force_fp16", found(path).keep_dtype))
    assert main(["preflight", "--pb", str(path), "--plan", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    assert "resolution" not in shown and "precision kept" in shown


GRIDS: Dict[str, Tuple[np.ndarray, Any]] = {
    "an axis": (np.arange(160, dtype=np.float32), 1.0),
    "a mesh": (np.indices((4, 100, 3))[1].astype(np.float32), 1.0),
    "a flattened mesh": (np.indices((4, 100, 3))[1].reshape(-1).astype(np.int32), 1.0),
    "axes as the last dimension": (np.stack(np.indices((4, 100, 70)), -1).astype(np.float32), 1.0),
    "from −1 to 1": (np.linspace(-1, 1, 201).astype(np.float32), 0.01),
    "a short axis": (np.arange(63, dtype=np.float32), None),
    "weights": (np.random.RandomState(0).randn(64, 64).astype(np.float32), None),
    "a positional embedding": (np.sin(np.arange(100)[:, None] / 10 ** np.arange(8)).astype(np.float32), None),
    "a step in it": (np.append(np.arange(100), 200).astype(np.float32), None),
    "counted unevenly": (np.append(np.arange(100), 3).astype(np.float32), None),
}


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_what_counts_as_a_grid(name: str) -> None:
    values, unit = GRIDS[name]
    span = constant_span(values)
    assert span.unit == (None if unit is None else pytest.approx(unit, rel=1e-3))
    assert (span.low, span.high) == (values.min(), values.max())


@pytest.mark.parametrize("ends", [(0, 5, 0), (0, 3e38, 1e-38), (-3e38, 3e38, 1), (5, 0, 1)])
def test_odd_ranges_are_passed_over(tmp_path: Path, ends: Any) -> None:
    pb = PbBuilder()
    numbers = [pb.const(f"c{k}", np.array(value, np.float32)) for k, value in enumerate(ends)]
    x = pb.placeholder("x", (5,))
    pb.node("Floor", "y", pb.node("Add", "sum", x, pb.node("Range", "range", *numbers)))
    assert of_kind(found(pb.save(tmp_path / "range.pb"))) == []


@pytest.mark.parametrize("value", [np.float32([]), np.full(100, np.nan, np.float32), np.array([True] * 100)])
def test_odd_constants_have_no_span(value: np.ndarray) -> None:
    assert constant_span(value) is None


def test_a_positional_constant_matters_only_where_it_becomes_an_index(tmp_path: Path) -> None:
    """Position numbers added to features of images (NHWC) are no sampling positions."""

    def graph(rounded: bool) -> Path:
        pb = PbBuilder()
        x = pb.placeholder("x", (1, 8, 128, 4))
        ramp = pb.const(
            "ramp", np.broadcast_to(np.arange(128, dtype=np.float32).reshape(1, 1, 128, 1), (1, 8, 128, 4)).copy()
        )
        net = pb.node("Add", "embedded", x, ramp)
        if rounded:
            pb.node("Floor", "y", net)
        else:
            kernel = pb.const("kernel", np.ones((3, 3, 4, 2), np.float32))
            pb.node("Relu", "y", pb.node("Conv2D", "conv", net, kernel, **image_conv_attrs()))
        return pb.save(tmp_path / "embedding.pb")

    assert of_kind(found(graph(False))) == []
    assert set(found(graph(True)).keep_dtype) == {"embedded", "y"}


def test_a_convolutional_network_of_images_has_none(tmp_path: Path) -> None:
    pb = PbBuilder()
    net = pb.placeholder("x", (1, 128, 128, 3))
    for number, channels in enumerate((3, 8, 8)):
        kernel = pb.const(f"kernel{number}", np.random.RandomState(0).randn(3, 3, channels, 8).astype(np.float32))
        net = pb.node("Relu", f"relu{number}", pb.node("Conv2D", f"conv{number}", net, kernel, **image_conv_attrs()))
    assert of_kind(found(pb.save(tmp_path / "cnn.pb"))) == []


# With TensorFlow: the forms in which people write it.


def tf_pb(tmp_path: Path, build: Callable[[Any, Any, Any], Any], shape: Tuple[int, ...] = SHAPE) -> Path:
    pytest.importorskip("tensorflow")
    from vxm_convert.network.tf1 import tf

    with tf.Graph().as_default() as graph:
        volume = tf.placeholder(tf.float32, (1,) + shape + (1,), name="volume")
        flow = tf.placeholder(tf.float32, (1,) + shape + (3,), name="flow")
        tf.identity(build(tf, volume, flow), name="moved")
        definition = tf.graph_util.extract_sub_graph(graph.as_graph_def(), ["moved"])
    path = tmp_path / "warp.pb"
    path.write_bytes(definition.SerializeToString())
    return path


def naive(tf: Any, volume: Any, flow: Any) -> Any:
    """One volume (X, Y, Z, 1) and its flow (X, Y, Z, 3), as tutorials have it: mesh + flow, clip, floor, gather_nd."""
    sides = volume.shape.as_list()[:3]
    mesh = tf.stack(tf.meshgrid(*[tf.range(0, side) for side in sides], indexing="ij"), axis=-1)
    loc = tf.cast(mesh, tf.float32) + flow
    last = tf.constant([side - 1 for side in sides], tf.float32)
    loc = tf.clip_by_value(loc, 0.0, last)
    low = tf.floor(loc)
    weight = loc - low
    low = tf.cast(low, tf.int32)
    high = tf.minimum(low + 1, [side - 1 for side in sides])
    a, b = tf.gather_nd(volume, low), tf.gather_nd(volume, high)
    return a + weight[..., :1] * (b - a)


@pytest.mark.tf
def test_mesh_and_flow(tmp_path: Path) -> None:
    path = tf_pb(tmp_path, lambda tf, volume, flow: naive(tf, volume[0], flow[0]))
    for shapes in (None, tensorflow_shapes(path)):
        result = found(path, shapes=shapes)
        ops = {position.op for position in result.positions if position.half}
        assert {"AddV2", "Minimum", "Maximum", "Floor", "Sub"} <= ops | {"AddV2" if "Add" in ops else ""}
        assert max(position.largest for position in result.positions) == 199


@pytest.mark.tf
def test_the_recipe_with_map_fn(tmp_path: Path) -> None:
    path = tf_pb(
        tmp_path,
        lambda tf, volume, flow: tf.map_fn(lambda pair: naive(tf, pair[0], pair[1]), [volume, flow], dtype=tf.float32),
    )
    result = found(path)
    assert {"Floor", "Sub"} <= {position.op for position in result.positions if position.half}
    assert all(name.startswith("map/while/") for name in result.keep_dtype)


@pytest.mark.tf
@pytest.mark.parametrize("plan", sorted(PLANS))
def test_our_warp_has_none(tmp_path: Path, plan: str) -> None:
    """It adds whole voxels as integers: there is nothing that fp16 could round away."""

    def ours(tf: Any, volume: Any, flow: Any) -> Any:
        from vxm_convert.network.warp import warp_linear

        return warp_linear(volume, flow)

    assert of_kind(found(tf_pb(tmp_path, ours), PLANS[plan])) == []


@pytest.mark.tf
def test_the_nearest_neighbour_form_forms_positions(tmp_path: Path) -> None:
    def nearest(tf: Any, volume: Any, flow: Any) -> Any:
        from vxm_convert.network.warp import warp_nearest

        return warp_nearest(volume, flow)

    path = tf_pb(tmp_path, nearest)
    assert {"Round"} <= {position.op for position in found(path).positions if position.half}
