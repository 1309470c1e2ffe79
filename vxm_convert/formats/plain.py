# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages as plain dictionaries, in the JSON shape that ATC's mode 1 writes: fields by name, enums as names,
no weights.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Mapping, Tuple

from google.protobuf.message import Message

Enums = Mapping[Tuple[str, str], Mapping[int, str]]

_GE_TYPES = (
    "DT_UNDEFINED DT_FLOAT DT_FLOAT16 DT_INT8 DT_UINT8 DT_INT16 DT_UINT16 DT_INT32 DT_INT64 DT_UINT32 DT_UINT64 "
    "DT_BOOL DT_DOUBLE "
    "DT_STRING"
).split()
_VALUE_TYPES = (
    "VT_LIST_NONE VT_LIST_STRING VT_LIST_INT VT_LIST_FLOAT VT_LIST_BOOL VT_LIST_BYTES VT_LIST_TENSOR_DESC "
    "VT_LIST_TENSOR "
    "VT_LIST_GRAPH VT_LIST_NAMED_ATTRS VT_LIST_DATA_TYPE"
).split()
#: (message, field) → number → name
GE_ENUMS: Enums = {
    ("TensorDescriptor", "dtype"): dict(enumerate(_GE_TYPES)),
    ("ListValue", "val_type"): dict(enumerate(_VALUE_TYPES)),
}
_TF_TYPES = {
    1: "DT_FLOAT",
    2: "DT_DOUBLE",
    3: "DT_INT32",
    4: "DT_UINT8",
    5: "DT_INT16",
    6: "DT_INT8",
    7: "DT_STRING",
    9: "DT_INT64",
    10: "DT_BOOL",
    17: "DT_UINT16",
    19: "DT_HALF",
    20: "DT_RESOURCE",
    21: "DT_VARIANT",
    22: "DT_UINT32",
    23: "DT_UINT64",
}
TF_ENUMS: Enums = {
    ("AttrValue", "type"): _TF_TYPES,
    ("ListValue", "type"): _TF_TYPES,
    ("TensorProto", "dtype"): _TF_TYPES,
}
#: fields with weights
GE_WEIGHTS = frozenset({"data"})
TF_WEIGHTS = frozenset({"tensor_content", "float_val", "double_val", "int_val", "int64_val", "bool_val", "half_val"})


def to_plain(message: Message, enums: Enums, left_out: FrozenSet[str]) -> Dict[str, Any]:
    """Set fields of `message`; bytes become text, undecodable ones with the replacement character."""
    kind = message.DESCRIPTOR.name
    result: Dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name in left_out:
            continue
        names = enums.get((kind, field.name), {})
        single = isinstance(value, (str, bytes, int, float, Message))
        entries = [_plain(entry, names, enums, left_out) for entry in ([value] if single else value)]
        result[field.name] = entries[0] if single else entries
    return result


def _plain(value: object, names: Mapping[int, str], enums: Enums, left_out: FrozenSet[str]) -> Any:
    if isinstance(value, Message):
        return to_plain(value, enums, left_out)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if abs(value) <= 3.5e38 else str(value)
    return names.get(value, value) if names and isinstance(value, int) else value
