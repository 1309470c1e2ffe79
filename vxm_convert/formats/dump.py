# SPDX-License-Identifier: Apache-2.0
"""Dump files: the tensors of one operator of one execution, as a device writes them with a dump configuration.

A file is a 64-bit little-endian header length, a protobuf message DumpData of that length, and the raw bytes of the
inputs, outputs, buffers and workspaces in this order ("v2"; docs of the vendor's comparison tool). The order of the
parts comes from there, the field numbers from CANN's open `dump_task.proto`, in which inputs and outputs differ; no file
of a real device was at hand. Tensors are in storage form (blocked layouts, fp16 as fp16; bf16 becomes the fp32 of the same
value). Lengths are compared with the file before anything is allocated.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple, Union

import numpy as np
from google.protobuf.message import Message

from vxm_convert.artifacts.files import atomic_path
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats.ge_ir import DTYPE_NUMBERS
from vxm_convert.formats.protobuf import build_messages, parse

VERSION = "2.0"
MAX_HEADER = 64 << 20
MAX_RANK = 8
#: An output has its original operator as field 4; an input does not, and all later numbers are lower by one. The bytes
#: themselves (`data`) follow the message instead.
_INPUT = [
    (1, "data_type", "int32"),
    (2, "format", "int32"),
    (3, "shape", "Shape"),
    (4, "data", "bytes"),
    (5, "size", "uint64"),
    (6, "original_shape", "Shape"),
    (7, "sub_format", "int32"),
    (8, "address", "uint64"),
]
_OUTPUT = [
    (1, "data_type", "int32"),
    (2, "format", "int32"),
    (3, "shape", "Shape"),
    (5, "data", "bytes"),
    (6, "size", "uint64"),
    (7, "original_shape", "Shape"),
    (8, "sub_format", "int32"),
    (9, "address", "uint64"),
]
_BFLOAT16 = 27
_MESSAGES = build_messages(
    "vxm.dump",
    {
        "DumpData": [
            (1, "version", "string"),
            (2, "dump_time", "uint64"),
            (3, "output", "OpOutput*"),
            (4, "input", "OpInput*"),
            (5, "buffer", "OpBuffer*"),
            (6, "op_name", "string"),
            (7, "attr", "OpAttr*"),
            (8, "space", "Workspace*"),
        ],
        "OpInput": _INPUT,
        "OpOutput": _OUTPUT,
        "OpBuffer": [(1, "buffer_type", "int32"), (3, "size", "uint64")],
        "Workspace": [(1, "type", "int32"), (3, "size", "uint64")],
        "OpAttr": [(1, "name", "string"), (2, "value", "string")],
        "Shape": [(1, "dim", "uint64*")],
    },
)
_DTYPE_NAMES = {number: name for name, number in DTYPE_NUMBERS.items()}
# type.operator.task.stream.time; some chips leave out the stream, newer ones add .4.context.thread.device.
_NAME = re.compile(r"^([^./]+)\.([^./]+)\.(\d+)(?:\.(\d+))?\.(\d{16})(?:\.\d+){0,4}$")


@dataclass(frozen=True)
class DumpTensor:
    """One input or output.

    Parameters
    ----------
    data : ndarray — in storage form.
    layout : int — aclFormat number.
    original_shape : tuple of int — the shape in the framework's graph; that of `data` if the layout is plain.
    """

    data: np.ndarray
    layout: int
    original_shape: Tuple[int, ...]


@dataclass(frozen=True)
class Dump:
    """The content of a dump file; `dump_time` in microseconds since 1970."""

    op_name: str
    dump_time: int
    inputs: List[DumpTensor] = field(default_factory=list)
    outputs: List[DumpTensor] = field(default_factory=list)
    buffers: List[bytes] = field(default_factory=list)
    spaces: List[bytes] = field(default_factory=list)
    attrs: Dict[str, str] = field(default_factory=dict)


class DumpName(NamedTuple):
    """The parts of a dump file's name; in `op_name` every ``/`` and ``.`` is replaced by ``_``."""

    op_type: str
    op_name: str
    task_id: int
    stream_id: int
    time: int

    def __str__(self) -> str:
        return f"{self.op_type}.{self.op_name}.{self.task_id}.{self.stream_id}.{self.time:016d}"


def dump_name(op_type: str, op_name: str, task_id: int, stream_id: int, time: int) -> DumpName:
    """Name of the file for an operator; `time` in microseconds since 1970, 16 digits."""
    return DumpName(plain_name(op_type), plain_name(op_name), task_id, stream_id, time)


def plain_name(name: str) -> str:
    """A node's name in the form of dump files; it cannot name another folder."""
    return re.sub(r"[/.\\\s\0]", "_", name)


def parse_dump_name(name: str) -> DumpName:
    """The inverse of ``str(dump_name(…))``; raises FormatError for other names."""
    match = _NAME.match(name)
    if match is None:
        raise FormatError(
            f"{name}: not the name of a dump file, expected <OpType>.<op_name>.<task>.<stream>.<16 digits>"
        )
    op_type, op_name, *numbers = match.groups()
    return DumpName(op_type, op_name, *(int(number or 0) for number in numbers))


# --- writing ---------------------------------------------------------------------------------------------------------


def encode_dump(dump: Dump) -> bytes:
    """The bytes of a dump file."""
    return b"".join(_parts(dump))


def _parts(dump: Dump) -> List[Union[bytes, memoryview]]:
    """Header and payload in order; tensors are views, so that nothing large is copied."""
    message = _MESSAGES["DumpData"](version=VERSION, dump_time=dump.dump_time, op_name=dump.op_name)
    payload: List[Union[bytes, memoryview]] = []
    for tensors, entries in ((dump.inputs, message.input), (dump.outputs, message.output)):
        for tensor in tensors:
            payload.append(_put_tensor(entries.add(), tensor))
    for chunks, entries in ((dump.buffers, message.buffer), (dump.spaces, message.space)):
        for chunk in chunks:
            entries.add(size=len(chunk))
            payload.append(chunk)
    for name, value in sorted(dump.attrs.items()):
        message.attr.add(name=name, value=value)
    header = message.SerializeToString(deterministic=True)
    return [struct.pack("<Q", len(header)), header] + payload


def _put_tensor(entry: Message, tensor: DumpTensor) -> Union[bytes, memoryview]:
    # A view of no elements cannot be cast.
    raw = memoryview(np.ascontiguousarray(tensor.data)).cast("B") if tensor.data.size else b""
    entry.data_type, entry.format, entry.size, entry.sub_format = (
        DTYPE_NUMBERS[tensor.data.dtype.name],
        tensor.layout,
        len(raw),
        0,
    )
    entry.shape.dim.extend(tensor.data.shape)
    entry.original_shape.dim.extend(tensor.original_shape)
    return raw


def write_dump(path: Path, dump: Dump) -> None:
    """Write a dump file atomically."""
    with atomic_path(path) as temporary, open(str(temporary), "wb") as handle:
        for part in _parts(dump):
            handle.write(part)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_dump(path: Path) -> Dump:
    """Read and check a dump file.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    FormatError
        If its header or its lengths are not those of a dump file.
    """
    try:
        with open(str(path), "rb") as handle:
            # Map the file instead of reading it: the tensors of a large layer stay on disk until they are used. An
            # empty file cannot be mapped.
            empty = not os.fstat(handle.fileno()).st_size
            content: Union[bytes, mmap.mmap] = b"" if empty else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            data = memoryview(content)
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{path}: cannot read the dump file ({getattr(exc, 'strerror', None) or exc})") from exc
    return decode_dump(data, str(path))


def decode_dump(data: Union[bytes, memoryview], where: str = "dump in memory") -> Dump:
    """`read_dump` for bytes that are already in memory; its tensors are views of them."""
    if len(data) < 8:
        raise FormatError(
            f"{where}: {len(data)} bytes, expected at least the 8 of a header length; the file is truncated"
        )
    length = struct.unpack_from("<Q", data)[0]
    if not 0 < length <= min(MAX_HEADER, len(data) - 8):
        raise FormatError(
            f"{where}: header length {length}, {len(data) - 8} bytes follow; the file is truncated or not a dump file "
            "of version 2"
        )
    message = parse(_MESSAGES["DumpData"], bytes(data[8 : 8 + length]), where)
    if not re.match(r"^[0-9]+\.[0-9]+$", message.version):
        raise FormatError(f"{where}: version {message.version!r}, expected a number such as {VERSION}; not a dump file")
    if not message.op_name:
        raise FormatError(f"{where}: does not name an operator")
    entries = list(message.input) + list(message.output) + list(message.buffer) + list(message.space)
    announced = sum(entry.size for entry in entries)
    if 8 + length + announced != len(data):
        raise FormatError(
            f"{where}: the header announces {announced} bytes of tensors, {len(data) - 8 - length} follow it; the "
            "file is damaged"
        )
    chunks = _Chunks(data, 8 + length)
    return Dump(
        message.op_name,
        message.dump_time,
        [_get_tensor(entry, chunks.take(entry.size), f"{where}: input {i}") for i, entry in enumerate(message.input)],
        [_get_tensor(entry, chunks.take(entry.size), f"{where}: output {i}") for i, entry in enumerate(message.output)],
        [bytes(chunks.take(entry.size)) for entry in message.buffer],
        [bytes(chunks.take(entry.size)) for entry in message.space],
        {entry.name: entry.value for entry in message.attr},
    )


class _Chunks:
    """Takes tensors from the payload, one after the other."""

    def __init__(self, data: Union[bytes, memoryview], position: int) -> None:
        self._data = memoryview(data)
        self._position = position

    def take(self, size: int) -> memoryview:
        start, self._position = self._position, self._position + size
        return self._data[start : self._position]


def _get_tensor(entry: Message, raw: memoryview, where: str) -> DumpTensor:
    if entry.data_type not in _DTYPE_NAMES and entry.data_type != _BFLOAT16:
        known = sorted(_DTYPE_NAMES) + [_BFLOAT16]
        raise FormatError(f"{where}: data type {entry.data_type}, expected one of {known}")
    dtype = np.dtype(_DTYPE_NAMES.get(entry.data_type, "uint16"))
    shape, original = tuple(entry.shape.dim), tuple(entry.original_shape.dim)
    if len(shape) > MAX_RANK or len(original) > MAX_RANK:
        raise FormatError(f"{where}: rank {max(len(shape), len(original))}, expected at most {MAX_RANK}")
    need = dtype.itemsize
    for side in shape:
        need *= side
    if need != len(raw):
        raise FormatError(f"{where}: {len(raw)} bytes do not hold {dtype.name} {shape}")
    data = np.frombuffer(raw, dtype).reshape(shape)
    if entry.data_type == _BFLOAT16:
        # The upper half of an fp32 number.
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return DumpTensor(data, entry.format, original)
