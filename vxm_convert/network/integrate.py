# SPDX-License-Identifier: Apache-2.0
"""From a velocity at half resolution to a displacement at full resolution: integration and upsampling of fields.

All fields: (B, X, Y, Z, 3), displacement or velocity in voxels of their own grid, axis order as the array ('ij').
"""

from __future__ import annotations

from vxm_convert.network.tf1 import tf
from vxm_convert.network.warp import warp_linear


def velocity_to_displacement(velocity: tf.Tensor, steps: int) -> tf.Tensor:
    """Integrate at half resolution, then upsample, as the published network does (voxelmorph legacy, `miccai2018_net`)."""
    return double_flow(integrate_velocity(velocity, steps))


def integrate_velocity(velocity: tf.Tensor, steps: int) -> tf.Tensor:
    """exp(v) by scaling and squaring: u ← v / 2^steps, then `steps` times u ← u + u∘(id + u), edges replicated.

    Arsigny et al., MICCAI 2006; voxelmorph legacy, `ext/neuron`, class VecInt with method 'ss'.
    """
    with tf.name_scope("integrate"):
        flow = velocity * (1.0 / 2**steps)
        for _ in range(steps):
            flow = flow + warp_linear(flow, flow)
        return flow


def double_flow(flow: tf.Tensor) -> tf.Tensor:
    """Twice the voxels along every axis and twice the length: (B, X, Y, Z, 3) → (B, 2X, 2Y, 2Z, 3), linearly.

    Voxel i of the result is at i/2 of the source (the first voxels of both grids coincide, not their edges); beyond the
    last source voxel its value is repeated. Even voxels are copies, odd ones means of two neighbours. (voxelmorph
    legacy, `trf_resize` by ½: values × 2, then Resize.) Slice, Add, Mul, two-input ConcatV2 and Reshape of rank ≤ 5
    only.
    """
    with tf.name_scope("double_flow"):
        net = flow * 2.0
        for axis in (3, 2, 1):
            net = _double_axis(net, axis)
        return net


def _double_axis(net: tf.Tensor, axis: int) -> tf.Tensor:
    shape = net.shape.as_list()
    side = shape[axis]
    ahead = tf.concat([_part(net, axis, 1, side), _part(net, axis, side - 1, side)], axis=axis)
    between = (net + ahead) * 0.5
    # Everything after the axis as one row: a row followed by the mean, read as two voxels.
    row = 1
    for n in shape[axis + 1 :]:
        row *= n
    rows = shape[: axis + 1] + [row]
    paired = tf.concat([tf.reshape(net, rows), tf.reshape(between, rows)], axis=axis + 1)
    return tf.reshape(paired, shape[:axis] + [2 * side] + shape[axis + 1 :])


def _part(net: tf.Tensor, axis: int, start: int, stop: int) -> tf.Tensor:
    begin, size = [0] * 5, net.shape.as_list()
    begin[axis] = start
    size[axis] = stop - start
    return tf.slice(net, begin, size)
