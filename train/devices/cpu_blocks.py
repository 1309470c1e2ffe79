# SPDX-License-Identifier: Apache-2.0
"""The network's convolutions in blocks of voxels: the same sums as vxm_convert.network.unet.Convolutions', rearranged
for CPUs.

A block of 2×2×2 voxels with C channels is one voxel of the half grid with 8·C channels. In this view,

* a convolution with stride 2 is one with stride 1 and 2×2×2 taps on blocks;
* a convolution of an upsampled volume is one with 2×2×2 taps on the volume itself, which gives blocks: the copies of a
  voxel need no separate product, their taps are added first (fewer than a third of the products are left);
* pairs of voxels along Z only change the shape, and give convolutions with few filters more columns.

Taps of a block that the original kernel lacks are zero. The variables stay the plain kernels: rearranging them is a
product with a constant matrix of zeros and ones inside the graph, and gradients flow through it.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence, Tuple, Union

import numpy as np

from train.devices.cpu_convolve import convolve
from vxm_convert.model.variables import KERNEL_SIDE
from vxm_convert.network.tf1 import tf
from vxm_convert.network.unet import Convolutions

#: with more filters than this, pairs along Z cost more products than their columns gain (measured)
_PAIRED_FILTERS = 16
#: with more channels than this, a separate convolution of a skip connection is faster than blocks
_BLOCK_SKIP_CHANNELS = 2


def _selection(taps: int, inputs: int, outputs: int, tap_of: Callable[[int, int, int], Tuple[int, ...]]) -> np.ndarray:
    """Along one axis: [t, q, s, k] is 1 if voxel s of an output block takes voxel q of input block t with tap k of the
    kernel.
    """
    chosen = np.zeros((taps, inputs, outputs, KERNEL_SIDE), np.float32)
    for t, q, s in np.ndindex(taps, inputs, outputs):
        for k in tap_of(t, q, s):
            if 0 <= k < KERNEL_SIDE:
                chosen[t, q, s, k] = 1.0
    return chosen


#: voxel to voxel
_SINGLE = _selection(3, 1, 1, lambda t, q, s: (t,))
#: voxels 2i, 2i+1 and block i+1 to voxel i; the plain kernel starts at 2i
_HALVING = _selection(2, 2, 1, lambda t, q, s: (2 * t + q,))
#: blocks (2j−2, 2j−1) and (2j, 2j+1) to block (2j−1, 2j): an odd start, so that two blocks contain all inputs
_SHIFTED = _selection(2, 2, 2, lambda t, q, s: (2 * t + q - s,))
#: voxels j−1 and j, each representing two copies, to block (2j−1, 2j)
_DOUBLING = _selection(2, 1, 2, lambda t, q, s: tuple(2 * t + copy - s for copy in (0, 1)))


class _Upsampled(NamedTuple):
    """A volume on the half grid that will be upsampled, and one on the full grid that is concatenated to it."""

    half: tf.Tensor
    skip: tf.Tensor


class BlockConvolutions(Convolutions):
    """Convolutions for the network's builders in a training graph for CPUs; float32 or float64."""

    def upsampled(self, net: tf.Tensor, skip: tf.Tensor) -> _Upsampled:
        return _Upsampled(net, skip)

    def convolve(self, net: Union[tf.Tensor, _Upsampled], kernel: tf.Tensor, stride: int) -> tf.Tensor:
        if isinstance(net, _Upsampled):
            return _convolve_upsampled(net.half, net.skip, kernel)
        if stride == 2:
            return convolve(to_blocks(net), _rearranged(kernel, [_HALVING] * 3), ((0, 1),) * 3)
        batch, x, y, z, channels = net.shape.as_list()
        filters = kernel.shape.as_list()[4]
        if z % 2 or filters > _PAIRED_FILTERS:
            return convolve(net, kernel, ((1, 1),) * 3)
        padded = tf.pad(net, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))
        pairs = tf.reshape(padded, (batch, x, y, z // 2 + 1, 2 * channels))
        done = convolve(pairs, _rearranged(kernel, (_SINGLE, _SINGLE, _SHIFTED)), ((1, 1), (1, 1), (0, 0)))
        return tf.reshape(done, (batch, x, y, z, filters))


def _convolve_upsampled(half: tf.Tensor, skip: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Move blocks of the result, shifted by one voxel, back into place."""
    channels, skipped = half.shape.as_list()[4], skip.shape.as_list()[4]
    parts = tf.split(kernel, (channels, skipped), axis=3)
    taps, entry = _rearranged(parts[0], [_DOUBLING] * 3), half
    joined = skipped <= _BLOCK_SKIP_CHANNELS
    if joined:
        taps = tf.concat([taps, _rearranged(parts[1], [_SHIFTED] * 3)], axis=3)
        entry = tf.concat([half, to_blocks(skip)], axis=4)
    shifted = from_blocks(convolve(entry, taps, ((1, 1),) * 3))
    batch, x, y, z, filters = shifted.shape.as_list()
    net = tf.slice(shifted, (0, 1, 1, 1, 0), (batch, x - 2, y - 2, z - 2, filters))
    return net if joined else net + convolve(skip, parts[1], ((1, 1),) * 3)


def _rearranged(kernel: tf.Tensor, axes: Sequence[np.ndarray]) -> tf.Tensor:
    """The kernel between blocks: (3, 3, 3, C, D) → (taps…, voxels per input block · C, voxels per output block · D)."""
    channels, filters = kernel.shape.as_list()[3:]
    chosen = np.einsum("aqsk,brul,cvwm->abcqrvsuwklm", *axes)
    taps, inputs, outputs = chosen.shape[:3], int(np.prod(chosen.shape[3:6])), int(np.prod(chosen.shape[6:9]))
    matrix = tf.constant(chosen.reshape(-1, KERNEL_SIDE**3), kernel.dtype.base_dtype)
    spread = tf.matmul(matrix, tf.reshape(kernel, (KERNEL_SIDE**3, channels * filters)))
    spread = tf.transpose(tf.reshape(spread, (-1, inputs, outputs, channels, filters)), (0, 1, 3, 2, 4))
    return tf.reshape(spread, taps + (inputs * channels, outputs * filters))


def to_blocks(net: tf.Tensor) -> tf.Tensor:
    """(B, 2X, 2Y, 2Z, C) → (B, X, Y, Z, 8·C), a block's voxels in the order of the array.

    Pairs along Z are already adjacent in memory; those along Y and X are separated by slicing whole lines and planes.
    """
    batch, x, y, z, channels = net.shape.as_list()
    row = z * channels
    parts = []
    for plane in tf.split(tf.reshape(net, (batch * x // 2, 2 * y * row)), 2, axis=1):
        parts += tf.split(tf.reshape(plane, (batch * x * y // 4, 2 * row)), 2, axis=1)
    half = (batch, x // 2, y // 2, z // 2, 2 * channels)
    return tf.concat([tf.reshape(part, half) for part in parts], axis=4)


def from_blocks(net: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_blocks`: (B, X, Y, Z, 8·C) → (B, 2X, 2Y, 2Z, C)."""
    batch, x, y, z, channels = net.shape.as_list()
    channels //= 8
    row = 2 * z * channels
    parts = [tf.reshape(part, (batch * x * y, row)) for part in tf.split(net, 4, axis=4)]
    planes = [tf.reshape(tf.concat(parts[n : n + 2], axis=1), (batch * x, 2 * y * row)) for n in (0, 2)]
    return tf.reshape(tf.concat(planes, axis=1), (batch, 2 * x, 2 * y, 2 * z, channels))
