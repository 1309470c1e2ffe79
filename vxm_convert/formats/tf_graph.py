# SPDX-License-Identifier: Apache-2.0
"""Reads frozen TensorFlow graphs without TensorFlow: nodes, attributes, constants.

The message tables restate the field numbers of `tensorflow/core/framework/{graph,node_def,attr_value,tensor,
tensor_shape,types,function,op_def}.proto` (TensorFlow 1.15). Of a function library, only the executable parts are read:
arguments, nodes, results; not gradients and attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np
from google.protobuf.message import Message

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import FormatError
from vxm_convert.formats.protobuf import build_messages, parse
from vxm_convert.text import whole_in

#: A protobuf cannot be larger, and neither can a frozen graph.
MAX_PB_BYTES = (1 << 31) - 1

_MESSAGES = build_messages(
    "vxm.tensorflow",
    {
        "GraphDef": [(1, "node", "NodeDef*"), (2, "library", "FunctionDefLibrary"), (4, "versions", "VersionDef")],
        "FunctionDefLibrary": [(1, "function", "FunctionDef*")],
        "FunctionDef": [(1, "signature", "OpDef"), (3, "node_def", "NodeDef*"), (4, "ret", "RetEntry*")],
        "RetEntry": [(1, "key", "string"), (2, "value", "string")],
        "OpDef": [(1, "name", "string"), (2, "input_arg", "ArgDef*"), (3, "output_arg", "ArgDef*")],
        "ArgDef": [(1, "name", "string")],
        "NameAttrList": [(1, "name", "string")],
        "VersionDef": [(1, "producer", "int32"), (2, "min_consumer", "int32")],
        "NodeDef": [
            (1, "name", "string"),
            (2, "op", "string"),
            (3, "input", "string*"),
            (4, "device", "string"),
            (5, "attr", "AttrEntry*"),
        ],
        "AttrEntry": [(1, "key", "string"), (2, "value", "AttrValue")],
        "AttrValue": [
            (1, "list", "ListValue"),
            (2, "s", "bytes"),
            (3, "i", "int64"),
            (4, "f", "float"),
            (5, "b", "bool"),
            (6, "type", "int32"),
            (7, "shape", "TensorShapeProto"),
            (8, "tensor", "TensorProto"),
            (10, "func", "NameAttrList"),
        ],
        "ListValue": [
            (2, "s", "bytes*"),
            (3, "i", "int64*"),
            (4, "f", "float*"),
            (5, "b", "bool*"),
            (6, "type", "int32*"),
            (9, "func", "NameAttrList*"),
        ],
        "TensorShapeProto": [(2, "dim", "Dim*"), (3, "unknown_rank", "bool")],
        "Dim": [(1, "size", "int64"), (2, "name", "string")],
        "TensorProto": [
            (1, "dtype", "int32"),
            (2, "tensor_shape", "TensorShapeProto"),
            (4, "tensor_content", "bytes"),
            (5, "float_val", "float*"),
            (6, "double_val", "double*"),
            (7, "int_val", "int32*"),
            (10, "int64_val", "int64*"),
            (11, "bool_val", "bool*"),
            (13, "half_val", "int32*"),
        ],
    },
)

#: DataType numbers of `types.proto` that have a NumPy counterpart.
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_VALUE_FIELD = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "float16": "half_val",
}


@dataclass(frozen=True)
class TfNode:
    """One node: `inputs` are ``name`` or ``name:index`` (``^name`` is a control edge); `attrs` are Python values."""

    name: str
    op: str
    inputs: Tuple[str, ...]
    attrs: Dict[str, Any]


@dataclass(frozen=True)
class TfFunction:
    """A function of the graph's library: the value of an attribute that names it.

    Inside, tensors are written as in a graph (``node`` or ``node:index``); `args` are names that nodes read like nodes.
    `missing`: it is not in the library.
    """

    name: str
    args: Tuple[str, ...] = ()
    nodes: Tuple[TfNode, ...] = ()
    returns: Tuple[str, ...] = ()
    missing: bool = False


def read_graph(path: Path) -> List[TfNode]:
    """Nodes of a binary frozen graph, in file order.

    Attribute values: dtypes become NumPy names, shapes tuples (None for unknown rank, -1 for an unknown side),
    tensors arrays, strings ``str``, functions `TfFunction`; lists become tuples.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    FormatError
        If it is not a GraphDef, is empty, is larger than 2 GiB, or has duplicate names.
    """
    graph = read_message(path)
    library = _Library(graph.library.function, str(path))
    nodes = [_decode_node(node, str(path), library) for node in graph.node]
    names = {node.name for node in nodes}
    if not nodes or not all(node.op for node in nodes):
        raise FormatError(f"{path}: contains no graph; expected a frozen TensorFlow GraphDef in binary form")
    if len(names) != len(nodes):
        raise FormatError(f"{path}: {len(nodes) - len(names)} node names appear twice; freeze the graph again")
    return nodes


def read_message(path: Path) -> Message:
    """The GraphDef message itself; only its encoding is checked. Raises as `read_graph` does."""
    data = read_bounded(Path(path), MAX_PB_BYTES, "the frozen graph", "export the model first")
    return parse(_MESSAGES["GraphDef"], data, str(path))


def new_message() -> Message:
    """An empty GraphDef message."""
    return _MESSAGES["GraphDef"]()


def placeholders(nodes: List[TfNode]) -> Dict[str, Tuple[str, Optional[Tuple[int, ...]]]]:
    """name → (dtype, shape) of every Placeholder, in file order."""
    return {n.name: (n.attrs.get("dtype", "?"), n.attrs.get("shape")) for n in nodes if n.op == "Placeholder"}


#: First index of an output with its own name in a function body; all others start at 0.
_OUTPUT_BASE = {
    "output_true": 1,
    "value_index": 1,
    "indices": 1,
    "argmax": 1,
    "flow": 1,
    "batch_mean": 1,
    "batch_variance": 2,
    "reserve_space_1": 3,
    "reserve_space_2": 4,
    "reserve_space_3": 5,
    "idx": 1,
}
#: Functions may call functions; deeper nesting than this is a damaged file.
_MAX_NESTING = 32


class _Library:
    """Functions by name, decoded when an attribute asks for them."""

    def __init__(self, functions: Iterable[Message], where: str) -> None:
        self.messages = {function.signature.name: function for function in functions}
        self.where = where
        self.made: Dict[str, TfFunction] = {}
        self.open: List[str] = []

    def get(self, name: str) -> TfFunction:
        if name in self.made or name not in self.messages:
            return self.made.get(name) or TfFunction(name, missing=True)
        if name in self.open or len(self.open) >= _MAX_NESTING:
            raise FormatError(
                f"{self.where}: function {name!r} calls itself, or {_MAX_NESTING} functions call each other in turn"
            )
        self.open.append(name)
        self.made[name] = self._decode(self.messages[name])
        self.open.pop()
        return self.made[name]

    def _decode(self, message: Message) -> TfFunction:
        where = f"{self.where}, function {message.signature.name!r}"
        nodes = [_decode_node(node, where, self) for node in message.node_def]
        nodes = [TfNode(n.name, n.op, tuple(_plain_tensor(text) for text in n.inputs), n.attrs) for n in nodes]
        args = tuple(arg.name for arg in message.signature.input_arg)
        names = [node.name for node in nodes] + list(args)
        if len(set(names)) != len(names):
            raise FormatError(f"{where}: names appear twice; freeze the graph again")
        returned = {entry.key: entry.value for entry in message.ret}
        missing = [arg.name for arg in message.signature.output_arg if arg.name not in returned]
        if missing:
            raise FormatError(f"{where}: does not define its results {', '.join(missing)}")
        returns = tuple(_plain_tensor(returned[arg.name]) for arg in message.signature.output_arg)
        return TfFunction(message.signature.name, args, tuple(nodes), returns)


def _plain_tensor(text: str) -> str:
    """``node:output:number`` of a function body → ``node:index``; arguments and control edges stay."""
    parts = text.split(":")
    number = whole_in(parts[2]) if len(parts) == 3 else None
    if number is None:
        return text
    return f"{parts[0]}:{_OUTPUT_BASE.get(parts[1], 0) + number}"


def _decode_node(node: Message, where: str, library: Optional[_Library] = None) -> TfNode:
    attrs = {}
    for entry in node.attr:
        try:
            attrs[entry.key] = _decode_value(entry.value, library or _Library((), where))
        except ValueError as exc:
            raise FormatError(f"{where}: node {node.name!r}, attribute {entry.key!r}: {exc}") from exc
    return TfNode(node.name, node.op, tuple(node.input), attrs)


def _decode_value(value: Message, library: _Library) -> Any:
    if value.HasField("tensor"):
        return decode_tensor(value.tensor)
    if value.HasField("shape"):
        return _decode_shape(value.shape)
    if value.HasField("type"):
        return DTYPES.get(value.type, f"DT_{value.type}")
    if value.HasField("s"):
        return value.s.decode("utf-8", "replace")
    if value.HasField("list"):
        return _decode_list(value.list, library)
    if value.HasField("func"):
        return library.get(value.func.name)
    for field in ("i", "f", "b"):
        if value.HasField(field):
            return getattr(value, field)
    return None


def _decode_list(values: Message, library: _Library) -> Tuple[Any, ...]:
    if values.s:
        return tuple(s.decode("utf-8", "replace") for s in values.s)
    if values.type:
        return tuple(DTYPES.get(t, f"DT_{t}") for t in values.type)
    if values.func:
        return tuple(library.get(function.name) for function in values.func)
    return tuple(values.i) or tuple(values.f) or tuple(values.b)


def _decode_shape(shape: Message) -> Optional[Tuple[int, ...]]:
    return None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)


def decode_tensor(tensor: Message) -> np.ndarray:
    """A TensorProto as an array; raises ValueError if content and shape disagree (checked before allocating)."""
    if tensor.dtype not in DTYPES:
        raise ValueError(f"dtype {tensor.dtype} of a constant has no NumPy counterpart")
    dtype = np.dtype(DTYPES[tensor.dtype])
    shape = _decode_shape(tensor.tensor_shape)
    if shape is None or any(n < 0 for n in shape):
        raise ValueError(f"constant of unknown shape {shape}")
    count = 1
    for side in shape:
        count *= side
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * dtype.itemsize:
            raise ValueError(f"constant of shape {shape} and dtype {dtype} holds {len(tensor.tensor_content)} bytes")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape).copy()
    return _from_values(list(getattr(tensor, _VALUE_FIELD.get(dtype.name, "int_val"))), dtype, shape, count)


def _from_values(values: List[Any], dtype: np.dtype, shape: Tuple[int, ...], count: int) -> np.ndarray:
    """TensorFlow's short form: fewer values than elements means that the last one repeats."""
    if not values:
        values = [0]
    if len(values) > max(count, 1):
        raise ValueError(f"constant of shape {shape} lists {len(values)} values")
    if count > 1 << 28:
        raise ValueError(f"constant of shape {shape} would repeat a value {count} times")
    flat = np.array(values, np.uint16).view(np.float16) if dtype == np.float16 else np.array(values, dtype)
    full = np.full(count, flat[-1], dtype)
    full[: min(len(values), count)] = flat[:count]
    return full.reshape(shape)
