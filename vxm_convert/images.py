# SPDX-License-Identifier: Apache-2.0
"""Images that a Python program passes: a path, a nibabel image, or an array with its affine; all are opened as files.

An image in memory is written to a private temporary folder first, so that it meets the same header rules and checks as
a file, and gives the same result.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple, Union

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.discovery import safe_name
from vxm_convert.scans.header import check_shape, read_errors
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.raw_header import PAIR_SUFFIX

#: a path; ``(array, affine)``, the affine from voxel index to RAS mm, shape (4, 4); or a nibabel image (NIfTI or MGH)
Image = Union[str, Path, Tuple[np.ndarray, np.ndarray], Any]
#: suffixes of nibabel's classes that are written as they are
_OWN_SUFFIXES = (".nii", ".mgh")
#: bytes of the widest numbers that a NIfTI holds and every reader knows
_WIDEST = 8
_PASS_AFFINE = "pass the 4x4 matrix from voxel index to RAS in mm"


@contextmanager
def on_disk(image: Image, name: str = "image") -> Iterator[Path]:
    """The file of an image: its own, or a temporary one that is removed at the end.

    Parameters
    ----------
    image : path, nibabel image, or (array, affine)
    name : str — of a temporary file, for messages.

    Raises
    ------
    VolumeError
        For anything else, for an array that is not 3-D (trailing sides of 1 are dropped), an affine that is none, or an
        image that cannot be written.
    """
    path = path_of(image)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vxm-") as folder, without_folder(Path(folder)):
        yield _write(image, Path(folder), safe_name(name))


@contextmanager
def without_folder(folder: Path) -> Iterator[None]:
    """Errors name files of this temporary folder by their names alone: it is gone when somebody reads them."""
    try:
        yield
    except VolumeError as exc:
        text = str(exc).replace(f"{folder}{os.sep}", "")
        if text == str(exc):
            raise
        raise type(exc)(text) from exc


def path_of(image: Image) -> Optional[Path]:
    """The file of an image, or None for one in memory."""
    return Path(image) if isinstance(image, (str, os.PathLike)) else None


def _write(image: Any, folder: Path, name: str) -> Path:
    if isinstance(image, tuple) and len(image) == 2:
        return _write_array(np.asarray(image[0]), image[1], folder / f"{name}.nii")
    suffix = _suffix_of(image)
    if suffix is None:
        raise VolumeError(
            f"{name}: got {type(image).__name__}, expected a path, a nibabel image (NIfTI or MGH), or a tuple of an array "
            "and its 4x4 affine; pass (array, affine)"
        )
    path = folder / f"{name}{suffix}"
    try:
        image.to_filename(str(path))
    except read_errors() + (TypeError,) as exc:
        raise VolumeError(f"{name}: nibabel cannot write this image ({exc}); pass (array, affine)") from exc
    return path


def _suffix_of(image: Any) -> Optional[str]:
    """The suffix under which a nibabel image is written as it is; None for anything else."""
    if not hasattr(image, "to_filename"):
        return None
    if getattr(getattr(image, "header", None), "is_single", True) is False:
        # A NIfTI in two files; Analyze, whose headers have no such mark, says nothing of a position.
        return PAIR_SUFFIX
    return next((s for s in _OWN_SUFFIXES if s in getattr(type(image), "valid_exts", ())), None)


def _write_array(array: np.ndarray, affine: Any, path: Path) -> Path:
    name = path.stem
    if array.ndim < 3 or array.dtype.kind not in "uifb" or array.dtype.itemsize > _WIDEST:
        raise VolumeError(f"{name}: array of shape {array.shape}, {array.dtype}; expected 3-D, integers or floats")
    shape = check_shape(array.shape, path)
    try:
        grid = Grid(shape, np.asarray(affine, dtype=float))
    except (TypeError, ValueError) as exc:
        raise VolumeError(f"{name}: affine of {type(affine).__name__}, expected numbers; {_PASS_AFFINE}") from exc
    except VolumeError as exc:
        raise VolumeError(f"{name}: {str(exc).partition(';')[0]}; {_PASS_AFFINE}") from exc
    write_nifti(path, array.reshape(shape), grid.affine)
    return path
