# SPDX-License-Identifier: Apache-2.0
"""A small ONNX graph builder: unique names, constants, and the arithmetic that rounds to fp16."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.sim.numerics import rounding_constants

OPSET = 15
#: Newest IR that ONNX Runtime 1.10 reads, the last one for Python 3.7 with TensorFlow 1.15.
IR_VERSION = 8
_HUGE = 1e30
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


class OnnxBuilder:
    """Collects nodes and constants. fp16 tensors of the device are fp32 tensors here, with values on the fp16 grid."""

    def __init__(self, rounding: bool = True) -> None:
        self._rounding = rounding
        self.nodes: List[Any] = []
        self.initializers: List[Any] = []
        self._constants: Dict[Tuple[str, Tuple[int, ...], bytes], str] = {}
        self._count = 0
        #: the device's operator that is being lowered, and tensor → the operator that it was made for
        self.owner = ""
        self.owners: Dict[str, str] = {}

    def node(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> List[str]:
        """Append a node; returns the names of its outputs."""
        names = [self._fresh(kind) for _ in range(outputs)]
        self.owners.update((name, self.owner) for name in names)
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names

    def one(self, kind: str, *inputs: str, **attrs: Any) -> str:
        """A node with a single output."""
        return self.node(kind, inputs, **attrs)[0]

    def constant(self, value: np.ndarray) -> str:
        """An initializer, shared between equal values; half becomes float."""
        array = np.ascontiguousarray(value, np.float32 if value.dtype == np.float16 else value.dtype).reshape(
            value.shape
        )
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._fresh("const")
            self.initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def round_half(self, value: str) -> str:
        """fp32 → nearest fp16 value, saturating; see `numerics.rounding_constants` for the proof.

        Every inference engine tried removes plain Cast pairs and thereby the rounding. If rounding is switched off for
        a measurement, the value itself.
        """
        if not self._rounding:
            return value
        factor, floor = rounding_constants()
        clipped = self.one("Clip", value, self.scalar(-HALF_MAX), self.scalar(HALF_MAX))
        size = self.one("Max", self.one("Abs", clipped), self.scalar(floor))
        # sign(x): engines run Sign itself slowly and unfused. Below 1e-30 it is a fraction of 1, and x vanishes in s as
        # intended.
        sign = self.one("Clip", self.one("Mul", clipped, self.scalar(_HUGE)), self.scalar(-1.0), self.scalar(1.0))
        magnitude = self.one("Mul", self.one("Mul", size, self.scalar(factor)), sign)
        shifted = self.one("Add", clipped, magnitude)
        return self.one("Sub", shifted, self.one("Sub", shifted, clipped))

    def clear_nan(self, value: str) -> str:
        """NaN → 0, as the device converts it. For operators that can produce NaN; comparing x with itself would be
        optimised away.
        """
        return self.one("Where", self.one("IsNaN", value), self.scalar(0.0), value)

    def finish(
        self, inputs: Sequence[Tuple[str, str, Sequence[int]]], outputs: Sequence[Tuple[str, str, str, Sequence[int]]]
    ) -> bytes:
        """Serialised model; inputs are (name, dtype, shape), outputs (value, name, dtype, shape)."""
        for value, name, _, _ in outputs:
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        graph = helper.make_graph(
            self.nodes,
            "device",
            [helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)) for name, dtype, shape in inputs],
            [helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)) for _, name, dtype, shape in outputs],
            self.initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="vxm_convert simulated device"
        )
        model.ir_version = IR_VERSION
        return bytes(model.SerializeToString())

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem.lower()}_{self._count}"
