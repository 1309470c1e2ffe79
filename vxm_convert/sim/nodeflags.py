# SPDX-License-Identifier: Apache-2.0
"""What flags ask of single nodes: inputs fed in fp16, data types of outputs, kept types, kernel modes. One function per flag.

A name that the graph does not have is refused as the real compiler refuses it; nothing is ignored.
"""
from __future__ import annotations

from dataclasses import replace
from typing import Dict, FrozenSet, Iterable, List, Tuple

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.frontend import original_names
from vxm_convert.sim.refusal import AtcRefusal

#: Types that the simulated device can convert a result to.
RESULT_TYPES = ("float32", "float16", "uint8", "int32", "int64")


def feed_half(ops: List[Op], names: FrozenSet[str]) -> None:
    """``--input_fp16_nodes``: these inputs become fp16, and the caller feeds fp16."""
    by_name = {op.name: op for op in ops}
    for name in sorted(names):
        if name not in by_name:
            raise AtcRefusal("E10016", f"--input_fp16_nodes names node {name}, which the graph does not have")
        op = by_name[name]
        if op.type != "Data":
            raise AtcRefusal("E10017", f"--input_fp16_nodes names node {name}, which is a {op.type} and no input")
        if op.output_descs[0].dtype not in ("float32", "float16"):
            raise AtcRefusal("E10001", f"--input_fp16_nodes names {name}, which is {op.output_descs[0].dtype} and no float input")
        op.output_descs = [replace(op.output_descs[0], dtype="float16")]


def result_types(
    asked: List[Tuple[str, int]], found: List[str], every: str, single: Dict[Tuple[str, int], str],
) -> List[str]:
    """Dtype of each output: ``--output_type`` for all (`every`) or some (`single`), else what the graph has (`found`)."""
    chosen = [single.get(asked[i], every or dtype) if i < len(asked) else every or dtype for i, dtype in enumerate(found)]
    for old, new in zip(found, chosen):
        if new != old and new not in RESULT_TYPES:
            raise AtcRefusal(
                "E20001", f"--output_type asks for {new}; the simulated device converts results to {', '.join(RESULT_TYPES)} only",
                solution="Compile with the real ATC (VXM_TOOLCHAIN=cann).",
            )
    return chosen


def names_to_keep(ops: List[Op], names: FrozenSet[str], types: FrozenSet[str]) -> FrozenSet[str]:
    """``--keep_dtype``: node names, and every node of the types; E10016 lists names that the graph does not have."""
    known = {name for op in ops for name in [op.name] + original_names(op)}
    unknown = sorted(names - known)
    if unknown:
        raise AtcRefusal("E10016", f"--keep_dtype names nodes that the graph does not have: {', '.join(unknown)}")
    return names | {op.name for op in ops if op.type in types}


def mark_kernel_modes(ops: Iterable[Op], by_type: Dict[str, int], by_node: Dict[str, int]) -> None:
    """``--op_precision_mode``: recorded on the operator. The simulated kernels are of the precise kind throughout."""
    for op in ops:
        modes = [by_node[name] for name in [op.name] + original_names(op) if name in by_node]
        mode = modes[0] if modes else by_type.get(op.type)
        if mode is not None:
            op.attrs["_op_impl_mode_enum"] = mode
