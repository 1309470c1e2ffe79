# SPDX-License-Identifier: Apache-2.0
"""Writing NIfTI-1: atomic, streamed, equal arrays give equal voxels and headers. Reading is in scan_file.py.

Compression is at level 1 unless another is asked for; levels 1 to 3 use ISA-L where the package `isal` is installed (14
times faster than zlib on a flow at equal size), the others zlib. The gzip header contains neither time nor name: equal
arrays give equal files. The two compressors give different bytes for the same voxels.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Sequence, Tuple, Union

import numpy as np

from vxm_convert.artifacts.files import atomic_path
from vxm_convert.errors import VolumeError
from vxm_convert.lazy import LazyModule

if TYPE_CHECKING:
    import nibabel

nib = LazyModule("nibabel")

_deflate: ModuleType = zlib
with contextlib.suppress(ImportError):
    from isal import isal_zlib

    _deflate = isal_zlib

#: NIfTI-1 intent "vector": what ITK, ANTs and Slicer require of a displacement field
INTENT_VECTOR = "vector"
_GZIP_WBITS = 31
#: gzip's level of compression: 0 stores, 9 is the slowest
DEFAULT_LEVEL, MOST_LEVEL = 1, 9
#: levels that ISA-L has; its 0 compresses
_FAST_LEVELS = (1, 2, 3)
#: bytes at the start of a stream that ISA-L gets alone: at least 5, so that it enters the first in its table of matches, and
#: at most 16, so that this is not done by the loop that reads a register it never set (`.write_first_byte` in
#: igzip_icf_body_h1_gr_bt.asm of ISA-L 2.30 and 2.31). That loop takes a hash of the stream's address for one of data, and
#: once in some thousand streams finds other matches: the voxels are right, the bytes are not those of the last time.
_FIRST_BYTES = 8
_SLAB_BYTES = 4 << 20
#: largest excess of b² + c² + d² over 1 that nibabel and the NIfTI library treat as rounding
_QUATERNION_SLACK = 3e-7
#: dtypes that every NIfTI-1 reader knows, and replacements for the others
_STORED_AS = {"bool": "uint8", "int64": "int32", "uint64": "int32", "float16": "float32"}

_Planes = Callable[[Tuple[int, ...], slice], np.ndarray]


@dataclass(frozen=True)
class Made:
    """Voxels that are computed while they are written.

    Parameters
    ----------
    shape : tuple of int — as of an array for `write_nifti`.
    planes : callable — of the index behind the third axis, last axis first, and planes of the third axis: the voxels there,
        shape (planes, Y, X), in C order.
    """

    shape: Tuple[int, ...]
    dtype: np.dtype
    planes: _Planes


def write_nifti(
    path: Path,
    data: Union[np.ndarray, Made],
    affine: np.ndarray,
    dtype: Optional[np.dtype] = None,
    intent: Union[str, int] = "none",
    intent_name: str = "",
    time_unit: Optional[str] = None,
    extensions: Sequence[Tuple[int, bytes]] = (),
    level: int = DEFAULT_LEVEL,
) -> None:
    """Write `data` as NIfTI-1 (``.nii`` or ``.nii.gz``), voxel sizes in mm, qform = sform = `affine` with code 1.

    Parameters
    ----------
    data : ndarray or Made, shape (X, Y, Z), (X, Y, Z, C) or (X, Y, Z, 1, C).
    affine : ndarray, shape (4, 4) — voxel index → RAS mm.
    dtype : dtype-like — of the stored voxels; default: that of `data` (64-bit integers are stored as int32).
    intent : str or int — nibabel's name or the number of the intent code.
    time_unit : str — of the fourth axis (``sec``); default: none stored.
    extensions : sequence of (code, bytes) — header extensions.
    level : int — of compression, of a ``.nii.gz``.

    Raises
    ------
    VolumeError
        If values do not fit the stored dtype.
    ArtifactError
        If the file cannot be written; nothing is left behind.
    """
    stored = _stored_dtype(data, dtype, path)
    image = nib.Nifti1Image(np.broadcast_to(np.zeros((), dtype=stored), data.shape), affine)
    header = image.header
    header.set_data_dtype(stored)
    header.set_intent(intent, name=intent_name)
    header.set_xyzt_units("mm", time_unit)
    header.set_sform(affine, code=1)
    _set_qform(header, affine)
    header.set_slope_inter(1, 0)
    tail = _extension_block(extensions)
    header["vox_offset"] = 348 + len(tail)
    with atomic_path(Path(path)) as temporary, open(str(temporary), "wb") as handle:
        head, blocks = header.binaryblock + tail, _blocks(data, stored)
        for part in (
            _gzipped(head, blocks, level) if str(path).lower().endswith(".gz") else itertools.chain([head], blocks)
        ):
            handle.write(part)


def _gzipped(head: bytes, blocks: Iterator[memoryview], level: int) -> Iterator[bytes]:
    maker = _deflate if level in _FAST_LEVELS else zlib
    stream = maker.compressobj(level, zlib.DEFLATED, _GZIP_WBITS)
    if maker is not zlib:
        yield stream.compress(head[:_FIRST_BYTES]) + stream.flush(zlib.Z_SYNC_FLUSH)
        head = head[_FIRST_BYTES:]
    yield stream.compress(head)
    for block in blocks:
        yield stream.compress(block)
    yield stream.flush()


def nifti_image(data: np.ndarray, affine: np.ndarray) -> Any:
    """A NIfTI-1 image in memory, as `write_nifti` would store it, with qform = sform = `affine`, code 1.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) — not copied unless its dtype is stored as another one.
    affine : ndarray, shape (4, 4) — voxel index → RAS mm.

    Returns
    -------
    nibabel.Nifti1Image

    Raises
    ------
    VolumeError
        If values do not fit the stored dtype.
    """
    stored = _stored_dtype(data, None, Path("image"))
    image = nib.Nifti1Image(data.astype(stored, copy=False), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=1)
    _set_qform(image.header, affine)
    return image


def _extension_block(extensions: Sequence[Tuple[int, bytes]]) -> bytes:
    """The bytes between header and voxels: 4 bytes that tell whether extensions follow, then size, code and padded
    content of each.
    """
    block = bytes([1 if extensions else 0, 0, 0, 0])
    for code, content in extensions:
        size = (len(content) + 8 + 15) // 16 * 16
        block += struct.pack("<ii", size, code) + content.ljust(size - 8, b"\0")
    return block


def _set_qform(header: nibabel.Nifti1Header, affine: np.ndarray) -> None:
    """Store `affine` as quaternion, correcting float32 rounding of half turns such as LIA.

    The file holds b, c, d; readers take a = sqrt(1 - b² - c² - d²). If a is 0, rounding b, c, d down gives a = 1e-4, a
    rotation of 3e-4 rad; rounded up, every reader gets 0.
    """
    header.set_qform(affine, code=1, strip_shears=True)
    names = ("quatern_b", "quatern_c", "quatern_d")
    before = [np.float32(header[name]) for name in names]
    error = np.abs(header.get_qform() - affine).max()
    for name, value in zip(names, before):
        header[name] = np.nextafter(value, np.float32(np.sign(value) * 2)) if abs(value) > 1e-3 else value
    excess = sum(float(header[name]) ** 2 for name in names) - 1
    if excess > _QUATERNION_SLACK or np.abs(header.get_qform() - affine).max() > error:
        for name, value in zip(names, before):
            header[name] = value


def _stored_dtype(data: Union[np.ndarray, Made], dtype: Optional[np.dtype], path: Path) -> np.dtype:
    wanted = np.dtype(dtype or data.dtype)
    stored = np.dtype(_STORED_AS.get(wanted.name, wanted.name)).newbyteorder("<")
    if isinstance(data, np.ndarray) and stored.kind in "ui" and data.dtype.kind in "ui" and data.size:
        limits = np.iinfo(stored)
        low, high = int(data.min()), int(data.max())
        if low < limits.min or high > limits.max:
            raise VolumeError(
                f"{path}: values {low}..{high} do not fit {stored.name}, the widest integer that every NIfTI reader "
                "knows; "
                "renumber the labels"
            )
    return stored


def _blocks(data: Union[np.ndarray, Made], stored: np.dtype) -> Iterator[memoryview]:
    """The voxels with the first axis fastest, a few MB at a time, so that there is never a second copy of the volume."""
    planes, backwards = _planes_of(data), data.shape[::-1]
    step = max(1, _SLAB_BYTES // max(1, int(np.prod(backwards[-2:])) * stored.itemsize))
    for index in np.ndindex(*backwards[:-3]):
        for start in range(0, backwards[-3], step):
            block = planes(index, slice(start, min(start + step, backwards[-3])))
            yield np.ascontiguousarray(block, dtype=stored).data


def _planes_of(data: Union[np.ndarray, Made]) -> _Planes:
    if isinstance(data, Made):
        return data.planes
    turned = data.T
    return lambda index, part: turned[index][part]
