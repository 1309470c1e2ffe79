# SPDX-License-Identifier: Apache-2.0
"""Graph clean-up that the real compiler does before it chooses dtypes: dead nodes, bias into convolution."""
from __future__ import annotations

from typing import Dict, List

from vxm_convert.formats.ge_ir import Op


def drop_dead(ops: List[Op], outputs: List[str]) -> List[Op]:
    """Keep inputs and whatever the outputs need, in the given order."""
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
    """Conv3D → BiasAdd becomes one Conv3D with three inputs.

    Before: ``y = BiasAdd(Conv3D(x, w), b)``; after: ``y = Conv3D(x, w, b)`` under the convolution's name. The fused
    operator lists both original names, and its output says which original tensor it is, so that dumps can be matched.
    """
    readers: Dict[str, int] = {}
    for source in [source for op in ops for source in op.inputs] + outputs:
        readers[source] = readers.get(source, 0) + 1
    by_name = {op.name: op for op in ops}
    renamed: Dict[str, str] = {}
    kept: List[Op] = []
    for op in ops:
        op.inputs = [renamed.get(source, source) for source in op.inputs]
        source = by_name.get(op.inputs[0].rpartition(":")[0]) if op.type == "BiasAdd" else None
        bias = by_name[op.inputs[1].rpartition(":")[0]] if source is not None else None
        fits = source is not None and source.type == "Conv3D" and len(source.inputs) == 2 and readers[op.inputs[0]] == 1
        if source is None or bias is None or bias.data is None or not fits:
            kept.append(op)
            continue
        source.inputs.append(op.inputs[1])
        source.input_descs.append(op.input_descs[1])
        source.attrs["_datadump_original_op_names"] = [source.name, op.name]
        renamed[f"{op.name}:0"] = f"{source.name}:0"
    outputs[:] = [renamed.get(name, name) for name in outputs]
    return _constants_first(kept)


def _constants_first(ops: List[Op]) -> List[Op]:
    """A fused bias may stand after its convolution in the old order; constants depend on nothing."""
    return [op for op in ops if op.type == "Data"] + [op for op in ops if op.data is not None] + [
        op for op in ops if op.type != "Data" and op.data is None
    ]
