# SPDX-License-Identifier: Apache-2.0
"""Limits of the 910's Conv3D kernel, checked on one node. Nothing else is checked here.

Source: `conv3d.py` of CANN's operator sources: filter, stride and padding ranges (E60012, E60013), depth dilation
(E60038), channels (E60010), and whether the rows that one output block needs fit into L1 (E60026).
"""

from __future__ import annotations

from typing import Iterator, List, Optional, Sequence, Tuple

from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import conv_sides, data_inputs
from vxm_convert.ascend import limits
from vxm_convert.formats.tf_graph import TfNode

#: (what is wrong, what to do)
Complaint = Tuple[str, str]
_AXES = "DHW"
_SMALLER = "use a smaller kernel, or split the convolution"


def conv3d_complaints(view: GraphView, node: TfNode) -> Iterator[Complaint]:
    """Every limit that a Conv3D node breaks; limits that need an unknown shape are passed over."""
    if node.attrs.get("data_format", "NDHWC") != "NDHWC":
        yield f"data_format is {node.attrs['data_format']}", "build the graph with channels last (NDHWC)"
        return
    names = data_inputs(node)
    if len(names) < 2 or len(node.attrs.get("strides") or ()) != 5 or len(node.attrs.get("dilations") or (1,) * 5) != 5:
        yield "has no filter, or strides and dilations not for five axes", "freeze the graph again: the node is damaged"
        return
    strides, dilations = _triple(node.attrs.get("strides")), _triple(node.attrs.get("dilations"))
    yield from _ranges("stride", strides, limits.MAX_STRIDE, "use smaller strides")
    if dilations[0] != 1:
        yield (
            f"dilation along depth is {dilations[0]}, the kernel takes 1 only (E60038)",
            "replace it by a dense kernel with zeros between",
        )
    yield from _ranges("dilation", (1,) + tuple(dilations[1:]), limits.MAX_DILATION, "use smaller dilations")
    filters, source = view.shape(names[1]), view.shapes.get(names[0])
    if filters is None or len(filters) != 5:
        return
    yield from _ranges("kernel", filters[:3], limits.MAX_KERNEL, _SMALLER)
    if source is None or len(source) != 5:
        return
    if source[4] not in (-1, filters[3]):
        yield (
            f"input has {source[4]} channels, the filter expects {filters[3]} (E60010)",
            "freeze the graph again: its parts do not fit",
        )
    if -1 not in source[1:4] and min(strides) > 0 and min(dilations) > 0 and 0 not in filters[:3]:
        yield from _volume_complaints(node, source[1:4], filters[:3], strides, dilations)


def _volume_complaints(
    node: TfNode, sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[Complaint]:
    yield from _ranges("image", (1,) + tuple(sides[1:]), limits.MAX_FMAP, "cut the volume into blocks")
    out = conv_sides(node, sides, kernel)
    if min(out) < 1:
        yield (
            f"no output is left of {_text(sides)} under a kernel of {_text(kernel)}",
            "use a larger volume or padding SAME",
        )
        return
    if node.attrs.get("padding") == "SAME":
        for axis, (side, width, stride, dilation, count) in enumerate(zip(sides, kernel, strides, dilations, out)):
            reach = (width - 1) * dilation + 1
            pad = max((count - 1) * stride + reach - side, 0)
            if (pad + 1) // 2 > limits.MAX_PAD:
                yield f"padding along {_AXES[axis]} is {(pad + 1) // 2}, at most {limits.MAX_PAD} (E60013)", _SMALLER
    need = l1_bytes(sides[2], out[2], kernel[1], strides[1], dilations[1])
    if need > limits.L1_BYTES:
        yield f"rows of the image need {need} bytes of L1, the chip has {limits.L1_BYTES} (E60026)", _SMALLER


def l1_bytes(width: int, out_width: int, kernel_h: int, stride_h: int, dilation_h: int) -> int:
    """Bytes of L1 for the image rows behind 16 output voxels: ((16 // Wout + 1) * stride_h + reach_h) * W * 16 * 2."""
    reach = (kernel_h - 1) * dilation_h + 1
    block = limits.CHANNEL_BLOCK
    return ((block // out_width + 2 - 1) * stride_h + reach) * width * block * 2


def _triple(values: Optional[Sequence[int]]) -> List[int]:
    return [int(n) for n in values[1:4]] if values and len(values) == 5 else [1, 1, 1]


def _ranges(what: str, values: Sequence[int], most: int, do: str) -> Iterator[Complaint]:
    for axis, value in enumerate(values):
        if not 1 <= value <= most:
            yield f"{what} along {_AXES[axis]} is {value}, legal is 1 to {most}", do


def _text(sides: Sequence[int]) -> str:
    return "x".join(str(n) for n in sides)
