# SPDX-License-Identifier: Apache-2.0
"""Voxels of a scan in memory, checks of them, and label ids as integers. Opens no file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from vxm_convert.errors import VolumeError

LOG = logging.getLogger(__name__)

#: largest whole number up to which these floats represent all whole numbers
EXACT_IN_FLOAT32 = 2**24
#: floats this close to a whole number are that label: scaling and text formats leave such differences
_NEARLY_WHOLE = 1e-3
_EXACT_IN = {"float16": 2**11, "float32": EXACT_IN_FLOAT32}
#: for label ids, smallest first
_ID_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


@dataclass(frozen=True)
class Volume:
    """One 3-D array with its origin.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) — float32 for images, an integer dtype for segmentations.
    affine : ndarray, shape (4, 4), float64 — voxel index → RAS mm from the header, or None if the format has none
        (.npz).
    path : Path — the file.
    stored_dtype : str — NumPy name of the dtype of the values in the file (float if the header rescales integers).
    """

    data: np.ndarray
    affine: Optional[np.ndarray]
    path: Path
    stored_dtype: str


def check_values(volume: Volume) -> None:
    """Raise VolumeError for NaN or Inf (count and first index) and for a constant image."""
    finite = np.isfinite(volume.data)
    bad = int(finite.size - np.count_nonzero(finite))
    if bad:
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
        raise VolumeError(
            f"{volume.path}: {bad} voxels are NaN or infinite, the first at index {first}; expected finite "
            "intensities; correct the scan"
        )
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        raise VolumeError(f"{volume.path}: every voxel is {low:g}; expected a scan with contrast")


def warn_of_rounding(raw: np.ndarray, path: Path) -> None:
    """Images are float32, which does not represent all whole numbers above 2**24."""
    if raw.dtype.kind in "ui" and raw.dtype.itemsize >= 4 and int(np.abs(raw).max()) > EXACT_IN_FLOAT32:
        LOG.warning(
            "%s: values up to %d, read as float32, which rounds above %d; for a segmentation use nearest or labels",
            path,
            int(np.abs(raw).max()),
            EXACT_IN_FLOAT32,
        )


def as_integers(raw: np.ndarray, path: Path) -> np.ndarray:
    """Label ids: integers as they are, floats that are whole but for rounding as int32; raises VolumeError for anything else."""
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.dtype.kind in "ui":
        _say_negative(raw, path)
        return np.ascontiguousarray(raw, dtype=raw.dtype.newbyteorder("="))
    with np.errstate(invalid="ignore"):
        nearest = np.rint(raw)
        whole = np.isfinite(raw) & (np.abs(raw - nearest) <= _NEARLY_WHOLE) & (np.abs(raw) < 2**31)
    if not whole.all():
        raise VolumeError(
            f"{path}: {int((~whole).sum())} voxels are not whole numbers, expected label ids; a segmentation must be "
            "resampled with nearest neighbour"
        )
    if raw.dtype.itemsize <= 4 and float(np.abs(raw).max()) > _EXACT_IN.get(raw.dtype.name, EXACT_IN_FLOAT32):
        raise VolumeError(
            f"{path}: ids up to {float(np.abs(raw).max()):.0f} stored as {raw.dtype.name}, which represents all whole "
            f"numbers only up to {_EXACT_IN.get(raw.dtype.name, EXACT_IN_FLOAT32)}; ids may have been rounded, save "
            "the segmentation in an integer type"
        )
    rounded = int(np.count_nonzero(raw != nearest))
    if rounded:
        LOG.warning("%s: %d voxels are whole numbers but for rounding (such as 0.99998); rounded", path, rounded)
    _say_negative(raw, path)
    return np.ascontiguousarray(nearest, dtype=np.int32)


def narrowed(ids: np.ndarray) -> np.ndarray:
    """Label ids in the smallest integer type that holds them; the same array if that is its own."""
    if not ids.size:
        return ids
    low, high = int(ids.min()), int(ids.max())
    smaller = [np.dtype(name) for name in _ID_TYPES if np.dtype(name).itemsize < ids.dtype.itemsize]
    fits = [one for one in smaller if np.iinfo(one).min <= low and high <= np.iinfo(one).max]
    return ids.astype(fits[0]) if fits else ids


def _say_negative(raw: np.ndarray, path: Path) -> None:
    if raw.dtype.kind != "u" and float(raw.min()) < 0:
        LOG.warning(
            "%s: %d voxels have ids below 0, down to %d; kept, but no structure has such an id",
            path,
            (raw < 0).sum(),
            raw.min(),
        )
