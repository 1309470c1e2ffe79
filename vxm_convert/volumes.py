# SPDX-License-Identifier: Apache-2.0
"""Scans, atlases and segmentations: reading .npz, .nii, .nii.gz, .mgz, .mgh, checking them, and the intensity rule.

Every size is judged from the file's header before data are loaded. Nothing here resamples: volumes must already
lie on the network grid, and array axes are taken as they are.
"""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple

import nibabel as nib
import numpy as np

from vxm_convert.contract import Grid, IntensityRule
from vxm_convert.errors import VolumeError
from vxm_convert.npz import NpzReader

LOG = logging.getLogger(__name__)

VOLUME_SUFFIXES = (".nii.gz", ".npz", ".nii", ".mgz", ".mgh")
#: array names in an .npz: `vol` today, `vol_data` in VoxelMorph's older files
NPZ_IMAGE_NAMES = ("vol", "vol_data")
NPZ_LABEL_NAMES = ("seg",)
#: 512³ voxels of float64: far above any brain grid, far below what hurts
MAX_VOLUME_BYTES = 512**3 * 8
NETWORK_GRID = Grid()
#: RAS position (mm) of the grid's centre index (side / 2): that of the 160x192x224 crop of FreeSurfer's conformed 256³ grid
_GRID_CENTRE_RAS = np.array([0.0, -13.0, 1.0])
_AXIS_VECTORS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
#: interpolation overshoot that is still within a convention, as a fraction of its range
_INTENSITY_SLACK = 2e-3
#: a 0..255 scan whose maximum is below this fraction of 255 cannot be told from an overshooting 0..1 scan
_AMBIGUOUS_BELOW = 1.0 / 8.0
#: what nibabel lets escape on damaged files
READ_ERRORS = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    struct.error,
    OverflowError,
    KeyError,
    MemoryError,
)


@dataclass(frozen=True)
class Volume:
    """One 3-D array with where it came from.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z) — float32 for images, an integer dtype for segmentations.
    affine : ndarray, shape (4, 4), float64 — voxel index → RAS mm from the header, or None where the format has none (.npz).
    path : Path — the file.
    stored_dtype : str — NumPy name of the dtype of the values in the file (float if the header rescales integers).
    """

    data: np.ndarray
    affine: Optional[np.ndarray]
    path: Path
    stored_dtype: str


@dataclass(frozen=True)
class Intensity:
    """The convention found in a scan: its name for logs and tables, and the factor that file values carry over network inputs."""

    name: str
    factor: float


def volume_suffix(path: Path) -> Optional[str]:
    """The suffix of a volume file (``.nii.gz`` counts as one), or None for any other file."""
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def network_affine(shape: Tuple[int, int, int], grid: Grid = NETWORK_GRID) -> np.ndarray:
    """Voxel index → RAS mm of a network grid that has no header.

    For 160x192x224, LIA, 1 mm this is the crop ((48,48),(31,33),(3,29)) of FreeSurfer's conformed 256³ volume with c_ras = 0:
    ``[[-1,0,0,80],[0,0,1,-125],[0,-1,0,97],[0,0,0,1]]``. Any other shape is centred on the same point,
    index ``shape / 2`` ↔ RAS (0, -13, 1) mm.
    """
    if sorted("RAS".find(c) if c in "RAS" else "LPI".find(c) for c in grid.orientation) != [0, 1, 2]:
        raise VolumeError(f"grid orientation: got {grid.orientation!r}, expected three letters such as LIA, one of each of L/R, A/P, S/I")
    affine = np.eye(4)
    affine[:3, :3] = np.array([_AXIS_VECTORS[c] for c in grid.orientation], dtype=float).T * np.asarray(grid.spacing_mm, dtype=float)
    affine[:3, 3] = _GRID_CENTRE_RAS - affine[:3, :3] @ (np.asarray(shape, dtype=float) / 2.0)
    return affine


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
                raise VolumeError(f"{path}: holds {archive.names}, expected an array named {' or '.join(NPZ_IMAGE_NAMES)}")
            shape = check_shape(archive.header(name).shape, expected_shape, path)
            data = archive.read(name, MAX_VOLUME_BYTES)
        return Volume(data.reshape(shape).astype(np.float32), None, path, data.dtype.name)
    image, shape = _open_nibabel(path, expected_shape)
    try:
        raw = np.asanyarray(image.dataobj)
    except READ_ERRORS as exc:
        raise VolumeError(f"{path}: damaged data ({exc}); copy the file again") from exc
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(raw.reshape(shape, order="F"), dtype=np.float32)
    return Volume(data, np.array(image.affine, dtype=float), path, raw.dtype.name)


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
        image, shape = _open_nibabel(path, expected_shape)
        try:
            raw = np.asanyarray(image.dataobj).reshape(shape, order="F")
        except READ_ERRORS as exc:
            raise VolumeError(f"{path}: damaged data ({exc}); copy the file again") from exc
        affine = np.array(image.affine, dtype=float)
    return Volume(_as_integers(raw, path), affine, path, raw.dtype.name)


def check_shape(shape: Tuple[int, ...], expected: Optional[Tuple[int, int, int]], path: Path) -> Tuple[int, int, int]:
    """The three sides of `shape` without trailing ones; raises VolumeError when they are not three or not `expected`."""
    sides = tuple(int(n) for n in shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    text = "x".join(str(n) for n in shape)
    if len(sides) != 3:
        raise VolumeError(f"{path}: {len(sides)}-D volume {text}, expected one 3-D scan; take a single frame out of it first")
    if min(sides) < 1 or np.prod(sides, dtype=float) * 8 > MAX_VOLUME_BYTES:
        raise VolumeError(f"{path}: shape {text}, expected between 1 and {MAX_VOLUME_BYTES // 8} voxels; the header is damaged")
    if expected is not None and sides != tuple(expected):
        want = "x".join(str(n) for n in expected)
        raise VolumeError(
            f"{path}: shape {text}, the network wants {want}; scans and atlas must lie on the network grid (resample or crop them to it)"
        )
    return sides


def check_values(volume: Volume) -> None:
    """Raise VolumeError for NaN or Inf (count and first index) and for a constant image."""
    finite = np.isfinite(volume.data)
    bad = int(finite.size - np.count_nonzero(finite))
    if bad:
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
        raise VolumeError(
            f"{volume.path}: {bad} voxels are NaN or infinite, the first at index {first}; expected finite intensities, mend the scan"
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


def load_scan(path: Path, expected_shape: Tuple[int, int, int], rule: IntensityRule) -> Tuple[Volume, Intensity]:
    """Read, check and normalise one scan to network inputs (value / scale, float32); see the functions it calls for Raises."""
    volume = read_image(path, expected_shape)
    check_values(volume)
    intensity = detect_intensity(volume, rule)
    if intensity.factor != 1.0:
        volume = Volume(volume.data / np.float32(intensity.factor), volume.affine, volume.path, volume.stored_dtype)
    LOG.debug("%s: intensities %s, divided by %g", path, intensity.name, intensity.factor)
    return volume, intensity


def axis_codes(affine: np.ndarray) -> str:
    """FreeSurfer letters of the directions in which the array axes run, e.g. ``LIA``; ``???`` for a degenerate affine."""
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "???"
    return "".join(str(code) for code in nib.aff2axcodes(affine))


def spacing_mm(affine: np.ndarray) -> Tuple[float, float, float]:
    """Voxel sizes in mm along the array axes."""
    return tuple(float(s) for s in np.sqrt((np.asarray(affine, dtype=float)[:3, :3] ** 2).sum(axis=0)))


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file, expected a scan, atlas or segmentation; check the path")
    return path


def _open_nibabel(path: Path, expected: Optional[Tuple[int, int, int]]) -> Tuple[Any, Tuple[int, int, int]]:
    """A lazily opened image and its checked 3-D shape; no voxel is loaded yet."""
    if volume_suffix(path) is None:
        raise VolumeError(f"{path}: unknown kind of file, expected one of {', '.join(VOLUME_SUFFIXES)}")
    try:
        image = nib.load(str(path))
        dtype = np.dtype(image.get_data_dtype())
    except READ_ERRORS as exc:
        raise VolumeError(f"{path}: not a readable {volume_suffix(path)} ({exc}); export the scan again") from exc
    shape = check_shape(image.shape, expected, path)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise VolumeError(f"{path}: voxels of dtype {dtype}, expected plain integers or floats; colour and complex volumes are no scans")
    return image, shape


def _as_integers(raw: np.ndarray, path: Path) -> np.ndarray:
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.dtype.kind in "ui":
        return np.ascontiguousarray(raw, dtype=raw.dtype.newbyteorder("="))
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(raw) & (raw == np.rint(raw)) & (np.abs(raw) < 2**31)
    if not whole.all():
        raise VolumeError(
            f"{path}: {int((~whole).sum())} voxels are no whole numbers, expected label ids; "
            "a segmentation must be resampled with nearest neighbour"
        )
    return np.ascontiguousarray(raw, dtype=np.int32)
