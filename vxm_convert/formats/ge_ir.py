# SPDX-License-Identifier: Apache-2.0
"""The model inside an `.om`: ge.proto.ModelDef, as plain Python objects.

Field numbers of `Ascend/metadef: proto/ge_ir.proto` (Apache-2.0). Constants refer to the WEIGHTS_DATA partition by
offset and size; such numbers are checked against the partition before anything is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np
from google.protobuf.message import Message

from vxm_convert.errors import FormatError
from vxm_convert.formats.protobuf import build_messages, parse

_ATTR = (10, "attr", "AttrEntry*")
_MESSAGES = build_messages(
    "ge.proto",
    {
        "ModelDef": [
            (1, "name", "string"),
            (2, "version", "uint32"),
            (3, "custom_version", "string"),
            (7, "graph", "GraphDef*"),
            (11, "attr", "AttrEntry*"),
        ],
        "GraphDef": [
            (1, "name", "string"),
            (4, "input", "string*"),
            (5, "output", "string*"),
            (6, "op", "OpDef*"),
            (11, "attr", "AttrEntry*"),
        ],
        "OpDef": [
            (1, "name", "string"),
            (2, "type", "string"),
            (5, "input", "string*"),
            _ATTR,
            (20, "has_out_attr", "bool"),
            (21, "id", "int64"),
            (22, "stream_id", "int64"),
            (23, "input_name", "string*"),
            (24, "src_name", "string*"),
            (25, "src_index", "int64*"),
            (26, "dst_name", "string*"),
            (27, "dst_index", "int64*"),
            (28, "input_i", "int64*"),
            (29, "output_i", "int64*"),
            (30, "workspace", "int64*"),
            (31, "workspace_bytes", "int64*"),
            (32, "is_input_const", "bool*"),
            (33, "input_desc", "TensorDescriptor*"),
            (34, "output_desc", "TensorDescriptor*"),
            (35, "subgraph_name", "string*"),
        ],
        "TensorDescriptor": [
            (1, "name", "string"),
            (2, "dtype", "int32"),
            (3, "shape", "ShapeDef"),
            (4, "layout", "string"),
            (5, "attr", "AttrEntry*"),
            (9, "has_out_attr", "bool"),
            (10, "size", "int64"),
            (11, "weight_size", "int64"),
            (14, "device_type", "string"),
            (15, "input_tensor", "bool"),
            (16, "real_dim_cnt", "int64"),
            (18, "data_offset", "int64"),
        ],
        "ShapeDef": [(1, "dim", "int64*")],
        "TensorDef": [(1, "desc", "TensorDescriptor"), (2, "data", "bytes")],
        "AttrEntry": [(1, "key", "string"), (2, "value", "AttrDef")],
        "AttrDef": [
            (1, "list", "ListValue"),
            (2, "s", "bytes"),
            (3, "i", "int64"),
            (4, "f", "float"),
            (5, "b", "bool"),
            (7, "bt", "bytes"),
            (12, "t", "TensorDef"),
            (15, "dt", "int32"),
        ],
        "ListValue": [
            (2, "s", "bytes*"),
            (3, "i", "int64*"),
            (4, "f", "float*"),
            (5, "b", "bool*"),
            (7, "bt", "bytes*"),
            (20, "val_type", "int32"),
        ],
    },
)

# ge.proto.DataType; the acl enum numbers the same types differently.
DTYPE_NUMBERS = {
    "float32": 1,
    "float16": 2,
    "int8": 3,
    "uint8": 4,
    "int16": 5,
    "uint16": 6,
    "int32": 7,
    "int64": 8,
    "uint32": 9,
    "uint64": 10,
    "bool": 11,
    "float64": 12,
}
_DTYPE_NAMES = {number: name for name, number in DTYPE_NUMBERS.items()}
#: types of real files that NumPy does not have
_FOREIGN_NAMES = {27: "bfloat16"}
_FOREIGN_BYTES = {"bfloat16": 2}
_LIST_TYPES = {str: 1, int: 2, float: 3, bool: 4}
MAX_RANK = 8
#: attribute of a simulated operator: its results are at least this
LEAST_RESULT = "vxm_least_result"
#: a real file may hold tensors of any rank that the runtime has (ACL_MAX_DIM_CNT), and sides of -1 and -2
_MAX_REAL_RANK = 128
_LEAST_REAL_SIDE = -2
_SIDES = {True: "non-negative sides", False: f"sides of {_LEAST_REAL_SIDE} or more"}
#: number of the type of an operand that is not there
_NO_DTYPE = 0


_ITEM_BYTES = {**{name: int(np.dtype(name).itemsize) for name in DTYPE_NUMBERS}, **_FOREIGN_BYTES}


@dataclass(frozen=True)
class Desc:
    """A tensor on an edge: storage dtype, shape and layout, and the tensor of the original graph.

    `origin_shape` and `origin_layout` differ from `shape` and `layout` if the device stores the tensor in blocks.
    """

    dtype: str
    shape: Tuple[int, ...]
    layout: str = "ND"
    origin_shape: Tuple[int, ...] = ()
    origin_layout: str = ""
    #: name of the tensor in the framework's graph, if the compiler fused or renamed it
    origin_name: str = ""

    @property
    def count(self) -> int:
        total = 1
        for side in self.shape:
            total *= side
        return total

    @property
    def nbytes(self) -> int:
        """Bytes; 0 for a type of a real file whose size is not known."""
        if self.dtype in _ITEM_BYTES:
            return self.count * _ITEM_BYTES[self.dtype]
        return 0

    @property
    def logical_shape(self) -> Tuple[int, ...]:
        """The shape in the framework's graph."""
        return self.origin_shape if self.origin_layout else self.shape

    @property
    def logical_layout(self) -> str:
        return self.origin_layout or self.layout


@dataclass
class Op:
    """One node of the compiled graph. `inputs` are ``node:index``; `data` is a Const's value in storage form."""

    name: str
    type: str
    inputs: List[str] = field(default_factory=list)
    attrs: Dict[str, Any] = field(default_factory=dict)
    input_descs: List[Desc] = field(default_factory=list)
    output_descs: List[Desc] = field(default_factory=list)
    data: Optional[np.ndarray] = None
    #: names of the graphs among which a control-flow node chooses
    subgraphs: List[str] = field(default_factory=list)

    @property
    def value(self) -> np.ndarray:
        """The value of a Const; raises TypeError for a node that holds none."""
        if self.data is None:
            raise TypeError(f"{self.name}: a {self.type} holds no value")
        return self.data


@dataclass
class Model:
    """Graph, attributes and constants of one offline model; `branches` are the graphs that a Case node runs."""

    name: str
    ops: List[Op]
    attrs: Dict[str, Any]
    custom_version: str = ""
    branches: Dict[str, List[Op]] = field(default_factory=dict)

    def all_ops(self) -> List[Op]:
        """Nodes of every graph; names are unique among them."""
        return self.ops + [op for ops in self.branches.values() for op in ops]


def padded_size(nbytes: int) -> int:
    """Bytes the device reserves for a tensor: rounded up to 32, plus 32, as in real files."""
    return -(-nbytes // 32) * 32 + 32


# --- writing ---------------------------------------------------------------------------------------------------------


def encode_model(model: Model, weight_offsets: Dict[str, int]) -> bytes:
    """Serialise; `weight_offsets` maps each Const to its place in WEIGHTS_DATA."""
    message = _MESSAGES["ModelDef"](name=model.name, version=2, custom_version=model.custom_version)
    _put_attrs(message, model.attrs)
    for name, ops in [(model.name + "_0", model.ops)] + list(model.branches.items()):
        graph = message.graph.add(name=name)
        consumers = _consumers(ops)
        for number, op in enumerate(ops):
            _encode_op(graph.op.add(), op, number, weight_offsets, consumers)
    return bytes(message.SerializeToString(deterministic=True))


def _consumers(ops: List[Op]) -> Dict[str, List[Tuple[str, int]]]:
    found: Dict[str, List[Tuple[str, int]]] = {op.name: [] for op in ops}
    for op in ops:
        for position, source in enumerate(op.inputs):
            found[source.rpartition(":")[0]].append((op.name, position))
    return found


def _encode_op(
    message: Message, op: Op, number: int, offsets: Dict[str, int], consumers: Dict[str, List[Tuple[str, int]]]
) -> None:
    message.name, message.type, message.id, message.stream_id, message.has_out_attr = op.name, op.type, number, 0, True
    message.input.extend(op.inputs)
    message.subgraph_name.extend(op.subgraphs)
    for source in op.inputs:
        name, _, index = source.rpartition(":")
        message.src_name.append(name)
        message.src_index.append(int(index))
        message.is_input_const.append(name in offsets)
    for name, position in consumers[op.name]:
        message.dst_name.append(name)
        message.dst_index.append(position)
    _put_attrs(message, op.attrs)
    for source, desc in zip(op.inputs, op.input_descs):
        _encode_desc(message.input_desc.add(), desc, offsets.get(source.rpartition(":")[0]))
    for desc in op.output_descs:
        _encode_desc(message.output_desc.add(), desc, offsets.get(op.name))
    if op.data is not None:
        value = message.attr.add(key="value").value.t
        _encode_desc(value.desc, op.output_descs[0], offsets.get(op.name))
        if op.name not in offsets:
            value.data = np.ascontiguousarray(op.data).tobytes()


def _encode_desc(message: Message, desc: Desc, data_offset: Optional[int]) -> None:
    message.dtype, message.layout, message.has_out_attr, message.device_type = (
        DTYPE_NUMBERS[desc.dtype],
        desc.layout,
        True,
        "NPU",
    )
    message.shape.dim.extend(desc.shape)
    message.size, message.real_dim_cnt = padded_size(desc.nbytes), len(desc.shape)
    if data_offset is not None:
        message.data_offset, message.weight_size = data_offset, desc.nbytes
    attrs: Dict[str, Any] = {
        "origin_shape": list(desc.logical_shape),
        "origin_format": desc.logical_layout,
        "origin_shape_initialized": True,
    }
    if desc.origin_name:
        node, _, index = desc.origin_name.rpartition(":")
        attrs.update(
            _datadump_origin_name=node,
            _datadump_origin_output_index=int(index),
            _datadump_origin_format=desc.logical_layout,
        )
    _put_attrs(message, attrs)


def _put_attrs(message: Message, attrs: Dict[str, Any]) -> None:
    for key in sorted(attrs):
        _put_value(message.attr.add(key=key).value, attrs[key])


def _put_value(message: Message, value: object) -> None:
    if isinstance(value, bool):
        message.b = value
    elif isinstance(value, int):
        message.i = value
    elif isinstance(value, float):
        message.f = value
    elif isinstance(value, str):
        message.s = value.encode("utf-8")
    elif isinstance(value, bytes):
        message.bt = value
    elif isinstance(value, (list, tuple)):
        _put_list(message.list, list(value))
    else:
        raise TypeError(f"an attribute cannot be a {type(value).__name__}")


def _put_list(message: Message, values: List[Any]) -> None:
    kind = type(values[0]) if values else int
    message.val_type = _LIST_TYPES[kind]
    if kind is str:
        message.s.extend(v.encode("utf-8") for v in values)
    elif kind is bool:
        message.b.extend(values)
    elif kind is float:
        message.f.extend(values)
    else:
        message.i.extend(values)


# --- reading ---------------------------------------------------------------------------------------------------------


def decode_model(data: bytes, weights: bytes, where: str, strict: bool = True) -> Model:
    """Parse a MODEL_DEF partition against its WEIGHTS_DATA.

    Parameters
    ----------
    strict : bool — the rules of our own files. Files of the real ATC (False) differ in ways that mean no damage: an
        absent operand is written as input "" with data type 0; a Data node has a descriptor of an input that it does not
        have; where GE removed a Reshape, the ends of an edge differ in shape; types may be unknown here; a NetOutput has
        descriptors of its inputs only (GE: `model_serialize.cc`).

    Raises
    ------
    FormatError
        For anything inconsistent.
    """
    message = parse_message(data, where)
    graphs = [[_decode_op(op, weights, where, strict) for op in graph.op] for graph in message.graph]
    branches = {graph.name: ops for graph, ops in zip(message.graph[1:], graphs[1:])}
    named = [name for ops in graphs for op in ops for name in op.subgraphs]
    # Every other graph has a unique name, and one node runs it.
    if not graphs or len(branches) != len(graphs) - 1 or (strict and sorted(named) != sorted(branches)):
        listing = ", ".join(sorted(named)) or "none"
        raise FormatError(
            f"{where}: MODEL_DEF holds {len(graphs)} graphs, expected 1 and one for each branch of its nodes: {listing}"
        )
    for ops in graphs:
        _check_names(ops, where)
        if strict:
            _check_edges(ops, where)
        else:
            _check_sources(ops, where)
    return Model(message.name, graphs[0], _get_attrs(message.attr, where, strict), message.custom_version, branches)


def parse_message(data: bytes, where: str) -> Message:
    """The ModelDef message itself; only its encoding is checked."""
    return parse(_MESSAGES["ModelDef"], data, where)


def message_attrs(message: Message, where: str) -> Dict[str, Any]:
    """Attributes of a ModelDef or OpDef message."""
    return _get_attrs(message.attr, where, strict=False)


def _decode_op(message: Message, weights: bytes, where: str, strict: bool) -> Op:
    inputs = list(message.input_desc)
    sources = [source for source in message.input if not source.endswith(":-1")]
    if strict:
        sources = [source for source in sources if source]
    else:
        sources, inputs = _linked(sources, inputs)
    op = Op(
        message.name,
        message.type,
        sources,
        {},
        [_decode_desc(desc, where, strict) for desc in inputs],
        [_decode_desc(desc, where, strict) for desc in message.output_desc],
        subgraphs=[name for name in message.subgraph_name if name],
    )
    plain = []
    for entry in message.attr:
        if entry.key == "value" and entry.value.HasField("t"):
            op.data = _decode_const(entry.value.t, weights, f"{where}: constant {message.name!r}", strict)
        else:
            plain.append(entry)
    op.attrs = _get_attrs(plain, where, strict)
    if strict and op.data is not None:
        outputs = op.output_descs
        if len(outputs) != 1 or outputs[0].shape != op.data.shape or outputs[0].dtype != op.data.dtype.name:
            raise FormatError(f"{where}: constant {op.name!r} and its output descriptor disagree")
    return op


def _linked(sources: List[str], descs: List[Message]) -> Tuple[List[str], List[Message]]:
    """Operands that are there, with their descriptors: both lists have an entry per operand, or only the descriptors
    have.
    """
    if len(sources) == len(descs):
        pairs = [(source, desc) for source, desc in zip(sources, descs) if source]
    else:
        pairs = list(zip([s for s in sources if s], [desc for desc in descs if desc.dtype != _NO_DTYPE]))
    return [source for source, _ in pairs], [desc for _, desc in pairs]


def _decode_const(tensor: Message, weights: bytes, where: str, strict: bool) -> np.ndarray:
    desc = _decode_desc(tensor.desc, where, strict)
    offset, size = tensor.desc.data_offset, tensor.desc.weight_size
    source = weights
    if tensor.data:
        source, offset, size = tensor.data, 0, len(tensor.data)
    known = desc.dtype in DTYPE_NUMBERS
    # A type without a NumPy equivalent is kept as its bytes.
    expected = desc.nbytes if known or desc.dtype in _FOREIGN_BYTES else size
    if size != expected or offset < 0 or size < 0 or offset + size > len(source):
        raise FormatError(
            f"{where}: {size} bytes at {offset} do not hold {desc.dtype} {desc.shape} inside {len(source)} bytes of "
            "weights"
        )
    if not size and strict:
        raise FormatError(f"{where}: contains no bytes, shape {desc.shape}")
    if not known:
        return np.frombuffer(source, np.uint8, size, offset)
    if not size:
        return np.zeros(desc.shape, desc.dtype)
    return np.frombuffer(source, desc.dtype, desc.count, offset).reshape(desc.shape)


def _dtype_name(number: int, where: str, strict: bool) -> str:
    if number in _DTYPE_NAMES:
        return _DTYPE_NAMES[number]
    if strict:
        raise FormatError(f"{where}: a tensor has data type {number}, expected one of {sorted(_DTYPE_NAMES)}")
    return _FOREIGN_NAMES.get(number, f"type {number}")


def _decode_desc(message: Message, where: str, strict: bool) -> Desc:
    dtype = _dtype_name(message.dtype, where, strict)
    shape = tuple(message.shape.dim)
    attrs = {entry.key: entry.value for entry in message.attr}
    origin_shape = tuple(attrs["origin_shape"].list.i) if "origin_shape" in attrs else shape
    origin_layout = attrs["origin_format"].s.decode("ascii", "replace") if "origin_format" in attrs else message.layout
    most, least = (MAX_RANK, 0) if strict else (_MAX_REAL_RANK, _LEAST_REAL_SIDE)
    for sides in (shape, origin_shape):
        if len(sides) > most or any(side < least for side in sides):
            raise FormatError(f"{where}: a tensor has shape {sides}, expected at most {most} {_SIDES[strict]}")
    name = ""
    if "_datadump_origin_name" in attrs:
        index = attrs["_datadump_origin_output_index"].i if "_datadump_origin_output_index" in attrs else 0
        name = f"{attrs['_datadump_origin_name'].s.decode('utf-8', 'replace')}:{index}"
    if (origin_shape, origin_layout) == (shape, message.layout):
        return Desc(dtype, shape, message.layout, origin_name=name)
    return Desc(dtype, shape, message.layout, origin_shape, origin_layout, name)


def _get_attrs(entries: Iterable[Message], where: str, strict: bool) -> Dict[str, Any]:
    attrs: Dict[str, Any] = {}
    errors = "strict" if strict else "backslashreplace"
    for entry in entries:
        value = entry.value
        try:
            if value.HasField("list"):
                attrs[entry.key] = _get_list(value.list, errors)
            elif value.HasField("s"):
                attrs[entry.key] = value.s.decode("utf-8", errors)
            else:
                present = [name for name in ("i", "f", "b", "bt", "dt") if value.HasField(name)]
                attrs[entry.key] = getattr(value, present[0]) if present else None
        except UnicodeDecodeError as exc:
            raise FormatError(f"{where}: attribute {entry.key!r} is not UTF-8") from exc
    return attrs


def _get_list(values: Message, errors: str) -> List[Any]:
    if values.s:
        return [s.decode("utf-8", errors) for s in values.s]
    return list(values.i) or list(values.f) or list(values.b) or list(values.bt)


def _check_names(ops: List[Op], where: str) -> None:
    names = set()
    for op in ops:
        if op.name in names:
            raise FormatError(f"{where}: two nodes are named {op.name!r}")
        names.add(op.name)


def _check_sources(ops: List[Op], where: str) -> None:
    """Check that every input names a node of the graph: all that holds for files of the real ATC."""
    names = {op.name for op in ops}
    for op in ops:
        for source in op.inputs:
            if source.rpartition(":")[0] not in names:
                raise FormatError(f"{where}: input {source!r} of {op.name!r} is the output of no node")


def _check_edges(ops: List[Op], where: str) -> None:
    """Check that every input names an output of an earlier op with the same dtype and shape."""
    known: Dict[str, Desc] = {}
    for op in ops:
        if len(op.inputs) != len(op.input_descs):
            raise FormatError(
                f"{where}: node {op.name!r} has {len(op.inputs)} inputs but {len(op.input_descs)} input descriptors"
            )
        for source, desc in zip(op.inputs, op.input_descs):
            produced = known.get(source)
            if produced is None or (produced.dtype, produced.shape) != (desc.dtype, desc.shape):
                raise FormatError(
                    f"{where}: input {source!r} of {op.name!r} does not agree with the output of an earlier node: "
                    f"{produced}"
                )
        for index, desc in enumerate(op.output_descs):
            known[f"{op.name}:{index}"] = desc
