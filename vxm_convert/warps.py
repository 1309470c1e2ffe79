# SPDX-License-Identifier: Apache-2.0
"""Warps for Python programs: read, apply, invert, convert, save. The work is in `geometry` and `transforms`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple, Union

import numpy as np

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import VolumeError
from vxm_convert.geometry import fields
from vxm_convert.geometry.inversion import TOLERANCE_MM, InverseReport
from vxm_convert.geometry.inversion import invert as invert_field
from vxm_convert.geometry.resample import resample, to_dtype
from vxm_convert.images import Image, on_disk
from vxm_convert.scans.nifti import nifti_image
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.partners import check_meeting, image_grid, read_with_images
from vxm_convert.transforms.warps import write_warp

__all__ = ["Warp", "apply", "convert", "invert", "read"]


@dataclass(frozen=True)
class Warp(fields.Warp):
    """A dense map from the voxels of a fixed grid to the voxels of a moving grid.

    Parameters
    ----------
    u : ndarray, shape (X, Y, Z, 3), float32 or float64 — voxels: moving index minus fixed index, components along the
        array axes.
    fixed, moving : Grid — shape and affine (voxel index → RAS mm) of both images.

    Raises
    ------
    VolumeError
        If the shapes disagree.

    Examples
    --------
    >>> warp = warps.read("flow.nii.gz")                 # doctest: +SKIP
    >>> warp.apply("scan.mgz").to_filename("moved.nii.gz")   # doctest: +SKIP
    >>> warp.invert().save("inverse.nii.gz", "fsl")      # doctest: +SKIP
    """

    @classmethod
    def of(cls, warp: fields.Warp) -> Warp:
        """The same map, with the methods of this class."""
        return cls(warp.u, warp.fixed, warp.moving)

    def apply(self, image: Image, interpolation: str = "linear", edge: str = "zero") -> Any:
        """Resample an image of the moving space onto the fixed grid, once.

        Parameters
        ----------
        image : path, nibabel image, or (array, affine) — on any grid in the moving space.
        interpolation : str — ``linear``; ``nearest`` or ``labels`` (interpolate each label's indicator, take the
            largest) for segmentations.
        edge : str — values outside the image: ``zero``, or ``clamp`` to repeat its border.

        Returns
        -------
        nibabel.Nifti1Image, shape (X, Y, Z) — in the image's own dtype.

        Raises
        ------
        VolumeError
            For an image that cannot be read or that the warp does not lead into, unknown names, labels that are no whole
            numbers, and a warp with NaN or infinite values.
        """
        fields.check_finite(self.u, "warp")
        with on_disk(image) as path:
            file = ScanFile(path)
            grid = image_grid(file, self.moving)
            volume = file.image() if interpolation == "linear" else file.labels()
            if volume is None:
                raise VolumeError(f"{path}: an .npz without 'seg', expected a segmentation for {interpolation}")
            warp = self.on_moving(grid)
            check_meeting(warp, path)
            moved = resample(volume.data, warp, interpolation, edge)
            if interpolation == "linear":
                moved = to_dtype(moved, volume.stored_dtype)
        return nifti_image(moved, self.fixed.affine)

    def invert(self, tolerance_mm: float = TOLERANCE_MM) -> Warp:
        """The inverse map, from the moving grid to the fixed one: it resamples the fixed image onto the moving grid.

        Parameters
        ----------
        tolerance_mm : float — residual at which a voxel counts as solved.

        Raises
        ------
        VolumeError
            For a warp that collapses space or has NaN or infinite values, and a tolerance that is not above 0.
        """
        return Warp.of(self._inverted(tolerance_mm)[0])

    def inverse_report(self, tolerance_mm: float = TOLERANCE_MM) -> InverseReport:
        """How well the warp can be inverted: errors in mm in both directions, voxels in folds, voxels not solved; raises as
        `invert`.
        """
        return self._inverted(tolerance_mm)[2]

    def _inverted(self, tolerance_mm: float) -> Tuple[fields.Warp, np.ndarray, InverseReport]:
        if not tolerance_mm > 0:
            raise VolumeError(f"tolerance_mm: got {tolerance_mm}, expected mm above 0")
        fields.check_finite(self.u, "warp")
        return invert_field(self, tolerance=tolerance_mm)

    def save(self, path: Union[str, Path], format: str = "itk", dtype: str = "float32") -> Path:
        """Write the warp and its side-car (``<file>.json``).

        Parameters
        ----------
        path : str or Path — ``.nii.gz`` or ``.nii``; for l2r also ``.npz``.
        format : str — ``itk`` (also ANTs and Slicer), ``fsl``, ``freesurfer``, ``l2r`` or ``vxm``.
        dtype : str — ``float32``; ``float16`` for l2r in ``.npz``.

        Returns
        -------
        Path — of the file.

        Raises
        ------
        VolumeError
            For NaN, an unknown format, or a name or dtype that the format does not have.
        ArtifactError
            If the file cannot be written; nothing is left behind.
        """
        write_warp(Path(path), self, format, dtype=dtype)
        return Path(path)


def read(
    path: Union[str, Path], format: Optional[str] = None, moving: Optional[Image] = None, fixed: Optional[Image] = None
) -> Warp:
    """Read a warp of any tool.

    Parameters
    ----------
    path : str or Path — ``.nii.gz``, ``.nii``, ``.npz`` or ITK's ``.h5``.
    format : str or None — ``itk``, ``fsl``, ``freesurfer``, ``l2r``, ``vxm``, ``spm`` or ``niftyreg``; None: from header
        and side-car.
    moving, fixed : path, nibabel image, (array, affine) or None — images on the moving and fixed grid. Some formats do
        not name their grids; FSL's need the moving image.

    Raises
    ------
    VolumeError
        For a damaged file, another format, NaN, a grid that is needed and unknown, or numbers that are no registration.
    """
    with ExitStack() as stack:
        files = [None if image is None else stack.enter_context(on_disk(image)) for image in (moving, fixed)]
        warp = read_with_images(Path(path), format, files[0], files[1])
    return Warp.of(warp)


def apply(warp: fields.Warp, image: Image, interpolation: str = "linear", edge: str = "zero") -> Any:
    """As `Warp.apply`, for any warp."""
    return Warp.of(warp).apply(image, interpolation, edge)


def invert(warp: fields.Warp, tolerance_mm: float = TOLERANCE_MM) -> Warp:
    """As `Warp.invert`, for any warp."""
    return Warp.of(warp).invert(tolerance_mm)


def convert(
    source: Union[str, Path],
    target: Union[str, Path],
    format: str,
    moving: Optional[Image] = None,
    fixed: Optional[Image] = None,
    source_format: Optional[str] = None,
    dtype: str = "float32",
) -> Warp:
    """Write a warp file in another tool's format; the map in space stays the same.

    Parameters
    ----------
    source, target : str or Path — files; the target's suffix as in `Warp.save`.
    format, dtype : str — of the target, as in `Warp.save`.
    moving, fixed, source_format — as `moving`, `fixed` and `format` of `read`.

    Returns
    -------
    Warp — as read from `source`.

    Raises
    ------
    VolumeError, ArtifactError
        As `read` and `Warp.save`.
    """
    warp = read(source, source_format, moving, fixed)
    write_warp(Path(target), warp, format, {"warp": sha256_of(Path(source))}, dtype=dtype)
    return warp
