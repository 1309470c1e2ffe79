# SPDX-License-Identifier: Apache-2.0
"""Vector fields in an .npz, which says nothing of where its grid lies; and fields at half resolution, by their shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.npz import NpzReader
from vxm_convert.scans.raw_header import require_file
from vxm_convert.transforms.nifti_field import MAX_FIELD_VOXELS, Field

NPZ_WARP_NAMES = ("arr_0", "warp", "flow", "disp", "vol")


def read_npz_field(path: Path, format_name: Optional[str], fixed: Optional[Grid]) -> Field:
    """The field of an .npz, (X, Y, Z, 3) in voxels of the fixed grid.

    Raises
    ------
    VolumeError
        Without the fixed grid, for another shape than its own, and for damaged archives.
    """
    if format_name not in (None, "l2r", "vxm"):
        raise VolumeError(f"{path}: an .npz contains voxels (l2r, vxm), not {format_name}")
    require_file(path, "a warp")
    with NpzReader(path) as archive:
        name = archive.first_of(NPZ_WARP_NAMES) or (archive.names[0] if len(archive.names) == 1 else None)
        if name is None:
            raise VolumeError(
                f"{path}: contains {archive.names}, expected one array or one named {', '.join(NPZ_WARP_NAMES)}"
            )
        header = archive.header(name)
        _refuse_components_first(f"{path}[{name}]", header.shape, fixed)
        if len(header.shape) != 4 or header.shape[3] != 3 or min(header.shape) < 1 or header.dtype.kind != "f":
            raise VolumeError(
                f"{path}[{name}]: shape {header.shape} of {header.dtype}, expected floats of shape (X, Y, Z, 3)"
            )
        if fixed is None:
            raise VolumeError(f"{path}: an .npz does not give the position of its grid; pass the fixed image")
        if header.shape[:3] != fixed.shape:
            raise VolumeError(
                f"{path}[{name}]: shape {header.shape}, the fixed grid is {fixed.describe()}"
                f"{_upsampling(header.shape[:3], fixed, 'moveaxis(u, 3, 0)')}"
            )
        data = archive.read(name, MAX_FIELD_VOXELS * 3 * header.dtype.itemsize)
    return Field(data.astype(np.float64), fixed, header.shape, 0, [])


def _refuse_components_first(where: str, shape: Tuple[int, ...], fixed: Optional[Grid]) -> None:
    """Raise VolumeError for (3, X, Y, Z), which PyTorch networks and Learn2Reg's first tasks write."""
    if len(shape) == 4 and shape[0] == 3 and shape[3] != 3:
        half = "" if fixed is None else _upsampling(shape[1:], fixed, "u")
        advice = half or "; write numpy.moveaxis(u, 0, -1), if it is in voxels of the fixed image"
        raise VolumeError(f"{where}: shape {shape}, the components come first, expected (X, Y, Z, 3) voxels{advice}")


def _upsampling(shape: Sequence[int], fixed: Grid, components_first: str) -> str:
    """The advice for a field of Learn2Reg at half resolution (its 2020 and 2021 tasks, whose evaluation upsamples)."""
    if not all(abs(2 * a - b) <= 1 for a, b in zip(shape, fixed.shape)):
        return ""
    return (
        ": a field at half resolution; upsample it as Learn2Reg's evaluation does: numpy.stack([scipy.ndimage.zoom(c, 2, "
        f"order=2) for c in {components_first}], -1)"
    )


def halved(warp: Grid, fixed: Grid) -> str:
    """What to say of a warp with half as many voxels per side over voxels of the same size: a header that forgot it."""
    half = all(abs(2 * a - b) <= 1 for a, b in zip(warp.shape, fixed.shape))
    if not half or not np.allclose(warp.spacing_mm, fixed.spacing_mm, rtol=0.1):
        return ""
    return (
        ", or is at half resolution with the voxel size of full resolution in its header; write its affine again, or "
        "upsample it"
    )
