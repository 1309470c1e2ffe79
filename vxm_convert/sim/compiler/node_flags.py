# SPDX-License-Identifier: Apache-2.0
"""What flags request for single nodes: inputs fed in fp16, data types of outputs, kept types, kernel modes. One
function per flag.

Names that are not in the graph are refused, except those of ``--keep_dtype``, which the real compiler ignores
(`keep_dtype_option.cc`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

from vxm_convert.ascend.operators import support_of
from vxm_convert.formats.ge_ir import LEAST_RESULT, Desc, Op
from vxm_convert.sim.frontends.import_graph import original_names
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
            raise AtcRefusal("E10017", f"--input_fp16_nodes names node {name}, which is a {op.type}, not an input")
        if op.output_descs[0].dtype not in ("float32", "float16"):
            raise AtcRefusal(
                "E10001", f"--input_fp16_nodes names {name}, which is {op.output_descs[0].dtype} not a float input"
            )
        op.output_descs = [replace(op.output_descs[0], dtype="float16")]


def result_types(
    asked: List[Tuple[str, int]], found: List[str], every: str, single: Dict[Tuple[str, int], str]
) -> List[str]:
    """Dtype of each output: ``--output_type`` for all (`every`) or some (`single`), else that of the graph (`found`)."""
    chosen = [
        single.get(asked[i], every or dtype) if i < len(asked) else every or dtype for i, dtype in enumerate(found)
    ]
    for old, new in zip(found, chosen):
        if new != old and new not in RESULT_TYPES:
            raise AtcRefusal(
                "E20001",
                f"--output_type requests {new}; the simulated device converts results to {', '.join(RESULT_TYPES)} "
                "only",
                solution="Compile with the real ATC (VXM_TOOLCHAIN=cann).",
            )
    return chosen


def names_to_keep(ops: List[Op], names: FrozenSet[str], types: FrozenSet[str]) -> FrozenSet[str]:
    """``--keep_dtype``: node names, and every node of the types. Names that the graph does not have change nothing."""
    return names | {op.name for op in ops if op.type in types}


def unknown_names(ops: List[Op], names: FrozenSet[str]) -> List[str]:
    """Names of ``--keep_dtype`` that are not in the graph: the real ATC mentions them in its log file and goes on."""
    return sorted(names - {name for op in ops for name in [op.name] + original_names(op)})


class CustomDtypes(NamedTuple):
    """A line of ``--customize_dtypes``: types of the inputs and outputs of a node, or of every node of a type; ""
    leaves one unchanged.
    """

    name: str
    is_type: bool
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]


def customise(ops: List[Op], lines: Iterable[CustomDtypes], known: FrozenSet[str]) -> None:
    """``--customize_dtypes``: overrides all earlier decisions; a line for a node overrides one for its type.

    E10016 for a node that the graph (`known`) does not have; a name removed by a fusion has no effect. E20001 if the
    operator has no kernel for the types.
    """
    ordered = sorted(lines, key=lambda line: not line.is_type)
    unknown = sorted(line.name for line in ordered if not line.is_type and line.name not in known)
    if unknown:
        raise AtcRefusal("E10016", f"--customize_dtypes names nodes that the graph does not have: {', '.join(unknown)}")
    for op in ops:
        if op.data is not None or op.type == "Data":
            continue
        for line in ordered:
            if line.name == (op.type if line.is_type else op.name):
                op.input_descs = _retyped(op, line, op.input_descs, line.inputs, "input")
                op.output_descs = _retyped(op, line, op.output_descs, line.outputs, "output")
        if any(line.name == (op.type if line.is_type else op.name) for line in ordered):
            _check_kernel(op)


def _retyped(op: Op, line: CustomDtypes, descs: List[Desc], types: Tuple[str, ...], what: str) -> List[Desc]:
    if len([kind for kind in types if kind]) and len(types) > len(descs):
        raise AtcRefusal(
            "E20001", f"--customize_dtypes gives {op.name} ({op.type}) {len(types)} {what} types, it has {len(descs)}"
        )
    result = list(descs)
    for index, kind in enumerate(types):
        if kind and kind != result[index].dtype:
            if not {kind, result[index].dtype} <= {"float16", "float32"}:
                raise AtcRefusal(
                    "E20001",
                    f"--customize_dtypes makes {what} {index} of {op.name} ({op.type}) {kind}; it is "
                    f"{result[index].dtype}, "
                    "and only float types can be exchanged",
                )
            result[index] = replace(result[index], dtype=kind)
    return result


def _check_kernel(op: Op) -> None:
    """Vector kernels have one float type for all operands; the cube takes fp16 and returns fp16 or fp32."""
    row = support_of(op.type)
    if row is None or op.type == "Cast":
        return
    into = {desc.dtype for desc in op.input_descs[: row.singles_from] if desc.dtype.startswith("float")}
    out = {desc.dtype for desc in op.output_descs if desc.dtype.startswith("float")}
    fits = into <= set(row.floats) and (row.cube or row.single_out or len(into | out) <= 1) and len(into) <= 1
    if not fits:
        raise AtcRefusal(
            "E20001",
            f"--customize_dtypes leaves {op.name} ({op.type}) with inputs {sorted(into)} and outputs {sorted(out)}; "
            "its kernels "
            f"take {' or '.join(row.floats)}" + ("" if row.cube else ", the same for all"),
        )


def mark_kernel_modes(ops: Iterable[Op], by_type: Dict[str, int], by_node: Dict[str, int]) -> None:
    """``--op_precision_mode``: recorded on the operator. All simulated kernels are of the precise kind."""
    for op in ops:
        modes = [by_node[name] for name in [op.name] + original_names(op) if name in by_node]
        mode = modes[0] if modes else by_type.get(op.type)
        if mode is not None:
            op.attrs["_op_impl_mode_enum"] = mode


def mark_least_results(ops: Iterable[Op], least: Optional[float]) -> None:
    """The smallest result of an fp16 sigmoid of this chip, for the engine; nothing is marked where none was seen."""
    for op in ops:
        if least is not None and op.type == "Sigmoid" and op.output_descs[0].dtype == "float16":
            op.attrs[LEAST_RESULT] = least
