# SPDX-License-Identifier: Apache-2.0
"""Images, matrices and the AI CPU in the simulated compiler: packing, layouts, dtypes, fusion, folding, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, compile_pb, conv_attrs, image_conv_attrs, run_pb
from vxm_convert.errors import FormatError
from vxm_convert.formats import fractal
from vxm_convert.sim.engine.load import load_program
from vxm_convert.sim.refusal import AtcRefusal


def _conv_graph(layout="NHWC", **attrs):
    rng = np.random.RandomState(0)
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 8, 7, 3) if layout == "NHWC" else (1, 3, 8, 7))
    w = pb.const("w", (rng.randn(3, 3, 3, 20) * 0.2).astype(np.float32))
    pb.node("Conv2D", "conv", x, w, **dict(image_conv_attrs(layout), **attrs))
    pb.node("BiasAdd", "biased", "conv", pb.const("b", rng.randn(20).astype(np.float32)), data_format=layout)
    pb.node("Relu6", "y", "biased")
    return pb


def _find(model, kind):
    return next(op for op in model.graph if op.type == kind)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 3, 17, 33), (5, 1, 16, 16)])
def test_image_filters_pack_as_the_definition_says(shape):
    w = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    packed = fractal.pack_fractal_z(w)
    height, width, channels, filters = shape
    assert packed.shape == (-(-channels // 16) * height * width, -(-filters // 16), 16, 16)
    for h, x, c, n in [
        (0, 0, 0, 0),
        tuple(side - 1 for side in shape),
        (height // 2, width // 2, channels // 2, filters // 2),
    ]:
        assert packed[(c // 16 * height + h) * width + x, n // 16, n % 16, c % 16] == w[h, x, c, n]
    assert packed.astype(np.float64).sum() == w.astype(np.float64).sum()
    assert np.array_equal(fractal.unpack_fractal_z(packed, shape), w)


@pytest.mark.parametrize("shape", [(1, 1), (784, 50), (16, 33)])
def test_matrices_pack_as_the_definition_says(shape):
    w = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    packed = fractal.pack_fractal_nz(w)
    assert packed.shape == (-(-shape[1] // 16), -(-shape[0] // 16), 16, 16)
    for m, n in [(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 3)]:
        assert packed[n // 16, m // 16, m % 16, n % 16] == w[m, n]
    assert packed.astype(np.float64).sum() == w.astype(np.float64).sum()
    assert np.array_equal(fractal.unpack_fractal_nz(packed, shape), w)


def test_packing_refuses_other_ranks_and_shapes():
    with pytest.raises(FormatError, match="rank 3"):
        fractal.pack_fractal_z(np.zeros((3, 3, 3), np.float32))
    with pytest.raises(FormatError, match="rank 1"):
        fractal.pack_fractal_nz(np.zeros(3, np.float32))
    with pytest.raises(FormatError, match="does not hold"):
        fractal.unpack_fractal_z(np.zeros((9, 1, 16, 16)), (3, 3, 17, 1))
    with pytest.raises(FormatError, match="does not hold"):
        fractal.unpack_fractal_nz(np.zeros((1, 1, 16, 16)), (17, 1))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_an_image_convolution_is_stored_in_blocks(layout, tmp_path):
    model = compile_pb(_conv_graph(layout).save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    conv, relu = _find(model, "Conv2D"), _find(model, "Relu6")
    assert [d.layout for d in conv.input_descs] == ["NC1HWC0", "FRACTAL_Z", "ND"]
    assert [d.dtype for d in conv.input_descs] == ["float16"] * 3
    assert conv.output_descs[0].shape == relu.output_descs[0].shape == (1, 2, 8, 7, 16)
    assert conv.output_descs[0].origin_layout == layout and conv.attrs["_datadump_original_op_names"] == [
        "conv",
        "biased",
    ]
    assert conv.output_descs[0].origin_shape == ((1, 8, 7, 20) if layout == "NHWC" else (1, 20, 8, 7))


def test_both_data_formats_give_the_same_numbers(tmp_path):
    x = np.random.RandomState(1).rand(1, 8, 7, 3).astype(np.float32)
    (last,) = run_pb(_conv_graph().save(tmp_path / "a.pb"), tmp_path / "a.om", [("y", 0)], [x])
    (first,) = run_pb(
        _conv_graph("NCHW").save(tmp_path / "b.pb"), tmp_path / "b.om", [("y", 0)], [np.moveaxis(x, 3, 1).copy()]
    )
    assert np.array_equal(np.moveaxis(first, 1, 3), last) and last.std() > 0.1


def test_matrix_weights_are_packed_and_their_bias_fused(tmp_path):
    rng = np.random.RandomState(0)
    pb = PbBuilder()
    w = rng.randn(40, 5).astype(np.float32)
    pb.node("MatMul", "mm", pb.placeholder("x", (2, 40)), pb.const("w", w), transpose_a=False, transpose_b=False)
    pb.node("BiasAdd", "y", "mm", pb.const("b", rng.randn(5).astype(np.float32)))
    path = pb.save(tmp_path / "g.pb")
    product = _find(compile_pb(path, tmp_path / "g.om", [("y", 0)]), "MatMulV2")
    assert (
        product.input_descs[1].layout == "FRACTAL_NZ"
        and product.input_descs[1].shape == (1, 3, 16, 16)
        and len(product.inputs) == 3
    )
    kept = _find(compile_pb(path, tmp_path / "k.om", [("y", 0)], "must_keep_origin_dtype"), "MatMulV2")
    assert kept.input_descs[1].layout == "ND" and {d.dtype for d in kept.input_descs + kept.output_descs} == {"float32"}


def test_convolutions_have_no_fp32_kernel(tmp_path):
    with pytest.raises(AtcRefusal, match=r"conv \(Conv2D\)"):
        compile_pb(_conv_graph().save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], "must_keep_origin_dtype")


def test_batch_norm_constants_are_folded_in_fp32(tmp_path):
    pb = PbBuilder()
    x = np.linspace(-2, 2, 32, dtype=np.float32).reshape(1, 4, 4, 2)
    scale, offset, mean, variance = (np.array(v, np.float32) for v in ([1.5, 2], [0.1, -0.3], [0.5, 1], [4, 0.25]))
    names = [pb.const(name, value) for name, value in (("s", scale), ("o", offset), ("m", mean), ("v", variance))]
    pb.node(
        "FusedBatchNormV3",
        "y",
        pb.placeholder("x", x.shape),
        *names,
        is_training=False,
        epsilon=0.001,
        data_format="NHWC",
    )
    path = pb.save(tmp_path / "g.pb")
    norm = _find(compile_pb(path, tmp_path / "g.om", [("y", 0)]), "BatchNorm")
    assert [d.dtype for d in norm.input_descs] == ["float16", "float32", "float32"] and norm.output_descs[
        0
    ].dtype == "float16"
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [x])
    want = (x.astype(np.float16).astype(np.float32) - mean) / np.sqrt(variance + np.float32(0.001)) * scale + offset
    assert np.abs(got - want).max() <= 4e-3 and np.array_equal(got, got.astype(np.float16))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_batch_norm_in_training_form_uses_the_batch(layout, tmp_path):
    x = np.random.RandomState(0).rand(3, 2, 5, 2).astype(np.float32)
    axes, shape = ((0, 1, 2), (2,)) if layout == "NHWC" else ((0, 2, 3), (1, 2, 1, 1))
    scale, offset = np.float32([2, 3]), np.float32([-1, 1])
    pb = PbBuilder()
    names = [pb.const("s", scale), pb.const("o", offset)] + [pb.const(name, np.zeros(0, np.float32)) for name in "mv"]
    pb.node(
        "FusedBatchNorm", "y", pb.placeholder("x", x.shape), *names, is_training=True, epsilon=0.01, data_format=layout
    )
    (got,) = run_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)], [x], "force_fp32")
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.01)
    np.testing.assert_allclose(got, normal * scale.reshape(shape) + offset.reshape(shape), atol=1e-5)


def test_random_numbers_come_from_the_ai_cpu_in_fp32(tmp_path):
    def build(seed):
        pb = PbBuilder()
        shape = pb.const("shape", np.array([50, 60], np.int32))
        pb.node("RandomStandardNormal", "noise", shape, dtype=np.dtype("float32"), seed=seed, seed2=3)
        pb.node("AddV2", "y", pb.placeholder("x", (50, 60)), "noise")
        return compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])

    model = build(7)
    op = _find(model, "FrameworkOp")
    assert (
        op.attrs["original_type"] == "RandomStandardNormal"
        and op.attrs["_ge_attr_op_kernel_lib_name"] == "aicpu_tf_kernel"
    )
    assert op.attrs["_lxfusion_engine_name"] == "DNN_VM_AICPU" and op.output_descs[0].dtype == "float32"
    cast = next(other for other in model.graph if other.inputs == ["noise:0"])
    assert (
        cast.name.startswith("trans_Cast_")
        and cast.output_descs[0].dtype == "float16"
        and model.attrs["stream_num"] == 2
    )
    zero = [np.zeros((50, 60), np.float32)]
    program = load_program(model)
    first, second = program.run(zero)[0], program.run(zero)[0]
    assert abs(first.mean()) < 0.06 and abs(first.std() - 1) < 0.05 and not np.array_equal(first, second)
    assert np.array_equal(load_program(model).run(zero)[0], first)
    assert not np.array_equal(load_program(build(8)).run(zero)[0], first)


def test_shapes_and_ranges_are_folded(tmp_path):
    pb = PbBuilder()
    x = pb.placeholder("x", (2, 3))
    shape = pb.node("Shape", "shape", x, out_type=np.dtype("int32"))
    top = pb.const("one", np.array(1, np.int32))
    side = pb.node("GatherV2", "side", shape, top, pb.const("axis", np.array(0, np.int32)))
    numbers = pb.node("Range", "range", pb.const("zero", np.array(0, np.int32)), side, top)
    numbers = pb.node("Cast", "float", numbers, SrcT=np.dtype("int32"), DstT=np.dtype("float32"))
    pb.node("AddV2", "y", x, numbers)
    path = pb.save(tmp_path / "g.pb")
    model = compile_pb(path, tmp_path / "g.om", [("y", 0)], "force_fp32")
    assert {op.type for op in model.graph} == {"Data", "Const", "Add", "NetOutput"}
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [np.ones((2, 3), np.float32)], "force_fp32")
    assert got.tolist() == [[1, 2, 3]] * 2


def test_a_huge_fill_is_refused_before_it_is_allocated(tmp_path):
    pb = PbBuilder()
    pb.node(
        "Fill", "big", pb.const("shape", np.array([1 << 20, 1 << 20], np.int32)), pb.const("v", np.array(1, np.float32))
    )
    pb.node("AddV2", "y", pb.placeholder("x", (1,)), "big")
    with pytest.raises(AtcRefusal, match="1099511627776 elements"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_an_unread_input_may_still_be_fed(tmp_path):
    pb = PbBuilder()
    pb.node("Relu", "y", pb.placeholder("x", (2,)))
    pb.placeholder("unread", (3,))
    (got,) = run_pb(
        pb.save(tmp_path / "g.pb"),
        tmp_path / "g.om",
        [("y", 0)],
        [np.array([-1, 2], np.float32), np.zeros(3, np.float32)],
    )
    assert got.tolist() == [0, 2]


@pytest.mark.parametrize(
    "change, text",
    [
        ({"strides": [1, 1]}, "strides"),
        ({"data_format": "NCHW"}, "channels"),
        ({"dilations": [1, 0, 1, 1]}, "dilations"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(change, text, tmp_path):
    with pytest.raises(AtcRefusal, match=text) as caught:
        compile_pb(_conv_graph(**change).save(tmp_path / "g.pb"), tmp_path / "g.om", [("conv", 0)])
    assert caught.value.code == "E20001"


def test_a_transposed_convolution_needs_sizes_that_belong_together(tmp_path):
    pb = PbBuilder()
    sizes, w = pb.const("sizes", np.array([1, 9, 9, 2], np.int32)), pb.const("w", np.ones((3, 3, 2, 4), np.float32))
    pb.node("Conv2DBackpropInput", "y", sizes, w, pb.placeholder("x", (1, 4, 4, 4)), **image_conv_attrs(stride=2))
    with pytest.raises(AtcRefusal, match="input_sizes"):
        compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])


def test_stored_weights_are_numpy_float16_of_the_checkpoints(tmp_path):
    """Bit for bit after unpacking, subnormals and saturation included, in every packed layout."""
    rng = np.random.RandomState(9)
    pb = PbBuilder()
    image = (rng.randn(3, 3, 5, 18) * 10.0 ** rng.randint(-8, 3, (3, 3, 5, 18))).astype(np.float32)
    image[0, 0, 0, :2] = [1e6, -1e6]
    volume = (rng.randn(3, 3, 3, 17, 4) * 1e-6).astype(np.float32)
    matrix = (rng.randn(20, 33) * 1e-5).astype(np.float32)
    pb.node("Conv2D", "a", pb.placeholder("x", (1, 4, 4, 5)), pb.const("wi", image), **image_conv_attrs())
    pb.node("Conv3D", "b", pb.placeholder("v", (1, 4, 4, 4, 17)), pb.const("wv", volume), **conv_attrs())
    pb.node("MatMul", "c", pb.placeholder("m", (2, 20)), pb.const("wm", matrix))
    model = compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("a", 0), ("b", 0), ("c", 0)])
    stored = {op.output_descs[0].layout: op for op in model.graph if op.data is not None}
    for layout, unpack, weights in [
        ("FRACTAL_Z", fractal.unpack_fractal_z, image),
        ("FRACTAL_Z_3D", fractal.unpack_fractal_z_3d, volume),
        ("FRACTAL_NZ", fractal.unpack_fractal_nz, matrix),
    ]:
        half = np.clip(weights, -65504, 65504).astype(np.float16)
        got = unpack(stored[layout].data, stored[layout].output_descs[0].logical_shape)
        assert np.array_equal(got.view(np.uint16), half.view(np.uint16))
        assert ((half != 0) & (np.abs(half) < 2.0**-14)).any()


@pytest.mark.parametrize("order", [("conv", "b"), ("b", "conv")])
def test_adding_a_constant_vector_is_a_bias(order, tmp_path):
    pb = PbBuilder()
    pb.node(
        "Conv2D",
        "conv",
        pb.placeholder("x", (1, 4, 4, 2)),
        pb.const("w", np.ones((1, 1, 2, 3), np.float32)),
        **image_conv_attrs(),
    )
    pb.const("b", np.array([1, 2, 3], np.float32))
    pb.node("AddV2", "y", *order)
    path = pb.save(tmp_path / "g.pb")
    kinds = [op.type for op in compile_pb(path, tmp_path / "g.om", [("y", 0)]).graph]
    assert "Add" not in kinds and "Conv2D" in kinds
    (got,) = run_pb(path, tmp_path / "g.om", [("y", 0)], [np.ones((1, 4, 4, 2), np.float32)])
    assert got[0, 0, 0].tolist() == [3, 4, 5]


def test_a_convolution_that_something_else_reads_keeps_its_bias_apart(tmp_path):
    pb = PbBuilder()
    pb.node(
        "Conv2D",
        "conv",
        pb.placeholder("x", (1, 4, 4, 2)),
        pb.const("w", np.ones((1, 1, 2, 3), np.float32)),
        **image_conv_attrs(),
    )
    pb.node("AddV2", "y", "conv", pb.const("b", np.array([1, 2, 3], np.float32)))
    path = pb.save(tmp_path / "g.pb")
    got = run_pb(path, tmp_path / "g.om", [("conv", 0), ("y", 0)], [np.ones((1, 4, 4, 2), np.float32)])
    assert [v[0, 0, 0].tolist() for v in got] == [[2, 2, 2], [3, 4, 5]]
