# SPDX-License-Identifier: Apache-2.0
"""Protobuf message classes built from a table, in a pool of their own.

A schema is ``{message: [(number, name, type), …]}``. ``type`` is a scalar name of protobuf or another message of the
table; a trailing ``*`` means repeated. Maps are written as repeated entry messages, which is the same wire format and
keeps the order of the entries, so equal content gives equal bytes.
"""
from __future__ import annotations

import warnings
from typing import Any, Dict, List, Tuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from vxm_convert.errors import FormatError

Schema = Dict[str, List[Tuple[int, str, str]]]

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int64": _FIELD.TYPE_INT64,
    "int32": _FIELD.TYPE_INT32,
    "uint64": _FIELD.TYPE_UINT64,
    "uint32": _FIELD.TYPE_UINT32,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
_UNPACKABLE = (_FIELD.TYPE_STRING, _FIELD.TYPE_BYTES)


def build_messages(package: str, schema: Schema) -> Dict[str, Any]:
    """Message classes by name. Fields have presence (proto2), so an absent zero differs from a written one."""
    file = descriptor_pb2.FileDescriptorProto(name=package.replace(".", "/") + ".proto", package=package, syntax="proto2")
    for name, fields in schema.items():
        entry = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            _add_field(entry, package, number, field_name, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: _message_class(pool, f"{package}.{name}") for name in schema}


def _add_field(entry: Any, package: str, number: int, name: str, kind: str) -> None:
    repeated = kind.endswith("*")
    kind = kind.rstrip("*")
    field = entry.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        if repeated and field.type not in _UNPACKABLE:
            field.options.packed = True
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"


def _message_class(pool: Any, full_name: str) -> Any:
    descriptor = pool.FindMessageTypeByName(full_name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    # protobuf 3.20, the last for Python 3.7
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def parse(kind: Any, data: bytes, what: str) -> Any:
    """Parse `data` as message class `kind`; raises FormatError naming `what`."""
    parsed = kind()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parsed.ParseFromString(data)
        # protobuf 3.20 only warns when it stops before the end of the data.
        if caught:
            raise message.DecodeError(str(caught[0].message))
    except (message.DecodeError, UnicodeDecodeError, RuntimeError) as exc:
        reason = f"{len(data)} bytes: {exc}"
        raise FormatError(f"{what}: not a {kind.__name__} message ({reason}); the file is damaged or of another kind") from exc
    _check_strings(parsed, what)
    return parsed


def _check_strings(parsed: Any, what: str) -> None:
    """Protobuf hands out strings that are not UTF-8 as bytes instead of refusing them."""
    for field, value in parsed.ListFields():
        values = [value] if isinstance(value, (str, bytes, int, float)) or hasattr(value, "ListFields") else value
        if field.type == _FIELD.TYPE_MESSAGE:
            for entry in values:
                _check_strings(entry, what)
        elif field.type == _FIELD.TYPE_STRING and not all(isinstance(entry, str) for entry in values):
            raise FormatError(f"{what}: field {field.full_name} is not UTF-8; the file is damaged")
