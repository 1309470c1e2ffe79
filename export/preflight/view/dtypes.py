# SPDX-License-Identifier: Apache-2.0
"""Which float type each operator will compute in under a precision mode, as far as the operator table decides it.

The rules are those of ``--precision_mode`` as the vendor documents them for the 910 (docs/precision.md).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Dict, FrozenSet, Tuple

from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import data_inputs
from vxm_convert.ascend.operators import LOCAL, OPS, OpSupport
from vxm_convert.formats.tf_graph import TfNode

FLOATS = ("float16", "float32")
ORIGIN = "must_keep_origin_dtype"
_KEEPS_SINGLE = ("allow_fp32_to_fp16", "force_fp32", "cube_fp16in_fp32out", ORIGIN)
_CUBE_SINGLE_OUT = ("force_fp32", "cube_fp16in_fp32out")
#: modes in which a chip with fp32 convolutions uses them
_SINGLE_CUBE = ("force_fp32", ORIGIN)
_HALF_CUBES = frozenset(name for name, row in OPS.items() if row.cube and "float32" not in row.floats)


def float_dtypes(
    view: GraphView, mode: str, keep: FrozenSet[str], results: FrozenSet[str] = frozenset(), single_conv: bool = False
) -> Dict[str, Tuple[str, str]]:
    """Node → (dtype of its float inputs, dtype of its float output); nodes that have no float part are left out.

    Parameters
    ----------
    keep : frozenset of str — nodes of ``--keep_dtype``.
    results : frozenset of str — convolutions with fp32 results (``--customize_dtypes``).
    single_conv : bool — the chip has fp32 convolutions and none that widen (`ascend.families`).
    """
    chosen: Dict[str, Tuple[str, str]] = {}
    biases = fused_biases(view)
    for node in view.nodes:
        row = OPS.get(node.op)
        touched = [view.dtypes.get(node.name)] + [view.dtype_of(tensor) for tensor in data_inputs(node)]
        if row is None or node.name in view.folded or not set(touched) & set(FLOATS):
            continue
        row = _of_chip(row, single_conv)
        into, out = _choose(view, node, row, mode, node.name in keep, chosen)
        if row.cube and node.name in results:
            out = "float32"
        if node.name in biases and biases[node.name] in chosen:
            # One operator with its convolution: the result is rounded once, and its own name means nothing.
            into = out = chosen[biases[node.name]][1]
        chosen[node.name] = into, out
    return chosen


def _of_chip(row: OpSupport, single_conv: bool) -> OpSupport:
    return replace(row, floats=FLOATS) if single_conv and lacks_single(row) else row


def fused_biases(view: GraphView) -> Dict[str, str]:
    """BiasAdd → the convolution that the compiler fuses it into: the only reader of that convolution."""
    readers = Counter(tensor for node in view.nodes for tensor in data_inputs(node))
    readers.update(view.outputs)
    cubes = {node.name + ":0" for node in view.nodes if node.op in OPS and OPS[node.op].cube}
    found = {}
    for node in view.nodes:
        sources = data_inputs(node) if node.op == "BiasAdd" else []
        if len(sources) == 2 and sources[0] in cubes and readers[sources[0]] == 1:
            if sources[1].rpartition(":")[0] in view.folded:
                found[node.name] = sources[0].rpartition(":")[0]
    return found


def lacks_single(row: OpSupport) -> bool:
    """Whether it is a cube operator without an fp32 kernel, which cannot be on a list of kept nodes."""
    return row.cube and "float32" not in row.floats


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
    if row.cube and not lacks_single(row) and (kept or (node.op in _HALF_CUBES and mode in _SINGLE_CUBE)):
        return "float32", "float32"
    if row.cube:
        return "float16", "float32" if mode in _CUBE_SINGLE_OUT else "float16"
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
