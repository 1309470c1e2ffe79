# SPDX-License-Identifier: Apache-2.0
"""Graph clean-up that the real compiler does before it chooses dtypes: dead nodes, bias into convolution."""

from __future__ import annotations

from typing import Dict, List, Tuple

from vxm_convert.formats.ge_ir import Op

#: Kernels that add a bias before they round their result.
TAKES_BIAS = ("Conv3D", "Conv2D", "DepthwiseConv2D", "MatMulV2")


def drop_dead(ops: List[Op], outputs: List[str]) -> List[Op]:
    """Keep inputs and everything that the outputs need, in the given order."""
    by_name = {op.name: op for op in ops}
    needed = set()
    stack = [name.rpartition(":")[0] for name in outputs]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(source.rpartition(":")[0] for source in by_name[name].inputs)
    return [op for op in ops if op.name in needed or op.type == "Data"]


def fuse_bias(ops: List[Op], outputs: List[str]) -> List[Op]:
    """Convolution or matrix product → BiasAdd, or Add of a constant vector, becomes one operator with three inputs.

    Before: ``y = BiasAdd(Conv3D(x, w), b)``; after: ``y = Conv3D(x, w, b)`` under the convolution's name. The fused
    operator lists both original names, and its output names the original tensor, so that dumps can be matched.
    """
    readers: Dict[str, int] = {}
    for source in [source for op in ops for source in op.inputs] + outputs:
        readers[source] = readers.get(source, 0) + 1
    by_name = {op.name: op for op in ops}
    renamed: Dict[str, str] = {}
    kept: List[Op] = []
    for op in ops:
        op.inputs = [renamed.get(source, source) for source in op.inputs]
        found = [
            pair for pair in _orders(op) if _adds_bias(op, *(by_name[op.inputs[k].rpartition(":")[0]] for k in pair))
        ]
        if not found or readers[op.inputs[found[0][0]]] != 1:
            kept.append(op)
            continue
        product, vector = found[0]
        fused = by_name[op.inputs[product].rpartition(":")[0]]
        fused.inputs.append(op.inputs[vector])
        fused.input_descs.append(op.input_descs[vector])
        fused.attrs["_datadump_original_op_names"] = [fused.name, op.name]
        renamed[f"{op.name}:0"] = f"{fused.name}:0"
    outputs[:] = [renamed.get(name, name) for name in outputs]
    return _constants_first(kept)


def _orders(op: Op) -> Tuple[Tuple[int, int], ...]:
    """Positions that (product, bias) can have among the operands."""
    return {"BiasAdd": ((0, 1),), "Add": ((0, 1), (1, 0))}.get(op.type, ())


def _adds_bias(op: Op, source: Op, bias: Op) -> bool:
    if source.type not in TAKES_BIAS or len(source.inputs) != 2 or bias.data is None:
        return False
    first = source.attrs.get("data_format") == "NCHW"
    if op.type == "BiasAdd":
        return first == (op.attrs.get("data_format") == "NCHW")
    shape = source.output_descs[0].shape
    return not first and op.output_descs[0].shape == shape and bias.data.shape == shape[-1:]


def _constants_first(ops: List[Op]) -> List[Op]:
    """A fused bias may come after its convolution in the old order; constants depend on nothing."""
    return (
        [op for op in ops if op.type == "Data"]
        + [op for op in ops if op.data is not None]
        + [op for op in ops if op.type != "Data" and op.data is None]
    )
