# SPDX-License-Identifier: Apache-2.0
"""Headers of Analyze 7.5 (.hdr, with the voxels in .img), as SPM and AIR wrote them. Their place in space is not trusted:
programs disagree about left and right, and the format has no position.

Source: `struct dsr` in Mayo Clinic's description of the format; SPM's use of `funused1`, its spm_vol_ana.m.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.scans.raw_header import NIFTI_1, check_spacing, check_start, image_beside
from vxm_convert.scans.textual.stored import Stored

_SIZE = NIFTI_1
#: bytes of a NIfTI's mark, of which Analyze has none
_NIFTI_MARK = slice(344, 348)
_NIFTI_MARKS = (b"ni1\0", b"n+1\0")
#: field → (offset, struct format)
_FIELDS = {
    "dim": (40, "8h"),  # number of sides, sides
    "datatype": (70, "h"),
    "pixdim": (80, "3f"),  # mm
    "vox_offset": (108, "f"),
    "funused1": (112, "f"),  # SPM: factor of the voxels
}
#: code → dtype without byte order; 1 is bits, 32 complex, 128 colour
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"}


def is_analyze(path: Path) -> bool:
    """Whether a ``.hdr`` has the size of an Analyze header in its first bytes, and not the mark of a NIfTI."""
    with open(str(path), "rb") as handle:
        head = handle.read(_SIZE)
    sized = head[:4] in (struct.pack("<i", _SIZE), struct.pack(">i", _SIZE))
    return sized and head[_NIFTI_MARK] not in _NIFTI_MARKS


def read_analyze(path: Path) -> Stored:
    """The header of an Analyze pair.

    Raises
    ------
    VolumeError
        For a damaged header, more or fewer than three axes, voxels that are not plain numbers, and a factor of the voxels,
        which some programs apply and others do not.
    """
    with open(str(path), "rb") as handle:
        head = handle.read(_SIZE)
    if len(head) < _SIZE:
        raise VolumeError(f"{path}: the header ends after {len(head)} bytes, expected {_SIZE}; copy the file again")
    order = "<" if head[:4] == struct.pack("<i", _SIZE) else ">"
    values = {name: struct.unpack_from(order + form, head, at) for name, (at, form) in _FIELDS.items()}
    (code,), (start,), (factor,), spacing = (values[n] for n in ("datatype", "vox_offset", "funused1", "pixdim"))
    if code not in _TYPES:
        known = ", ".join(str(number) for number in _TYPES)
        raise VolumeError(f"{path}: voxels of type {code}, expected one of {known}: plain integers or floats")
    if factor not in (0.0, 1.0):
        raise VolumeError(
            f"{path}: a factor of {factor:g} (funused1), which SPM applies to the voxels and other programs do not; convert "
            "it to .nii.gz with the program that wrote it"
        )
    check_spacing(path, spacing)
    check_start(path, start, 0)
    affine = np.diag((*(float(size) for size in spacing), 1.0))
    number, *every = values["dim"]
    if not 1 <= number <= 7:
        raise VolumeError(f"{path}: {number} dimensions, expected 1 to 7; the header is damaged")
    shape = tuple(every[:number])
    return Stored(path, shape, np.dtype(order + _TYPES[code]), False, int(start), affine, False, image_beside(path))
