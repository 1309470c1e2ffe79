# SPDX-License-Identifier: Apache-2.0
"""Which float type each operator will compute in under a precision mode, as far as the operator table decides it.

The rules are those of ``--precision_mode`` as the vendor documents them for the 910 (docs/precision.md).
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Tuple

from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs
from vxm_convert.ascend.operators import LOCAL, OPS, OpSupport
from vxm_convert.formats.tf_graph import TfNode

FLOATS = ("float16", "float32")
ORIGIN = "must_keep_origin_dtype"
_KEEPS_SINGLE = ("allow_fp32_to_fp16", "force_fp32", "cube_fp16in_fp32out", ORIGIN)
_CUBE_SINGLE_OUT = ("force_fp32", "cube_fp16in_fp32out")


def float_dtypes(view: GraphView, mode: str, keep: FrozenSet[str]) -> Dict[str, Tuple[str, str]]:
    """Node → (dtype of its float inputs, dtype of its float output); nodes that have no float part are left out."""
    chosen: Dict[str, Tuple[str, str]] = {}
    for node in view.nodes:
        row = OPS.get(node.op)
        touched = [view.dtypes.get(node.name)] + [view.dtype_of(tensor) for tensor in data_inputs(node)]
        if row is None or node.name in view.folded or not set(touched) & set(FLOATS):
            continue
        chosen[node.name] = _choose(view, node, row, mode, node.name in keep, chosen)
    return chosen


def wanted_dtype(row: OpSupport, mode: str, kept: bool, followed: str) -> str:
    """What the mode asks of an operator, whether a kernel for it exists or not."""
    if kept or mode in _KEEPS_SINGLE:
        return "float32"
    if mode == "force_fp16" or row.precision_reduce:
        return "float16"
    return "float32" if row.precision_reduce is False else followed


def _choose(
    view: GraphView, node: TfNode, row: OpSupport, mode: str, kept: bool, chosen: Dict[str, Tuple[str, str]]
) -> Tuple[str, str]:
    followed = _predecessor(view, node, chosen)
    if node.op == "Placeholder":
        return view.dtypes[node.name], view.dtypes[node.name]
    if row.cube:
        return "float16", "float32" if kept or mode in _CUBE_SINGLE_OUT else "float16"
    if row.engine == LOCAL:
        return followed, followed
    wanted = wanted_dtype(row, mode, kept, followed)
    dtype = wanted if wanted in row.floats else row.floats[0]
    if row.single_out:
        return dtype, "float32"
    return (followed, dtype) if node.op == "Cast" else (dtype, dtype)


def _predecessor(view: GraphView, node: TfNode, chosen: Dict[str, Tuple[str, str]]) -> str:
    for tensor in data_inputs(node):
        source = tensor.rpartition(":")[0]
        if source in chosen and view.dtypes.get(source) in FLOATS:
            return chosen[source][1]
    return "float32"
