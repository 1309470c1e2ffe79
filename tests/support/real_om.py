# SPDX-License-Identifier: Apache-2.0
"""An offline model as the real ATC writes it, made up: the peculiarities of its files, and no device code.

From GE's `model_serialize.cc` and public files: absent operands, descriptors of inputs that do not exist, edges whose
ends differ in shape, a NetOutput without output descriptors, unknown types.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.formats import ge_ir, om
from vxm_convert.formats.ge_ir import DTYPE_NUMBERS

BFLOAT16 = 27


def _desc(message: Any, dtype: int, shape: Sequence[int], layout: str = "ND", offset: int = -1, size: int = 0) -> None:
    message.dtype, message.layout = dtype, layout
    message.shape.dim.extend(shape)
    if offset >= 0:
        message.data_offset, message.weight_size = offset, size


class RealOm:
    """A model that grows node by node.

    Parameters
    ----------
    name, soc : str — recorded in the file.
    """

    def __init__(self, name: str = "vxm", soc: str = "Ascend310") -> None:
        self.message = ge_ir._MESSAGES["ModelDef"](name=name, version=2, custom_version="1.11.z.0")
        self.graph = self.message.graph.add(name=f"{name}_0")
        self.weights = b""
        self.kernels = struct.pack("<III", om.KERNEL_MAGIC, 4, 8) + b"te_0" + b"\x7fELF\x02\x01\x01\x00"
        for key, value in {"soc_version": soc, "atc_version": "5.0.4", "framework_type": "TensorFlow"}.items():
            self.attr(key, value)

    def attr(self, key: str, value: Any) -> None:
        ge_ir._put_value(self.message.attr.add(key=key).value, value)

    def data(self, name: str, shape: Sequence[int]) -> None:
        """An input: one operand "" and one descriptor of it."""
        op = self.graph.op.add(name=name, type="Data")
        op.input.append("")
        _desc(op.input_desc.add(), DTYPE_NUMBERS["float32"], shape)
        _desc(op.output_desc.add(), DTYPE_NUMBERS["float32"], shape)

    def const(self, name: str, value: np.ndarray, dtype: int = 0) -> None:
        op = self.graph.op.add(name=name, type="Const")
        number = dtype or DTYPE_NUMBERS[value.dtype.name]
        raw = value.tobytes()
        for desc in (op.output_desc.add(), op.attr.add(key="value").value.t.desc):
            _desc(desc, number, value.shape, offset=len(self.weights), size=len(raw))
        self.weights += raw + bytes(-len(raw) % om.WEIGHT_ALIGNMENT)

    def op(
        self,
        type_: str,
        name: str,
        inputs: Sequence[Tuple[str, int, Sequence[int]]],
        outputs: Sequence[Tuple[int, Sequence[int]]],
        control: Optional[str] = None,
    ) -> None:
        """An operator; an input is (source, dtype, shape), absent with source ""."""
        op = self.graph.op.add(name=name, type=type_)
        for source, dtype, shape in inputs:
            op.input.append(source)
            _desc(op.input_desc.add(), dtype, shape, "FORMAT_RESERVED" if not dtype else "ND")
        if control:
            op.input.append(f"{control}:-1")
        for dtype, shape in outputs:
            _desc(op.output_desc.add(), dtype, shape)

    def save(
        self, path: Path, header: Optional[Dict[str, int]] = None, extra: Sequence[Tuple[int, bytes]] = ()
    ) -> Path:
        """Write the file; `header` changes fields, `extra` adds partitions."""
        body = self.message.SerializeToString(deterministic=True)
        partitions: List[Tuple[int, bytes]] = [
            (om.MODEL_DEF, body),
            (om.WEIGHTS_DATA, self.weights),
            (om.TBE_KERNELS, self.kernels),
            (om.TASK_INFO, b""),
        ]
        partitions += list(extra)
        payload = om._encode_table(partitions) + b"".join(data for _, data in partitions)
        fields = np.frombuffer(om._encode_header(self.message.name, len(payload), "1.11.z.0"), om.HEADER).copy()
        fields["is_checksum"] = 0
        for key, value in (header or {}).items():
            fields[key] = value
        path.write_bytes(fields.tobytes() + payload)
        return path


FLOAT, HALF = DTYPE_NUMBERS["float32"], DTYPE_NUMBERS["float16"]


def small_model(soc: str = "Ascend310") -> RealOm:
    """x → Cast → (a removed Reshape) → TransData → Conv3D without offset_w → Cast → NetOutput."""
    made = RealOm(soc=soc)
    made.data("x", (2, 8))
    made.const("dynamic_const_1", np.arange(16, dtype=np.float16).reshape(1, 1, 1, 4, 4))
    made.const("dynamic_const_2", np.zeros(4, np.uint16), dtype=BFLOAT16)
    made.op("Cast", "trans_Cast_0", [("x:0", FLOAT, (2, 8))], [(HALF, (2, 8))])
    made.op(
        "TransData", "trans_TransData_1", [("trans_Cast_0:0", HALF, (1, 2, 2, 1, 4))], [(HALF, (1, 2, 1, 2, 1, 16))]
    )
    made.op(
        "Conv3D",
        "conv",
        [
            ("trans_TransData_1:0", HALF, (1, 2, 1, 2, 1, 16)),
            ("dynamic_const_1:0", HALF, (1, 1, 1, 4, 4)),
            ("dynamic_const_2:0", BFLOAT16, (4,)),
            ("", 0, ()),
        ],
        [(HALF, (1, 2, 1, 2, 1, 16))],
        control="x",
    )
    made.op("Cast", "trans_Cast_2", [("conv:0", HALF, (1, 2, 2, 1, 4))], [(FLOAT, (1, 2, 2, 1, 4))])
    made.op("NetOutput", "Node_Output", [("trans_Cast_2:0", FLOAT, (1, 2, 2, 1, 4))], [])
    made.attr("attr_model_out_nodes_name", ["conv:0"])
    return made
