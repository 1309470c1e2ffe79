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
from vxm_convert.scans.nifti import write_nifti

#: a path; ``(array, affine)``, the affine from voxel index to RAS mm, shape (4, 4); or a nibabel image (NIfTI or MGH)
Image = Union[str, Path, Tuple[np.ndarray, np.ndarray], Any]
#: suffixes of nibabel's classes that are written as they are
_OWN_SUFFIXES = (".nii", ".mgh")


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
        For anything else, for an array that is not 3-D, an affine that is none, or an image that cannot be written.
    """
    path = path_of(image)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vxm-") as folder:
        yield _write(image, Path(folder), safe_name(name))


def path_of(image: Image) -> Optional[Path]:
    """The file of an image, or None for one in memory."""
    return Path(image) if isinstance(image, (str, os.PathLike)) else None


def _write(image: Any, folder: Path, name: str) -> Path:
    if isinstance(image, tuple) and len(image) == 2:
        array, affine = np.asarray(image[0]), image[1]
        if array.ndim != 3 or array.dtype.kind not in "uifb":
            raise VolumeError(f"{name}: array of shape {array.shape}, {array.dtype}; expected 3-D, integers or floats")
        grid, path = Grid(array.shape, affine), folder / f"{name}.nii"
        write_nifti(path, array, grid.affine)
        return path
    suffix = next((s for s in _OWN_SUFFIXES if s in getattr(type(image), "valid_exts", ())), None)
    if suffix is None or not hasattr(image, "to_filename"):
        raise VolumeError(
            f"{name}: got {type(image).__name__}, expected a path, a nibabel image (NIfTI or MGH), or a tuple of an array "
            "and its 4x4 affine; pass (array, affine)"
        )
    path = folder / f"{name}{suffix}"
    try:
        image.to_filename(str(path))
    except (OSError, ValueError, TypeError) as exc:
        raise VolumeError(f"{name}: nibabel cannot write this image ({exc}); pass (array, affine)") from exc
    return path
