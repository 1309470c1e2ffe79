# SPDX-License-Identifier: Apache-2.0
"""Where a scan is taken to lie: by its header, by the user's word, or on the network grid; the same for every command.

Headers are read; no voxel is.
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
    """What says where a scan lies."""

    HEADER = "its header"
    OPTION = "--orientation"
    #: an .npz has no header: it lies on the network grid
    KIND = "the kind of file"
    #: a header that says nothing, over as many voxels as the network's: taken to lie on the network grid
    NOTHING = "nothing"


@dataclass(frozen=True)
class Laid:
    """A scan's grid, and what says so."""

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
    """Where a scan lies; what is doubtful about its header is logged.

    Parameters
    ----------
    home : Grid — the network grid, where it is known to lie.
    axes : NetworkAxes — its directions and voxel size.
    orientation : str or None — letters that override the header of a scan, and that of a fixed image where it cannot be
        believed.
    fixed : bool — the scan is the fixed image.
    quiet : bool — log nothing: it was said before.

    Raises
    ------
    VolumeError
        For a header that does not say how the array lies, over another number of voxels than the network's; and as
        `ScanFile.grid`.
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
            "%s: its header has %s and so does not say how the array lies; taken to lie on the network grid (%s); correct "
            "the header if its axes run otherwise",
            scan.path,
            scan.trust.value,
            axes.orientation,
        )
    return Laid(home, Laying.NOTHING)


def say_notes(scan: ScanFile) -> None:
    """Log what is doubtful about a header."""
    for note in scan.notes:
        LOG.warning("%s: %s", scan.path, note)


def nothing_said(scan: ScanFile, advice: str = "name the axes with --orientation, e.g. LIA") -> str:
    """The message for a header that leaves open how the array lies."""
    return (
        f"{scan.path}: its header does not say how the array lies (it has {scan.trust.value}), and "
        f"{'x'.join(str(n) for n in scan.grid.shape)} voxels must be resampled; {advice}"
    )


def trusted_place(scan: ScanFile) -> bool:
    """Whether a file's own header says where its array lies, axes and place."""
    return scan.trust is Trust.HEADER
