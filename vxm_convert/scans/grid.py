# SPDX-License-Identifier: Apache-2.0
"""The assumed position of a scan: from its header, from the user, or on the network grid; the same for every command.

Reads headers but no voxels.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.header_space import Trust
from vxm_convert.scans.raw_header import require_file
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)


class Laying(enum.Enum):
    """Source of a scan's position."""

    HEADER = "its header"
    OPTION = "--orientation"
    #: an .npz has no header: it is on the network grid
    KIND = "the kind of file"
    #: a header without orientation, with as many voxels as the network: assumed to be on the network grid
    NOTHING = "nothing"


@dataclass(frozen=True)
class Laid:
    """A scan's grid and its source."""

    grid: Grid
    source: Laying

    @property
    def assumed(self) -> bool:
        return self.source is Laying.NOTHING


def lay(
    scan: ScanFile,
    home: Grid,
    axes: NetworkAxes,
    orientation: Optional[str] = None,
    fixed: bool = False,
    quiet: bool = False,
) -> Laid:
    """Position of a scan; logs doubts about its header.

    Parameters
    ----------
    home : Grid — the network grid, if its position is known.
    axes : NetworkAxes — its directions and voxel size.
    orientation : str or None — letters that override the header of a scan, and that of a fixed image if it cannot be
        trusted.
    fixed : bool — the scan is the fixed image.
    quiet : bool — log nothing: it was logged before.

    Raises
    ------
    VolumeError
        For a header without orientation and another number of voxels than the network; and as `ScanFile.grid`.
    """
    require_file(scan.path, "a scan, atlas or segmentation")
    if not scan.has_header and orientation is None:
        return Laid(home, Laying.KIND)
    grid, known = scan.grid, scan.trust.axes_known
    if known and not quiet:
        say_notes(scan)
    if known and (orientation is None or fixed or grid.orientation == orientation):
        return Laid(grid, Laying.HEADER)
    if orientation is not None:
        spacing = grid.spacing_mm if scan.has_header else axes.spacing_mm
        turned = oriented(grid.shape, orientation, spacing, grid.centre_ras if known else home.centre_ras)
        same = turned.shape == home.shape and np.allclose(turned.affine, home.affine, atol=1e-3)
        return Laid(home if same else turned, Laying.OPTION)
    if grid.shape != home.shape:
        raise VolumeError(nothing_said(scan))
    if not quiet:
        LOG.warning(
            "%s: its header does not give the array's orientation (it has %s); assumed to be on the network grid (%s); "
            "correct the header if the axes are different",
            scan.path,
            scan.trust.value,
            axes.orientation,
        )
    return Laid(home, Laying.NOTHING)


def say_notes(scan: ScanFile) -> None:
    """Log doubts about a header."""
    for note in scan.notes:
        LOG.warning("%s: %s", scan.path, note)


def nothing_said(scan: ScanFile, advice: str = "pass the axes with --orientation, e.g. LIA") -> str:
    """The message for a header without orientation."""
    return (
        f"{scan.path}: its header does not give the array's orientation (it has {scan.trust.value}), and "
        f"{'x'.join(str(n) for n in scan.grid.shape)} voxels must be resampled; {advice}"
    )


def trusted_place(scan: ScanFile) -> bool:
    """Whether a file's own header gives the axes and position of its array."""
    return scan.trust is Trust.HEADER
