# SPDX-License-Identifier: Apache-2.0
"""The VoxelMorph U-Net: two images in, a displacement field out. Owns layers and variables; warps nothing.

Architecture: Balakrishnan et al., "An Unsupervised Learning Model for Deformable Medical Image Registration"
(CVPR 2018), vm1 and vm2. Layout NDHWC, volume axes (X, Y, Z) as the arrays.
"""
from __future__ import annotations

from typing import Any, Dict, Iterator

from vxm_convert.network.names import FLOW_LAYER, ConvLayer, conv_layers
from vxm_convert.network.tf1 import tf
from vxm_convert.spec import LEAKY_SLOPE, ModelSpec

_FLOW_INIT_STDDEV = 1e-5


def build_unet(moving: Any, fixed: Any, spec: ModelSpec) -> Any:
    """Build the U-Net; variables are made, or reused, under the checkpoint's names.

    Parameters
    ----------
    moving, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1, static shapes.
    spec : ModelSpec — variant; its volume shape is not read, so that training may use another one.

    Returns
    -------
    tf.Tensor, shape (B, X, Y, Z, 3), float32 — the flow layer's output: for vm1, vm2 and vm2double the displacement
    in voxels of the fixed grid, axis order as the array. A variant with `integration_steps` > 0 would read the same
    tensor as a velocity and integrate it before the warp (see `vxm_convert.network.model`).
    """
    layers = iter(conv_layers(spec))
    images = tf.concat([moving, fixed], axis=-1)
    half, quarter, eighth, bottom = _encode(images, layers)

    net = _conv_block(bottom, next(layers))
    for skip in (eighth, quarter, half):
        net = _conv_block(tf.concat([upsample_nearest(net), skip], axis=-1), next(layers))
    net = _conv_block(net, next(layers))
    net = _conv_block(tf.concat([upsample_nearest(net), images], axis=-1), next(layers))
    for layer in layers:
        net = _conv(net, layer) if layer.name == FLOW_LAYER else _conv_block(net, layer)
    return net


def _encode(images: Any, layers: Iterator[ConvLayer]) -> Any:
    levels = []
    net = images
    for _ in range(4):
        net = _conv_block(net, next(layers))
        levels.append(net)
    return levels


def upsample_nearest(volume: Any) -> Any:
    """Repeat every voxel twice along X, Y and Z: (B, X, Y, Z, C) → (B, 2X, 2Y, 2Z, C).

    A voxel's neighbours in memory are repeated as one block: concatenating a tensor with itself along its last axis and
    reading the result with a doubled axis before it. Three two-input ConcatV2 and Reshapes of rank ≤ 5, where the usual
    form splits every axis into single slices.
    """
    batch, x, y, z, channels = volume.shape.as_list()
    row = z * channels
    net = tf.reshape(tf.concat([volume, volume], axis=-1), (batch, x, y, 2 * row))
    net = tf.reshape(tf.concat([net, net], axis=-1), (batch, x, 4 * y * row))
    return tf.reshape(tf.concat([net, net], axis=-1), (batch, 2 * x, 2 * y, 2 * z, channels))


def _conv_block(net: Any, layer: ConvLayer) -> Any:
    net = _conv(net, layer)
    with tf.name_scope(layer.name + "/"):
        return tf.nn.leaky_relu(net, alpha=LEAKY_SLOPE)


def _conv(net: Any, layer: ConvLayer) -> Any:
    """3×3×3 convolution, SAME: on even sides, stride 2 pads one voxel at the far end only."""
    kernel_init, bias_init = _initializers(layer)["kernel"], _initializers(layer)["bias"]
    with tf.variable_scope(layer.name, reuse=tf.AUTO_REUSE):
        kernel = tf.get_variable("kernel", layer.kernel_shape, tf.float32, kernel_init, use_resource=False)
        bias = tf.get_variable("bias", (layer.channels_out,), tf.float32, bias_init, use_resource=False)
    stride = layer.stride
    with tf.name_scope(layer.name + "/"):
        net = tf.nn.conv3d(net, kernel, strides=(1, stride, stride, stride, 1), padding="SAME", name="Conv3D")
        return tf.nn.bias_add(net, bias, name="BiasAdd")


def _initializers(layer: ConvLayer) -> Dict[str, Any]:
    """He-normal kernels; an almost zero flow layer, so that training starts at the identity."""
    if layer.name == FLOW_LAYER:
        kernel = tf.random_normal_initializer(stddev=_FLOW_INIT_STDDEV)
    else:
        kernel = tf.variance_scaling_initializer(scale=2.0, mode="fan_in", distribution="truncated_normal")
    return {"kernel": kernel, "bias": tf.zeros_initializer()}
