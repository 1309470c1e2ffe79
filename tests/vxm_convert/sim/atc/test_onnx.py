# SPDX-License-Identifier: Apache-2.0
"""ONNX models through the simulated ATC: equal to NumPy within fp16 rounding, and to the frozen graph bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vxm_convert.formats.om import read_om
from vxm_convert.sim.atc.__main__ import main
from vxm_convert.sim.engine.load import load_program

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLAGS = ["--framework=5", "--output=m", "--soc_version=Ascend910A"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _save(nodes, inputs, outputs, consts=(), path="m.onnx"):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(consts).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    with open(path, "wb") as handle:
        handle.write(model.SerializeToString())


def _run(feeds, *flags):
    assert main(["--model=m.onnx"] + FLAGS + list(flags)) == 0
    return load_program(read_om("m.om")).run(feeds)


def _conv3d(x, w, pads, stride):
    """A plain sum over the kernel, NCDHW, in float64."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0)] + [tuple(pair) for pair in pads])
    k = w.shape[2:]
    sides = [(x.shape[2 + i] - k[i]) // stride + 1 for i in range(3)]
    out = np.zeros((x.shape[0], w.shape[0]) + tuple(sides))
    for i, j, m in np.ndindex(*k):
        part = x[
            :,
            :,
            i : i + stride * sides[0] : stride,
            j : j + stride * sides[1] : stride,
            m : m + stride * sides[2] : stride,
        ]
        out += np.einsum("ncxyz,fc->nfxyz", part, w[:, :, i, j, m].astype(np.float64))
    return out


@pytest.mark.parametrize("stride, pads", [(1, [1, 1, 1, 1, 1, 1]), (2, [0, 0, 0, 1, 1, 1]), (1, [0] * 6)])
def test_convolution_with_channels_first(stride, pads):
    rng = np.random.RandomState(0)
    x = rng.rand(1, 3, 6, 6, 6).astype(np.float16).astype(np.float32)
    w, b = (
        (rng.randn(4, 3, 3, 3, 3) / 9).astype(np.float16).astype(np.float32),
        rng.randn(4).astype(np.float16).astype(np.float32),
    )
    _save(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", strides=[stride] * 3, pads=pads),
            helper.make_node("LeakyRelu", ["c"], ["y"], "act", alpha=0.25),
        ],
        [("x", x.shape)],
        ["y"],
        {"w": w, "b": b},
    )
    (got,) = _run([x], "--precision_mode=allow_fp32_to_fp16")
    expected = _conv3d(x, w, list(zip(pads[:3], pads[3:])), stride) + b.reshape(1, -1, 1, 1, 1)
    expected = np.where(expected > 0, expected, 0.25 * expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
    kinds = [op.type for op in read_om("m.om").graph]
    assert kinds.count("Conv3D") == 1 and kinds.count("TransposeD") == 2, "one transposition in, one out"


def _movement_nodes():
    return [
        helper.make_node("Transpose", ["x"], ["t"], "t", perm=[1, 2, 0]),
        helper.make_node("Split", ["t", "sizes"], ["a", "b"], "split", axis=0),
        helper.make_node("Slice", ["b", "starts", "ends", "axes"], ["s"], "cut"),
        helper.make_node("Concat", ["a", "s"], ["c"], "join", axis=1),
        helper.make_node("Unsqueeze", ["c", "zero"], ["u"], "u"),
        helper.make_node("Tile", ["u", "repeats"], ["ti"], "tile"),
        helper.make_node("Gather", ["ti", "picks"], ["ga"], "pick", axis=3),
        helper.make_node("Clip", ["ga", "low", "high"], ["cl"], "clip"),
        helper.make_node("Max", ["cl", "half", "quarter"], ["mx"], "max"),
        helper.make_node("Squeeze", ["mx", "three"], ["sq"], "sq"),
        helper.make_node("Reshape", ["sq", "shape"], ["y"], "shape"),
    ]


def test_moving_values_is_exact():
    x = np.random.RandomState(1).rand(2, 4, 5).astype(np.float16).astype(np.float32)
    _save(
        _movement_nodes(),
        [("x", x.shape)],
        ["y"],
        {
            "sizes": np.int64([2, 2]),
            "starts": np.int64([1]),
            "ends": np.int64([-1]),
            "axes": np.int64([1]),
            "zero": np.int64([0]),
            "repeats": np.int64([2, 1, 1, 1]),
            "picks": np.int64([1]),
            "low": np.float32(0.125),
            "high": np.float32(0.75),
            "half": np.float32(0.5),
            "quarter": np.float32([0.25]),
            "three": np.int64([3]),
            "shape": np.int64([0, -1]),
        },
    )
    (got,) = _run([x])
    t = x.transpose(1, 2, 0)
    c = np.concatenate([t[:2], t[2:][:, 1:-1]], axis=1)
    expected = np.maximum(np.clip(np.tile(c[None], (2, 1, 1, 1))[..., 1], 0.125, 0.75), 0.5).reshape(2, -1)
    assert np.array_equal(got, expected)


def test_nearest_upsampling_of_a_turned_volume():
    x = np.arange(2 * 3 * 4 * 2 * 2, dtype=np.float32).reshape(1, 2, 3, 4, 4)
    _save(
        [
            helper.make_node(
                "Resize",
                ["x", "", "scales"],
                ["y"],
                "up",
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ],
        [("x", x.shape)],
        ["y"],
        {"scales": np.float32([1, 1, 2, 2, 3])},
    )
    assert np.array_equal(_run([x])[0], x.repeat(2, 2).repeat(2, 3).repeat(3, 4))


def test_batch_normalisation_is_a_factor_and_an_offset():
    rng = np.random.RandomState(0)
    x, (s, o, m, v) = rng.rand(1, 3, 4, 4, 4).astype(np.float32), rng.rand(4, 3).astype(np.float32) + 0.5
    _save(
        [helper.make_node("BatchNormalization", ["x", "s", "o", "m", "v"], ["y"], "bn")],
        [("x", x.shape)],
        ["y"],
        {"s": s, "o": o, "m": m, "v": v},
    )
    s, o, m, v = (a.reshape(1, 3, 1, 1, 1) for a in (s, o, m, v))
    np.testing.assert_allclose(
        _run([x], "--precision_mode=force_fp32")[0], (x - m) / np.sqrt(v + 1e-5) * s + o, rtol=1e-4, atol=1e-5
    )


def test_every_unsupported_operator_is_named(folder, capsys):
    _save(
        [
            helper.make_node("Hardmax", ["x"], ["a"], "one"),
            helper.make_node("Relu", ["a"], ["b"], "two"),
            helper.make_node("NonZero", ["b"], ["y"], "three"),
        ],
        [("x", [4])],
        ["y"],
    )
    assert main(["--model=m.onnx"] + FLAGS) == 255
    out = capsys.readouterr().out
    assert "(E10501)" in out and "one (Hardmax), three (NonZero)" in out
    report = json.loads((folder / "check_result.json").read_text())
    assert [op["result"] for op in report["op"]] == ["failed", "success", "failed"] and not (folder / "m.om").exists()


def test_dynamic_sides_need_an_input_shape(capsys):
    _save([helper.make_node("Relu", ["x"], ["y"], "r")], [("x", ["n", 3])], ["y"])
    assert main(["--model=m.onnx"] + FLAGS) == 255 and "--input_shape" in capsys.readouterr().out
    assert _run([np.float32([[-1, 0, 1]] * 2)], "--input_shape=x:2,3")[0].tolist() == [[0, 0, 1]] * 2


@pytest.mark.parametrize(
    "flag, code",
    [
        ("--input_shape=z:1,3", "E10016"),
        ("--input_shape=x:3", "E10001"),
        ("--out_nodes=z:0", "E10016"),
        ("--input_fp16_nodes=z", "E10016"),
        ("--input_format=NDHWC", "E10001"),
    ],
)
def test_wrong_names_and_shapes(flag, code, capsys):
    _save([helper.make_node("Relu", ["x"], ["y"], "r")], [("x", [2, 3])], ["y"])
    assert main(["--model=m.onnx", flag] + FLAGS) == 255 and f"({code})" in capsys.readouterr().out


def test_outputs_are_nodes_or_tensors_and_inputs_may_be_half():
    _save(
        [helper.make_node("Relu", ["x:0"], ["a:0"], "r"), helper.make_node("Neg", ["a:0"], ["b:0"], "n")],
        [("x:0", [2])],
        ["b:0"],
    )
    assert (
        main(["--model=m.onnx", "--out_nodes=n:0;a:0", "--input_fp16_nodes=x:0", "--output_type=a:0:FP16"] + FLAGS) == 0
    )
    program = load_program(read_om("m.om"))
    assert [d.name for d in program.outputs] == ["n:0:b:0", "r:0:a:0"], "node:index:tensor"
    assert [(d.name, d.dtype.name) for d in program.inputs] == [("x", "float16")]
    got = program.run([np.float16([-1, 2])])
    assert got[0].tolist() == [0, -2] and got[1].tolist() == [0, 2] and got[1].dtype == np.float16
    assert read_om("m.om").attrs["framework_type"] == "Onnx"


def test_mode_1_writes_the_model_without_weights(folder):
    _save([helper.make_node("Add", ["x", "w"], ["y"], "add")], [("x", [2])], ["y"], {"w": np.float32([1, 2])})
    assert main(["--mode=1", "--om=m.onnx", "--json=m.json", "--framework=5"]) == 0
    data = json.loads((folder / "m.json").read_text())
    assert data["graph"]["node"][0]["op_type"] == "Add" and "raw_data" not in data["graph"]["initializer"][0]


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"no model"])
def test_what_is_no_onnx_model(content, folder, capsys):
    (folder / "m.onnx").write_bytes(content)
    assert main(["--model=m.onnx"] + FLAGS) == 255 and "(E13005)" in capsys.readouterr().out


@pytest.mark.tf
@pytest.mark.parametrize("mode", ["force_fp16", "allow_fp32_to_fp16"])
def test_the_network_as_onnx_equals_its_frozen_graph(mode, folder):
    """What tf2onnx makes of a whole VoxelMorph: the transpositions around its convolutions vanish again, so bit for
    bit.
    """
    pytest.importorskip("tensorflow")
    tf2onnx = pytest.importorskip("tf2onnx")
    from vxm_convert.model.spec import ModelSpec
    from vxm_convert.network.inference_graph import build_inference_graph
    from vxm_convert.network.tf1 import tf

    graph = build_inference_graph(ModelSpec("vm1", (16, 16, 32)))
    with tf.Session(graph=graph) as session:
        with graph.as_default():
            tf.set_random_seed(0)
            session.run(tf.global_variables_initializer())
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["moved", "flow_field"])
    frozen = tf.graph_util.remove_training_nodes(frozen, protected_nodes=["moved", "flow_field"])
    (folder / "g.pb").write_bytes(frozen.SerializeToString())
    model, _ = tf2onnx.convert.from_graph_def(
        frozen, input_names=["moving:0", "fixed:0"], output_names=["moved:0", "flow_field:0"], opset=15
    )
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    rng = np.random.RandomState(1)
    feeds = [rng.rand(1, 16, 16, 32, 1).astype(np.float32) for _ in range(2)]
    flags = [f"--precision_mode={mode}", "--out_nodes=moved:0;flow_field:0"]
    assert main(["--model=g.pb", "--framework=3", "--output=g", "--soc_version=Ascend910A"] + flags) == 0
    expected = load_program(read_om("g.om")).run(feeds)
    got = _run(feeds, *flags)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected)) and np.ptp(got[0]) > 0.1
