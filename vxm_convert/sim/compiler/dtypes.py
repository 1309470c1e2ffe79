# SPDX-License-Identifier: Apache-2.0
"""Chooses fp16 or fp32 per operator as ``--precision_mode`` and ``--keep_dtype`` demand, and inserts the casts.

The rules are those of the vendor's documentation for the 910 and of the open fusion engine
(`op_dtype_selection_strategy_*.cc`); see docs/precision.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, FrozenSet, List, Mapping, Optional, Tuple

import numpy as np

from vxm_convert.ascend.operators import LOCAL, OpSupport, support_of
from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.sim.compiler.fusion import TAKES_BIAS
from vxm_convert.sim.frontends.import_graph import original_names
from vxm_convert.sim.numerics import to_half
from vxm_convert.sim.refusal import AtcRefusal

FLOATS = ("float16", "float32")
FORCE_HALF = "force_fp16"
ORIGIN = "must_keep_origin_dtype"
_MIX = ("allow_mix_precision", "allow_mix_precision_fp16")
_PREFER_SINGLE = ("allow_fp32_to_fp16", "force_fp32", "cube_fp16in_fp32out")
_CUBE_SINGLE_OUT = ("force_fp32", "cube_fp16in_fp32out")
MODES = (FORCE_HALF, ORIGIN) + _MIX + _PREFER_SINGLE


def assign_dtypes(
    ops: List[Op],
    mode: str,
    keep: FrozenSet[str],
    mixlist: Optional[Mapping[str, Optional[bool]]] = None,
    single_conv: bool = False,
) -> None:
    """Set the float dtype of every operator's inputs and outputs in place; constants and casts follow later.

    Parameters
    ----------
    mode : str — one of `MODES`.
    keep : frozenset of str — names (original or fused) that keep the graph's fp32.
    mixlist : dict — operator type → its list in mixed precision (True fp16, False fp32, None as its predecessor), where
        moved.
    single_conv : bool — the chip's convolutions take fp32 as well (an Atlas A2); a first-generation 910's do not.

    Raises
    ------
    AtcRefusal
        E20001 under must_keep_origin_dtype for operators without an fp32 kernel (Conv3D on a 910); EZ3003 if `keep` or
        the black list of `mixlist` asks for fp32 of such an operator.
    """
    if mode == ORIGIN:
        keep = frozenset()
    if single_conv:
        _refuse_widening(ops, mode)
    else:
        if mode == ORIGIN:
            _refuse_single_cube(ops)
        _refuse_kept_cube(ops, keep, mixlist or {})
    produced: Dict[str, str] = {}
    for op in ops:
        if op.type != "Data" and op.data is None:
            into, out = _choose(op, mode, bool(keep & _names_of(op)), produced, mixlist or {}, single_conv)
            singles = support_of(op.type).singles_from  # type: ignore[union-attr]
            op.input_descs = [
                _with_float(desc, into if i < singles else "float32") for i, desc in enumerate(op.input_descs)
            ]
            op.output_descs = [_with_float(desc, out) for desc in op.output_descs]
        # Constants take the type of their reader, so nothing follows them.
        for index, desc in enumerate(op.output_descs if op.data is None else ()):
            produced[f"{op.name}:{index}"] = desc.dtype


def _choose(
    op: Op, mode: str, kept: bool, produced: Dict[str, str], mixlist: Mapping[str, Optional[bool]], single_conv: bool
) -> Tuple[str, str]:
    """(dtype of float inputs, dtype of float outputs)."""
    row = support_of(op.type)
    if row is None:
        raise AtcRefusal("E10501", f"{op.name}: the 910 has no operator {op.type}")
    if op.type in mixlist:
        row = replace(row, precision_reduce=mixlist[op.type])
        kept = kept or (row.cube and mixlist[op.type] is False)
    if op.type == "Cast" and op.attrs.get("_user_cast", True):
        return _choose_cast(op, mode, kept, row, produced)
    if row.cube and single_conv and "float32" not in row.floats:
        chosen = "float32" if kept or mode in (ORIGIN, "force_fp32") else "float16"
        return chosen, chosen
    if row.cube and (kept or mode == ORIGIN):
        return row.floats[-1], row.floats[-1]
    if row.cube:
        return "float16", "float32" if mode in _CUBE_SINGLE_OUT else "float16"
    if row.engine == LOCAL:
        followed = _predecessor(op, produced)
        return followed, followed
    wanted = _vector_dtype(op, mode, kept, row, produced)
    chosen = wanted if wanted in row.floats else row.floats[0]
    return chosen, "float32" if row.single_out else chosen


def _vector_dtype(op: Op, mode: str, kept: bool, row: OpSupport, produced: Dict[str, str]) -> str:
    if kept or mode in _PREFER_SINGLE or mode == ORIGIN:
        return "float32"
    if mode == FORCE_HALF or row.precision_reduce:
        return "float16"
    return "float32" if row.precision_reduce is False else _predecessor(op, produced)


def _choose_cast(op: Op, mode: str, kept: bool, row: OpSupport, produced: Dict[str, str]) -> Tuple[str, str]:
    """A cast in the graph itself: float → int takes the existing type, int → float gives the type that the mode
    prefers.
    """
    into = _predecessor(op, produced)
    return into, _vector_dtype(op, mode, kept, row, produced)


def _predecessor(op: Op, produced: Dict[str, str]) -> str:
    for source, desc in zip(op.inputs, op.input_descs):
        if desc.dtype in FLOATS and produced.get(source) in FLOATS:
            return produced[source]
    return "float32"


def _with_float(desc: Desc, dtype: str) -> Desc:
    return replace(desc, dtype=dtype) if desc.dtype in FLOATS else desc


def _names_of(op: Op) -> FrozenSet[str]:
    """Names under which --keep_dtype knows an operator: its own and the original one, but not that of a bias which was
    fused into it.
    """
    originals = original_names(op)
    return frozenset([op.name] + (originals[:1] if op.type in TAKES_BIAS else originals))


def _refuse_single_cube(ops: List[Op]) -> None:
    refused = [op for op in ops if _lacks_single(op)]
    if refused:
        listing = ", ".join(f"{op.name} ({op.type})" for op in refused)
        raise AtcRefusal(
            "E20001",
            f"must_keep_origin_dtype: no kernel keeps float32 for {len(refused)} operators: {listing}",
            "The cube unit of the 910 takes fp16 operands only.",
            "Use --precision_mode=force_fp32 (fp16 operands, fp32 results), the most accurate mode this chip has.",
        )


def _refuse_kept_cube(ops: List[Op], keep: FrozenSet[str], mixlist: Mapping[str, Optional[bool]]) -> None:
    """An operator that must keep fp32 finds no kernel if all of its kernels take fp16: the real selection forbids the
    step from float to float16 (`sub_ops_store.cc`, CheckPrecisionReduce; `PrecisionReduceToFp16` for the black list).

    The name of a bias that was fused into a convolution has no effect: the convolution keeps its own attributes.
    """
    refused = [op for op in ops if (keep & _names_of(op) or mixlist.get(op.type, True) is False) and _lacks_single(op)]
    if refused:
        listing = ", ".join(f"{op.name} ({op.type})" for op in refused)
        raise AtcRefusal(
            "EZ3003",
            f"no kernel of the 910 keeps float32 for {len(refused)} operators: {listing}",
            "--keep_dtype and the black list of --modify_mixlist forbid float16 operands; these operators have no other.",
            "Take them off the list; for fp32 results of fp16 operands use --precision_mode=force_fp32, or "
            "--customize_dtypes for single operators.",
        )


def _refuse_widening(ops: List[Op], mode: str) -> None:
    """A chip with fp32 convolutions has none from fp16 to fp32."""
    refused = [op for op in ops if _lacks_single(op)] if mode == "cube_fp16in_fp32out" else []
    if refused:
        listing = ", ".join(f"{op.name} ({op.type})" for op in refused)
        raise AtcRefusal(
            "EZ3003",
            f"{mode}: no kernel of this chip takes fp16 and returns fp32: {listing}",
            solution="Use --precision_mode=force_fp32, in which its convolutions are fp32.",
        )


def _lacks_single(op: Op) -> bool:
    row = support_of(op.type)
    return row is not None and "float32" not in row.floats and any(desc.dtype == "float32" for desc in op.input_descs)


def insert_casts(ops: List[Op], outputs: List[Tuple[str, str]]) -> Tuple[List[Op], List[str]]:
    """Make every edge agree in dtype.

    A constant is stored in the type of its reader; any other mismatch gets a ``trans_Cast_<n>``, one per tensor and
    type. `outputs` are (tensor, dtype of the model's output). Returns the operators and the outputs' tensors.
    """
    maker = _CastMaker(ops)
    result: List[Op] = []
    for op in ops:
        for position, (source, desc) in enumerate(zip(op.inputs, op.input_descs)):
            op.inputs[position] = maker.provide(source, desc.dtype, result)
        result.append(op)
        maker.note(op)
    final = [maker.provide(source, dtype, result) for source, dtype in outputs]
    return result, final


class _CastMaker:
    def __init__(self, ops: List[Op]) -> None:
        self.ops = {op.name: op for op in ops}
        self.descs: Dict[str, Desc] = {}
        self.made: Dict[Tuple[str, str], str] = {}

    def note(self, op: Op) -> None:
        for index, desc in enumerate(op.output_descs):
            self.descs[f"{op.name}:{index}"] = desc

    def provide(self, source: str, dtype: str, result: List[Op]) -> str:
        desc = self.descs[source]
        if desc.dtype == dtype:
            return source
        key = (source, dtype)
        if key not in self.made:
            origin = self.ops[source.rpartition(":")[0]]
            op = _retyped_const(origin, dtype) if origin.data is not None else self._cast(source, desc, dtype)
            result.append(op)
            self.note(op)
            self.made[key] = f"{op.name}:0"
        return self.made[key]

    def _cast(self, source: str, desc: Desc, dtype: str) -> Op:
        count = sum(name.startswith("trans_Cast_") for name in (made.rpartition(":")[0] for made in self.made.values()))
        return Op(f"trans_Cast_{count}", "Cast", [source], {"_user_cast": False}, [desc], [replace(desc, dtype=dtype)])


def _retyped_const(op: Op, dtype: str) -> Op:
    data = to_half(op.value) if dtype == "float16" else op.value.astype(np.dtype(dtype))
    return Op(f"{op.name}_{dtype}", "Const", [], dict(op.attrs), [], [replace(op.output_descs[0], dtype=dtype)], data)
