# SPDX-License-Identifier: Apache-2.0
"""Convolutions over images and volumes, transposed ones, their bias, batch normalisation at inference."""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, Shape
from vxm_convert.sim.refusal import AtcRefusal


class Axes(NamedTuple):
    """Positions of the channels and the spatial axes of a data_format."""

    layout: str
    channel: int
    spatial: Tuple[int, ...]

    def take(self, values: Tuple[int, ...]) -> Shape:
        return tuple(values[i] for i in self.spatial)

    def shape(self, batch: int, sides: Shape, channels: int) -> Shape:
        return (batch, channels) + sides if self.channel == 1 else (batch,) + sides + (channels,)


def axes_of(node: TfNode, rank: int) -> Axes:
    """Axes of a node by its data_format; volumes are taken with channels last only."""
    last = {4: "NHWC", 5: "NDHWC"}.get(rank, "")
    layout = node.attrs.get("data_format") or last
    if not last or layout not in (last, "NCHW" if rank == 4 else last):
        raise AtcRefusal(
            "E20001", f"{node.name}: {node.op} takes {last or 'images or volumes'}, got rank {rank} in {layout}"
        )
    first = layout == "NCHW"
    return Axes(layout, 1 if first else rank - 1, tuple(range(2, rank)) if first else tuple(range(1, rank - 1)))


def geometry(
    node: TfNode, sides: Shape, kernel: Shape, strides: Shape, dilations: Shape, axes: Axes
) -> Tuple[List[int], Shape]:
    """(before and after padding per axis, output sides); TensorFlow puts the odd voxel of SAME after."""
    pads: List[int] = []
    outputs: List[int] = []
    explicit = node.attrs.get("explicit_paddings") or ()
    for number, (side, width, stride, dilation) in enumerate(zip(sides, kernel, strides, dilations)):
        reach = (width - 1) * dilation + 1
        before = after = 0
        if node.attrs.get("padding") == "SAME":
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
            before, after = total // 2, total - total // 2
        elif node.attrs.get("padding") == "EXPLICIT":
            before, after = (int(n) for n in explicit[2 * axes.spatial[number] : 2 * axes.spatial[number] + 2])
        pads += [before, after]
        outputs.append((side + before + after - reach) // stride + 1)
    return pads, tuple(outputs)


def _attrs(node: TfNode, rank: int) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    strides = tuple(node.attrs.get("strides") or ())
    dilations = tuple(node.attrs.get("dilations") or (1,) * rank)
    if len(strides) != rank or len(dilations) != rank or any(n < 1 for n in strides + dilations):
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): strides {strides} and dilations {dilations} for rank {rank}"
        )
    return strides, dilations


def _conv(importer: Importer, node: TfNode) -> None:
    """Conv2D, Conv3D and DepthwiseConv2dNative; a filter with fewer channels than the input is applied in groups."""
    source, filters = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    rank = 5 if node.op == "Conv3D" else 4
    if len(source.shape) != rank or len(filters.shape) != rank:
        raise AtcRefusal(
            "E20001", f"{node.name}: {node.op} takes rank {rank}, got input {source.shape} and filter {filters.shape}"
        )
    axes = axes_of(node, rank)
    strides, dilations = _attrs(node, rank)
    depthwise = node.op == "DepthwiseConv2dNative"
    groups = filters.shape[-2] if depthwise else source.shape[axes.channel] // max(filters.shape[-2], 1)
    if source.shape[axes.channel] != filters.shape[-2] * (1 if depthwise else groups) or (
        filters.shape[-1] % groups and not depthwise
    ):
        found = f"input has {source.shape[axes.channel]} channels, the filter is {filters.shape}"
        raise AtcRefusal("E20001", f"{node.name}: {found} (E60010 in TBE)")
    if node.op == "Conv3D" and dilations[1] != 1:
        raise AtcRefusal(
            "E20001",
            f"{node.name}: dilation along depth is {dilations[1]}, the 910's Conv3D takes 1 only (E60038 in TBE)",
        )
    importer.const(node, 1, ours=True)
    pads, sides = geometry(
        node, axes.take(source.shape), filters.shape[:-2], axes.take(strides), axes.take(dilations), axes
    )
    channels = filters.shape[-2] * filters.shape[-1] if depthwise else filters.shape[-1]
    importer.add(
        node,
        OPS[node.op].ge_type,
        node.inputs[:2],
        [(source.dtype, axes.shape(source.shape[0], sides, channels))],
        axes.layout,
        strides=list(strides),
        pads=pads,
        dilations=list(dilations),
        groups=groups,
        data_format=axes.layout,
    )


def _conv_backprop(importer: Importer, node: TfNode) -> None:
    """A transposed convolution: operands (input_sizes, filter, gradient); the filter is that of the forward
    convolution.
    """
    filters, grad = importer.desc(node.inputs[1]), importer.desc(node.inputs[2])
    rank = len(grad.shape)
    axes = axes_of(node, rank)
    strides, dilations = _attrs(node, rank)
    result = tuple(importer.ints(node, 0))
    if len(filters.shape) != rank or len(result) != rank or grad.shape[axes.channel] != filters.shape[-1]:
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): filter {filters.shape} does not fit {grad.shape} → {result}"
        )
    importer.const(node, 1, ours=True)
    pads, sides = geometry(node, axes.take(result), filters.shape[:-2], axes.take(strides), axes.take(dilations), axes)
    if sides != axes.take(grad.shape) or result[axes.channel] != filters.shape[-2]:
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): input_sizes {result} belong to {sides}, the operand is {grad.shape}"
        )
    importer.add(
        node,
        OPS[node.op].ge_type,
        node.inputs[1:3],
        [(grad.dtype, result)],
        axes.layout,
        input_size=list(result),
        strides=list(strides),
        pads=pads,
        dilations=list(dilations),
        groups=1,
        data_format=axes.layout,
    )


def _bias_add(importer: Importer, node: TfNode) -> None:
    source, bias = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    layout = node.attrs.get("data_format") or "NHWC"
    channel = 1 if layout == "NCHW" else len(source.shape) - 1
    if bias.shape != source.shape[channel : channel + 1] or layout not in ("NHWC", "NDHWC", "NCHW"):
        raise AtcRefusal("E20001", f"{node.name}: bias {bias.shape} does not fit axis {channel} of {source.shape}")
    # A matrix has its channels last, whatever the format.
    order = "NCHW" if channel < len(source.shape) - 1 else "NHWC"
    importer.add(node, "BiasAdd", node.inputs[:2], [(source.dtype, source.shape)], source.layout, data_format=order)


def _batch_norm(importer: Importer, node: TfNode) -> None:
    """``y = x · s + o`` with ``s = scale / sqrt(variance + epsilon)``, ``o = offset − mean · s``, folded here in fp32.

    In training form, mean and variance are those of the batch; only the output y is provided.
    """
    source = importer.desc(node.inputs[0])
    axes = axes_of(node, len(source.shape))
    if node.attrs.get("is_training", True):
        epsilon = node.attrs.get("epsilon")
        importer.add(
            node,
            "BatchNorm",
            node.inputs[:3],
            [(source.dtype, source.shape)],
            axes.layout,
            data_format=axes.layout,
            is_training=True,
            epsilon=1e-4 if epsilon is None else float(epsilon),
        )
        return
    scale, offset, mean, variance = (importer.const(node, k, ours=True).astype(np.float32) for k in (1, 2, 3, 4))
    epsilon = node.attrs.get("epsilon")
    factor = scale / np.sqrt(variance + np.float32(1e-4 if epsilon is None else epsilon))
    folded = (("scale", factor), ("offset", offset - mean * factor))
    names = [importer.add_const(f"{node.name}/folded_{key}", value) for key, value in folded]
    importer.add(
        node,
        "BatchNorm",
        [node.inputs[0]] + names,
        [(source.dtype, source.shape)],
        axes.layout,
        data_format=axes.layout,
    )


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "Conv2D": _conv,
    "Conv3D": _conv,
    "DepthwiseConv2dNative": _conv,
    "Conv2DBackpropInput": _conv_backprop,
    "Conv3DBackpropInputV2": _conv_backprop,
    "BiasAdd": _bias_add,
    "BiasAddV1": _bias_add,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
}
