# SPDX-License-Identifier: Apache-2.0
"""Stores tensors as the kernels need them: blocks of 16 channels around convolutions, packed weights, TransData in
between.

Volumes are NDC1HWC0 with FRACTAL_Z_3D filters, images NC1HWC0 with FRACTAL_Z filters; fp16 matrix weights are
FRACTAL_NZ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from vxm_convert.formats import fractal
from vxm_convert.formats.ge_ir import Desc, Op

BLOCKED = ("NDC1HWC0", "NC1HWC0")
#: Operators whose kernels take any layout and keep it (pattern formatAgnostic in the operator information).
AGNOSTIC = frozenset(
    "LeakyRelu Relu Relu6 Elu Selu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Expm1 Log Log1p Floor Ceil Round Rint "
    "Sign Softplus "
    "Softsign Reciprocal Inv Erf Cast".split()
)


class Packing(NamedTuple):
    """How a weight operand is stored: its position, the layout's name, that of the plain tensor, shape and content."""

    position: int
    layout: str
    plain: str
    shape: Callable[[Tuple[int, ...]], Tuple[int, ...]]
    pack: Callable[[np.ndarray], np.ndarray]


_VOLUME = ("FRACTAL_Z_3D", "DHWCN", fractal.fractal_z_3d_shape, fractal.pack_fractal_z_3d)
_IMAGE = ("FRACTAL_Z", "HWCN", fractal.fractal_z_shape, fractal.pack_fractal_z)
PACKINGS: Dict[str, Packing] = {
    "Conv3D": Packing(1, *_VOLUME),
    "Conv3DBackpropInputD": Packing(0, *_VOLUME),
    "Conv2D": Packing(1, *_IMAGE),
    "Conv2DBackpropInputD": Packing(0, *_IMAGE),
    "MatMulV2": Packing(1, "FRACTAL_NZ", "ND", fractal.fractal_nz_shape, fractal.pack_fractal_nz),
}
UNPACK: Dict[str, Callable[[np.ndarray, Tuple[int, ...]], np.ndarray]] = {
    "FRACTAL_Z_3D": fractal.unpack_fractal_z_3d,
    "FRACTAL_Z": fractal.unpack_fractal_z,
    "FRACTAL_NZ": fractal.unpack_fractal_nz,
}
#: Operators whose kernels take and return only blocks, and the position of their feature map.
FEATURE_MAP = {
    "Conv3D": 0,
    "Conv2D": 0,
    "DepthwiseConv2D": 0,
    "Conv3DBackpropInputD": 1,
    "Conv2DBackpropInputD": 1,
    "MaxPool": 0,
    "AvgPool": 0,
    "MaxPool3D": 0,
    "AvgPool3DD": 0,
    "BatchNorm": 0,
    "ResizeNearestNeighborV2D": 0,
    "ResizeBilinearV2D": 0,
}


def blocked(desc: Desc, layout: str = "") -> Desc:
    """The same image or volume in 16-channel blocks; `layout` overrides the position of its channels."""
    shape, origin = desc.logical_shape, layout or desc.logical_layout
    last = shape[:1] + shape[2:] + shape[1:2] if origin == "NCHW" else shape
    name, stored = (
        ("NDC1HWC0", fractal.ndc1hwc0_shape(last)) if len(shape) == 5 else ("NC1HWC0", fractal.nc1hwc0_shape(last))
    )
    return replace(desc, shape=stored, layout=name, origin_shape=shape, origin_layout=origin)


def plain(desc: Desc) -> Desc:
    """The same tensor in the layout of the framework's graph."""
    return replace(desc, shape=desc.logical_shape, layout=desc.logical_layout, origin_shape=(), origin_layout="")


def unpacked(op: Op) -> np.ndarray:
    """A weight in the layout of the framework's graph, from any storage; dtype unchanged."""
    desc = op.output_descs[0]
    return UNPACK[desc.layout](op.data, desc.logical_shape) if desc.layout in UNPACK else op.data


def assign_layouts(ops: List[Op], outputs: List[str]) -> Tuple[List[Op], List[str]]:
    """Give every edge one layout, inserting ``trans_TransData_<n>`` where producer and reader differ, and pack
    weights.
    """
    changer = _LayoutChanger(ops)
    result: List[Op] = []
    for op in ops:
        want = _wanted(op, changer.descs)
        if op.type in PACKINGS:
            changer.pack_weights(op, PACKINGS[op.type], result)
        positions = [FEATURE_MAP[op.type]] if op.type in FEATURE_MAP else range(len(op.inputs))
        for position in positions:
            # A packed weight has no other layout.
            if op.type not in PACKINGS or position != PACKINGS[op.type].position:
                op.inputs[position] = changer.provide(op.inputs[position], want, result)
                op.input_descs[position] = changer.descs[op.inputs[position]]
        if want:
            op.output_descs = [blocked(desc, want) for desc in op.output_descs]
        result.append(op)
        changer.note(op)
    final = [changer.provide(name, "", result) for name in outputs]
    return result, final


def _wanted(op: Op, descs: Dict[str, Desc]) -> str:
    """The origin layout of the blocks an operator works on, or an empty string if it works on plain tensors."""
    if op.type in FEATURE_MAP:
        return str(op.attrs.get("data_format") or "NHWC")
    found = [descs[name] for name in op.inputs]
    if op.type in AGNOSTIC:
        return found[0].logical_layout if found[0].layout in BLOCKED else ""
    if op.type == "ConcatV2D" and any(desc.layout in BLOCKED for desc in found):
        last = len(found[0].logical_shape) - 1
        aligned = op.attrs["concat_dim"] == last and all(desc.logical_shape[-1] % fractal.BLOCK == 0 for desc in found)
        same = {desc.logical_layout for desc in found if desc.layout in BLOCKED}
        return same.pop() if aligned and same in ({"NHWC"}, {"NDHWC"}) else ""
    return ""


class _LayoutChanger:
    def __init__(self, ops: List[Op]) -> None:
        self.ops = {op.name: op for op in ops}
        self.descs: Dict[str, Desc] = {}
        self.made: Dict[Tuple[str, str], str] = {}
        self.packed: Dict[Tuple[str, str], str] = {}

    def note(self, op: Op) -> None:
        for index, desc in enumerate(op.output_descs):
            self.descs[f"{op.name}:{index}"] = desc

    def provide(self, source: str, want: str, result: List[Op]) -> str:
        """The tensor in blocks of origin layout `want`, or plain if `want` is empty."""
        desc = self.descs[source]
        have = desc.logical_layout if desc.layout in BLOCKED else ""
        if have == want:
            return source
        if have and want:
            return self.provide(self.provide(source, "", result), want, result)
        key = (source, want)
        if key not in self.made:
            target = blocked(desc, want) if want else plain(desc)
            attrs = {"src_format": desc.layout, "dst_format": target.layout}
            op = Op(f"trans_TransData_{len(self.made)}", "TransData", [source], attrs, [desc], [target])
            result.append(op)
            self.note(op)
            self.made[key] = f"{op.name}:0"
        return self.made[key]

    def pack_weights(self, op: Op, packing: Packing, result: List[Op]) -> None:
        """Plain constant → packed constant, once per weight and layout; computed and fp32 weights stay plain."""
        source = op.inputs[packing.position]
        name = source.rpartition(":")[0]
        weights = next(made for made in result if made.name == name)
        desc = weights.output_descs[0]
        if weights.data is None or desc.dtype != "float16":
            return
        key = (name, packing.layout)
        if key not in self.packed:
            stored = replace(
                desc,
                shape=packing.shape(desc.shape),
                layout=packing.layout,
                origin_shape=desc.shape,
                origin_layout=packing.plain,
            )
            taken = any(other == name for other, _ in self.packed)
            packed = Op(
                f"{name}_{packing.layout.lower()}" if taken else f"{name}_fractal",
                "Const",
                [],
                dict(weights.attrs),
                [],
                [stored],
                packing.pack(weights.data),
            )
            result.append(packed)
            self.note(packed)
            self.packed[key] = packed.name
        op.inputs[packing.position] = f"{self.packed[key]}:0"
        op.input_descs[packing.position] = self.descs[op.inputs[packing.position]]
