# SPDX-License-Identifier: Apache-2.0
"""Common ONNX operators, opsets 11 to 15: compiled with ``--framework=5``, loaded, run, and compared with ONNX
Runtime.
"""

from __future__ import annotations

import numpy as np
import pytest

from vxm_convert.formats.om import read_om
from vxm_convert.sim.engine.load import load_program

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vxm_convert.sim.atc.__main__ import main  # noqa: E402

RNG = np.random.RandomState(0)
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL}
CASES = {}


def _normal(*shape, scale=1.0):
    return (RNG.randn(*shape) * scale).astype(np.float32)


IMAGE, VOLUME, MATRIX = _normal(2, 6, 9, 8), _normal(1, 4, 6, 5, 7), _normal(3, 4)
POSITIVE = np.abs(MATRIX) + np.float32(0.2)


def case(name, op, feeds, consts=(), opset=13, outputs=1, **attrs):
    """One node; operands in order are the feeds, then the constants (None: left out)."""
    CASES[name] = (op, feeds, list(consts), opset, outputs, attrs)


for _op in (
    "Relu Sigmoid Tanh Abs Neg Exp Floor Ceil Round Sign Erf Sin Cos Tan Atan Sinh Cosh Elu Selu Softplus Softsign "
    "LeakyRelu "
    "HardSigmoid Identity"
).split():
    case(_op, _op, [MATRIX])
for _op in "Log Sqrt Reciprocal".split():
    case(_op, _op, [POSITIVE])
case("Elu, alpha", "Elu", [MATRIX], alpha=0.5)
case("HardSwish", "HardSwish", [MATRIX], opset=14)
case("PRelu", "PRelu", [IMAGE], [POSITIVE.reshape(-1)[:6].reshape(6, 1, 1)])
for _op in "Add Sub Mul Div Pow Max Min Sum Mean Less Greater Equal LessOrEqual GreaterOrEqual".split():
    case(_op, _op, [POSITIVE, POSITIVE[1:2]])
case("Max of three", "Max", [MATRIX, -MATRIX, POSITIVE])
case("Mod", "Mod", [np.int64([[7, -7, 7, -7]]), np.int64([[3, 3, -3, -3]])])
case("fmod", "Mod", [POSITIVE, POSITIVE[::-1].copy()], fmod=1)
case("Where", "Where", [MATRIX > 0, MATRIX, POSITIVE[:1]])
case("And", "And", [MATRIX > 0, POSITIVE > 1])
case("Xor", "Xor", [MATRIX > 0, POSITIVE > 1])
case("Not", "Not", [MATRIX > 0])
case("Clip", "Clip", [MATRIX], [np.float32(-0.5), np.float32(0.5)])
case("Clip, no minimum", "Clip", [MATRIX], [None, np.float32(0.5)])
case("Cast", "Cast", [MATRIX * 3], to=TensorProto.INT32)
for _opset in (11, 13):
    for _axis in (0, 1, 2, -1):
        case(f"Softmax {_axis}, opset {_opset}", "Softmax", [VOLUME[0]], opset=_opset, axis=_axis)
case("LogSoftmax", "LogSoftmax", [MATRIX])

for _name, _shape, _attrs in (
    ("plain", (5, 6, 3, 3), {"pads": [1] * 4}),
    ("strided", (5, 6, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}),
    ("dilated", (5, 6, 3, 3), {"pads": [2, 3, 2, 3], "dilations": [2, 3]}),
    ("uneven", (5, 6, 3, 2), {"pads": [0, 1, 2, 0]}),
    ("in groups", (9, 2, 3, 3), {"group": 3}),
    ("depthwise", (12, 1, 3, 3), {"group": 6, "pads": [1] * 4}),
    ("same upper", (5, 6, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("same lower", (5, 6, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("valid", (5, 6, 3, 3), {"auto_pad": "VALID"}),
):
    case(f"Conv, {_name}", "Conv", [IMAGE], [_normal(*_shape, scale=0.2), _normal(_shape[0])], **_attrs)
case("Conv, volume", "Conv", [VOLUME], [_normal(5, 4, 3, 3, 3, scale=0.1)], pads=[1] * 6, strides=[2, 1, 2])
case("Conv, volume in groups", "Conv", [VOLUME], [_normal(6, 2, 3, 3, 3, scale=0.1), _normal(6)], pads=[1] * 6, group=2)
for _name, _attrs in (
    ("plain", {}),
    ("strided", {"strides": [2, 2], "pads": [1] * 4}),
    ("kernel 2", {"strides": [2, 2], "kernel_shape": [2, 2]}),
    ("with output padding", {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 2]}),
    ("dilated", {"dilations": [2, 1]}),
    ("in groups", {"group": 2, "strides": [2, 2]}),
    ("depthwise", {"group": 6, "strides": [2, 2], "pads": [1] * 4}),
):
    _side = _attrs.get("kernel_shape", [3])[0]
    case(
        f"ConvTranspose, {_name}",
        "ConvTranspose",
        [IMAGE],
        [_normal(6, 4, _side, _side, scale=0.2), _normal(4 * _attrs.get("group", 1))],
        **_attrs,
    )
case(
    "ConvTranspose, volume",
    "ConvTranspose",
    [VOLUME],
    [_normal(4, 3, 3, 3, 3, scale=0.2)],
    strides=[2] * 3,
    pads=[1] * 6,
    output_padding=[1] * 3,
)
for _op in ("MaxPool", "AveragePool"):
    for _name, _attrs in (
        ("plain", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("padded", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
        ("ceiled", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("uneven", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}),
        ("same", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("same lower", {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_LOWER"}),
    ):
        case(f"{_op}, {_name}", _op, [IMAGE], **_attrs)
    case(f"{_op}, volume", _op, [VOLUME], kernel_shape=[2] * 3, strides=[2] * 3)
case(
    "AveragePool, padding counted",
    "AveragePool",
    [IMAGE],
    kernel_shape=[3, 3],
    strides=[2, 2],
    pads=[1] * 4,
    count_include_pad=1,
)
case("GlobalAveragePool", "GlobalAveragePool", [IMAGE])
case("GlobalMaxPool", "GlobalMaxPool", [VOLUME])
case(
    "BatchNormalization",
    "BatchNormalization",
    [IMAGE],
    [np.abs(_normal(6)), _normal(6), _normal(6), np.abs(_normal(6)) + np.float32(0.5)],
)
case("InstanceNormalization", "InstanceNormalization", [IMAGE], [_normal(6), _normal(6)])
case("InstanceNormalization, volume", "InstanceNormalization", [VOLUME], [_normal(4), _normal(4)])
case("LRN", "LRN", [IMAGE], size=3, alpha=0.1, bias=2.0)
for _mode in ("nearest", "linear"):
    for _turn in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        case(
            f"Resize, {_mode}, {_turn}",
            "Resize",
            [IMAGE],
            [None, None, np.int64([2, 6, 13, 17])],
            mode=_mode,
            coordinate_transformation_mode=_turn,
        )
for _kind in ("round_prefer_ceil", "floor", "ceil"):
    case(
        f"Resize, {_kind}", "Resize", [IMAGE], [None, np.float32([1, 1, 1.5, 2.5])], mode="nearest", nearest_mode=_kind
    )
case(
    "Resize, trilinear",
    "Resize",
    [VOLUME],
    [None, np.float32([1, 1, 2, 2, 2])],
    mode="linear",
    coordinate_transformation_mode="align_corners",
)
case("DepthToSpace", "DepthToSpace", [_normal(1, 8, 3, 5)], blocksize=2)
case("SpaceToDepth", "SpaceToDepth", [_normal(1, 2, 4, 6)], blocksize=2)

case("MatMul", "MatMul", [MATRIX], [_normal(4, 5)])
case("MatMul of batches", "MatMul", [_normal(2, 3, 4), _normal(4, 5)])
case("Gemm", "Gemm", [MATRIX], [_normal(5, 4), _normal(5)], transB=1)
case("Gemm, scaled", "Gemm", [MATRIX], [_normal(3, 5), _normal(5)], transA=1, alpha=0.5, beta=2.0)
for _op in "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare".split():
    case(_op, _op, [IMAGE[:, :2, :3, :2]], axes=[1, -1], keepdims=0)
    case(f"{_op} of all", _op, [POSITIVE[:2]])
case("ReduceSum", "ReduceSum", [IMAGE], [np.int64([2, 3])])
case("ReduceLogSumExp", "ReduceLogSumExp", [MATRIX], axes=[1])
case("ArgMax", "ArgMax", [IMAGE], axis=1, keepdims=0)
case("ArgMin", "ArgMin", [IMAGE], axis=-1)
case("TopK", "TopK", [_normal(5, 7)], [np.int64([3])], outputs=2, axis=0)
case("CumSum", "CumSum", [MATRIX], [np.int64(1)], reverse=1, exclusive=1)
case("Concat", "Concat", [IMAGE, IMAGE[:, :2]], axis=1)
case("Split", "Split", [IMAGE], [np.int64([1, 5])], outputs=2, axis=1)
case("Split, opset 11", "Split", [IMAGE], opset=11, outputs=3, axis=1)
case(
    "Slice", "Slice", [IMAGE], [np.int64([1, -1]), np.int64([1 << 40, -(1 << 40)]), np.int64([2, 3]), np.int64([2, -3])]
)
case("Transpose", "Transpose", [IMAGE], perm=[3, 1, 0, 2])
case("Reshape", "Reshape", [IMAGE], [np.int64([0, -1, 4])])
case("Flatten", "Flatten", [IMAGE], axis=2)
case("Squeeze", "Squeeze", [IMAGE[:1]], [np.int64([0])])
case("Unsqueeze", "Unsqueeze", [IMAGE], [np.int64([1, -1])])
case("Expand", "Expand", [MATRIX[:1]], [np.int64([2, 3, 4])])
case("Tile", "Tile", [MATRIX], [np.int64([2, 3])])
for _mode in ("constant", "reflect", "edge"):
    case(f"Pad, {_mode}", "Pad", [IMAGE], [np.int64([0, 1, 2, 0, 1, 0, 3, 1])], mode=_mode)
case("Pad by a value", "Pad", [MATRIX], [np.int64([1, 0, 0, 2]), np.float32(1.5)])
case("Gather", "Gather", [IMAGE], [np.int64([[0, -1], [2, 1]])], axis=1)
case("GatherElements", "GatherElements", [MATRIX], [np.int64([[0, 1, -1], [2, 2, 0]])], axis=0)
case("GatherElements by an input", "GatherElements", [MATRIX, np.int64([[0, 3], [2, 2], [1, 1]])], axis=1)
case("GatherND", "GatherND", [IMAGE, np.int64([[0, 1], [1, 5]])])
case("ScatterND", "ScatterND", [MATRIX], [np.int64([[2], [0]]), _normal(2, 4)])
case("OneHot", "OneHot", [np.int64([2, 0, 5])], [np.int64([3]), np.float32([-1, 2])], axis=0)


def _model(name):
    op, feeds, consts, opset, outputs, attrs = CASES[name]
    inputs = [helper.make_tensor_value_info(f"x{k}", TYPES[v.dtype.name], v.shape) for k, v in enumerate(feeds)]
    names = [f"x{k}" for k in range(len(feeds))] + ["" if v is None else f"c{k}" for k, v in enumerate(consts)]
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, "node", **attrs)
    tensors = [numpy_helper.from_array(v, f"c{k}") for k, v in enumerate(consts) if v is not None]
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_empty_tensor_value_info(name) for name in results], tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    return onnx.shape_inference.infer_shapes(model)


def _compile_and_run(model, feeds, *flags):
    with open("m.onnx", "wb") as handle:
        handle.write(model.SerializeToString())
    assert main(["--model=m.onnx", "--framework=5", "--output=m", "--soc_version=Ascend910A", *flags]) == 0
    return load_program(read_om("m.om")).run(list(feeds))


def _reference(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"x{k}": v for k, v in enumerate(feeds)})


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_operator_gives_what_onnxruntime_gives(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, feeds = _model(name), CASES[name][1]
    for a, b in zip(_compile_and_run(model, feeds), _reference(model, feeds)):
        assert a.shape == b.shape and a.dtype == b.dtype
        error = np.abs(a.astype(np.float64) - b) / (1 + np.abs(b.astype(np.float64)))
        assert error.max() <= 6e-3, (a, b)


def test_shape_arithmetic_of_an_exporter_is_folded(tmp_path, monkeypatch):
    """What PyTorch writes for ``x.view(x.size(0), -1)`` and for an interpolation to twice the size."""
    monkeypatch.chdir(tmp_path)
    consts = {"zero": np.int64(0), "minus": np.int64([-1]), "axis0": np.int64([0]), "two": np.float32([1, 1, 2, 2])}
    nodes = [
        helper.make_node("Shape", ["x0"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis0"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["flat"], axis=0),
        helper.make_node("Cast", ["shape"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "two"], ["big"]),
        helper.make_node("Cast", ["big"], ["sizes"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["n1"], ["none"]),
        helper.make_node(
            "Resize", ["x0", "", "", "sizes"], ["up"], mode="nearest", coordinate_transformation_mode="asymmetric"
        ),
        helper.make_node("Reshape", ["up", "flat"], ["flattened"]),
        helper.make_node("Add", ["flattened", "half"], ["y0"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
    ]
    nodes.insert(0, nodes.pop())
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_empty_tensor_value_info("y0")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    (got,) = _compile_and_run(model, [IMAGE], "--precision_mode=force_fp32")
    want = IMAGE.repeat(2, 2).repeat(2, 3).reshape(2, -1) + np.float32(0.5)
    assert np.array_equal(got, want)


@pytest.mark.parametrize(
    "op, inputs, attrs, text",
    [
        ("MaxPool", ["x0"], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilation"),
        ("LRN", ["x0"], {"size": 4}, "odd size"),
        ("Resize", ["x0", "", "scales"], {"mode": "cubic"}, "nearest or linear"),
        ("Conv", ["x0", "x0"], {}, "not a constant"),
        ("Range", ["x0", "x0", "x0"], {}, "known when the model is compiled"),
        ("MaxPool", ["x0"], {}, "kernel_shape"),
        ("Resize", ["x0", "", "scales"], {"coordinate_transformation_mode": "tf_crop_and_resize"}, "not supported"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_its_name(op, inputs, attrs, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y0"], "culprit", **attrs)],
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, (1, 4, 6, 6))],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, (1, 4, 6, 6))],
        [numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert main(["--model=m.onnx", "--framework=5", "--output=m", "--soc_version=Ascend910A"]) == 255
    out = capsys.readouterr().out
    assert "culprit" in out and text in out and not (tmp_path / "m.om").exists()
