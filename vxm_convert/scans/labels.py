# SPDX-License-Identifier: Apache-2.0
"""A scan's segmentation on the scan's grid: unchanged if both have the same grid, else resampled by its own header, or
refused if that cannot be trusted.
"""

from __future__ import annotations

import logging
from typing import Optional, Tuple

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine, same_place
from vxm_convert.metrics.label_maps import LabelMap
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.scans.conform import Placement, conform, same_axes
from vxm_convert.scans.grid import Laid, Laying, say_notes, trusted_place
from vxm_convert.scans.network_grid import NETWORK_AXES
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)

#: headers this close are equal; a larger difference is another position, not rounding
SAME_PLACE_MM = 0.1
#: the same for voxel sizes, as a fraction
_SAME_VOXEL = 0.01
#: share of a segmentation's labelled voxels that may lie outside the scan before it is refused, and before it is said
_REFUSED_OUTSIDE, _SAID_OUTSIDE = 0.5, 0.01
#: Half a micron along every axis: of two grids half a voxel apart, every voxel then takes its neighbour on the same
#: side, where rounding to even numbers would take one side here and the other there.
_NUDGED = Affine(np.eye(4) + np.array([[0, 0, 0, 5e-4]] * 3 + [[0, 0, 0, 0]]))


def labels_of_scan(
    scan: ScanFile,
    seg: Optional[ScanFile],
    laid: Laid,
    axes: NetworkAxes = NETWORK_AXES,
    quiet: bool = False,
    mapped: Optional[LabelMap] = None,
) -> Tuple[Optional[np.ndarray], Optional[str]]:
    """Labels on the grid of their scan, from a separate file or from the scan's .npz, and the sha256 of the separate
    file.

    Parameters
    ----------
    laid : Laid — the assumed position of the scan.
    axes : NetworkAxes — of the network grid, on which an .npz is.
    quiet : bool — do not log what is doubtful about its header or its labels: it was said before.
    mapped : LabelMap or None — into whose labels they are turned.

    Raises
    ------
    VolumeError
        For a segmentation whose header differs from its scan's and cannot be trusted, and for one at another position.
    """
    source = seg if seg is not None else None if scan.has_header else scan
    volume = source.labels() if source is not None else None
    if source is None or volume is None:
        return None, None
    digest = None if seg is None else seg.sha256
    labels = volume.data if mapped is None else mapped.apply(volume.data, source.path, quiet)
    if seg is not None and seg.trust.axes_known and not quiet:
        say_notes(seg)
    if (
        source is scan
        and volume.data.shape == laid.grid.shape
        or source is not scan
        and _one_grid(scan, source, laid, axes)
    ):
        return labels, digest
    if source is scan or not (trusted_place(source) and laid.source is Laying.HEADER and trusted_place(scan)):
        raise VolumeError(_refusal(scan, source, volume.data.shape, laid))
    LOG.info("%s: on %s, resampled by its header to %s", source.path, source.grid.describe(), laid.grid.describe())
    _check_outside(scan, source, labels, laid.grid)
    return conform(labels, Placement(laid.grid, source.grid, _NUDGED), "nearest"), digest


def _one_grid(scan: ScanFile, seg: ScanFile, laid: Laid, axes: NetworkAxes) -> bool:
    """Whether the arrays of a scan and its segmentation are on the same grid, voxel by voxel."""
    if seg.grid.shape != laid.grid.shape:
        return False
    if scan.has_header and seg.has_header and same_place(seg.grid, scan.grid, SAME_PLACE_MM):
        # Both have the same header: the segmentation is treated like the scan.
        return True
    if not seg.has_header:
        return same_axes(laid.grid, axes)
    if trusted_place(scan) and laid.source is Laying.HEADER:
        return False
    # The scan's position is unknown; its segmentation may give the axes.
    if not seg.trust.axes_known:
        return not trusted_place(scan)
    same_voxels = np.allclose(seg.grid.spacing_mm, laid.grid.spacing_mm, rtol=_SAME_VOXEL)
    return bool(same_voxels) and seg.grid.orientation == laid.grid.orientation


def _refusal(scan: ScanFile, seg: ScanFile, shape: Tuple[int, ...], laid: Laid) -> str:
    if seg is scan:
        return f"{seg.path}: its labels have shape {shape}, its image {laid.grid.shape}; save both on the same grid"
    if not trusted_place(seg):
        why = f"its header has {seg.trust.value}"
    elif laid.source is Laying.OPTION:
        why = f"the axes of {scan.path.name} were given with --orientation"
    else:
        why = f"the header of {scan.path.name} has {scan.trust.value}"
    known = f" ({seg.grid.describe()})" if seg.trust.axes_known else ""
    return (
        f"{seg.path}: shape {'x'.join(str(n) for n in shape)}{known}, its scan {laid.grid.describe()}; their relative "
        f"position is unknown, because {why}. Give both files the same header, or save the segmentation on the grid "
        "of its scan"
    )


def _check_outside(scan: ScanFile, seg: ScanFile, labels: np.ndarray, grid: Grid) -> None:
    """Labels outside the scan are lost."""
    at = apply_affine(grid.inverse @ seg.grid.affine, np.argwhere(labels))
    lost = float(np.mean(~grid.contains(at))) if len(at) else 0.0
    if lost > _REFUSED_OUTSIDE:
        raise VolumeError(
            f"{seg.path}: {100 * lost:.0f} % of its labelled voxels lie outside {scan.path.name} by the two headers; one "
            "of them is wrong, correct it"
        )
    if lost > _SAID_OUTSIDE:
        LOG.warning("%s: %.2g %% of its labelled voxels lie outside %s", seg.path, 100 * lost, scan.path.name)
