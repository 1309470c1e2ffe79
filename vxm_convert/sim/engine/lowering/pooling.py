# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing. Averages exclude the padding, as TensorFlow's do; resizing follows TensorFlow's coordinates."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine.lowering.state import Lowering, Value


def _pool(kind: str) -> Callable[[Lowering, Op], List[Value]]:
    def build(state: Lowering, op: Op) -> List[Value]:
        own = op.attrs.get("data_format") == "NCHW"
        window, strides = (
            (list(op.attrs[key])[2:] if own else list(op.attrs[key])[1:-1]) for key in ("ksize", "strides")
        )
        pads = op.attrs["pads"]
        more = {"count_include_pad": 0} if kind == "AveragePool" else {}
        name = state.builder.one(
            kind,
            state.get(op.inputs[0], not own),
            kernel_shape=window,
            strides=strides,
            pads=pads[0::2] + pads[1::2],
            **more,
        )
        return [Value(name, not own)]

    return build


def _coordinates(op: Op, axis: int) -> Tuple[np.ndarray, int]:
    """fp32 source coordinate of every target index along a spatial axis, and the source's side."""
    source, target = op.input_descs[0].logical_shape[axis], op.output_descs[0].logical_shape[axis]
    if op.attrs["align_corners"] and target > 1:
        scale = np.float32(source - 1) / np.float32(target - 1)
    else:
        scale = np.float32(source) / np.float32(target)
    index = np.arange(target, dtype=np.float32)
    return ((index + np.float32(0.5)) * scale if op.attrs["half_pixel_centers"] else index * scale), source


def _resize_nearest(state: Lowering, op: Op) -> List[Value]:
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    for axis in (1, 2):
        where, side = _coordinates(op, axis)
        nearest = np.floor(where + np.float32(0.5)) if op.attrs["align_corners"] else np.floor(where)
        indices = state.integers(np.clip(nearest, 0, side - 1).astype(np.int64))
        name = state.builder.one("Gather", name, indices, axis=axis + first)
    return [Value(name, first)]


def _resize_bilinear(state: Lowering, op: Op) -> List[Value]:
    """Columns first, then rows: ``a + (b − a) · t`` in fp32, TensorFlow's order."""
    first = state.is_first(op.inputs[0])
    name = state.get(op.inputs[0], first)
    for axis in (2, 1):
        where, side = _coordinates(op, axis)
        where = where - np.float32(0.5) if op.attrs["half_pixel_centers"] else where
        floor = np.floor(where)
        low, high = (state.integers(np.clip(n, 0, side - 1).astype(np.int64)) for n in (floor, np.ceil(where)))
        shape = [1] * 4
        shape[axis + first] = len(where)
        weight = state.builder.constant((where - floor).astype(np.float32).reshape(shape))
        below, above = (state.builder.one("Gather", name, n, axis=axis + first) for n in (low, high))
        name = state.builder.one("Add", below, state.builder.one("Mul", state.builder.one("Sub", above, below), weight))
    return [Value(name, first)]


LOWERINGS: Dict[str, Callable[[Lowering, Op], List[Value]]] = {
    "MaxPool": _pool("MaxPool"),
    "MaxPool3D": _pool("MaxPool"),
    "AvgPool": _pool("AveragePool"),
    "AvgPool3DD": _pool("AveragePool"),
    "ResizeNearestNeighborV2D": _resize_nearest,
    "ResizeBilinearV2D": _resize_bilinear,
}
