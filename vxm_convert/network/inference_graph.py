# SPDX-License-Identifier: Apache-2.0
"""The inference graph: placeholders, U-Net, warp, named outputs. Contains no weights and runs nothing.

Its rules: every shape static, no control flow, no `Shape`/`StridedSlice` arithmetic, no `Split`. A diffeomorphic
variant registers by its mean velocity: it draws no samples, and the log_sigma layer is not part of the graph.
"""

from __future__ import annotations

from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import FIXED_NODE, FLOW_NODE, MOVED_NODE, MOVING_NODE, VELOCITY_NODE
from vxm_convert.network.integrate import velocity_to_displacement
from vxm_convert.network.tf1 import tf
from vxm_convert.network.unet import build_unet
from vxm_convert.network.warp import warp_linear


def build_inference_graph(spec: ModelSpec) -> tf.Graph:
    """A new tf.Graph that registers `spec.batch` pairs.

    Placeholders ``moving`` and ``fixed``: (B, X, Y, Z, 1), float32, intensities 0..1. Outputs, each an Identity without
    other readers: ``moved`` (B, X, Y, Z, 1), float32, and ``flow_field`` (B, X, Y, Z, 3), float32, displacement in
    voxels of the fixed grid, axis order as the array. Diffeomorphic variants also have ``velocity`` (B, X/2, Y/2, Z/2,
    3), in voxels of the half-resolution grid.
    """
    graph = tf.Graph()
    with graph.as_default():
        moving = tf.placeholder(tf.float32, spec.image_shape, name=MOVING_NODE)
        fixed = tf.placeholder(tf.float32, spec.image_shape, name=FIXED_NODE)
        net = build_unet(moving, fixed, spec)
        flow = velocity_to_displacement(net, spec.integration_steps) if spec.diffeomorphic else net
        moved = warp_linear(moving, flow)
        # Some readers drop an output that other nodes consume, hence the final Identities.
        tf.identity(moved, name=MOVED_NODE)
        tf.identity(flow, name=FLOW_NODE)
        if spec.diffeomorphic:
            tf.identity(net, name=VELOCITY_NODE)
    return graph
