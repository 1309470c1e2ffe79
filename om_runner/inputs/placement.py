# SPDX-License-Identifier: Apache-2.0
"""Loading scans and atlas from any grid: which header is believed, where the scan lies to the network, and what is
doubtful about it.

A scan that lies on the network grid already goes the way of `om_runner.inputs.scans.load`, untouched. Any other is
resampled once.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.scans import LoadedScan, Scan, Source, load
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid
from vxm_convert.model.contract import GraphContract
from vxm_convert.scans import checks as doubts
from vxm_convert.scans.affine_search import search_affine
from vxm_convert.scans.conform import Placement, conform, network_grid_of, outside_network, place
from vxm_convert.scans.discovery import find_segmentation
from vxm_convert.scans.grid import grid_of_scan, labels_of_scan, nothing_said
from vxm_convert.scans.intensity import detect_intensity, percentile_intensity
from vxm_convert.scans.values import Volume, check_values
from vxm_convert.transforms.affines import read_affine

LOG = logging.getLogger(__name__)

SUBJECT_FIELD = "{subject}"
INTENSITIES = ("convention", "percentile")


@dataclass(frozen=True)
class PlacingOptions:
    """``--affine`` (``none``, ``auto`` or a file, in which ``{subject}`` stands for the name), ``--orientation`` and
    ``--intensity``.
    """

    affine: str = "none"
    orientation: Optional[str] = None
    intensity: str = "convention"

    def affine_file(self, subject: str) -> Optional[Path]:
        """The file of a subject's affine, or None where no file is read."""
        return None if self.affine in ("none", "auto") else Path(self.affine.replace(SUBJECT_FIELD, subject))

    def files_of(self, subjects: Iterable[str]) -> Dict[str, str]:
        """Absolute path → sha256 of the affine files of subjects, as run.json lists what was read."""
        files = {path for path in map(self.affine_file, subjects) if path is not None and path.is_file()}
        return {os.path.abspath(str(path)): sha256_of(path) for path in sorted(files)}


#: headers alone
BY_HEADERS = PlacingOptions()


def load_atlas_anywhere(scan: Scan, contract: GraphContract, options: PlacingOptions) -> LoadedScan:
    """The atlas on the network grid, which is laid into its space; `LoadedScan.source` keeps it as it was where that
    differs.

    Raises
    ------
    VolumeError
        For a damaged header or image, and one whose header does not say where it lies although that is needed.
    """
    shape = contract.model.volume_shape
    grid, trusted = grid_of_scan(scan.file, shape, contract.grid, options.orientation)
    if grid is None or (not trusted and grid.shape == shape):
        loaded = load(scan, contract)
        grid = Grid(shape, loaded.affine) if grid is None or options.orientation is None else grid
        return _as_it_is(replace(loaded, affine=np.array(grid.affine)), grid, trusted)
    if not trusted:
        raise VolumeError(nothing_said(scan.path, grid))
    volume = scan.file.image()
    check_values(volume)
    network = network_grid_of(volume.data, grid, shape, contract.grid)
    if network == grid:
        return _as_it_is(replace(load(scan, contract), affine=np.array(grid.affine)), grid, trusted)
    placement = replace(place(network, grid, contract.grid), how={"affine": "none"})
    loaded = _load_placed(scan, contract, placement, volume)
    LOG.info("%s: atlas on %s, network grid laid into it", scan.path.name, grid.describe())
    _report_outside(scan.path, loaded.source.image, placement)
    return replace(loaded, affine=np.array(network.affine))


def load_anywhere(scan: Scan, contract: GraphContract, atlas: LoadedScan, options: PlacingOptions) -> LoadedScan:
    """A scan as the network takes it, with its placement; what is doubtful is logged, one line each.

    Raises
    ------
    VolumeError
        As `om_runner.inputs.scans.load`; for a header that leaves the orientation open where it is needed; for a scan
        most of whose brain is outside the network's field of view; for a segmentation elsewhere than the scan.
    """
    network = atlas.placement.network
    grid, trusted = grid_of_scan(scan.file, network.shape, contract.grid, options.orientation, network)
    grid = network if grid is None else grid
    if not trusted and grid.shape == network.shape and options.orientation is None:
        grid = network
    placement = place(network, grid, contract.grid)
    as_it_is = placement.untouched and options.affine == "none"
    if as_it_is and options.intensity == "convention":
        loaded = load(scan, contract)
        _say(scan.path, doubts.image_doubts(loaded.image, network, loaded.seg))
        return replace(
            loaded, placement=placement, affine=loaded.affine if options.orientation is None else np.array(grid.affine)
        )
    if not trusted and options.orientation is None and not as_it_is:
        raise VolumeError(nothing_said(scan.path, grid))
    if atlas.placement.how.get("header_doubtful") and not as_it_is:
        raise VolumeError(
            f"{atlas.scan.path}: its header does not say how the atlas lies, and {scan.path.name} ({grid.describe()}) "
            "must be resampled "
            "to it; name the axes with --orientation, e.g. LIA"
        )
    volume = scan.file.image()
    check_values(volume)
    affine, how = _affine_for(scan, volume.data, grid, atlas, options)
    placement = place(network, grid, contract.grid, affine, how)
    loaded = _load_placed(scan, contract, placement, volume, options.intensity)
    found = doubts.image_doubts(loaded.source.image, grid, loaded.source.seg)
    apart = doubts.distance_doubt(atlas.image, network, loaded.image, network)
    _say(scan.path, found + ([apart] if apart else []))
    _report_outside(scan.path, loaded.source.image, placement)
    return loaded


def _as_it_is(loaded: LoadedScan, grid: Grid, trusted: bool) -> LoadedScan:
    how: Dict[str, Any] = {"affine": "none"} if trusted else {"affine": "none", "header_doubtful": True}
    return replace(loaded, placement=Placement(grid, grid, Affine(np.eye(4)), True, how))


def _load_placed(
    scan: Scan, contract: GraphContract, placement: Placement, volume: Volume, rule: str = "convention"
) -> LoadedScan:
    """The scan on the network grid, with the original beside it."""
    check_values(volume)
    intensity = detect_intensity(volume, contract.intensity) if rule == "convention" else percentile_intensity(volume)
    normal = volume.data if intensity.factor == 1.0 else volume.data / np.float32(intensity.factor)
    if rule == "percentile":
        normal = np.clip(normal, contract.intensity.low, contract.intensity.high)
        placement.how["intensity"] = (
            f"{intensity.name}, clipped to {contract.intensity.low:g}..{contract.intensity.high:g}"
        )
    LOG.info("%s: %s, intensities %s", scan.path.name, placement.moving.describe(), intensity.name)
    seg, digest = labels_of_scan(scan.file, scan.seg_file, placement.moving)
    return LoadedScan(
        scan=scan,
        image=conform(normal, placement),
        seg=None if seg is None else conform(seg, placement, "nearest"),
        affine=np.array(placement.moving.affine),
        intensity=intensity.name,
        factor=intensity.factor,
        stored_dtype=volume.stored_dtype,
        sha256=scan.file.sha256,
        seg_sha256=digest,
        placement=placement,
        source=Source(volume.data, seg, placement.moving),
    )


def _affine_for(
    scan: Scan, image: np.ndarray, grid: Grid, atlas: LoadedScan, options: PlacingOptions
) -> Tuple[Optional[Affine], Dict[str, Any]]:
    if options.affine == "none":
        return None, {"affine": "none"}
    if options.affine == "auto":
        found = search_affine(atlas.image, atlas.placement.network, image, grid)
        LOG.info("%s: affine found, brains overlap by %.2f (Dice)", scan.path.name, found.overlap)
        return found.affine, found.to_dict()
    path = options.affine_file(scan.subject)
    fixed = atlas.source.grid if atlas.source is not None else atlas.placement.network
    return read_affine(path, fixed, grid), {"affine": path.name, "affine_sha256": sha256_of(path)}


def _report_outside(path: Path, image: np.ndarray, placement: Placement) -> None:
    outside, total = outside_network(image, placement)
    doubt = doubts.outside_doubt(outside, total)
    if total and outside > doubts.REFUSED_OUTSIDE * total:
        raise VolumeError(
            f"{path}: {doubt}; the header puts it elsewhere than the atlas, align it with --affine auto or --affine "
            "FILE"
        )
    _say(path, [doubt] if doubt else [])


def _say(path: Path, notes: List[str]) -> None:
    for note in notes:
        LOG.warning("%s: %s", path, note)


def load_atlas(path: Path, model: OfflineModel, placing: PlacingOptions = BY_HEADERS) -> LoadedScan:
    """The fixed image on the network grid, checked like a scan, with a segmentation from the same .npz or a file beside
    it.
    """
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such atlas; pass the fixed image with --atlas")
    atlas = load_atlas_anywhere(Scan("atlas", path, find_segmentation(path)), model.contract, placing)
    if atlas.seg is None:
        LOG.warning(
            "%s: no segmentation of the atlas (array `seg` or a file %s_seg), so no Dice", path, path.name.split(".")[0]
        )
    return atlas
