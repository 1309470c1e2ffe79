# SPDX-License-Identifier: Apache-2.0
"""Small pictures for pages: indexed PNG, written here so that equal arrays give equal bytes and no drawing library
takes part.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def indexed_png(index: np.ndarray, palette: np.ndarray) -> bytes:
    """An 8-bit indexed PNG (ISO/IEC 15948): header, palette, one filter-free scan line per row.

    Parameters
    ----------
    index : ndarray, shape (height, width) — rows of `palette`.
    palette : ndarray, shape (colours, 3), uint8 — at most 256 colours, red, green, blue.
    """
    height, width = index.shape
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = index
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) & 0xFFFFFFFF)
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def data_uri(png: bytes) -> str:
    """The picture as the address of an image element; the only one that a page's policy lets in."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def png(picture: np.ndarray) -> bytes:
    """8-bit grey PNG of a (height, width) uint8 array (PNG specification, chunks IHDR, IDAT, IEND)."""
    height, width = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
