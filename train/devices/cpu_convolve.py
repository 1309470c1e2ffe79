# SPDX-License-Identifier: Apache-2.0
"""A 3-D convolution whose gradients are forward convolutions and matrix products. Knows neither layers nor variables.

TensorFlow 1.15's own gradient kernels for CPUs take most of a training step: that of the filter runs at a small share
of the speed of its matrix product, and the default one also builds a buffer of voxels × taps × channels floats. Here

    d input   = the output's gradient, convolved with the reversed kernel, its two channel axes swapped:
                a forward convolution
    d kernel  = for every tap, (input, shifted by the tap)ᵀ · (output's gradient): matrix products over all voxels

Both are the textbook gradients; only the order of summation differs from that of TensorFlow's kernels.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

from vxm_convert.network.tf1 import tf

#: voxels of zeros before and after the volume, per axis
Pads = Sequence[Tuple[int, int]]
_STRIDES = (1, 1, 1, 1, 1)


def convolve(volume: tf.Tensor, kernel: tf.Tensor, pads: Pads) -> tf.Tensor:
    """Σ over taps t of volume[p + t − before] · kernel[t], zeros outside.

    Parameters
    ----------
    volume : tf.Tensor, shape (B, X, Y, Z, C), floating, static.
    kernel : tf.Tensor, shape (kx, ky, kz, C, D).
    pads : 3 pairs — voxels of zeros before and after, per axis, less than the kernel's side each.

    Returns
    -------
    tf.Tensor, shape (B, X + before + after − kx + 1, …, D).
    """
    sides = kernel.shape.as_list()[:3]

    @tf.custom_gradient  # type: ignore[misc] # TensorFlow 1.15 has no types
    def apply(net: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        def gradients(slope: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
            back = [(k - 1 - before, k - 1 - after) for k, (before, after) in zip(sides, pads)]
            reverse = tf.transpose(tf.reverse(weights, (0, 1, 2)), (0, 1, 2, 4, 3))
            return _forward(slope, reverse, back), _kernel_gradient(net, slope, sides, pads)

        return _forward(net, weights, pads), gradients

    with tf.name_scope("convolve"):
        return apply(volume, kernel)


def _forward(net: tf.Tensor, weights: tf.Tensor, pads: Pads) -> tf.Tensor:
    sides = weights.shape.as_list()[:3]
    # SAME pads inside the kernel and saves a copy of the volume.
    if all(k == 2 * before + 1 and before == after for k, (before, after) in zip(sides, pads)):
        return tf.nn.conv3d(net, weights, strides=_STRIDES, padding="SAME")
    return tf.nn.conv3d(_padded(net, pads), weights, strides=_STRIDES, padding="VALID")


def _kernel_gradient(net: tf.Tensor, slope: tf.Tensor, sides: List[int], pads: Pads) -> tf.Tensor:
    """Matrix products over rows of voxels.

    The output's gradient is placed in a volume with the padded input's shape, zeros elsewhere. Then each tap is a
    constant distance between rows, and a product may run over all rows: values from beyond a line, a plane or a volume
    are multiplied by zeros.
    """
    net = _padded(net, pads)
    batch, x, y, z, channels = net.shape.as_list()
    filters = slope.shape.as_list()[4]
    rows, (taps_x, taps_y, taps_z) = batch * x * y * z, sides
    # Zeros before each line instead of after it, so that the taps along Z can be adjacent columns.
    slope = tf.reshape(_padded(slope, ((0, taps_x - 1), (0, taps_y - 1), (taps_z - 1, 0))), (rows, filters))
    net = tf.reshape(net, (rows, channels))
    used = rows - (taps_x - 1) * y * z - (taps_y - 1) * z
    wide = tf.concat([_rows(slope, taps_z - 1 - tap, used) for tap in range(taps_z)], axis=1)
    products = [
        tf.matmul(_rows(net, (i * y + j) * z, used), wide, transpose_a=True)
        for i in range(taps_x)
        for j in range(taps_y)
    ]
    stacked = tf.reshape(tf.stack(products), (taps_x, taps_y, channels, taps_z, filters))
    return tf.transpose(stacked, (0, 1, 3, 2, 4))


def _rows(table: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """A view if the first row has an aligned address, else a copy."""
    return tf.slice(table, (first, 0), (count, table.shape.as_list()[1]))


def _padded(net: tf.Tensor, pads: Pads) -> tf.Tensor:
    return net if not any(map(any, pads)) else tf.pad(net, [(0, 0), *pads, (0, 0)])
