# SPDX-License-Identifier: Apache-2.0
"""Reading one array of an .npz without trusting it: size and dtype are checked in the .npy header before anything is
allocated.

``numpy.load`` would allocate whatever the header claims and, for object arrays, unpickle. Layout: NEP 1 (magic,
version, little-endian header length, a Python dict literal with descr, fortran_order and shape).
"""

from __future__ import annotations

import functools
import io
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.lib import format as npy_format

from vxm_convert.artifacts.files import atomic_path
from vxm_convert.errors import VolumeError
from vxm_convert.text import read_reason

_MAGIC = b"\x93NUMPY"
#: a normal header is 128 bytes or a small multiple of that
_MAX_HEADER_BYTES = 10000
_CHUNK = 1 << 20
#: exceptions of zipfile and zlib for damaged, encrypted or oddly compressed archives
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
    struct.error,
)

#: exceptions of literal_eval for hostile text; the tokenizer is NumPy's second attempt, for headers of Python 2
_PARSE_ERRORS = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError, tokenize.TokenError)


@dataclass(frozen=True)
class NpyHeader:
    """Shape, dtype and order of one member, and the size of its header in bytes."""

    shape: Tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    header_bytes: int

    @property
    def data_bytes(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count * int(self.dtype.itemsize)


class NpzReader:
    """One open .npz; a context manager.

    Raises
    ------
    VolumeError
        If the file is missing or not a zip archive; every method raises it for a member that breaks the rules.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._archive = zipfile.ZipFile(str(self.path))
        except _ZIP_ERRORS as exc:
            raise VolumeError(
                f"{self.path}: not a readable .npz ({read_reason(exc)}); expected the zip archive that numpy.savez writes"
            ) from exc

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    @property
    def names(self) -> List[str]:
        """Array names, in archive order."""
        return [name[:-4] for name in self._archive.namelist() if name.endswith(".npy")]

    def first_of(self, names: Sequence[str]) -> Optional[str]:
        """The first of `names` in the archive, or None."""
        have = set(self.names)
        return next((name for name in names if name in have), None)

    def header(self, name: str) -> NpyHeader:
        """Header of one array, without reading its data."""
        try:
            with self._archive.open(name + ".npy") as member:
                return _read_header(member, f"{self.path}[{name}]")
        except (KeyError,) + _ZIP_ERRORS as exc:
            raise VolumeError(
                f"{self.path}[{name}]: cannot read the array's header ({read_reason(exc)}); the archive is damaged, copy it again"
            ) from exc

    def check_size(self, name: str, header: NpyHeader) -> None:
        """Raise VolumeError if the archive has more or fewer bytes of an array than its header claims."""
        claimed = self._archive.getinfo(name + ".npy").file_size
        if claimed != header.header_bytes + header.data_bytes:
            raise VolumeError(
                f"{self.path}[{name}]: {claimed} bytes in the archive, the header asks for "
                f"{header.header_bytes + header.data_bytes}; "
                "copy the file again"
            )

    def read(self, name: str, max_bytes: int) -> np.ndarray:
        """The array, C-contiguous; refused before allocation if it is larger than `max_bytes` or not numeric."""
        where = f"{self.path}[{name}]"
        header = self.header(name)
        if header.data_bytes > max_bytes:
            raise VolumeError(
                f"{where}: {header.data_bytes} bytes of data, expected at most {max_bytes}; this is not a volume on "
                "the network grid"
            )
        self.check_size(name, header)
        flat = np.empty(header.data_bytes, dtype=np.uint8)
        try:
            with self._archive.open(name + ".npy") as member:
                member.read(header.header_bytes)
                _read_exactly(member, flat, where)
        except _ZIP_ERRORS as exc:
            raise VolumeError(f"{where}: damaged data ({read_reason(exc)}); copy the file again") from exc
        order = "F" if header.fortran_order else "C"
        return np.ascontiguousarray(flat.view(header.dtype).reshape(header.shape, order=order))


def _read_header(member: IO[bytes], where: str) -> NpyHeader:
    start = member.read(8)
    if len(start) != 8 or start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise VolumeError(
            f"{where}: not a .npy array (starts with {start!r}); save the volume with numpy.savez_compressed"
        )
    width = 2 if start[6] == 1 else 4
    raw_length = member.read(width)
    length = int.from_bytes(raw_length, "little")
    if len(raw_length) != width or length > _MAX_HEADER_BYTES:
        raise VolumeError(
            f"{where}: the .npy header claims {length} bytes, expected at most {_MAX_HEADER_BYTES}; the file is damaged"
        )
    text = member.read(length)
    try:
        shape, fortran_order, dtype = _parsed(width, raw_length + text)
    except _PARSE_ERRORS as exc:
        raise VolumeError(
            f"{where}: malformed .npy header, expected a shape, an order and a dtype; the file is damaged"
        ) from exc
    if dtype.hasobject or dtype.kind not in "uifb" or dtype.itemsize > 8:
        raise VolumeError(
            f"{where}: dtype {dtype}, expected plain integers or floats of at most 64 bits; objects are never unpickled"
        )
    if any(side < 0 for side in shape):
        raise VolumeError(f"{where}: shape {shape} has a negative side; the file is damaged")
    return NpyHeader(tuple(int(side) for side in shape), dtype, bool(fortran_order), 8 + width + length)


@functools.lru_cache(maxsize=64)
def _parsed(width: int, header: bytes) -> Tuple[Tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of a header. NumPy's own parser on exactly these bytes; it tokenises them as Python, which for
    a cohort of equal headers would be a good part of reading small scans.
    """
    # Versions 2 and 3 share the wide length field.
    parse = npy_format.read_array_header_1_0 if width == 2 else npy_format.read_array_header_2_0
    shape, fortran_order, dtype = parse(io.BytesIO(header))
    return shape, fortran_order, dtype


def _read_exactly(member: IO[bytes], out: np.ndarray, where: str) -> None:
    done = 0
    while done < out.size:
        block = member.read(min(_CHUNK, out.size - done))
        if not block:
            raise VolumeError(f"{where}: data end after {done} of {out.size} bytes; copy the file again")
        out[done : done + len(block)] = np.frombuffer(block, dtype=np.uint8)
        done += len(block)


#: array names in an .npz: `vol` today, `vol_data` in VoxelMorph's older files
NPZ_IMAGE_NAMES = ("vol", "vol_data")


NPZ_LABEL_NAMES = ("seg",)


def write_npz(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary:
        with open(str(temporary), "wb") as handle:
            np.savez_compressed(handle, **arrays)
