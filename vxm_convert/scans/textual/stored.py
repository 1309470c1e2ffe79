# SPDX-License-Identifier: Apache-2.0
"""What a header says, and the voxels behind or beside it: raw, or one gzip or zlib stream to the end of the file."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.text import read_reason

#: longest header; Slicer's segmentations describe every segment in theirs
MAX_HEADER = 1 << 20
#: bytes allowed after raw voxels that are behind their header
_MAX_BEHIND = 1 << 10
_CHUNK = 1 << 20
#: more of them are no side of an image
_DIGITS = 10
#: of zlib: the stream is one of gzip or zlib, which its first bytes tell
_ANY_STREAM = 32 + zlib.MAX_WBITS
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Stored:
    """A parsed header.

    Parameters
    ----------
    shape : ints — sides, the fastest axis first; three when the voxels are read.
    dtype : dtype — of the stored voxels, with their byte order.
    packed : bool — the voxels are compressed.
    start : int — position of the voxels in their file.
    affine : ndarray, shape (4, 4) — voxel → RAS mm.
    placed : bool — whether the header says how the axes lie; otherwise `affine` has voxel sizes only.
    data : Path or None — file of the voxels; None if they are behind the header.
    """

    path: Path
    shape: Tuple[int, ...]
    dtype: np.dtype
    packed: bool
    start: int
    affine: np.ndarray
    placed: bool
    data: Optional[Path] = None

    @property
    def home(self) -> Path:
        """The file of the voxels."""
        return self.data or self.path

    @property
    def voxel_bytes(self) -> int:
        """Size of the voxels in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(self.dtype.itemsize)

    def check_size(self, ratio: int) -> None:
        """Refuse, before anything is allocated, voxels that the file cannot hold; raises VolumeError.

        Parameters
        ----------
        ratio : int — bytes that one compressed byte may stand for.
        """
        have, wanted = max(0, os.stat(str(self.home)).st_size - self.start), self.voxel_bytes
        # In a file of their own, more bytes mean that they start elsewhere.
        behind = _MAX_BEHIND if self.data is None else 0
        fits = wanted <= have * ratio if self.packed else wanted <= have <= wanted + behind
        if not fits:
            raise VolumeError(
                f"{self.path}: the header claims {'x'.join(map(str, self.shape))} voxels, {wanted} bytes in total, "
                f"{'the file' if self.data is None else self.data.name} has {have}{' compressed' if self.packed else ''}; "
                "the header is damaged or the file incomplete, copy it again"
            )

    def voxels(self) -> np.ndarray:
        """All voxels in their stored dtype, native byte order; raises VolumeError for damaged data."""
        flat = np.empty(self.voxel_bytes, np.uint8)
        try:
            with open(str(self.home), "rb") as handle:
                handle.seek(self.start)
                have = _unpack(handle, flat) if self.packed else handle.readinto(memoryview(flat))
        except (OSError, zlib.error) as exc:
            raise VolumeError(f"{self.home}: damaged data ({read_reason(exc)}); copy the file again") from exc
        if have != flat.size:
            number = f"end after {have} of" if have is not None and have < flat.size else "are more than the"
            raise VolumeError(f"{self.home}: damaged data: the voxels {number} {flat.size} bytes; copy the file again")
        voxels = flat.view(self.dtype).reshape(self.shape, order="F")
        return voxels.astype(self.dtype.newbyteorder("="), copy=False)


def _unpack(handle: BinaryIO, flat: np.ndarray) -> int:
    """Fill `flat` from the stream; returns the bytes it has, counted only slightly beyond the size of `flat`."""
    stream, done, left = zlib.decompressobj(_ANY_STREAM), 0, b""
    while not stream.eof:
        left = left or handle.read(_CHUNK)
        if not left:
            # Without its end, its checksum was not verified.
            raise zlib.error("incomplete or truncated")
        block = stream.decompress(left, min(_CHUNK, flat.size - done + 1))
        left = stream.unconsumed_tail
        if done + len(block) > flat.size:
            return done + len(block)
        flat[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return done


def numbers(text: str, count: int, what: str) -> Tuple[float, ...]:
    """Finite numbers of a field; raises ValueError with the reason."""
    try:
        found = tuple(float(word) for word in text.split())
    except ValueError:
        found = ()
    if len(found) != count or not all(np.isfinite(found)):
        raise ValueError(f"{what} {text[:80]!r}, expected {count} numbers")
    return found


def sides(text: str) -> Tuple[int, int, int]:
    """Three sides; raises ValueError with the reason."""
    words = text.split()
    if len(words) != 3 or not all(word.isdigit() and len(word) < _DIGITS and int(word) for word in words):
        raise ValueError(f"sides {text[:80]!r}, expected three whole numbers of at least 1: one 3-D scan")
    x, y, z = (int(word) for word in words)
    return x, y, z


def affine_of(axes: np.ndarray, origin: np.ndarray, flip: Tuple[float, float, float]) -> np.ndarray:
    """Voxel → RAS mm from the vectors of the axes (columns, mm) and the position of the first voxel.

    Parameters
    ----------
    flip : three signs — that turn the file's space into RAS.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return np.diag((*flip, 1.0)) @ affine


def lines_of(path: Path, head: bytes) -> List[str]:
    """The lines of a header; raises VolumeError if it is no text."""
    if b"\0" in head:
        raise VolumeError(f"{path}: its header is no text; the file is damaged, or of another format")
    # Names in it may be of any encoding, in which a byte may be one at which Python would end a line; the rest is ASCII.
    return _LINE_END.split(head.decode("latin-1"))
