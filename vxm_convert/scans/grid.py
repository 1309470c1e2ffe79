# SPDX-License-Identifier: Apache-2.0
"""Which grid a scan is taken to lie on: that of its header, the network's where it has none, or what the user says; and
its labels there.

Headers are read, and segmentations; nothing is resampled.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, corner_distance_mm
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.header import Trust
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.raw_header import require_file
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)

#: a segmentation's header further than this from its scan's is another place, not rounding
_SAME_SEG_MM = 0.1


def grid_of_scan(
    scan: ScanFile,
    shape: Tuple[int, int, int],
    axes: NetworkAxes,
    orientation: Optional[str] = None,
    network: Optional[Grid] = None,
) -> Tuple[Optional[Grid], bool]:
    """Grid of a file (None: an .npz that lies on the network grid, or fails as such), and whether its header can be
    believed.

    Parameters
    ----------
    shape, axes : the network grid's shape, axis directions and voxel size.
    orientation : str or None — letters that override the header of a scan, and that of the atlas where it cannot be
        believed.
    network : Grid — where the network grid lies; None for the atlas itself.
    """
    require_file(scan.path, "a scan, atlas or segmentation")
    if not scan.has_header and orientation is None:
        return None, True
    grid, trusted = scan.grid, scan.trust is Trust.HEADER
    if trusted:
        for note in scan.notes:
            LOG.warning("%s: %s", scan.path, note)
    if orientation is None or (trusted and (network is None or grid.orientation == orientation)):
        return grid, trusted
    home = (network or Grid(shape, network_affine(shape, axes))).centre_ras
    spacing = grid.spacing_mm if scan.has_header else axes.spacing_mm
    turned = oriented(grid.shape, orientation, spacing, grid.centre_ras if trusted else home)
    return (network if network is not None and np.allclose(turned.affine, network.affine, atol=1e-3) else turned), True


def nothing_said(path: Path, grid: Grid) -> str:
    """The message for a header that leaves open how the array lies."""
    return (
        f"{path}: its header does not say how the array lies (identity affine, or neither qform nor sform), "
        f"and {'x'.join(str(n) for n in grid.shape)} voxels must be resampled; name the axes with --orientation, e.g. "
        "LIA"
    )


def labels_of_scan(scan: ScanFile, seg: Optional[ScanFile], grid: Grid) -> Tuple[Optional[np.ndarray], Optional[str]]:
    """A scan's segmentation, from a file of its own or from the scan's .npz, and the sha256 of that file of its own.

    Raises
    ------
    VolumeError
        For a segmentation of another shape than its scan.
    """
    own = None if scan.has_header else scan
    source = seg or own
    volume = source.labels() if source is not None else None
    if volume is None:
        return None, None
    if volume.data.shape != grid.shape:
        raise VolumeError(
            f"{source.path}: shape {volume.data.shape}, its scan has {grid.shape}; a segmentation lies on its scan's "
            "grid"
        )
    apart = 0.0 if volume.affine is None or source is own else corner_distance_mm(Grid(grid.shape, volume.affine), grid)
    if apart > _SAME_SEG_MM:
        LOG.warning(
            "%s: its header lies up to %.1f mm off that of %s; the scan's is used", source.path, apart, scan.path.name
        )
    return volume.data, None if seg is None else seg.sha256
