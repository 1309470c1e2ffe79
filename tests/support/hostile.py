# SPDX-License-Identifier: Apache-2.0
"""A corpus of files that no reader of scans may trust: how each is made, and what the one message about it must say.

``python -m tests.support.hostile FOLDER`` writes them, to try programs on.
"""

from __future__ import annotations

import gzip
import os
import struct
import sys
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Tuple

import nibabel as nib
import numpy as np

SHAPE = (16, 16, 32)
#: bytes that a bomb inflates to
BOMB_BYTES = 3 << 30
#: what a zip bomb inflates to; less, because it has to be squeezed as a whole
ZIP_BOMB_BYTES = 128 << 20
_CHUNK = bytes(1 << 20)


class Hostile(NamedTuple):
    """Name of the file, what writes it, and parts of the message."""

    file: str
    write: Callable[[Path], Any]
    parts: Tuple[str, ...]


def image(dtype: Any = np.uint8) -> np.ndarray:
    """Something that a reader takes for a scan."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251).astype(dtype)


def nifti(path: Path, data: Any = None, kind: type = nib.Nifti1Image, **header: Any) -> None:
    """A NIfTI whose header fields are then overwritten with raw bytes: offset → bytes."""
    made = kind(image() if data is None else data, np.diag([-1.0, 1.0, 1.0, 1.0]))
    nib.save(made, str(path))
    patch(path, {int(key[1:]): value for key, value in header.items()})


def patch(path: Path, changes: Dict[int, bytes]) -> None:
    """Overwrite bytes of a file, inside its gzip stream if it has one."""
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    raw = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    for offset, value in changes.items():
        raw[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))


def dims(*sides: int, code: str = "<8h") -> bytes:
    """dim[0..7] as NIfTI-1 has them."""
    return struct.pack(code, *([len(sides)] + list(sides) + [1] * (7 - len(sides))))


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def nifti_bytes(**header: Any) -> bytes:
    made = nib.Nifti1Image(image(), np.diag([-1.0, 1.0, 1.0, 1.0]))
    raw = bytearray(made.to_bytes())
    for key, value in header.items():
        raw[int(key[1:]) : int(key[1:]) + len(value)] = value
    return bytes(raw)


def extended(size: int, code: int = 6) -> bytes:
    """A NIfTI-1 with one extension of 32 bytes that claims another size."""
    raw = nifti_bytes(b108=floats(352 + 32), b348=b"\1\0\0\0")
    return raw[:352] + struct.pack("<2i", size, code) + b"<no XML>" * 3 + raw[352:]


def mgh_bytes(version: int = 1, sides: Tuple[int, ...] = SHAPE, frames: int = 1, kind: int = 0, **header: Any) -> bytes:
    """FreeSurfer's big-endian header of 284 bytes, then the voxels; kind 0 is uint8, 1 int32, 3 float32, 4 int16."""
    raw = bytearray(struct.pack(">7ih", version, *sides, frames, kind, 0, 1))
    raw += struct.pack(">15f", *[1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0])
    raw += bytes(284 - len(raw))
    for key, value in header.items():
        raw[int(key[1:]) : int(key[1:]) + len(value)] = value
    return bytes(raw) + image().tobytes(order="F")


def packed(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(gzip.compress(content))


def plain(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


@lru_cache(maxsize=1)
def zeros() -> bytes:
    return gzip.compress(_CHUNK * 64, 9)


def gzip_bomb(start: bytes) -> Callable[[Path], None]:
    """`start`, then zeros up to `BOMB_BYTES`: some MB on disk."""

    def write(path: Path) -> None:
        # Streams may stand one behind the other: one of 64 MB, repeated.
        path.write_bytes(gzip.compress(start) + zeros() * (BOMB_BYTES >> 26))

    return write


def zip_bomb(path: Path) -> None:
    """An honest header of a small array, then zeros without end, under the name of the image."""
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED, allowZip64=True) as out:
        with out.open("vol.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, image())
            for _ in range(ZIP_BOMB_BYTES // len(_CHUNK)):
                member.write(_CHUNK)


def npz_claiming(shape: Tuple[int, ...], descr: str = "<f4") -> Callable[[Path], None]:
    """An .npz whose array claims `shape` and holds 4 KB."""

    def write(path: Path) -> None:
        text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
        with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("vol.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4096))

    return write


def objects(path: Path) -> None:
    np.savez(str(path), vol=np.array([{"a": 1}] * 8, dtype=object).reshape(2, 2, 2))


def mgz(path: Path, data: np.ndarray) -> None:
    nib.save(nib.MGHImage(data, np.diag([-1.0, 1.0, 1.0, 1.0])), str(path))


def renamed_npz(path: Path) -> None:
    with open(str(path), "wb") as handle:
        np.savez(handle, vol=image())


def structured(fields: Any) -> np.ndarray:
    return np.zeros(SHAPE, dtype=fields)


def with_value(value: float) -> np.ndarray:
    data = image(np.float32)
    data[1, 2, 3] = value
    return data


def loop(path: Path) -> None:
    os.symlink(path.name, str(path))


RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]

CORPUS: Dict[str, Hostile] = {
    "empty file": Hostile("a.nii.gz", plain(b""), ("empty",)),
    "empty mgz": Hostile("a.mgz", plain(b""), ("empty",)),
    "empty npz": Hostile("a.npz", plain(b""), ("not a readable .npz",)),
    "truncated gz": Hostile("a.nii.gz", plain(gzip.compress(nifti_bytes())[:-400]), ("damaged", "copy the file again")),
    "header alone": Hostile("a.nii", plain(nifti_bytes()[:352]), ("the header claims", "the file has 352")),
    "half a header": Hostile("a.nii", plain(nifti_bytes()[:200]), ("ends after 200 bytes",)),
    "fewer voxels than claimed, gz": Hostile(
        "a.nii.gz", packed(nifti_bytes()[:-100]), ("end after 8092 of 8192 bytes", "copy the")
    ),
    "more voxels than claimed": Hostile("a.nii", plain(nifti_bytes() + bytes(8192)), ("more", "the header")),
    "more voxels than claimed, gz": Hostile("a.nii.gz", packed(nifti_bytes() + bytes(8192)), ("more", "the header")),
    "gz bomb behind the voxels": Hostile("a.nii.gz", gzip_bomb(nifti_bytes()), ("more", "the header")),
    "gz bomb in an extension": Hostile("a.nii.gz", gzip_bomb(extended(0)), ("header extension of 0 bytes", "damaged")),
    "extension beyond the voxels": Hostile(
        "a.nii.gz", gzip_bomb(extended(2**31 - 16)), ("header extension of 2147483632 bytes",)
    ),
    "gz bomb of zeros": Hostile("a.nii.gz", gzip_bomb(b""), ("expected a NIfTI",)),
    "gz bomb, mgz": Hostile("a.mgz", gzip_bomb(mgh_bytes()), ("more", "the header")),
    "zip bomb": Hostile("a.npz", zip_bomb, ("bytes in the archive", "the header asks for")),
    "claims 500 cubed from 8 KB": Hostile(
        "a.nii.gz", packed(nifti_bytes(b40=dims(500, 500, 500))), ("the header claims", "500x500x500")
    ),
    "claims 500 cubed, mgz": Hostile(
        "a.mgz", packed(mgh_bytes(sides=(500, 500, 500))), ("the header claims", "500x500x500")
    ),
    "claims 500 cubed, npz": Hostile("a.npz", npz_claiming((500, 500, 500)), ("the header asks for",)),
    "huge sides": Hostile("a.nii", plain(nifti_bytes(b40=dims(32767, 32767, 32767))), ("32767x32767x32767", "damaged")),
    "huge sides, NIfTI-2": Hostile(
        "a.nii",
        lambda p: nifti(p, kind=nib.Nifti2Image, b16=struct.pack("<4q", 3, 1 << 40, 1 << 40, 4)),
        ("1099511627776", "damaged"),
    ),
    "huge sides, mgh": Hostile("a.mgh", plain(mgh_bytes(sides=(1 << 30, 1 << 30, 4))), ("1073741824", "damaged")),
    "huge sides, npz": Hostile("a.npz", npz_claiming((10**9, 10**9, 10**9)), ("damaged",)),
    "negative side": Hostile("a.nii", plain(nifti_bytes(b40=dims(16, -16, 32))), ("-16", "damaged")),
    "int16 overflow": Hostile("a.nii", plain(nifti_bytes(b40=dims(-32768, 16, 32))), ("-32768", "damaged")),
    "negative side, mgh": Hostile("a.mgh", plain(mgh_bytes(sides=(16, -16, 32))), ("-16", "damaged")),
    "zero side": Hostile("a.nii", plain(nifti_bytes(b40=dims(16, 0, 32))), ("16x0x32", "damaged")),
    "nine dimensions": Hostile(
        "a.nii", plain(nifti_bytes(b40=struct.pack("<8h", 9, 16, 16, 32, 1, 1, 1, 1))), ("9", "dimensions")
    ),
    "four frames": Hostile(
        "a.nii", lambda p: nifti(p, np.zeros(SHAPE + (4,), np.uint8)), ("4-D volume", "single frame")
    ),
    "NaN": Hostile("a.nii", lambda p: nifti(p, with_value(np.nan)), ("1 voxels are NaN or infinite", "(1, 2, 3)")),
    "infinite": Hostile("a.mgz", lambda p: mgz(p, with_value(-np.inf)), ("NaN or infinite", "(1, 2, 3)")),
    "negative voxel size": Hostile("a.nii", plain(nifti_bytes(b80=floats(-1, 1, 1))), ("voxel sizes", "positive")),
    "voxel size 0": Hostile("a.nii", plain(nifti_bytes(b80=floats(1, 0, 1))), ("voxel sizes", "positive")),
    "voxel size NaN": Hostile("a.nii", plain(nifti_bytes(b80=floats(1, np.nan, 1))), ("voxel sizes", "positive")),
    "voxel size 0, mgh": Hostile("a.mgh", plain(mgh_bytes(b30=struct.pack(">f", 0.0))), ("voxel sizes", "positive")),
    "NaN in the affine": Hostile("a.nii", plain(nifti_bytes(b280=floats(np.nan))), ("affine", "damaged")),
    "singular affine": Hostile("a.nii", plain(nifti_bytes(b280=floats(-1, 1, 0, 0, -1, 1, 0, 0))), ("singular",)),
    "NaN in the axes, mgh": Hostile("a.mgh", plain(mgh_bytes(b42=struct.pack(">f", np.nan))), ("affine", "damaged")),
    "complex": Hostile("a.nii", lambda p: nifti(p, image(np.complex64)), ("complex64", "plain integers or floats")),
    "colour": Hostile("a.nii", lambda p: nifti(p, structured(RGB)), ("colour",)),
    "slope without intercept": Hostile(
        "a.nii", plain(nifti_bytes(b112=floats(2, np.nan))), ("scl_slope 2 with scl_inter nan", "expected numbers")
    ),
    "slope beyond float32": Hostile("a.nii", plain(nifti_bytes(b112=floats(3e38, 0))), ("infinite",)),
    "wrong magic": Hostile("a.nii", plain(nifti_bytes(b344=b"nope")), ("magic",)),
    "voxels of another file": Hostile("a.nii", plain(nifti_bytes(b344=b"ni1\0")), ("magic", ".img")),
    "unknown dtype code": Hostile(
        "a.nii", plain(nifti_bytes(b70=struct.pack("<h", 1999))), ("dtype code 1999", "damaged")
    ),
    "voxels behind the end": Hostile("a.nii", plain(nifti_bytes(b108=floats(1e9))), ("voxels start at byte",)),
    "mgh of version 2": Hostile("a.mgh", plain(mgh_bytes(version=2)), ("version 2", "expected")),
    "mgh of an unknown kind": Hostile("a.mgh", plain(mgh_bytes(kind=77)), ("77",)),
    "text as nii": Hostile("a.nii", plain(b"hello, this is no scan\n" * 40), ("expected a NIfTI",)),
    "npz as nii.gz": Hostile("a.nii.gz", renamed_npz, ("starts with b'PK'", "expected a gzip stream")),
    "nifti as mgz": Hostile("a.mgz", packed(nifti_bytes()), ("expected", "MGH")),
    "mgz as nii.gz": Hostile("a.nii.gz", packed(mgh_bytes()), ("expected a NIfTI",)),
    "nifti as npz": Hostile("a.npz", plain(nifti_bytes()), ("not a readable .npz",)),
    "objects in an npz": Hostile("a.npz", objects, ("objects are never unpickled",)),
    "a folder": Hostile("a.nii.gz", lambda p: p.mkdir(), ("a folder",)),
    "a named pipe": Hostile("a.nii", lambda p: os.mkfifo(str(p)), ("not a regular file",)),
    "a device": Hostile("a.nii", lambda p: os.symlink("/dev/zero", str(p)), ("not a regular file",)),
    "a loop of links": Hostile("a.nii", loop, ("link",)),
    "a dangling link": Hostile("a.mgz", lambda p: os.symlink("nowhere.mgz", str(p)), ("link",)),
}

LABELS: Dict[str, Hostile] = {
    "interpolated": Hostile(
        "a_seg.nii", lambda p: nifti(p, with_value(2.5)), ("1 voxels are not whole numbers", "nearest")
    ),
    "NaN label": Hostile("a_seg.nii", lambda p: nifti(p, with_value(np.nan)), ("1 voxels are not whole numbers",)),
    "id beyond 2**31": Hostile(
        "a_seg.nii", lambda p: nifti(p, with_value(2.0**33)), ("1 voxels are not whole numbers",)
    ),
    "float32 ids above 2**24": Hostile(
        "a_seg.nii", lambda p: nifti(p, with_value(2.0**24 + 2)), ("16777218", "float32", "integer")
    ),
}


def write_all(folder: Path) -> Dict[str, Path]:
    """Every file in a folder of its own; case → path."""
    made = {}
    for number, (case, hostile) in enumerate({**CORPUS, **LABELS}.items()):
        path = folder / f"{number:02d}" / hostile.file
        path.parent.mkdir(parents=True)
        hostile.write(path)
        made[case] = path
    return made


if __name__ == "__main__":
    for name, where in write_all(Path(sys.argv[1])).items():
        sys.stdout.write(f"{where}\t{name}\n")
