# SPDX-License-Identifier: Apache-2.0
"""The graph of the published Ascend recipe, rebuilt from its description: the yardstick of the benchmarks, used by
nothing else.

Same mathematics and same variable names as vxm_convert.network, so one checkpoint fits both; what differs is how it is
built: upsampling splits every axis into single slices and concatenates them twice each, the warp is mapped over the
batch in a loop and weights eight corners, floating-point positions are clipped, and the smoothness loss permutes the
flow per axis. The recipe's loss scaling is left out, and its warp is the correct one: the published code once returned
the volume unwarped.
"""

from __future__ import annotations

import itertools
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

import numpy as np

from vxm_convert.errors import SpecError
from vxm_convert.model.spec import LEAKY_SLOPE, ModelSpec
from vxm_convert.model.variables import FLOW_LAYER, ConvLayer, conv_layers
from vxm_convert.network.tf1 import tf

_FLOW_STDDEV = 1e-5


class RecipeTraining(NamedTuple):
    """Placeholders by name, the loss, Adam's update."""

    inputs: Dict[str, tf.Tensor]
    loss: tf.Tensor
    update: tf.Operation


def inference_graph(
    spec: ModelSpec, weights: Mapping[str, np.ndarray]
) -> Tuple[tf.GraphDef, Dict[str, str], Dict[str, str]]:
    """The graph with its weights as constants.

    Returns
    -------
    GraphDef, and names of tensors: of the inputs ``moving`` and ``fixed``, of the outputs ``moved`` and ``flow``.
    """
    with tf.Graph().as_default() as graph:
        moving, fixed = (tf.placeholder(tf.float32, spec.image_shape, name) for name in ("moving", "fixed"))
        flow = build_flow(moving, fixed, spec)
        moved = tf.identity(warp(moving, flow), "moved")
        flow = tf.identity(flow, "flow_out")
        with tf.Session() as session:
            for variable in tf.global_variables():
                variable.load(weights[variable.op.name], session)
            frozen = tf.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), [moved.op.name, flow.op.name]
            )
    return frozen, {"moving": moving.name, "fixed": fixed.name}, {"moved": moved.name, "flow": flow.name}


def build_training(spec: ModelSpec, learning_rate: float, smoothness: float) -> RecipeTraining:
    """MSE + smoothness · mean squared difference of the flow, Adam; in the default graph, inputs fed by hand."""
    moving, fixed = (tf.placeholder(tf.float32, spec.image_shape, name) for name in ("moving", "fixed"))
    flow = build_flow(moving, fixed, spec)
    loss = tf.reduce_mean(tf.square(warp(moving, flow) - fixed)) + smoothness * _roughness(flow)
    return RecipeTraining(
        {"moving": moving, "fixed": fixed}, loss, tf.train.AdamOptimizer(learning_rate).minimize(loss)
    )


def build_flow(moving: tf.Tensor, fixed: tf.Tensor, spec: ModelSpec) -> tf.Tensor:
    """The displacement, (B, X, Y, Z, 3), in voxels."""
    if spec.diffeomorphic:
        raise SpecError(f"variant: the recipe has no {spec.variant}; choose vm1, vm2 or vm2double")
    layers = iter(conv_layers(spec))
    images = tf.concat([moving, fixed], -1)
    levels: List[Any] = []
    net = images
    for _ in range(4):
        net = _block(net, next(layers))
        levels.append(net)
    net = _block(net, next(layers))
    for skip in levels[2::-1]:
        net = _block(tf.concat([_upsample(net), skip], -1), next(layers))
    net = _block(net, next(layers))
    net = _block(tf.concat([_upsample(net), images], -1), next(layers))
    for layer in layers:
        net = _convolution(net, layer) if layer.name == FLOW_LAYER else _block(net, layer)
    return net


def _block(net: tf.Tensor, layer: ConvLayer) -> tf.Tensor:
    return tf.nn.leaky_relu(_convolution(net, layer), LEAKY_SLOPE)


def _convolution(net: tf.Tensor, layer: ConvLayer) -> tf.Tensor:
    flow = layer.name == FLOW_LAYER
    start = (
        tf.random_normal_initializer(stddev=_FLOW_STDDEV) if flow else tf.variance_scaling_initializer(2.0, "fan_in")
    )
    with tf.variable_scope(layer.name):
        kernel = tf.get_variable("kernel", layer.kernel_shape, tf.float32, start, use_resource=False)
        bias = tf.get_variable("bias", (layer.channels_out,), tf.float32, tf.zeros_initializer(), use_resource=False)
        net = tf.nn.conv3d(net, kernel, (1,) + (layer.stride,) * 3 + (1,), "SAME")
        return tf.nn.bias_add(net, bias)


def _upsample(net: tf.Tensor) -> tf.Tensor:
    """Every slice of every axis twice, as Keras' UpSampling3D."""
    for axis in (1, 2, 3):
        slices = tf.split(net, net.shape.as_list()[axis], axis)
        net = tf.concat([part for part in slices for _ in range(2)], axis)
    return net


def warp(volume: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """The volume at p + flow(p), linearly, positions clipped to the grid; sample by sample in a loop."""
    return tf.map_fn(lambda pair: _warp_one(*pair), [volume, flow], dtype=tf.float32)


def _warp_one(volume: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    sides = volume.shape.as_list()[:3]
    mesh = tf.meshgrid(*[tf.range(side) for side in sides], indexing="ij")
    near, far, near_weight = [], [], []
    for axis, side in enumerate(sides):
        position = tf.cast(mesh[axis], tf.float32) + shift[..., axis]
        last = float(side - 1)
        low = tf.clip_by_value(tf.floor(position), 0.0, last)
        high = tf.clip_by_value(low + 1.0, 0.0, last)
        near_weight.append(high - tf.clip_by_value(position, 0.0, last))
        near.append(tf.cast(low, tf.int32))
        far.append(tf.cast(high, tf.int32))
    corners, far_weight = (near, far), [1.0 - weight for weight in near_weight]
    weights = (near_weight, far_weight)
    table, total = tf.reshape(volume, (-1, volume.shape.as_list()[3])), 0.0
    for corner in itertools.product((0, 1), repeat=3):
        x, y, z = (corners[which][axis] for axis, which in enumerate(corner))
        value = tf.gather(table, (x * sides[1] + y) * sides[2] + z)
        weight = weights[corner[0]][0] * weights[corner[1]][1] * weights[corner[2]][2]
        total += tf.expand_dims(weight, -1) * value
    return total


def _roughness(flow: tf.Tensor) -> tf.Tensor:
    """Mean over the axes of the mean squared forward difference, the axis in question brought to the front."""
    total = 0.0
    for axis in (1, 2, 3):
        order = [axis] + [n for n in range(5) if n != axis]
        turned = tf.transpose(flow, order)
        difference = tf.transpose(turned[1:] - turned[:-1], np.argsort(order))
        total += tf.reduce_mean(tf.square(difference))
    return total / 3.0
