# SPDX-License-Identifier: Apache-2.0
"""NIfTI (one file, or .hdr with .img) and MGH files by their own bytes: checks the header before nibabel repairs or
follows it, and reads voxels to the end of the file.

Refuses other than regular files, formats that differ from the name, sides and voxel sizes that are not positive, more
bytes than the file can hold, and fewer or more voxels than in the header. It allocates what the header claims, after
checking that the file is large enough, and never keeps extra data of a gzip stream.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Optional, Tuple, Type, cast

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.text import read_reason

_GZIP: ModuleType = gzip
_READ_ERRORS: Tuple[Type[Exception], ...] = (OSError, EOFError, zlib.error)
with contextlib.suppress(ImportError):
    # Twice as fast as zlib, and without Python's lock.
    from isal import igzip, isal_zlib

    _GZIP = igzip
    _READ_ERRORS += (cast(Type[Exception], isal_zlib.error),)
#: deflate cannot squeeze better than 1032:1, so a gzipped file claims at most this many bytes per byte it has
MAX_RATIO = 1040
#: room for header extensions
_MAX_VOXEL_START = 16 << 20
#: bytes allowed after the voxels: padding of a NIfTI; TR, transforms and the command history of an MGH
_MAX_BEHIND = {"NIfTI": 1 << 10, "MGH": 16 << 20}
_CHUNK = 1 << 20
_MGH_START = 284
#: bytes per voxel of an MGH's types: uint8, int32, float32, int16, uint16
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}
#: of the NIfTI standard: integers, floats, complex numbers, colours
_NIFTI_DTYPES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
_MGH_SUFFIXES = (".mgz", ".mgh")
NIFTI_1, _NIFTI_2 = 348, 540
#: of a NIfTI in one file, and of a header with its voxels in another
_MAGIC = {NIFTI_1: (b"n+1\0", b"ni1\0"), _NIFTI_2: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
#: suffix of such a header
PAIR_SUFFIX = ".hdr"


@dataclass(frozen=True)
class RawHeader:
    """Contents of a file's first bytes.

    Parameters
    ----------
    kind : str — ``NIfTI`` or ``MGH``.
    packed : bool — the file is gzipped.
    shape : tuple of int — sides as stored.
    start, voxel_bytes : int — position and size of the voxels in bytes.
    head : bytes — everything before the voxels.
    data : Path or None — file of the voxels; None if they are behind the header.
    """

    path: Path
    kind: str
    packed: bool
    shape: Tuple[int, ...]
    start: int
    voxel_bytes: int
    head: bytes = field(default=b"", repr=False)
    data: Optional[Path] = None

    @property
    def home(self) -> Path:
        """The file of the voxels."""
        return self.data or self.path


def require_file(path: Path, what: str) -> Path:
    """The path of a regular file; raises VolumeError with the kind of anything else. `what`: "a scan", "a warp"."""
    path = Path(path)
    try:
        mode = os.stat(str(path)).st_mode
    except (OSError, ValueError) as exc:
        if os.path.islink(str(path)):
            raise VolumeError(
                f"{path}: a broken or circular link, expected {what}; fetch its target (DataLad: get)"
            ) from exc
        found = (
            "no such file"
            if isinstance(exc, FileNotFoundError)
            else f"cannot be accessed ({getattr(exc, 'strerror', exc)})"
        )
        raise VolumeError(f"{path}: {found}, expected {what}; check the path") from exc
    if stat.S_ISDIR(mode):
        raise VolumeError(f"{path}: a folder, expected {what} in one file")
    if not stat.S_ISREG(mode):
        raise VolumeError(
            f"{path}: not a regular file (a pipe, a socket or a device), expected {what}; copy it to a file first"
        )
    return path


def judge(path: Path, what: str = "a scan") -> RawHeader:
    """The header of a NIfTI (.nii, .nii.gz, .hdr) or MGH (.mgh, .mgz) file; reads nothing else.

    Raises
    ------
    VolumeError
        For the reasons in the module's docstring. The caller checks whether the sides are those of a scan.
    """
    path = require_file(path, what)
    mgh = path.name.lower().endswith(_MGH_SUFFIXES)
    data = image_beside(path) if path.name.lower().endswith(PAIR_SUFFIX) else None
    try:
        with open(str(path), "rb") as handle:
            packed = _packed(path, handle.read(2))
            have = os.fstat(handle.fileno()).st_size
            handle.seek(0)
            stream = _unpacked(handle, packed)
            begin = stream.read(_NIFTI_2)
            raw = _mgh(path, packed, begin) if mgh else _nifti(path, packed, begin, what, data)
            # The header is all of a file of its own.
            end = raw.start if data is None else _MAX_VOXEL_START
            head = begin[:end] + stream.read(max(0, end - len(begin)))
    except _READ_ERRORS as exc:
        raise VolumeError(f"{path}: {_unreadable(exc, 'damaged or truncated')}") from exc
    if not mgh:
        _check_extensions(path, head)
    have, wanted = have if data is None else os.stat(str(data)).st_size, raw.start + raw.voxel_bytes
    # In a file of their own, more bytes mean that the voxels start elsewhere.
    if wanted > have * (MAX_RATIO if packed else 1) or (data is not None and wanted != have):
        sides = "x".join(str(n) for n in raw.shape)
        raise VolumeError(
            f"{path}: the header claims {sides} voxels, {raw.voxel_bytes} bytes in total, "
            f"{'the file' if data is None else data.name} has {have}; the header is damaged or the file incomplete, copy "
            "it again"
        )
    return replace(raw, head=head)


def image_beside(header: Path) -> Path:
    """The ``.img`` of a ``.hdr``; raises VolumeError if it is not beside it."""
    path = header.with_suffix(".IMG" if header.suffix.isupper() else ".img")
    packed = path.with_name(path.name + ".gz")
    if packed.is_file() and not path.exists():
        raise VolumeError(f"{packed}: the voxels of {header.name}, expected {path.name}; unpack it with gunzip")
    return require_file(path, f"the voxels of {header.name}")


def read_voxels(raw: RawHeader) -> np.ndarray:
    """The bytes of all voxels, uint8; reads the whole file, so that its checksum is verified.

    Raises
    ------
    VolumeError
        For damaged streams, and for fewer or more bytes than in the header.
    """
    path = raw.home
    flat = np.empty(raw.voxel_bytes, dtype=np.uint8)
    try:
        with open(str(path), "rb") as handle:
            stream = _unpacked(handle, raw.packed)
            stream.seek(raw.start)
            have = _fill(stream, flat)
            behind = _bytes_behind(stream, _MAX_BEHIND[raw.kind]) if have == flat.size else 0
    except _READ_ERRORS as exc:
        raise VolumeError(f"{path}: {_unreadable(exc, 'damaged data')}") from exc
    if have < flat.size:
        raise VolumeError(
            f"{path}: damaged data: the voxels end after {have} of {flat.size} bytes; copy the file again"
        )
    if behind > _MAX_BEHIND[raw.kind]:
        sides = "x".join(str(n) for n in raw.shape)
        raise VolumeError(
            f"{path}: has more than the {sides} voxels ({flat.size} bytes) in the header; the header is damaged, "
            "export the scan again"
        )
    return flat


def read_part(raw: RawHeader, number: int, of: int) -> np.ndarray:
    """The bytes of one of several equal parts of the voxels, counted from 0: uint8. What follows is not read, so a checksum
    at the end is not verified.

    Raises
    ------
    VolumeError
        For damaged streams, for a number that is too large, and for fewer bytes than in the header.
    """
    if not 0 <= number < of:
        raise VolumeError(f"{raw.path}: has the frames 0 to {of - 1}, got {number}")
    flat = np.empty(raw.voxel_bytes // of, dtype=np.uint8)
    try:
        with open(str(raw.home), "rb") as handle:
            stream = _unpacked(handle, raw.packed)
            stream.seek(raw.start + number * flat.size)
            have = _fill(stream, flat)
    except _READ_ERRORS as exc:
        raise VolumeError(f"{raw.home}: {_unreadable(exc, 'damaged data')}") from exc
    if have < flat.size:
        raise VolumeError(f"{raw.home}: damaged data: ends within frame {number} of {of}; copy the file again")
    return flat


def _unreadable(exc: Exception, damage: str) -> str:
    """What is wrong and what to do: of the system's errors, only the file's own bytes are damage."""
    if getattr(exc, "errno", None) is None:
        return f"{damage} ({read_reason(exc)}); copy the file again"
    return f"cannot be read ({read_reason(exc)}); check its permissions, its disk and the connection to it"


def _packed(path: Path, start: bytes) -> bool:
    """Whether a file with these first bytes is gzipped; raises VolumeError if its name says otherwise."""
    named_packed = path.name.lower().endswith((".gz", ".mgz"))
    packed = start == b"\x1f\x8b"
    if named_packed and not packed:
        what = f"starts with {start!r}" if start else "is empty"
        raise VolumeError(
            f"{path}: {what}, expected a gzip stream as the name says; copy it again, or give it its own suffix"
        )
    if packed and not named_packed:
        raise VolumeError(f"{path}: a gzip stream, which its name does not say; rename it to end in .gz (or .mgz)")
    return packed


def _unpacked(handle: BinaryIO, packed: bool) -> BinaryIO:
    return cast(BinaryIO, _GZIP.open(handle, "rb")) if packed else handle


def _nifti(path: Path, packed: bool, begin: bytes, what: str, data: Optional[Path]) -> RawHeader:
    kinds = {
        (order, size) for order in "<>" for size in (NIFTI_1, _NIFTI_2) if begin[:4] == struct.pack(order + "i", size)
    }
    if not kinds:
        found = f"starts with {begin[:4]!r}" if begin else "is empty"
        raise VolumeError(
            f"{path}: {found}, expected a NIfTI-1 or NIfTI-2 header; this is not a NIfTI file, or it is {what} that "
            "is damaged"
        )
    order, size = kinds.pop()
    first = size == NIFTI_1
    if len(begin) < size:
        raise VolumeError(f"{path}: the header ends after {len(begin)} bytes, expected {size}; copy the file again")
    dims = struct.unpack_from(order + ("8h" if first else "8q"), begin, 40 if first else 16)
    code, bits = struct.unpack_from(order + "2h", begin, 70 if first else 12)
    spacing = struct.unpack_from(order + ("3f" if first else "3d"), begin, 80 if first else 112)
    start = struct.unpack_from(order + ("f" if first else "q"), begin, 108 if first else 168)[0]
    magic = begin[344:348] if first else begin[4:12]
    expected = _MAGIC[size][data is not None]
    if magic != expected:
        pair = ": a header with its voxels in a separate .img file" if magic[:2] == b"ni" else ""
        raise VolumeError(f"{path}: magic {magic!r}{pair}, expected {expected!r}; save {what} as a single .nii file")
    if not 1 <= dims[0] <= 7:
        raise VolumeError(f"{path}: {dims[0]} dimensions, expected 1 to 7; the header is damaged")
    if code not in _NIFTI_DTYPES:
        raise VolumeError(
            f"{path}: dtype code {code}, which NIfTI does not have; the header is damaged, export the scan again"
        )
    check_spacing(path, spacing)
    check_start(path, start, size + 4 if data is None else 0)
    shape = dims[1 : dims[0] + 1]
    size_of_all = _count(path, shape) * max(bits, 0) // 8
    return RawHeader(path, "NIfTI", packed, shape, int(start), size_of_all, data=data)


def check_start(path: Path, start: float, least: int) -> None:
    """Refuse voxels that start where they cannot; raises VolumeError."""
    if not (np.isfinite(start) and least <= start <= _MAX_VOXEL_START):
        raise VolumeError(
            f"{path}: voxels start at byte {start:g} by the header, expected {least} to {_MAX_VOXEL_START}; the "
            "header is damaged"
        )


def _check_extensions(path: Path, head: bytes) -> None:
    """Check that extensions end before the voxels: a negative or too large size makes nibabel read the whole stream at
    once.
    """
    order, at = next((order, size) for order in "<>" for size in _MAGIC if head[:4] == struct.pack(order + "i", size))
    more, at, end = head[at : at + 1], at + 4, len(head)
    while more not in (b"", b"\0") and end - at >= 16:
        size = struct.unpack_from(order + "i", head, at)[0]
        if not 8 <= size <= end - at:
            raise VolumeError(
                f"{path}: a header extension of {size} bytes at byte {at}, expected 8 to {end - at}; the header is "
                "damaged"
            )
        at += size


def _mgh(path: Path, packed: bool, begin: bytes) -> RawHeader:
    if len(begin) < _MGH_START:
        found = f"ends after {len(begin)} bytes" if begin else "is empty"
        raise VolumeError(f"{path}: {found}, expected an MGH header of {_MGH_START}; copy the file again")
    version, x, y, z, frames, kind = struct.unpack_from(">6i", begin)
    if version != 1:
        raise VolumeError(
            f"{path}: version {version}, expected version 1 of an MGH file; this is another format, or it is damaged"
        )
    if kind not in _MGH_BYTES:
        known = ", ".join(str(number) for number in sorted(_MGH_BYTES))
        raise VolumeError(f"{path}: voxels of type {kind}, expected one of {known}; the header is damaged")
    if struct.unpack_from(">h", begin, 28)[0] > 0:
        check_spacing(path, struct.unpack_from(">3f", begin, 30))
    shape = (x, y, z) + ((frames,) if frames != 1 else ())
    return RawHeader(path, "MGH", packed, shape, _MGH_START, _count(path, shape) * _MGH_BYTES[kind])


def check_spacing(path: Path, sizes: Tuple[float, ...]) -> None:
    """Refuse voxel sizes that are not positive; raises VolumeError."""
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        text = ", ".join(f"{size:g}" for size in sizes)
        raise VolumeError(
            f"{path}: voxel sizes {text}, expected positive numbers of mm; correct the header or export the scan again"
        )


def _count(path: Path, shape: Tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        if side < 1:
            raise VolumeError(
                f"{path}: shape {'x'.join(map(str, shape))}, expected sides of at least 1; the header is damaged"
            )
        count *= side
    return count


def _fill(handle: BinaryIO, flat: np.ndarray) -> int:
    done = 0
    while done < flat.size:
        block = handle.read(min(_CHUNK, flat.size - done))
        if not block:
            break
        flat[done : done + len(block)] = np.frombuffer(block, dtype=np.uint8)
        done += len(block)
    return done


def _bytes_behind(handle: BinaryIO, enough: int) -> int:
    """Number of bytes up to the end, counted only slightly beyond `enough`."""
    found = 0
    while found <= enough:
        block = handle.read(min(_CHUNK, enough + 1 - found))
        if not block:
            break
        found += len(block)
    return found
