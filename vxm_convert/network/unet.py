# SPDX-License-Identifier: Apache-2.0
"""The VoxelMorph U-Net: two images in, a displacement field out. Owns layers and variables; does no warping.

Architecture: Balakrishnan et al., "An Unsupervised Learning Model for Deformable Medical Image Registration"
(CVPR 2018), vm1 and vm2. Layout NDHWC, volume axes (X, Y, Z) as the arrays.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Tuple

from vxm_convert.model.spec import LEAKY_SLOPE, ModelSpec
from vxm_convert.model.variables import FLOW_LAYER, HEADS, LOG_SIGMA_LAYER, ConvLayer, conv_layers
from vxm_convert.network.tf1 import tf

# voxelmorph legacy, `src/networks.py`: almost zero, so that training starts at the identity and with little noise.
_HEAD_STDDEV = {FLOW_LAYER: 1e-5, LOG_SIGMA_LAYER: 1e-10}
_LOG_SIGMA_BIAS = -10.0


class Convolutions:
    """How the network's convolutions are computed; training may pass another form of the same sums
    (`train.devices.cpu_blocks`).
    """

    def upsampled(self, net: tf.Tensor, skip: tf.Tensor) -> tf.Tensor:
        """`net` upsampled along X, Y and Z with the channels of `skip` appended: an input of `convolve`."""
        return tf.concat([upsample_nearest(net), skip], axis=-1)

    def convolve(self, net: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
        """SAME: on even sides, stride 2 pads only one voxel, at the far end."""
        return tf.nn.conv3d(net, kernel, strides=(1, stride, stride, stride, 1), padding="SAME", name="Conv3D")


def build_unet(
    moving: tf.Tensor, fixed: tf.Tensor, spec: ModelSpec, convolutions: Optional[Convolutions] = None
) -> tf.Tensor:
    """Build the U-Net; variables are created or reused with the checkpoint's names.

    Parameters
    ----------
    moving, fixed : tf.Tensor, shape (B, X, Y, Z, 1), float32 — intensities 0..1, static shapes.
    spec : ModelSpec — variant; its volume shape is ignored, so that training may use another one.
    convolutions : Convolutions — None for the plain form, which all exported graphs use.

    Returns
    ------- tf.Tensor, float32 — the flow layer's output. For vm1, vm2 and vm2double, shape (B, X, Y, Z, 3): the
    displacement in voxels of the fixed grid, axis order as the array. For diffeomorphic variants, shape (B, X/2, Y/2,
    Z/2, 3): the mean velocity in voxels of that grid, which `vxm_convert.network.integrate` turns into a displacement.
    """
    form = convolutions or Convolutions()
    net, heads = _features(moving, fixed, spec, form)
    return _conv(net, heads[0], form)


def build_velocity_posterior(
    moving: tf.Tensor, fixed: tf.Tensor, spec: ModelSpec, convolutions: Optional[Convolutions] = None
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Mean and log-variance of a diffeomorphic variant's velocity, each (B, X/2, Y/2, Z/2, 3); for training."""
    form = convolutions or Convolutions()
    net, heads = _features(moving, fixed, spec, form)
    mean, log_sigma = (_conv(net, head, form) for head in heads)
    return mean, log_sigma


def make_variables(spec: ModelSpec) -> None:
    """Create every variable before the first operation: initial weights then depend only on the seed, not on the form
    of the sums.
    """
    for layer in conv_layers(spec):
        _variables(layer)


def _features(
    moving: tf.Tensor, fixed: tf.Tensor, spec: ModelSpec, form: Convolutions
) -> Tuple[tf.Tensor, List[ConvLayer]]:
    """The input of the heads, and the heads."""
    all_layers = conv_layers(spec)
    heads = [layer for layer in all_layers if layer.name in HEADS]
    layers = iter(all_layers[: -len(heads)])
    images = tf.concat([moving, fixed], axis=-1)
    half, quarter, eighth, bottom = _encode(images, layers, form)

    net = _conv_block(bottom, next(layers), form)
    for skip in (eighth, quarter, half):
        net = _conv_block(form.upsampled(net, skip), next(layers), form)
    net = _conv_block(net, next(layers), form)
    if not spec.diffeomorphic:
        net = _conv_block(form.upsampled(net, images), next(layers), form)
    for layer in layers:
        net = _conv_block(net, layer, form)
    return net, heads


def _encode(images: tf.Tensor, layers: Iterator[ConvLayer], form: Convolutions) -> List[tf.Tensor]:
    levels = []
    net = images
    for _ in range(4):
        net = _conv_block(net, next(layers), form)
        levels.append(net)
    return levels


def upsample_nearest(volume: tf.Tensor) -> tf.Tensor:
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


def _conv_block(net: tf.Tensor, layer: ConvLayer, form: Convolutions) -> tf.Tensor:
    net = _conv(net, layer, form)
    with tf.name_scope(layer.name + "/"):
        return tf.nn.leaky_relu(net, alpha=LEAKY_SLOPE)


def _conv(net: tf.Tensor, layer: ConvLayer, form: Convolutions) -> tf.Tensor:
    kernel, bias = _variables(layer)
    with tf.name_scope(layer.name + "/"):
        return tf.nn.bias_add(form.convolve(net, kernel, layer.stride), bias, name="BiasAdd")


def _variables(layer: ConvLayer) -> Tuple[tf.Tensor, tf.Tensor]:
    kernel_init, bias_init = _initializers(layer)["kernel"], _initializers(layer)["bias"]
    with tf.variable_scope(layer.name, reuse=tf.AUTO_REUSE):
        kernel = tf.get_variable("kernel", layer.kernel_shape, tf.float32, kernel_init, use_resource=False)
        return kernel, tf.get_variable("bias", (layer.channels_out,), tf.float32, bias_init, use_resource=False)


def _initializers(layer: ConvLayer) -> Dict[str, tf.Initializer]:
    """He-normal kernels; heads close to zero."""
    if layer.name in HEADS:
        kernel = tf.random_normal_initializer(stddev=_HEAD_STDDEV[layer.name])
    else:
        kernel = tf.variance_scaling_initializer(scale=2.0, mode="fan_in", distribution="truncated_normal")
    bias = tf.constant_initializer(_LOG_SIGMA_BIAS) if layer.name == LOG_SIGMA_LAYER else tf.zeros_initializer()
    return {"kernel": kernel, "bias": bias}
