# SPDX-License-Identifier: Apache-2.0
"""The index of a TensorFlow checkpoint, written byte by byte."""

from __future__ import annotations

import struct
from typing import List, Tuple

from vxm_convert.formats.tf_checkpoint import FOOTER_SIZE, MAGIC, _crc32c


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def block(pairs: List[Tuple[bytes, bytes]], kind: int = 0) -> bytes:
    body, last = b"", b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    body += struct.pack("<II", 0, 1) + bytes([kind])
    checksum = _crc32c(body)
    return body + struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def index_bytes(entries: List[Tuple[bytes, bytes]], kind: int = 0) -> bytes:
    data = block(entries, kind)
    handle = varint(0) + varint(len(data) - 5)
    index = block([(b"zzz", handle)])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(FOOTER_SIZE - 8, b"\0") + struct.pack("<Q", MAGIC)


def entry(dtype: int, shape: Tuple[int, ...], offset: int, size: int) -> bytes:
    dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in shape))
    return (
        b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + b"\x20" + varint(offset) + b"\x28" + varint(size)
    )


ENTRIES = [
    (b"", b"\x08\x01"),
    (b"conv3d/bias", entry(1, (16,), 0, 64)),
    (b"conv3d/kernel", entry(1, (3, 3, 3, 2, 16), 64, 3456)),
    (b"step", entry(9, (), 3520, 8)),
]
