# SPDX-License-Identifier: Apache-2.0
"""State of a lowering: the ONNX built so far, and the position of each tensor of the compiled graph in it."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Set, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.compiler.layouts import unpacked
from vxm_convert.sim.engine.lowering.onnx_graph import OnnxBuilder
from vxm_convert.sim.engine.rewrites.settings import Settings


class Value(NamedTuple):
    """An ONNX value: its name and whether an image or volume has its channels first instead of last."""

    name: str
    channels_first: bool


class Lowering:
    """State while walking the operators."""

    def __init__(self, ops: List[Op], settings: Settings) -> None:
        self.settings = settings
        self.builder = OnnxBuilder(settings.rounding)
        self.values: Dict[str, Value] = {}
        self.consts = {f"{op.name}:0": op for op in ops if op.data is not None}
        #: fp32 tensors that may hold NaN or infinity
        self.doubtful: Set[str] = set()
        self._shapes = {f"{op.name}:{i}": desc.logical_shape for op in ops for i, desc in enumerate(op.output_descs)}
        self._turned: Dict[Tuple[str, bool], Value] = {}

    def get(self, tensor: str, channels_first: bool = False) -> str:
        """Name of the value of `tensor` in the wanted axis order."""
        if tensor in self.consts and tensor not in self.values:
            self.values[tensor] = Value(self.builder.constant(unpacked(self.consts[tensor])), False)
        value = self.values[tensor]
        if value.channels_first == channels_first:
            return value.name
        key = (value.name, channels_first)
        if key not in self._turned:
            self._turned[key] = Value(self._turn(value.name, self._shapes[tensor], channels_first), channels_first)
        return self._turned[key].name

    def _turn(self, name: str, shape: Tuple[int, ...], channels_first: bool) -> str:
        rank = len(shape)
        perm = [0, rank - 1] + list(range(1, rank - 1)) if channels_first else [0] + list(range(2, rank)) + [1]
        if shape[-1] == 1 and "channels" in self.settings.rewrites:
            # One channel: both orders have the same memory layout.
            return self.builder.one(
                "Reshape", name, self.integers([shape[axis] for axis in perm] if channels_first else shape)
            )
        return self.builder.one("Transpose", name, perm=perm)

    def is_first(self, tensor: str) -> bool:
        return tensor in self.values and self.values[tensor].channels_first

    def weight(self, tensor: str) -> np.ndarray:
        """A constant in the layout of the framework's graph, in fp32."""
        return unpacked(self.consts[tensor]).astype(np.float32)

    def integers(self, values: object) -> str:
        """A constant vector of int64, the form of shapes and axes in ONNX."""
        return self.builder.constant(np.array(values, np.int64))


def axis_in(axis: int, rank: int, channels_first: bool) -> int:
    """Position of an axis of the graph's tensor in a value that may have its channels first."""
    if not channels_first or axis == 0:
        return axis
    return 1 if axis == rank - 1 else axis + 1
