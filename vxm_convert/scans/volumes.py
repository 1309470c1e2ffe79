# SPDX-License-Identifier: Apache-2.0
"""Scans, atlases and segmentations: reading .npz, .nii, .nii.gz, .mgz, .mgh, checking them, and the intensity rule.

Every size is judged from the file's header before data are loaded. Nothing here resamples: volumes must already
lie on the network grid, and array axes are taken as they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.lazy import LazyModule
from vxm_convert.model.contract import IntensityRule
from vxm_convert.scans.header import MAX_VOLUME_BYTES, check_shape, open_scan, volume_suffix
from vxm_convert.scans.npz import NPZ_IMAGE_NAMES, NPZ_LABEL_NAMES, NpzReader
from vxm_convert.scans.raw_header import require_file

nib = LazyModule("nibabel")
LOG = logging.getLogger(__name__)

#: 99.9th percentile of the positive voxels, and the network value it is given: FreeSurfer's brains / 255 have 0.43 to
#: 0.59 there
_TOP_PERCENTILE, _TOP_VALUE = 99.9, 0.5
#: largest whole number up to which these floats hold every one
EXACT_IN_FLOAT32 = 2**24
_EXACT_IN = {"float16": 2**11, "float32": EXACT_IN_FLOAT32}
#: interpolation overshoot that is still within a convention, as a fraction of its range
_INTENSITY_SLACK = 2e-3
#: a 0..255 scan whose maximum is below this fraction of 255 cannot be told from an overshooting 0..1 scan
_AMBIGUOUS_BELOW = 1.0 / 8.0


@dataclass(frozen=True)
class Volume:
    """One 3-D array with where it came from.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) — float32 for images, an integer dtype for segmentations.
    affine : ndarray, shape (4, 4), float64 — voxel index → RAS mm from the header, or None where the format has none
        (.npz).
    path : Path — the file.
    stored_dtype : str — NumPy name of the dtype of the values in the file (float if the header rescales integers).
    """

    data: np.ndarray
    affine: Optional[np.ndarray]
    path: Path
    stored_dtype: str


@dataclass(frozen=True)
class Intensity:
    """The convention found in a scan: its name for logs and tables, and the factor that file values carry over network
    inputs.
    """

    name: str
    factor: float


def read_image(path: Path, expected_shape: Optional[Tuple[int, int, int]] = None) -> Volume:
    """A scan as float32 in the file's own intensities.

    Raises
    ------
    VolumeError
        Unreadable or hostile file, not 3-D (trailing sides of 1 are dropped), or not `expected_shape`.
    """
    path = _existing(path)
    if volume_suffix(path) == ".npz":
        with NpzReader(path) as archive:
            name = archive.first_of(NPZ_IMAGE_NAMES)
            if name is None:
                raise VolumeError(
                    f"{path}: holds {archive.names}, expected an array named {' or '.join(NPZ_IMAGE_NAMES)}"
                )
            shape = check_shape(archive.header(name).shape, expected_shape, path)
            data = archive.read(name, MAX_VOLUME_BYTES)
        return Volume(data.reshape(shape).astype(np.float32), None, path, data.dtype.name)
    scan = open_scan(path, expected_shape)
    raw = scan.voxels()
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(raw, dtype=np.float32)
    _warn_of_rounding(raw, path)
    return Volume(data, np.array(scan.grid.affine), path, raw.dtype.name)


def read_labels(path: Path, expected_shape: Optional[Tuple[int, int, int]] = None) -> Optional[Volume]:
    """A segmentation, its integer dtype kept (whole-numbered floats become int32); None for an .npz without one.

    Raises
    ------
    VolumeError
        As `read_image`, and for values that are not whole numbers.
    """
    path = _existing(path)
    affine = None
    if volume_suffix(path) == ".npz":
        with NpzReader(path) as archive:
            name = archive.first_of(NPZ_LABEL_NAMES)
            if name is None:
                return None
            shape = check_shape(archive.header(name).shape, expected_shape, path)
            raw = archive.read(name, MAX_VOLUME_BYTES).reshape(shape)
    else:
        scan = open_scan(path, expected_shape)
        raw, affine = scan.voxels(), np.array(scan.grid.affine)
    return Volume(_as_integers(raw, path), affine, path, raw.dtype.name)


def check_values(volume: Volume) -> None:
    """Raise VolumeError for NaN or Inf (count and first index) and for a constant image."""
    finite = np.isfinite(volume.data)
    bad = int(finite.size - np.count_nonzero(finite))
    if bad:
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
        raise VolumeError(
            f"{volume.path}: {bad} voxels are NaN or infinite, the first at index {first}; expected finite "
            "intensities, mend the scan"
        )
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        raise VolumeError(f"{volume.path}: every voxel is {low:g}; expected a scan with contrast")


def detect_intensity(volume: Volume, rule: IntensityRule) -> Intensity:
    """Which of the two conventions a scan follows: the network's own range, or that range times ``rule.scale``.

    Raises
    ------
    VolumeError
        For values outside both, and for a maximum that could belong to either.
    """
    low, high = float(volume.data.min()), float(volume.data.max())
    slack = _INTENSITY_SLACK * (rule.high - rule.low)
    stored_name, unit_name = f"{rule.low * rule.scale:g}..{rule.high * rule.scale:g}", f"{rule.low:g}..{rule.high:g}"
    advice = f"expected {stored_name} or {unit_name}: {rule.convention}"
    if rule.low - slack <= low and high <= rule.high + slack:
        return Intensity(unit_name, 1.0)
    if low < (rule.low - slack) * rule.scale or high > (rule.high + slack) * rule.scale:
        raise VolumeError(f"{volume.path}: intensities {low:g}..{high:g}, {advice}")
    if high < rule.high * rule.scale * _AMBIGUOUS_BELOW:
        raise VolumeError(f"{volume.path}: intensities {low:g}..{high:g} fit neither convention for certain, {advice}")
    return Intensity(stored_name, rule.scale)


def percentile_intensity(volume: Volume) -> Intensity:
    """The convention of a scan of any scale: the 99.9th percentile of its positive voxels becomes 0.5; VolumeError
    where none is positive.

    Values beyond the network's range must be clipped afterwards.
    """
    positive = volume.data[volume.data > 0]
    if not positive.size:
        raise VolumeError(f"{volume.path}: no voxel is above 0, expected a scan for --intensity percentile")
    top = float(np.percentile(positive, _TOP_PERCENTILE))
    return Intensity(f"{_TOP_PERCENTILE:g} % at {top:.6g} = {_TOP_VALUE:g}", top / _TOP_VALUE)


def load_scan(path: Path, expected_shape: Tuple[int, int, int], rule: IntensityRule) -> Tuple[Volume, Intensity]:
    """Read, check and normalise one scan to network inputs (value / scale, float32); see the functions it calls for
    Raises.
    """
    volume = read_image(path, expected_shape)
    check_values(volume)
    intensity = detect_intensity(volume, rule)
    if intensity.factor != 1.0:
        volume = Volume(volume.data / np.float32(intensity.factor), volume.affine, volume.path, volume.stored_dtype)
    LOG.debug("%s: intensities %s, divided by %g", path, intensity.name, intensity.factor)
    return volume, intensity


def axis_codes(affine: np.ndarray) -> str:
    """FreeSurfer letters of the directions in which the array axes run, e.g. ``LIA``; ``???`` for a degenerate
    affine.
    """
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "???"
    return "".join(str(code) for code in nib.aff2axcodes(affine))


def spacing_mm(affine: np.ndarray) -> Tuple[float, float, float]:
    """Voxel sizes in mm along the array axes."""
    return tuple(float(s) for s in np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0)))


def _existing(path: Path) -> Path:
    return require_file(path, "a scan, atlas or segmentation")


def _warn_of_rounding(raw: np.ndarray, path: Path) -> None:
    """Images are float32: whole numbers above 2**24 are not all among them."""
    if raw.dtype.kind in "ui" and raw.dtype.itemsize >= 4 and int(np.abs(raw).max()) > EXACT_IN_FLOAT32:
        LOG.warning(
            "%s: values up to %d, read as float32, which rounds above %d; a segmentation wants nearest or labels",
            path,
            int(np.abs(raw).max()),
            EXACT_IN_FLOAT32,
        )


def _as_integers(raw: np.ndarray, path: Path) -> np.ndarray:
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.dtype.kind in "ui":
        _say_negative(raw, path)
        return np.ascontiguousarray(raw, dtype=raw.dtype.newbyteorder("="))
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(raw) & (raw == np.rint(raw)) & (np.abs(raw) < 2**31)
    if not whole.all():
        raise VolumeError(
            f"{path}: {int((~whole).sum())} voxels are no whole numbers, expected label ids; "
            "a segmentation must be resampled with nearest neighbour"
        )
    if raw.dtype.itemsize <= 4 and float(np.abs(raw).max()) > _EXACT_IN.get(raw.dtype.name, EXACT_IN_FLOAT32):
        raise VolumeError(
            f"{path}: ids up to {float(np.abs(raw).max()):.0f} stored as {raw.dtype.name}, which holds every whole "
            "number only up to "
            f"{_EXACT_IN.get(raw.dtype.name, EXACT_IN_FLOAT32)}; ids may have been rounded, save the segmentation in "
            "an integer type"
        )
    _say_negative(raw, path)
    return np.ascontiguousarray(raw, dtype=np.int32)


def _say_negative(raw: np.ndarray, path: Path) -> None:
    if raw.dtype.kind != "u" and float(raw.min()) < 0:
        LOG.warning(
            "%s: %d voxels have ids below 0, down to %d; kept, but no structure has such an id",
            path,
            (raw < 0).sum(),
            raw.min(),
        )
