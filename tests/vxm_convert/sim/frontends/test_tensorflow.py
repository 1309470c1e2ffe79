# SPDX-License-Identifier: Apache-2.0
"""Graphs that TensorFlow builds and runs, compiled and run by the simulated toolchain: equal within fp16 rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.support.graphs import compile_pb
from vxm_convert.sim.engine.load import load_program

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow")


@pytest.fixture(params=("openvino", "onnxruntime"))
def engine(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setenv("VXM_SIM_ENGINE", request.param)


def _both(tmp_path, build, feeds, mode="force_fp16"):
    """(TensorFlow's results, the simulated device's, the compiled model) for placeholders in the order of `feeds`."""
    with tf.Graph().as_default() as graph:
        inputs = [tf.compat.v1.placeholder(v.dtype, v.shape, f"in{k}") for k, v in enumerate(feeds)]
        built = build(*inputs)
        outputs = [
            tf.identity(v, f"out{k}") for k, v in enumerate(built if isinstance(built, (list, tuple)) else [built])
        ]
        with tf.compat.v1.Session() as session:
            want = session.run(outputs, dict(zip(inputs, feeds)))
        path = tmp_path / "g.pb"
        path.write_bytes(graph.as_graph_def().SerializeToString())
    model = compile_pb(path, tmp_path / "g.om", [(f"out{k}", 0) for k in range(len(outputs))], mode)
    return want, load_program(model).run(list(feeds)), model


def _assert_close(got, want, tolerance):
    for a, b in zip(got, want):
        assert a.shape == b.shape and a.dtype == b.dtype
        error = np.abs(a.astype(np.float64) - b) / (1 + np.abs(b.astype(np.float64)))
        assert error.max() <= tolerance, error.max()


RNG = np.random.RandomState(0)


def _normal(*shape, scale=1.0):
    return (RNG.randn(*shape) * scale).astype(np.float32)


IMAGE, VOLUME = _normal(2, 9, 8, 3), _normal(1, 6, 5, 7, 3)
FILTER = _normal(3, 3, 3, 5, scale=0.3)


def _small(side, stride, padding):
    return -(-side // stride) if padding == "SAME" else (side - 3) // stride + 1


def _convolutions():
    for padding, stride, dilation in itertools.product(
        ("SAME", "VALID", [[0, 0], [1, 2], [0, 3], [0, 0]]), (1, 2), (1, 2)
    ):
        yield lambda x, p=padding, s=stride, d=dilation: tf.nn.conv2d(x, FILTER, strides=s, padding=p, dilations=d)
    for padding in ("SAME", "VALID"):
        yield lambda x, p=padding: tf.nn.depthwise_conv2d(x, FILTER[..., :2], [1, 2, 2, 1], p)
        for pool, (window, stride) in itertools.product((tf.nn.max_pool2d, tf.nn.avg_pool2d), ((2, 2), (3, 2), (2, 3))):
            yield lambda x, f=pool, k=window, s=stride, p=padding: f(x, k, s, p)


def _slices():
    new = tf.newaxis
    yield lambda x: [
        x[..., 1],
        x[:, ::2, ::-1],
        x[:, new, -1, ..., ::-2],
        x[1],
        x[0, 1:5:3, ...],
        x[:, -3:-1, 7:2:-2],
        x[1, 2, 3, 1],
    ]
    yield lambda x: tf.split(x, 3, -1) + tf.split(x, [1, 3, -1], 1) + [tf.stack(tf.unstack(x, axis=2), axis=1)]
    yield lambda x: [tf.pad(x, [[0, 1], [1, 2], [3, 0], [0, 1]], mode) for mode in ("CONSTANT", "REFLECT", "SYMMETRIC")]
    yield lambda x: [tf.pad(x, [[0, 0], [1, 2], [0, 0], [0, 0]], constant_values=1.5), tf.tile(x, [1, 2, 1, 2])]
    yield lambda x: [
        tf.broadcast_to(x, [4, 2, 9, 8, 3]),
        tf.gather_nd(x, [[0, 1], [1, 3]]),
        tf.gather(x, [2, 0], axis=3),
    ]
    yield lambda x: [
        tf.argmax(tf.round(x), 1),
        tf.argmax(tf.round(x), -1, output_type=tf.int32),
        tf.argmin(tf.round(x), 2),
    ]
    yield lambda x: tf.one_hot(tf.cast(x[0, 0], tf.int32), 2, on_value=2.0, off_value=-1.0, axis=0)
    yield lambda x: [tf.where(x > 0.5, x, -x), tf.compat.v1.where([True, False], x, -x)]
    yield lambda x: [tf.clip_by_value(x, -0.5, 0.7), tf.add_n([x, x, -x])]


def _shape_arithmetic():
    yield (
        lambda x: (
            x * tf.cast(tf.shape(x)[1], tf.float32) / tf.cast(tf.size(x), tf.float32) + tf.cast(tf.rank(x), tf.float32)
        )
    )
    yield (
        lambda x: (
            x
            + tf.cast(tf.range(tf.shape(x)[-1]), tf.float32)
            + tf.zeros_like(x)
            + tf.ones_like(x)
            + tf.fill([8, 3], 2.0)
        )
    )
    yield lambda x: tf.reshape(x, [tf.shape(x)[0], -1])[:, :5]
    yield lambda x: tf.cond(tf.equal(tf.shape(x)[0], 2), lambda: tf.split(x, 3, -1)[0], lambda: x[..., :1])
    yield lambda x: tf.nn.softmax(tf.reduce_mean(x, [1, 2]))
    for reduce in (tf.reduce_sum, tf.reduce_max, tf.reduce_min, tf.reduce_prod):
        yield lambda x, f=reduce: [f(x[..., 0], -1), f(x[..., 0], [0, 2], keepdims=True), f(x[:1, :2, :3, :1])]


def _resizes():
    for size, (corners, centers) in itertools.product(
        ((18, 16), (5, 3), (13, 11)), ((False, False), (True, False), (False, True))
    ):
        for kind in (tf.raw_ops.ResizeNearestNeighbor, tf.raw_ops.ResizeBilinear):
            yield lambda x, f=kind, n=size, a=corners, h=centers: f(
                images=x, size=n, align_corners=a, half_pixel_centers=h
            )


@pytest.mark.parametrize(
    "group", [_convolutions, _slices, _shape_arithmetic, _resizes], ids=lambda f: f.__name__.strip("_")
)
def test_single_operators(group, engine, tmp_path):
    """All of a group in one graph: one compilation, as many outputs as operators."""

    def build(x):
        results = [make(x) for make in group()]
        return [part for result in results for part in (result if isinstance(result, (list, tuple)) else [result])]

    want, got, _ = _both(tmp_path, build, [IMAGE])
    assert len(got) > 5
    _assert_close(got, want, 4e-3)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_convolutions(padding, engine, tmp_path):
    feeds = [_normal(2, *[_small(n, s, padding) for n in (9, 8)], 5) for s in (1, 2, 3)]
    feeds += [_normal(1, *[_small(n, s, padding) for n in (6, 5, 7)], 3) for s in (1, 2, 3)]
    image, volume = _normal(3, 3, 6, 5, scale=0.2), _normal(3, 3, 3, 4, 3, scale=0.2)

    def build(*x):
        flat = [tf.nn.conv2d_transpose(x[s - 1], image, [2, 9, 8, 6], s, padding) for s in (1, 2, 3)]
        return flat + [
            tf.nn.conv3d_transpose(x[s + 2], volume, [1, 6, 5, 7, 4], [1, s, s, s, 1], padding) for s in (1, 2, 3)
        ]

    want, got, _ = _both(tmp_path, build, feeds)
    _assert_close(got, want, 4e-3)


def test_a_classifier_with_pooling_and_batch_norm(engine, tmp_path):
    rng = np.random.RandomState(3)

    def block(x, filters):
        w = (rng.randn(3, 3, int(x.shape[-1]), filters) * 0.2).astype(np.float32)
        scale, offset, mean, variance = ((rng.rand(filters) + low).astype(np.float32) for low in (0.5, -0.5, -0.5, 0.5))
        x = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "SAME"), rng.randn(filters).astype(np.float32))
        return tf.nn.relu(tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, is_training=False)[0])

    def build(x):
        x = tf.nn.max_pool2d(block(x, 16), 2, 2, "SAME")
        x = tf.nn.avg_pool2d(block(x, 32), 3, 2, "SAME")
        x = tf.reshape(x, [2, -1])
        logits = tf.matmul(x, (rng.randn(int(x.shape[1]), 10) * 0.05).astype(np.float32)) + rng.randn(10).astype(
            np.float32
        )
        return tf.nn.softmax(logits), tf.argmax(logits, -1)

    want, got, model = _both(tmp_path, build, [rng.rand(2, 20, 20, 3).astype(np.float32)])
    assert {"Conv2D", "MaxPool", "AvgPool", "BatchNorm", "SoftmaxV2", "ArgMaxD"} <= {op.type for op in model.graph}
    assert np.abs(got[0] - want[0]).max() < 5e-3 and np.array_equal(got[1], want[1]) and want[0].max() > 0.2


def test_an_autoencoder_with_dense_and_transposed_layers(engine, tmp_path):
    rng = np.random.RandomState(4)

    def weights(*shape):
        return (rng.randn(*shape) * 0.2).astype(np.float32)

    def build(x):
        code = tf.nn.leaky_relu(tf.nn.conv2d(x, weights(3, 3, 1, 8), 2, "SAME"))
        code = tf.nn.tanh(tf.matmul(tf.reshape(code, [2, 8 * 8 * 8]), weights(512, 12) * 0.3))
        wide = tf.nn.sigmoid(tf.matmul(code, weights(12, 512)))
        wide = tf.reshape(wide, [2, 8, 8, 8])
        return tf.nn.conv2d_transpose(wide, weights(3, 3, 1, 8), [2, 16, 16, 1], 2, "SAME")

    want, got, model = _both(tmp_path, build, [rng.rand(2, 16, 16, 1).astype(np.float32)])
    assert {"MatMulV2", "Conv2DBackpropInputD"} <= {op.type for op in model.graph}
    _assert_close(got, want, 4e-3)
    assert want[0].std() > 0.1


def test_a_generator_with_noise_and_a_transposed_volume(engine, tmp_path):
    rng = np.random.RandomState(5)

    def build(x):
        noise = tf.random.normal([1, 4, 4, 4, 8], seed=11)
        w = (rng.randn(3, 3, 3, 4, 8) * 0.1).astype(np.float32)
        up = tf.nn.conv3d_transpose(x + noise * 0.0, w, [1, 8, 8, 8, 4], [1, 2, 2, 2, 1], "SAME")
        return tf.nn.relu(up), noise

    want, got, model = _both(tmp_path, build, [rng.rand(1, 4, 4, 4, 8).astype(np.float32)])
    assert {"FrameworkOp", "Conv3DBackpropInputD"} <= {op.type for op in model.graph}
    _assert_close(got[:1], want[:1], 4e-3)
    for noise in (got[1], want[1]):
        assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.15


def _interpolate(volume, location):
    """Trilinear sampling of (X, Y, Z, C) at (X, Y, Z, 3), as interpn of the existing recipe does it."""
    sides = [int(n) for n in volume.shape[:3]]
    low = tf.floor(location)
    corners = [[tf.clip_by_value(low[..., k] + step, 0.0, sides[k] - 1.0) for k in range(3)] for step in (0.0, 1.0)]
    clipped = [tf.clip_by_value(location[..., k], 0.0, sides[k] - 1.0) for k in range(3)]
    near = [corners[1][k] - clipped[k] for k in range(3)]
    weights = [near, [1 - n for n in near]]
    total = 0
    for pick in itertools.product((0, 1), repeat=3):
        index = tf.stack([tf.cast(corners[pick[k]][k], tf.int32) for k in range(3)], -1)
        weight = weights[pick[0]][0] * weights[pick[1]][1] * weights[pick[2]][2]
        total += weight[..., tf.newaxis] * tf.gather_nd(volume, index)
    return total


def _warp(moving, flow):
    def single(pair):
        mesh = tf.stack(tf.meshgrid(*[tf.range(int(n)) for n in moving.shape[1:4]], indexing="ij"), -1)
        return _interpolate(pair[0], tf.cast(mesh, tf.float32) + pair[1])

    return tf.map_fn(single, [moving, flow], dtype=tf.float32)


@pytest.mark.parametrize("mode, tolerance", [("allow_fp32_to_fp16", 1e-5), ("force_fp16", 2e-2)])
def test_the_warp_inside_a_map_over_the_batch(mode, tolerance, engine, tmp_path):
    rng = np.random.RandomState(6)
    feeds = [rng.rand(2, 6, 7, 8, 1).astype(np.float32), rng.uniform(-2, 2, (2, 6, 7, 8, 3)).astype(np.float32)]
    want, got, model = _both(tmp_path, _warp, feeds, mode)
    _assert_close(got, want, tolerance)
    assert want[0].std() > 0.1
    (loop,) = model.attrs["vxm_unrolled_loops"]
    assert loop.endswith(": 2") and not {"Enter", "TensorArray", "Switch"} & {op.type for op in model.graph}


def test_loops_within_loops(engine, tmp_path):
    def build(x):
        nested = tf.map_fn(lambda row: tf.map_fn(lambda v: tf.reduce_sum(v) * 2, row), x)
        counted = tf.while_loop(
            lambda i, a: i < 5, lambda i, a: (i + 1, a * 0.5 + tf.cast(i, tf.float32)), [tf.constant(0), x]
        )[1]
        return nested, counted, tf.foldl(lambda a, b: a + b, x), tf.scan(lambda a, b: a + b, x)

    want, got, model = _both(tmp_path, build, [_normal(3, 4, 5)])
    _assert_close(got, want, 4e-3)
    assert len(model.attrs["vxm_unrolled_loops"]) == 5
