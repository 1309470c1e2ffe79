# SPDX-License-Identifier: Apache-2.0
"""Reads the index of a TensorFlow checkpoint (``<prefix>.index``) without TensorFlow: names, dtypes, shapes and
positions, but no values.

The index is a sorted string table: blocks of prefix-compressed keys, an index block, and a 48-byte footer (TensorFlow
1.15: `core/lib/io/{table,format,block}.cc`); its values are messages of `tensor_bundle.proto`. Lengths are compared
with the file before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Tuple

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import FormatError
from vxm_convert.formats.protobuf import build_messages, parse
from vxm_convert.formats.tf_graph import DTYPES

INDEX_SUFFIX = ".index"
MAX_INDEX_BYTES = 64 << 20
FOOTER_SIZE = 48
MAGIC = 0xDB4775248B80FB57
#: after each block: its compression (0: none), and a masked CRC-32C of the block and that byte
_TRAILER = struct.Struct("<BI")
_MASK_DELTA = 0xA282EAD8
_MAX_RANK = 32

_MESSAGES = build_messages(
    "vxm.tensorbundle",
    {
        "BundleHeaderProto": [(1, "num_shards", "int32"), (2, "endianness", "int32")],
        "BundleEntryProto": [
            (1, "dtype", "int32"),
            (2, "shape", "TensorShapeProto"),
            (3, "shard_id", "int32"),
            (4, "offset", "int64"),
            (5, "size", "int64"),
        ],
        "TensorShapeProto": [(2, "dim", "Dim*"), (3, "unknown_rank", "bool")],
        "Dim": [(1, "size", "int64")],
    },
)


@dataclass(frozen=True)
class CheckpointEntry:
    """One variable: NumPy name of its dtype, shape, and its bytes' place in shard `shard`."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    shard: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class CheckpointIndex:
    """Entries in name order, and the number of data files."""

    shards: int
    entries: Tuple[CheckpointEntry, ...]


def read_index(path: Path) -> CheckpointIndex:
    """Read ``<prefix>.index``.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    FormatError
        If it is not a checkpoint index, is damaged (check sums), or is compressed, which TensorFlow never does.
    """
    path = Path(path)
    data = read_bounded(
        path, MAX_INDEX_BYTES, "the checkpoint's index", "copy the whole checkpoint, all files of its name"
    )
    try:
        pairs = list(_pairs(data))
    except (IndexError, struct.error, ValueError) as exc:
        raise FormatError(f"{path}: not the index of a TensorFlow checkpoint ({exc}); copy or train it again") from exc
    if not pairs or pairs[0][0] != b"":
        raise FormatError(f"{path}: the table has no header entry; this is not a TensorFlow checkpoint")
    header = parse(_MESSAGES["BundleHeaderProto"], pairs[0][1], str(path))
    if header.endianness:
        raise FormatError(f"{path}: written on a big-endian machine, expected little-endian")
    return CheckpointIndex(header.num_shards, tuple(_entry(path, key, value) for key, value in pairs[1:]))


def _entry(path: Path, key: bytes, value: bytes) -> CheckpointEntry:
    message = parse(_MESSAGES["BundleEntryProto"], value, str(path))
    shape = tuple(dim.size for dim in message.shape.dim)
    if len(shape) > _MAX_RANK or any(n < 0 for n in shape) or message.size < 0 or message.offset < 0:
        raise FormatError(
            f"{path}: entry {key!r} has shape {shape}, {message.size} bytes at {message.offset}; the index is damaged"
        )
    dtype = DTYPES.get(message.dtype, f"DT_{message.dtype}")
    return CheckpointEntry(key.decode("utf-8", "replace"), dtype, shape, message.shard_id, message.offset, message.size)


def _pairs(data: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Keys and values of all blocks, in order."""
    if len(data) < FOOTER_SIZE or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError(f"{len(data)} bytes without the footer of a table")
    # Footer: offset and size of the meta-index, which is not needed, then those of the index.
    position = len(data) - FOOTER_SIZE
    for _ in range(2):
        _, position = _varint(data, position)
    offset, position = _varint(data, position)
    size, _ = _varint(data, position)
    for _, handle in _entries(_block(data, offset, size)):
        offset, position = _varint(handle, 0)
        size, _ = _varint(handle, position)
        yield from _entries(_block(data, offset, size))


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER.size > len(data) - FOOTER_SIZE:
        raise ValueError(f"a block of {size} bytes at {offset} ends after the end of the file")
    kind, stored = _TRAILER.unpack_from(data, end)
    if kind != 0:
        raise ValueError(f"block at {offset} is compressed (type {kind})")
    checksum = _crc32c(data[offset : end + 1])
    if (((checksum >> 15) | (checksum << 17)) + _MASK_DELTA) & 0xFFFFFFFF != stored:
        raise ValueError(f"check sum of the block at {offset} is wrong")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Each key shares its first bytes with the one before; the restart offsets at the end are for searching only."""
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError(f"{restarts} restart points in a block of {len(block)} bytes")
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + own + length > end:
            raise ValueError("an entry ends after its block")
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> Tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _crc_table() -> List[int]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE: Any = _crc_table()


def _crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as TensorFlow's `core/lib/hash/crc32c.cc`."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
