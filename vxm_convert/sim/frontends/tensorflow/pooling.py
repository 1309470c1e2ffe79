# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing of images and volumes."""

from __future__ import annotations

from typing import Callable, Dict

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.convolution import axes_of, geometry
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.refusal import AtcRefusal


def _pool(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    rank = len(source.shape)
    axes = axes_of(node, rank)
    kernel, strides = tuple(node.attrs.get("ksize") or ()), tuple(node.attrs.get("strides") or ())
    outside = [i for i in range(rank) if i not in axes.spatial]
    if len(kernel) != rank or len(strides) != rank or any(kernel[i] != 1 or strides[i] != 1 for i in outside):
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): window {kernel} and strides {strides} over {source.shape}"
        )
    pads, sides = geometry(
        node, axes.take(source.shape), axes.take(kernel), axes.take(strides), (1,) * len(axes.spatial), axes
    )
    shape = axes.shape(source.shape[0], sides, source.shape[axes.channel])
    importer.add(
        node,
        OPS[node.op].ge_type,
        node.inputs[:1],
        [(source.dtype, shape)],
        axes.layout,
        ksize=list(kernel),
        strides=list(strides),
        pads=pads,
        data_format=axes.layout,
    )


def _resize(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    size = importer.ints(node, 1)
    if len(source.shape) != 4 or len(size) != 2:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): takes NHWC images, got {source.shape} and size {size}")
    dtype = "float32" if node.op == "ResizeBilinear" else source.dtype
    importer.add(
        node,
        OPS[node.op].ge_type,
        node.inputs[:1],
        [(dtype, (source.shape[0], size[0], size[1], source.shape[3]))],
        size=size,
        align_corners=bool(node.attrs.get("align_corners")),
        half_pixel_centers=bool(node.attrs.get("half_pixel_centers")),
    )


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "MaxPool": _pool,
    "AvgPool": _pool,
    "MaxPool3D": _pool,
    "AvgPool3D": _pool,
    "ResizeNearestNeighbor": _resize,
    "ResizeBilinear": _resize,
}
