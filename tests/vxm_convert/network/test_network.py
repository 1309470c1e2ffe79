# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow network against an independent NumPy one, and the rules of the exported graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.support import reference
from tests.support.reference import random_weights
from vxm_convert.errors import SpecError
from vxm_convert.model.spec import VARIANTS, ModelSpec

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

from vxm_convert.model import variables as names  # noqa: E402
from vxm_convert.network.inference_graph import build_inference_graph  # noqa: E402
from vxm_convert.network.tf1 import tf  # noqa: E402
from vxm_convert.network.unet import (  # noqa: E402
    Convolutions,
    _conv,
    upsample_nearest,  # noqa: E402
)
from vxm_convert.network.warp import warp_linear, warp_nearest  # noqa: E402

SHAPE = (16, 16, 32)


def run(graph, feeds, fetches, weights=None):
    with tf.Session(graph=graph) as session:
        if weights is not None:
            with graph.as_default():
                variables = {v.op.name: v for v in tf.global_variables()}
            for name, value in weights.items():
                variables[name].load(value, session)
        return session.run(fetches, feeds)


def evaluate(build, *arrays):
    """Feed arrays through `build(*placeholders)`."""
    graph = tf.Graph()
    with graph.as_default():
        inputs = [tf.placeholder(tf.as_dtype(a.dtype), a.shape) for a in arrays]
        output = build(*inputs)
        with tf.Session(graph=graph) as session:
            return session.run(output, dict(zip(inputs, arrays)))


def test_variable_names_follow_the_checkpoint():
    shapes = names.expected_variables(ModelSpec("vm2", SHAPE))
    assert len(shapes) == 24
    assert shapes["conv3d/kernel"] == (3, 3, 3, 2, 16)
    assert shapes["conv3d_9/kernel"] == (3, 3, 3, 34, 16)
    assert shapes["conv3d_10/bias"] == (16,)
    assert shapes["flow/kernel"] == (3, 3, 3, 16, 3)


@pytest.mark.parametrize("variant,count", [("vm1", 259675), ("vm2", 300547), ("miccai2018", 266374)])
def test_parameter_counts_are_the_published_ones(variant, count):
    shapes = names.expected_variables(ModelSpec(variant, SHAPE))
    assert sum(int(np.prod(s)) for s in shapes.values()) == count


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_matches_numpy(stride):
    rng = np.random.RandomState(1)
    volume = rng.standard_normal((2, 4, 6, 8, 3)).astype(np.float32)
    layer = names.ConvLayer("conv3d", 3, 5, stride)
    kernel, bias = rng.standard_normal(layer.kernel_shape).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        entry = tf.placeholder(tf.float32, volume.shape)
        output = _conv(entry, layer, Convolutions())
    got = run(graph, {entry: volume}, output, {"conv3d/kernel": kernel, "conv3d/bias": bias})
    np.testing.assert_allclose(got, reference.conv3d_same(volume, kernel, bias, stride), atol=2e-5)


def test_upsampling_repeats_voxels_exactly():
    volume = np.random.RandomState(2).standard_normal((2, 2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(upsample_nearest, volume), reference.upsample(volume))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_whole_network_matches_numpy(variant):
    spec = ModelSpec(variant, SHAPE, batch=2)
    weights = random_weights(spec)
    rng = np.random.RandomState(3)
    moving, fixed = (rng.uniform(size=spec.image_shape).astype(np.float32) for _ in range(2))
    read = {name: value for name, value in weights.items() if not name.startswith("log_sigma/")}
    moved, flow = run(
        build_inference_graph(spec), {"moving:0": moving, "fixed:0": fixed}, ["moved:0", "flow_field:0"], read
    )
    expected_flow = reference.displacement(moving, fixed, weights)
    assert np.abs(expected_flow).max() > 1, "weights too small to test the warp"
    np.testing.assert_allclose(flow, expected_flow, atol=4e-5 if spec.diffeomorphic else 2e-5)
    np.testing.assert_allclose(moved, reference.warp_linear(moving, expected_flow), atol=5e-5)
    assert np.abs(moved - moving).max() > 0.1, "the warp is the identity"
    assert np.abs(moved[0] - moved[1]).max() > 0.1, "both batch items look the same"


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_exported_graph_keeps_its_rules(variant):
    spec = ModelSpec(variant, SHAPE, batch=2)
    graph = build_inference_graph(spec)
    with graph.as_default():
        kept = tf.graph_util.extract_sub_graph(graph.as_graph_def(), ["moved", "flow_field"])
    kinds = Counter(node.op for node in kept.node)
    allowed = {
        "Placeholder",
        "VariableV2",
        "Identity",
        "Const",
        "Conv3D",
        "BiasAdd",
        "LeakyRelu",
        "ConcatV2",
        "Reshape",
        "Unpack",
        "Floor",
        "Cast",
        "Maximum",
        "Minimum",
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "GatherV2",
    }
    assert set(kinds) <= (allowed | {"Slice"} if spec.diffeomorphic else allowed)
    assert kinds["GatherV2"] == 8 * (1 + spec.integration_steps)
    for node in kept.node:
        for tensor in graph.get_operation_by_name(node.name).outputs:
            assert tensor.shape.is_fully_defined(), tensor.name
            assert len(tensor.shape.as_list()) <= 5, tensor.name
        if node.op == "ConcatV2":
            assert node.attr["N"].i == 2
        if node.op == "GatherV2":
            assert node.attr["Tindices"].type == tf.int32.as_datatype_enum


def test_voxel_grids_are_small_constants():
    graph = build_inference_graph(ModelSpec("vm2", (32, 32, 32)))
    sizes = [int(np.prod(op.outputs[0].shape.as_list())) for op in graph.get_operations() if op.type == "Const"]
    assert max(sizes) <= 32


def border_flow(shape, seed=4):
    """Random displacements with every case at and beyond the borders: exact edges, halves, far outside, tiny
    negatives.
    """
    rng = np.random.RandomState(seed)
    flow = rng.uniform(-4, 4, shape + (3,)).astype(np.float32)
    side = shape[3]
    grid = np.arange(side, dtype=np.float32)
    special = [0.0, -0.5, 0.5, 1.0, -1.0, -1e-9, 1e-7, 300.0, -300.0, 2.5, -2.5]
    for number, value in enumerate(special):
        flow[:, number % shape[1], number % shape[2], :, number % 3] = value
    for number, target in enumerate([0, -1, -0.25, side - 1, side - 0.75, side, -side]):
        flow[:, number % shape[1], :, :, 2] = target - grid
    return flow


@pytest.mark.parametrize("channels", [1, 3])
def test_linear_warp_matches_numpy_at_and_beyond_borders(channels):
    shape = (2, 12, 10, 14)
    volume = np.random.RandomState(5).uniform(size=shape + (channels,)).astype(np.float32)
    flow = border_flow(shape)
    got = evaluate(warp_linear, volume, flow)
    np.testing.assert_allclose(got, reference.warp_linear(volume, flow), atol=2e-6)


def test_linear_warp_matches_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    shape = (2, 12, 10, 14)
    volume = np.random.RandomState(6).uniform(size=shape + (1,)).astype(np.float32)
    flow = border_flow(shape, seed=7)
    got = evaluate(warp_linear, volume, flow)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape[1:]], indexing="ij"))
    for item in range(2):
        positions = grid + np.moveaxis(flow[item].astype(np.float64), -1, 0)
        expected = ndimage.map_coordinates(volume[item, ..., 0].astype(np.float64), positions, order=1, mode="nearest")
        np.testing.assert_allclose(got[item, ..., 0], expected, atol=2e-6)


@pytest.mark.parametrize("huge", [1e6, 3e9, 1e30, np.inf])
def test_huge_displacements_clamp_to_the_border(huge):
    shape = (1, 4, 5, 6)
    volume = np.random.RandomState(8).uniform(size=shape + (1,)).astype(np.float32)
    flow = np.zeros(shape + (3,), np.float32)
    flow[..., 0] = huge
    np.testing.assert_array_equal(evaluate(warp_linear, volume, flow), np.broadcast_to(volume[:, -1:], volume.shape))
    np.testing.assert_array_equal(evaluate(warp_linear, volume, -flow), np.broadcast_to(volume[:, :1], volume.shape))
    np.testing.assert_array_equal(evaluate(warp_nearest, volume, -flow), np.broadcast_to(volume[:, :1], volume.shape))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_nearest_warp_matches_numpy(dtype):
    shape = (2, 12, 10, 14)
    volume = np.random.RandomState(9).randint(0, 2000, shape + (1,)).astype(dtype)
    flow = border_flow(shape)
    np.testing.assert_array_equal(evaluate(warp_nearest, volume, flow), reference.warp_nearest(volume, flow))


def test_nearest_warp_rounds_halves_to_even():
    volume = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6, 1)
    flow = np.zeros((1, 1, 1, 6, 3), np.float32)
    flow[..., 2] = 0.5
    assert evaluate(warp_nearest, volume, flow).ravel().tolist() == [0, 2, 2, 4, 4, 5]


def test_warp_refuses_shapes_that_do_not_match():
    with tf.Graph().as_default(), pytest.raises(SpecError, match="expected static"):
        warp_linear(tf.zeros((1, 4, 4, 4, 1)), tf.zeros((1, 4, 4, 5, 3)))
    with tf.Graph().as_default(), pytest.raises(SpecError, match="32-bit"):
        warp_linear(
            tf.placeholder(tf.float32, (400, 160, 192, 224, 1)), tf.placeholder(tf.float32, (400, 160, 192, 224, 3))
        )


def test_gradient_of_the_flow_is_the_derivative_of_the_warp():
    """Central differences of the NumPy reference; away from voxel boundaries, where the function has a kink."""
    shape = (1, 5, 6, 7)
    rng = np.random.RandomState(10)
    volume = rng.uniform(size=shape + (1,)).astype(np.float32)
    flow = (rng.randint(-3, 4, shape + (3,)) + rng.uniform(0.1, 0.9, shape + (3,))).astype(np.float32)

    def loss_gradient(v, u):
        return tf.gradients(tf.reduce_sum(tf.square(warp_linear(v, u))), u)[0]

    got = evaluate(loss_gradient, volume, flow)
    step = 1e-4
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        upper, lower = (
            reference.warp_linear(volume, flow + shift) ** 2,
            reference.warp_linear(volume, flow - shift) ** 2,
        )
        np.testing.assert_allclose(got[..., axis], ((upper - lower) / (2 * step))[..., 0], atol=1e-3)
    assert np.abs(got).max() > 0.1


def test_training_gradient_reaches_every_variable():
    spec = ModelSpec("vm2", (16, 16, 16))
    graph = build_inference_graph(spec)
    with graph.as_default():
        variables = tf.global_variables()
        loss = tf.reduce_mean(tf.square(graph.get_tensor_by_name("moved:0") - graph.get_tensor_by_name("fixed:0")))
        gradients = tf.gradients(loss, variables)
    rng = np.random.RandomState(11)
    moving, fixed = (rng.uniform(size=spec.image_shape).astype(np.float32) for _ in range(2))
    values = run(graph, {"moving:0": moving, "fixed:0": fixed}, gradients, random_weights(spec))
    for variable, value in zip(variables, values):
        assert np.abs(value).max() > 1e-8, variable.op.name


def textured_head(shape):
    """A textured body on a black background, 0..1, edges as steep as in a skull-stripped scan."""
    from scipy.ndimage import gaussian_filter

    texture = reference.smooth_noise(shape, 0, 1.1)
    texture = (texture - texture.min()) / (texture.max() - texture.min())
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return texture * gaussian_filter((sum(g * g for g in grid) < 0.75).astype(float), 0.8)


def test_in_half_precision_only_the_integer_base_keeps_positions():
    """At 224 voxels, p + u in float16 lands on a grid of 1/8 voxel; the same limits separate the two forms."""
    pytest.importorskip("scipy.ndimage")
    shape = (24, 32, 224)
    image = textured_head(shape)
    flow = reference.smooth_noise(shape + (3,), 1, 6.0, amplitude=6.0)
    exact = reference.warp_linear(image[None, ..., None], flow[None])[0, ..., 0]
    results = {}
    for integer_base in (True, False):
        error = reference.warp_half(image, flow, integer_base).astype(np.float64) - exact
        results[integer_base] = (np.abs(error).max(), -10 * np.log10(np.mean(error**2)))
    assert results[True][0] <= 1e-2 and results[True][1] >= 75
    assert results[False][0] > 1e-2 and results[False][1] < 75


def test_graph_in_half_precision_is_the_integer_base():
    """The TensorFlow warp itself, run on float16 tensors, keeps within the limits at 224 voxels."""
    pytest.importorskip("scipy.ndimage")
    shape = (12, 16, 224)
    image = textured_head(shape)
    flow = reference.smooth_noise(shape + (3,), 1, 6.0, amplitude=6.0)
    exact = reference.warp_linear(image[None, ..., None], flow[None])
    got = evaluate(warp_linear, image[None, ..., None].astype(np.float16), flow[None].astype(np.float16)).astype(
        np.float64
    )
    assert np.abs(got - exact).max() <= 1e-2
    assert -10 * np.log10(np.mean((got - exact) ** 2)) >= 75
