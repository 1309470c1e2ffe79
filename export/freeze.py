# SPDX-License-Identifier: Apache-2.0
"""Inference graph + weights → ``frozen.pb``: constants, static shapes, equal bytes for equal input.

Freezing replaces variables in the GraphDef and runs no session, so it is fast at any volume size; `export.parity` shows
that the result computes the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np

from export.passes.apply import apply_passes
from vxm_convert.artifacts.files import write_bytes
from vxm_convert.errors import ContractError
from vxm_convert.model.contract import GraphContract
from vxm_convert.network.inference_graph import build_inference_graph
from vxm_convert.network.tf1 import tf

_MAX_PB_BYTES = (1 << 31) - 1
_VARIABLE_OPS = ("Variable", "VariableV2")
#: none of these may remain: there is no parser for them, or they make shapes dynamic
FORBIDDEN_OPS = frozenset(
    (
        "NoOp",
        "Variable",
        "VariableV2",
        "VarHandleOp",
        "ReadVariableOp",
        "Assign",
        "Enter",
        "Exit",
        "Switch",
        "Merge",
        "LoopCond",
        "NextIteration",
        "While",
        "StatelessWhile",
        "If",
        "StatelessIf",
        "TensorArrayV3",
        "Split",
        "SplitV",
        "Shape",
        "Range",
        "PyFunc",
    )
)


def freeze(contract: GraphContract, weights: Dict[str, np.ndarray]) -> tf.GraphDef:
    """The frozen GraphDef, nodes in topological order.

    Parameters
    ----------
    contract : GraphContract — model and node names.
    weights : dict — variable name → float32 array, as `vxm_convert.network.restore.load_weights` returns it.

    Raises
    ------
    ContractError
        If the graph breaks a rule of the exported graph or does not have the contract's tensors.
    """
    outputs = [t.node for t in contract.outputs]
    graph = build_inference_graph(contract.model)
    kept = tf.graph_util.extract_sub_graph(graph.as_graph_def(), outputs)
    frozen = _without_identities(_with_constants(kept, weights), outputs)
    frozen.versions.CopyFrom(kept.versions)
    _clean(frozen)
    apply_passes(frozen, contract)
    check_frozen(frozen, contract)
    return frozen


def write_pb(graph_def: tf.GraphDef, path: Path) -> None:
    """Serialise deterministically (plain SerializeToString orders attributes differently in every process) and write
    atomically.
    """
    data = graph_def.SerializeToString(deterministic=True)
    if len(data) > _MAX_PB_BYTES:
        raise ContractError(f"{path}: {len(data)} bytes, a frozen graph must stay below 2 GiB")
    write_bytes(path, data)


def import_pb(path: Path) -> tf.Graph:
    """A pb that this program has just written, as a tf.Graph."""
    graph_def = tf.GraphDef()
    graph_def.ParseFromString(Path(path).read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return graph


def _with_constants(graph_def: tf.GraphDef, weights: Dict[str, np.ndarray]) -> tf.GraphDef:
    result = tf.GraphDef()
    for node in graph_def.node:
        if node.op in _VARIABLE_OPS:
            value = np.ascontiguousarray(weights[node.name], np.float32)
            constant = result.node.add(name=node.name, op="Const")
            constant.attr["dtype"].type = tf.float32.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32, value.shape))
        else:
            result.node.add().CopyFrom(node)
    return result


def _without_identities(graph_def: tf.GraphDef, outputs: List[str]) -> tf.GraphDef:
    """Connect consumers of Identities (the reads of variables) to their source; outputs stay."""
    source = {n.name: n.input[0] for n in graph_def.node if n.op == "Identity" and n.name not in outputs}
    result = tf.GraphDef()
    for node in graph_def.node:
        if node.name in source:
            continue
        copy = result.node.add()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            while name in source:
                name = source[name]
            copy.input[position] = name
    return result


def _clean(graph_def: tf.GraphDef) -> None:
    """Drop attributes of the training framework: devices, colocation (`_class`), `_output_shapes`."""
    graph_def.ClearField("library")
    for node in graph_def.node:
        node.device = ""
        for key in [k for k in node.attr if k.startswith("_")]:
            del node.attr[key]


def check_frozen(graph_def: tf.GraphDef, contract: GraphContract) -> None:
    """Raise ContractError unless the graph obeys the rules: order, ops, static shapes, no dead nodes, the contract's
    tensors.
    """
    _check_nodes(graph_def, [t.node for t in contract.outputs])
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    for op in graph.get_operations():
        for tensor in op.outputs:
            if not tensor.shape.is_fully_defined():
                raise ContractError(f"frozen graph: {tensor.name} has shape {tensor.shape}, expected a static one")
    for spec in contract.inputs + contract.outputs:
        tensor = graph.get_tensor_by_name(spec.tensor_name)
        shape = tuple(tensor.shape.as_list())
        if shape != spec.shape or tensor.dtype.name != spec.dtype:
            raise ContractError(
                f"frozen graph: {tensor.name} is {tensor.dtype.name} {shape}, the contract says {spec.dtype} "
                f"{spec.shape}"
            )


def _check_nodes(graph_def: tf.GraphDef, outputs: List[str]) -> None:
    seen = set()
    for node in graph_def.node:
        if node.op in FORBIDDEN_OPS:
            raise ContractError(
                f"frozen graph: node {node.name} is a {node.op}, which an exported graph must not contain"
            )
        for name in node.input:
            if name.startswith("^") or name.split(":")[0] not in seen:
                raise ContractError(
                    f"frozen graph: node {node.name} reads {name} before it is computed, or as a control dependency"
                )
        seen.add(node.name)
    needed = {n.name for n in tf.graph_util.extract_sub_graph(graph_def, outputs).node}
    if seen - needed:
        raise ContractError(f"frozen graph: dead nodes {', '.join(sorted(seen - needed)[:5])}")
