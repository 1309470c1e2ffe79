# SPDX-License-Identifier: Apache-2.0
"""ONNX operators over images and volumes: convolutions, pooling, normalisation, resizing. Channels go last here."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.sim.frontends.onnx.ops import OnnxNode, Order, Translator, padding_of
from vxm_convert.sim.refusal import AtcRefusal

Handler = Callable[[Translator, OnnxNode], None]
#: Below the fp16 range, so that padding never is the maximum.
_LOWEST = np.float32(-65504)
#: More groups than any transposed convolution in use; each becomes a node.
MAX_GROUPS = 512


def _refuse(node: OnnxNode, why: str) -> AtcRefusal:
    return AtcRefusal("E20001", f"{node.name} ({node.type}): {why}")


def _text(node: OnnxNode, key: str, default: str) -> str:
    value = node.attrs.get(key, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _last(made: Translator, node: OnnxNode) -> Tuple[Order, int]:
    """(order with channels last, number of spatial axes); images and volumes only."""
    spatial = len(made.shape(node.inputs[0], node)) - 2
    if spatial not in (2, 3):
        raise _refuse(node, f"takes images and volumes, got shape {made.shape(node.inputs[0], node)}")
    return (0, spatial + 1) + tuple(range(1, spatial + 1)), spatial


def _format(spatial: int) -> str:
    return "NDHWC" if spatial == 3 else "NHWC"


def _pad(made: Translator, node: OnnxNode, source: str, pads: Sequence[int], value: Optional[np.float32] = None) -> str:
    """`pads` in ONNX order, all before, then all after; spatial axes of a tensor with channels last."""
    spatial = len(pads) // 2
    table = [[0, 0]] + [[pads[i], pads[i + spatial]] for i in range(spatial)] + [[0, 0]]
    operands = [source, made.constant(f"{node.name}/pads", np.int32(table))]
    if value is None:
        return made.emit("Pad", f"{node.name}/pad", operands)
    return made.emit("PadV2", f"{node.name}/pad", operands + [made.constant(f"{node.name}/filler", value)])


def _conv(made: Translator, node: OnnxNode) -> None:
    """Handles any number of groups; padding other than SAME and VALID becomes a separate Pad."""
    filters, groups = made.const(node, 1), int(node.attrs.get("group", 1))
    if filters is None or filters.ndim not in (4, 5):
        raise _refuse(node, "expected a constant 2-D or 3-D filter")
    last, spatial = _last(made, node)
    source = made.get(node.inputs[0], last)
    channels, sides = made.shape(node.inputs[0], node)[1], made.shape(node.inputs[0], node)[2:]
    strides, dilations = (tuple(node.attrs.get(key) or (1,) * spatial) for key in ("strides", "dilations"))
    padding, pads = padding_of(node, sides, filters.shape[2:], strides, dilations)
    if pads:
        source = _pad(made, node, source, pads)
    kernel = filters.transpose(tuple(range(2, spatial + 2)) + (1, 0))
    depthwise = spatial == 2 and groups == channels > 1 and filters.shape[1] == 1
    if depthwise:
        # (H, W, 1, C·M) → (H, W, C, M)
        kernel = kernel.reshape(kernel.shape[:2] + (channels, -1))
    tensor = made.emit(
        "DepthwiseConv2dNative" if depthwise else f"Conv{spatial}D",
        node.name,
        [source, made.constant(f"{node.name}/filter", np.ascontiguousarray(kernel))],
        strides=(1,) + strides + (1,),
        dilations=(1,) + dilations + (1,),
        padding=padding,
        data_format=_format(spatial),
    )
    made.put(node, _add_bias(made, node, tensor, 2), last)


def _add_bias(made: Translator, node: OnnxNode, tensor: str, position: int) -> str:
    bias = made.const(node, position)
    if bias is None:
        return tensor
    return made.emit(
        "BiasAdd", f"{node.name}/bias_add", [tensor, made.constant(f"{node.name}/bias", bias)], data_format="NHWC"
    )


def _conv_transpose(made: Translator, node: OnnxNode) -> None:
    """The gradient of a convolution with explicit padding; one node per group."""
    filters, groups = made.const(node, 1), int(node.attrs.get("group", 1))
    if (
        filters is None
        or filters.ndim not in (4, 5)
        or _text(node, "auto_pad", "NOTSET") != "NOTSET"
        or node.attrs.get("output_shape")
    ):
        raise _refuse(node, "expected a constant 2-D or 3-D filter, padding by numbers and no output_shape")
    if not 0 < groups <= MAX_GROUPS:
        raise _refuse(node, f"{groups} groups, expected at most {MAX_GROUPS}")
    last, spatial = _last(made, node)
    shape, target = made.shape(node.inputs[0], node), made.shape(node.outputs[0], node)
    pads = tuple(node.attrs.get("pads") or (0,) * (2 * spatial))
    strides, dilations = (tuple(node.attrs.get(key) or (1,) * spatial) for key in ("strides", "dilations"))
    table = [0, 0] + [n for i in range(spatial) for n in (pads[i], pads[i + spatial])] + [0, 0]
    sizes = made.constant(f"{node.name}/sizes", np.int32((target[0],) + target[2:] + (target[1] // groups,)))
    sources = [made.get(node.inputs[0], last)]
    if groups > 1:
        axis = made.constant(f"{node.name}/axis", np.int32(-1))
        split = made.emit("Split", f"{node.name}/groups", [axis, sources[0]], num_split=groups)
        sources = [f"{split}:{number}" for number in range(groups)]
    width = shape[1] // groups
    parts = []
    for number, source in enumerate(sources):
        kernel = filters[number * width : (number + 1) * width].transpose(tuple(range(2, spatial + 2)) + (1, 0))
        parts.append(
            made.emit(
                f"Conv{spatial}DBackpropInput" + ("V2" if spatial == 3 else ""),
                node.name,
                [sizes, made.constant(f"{node.name}/filter", np.ascontiguousarray(kernel)), source],
                strides=(1,) + strides + (1,),
                dilations=(1,) + dilations + (1,),
                padding="EXPLICIT",
                explicit_paddings=tuple(table),
                data_format=_format(spatial),
            )
        )
    tensor = parts[0]
    if groups > 1:
        tensor = made.emit(
            "ConcatV2", f"{node.name}/join", parts + [made.constant(f"{node.name}/join_axis", np.int32(-1))], N=groups
        )
    made.put(node, _add_bias(made, node, tensor, 2), last)


def _pool(made: Translator, node: OnnxNode) -> None:
    """MaxPool and AveragePool. A window beyond the padding (ceil_mode) covers less of the image."""
    last, spatial = _last(made, node)
    sides, target = made.shape(node.inputs[0], node)[2:], made.shape(node.outputs[0], node)[2:]
    kernel, strides = tuple(node.attrs["kernel_shape"]), tuple(node.attrs.get("strides") or (1,) * spatial)
    if any(n != 1 for n in node.attrs.get("dilations") or ()) or len(node.outputs) > 1:
        raise _refuse(node, "windows with dilation, and the indices of maxima, are not supported")
    padding, pads = padding_of(node, sides, kernel, strides, (1,) * spatial)
    largest = node.type == "MaxPool"
    counted = bool(node.attrs.get("count_include_pad")) and padding != "VALID"
    given = list(pads) if pads else [0] * (2 * spatial)
    if padding == "SAME" and counted and node.attrs.get("pads"):
        given, padding = list(node.attrs["pads"]), "VALID"
    missing = [0] * spatial
    if padding == "VALID":
        for i in range(spatial):
            missing[i] = max((target[i] - 1) * strides[i] + kernel[i] - sides[i] - given[i] - given[i + spatial], 0)
    source = made.get(node.inputs[0], last)
    whole = given[:spatial] + [after + more for after, more in zip(given[spatial:], missing)]
    if any(whole):
        source = _pad(made, node, source, whole, _LOWEST if largest else None)
    tensor = made.emit(
        ("MaxPool" if largest else "AvgPool") + ("3D" if spatial == 3 else ""),
        node.name,
        [source],
        ksize=(1,) + kernel + (1,),
        strides=(1,) + strides + (1,),
        padding=padding,
        data_format=_format(spatial),
    )
    if any(whole) and not largest:
        factor = _shares(sides, target, kernel, strides, given, bool(node.attrs.get("count_include_pad")))
        tensor = made.emit("Mul", f"{node.name}/share", [tensor, made.constant(f"{node.name}/factor", factor)])
    made.put(node, tensor, last)


def _shares(
    sides: Sequence[int],
    target: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    counted: bool,
) -> np.ndarray:
    """(…, 1): size of the window divided by the number of counted positions, per axis, multiplied over the axes."""
    result = np.ones((1,) * len(sides))
    for axis, side in enumerate(sides):
        low, high = (-pads[axis], side + pads[axis + len(sides)]) if counted else (0, side)
        first = np.arange(target[axis]) * strides[axis] - pads[axis]
        places = np.minimum(first + kernel[axis], high) - np.maximum(first, low)
        shape = [1] * len(sides)
        shape[axis] = target[axis]
        result = result * (kernel[axis] / np.maximum(places, 1)).reshape(shape)
    return result.astype(np.float32)[..., None]


def _pool_all(op: str) -> Handler:
    def build(made: Translator, node: OnnxNode) -> None:
        last, spatial = _last(made, node)
        axes = made.constant(f"{node.name}/axes", np.int32(range(1, spatial + 1)))
        made.put(node, made.emit(op, node.name, [made.get(node.inputs[0], last), axes], keep_dims=True), last)

    return build


def _instance_norm(made: Translator, node: OnnxNode) -> None:
    """Mean and variance over the spatial axes of every sample and channel."""
    rank = len(made.shape(node.inputs[0], node))
    last = (0, rank - 1) + tuple(range(1, rank - 1))
    scale, offset = made.const(node, 1), made.const(node, 2)
    axes = made.constant(f"{node.name}/axes", np.int32(range(1, rank - 1)))
    source = made.get(node.inputs[0], last)
    mean = made.emit("Mean", f"{node.name}/mean", [source, axes], keep_dims=True)
    centred = made.emit("Sub", f"{node.name}/centred", [source, mean])
    variance = made.emit(
        "Mean", f"{node.name}/variance", [made.emit("Square", f"{node.name}/square", [centred]), axes], keep_dims=True
    )
    epsilon = made.constant(f"{node.name}/epsilon", np.float32(node.attrs.get("epsilon", 1e-5)))
    factor = made.emit("Rsqrt", f"{node.name}/factor", [made.emit("AddV2", f"{node.name}/sum", [variance, epsilon])])
    tensor = made.emit("Mul", f"{node.name}/normal", [centred, factor])
    for op, value in (("Mul", scale), ("AddV2", offset)):
        tensor = made.emit(op, node.name, [tensor, made.constant(f"{node.name}/{op}", np.asarray(value))])
    made.put(node, tensor, last)


def _local_response(made: Translator, node: OnnxNode) -> None:
    size = int(node.attrs["size"])
    last, spatial = _last(made, node)
    if size % 2 == 0 or spatial != 2:
        raise _refuse(node, f"takes images and an odd size, got {size}")
    given: Dict[str, Any] = {"beta": node.attrs.get("beta", 0.75), "bias": node.attrs.get("bias", 1.0)}
    given["alpha"] = node.attrs.get("alpha", 1e-4) / size
    made.put(node, made.emit("LRN", node.name, [made.get(node.inputs[0], last)], depth_radius=size // 2, **given), last)


def _places(node: OnnxNode, old: int, new: int, scale: float) -> np.ndarray:
    """float64 source coordinate of every position of the result, along one axis."""
    index = np.arange(new, dtype=np.float64)
    mode = _text(node, "coordinate_transformation_mode", "half_pixel") if node.type == "Resize" else "asymmetric"
    if mode == "align_corners":
        return index * (old - 1) / (new - 1) if new > 1 else index * 0
    if mode == "asymmetric":
        return index / scale
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        return (index + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return index * 0
    raise _refuse(node, f"coordinates by {mode} are not supported")


_NEAREST: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resize(made: Translator, node: OnnxNode) -> None:
    """Nearest neighbour or linear, axis by axis, any number of axes: one Gather, and for linear a weighted sum of two."""
    source, target = made.shape(node.inputs[0], node), made.shape(node.outputs[0], node)
    kind = _text(node, "mode", "nearest")
    nearest = _text(node, "nearest_mode", "round_prefer_floor") if node.type == "Resize" else "floor"
    if kind not in ("nearest", "linear") or nearest not in _NEAREST:
        raise _refuse(
            node, f"mode {kind}, {nearest} from {source} to {target} is not supported; expected nearest or linear"
        )
    scales = made.const(node, 1 if node.type == "Upsample" or len(node.inputs) < 3 else 2)
    order = made.order(node.inputs[0], len(source))
    tensor = made.get(node.inputs[0], order)
    for axis, (old, new) in enumerate(zip(source, target)):
        if old != new:
            given = scales is not None and scales.size == len(source)
            places = _places(node, old, new, float(scales[axis]) if given else new / old)  # type: ignore[index]
            if kind == "nearest":
                tensor = _take(made, node, tensor, _NEAREST[nearest](places), old, order[axis])
            else:
                tensor = _blend(made, node, tensor, np.clip(places, 0, old - 1), old, order[axis], len(source))
    made.put(node, tensor, order)


def _take(made: Translator, node: OnnxNode, tensor: str, places: np.ndarray, side: int, axis: int) -> str:
    indices = made.constant(f"{node.name}/places", np.clip(places, 0, side - 1).astype(np.int32))
    return made.emit("GatherV2", node.name, [tensor, indices, made.constant(f"{node.name}/axis", np.int32(axis))])


def _blend(made: Translator, node: OnnxNode, tensor: str, places: np.ndarray, side: int, axis: int, rank: int) -> str:
    below = np.floor(places)
    shape: List[int] = [1] * rank
    shape[axis] = len(places)
    low, high = (_take(made, node, tensor, below + step, side, axis) for step in (0, 1))
    weight = made.constant(f"{node.name}/weight", (places - below).astype(np.float32).reshape(shape))
    part = made.emit("Mul", node.name, [made.emit("Sub", node.name, [high, low]), weight])
    return made.emit("AddV2", node.name, [low, part])


def _depth_to_space(made: Translator, node: OnnxNode) -> None:
    last, spatial = _last(made, node)
    if spatial != 2 or _text(node, "mode", "DCR") != "DCR":
        raise _refuse(node, f"takes images in mode DCR, got {_text(node, 'mode', 'DCR')}")
    made.put(
        node,
        made.emit(node.type, node.name, [made.get(node.inputs[0], last)], block_size=int(node.attrs["blocksize"])),
        last,
    )


HANDLERS: Dict[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool_all("Mean"),
    "GlobalMaxPool": _pool_all("Max"),
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
}
