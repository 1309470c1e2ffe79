# SPDX-License-Identifier: Apache-2.0
"""Stores tensors as the kernels want them: NDC1HWC0 around convolutions, FRACTAL_Z_3D filters, TransData in between."""
from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Tuple

from vxm_convert.formats.fractal import BLOCK, fractal_z_3d_shape, ndc1hwc0_shape, pack_fractal_z_3d
from vxm_convert.formats.ge_ir import Desc, Op

BLOCKED = "NDC1HWC0"
FILTER = "FRACTAL_Z_3D"
#: Operators whose kernels take any layout and hand it on (pattern formatAgnostic in the operator information).
AGNOSTIC = frozenset("LeakyRelu Relu Elu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Floor Round Cast".split())


def blocked(desc: Desc) -> Desc:
    """The same volume in 16-channel blocks."""
    return replace(
        desc, shape=ndc1hwc0_shape(desc.logical_shape), layout=BLOCKED, origin_shape=desc.logical_shape, origin_layout=desc.logical_layout,
    )


def plain(desc: Desc) -> Desc:
    """The same tensor as the framework's graph had it."""
    return replace(desc, shape=desc.logical_shape, layout=desc.logical_layout, origin_shape=(), origin_layout="")


def assign_layouts(ops: List[Op], outputs: List[str]) -> Tuple[List[Op], List[str]]:
    """Give every edge one layout, inserting ``trans_TransData_<n>`` where producer and reader differ, and pack filters."""
    changer = _LayoutChanger(ops)
    result: List[Op] = []
    for op in ops:
        want = _wants_blocked(op, changer.descs)
        if op.type == "Conv3D":
            changer.pack_filter(op, result)
        for position in range(1 if op.type == "Conv3D" else len(op.inputs)):
            op.inputs[position] = changer.provide(op.inputs[position], want, result)
            op.input_descs[position] = changer.descs[op.inputs[position]]
        if want:
            op.output_descs = [blocked(desc) for desc in op.output_descs]
        result.append(op)
        changer.note(op)
    final = [changer.provide(name, False, result) for name in outputs]
    return result, final


def _wants_blocked(op: Op, descs: Dict[str, Desc]) -> bool:
    if op.type == "Conv3D":
        return True
    layouts = [descs[name].layout for name in op.inputs]
    if op.type in AGNOSTIC:
        return layouts[0] == BLOCKED
    if op.type == "ConcatV2D" and op.attrs["concat_dim"] == 4 and BLOCKED in layouts:
        return all(descs[name].logical_shape[-1] % BLOCK == 0 for name in op.inputs)
    return False


class _LayoutChanger:
    def __init__(self, ops: List[Op]) -> None:
        self.ops = {op.name: op for op in ops}
        self.descs: Dict[str, Desc] = {}
        self.made: Dict[Tuple[str, bool], str] = {}
        self.packed: Dict[str, str] = {}

    def note(self, op: Op) -> None:
        for index, desc in enumerate(op.output_descs):
            self.descs[f"{op.name}:{index}"] = desc

    def provide(self, source: str, want_blocked: bool, result: List[Op]) -> str:
        desc = self.descs[source]
        if (desc.layout == BLOCKED) == want_blocked:
            return source
        key = (source, want_blocked)
        if key not in self.made:
            target = blocked(desc) if want_blocked else plain(desc)
            attrs = {"src_format": desc.layout, "dst_format": target.layout}
            op = Op(f"trans_TransData_{len(self.made)}", "TransData", [source], attrs, [desc], [target])
            result.append(op)
            self.note(op)
            self.made[key] = f"{op.name}:0"
        return self.made[key]

    def pack_filter(self, conv: Op, result: List[Op]) -> None:
        """DHWCN constant → FRACTAL_Z_3D constant, once per filter."""
        source = conv.inputs[1]
        name = source.rpartition(":")[0]
        if name not in self.packed:
            filters = next(op for op in result if op.name == name)
            desc = filters.output_descs[0]
            packed = Op(f"{name}_fractal", "Const", [], dict(filters.attrs), [], [
                replace(desc, shape=fractal_z_3d_shape(desc.shape), layout=FILTER, origin_shape=desc.shape, origin_layout="DHWCN")
            ], pack_fractal_z_3d(filters.data))
            result.append(packed)
            self.note(packed)
            self.packed[name] = packed.name
        conv.inputs[1] = f"{self.packed[name]}:0"
        conv.input_descs[1] = self.descs[conv.inputs[1]]
