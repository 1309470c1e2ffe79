# SPDX-License-Identifier: Apache-2.0
"""A small TensorFlow graph for every operator type that the simulated compiler takes, and for what TensorFlow writes
around them.

`CASES` maps a name to (feeds, function of the placeholders). Importing this module needs TensorFlow.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import tensorflow as tf

RNG = np.random.RandomState(0)
CASES: Dict[str, Tuple[List[np.ndarray], Callable[..., Any]]] = {}
raw = tf.raw_ops
RAW = {name: getattr(raw, name) for name in dir(raw) if name[0].isupper()}


def _normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.randn(*shape) * scale).astype(np.float32)


def _positive(*shape: int) -> np.ndarray:
    return RNG.rand(*shape).astype(np.float32) + np.float32(0.1)


def _whole(*shape: int, low: int = -5, high: int = 6) -> np.ndarray:
    return RNG.randint(low, high, shape).astype(np.int32)


IMAGE, VOLUME, MATRIX, POSITIVE = _normal(2, 8, 6, 4), _normal(1, 6, 5, 4, 3), _normal(3, 4), _positive(3, 4)
TRUTH = RNG.rand(3, 4) > 0.5
FILTER, FILTER_3D, BACK = (
    _normal(3, 3, 4, 5, scale=0.3),
    _normal(3, 3, 3, 3, 4, scale=0.2),
    _normal(3, 3, 5, 4, scale=0.2),
)
SCALE, OFFSET, MEAN, VARIANCE = (_positive(4) for _ in range(4))


def case(name: str, feeds: List[np.ndarray], function: Callable[..., Any]) -> None:
    assert name not in CASES
    CASES[name] = (feeds, function)


_FEATURES = ("Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign", "LeakyRelu")
for _op in (
    "Abs Neg Square Floor Ceil Round Rint Sign Exp Expm1 Tanh Sigmoid Relu Relu6 Elu Selu Softplus Softsign Erf Erfc "
    "Sin Cos Tan "
    "Asin Acos Atan Sinh Cosh LeakyRelu Asinh Atanh"
).split():
    _key = "features" if _op in _FEATURES else "x"
    case(
        _op,
        [MATRIX * np.float32(0.3 if _op in ("Asin", "Acos", "Atanh") else 1)],
        lambda x, f=RAW[_op], k=_key: f(**{k: x}),
    )
for _op in "Sqrt Rsqrt Log Log1p Reciprocal Inv".split():
    case(_op, [POSITIVE], lambda x, f=RAW[_op]: f(x=x))
case("Acosh", [POSITIVE + 1], tf.acosh)
for _op in (
    "Add AddV2 Sub Mul RealDiv Div DivNoNan Maximum Minimum FloorDiv FloorMod SquaredDifference Pow Mod MulNoNan Xdivy "
    "Xlogy"
).split():
    case(_op, [POSITIVE, POSITIVE[:1] + np.float32(0.3)], lambda x, y, f=RAW[_op]: f(x=x, y=y))
for _op in "Add Sub Mul FloorDiv FloorMod Maximum Minimum Div SquaredDifference TruncateDiv Mod TruncateMod".split():
    case(f"{_op} of integers", [_whole(3, 4), _whole(3, 4, low=1)], lambda x, y, f=RAW[_op]: f(x=x, y=y))
for _op in "Less LessEqual Greater GreaterEqual Equal NotEqual".split():
    case(_op, [MATRIX, MATRIX[:1]], lambda x, y, f=RAW[_op]: f(x=x, y=y))
    case(f"{_op} of integers", [_whole(3, 4), _whole(3, 4)], lambda x, y, f=RAW[_op]: f(x=x, y=y))
case(
    "LogicalOps",
    [TRUTH, TRUTH[:1]],
    lambda x, y: [tf.logical_and(x, y), tf.logical_or(x, y), tf.math.logical_xor(x, tf.logical_not(y))],
)
case("AllAny", [TRUTH], lambda x: [tf.reduce_all(x, 1), tf.reduce_any(x, [0], keepdims=True), tf.reduce_all(x)])
case("Questions", [MATRIX], lambda x: [tf.math.is_finite(x), tf.math.is_nan(x), tf.math.is_inf(x)])
case("AddN", [MATRIX, MATRIX, MATRIX], lambda *x: [tf.add_n(x), raw.AccumulateNV2(inputs=list(x), shape=[3, 4])])
case(
    "ClipByValue",
    [MATRIX],
    lambda x: [tf.clip_by_value(x, -0.5, 0.5), raw.ClipByValue(t=x, clip_value_min=-0.1, clip_value_max=0.3)],
)
case(
    "Select",
    [TRUTH, MATRIX, POSITIVE],
    lambda b, x, y: [tf.compat.v1.where(b, x, y), tf.compat.v2.where(x > 0, x, 0.0)],
)

for _op in "Sum Mean Max Min Prod".split():
    case(
        _op,
        [IMAGE],
        lambda x, f=RAW[_op]: [
            f(input=x, axis=[1, 2], keep_dims=True),
            f(input=x, axis=-1),
            f(input=x[:1, :2, :2], axis=[0, 1, 2, 3]),
        ],
    )
    if _op != "Mean":
        case(f"{_op} of integers", [_whole(3, 4, low=1, high=4)], lambda x, f=RAW[_op]: f(input=x, axis=[1]))
case("moments", [IMAGE], lambda x: list(tf.nn.moments(x, [1, 2], keepdims=True)))
case(
    "norms",
    [MATRIX],
    lambda x: [tf.nn.l2_normalize(x, -1), tf.norm(x, axis=-1), tf.reduce_logsumexp(x, -1), tf.nn.l2_loss(x)],
)
case("Softmax", [IMAGE], lambda x: [tf.nn.softmax(x), tf.nn.log_softmax(x), tf.nn.softmax(x, 1)])
case("ArgMax", [MATRIX], lambda x: [tf.argmax(x, 1), tf.argmin(x, 0, output_type=tf.int32)])
case("TopKV2", [_normal(3, 9)], lambda x: list(tf.nn.top_k(x, 4)))
case(
    "Cumsum", [MATRIX], lambda x: [tf.cumsum(x, a, e, r) for a in (0, 1) for e in (False, True) for r in (False, True)]
)

case("Conv2D", [IMAGE], lambda x: tf.nn.conv2d(x, FILTER, 1, "SAME"))
case(
    "Conv2D, filter computed",
    [IMAGE],
    lambda x: tf.nn.conv2d(x, tf.nn.l2_normalize(tf.constant(FILTER), [0, 1]), 1, "SAME"),
)
case(
    "Conv2D, dilation by blocks",
    [IMAGE],
    lambda x: [tf.nn.convolution(x, FILTER, p, dilation_rate=[3, 2]) for p in ("SAME", "VALID")],
)
case(
    "DepthwiseConv2dNative",
    [IMAGE],
    lambda x: tf.nn.depthwise_conv2d(x, FILTER[..., :2], [1, 1, 1, 1], "SAME", rate=[2, 2]),
)
case(
    "separable",
    [IMAGE],
    lambda x: tf.nn.separable_conv2d(x, FILTER[..., :2], _normal(1, 1, 8, 6, scale=0.3), [1, 2, 2, 1], "SAME"),
)
case("conv1d", [_normal(2, 9, 4)], lambda x: tf.nn.conv1d(x, FILTER[0], 1, "SAME"))
case("Conv3D", [VOLUME], lambda x: tf.nn.conv3d(x, FILTER_3D, [1, 2, 2, 2, 1], "VALID"))
case(
    "Conv3D, upsampled, no bias",
    [VOLUME],
    lambda x: tf.nn.conv3d(tf.keras.backend.resize_volumes(x, 2, 2, 2, "channels_last"), FILTER_3D, [1] * 5, "SAME"),
)
case(
    "Conv2DBackpropInput",
    [IMAGE],
    lambda x: tf.nn.conv2d_transpose(
        x, BACK, tf.stack([tf.shape(x)[0], tf.shape(x)[1] * 2, tf.shape(x)[2] * 2, 5]), 2, "SAME"
    ),
)
case(
    "Conv3DBackpropInputV2",
    [VOLUME],
    lambda x: tf.nn.conv3d_transpose(x, _normal(3, 3, 3, 5, 3, scale=0.2), [1, 12, 10, 8, 5], [1, 2, 2, 2, 1], "SAME"),
)
case("BiasAdd", [IMAGE], lambda x: [tf.nn.bias_add(x, SCALE), raw.BiasAddV1(value=x, bias=SCALE)])
for _op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
    case(
        _op,
        [IMAGE],
        lambda x, f=RAW[_op]: f(x=x, scale=SCALE, offset=OFFSET, mean=MEAN, variance=VARIANCE, is_training=False)[0],
    )
case(
    "FusedBatchNorm of a batch",
    [IMAGE],
    lambda x: tf.compat.v1.nn.fused_batch_norm(x, SCALE, OFFSET, is_training=True)[0],
)
case("batch_normalization", [IMAGE], lambda x: tf.nn.batch_normalization(x, MEAN, VARIANCE, OFFSET, SCALE, 1e-3))
case("LRN", [IMAGE], lambda x: [tf.nn.lrn(x), tf.nn.lrn(x, 1, 2.0, 0.1, 0.75)])
for _op, _key in (("MaxPool", "input"), ("AvgPool", "value")):
    case(
        _op,
        [IMAGE],
        lambda x, f=RAW[_op], k=_key: f(**{k: x}, ksize=[1, 2, 3, 1], strides=[1, 2, 2, 1], padding="SAME"),
    )
    case(
        f"{_op}3D",
        [VOLUME],
        lambda x, f=RAW[f"{_op}3D"]: f(input=x, ksize=[1, 2, 2, 2, 1], strides=[1, 2, 2, 2, 1], padding="VALID"),
    )
case(
    "resize",
    [IMAGE],
    lambda x: [
        f(images=x, size=[13, 9], align_corners=a, half_pixel_centers=h)
        for f in (raw.ResizeBilinear, raw.ResizeNearestNeighbor)
        for a, h in ((False, False), (True, False), (False, True))
    ],
)
case("resize by the own shape", [IMAGE], lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2))

case(
    "Pad",
    [IMAGE],
    lambda x: [tf.pad(x, [[0, 1], [1, 2], [2, 0], [0, 1]], m) for m in ("CONSTANT", "REFLECT", "SYMMETRIC")],
)
case("PadV2", [IMAGE], lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 0], [0, 0]], constant_values=2.0))
case("Pack", [MATRIX, POSITIVE], lambda x, y: [tf.stack([x, y], k) for k in (0, 1, 2, -1)] + tf.unstack(x, axis=1))
case("Split", [IMAGE], lambda x: tf.split(x, 2, 1) + tf.split(x, [1, -1, 2], -1))
case("Concat", [MATRIX, POSITIVE], lambda x, y: [tf.concat([x, y], -1), raw.Concat(concat_dim=0, values=[x, y])])
case(
    "Slice",
    [IMAGE],
    lambda x: [
        tf.slice(x, [0, 1, 0, 2], [2, 3, -1, 1]),
        x[..., 1],
        x[:, ::2, ::-1],
        x[:, tf.newaxis, -1, ..., ::-2],
        x[1, 2, 3, 1],
    ],
)
case("Slice of integers", [_whole(5, 4)], lambda x: x[1:4:2, ::-1])
case("Gather", [MATRIX, _whole(5, low=0, high=3)], lambda x, k: [tf.gather(x, k), raw.Gather(params=x, indices=k)])
case(
    "GatherV2",
    [_normal(2, 3, 4, 5), _whole(2, 3, 2, low=0, high=4)],
    lambda x, k: [tf.gather(x, k, axis=a, batch_dims=b) for a, b in ((2, 0), (2, 1), (2, 2), (3, 2), (3, 1))],
)
case(
    "GatherNd",
    [IMAGE, _whole(5, 2, low=0, high=2)],
    lambda x, k: [tf.gather_nd(x, k), tf.gather_nd(x[:, :2], k[:2, None, :1], batch_dims=1)],
)
case(
    "ScatterNd",
    [_normal(4, 3)],
    lambda x: [
        tf.scatter_nd([[1], [3], [0], [2]], x, [5, 3]),
        tf.scatter_nd([[1], [3], [1], [1]], x, [5, 3]),
        tf.scatter_nd([[1, 0], [2, 2], [1, 0], [0, 1]], x[:, 0], [3, 3]),
    ],
)
case(
    "ScatterNd by computed indices",
    [_normal(4, 3), _whole(4, 1, low=0, high=4), _whole(4, 2, low=0, high=2)],
    lambda x, k, p: [tf.scatter_nd(k, x, [5, 3]), tf.scatter_nd(p, x[:, 0], [3, 3])],
)
case("OneHot", [_whole(4, low=0, high=3)], lambda k: [tf.one_hot(k, 3), tf.one_hot(k, 3, 2.0, -1.0, axis=0)])
case(
    "blocks",
    [_normal(4, 8, 6, 4)],
    lambda x: [
        tf.nn.depth_to_space(x, 2),
        tf.nn.space_to_depth(x, 2),
        tf.space_to_batch_nd(x, [4, 3], [[1, 3], [0, 0]]),
        raw.BatchToSpaceND(input=x, block_shape=[2, 2], crops=[[1, 0], [2, 1]]),
        raw.SpaceToBatch(input=x, paddings=[[0, 0], [1, 1]], block_size=2),
        raw.BatchToSpace(input=x, crops=[[0, 1], [0, 0]], block_size=2),
    ],
)
case("ReverseV2", [IMAGE], lambda x: [tf.reverse(x, [1, -1]), tf.image.flip_left_right(x)])
case(
    "Tile",
    [MATRIX],
    lambda x: [tf.tile(x, [2, 3]), tf.broadcast_to(x, [2, 3, 4]), tf.squeeze(tf.expand_dims(x[None], -1))],
)
case(
    "Transpose",
    [IMAGE],
    lambda x: [tf.transpose(x, [0, 3, 1, 2]), tf.transpose(x, tf.math.invert_permutation([0, 2, 3, 1]))],
)
case(
    "MatMul",
    [_normal(3, 4), _normal(4, 5)],
    lambda x, y: [
        tf.matmul(x, y),
        tf.matmul(y, x, True, True),
        tf.matmul(x, x, transpose_b=True),
        tf.matmul(y, y, transpose_a=True),
    ],
)
case(
    "BatchMatMul",
    [_normal(2, 3, 4), _normal(2, 4, 5)],
    lambda x, y: [
        raw.BatchMatMul(x=x, y=y),
        raw.BatchMatMulV2(x=x, y=y[0]),
        tf.matmul(y, x, adjoint_a=True, adjoint_b=True),
        tf.tensordot(x, y[0], 1),
        tf.einsum("bij,bjk->bik", x, y),
    ],
)

case(
    "shapes",
    [MATRIX],
    lambda x: [
        x * tf.cast(tf.size(x) + tf.rank(x) + tf.reduce_prod(tf.shape(x)), tf.float32)
        + tf.ones_like(x)
        - tf.zeros_like(x),
        tf.shape(x),
        x + tf.cast(tf.range(tf.shape(x)[1]), tf.float32) + tf.linspace(0.0, 1.0, 4) + tf.fill(tf.shape(x), 2.0),
        x + tf.zeros(tf.broadcast_dynamic_shape(tf.shape(x), [1, 4])),
        x[:, :3] + tf.eye(3),
        tf.constant([1.0, 2.0]),
        raw.ShapeN(input=[x, x[0]])[1],
        raw.Shape(input=x, out_type=tf.int64),
        raw.Size(input=x),
        raw.Rank(input=x),
        raw.OnesLike(x=x),
        raw.ZerosLike(x=x),
    ],
)
case(
    "identities",
    [MATRIX],
    lambda x: [
        tf.identity(tf.stop_gradient(tf.identity_n([x, x])[1])),
        raw.Snapshot(input=x),
        raw.PreventGradient(input=x),
        tf.nn.swish(x),
        x * tf.compat.v1.placeholder_with_default(np.float32(2), []),
    ],
)
case("meshgrid", [MATRIX], lambda x: [x[0] + g for g in tf.meshgrid(tf.range(4.0), tf.range(4.0))])
case(
    "losses",
    [MATRIX],
    lambda x: [
        tf.nn.sigmoid_cross_entropy_with_logits(logits=x, labels=tf.ones_like(x)),
        tf.compat.v1.losses.huber_loss(tf.zeros([3, 4]), x),
    ],
)
case(
    "image functions",
    [IMAGE],
    lambda x: [tf.image.total_variation(x), tf.image.rgb_to_grayscale(x[..., :3])] + list(tf.image.image_gradients(x)),
)

for _dtype in ("int32", "int64", "uint8", "bool", "float16"):
    case(f"{_dtype} input", [_whole(3, 4, low=0).astype(_dtype)], lambda x: tf.cast(x, tf.float32) * 2)
case("float16 output", [MATRIX.astype(np.float16)], lambda x: x + x)
case(
    "Cast",
    [MATRIX * np.float32(300)],
    lambda x: [tf.saturate_cast(x, tf.uint8), tf.cast(x, tf.bool), tf.cast(x, tf.int32), tf.cast(x, tf.int64)],
)
case(
    "random numbers",
    [MATRIX],
    lambda x: (
        x
        + 0
        * (
            tf.random.normal([3, 4], seed=1)
            + tf.random.uniform([3, 4], seed=1)
            + tf.random.truncated_normal([3, 4])
            + tf.cast(tf.random.uniform([3, 4], 0, 5, tf.int32), tf.float32)
        )
    ),
)


def _version_2(function: Callable[..., Any]) -> Callable[..., Any]:
    """With TensorFlow's second form of control flow."""

    def build(*x: Any) -> Any:
        from tensorflow.python.ops import control_flow_util

        before = control_flow_util.ENABLE_CONTROL_FLOW_V2
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = True
        try:
            return function(*x)
        finally:
            control_flow_util.ENABLE_CONTROL_FLOW_V2 = before

    return build


def _count(x: Any) -> Any:
    return tf.while_loop(
        lambda k, a: k < 3, lambda k, a: (k + 1, a * 1.5 + tf.cast(k, tf.float32)), [tf.constant(0), x]
    )


def _branches(x: Any) -> List[Any]:
    """Both sides of predicates on the input, one within the other, and branches that are constants."""

    def nested(limit: float) -> Any:
        return tf.cond(
            tf.reduce_sum(x) > limit,
            lambda: tf.cond(x[0, 0] > limit, lambda: x * 2, lambda: x * 3 + 1),
            lambda: tf.cond(x[0, 0] < limit, lambda: x - 2, lambda: tf.constant(POSITIVE)),
        )

    static = tf.equal(tf.shape(x)[0], 3)
    return [nested(limit) for limit in (-100.0, 100.0, 0.0)] + [
        x * tf.cond(tf.reduce_sum(x) > 0, lambda: tf.constant(2.0), lambda: tf.constant(3.0)),
        x * tf.cond(static, lambda: tf.constant(2.0), lambda: tf.constant(3.0)),
        tf.cond(static, lambda: x * 2, lambda: x - 1),
    ]


for _name, _form in (("version 1", lambda f: f), ("version 2", _version_2)):
    case(f"cond, {_name}", [MATRIX], _form(_branches))
    case(f"while_loop, {_name}", [MATRIX], _form(_count))
    case(
        f"cond in a loop, {_name}",
        [MATRIX],
        _form(
            lambda x: tf.while_loop(
                lambda k, a: k < 3,
                lambda k, a: (k + 1, tf.cond(tf.reduce_sum(a) > 1, lambda: a * 0.5, lambda: a + 1.0)),
                [tf.constant(0), x],
            )[1]
        ),
    )
case(
    "switch_case",
    [MATRIX],
    lambda x: [tf.switch_case(tf.shape(x)[0] - n, [lambda: x, lambda: x * 2, lambda: -x]) for n in (1, 2, 3, 9)],
)
case("calls", [MATRIX], lambda x: tf.function(lambda y: tf.function(lambda z: tf.split(z, 2, 1))(tf.nn.relu(y))[1])(x))
case("a loop in a call", [MATRIX], lambda x: tf.function(lambda y: _count(y)[1])(x))
case(
    "map and scan",
    [MATRIX],
    lambda x: [
        tf.map_fn(lambda r: r * 2 + tf.reduce_sum(r), x),
        tf.foldl(lambda a, b: a + b, x),
        tf.scan(lambda a, b: a + b, x),
    ],
)


def _layers(x: Any, training: Any) -> Any:
    layers = tf.compat.v1.layers
    x = layers.batch_normalization(layers.conv2d(x, 5, 3), training=training)
    return layers.dropout(layers.conv2d_transpose(x, 3, 3, 2), training=training)


case("layers with a fed is_training", [IMAGE, np.array(False)], _layers)
case(
    "static LSTM",
    [_normal(2, 3, 4)],
    lambda x: tf.compat.v1.nn.static_rnn(
        tf.compat.v1.nn.rnn_cell.BasicLSTMCell(5), tf.unstack(x, axis=1), dtype=tf.float32
    )[0][-1],
)
case(
    "dynamic GRU",
    [_normal(2, 3, 4)],
    lambda x: tf.compat.v1.nn.dynamic_rnn(tf.compat.v1.nn.rnn_cell.GRUCell(5), x, dtype=tf.float32)[0],
)
