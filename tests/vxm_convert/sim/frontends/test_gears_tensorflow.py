# SPDX-License-Identifier: Apache-2.0
"""Each gear of a model equals TensorFlow's run of the same frozen graph within fp16 rounding."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.gear_graphs import CASES, compile_case, feeds, run_atc
from vxm_convert.formats.om import read_om
from vxm_convert.sim.engine.load import load_program

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow")

SIDE = 16


def _session(path, typed=True):
    """Function: (feeds by node, outputs) → arrays, of a frozen graph; our builder leaves types out that ATC does not
    need.
    """
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    for node in graph_def.node:
        if not typed and not any(value.type for value in node.attr.values()):
            node.attr["T"].type = tf.float32.as_datatype_enum
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        session = tf.compat.v1.Session(graph=graph)
    return lambda values, names: session.run(
        [f"{name}:0" for name in names], {f"{name}:0": value for name, value in values.items()}
    )


@pytest.mark.parametrize("name, tolerance", [("batch", 2e-3), ("hw", 2e-3), ("dims", 2e-3), ("volumes", 4e-3)])
def test_gears_equal_tensorflow(name, tolerance, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    program = load_program(read_om(compile_case(name, tmp_path)))
    run = _session(tmp_path / f"{name}.pb", typed=False)
    for gear in range(3):
        arrays = feeds(name, gear)
        want = run(dict(zip(case.inputs, arrays)), case.outputs)
        for got, expected in zip(program.program(gear).run(arrays), want):
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() <= tolerance * (1 + np.abs(expected).max())


def _voxelmorph(path):
    """The network at 16³ with its warp, any batch: Keras layers, sizes taken from tensors, one gather per corner."""
    rng = np.random.RandomState(5)

    def conv(net, filters, name, stride=1, act=True):
        kernel = tf.constant(
            (rng.randn(3, 3, 3, int(net.shape[-1]), filters) * 0.12).astype(np.float32), name=f"{name}/kernel"
        )
        net = tf.nn.bias_add(
            tf.nn.conv3d(net, kernel, [1, stride, stride, stride, 1], "SAME"), tf.constant([0.01] * filters)
        )
        return tf.nn.leaky_relu(net, 0.2) if act else net

    with tf.Graph().as_default() as graph:
        moving, fixed = (
            tf.compat.v1.placeholder(tf.float32, [None] + [SIDE] * 3 + [1], name) for name in ("moving", "fixed")
        )
        skips = [tf.concat([moving, fixed], -1)]
        for level, filters in enumerate((8, 16, 16)):
            skips.append(conv(skips[-1], filters, f"enc{level}", 2))
        net = conv(skips.pop(), 16, "dec0")
        for level in range(3):
            net = conv(tf.concat([tf.keras.layers.UpSampling3D()(net), skips.pop()], -1), 8, f"dec{level + 1}")
        flow = tf.identity(conv(net, 3, "flow", act=False) * 3, "flow_field")
        tf.identity(_warp(moving, flow), "moved")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def _warp(volume, flow):
    axes = [tf.range(SIDE, dtype=tf.float32)] * 3
    place = tf.clip_by_value(tf.stack(tf.meshgrid(*axes, indexing="ij"), -1) + flow, 0.0, SIDE - 1.0)
    low = tf.minimum(tf.floor(place), SIDE - 2.0)
    part, corner = place - low, tf.cast(low, tf.int32)
    batch = tf.reshape(tf.range(tf.shape(volume)[0]), [-1, 1, 1, 1]) * SIDE**3
    flat, total = tf.reshape(volume, [-1]), 0.0
    for step in np.ndindex(2, 2, 2):
        at = [corner[..., k] + step[k] for k in range(3)]
        weight = 1.0
        for k in range(3):
            weight = weight * (part[..., k] if step[k] else 1.0 - part[..., k])
        total += weight * tf.gather(flat, batch + (at[0] * SIDE + at[1]) * SIDE + at[2])
    return total[..., tf.newaxis]


@pytest.mark.parametrize("layout", ["NDHWC", "ND", "NHWC"])
def test_voxelmorph_with_batch_gears(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pb = _voxelmorph(tmp_path / "vxm.pb")
    shape = f"-1,{SIDE},{SIDE},{SIDE},1"
    flags = [
        f"--input_shape=moving:{shape};fixed:{shape}",
        "--dynamic_batch_size=1,2,4",
        "--precision_mode=allow_fp32_to_fp16",
        f"--input_format={layout}",
    ]
    program = load_program(read_om(run_atc(pb, tmp_path / "vxm", ["moved", "flow_field"], flags)))
    run, rng = _session(pb), np.random.RandomState(0)
    for gear, batch in enumerate((1, 2, 4) if layout == "NDHWC" else (1,)):
        # smooth enough that the rounding of the flow moves little
        moving, fixed = (
            np.cumsum(rng.rand(batch, SIDE, SIDE, SIDE, 1), axis=1).astype(np.float32) / SIDE for _ in range(2)
        )
        moved, flow = program.program(gear).run([moving, fixed])
        want_moved, want_flow = run({"moving": moving, "fixed": fixed}, ["moved", "flow_field"])
        assert np.abs(flow - want_flow).max() <= 4e-3 * np.abs(want_flow).max() and np.ptp(want_flow) > 0.5
        assert np.abs(moved - want_moved).max() <= 1e-2 and np.abs(want_moved - moving).max() > 0.1
        assert batch == 1 or np.abs(moved[0] - moved[1]).max() > 0.01


def test_loops_over_the_batch_and_random_numbers_of_its_shape(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 3], "x")
        tf.identity(tf.map_fn(lambda row: tf.nn.relu(row - 0.5) * 2, x), "mapped")
        tf.identity(tf.compat.v1.random_normal(tf.shape(x), seed=3) * 0 + x * 2, "twice")
        tf.identity(tf.compat.v1.random_normal(tf.shape(x), seed=3), "drawn")
    pb = tmp_path / "g.pb"
    pb.write_bytes(graph.as_graph_def().SerializeToString())
    model = read_om(
        run_atc(
            pb, tmp_path / "g", ["mapped", "twice", "drawn"], ["--input_shape=x:-1,4,3", "--dynamic_batch_size=1,3"]
        )
    )
    assert [loop.rpartition(": ")[2] for loop in model.attrs["vxm_unrolled_loops"]] == ["1", "3"]
    program, run = load_program(model), _session(pb)
    for gear, batch in enumerate((1, 3)):
        array = np.random.RandomState(gear).rand(batch, 4, 3).astype(np.float32)
        mapped, twice, drawn = program.program(gear).run([array])
        want = run({"x": array}, ["mapped", "twice"])
        assert np.abs(mapped - want[0]).max() <= 2e-3 and np.abs(twice - want[1]).max() <= 2e-3
        assert drawn.shape == array.shape and 0.3 < drawn.std() < 3
