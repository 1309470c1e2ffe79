# SPDX-License-Identifier: Apache-2.0
"""Descriptions of graphs for `inspect`: frozen pb, ONNX, offline model, and the dumps of an offline model's operators."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, List, Optional, Tuple, Union

import numpy as np
from google.protobuf.message import Message

from vxm_convert.errors import FormatError, ToolchainError
from vxm_convert.inspection.description import Description, OpLine

MAX_ONNX_BYTES = (1 << 31) - 1
_MAX_TEXT = 160
_DTYPE_KEYS = ("DstT", "dtype", "Tparams", "T")
#: attributes of an offline model with their labels
_SHOWN = (
    "atc_version",
    "opp_version",
    "soc_version",
    "memory_size",
    "zero_copy_memory_size",
    "weight_size",
    "om_info_list",
    "atc_cmdline",
)


def describe_om(path: Path) -> Description:
    """A real or simulated offline model."""
    from vxm_convert.formats.om import read_om

    model = read_om(path)
    kind = (
        "SIMULATED offline model (made by the simulated atc; no device loads it)"
        if model.simulated
        else "offline model"
    )
    attrs = model.attrs
    facts = [("name", model.name), ("device", model.soc_version or "not said")]
    gears = model.gears
    declared = gears.declared if gears else {}
    facts += [
        ("input", f"{op.name} {_desc_text(desc, declared.get(op.name))}")
        for op in model.graph
        if op.type == "Data"
        for desc in op.output_descs
    ]
    names = [str(name) for name in _listed(attrs.get("attr_model_out_nodes_name"))]
    last = [desc for op in model.graph if op.type == "NetOutput" for desc in op.input_descs]
    facts += [
        ("output", f"{name} {_desc_text(desc)}")
        for name, desc in zip(names or [f"output {n}" for n in range(len(last))], last)
    ]
    facts += [("gears", gears.text)] if gears else []
    facts += [("memory", f"weights {len(model.weights)}, work {attrs.get('memory_size', 'not said')} bytes")]
    facts += [("parts", ", ".join(f"{name} {size}" for name, size in model.partitions))]
    facts += [
        (
            "version",
            f"atc {attrs.get('atc_version', 'not said')}, opp {attrs.get('opp_version', 'not said')}, "
            f"platform {model.platform_version or 'not said'}",
        )
    ]
    facts += [("command", str(attrs["atc_cmdline"]))] if attrs.get("atc_cmdline") else []
    facts += [("attribute", f"{key} = {_short(value)}") for key, value in sorted(attrs.items()) if key not in _SHOWN]
    ops = tuple(
        OpLine(
            op.name,
            op.type,
            tuple(d.dtype for d in op.input_descs),
            tuple(d.dtype for d in op.output_descs),
            tuple(d.logical_shape for d in op.output_descs),
        )
        for op in model.model.all_ops()
    )
    return Description(kind, tuple(facts), ops)


def _listed(value: object) -> Tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else ()


def _desc_text(desc: Message, shape: Optional[Tuple[int, ...]] = None) -> str:
    """`shape` is that of an input, with -1 for sides that a gear sets."""
    return f"{desc.dtype} {list(desc.logical_shape if shape is None else shape)} {desc.logical_layout}"


def describe_pb(path: Path) -> Description:
    """A frozen TensorFlow graph."""
    from vxm_convert.formats.tf_graph import placeholders, read_graph

    nodes = read_graph(path)
    used = {name.split(":")[0].lstrip("^") for node in nodes for name in node.inputs}
    facts = [
        ("input", f"{name} {dtype} {list(shape) if shape is not None else 'of unknown rank'}")
        for name, (dtype, shape) in placeholders(nodes).items()
    ]
    facts += [("output", node.name) for node in nodes if node.name not in used]
    sizes = [
        node.attrs["value"].nbytes
        for node in nodes
        if node.op == "Const" and hasattr(node.attrs.get("value"), "nbytes")
    ]
    facts.append(("memory", f"constants {sum(sizes)} bytes"))
    ops = []
    for node in nodes:
        dtype = next((node.attrs[key] for key in _DTYPE_KEYS if isinstance(node.attrs.get(key), str)), None)
        value = node.attrs.get("value") if node.op == "Const" else None
        shape = (
            value.shape
            if isinstance(value, np.ndarray)
            else node.attrs.get("shape")
            if node.op == "Placeholder"
            else None
        )
        ops.append(
            OpLine(node.name, node.op, (), (dtype,) if dtype else (), (tuple(shape),) if shape is not None else ())
        )
    return Description("frozen TensorFlow graph", tuple(facts), tuple(ops))


def describe_onnx(path: Path) -> Description:
    """An ONNX model in one file; raises ToolchainError if the onnx package is missing."""
    try:
        import onnx
    except ImportError as exc:
        raise ToolchainError(
            f"{path}: reading ONNX needs the package onnx, which is not installed; run `make setup`"
        ) from exc
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_ONNX_BYTES:
        raise FormatError(f"{path}: larger than 2 GiB, expected a single-file ONNX model")
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise FormatError(f"{path}: contains no ONNX graph; export it again")
        return _onnx_description(onnx, model)
    # Besides protobuf's own error, damaged bytes give texts that are no UTF-8 and numbers that no type has.
    except (DecodeError, ValueError, TypeError, RuntimeError, RecursionError) as exc:
        raise FormatError(f"{path}: not an ONNX model ({exc!s:.200}); export it again") from exc


def _onnx_description(onnx: ModuleType, model: Any) -> Description:
    opsets = ", ".join(f"{_text(o.domain) or 'ai.onnx'} {o.version}" for o in model.opset_import)
    facts = [
        ("opset", opsets),
        ("made by", f"{_text(model.producer_name)} {_text(model.producer_version)}".strip() or "not said"),
    ]
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        facts += [(kind, _value_text(onnx, value)) for value in values]
    facts.append(("memory", f"constants {sum(len(t.SerializeToString()) for t in model.graph.initializer)} bytes"))
    return Description(
        "ONNX model", tuple(facts), tuple(OpLine(_text(node.name), _text(node.op_type)) for node in model.graph.node)
    )


def _value_text(onnx: ModuleType, value: Message) -> str:
    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{_text(value.name)} {[d.dim_value or _text(d.dim_param) for d in tensor.shape.dim]} {dtype}"


def _text(value: Union[str, bytes]) -> str:
    """A text field; protobuf gives the bytes of one that is no UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def describe_dump(path: Path) -> Description:
    """The dump of one operator's tensors."""
    from vxm_convert.formats.dump import parse_dump_name, read_dump

    dump, name = read_dump(path), parse_dump_name(path.name)
    facts: List[Tuple[str, str]] = [
        ("operator", f"{dump.op_name} ({name.op_type})"),
        ("time", f"{dump.dump_time} us since 1970"),
    ]
    for kind, tensors in (("input", dump.inputs), ("output", dump.outputs)):
        facts += [
            (kind, f"{tensor.data.dtype} {list(tensor.data.shape)}, originally {list(tensor.original_shape)}")
            for tensor in tensors
        ]
    return Description("dump of an operator", tuple(facts))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
