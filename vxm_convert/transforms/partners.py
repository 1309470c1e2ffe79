# SPDX-License-Identifier: Apache-2.0
"""A warp with the images that go with it: which grid an image gives, and whether the warp leads into it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.resample import voxels_that_meet
from vxm_convert.scans.grid import nothing_said, say_notes
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.landing import share_inside
from vxm_convert.transforms.warps import read_warp

LOG = logging.getLogger(__name__)

_ORIENT = "write its orientation into the header first, for example with FreeSurfer's mri_convert --in_orientation, or nibabel"


def read_with_images(
    path: Path, format_name: Optional[str] = None, moving: Optional[Path] = None, fixed: Optional[Path] = None
) -> Warp:
    """A warp from a file, on the grids of its images.

    Parameters
    ----------
    format_name : str or None — as in `vxm_convert.transforms.warps.read_warp`.
    moving, fixed : Path or None — images on the moving and the fixed grid, where the file does not give them.

    Raises
    ------
    VolumeError
        As `read_warp`; for a moving image that no voxel of the fixed grid comes from.
    """
    homes: Tuple[Optional[Grid], Optional[Grid]] = (None, None)
    if any(image is not None and not says_its_place(ScanFile(image)) for image in (fixed, moving)):
        homes = _grids_of(path, format_name)
    warp = read_warp(path, format_name, grid_from(moving, homes[1]), grid_from(fixed, homes[0]))
    if moving is not None:
        check_meeting(warp, moving)
        check_signs(warp, moving)
    return warp


def grid_from(path: Optional[Path], home: Optional[Grid] = None) -> Optional[Grid]:
    """Grid of an image that may not be given; see `image_grid`."""
    return None if path is None else image_grid(ScanFile(path), home)


def image_grid(scan: ScanFile, home: Optional[Grid] = None) -> Grid:
    """Where an image lies; doubts about its header are logged.

    Parameters
    ----------
    home : Grid or None — of the warp or image that goes with it. An image of as many voxels whose header says nothing is
        taken to lie there.

    Raises
    ------
    VolumeError
        For a header that does not say how the array lies, where nothing else does.
    """
    if says_its_place(scan):
        say_notes(scan)
        return scan.grid
    if home is None or home.shape != scan.grid.shape:
        raise VolumeError(nothing_said(scan, _ORIENT))
    LOG.warning(
        "%s: its header has %s and so does not say how the array lies; taken to lie on the grid of what goes with it (%s)",
        scan.path,
        scan.trust.value,
        home.describe(),
    )
    return home


def says_its_place(scan: ScanFile) -> bool:
    """Whether a file's header says how its array lies, or, for an .npz, the kind of file does."""
    return scan.trust.axes_known or not scan.has_header


def check_meeting(warp: Warp, image: Path) -> None:
    """Raise VolumeError where no voxel of the fixed grid comes from inside an image."""
    if not voxels_that_meet(warp):
        raise VolumeError(
            f"{image}: 0 of {int(np.prod(warp.fixed.shape))} voxels of the fixed grid meet this image "
            f"({warp.moving.describe()}, centre {_point(warp.moving)}; fixed grid {warp.fixed.describe()}, centre "
            f"{_point(warp.fixed)}); check the headers, and the order and direction of the transforms"
        )


def _point(grid: Grid) -> str:
    return ", ".join(f"{value:.0f}" for value in grid.centre_ras)


def _grids_of(path: Path, form: Optional[str]) -> Tuple[Optional[Grid], Optional[Grid]]:
    """Fixed and moving grid of a warp by itself; none where it does not name them."""
    try:
        warp = read_warp(path, form)
    except VolumeError:
        return None, None
    return warp.fixed, warp.moving


def check_signs(chain: Warp, image: Path) -> None:
    """Warn where the points would land inside an image if x and y were negated, and mostly do not as they are."""
    inside, mirrored = share_inside(chain), share_inside(chain, mirrored=True)
    if inside < 0.3 and mirrored > inside + 0.4:
        LOG.warning(
            "%s: %.0f %% of the fixed grid lands in this image, with x and y negated %.0f %% would: are the displacements "
            "in RAS where LPS is expected, or the other way round?",
            image,
            100 * inside,
            100 * mirrored,
        )
