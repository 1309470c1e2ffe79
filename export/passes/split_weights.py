# SPDX-License-Identifier: Apache-2.0
"""Adds the part of a layer's weights that fp16 cannot represent, as a second convolution of the same input.

Before: ``y = BiasAdd(Conv3D(x, w), b)``
After:  ``y = BiasAdd(Conv3D(x, h), b) + Conv3D(x, w − h)`` with ``h = fp16(w)``

The 910 has no fp32 convolution, so a compiler rounds ``w`` to fp16. ``h`` stays unchanged and ``w − h`` keeps about
eight more bits. In fp32 both forms are the same function up to the order of the sum. docs/precision.md has measurements
of its effect, and why only the layers in the precision plan are split.
"""

from __future__ import annotations

from typing import Dict, List

import numpy as np

from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.errors import ContractError
from vxm_convert.model.contract import GraphContract
from vxm_convert.network.tf1 import tf


def split_weights(graph_def: tf.GraphDef, contract: GraphContract) -> None:
    """Apply the rewrite to every layer in ``contract.precision.split_weights``; raises ContractError for an unknown
    layer.
    """
    for layer in contract.precision.split_weights:
        nodes = {node.name: node for node in graph_def.node}
        names = {part: f"{layer}/{part}" for part in ("kernel", "Conv3D", "BiasAdd")}
        missing = sorted(name for name in names.values() if name not in nodes)
        if missing:
            raise ContractError(
                f"precision plan {contract.precision.name}: it splits the weights of {layer}, but the graph has no "
                f"{', '.join(missing)}; "
                "name layers of this network"
            )
        _split(graph_def, layer, {part: nodes[name] for part, name in names.items()})


def _split(graph_def: tf.GraphDef, layer: str, parts: Dict[str, tf.NodeDef]) -> None:
    weights = tf.make_ndarray(parts["kernel"].attr["value"].tensor)
    held = np.clip(weights, -HALF_MAX, HALF_MAX).astype(np.float16).astype(np.float32)
    _set_value(parts["kernel"], held)
    rest = tf.NodeDef(name=f"{layer}/kernel_rest", op="Const")
    rest.attr["dtype"].type = tf.float32.as_datatype_enum
    _set_value(rest, weights - held)
    conv = tf.NodeDef()
    conv.CopyFrom(parts["Conv3D"])
    conv.name = f"{layer}/Conv3D_rest"
    conv.input[1] = rest.name
    total = tf.NodeDef(name=f"{layer}/AddRest", op="AddV2", input=[parts["BiasAdd"].name, conv.name])
    total.attr["T"].type = tf.float32.as_datatype_enum
    _insert_behind(graph_def, parts["BiasAdd"].name, [rest, conv, total])


def _set_value(node: tf.NodeDef, value: np.ndarray) -> None:
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32, value.shape))


def _insert_behind(graph_def: tf.GraphDef, name: str, new: List[tf.NodeDef]) -> None:
    """Insert nodes after `name`, keeping the topological order; readers of `name` then read the last of them."""
    old = [tf.NodeDef.FromString(node.SerializeToString()) for node in graph_def.node]
    del graph_def.node[:]
    for node in old:
        for position, source in enumerate(node.input):
            if source == name:
                node.input[position] = new[-1].name
        graph_def.node.add().CopyFrom(node)
        if node.name == name:
            graph_def.node.extend(new)
