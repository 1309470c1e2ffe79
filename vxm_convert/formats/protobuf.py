# SPDX-License-Identifier: Apache-2.0
"""Protobuf message classes built from a table, in a separate pool.

A schema is ``{message: [(number, name, type), …]}``. ``type`` is a scalar name of protobuf or another message of the
table; a trailing ``*`` means repeated. Maps are written as repeated entry messages: the wire format is the same and the
order of the entries is kept, so equal content gives equal bytes.
"""

from __future__ import annotations

import warnings
from typing import Dict, List, Tuple, Type

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

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
#: Per message: its twin with bytes for text, so that text which is not UTF-8 is found before protobuf complains on
#: stderr ...
_RAW: Dict[str, Type[Message]] = {}
#: ... and its fields with text, or messages in them: (name, is a message, is repeated).
_TEXTS: Dict[str, List[Tuple[str, bool, bool]]] = {}


def build_messages(package: str, schema: Schema) -> Dict[str, Type[Message]]:
    """Message classes by name. Fields have presence (proto2), so an absent zero differs from a written one."""
    raw = _build(
        package,
        {
            name: [(number, field, kind.replace("string", "bytes")) for number, field, kind in fields]
            for name, fields in schema.items()
        },
    )
    built = _build(package, schema)
    for name, kind in built.items():
        _RAW[f"{package}.{name}"] = raw[name]
        _TEXTS[f"{package}.{name}"] = [
            (field, kind.rstrip("*") not in _SCALARS, kind.endswith("*"))
            for _, field, kind in schema[name]
            if not _is_number(kind)
        ]
    return built


def _build(package: str, schema: Schema) -> Dict[str, Type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name=package.replace(".", "/") + ".proto", package=package, syntax="proto2"
    )
    for name, fields in schema.items():
        entry = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            _add_field(entry, package, number, field_name, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: _message_class(pool, f"{package}.{name}") for name in schema}


def _is_number(kind: str) -> bool:
    """Whether a field is neither text nor a message that may contain text; bytes need no check."""
    return kind.rstrip("*") in _SCALARS and kind.rstrip("*") != "string"


def _add_field(entry: Message, package: str, number: int, name: str, kind: str) -> None:
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


def _message_class(pool: descriptor_pool.DescriptorPool, full_name: str) -> Type[Message]:
    descriptor = pool.FindMessageTypeByName(full_name)
    if hasattr(message_factory, "GetMessageClass"):
        kind: Type[Message] = message_factory.GetMessageClass(descriptor)
    else:  # protobuf 3.20, the last for Python 3.7
        kind = message_factory.MessageFactory(pool).GetPrototype(descriptor)
    return kind


def parse(kind: Type[Message], data: bytes, what: str) -> Message:
    """Parse `data` as message class `kind`; raises FormatError naming `what`."""
    _check_texts(kind, data, what)
    return decode(kind, data, what)


def decode(kind: Type[Message], data: bytes, what: str) -> Message:
    """Parse `data` as message class `kind` without checking its texts; raises FormatError naming `what`."""
    parsed = kind()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parsed.ParseFromString(data)
        # protobuf 3.20 only warns when it stops before the end of the data. Other threads' warnings arrive here too.
        early = [str(warning.message) for warning in caught if "Not all data" in str(warning.message)]
        if early:
            raise DecodeError(early[0])
    except (DecodeError, UnicodeDecodeError, RuntimeError) as exc:
        raise FormatError(
            f"{what}: not a {kind.DESCRIPTOR.name} message ({len(data)} bytes); the file is damaged or has another format"
        ) from exc
    return parsed


def _check_texts(kind: Type[Message], data: bytes, what: str) -> None:
    """Check that all text in `data` is UTF-8."""
    _check_texts_of(decode(_RAW[kind.DESCRIPTOR.full_name], data, what), what)


def _check_texts_of(raw: Message, what: str) -> None:
    """The same for a twin message, whose text fields are bytes."""
    for name, is_message, repeated in _TEXTS[raw.DESCRIPTOR.full_name]:
        if not repeated and not raw.HasField(name):
            continue
        values = getattr(raw, name)
        for value in values if repeated else (values,):
            if is_message:
                _check_texts_of(value, what)
                continue
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as exc:
                raise FormatError(
                    f"{what}: field {raw.DESCRIPTOR.name}.{name} is not UTF-8; the file is damaged"
                ) from exc
