# SPDX-License-Identifier: Apache-2.0
"""Loading scans and atlas from any grid: which header is trusted, the scan's position relative to the network grid, and
doubts about it.

A scan that lies on the network grid already is taken untouched. Any other is resampled once.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.affine_files import AUTO_AFFINE, NO_AFFINE, affine_file, affine_from
from om_runner.inputs.scale import Scale, scale_of
from om_runner.inputs.scans import LoadedScan, Scan, Source
from om_runner.inputs.series import MEAN, searched_on
from vxm_convert.affine.affine_search import Target, search_affine
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid
from vxm_convert.intensities.matching import reference_of
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.intensity import CONTRAST, CONVENTION, MATCH
from vxm_convert.scans import checks as doubts
from vxm_convert.scans.conform import Placement, conform, network_grid_of, outside_network, place
from vxm_convert.scans.discovery import find_segmentation, volume_stem
from vxm_convert.scans.grid import Laid, Laying, lay, nothing_said
from vxm_convert.scans.labels import labels_of_scan
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.values import Volume, check_values, narrowed

LOG = logging.getLogger(__name__)

#: intensity rule of the contract
AUTO = "auto"


@dataclass(frozen=True)
class PlacingOptions:
    """``--affine`` (see `om_runner.inputs.affine_files.affine_file`), ``--orientation`` and ``--intensity``, whose ``auto``
    means the rule in the model's contract, and ``--label-map``, for the segmentations of all images but an atlas.
    ``--series``: the image on which the affine of all frames of a series is searched.
    """

    affine: str = NO_AFFINE
    orientation: Optional[str] = None
    intensity: str = CONVENTION
    label_map: Optional[str] = None
    series: Optional[str] = None

    def for_model(self, contract: GraphContract) -> PlacingOptions:
        """These options with the intensity rule decided."""
        return self if self.intensity != AUTO else replace(self, intensity=contract.intensity.rule)

    def files_of(self, subjects: Iterable[str]) -> Dict[str, str]:
        """Absolute path → sha256 of the subjects' affine files, for the list of inputs in run.json."""
        named = (affine_file(self.affine, subject) for subject in subjects)
        files = {path for path in named if path is not None and path.is_file()}
        return {os.path.abspath(str(path)): sha256_of(path) for path in sorted(files)}


#: headers alone
BY_HEADERS = PlacingOptions()


def load_atlas_anywhere(scan: Scan, contract: GraphContract, options: PlacingOptions) -> LoadedScan:
    """The atlas on the network grid, which is placed in the atlas's space; `LoadedScan.source` keeps the original if it
    differs.

    Raises
    ------
    VolumeError
        For a damaged header or image, or if the header does not give the required position.
    """
    laid = lay(scan.file, network_home(contract), contract.grid, options.orientation, fixed=True)
    volume = scan.file.image(laid.grid.shape)
    check_values(volume)
    _say(scan.path, [doubts.kind_doubt(volume.data)])
    network = laid.grid
    if laid.assumed:
        # Results have the position of the atlas's own file, so that the two overlay.
        network = scan.file.grid
    elif laid.source is not Laying.KIND:
        network = network_grid_of(volume.data, laid.grid, contract.model.volume_shape, contract.grid)
    how: Dict[str, Any] = {"affine": "none", **({"header_doubtful": True} if laid.assumed else {})}
    if laid.assumed or network == laid.grid:
        placement = Placement(network, network, Affine(np.eye(4)), True, how)
    else:
        placement = replace(place(network, laid.grid, contract.grid), how=how)
    scale, _ = scale_of(volume, contract.intensity, None, CONTRAST if options.intensity == CONTRAST else CONVENTION)
    loaded = _loaded(scan, contract, placement, _Opened(laid, volume, scale, _labels(scan, contract, laid, options)))
    if loaded.source is not None:
        LOG.info("%s: atlas on %s, network grid placed in it", scan.path.name, laid.grid.describe())
        _report_outside(scan.path, loaded.source.image, placement)
    fitted = options.intensity in (MATCH, CONTRAST)
    reference = reference_of(loaded.image, network.spacing_mm) if fitted else None
    target = Target(loaded.image, network) if options.affine == "auto" else None
    return replace(loaded, affine=np.array(network.affine), reference=reference, target=target)


@dataclass(frozen=True)
class _Opened:
    """What header, intensities and segmentation of a scan decide: its position, values, scale, and labels."""

    laid: Laid
    volume: Volume
    scale: Scale
    labels: _Labels


class _Labels(NamedTuple):
    """A segmentation in the smallest integer type that holds its ids, the sha256 of its file if that is another one than
    the scan's, and the dtype that its ids had.
    """

    seg: Optional[np.ndarray]
    sha256: Optional[str]
    dtype: str


def load_anywhere(scan: Scan, contract: GraphContract, atlas: LoadedScan, options: PlacingOptions) -> LoadedScan:
    """A scan as input of the network, with its placement; logs one line for each doubt.

    Raises
    ------
    VolumeError, ArtifactError
        For a file that cannot be read; a header that leaves the orientation open where it is needed; a scan most of
        whose brain is outside the network's field of view; a segmentation away from the scan.
    """
    network = atlas.placed.network
    # All that may be refused is looked at before an affine is searched, which takes long.
    opened = _opened(scan, contract, atlas, options)
    laid = opened.laid
    affine, how = _affine_for(scan, opened.volume.data, laid.grid, atlas, options)
    if options.label_map is not None:
        mapped = load_label_map(options.label_map)
        how.update(label_map=mapped.name, label_map_sha256=mapped.sha256)
    placement = place(network, laid.grid, contract.grid, affine, how)
    loaded = _loaded(scan, contract, placement, opened)
    if loaded.source is None:
        # Where nothing says how atlas and scan lie, labels are judged by the network's axes.
        seen_on = network_home(contract) if atlas.placed.how.get("header_doubtful") else network
        _say(scan.path, doubts.image_doubts(loaded.image, seen_on, loaded.seg))
        return loaded
    found = doubts.image_doubts(loaded.source.image, laid.grid, loaded.source.seg)
    apart = doubts.distance_doubt(atlas.image, network, loaded.image, network, options.affine)
    _say(scan.path, [*found, apart])
    _report_outside(scan.path, loaded.source.image, placement, options.affine)
    return loaded


def judge_anywhere(
    scan: Scan, contract: GraphContract, atlas: LoadedScan, options: PlacingOptions
) -> Optional[LoadedScan]:
    """As `load_anywhere`, without the search of ``--affine auto``, whose scan is judged as far as that: None."""
    if options.affine == "auto":
        _opened(scan, contract, atlas, options)
        return None
    return load_anywhere(scan, contract, atlas, options)


def _opened(scan: Scan, contract: GraphContract, atlas: LoadedScan, options: PlacingOptions) -> _Opened:
    network, axes = atlas.placed.network, contract.grid
    laid = lay(scan.file, network, axes, options.orientation)
    placement = place(network, laid.grid, axes)
    as_it_is = placement.untouched and options.affine == "none"
    if laid.assumed and not as_it_is:
        raise VolumeError(nothing_said(scan.file))
    if atlas.placed.how.get("header_doubtful") and not as_it_is:
        raise VolumeError(
            f"{atlas.scan.path}: its header does not give the atlas's orientation, and {scan.path.name} "
            f"({laid.grid.describe()}) must be resampled to it; pass the axes with --orientation, e.g. LIA"
        )
    volume = scan.file.image(laid.grid.shape)
    check_values(volume)
    _say(scan.path, [doubts.kind_doubt(volume.data)])
    scale, notes = scale_of(volume, contract.intensity, atlas.image, options.intensity, atlas.reference)
    _say(scan.path, notes)
    return _Opened(laid, volume, scale, _labels(scan, contract, laid, options))


def _labels(scan: Scan, contract: GraphContract, laid: Laid, options: PlacingOptions) -> _Labels:
    mapped = None if options.label_map is None else load_label_map(options.label_map)
    seg, digest = labels_of_scan(scan.file, scan.seg_file, laid, contract.grid, mapped=mapped)
    # Ids of 32 bits are common, and rarely needed: several scans and their results are in memory at a time.
    return _Labels(None, digest, "") if seg is None else _Labels(narrowed(seg), digest, seg.dtype.name)


def network_home(contract: GraphContract) -> Grid:
    """The network grid where it lies if no atlas says otherwise."""
    shape = contract.model.volume_shape
    return Grid(shape, network_affine(shape, contract.grid))


def _loaded(scan: Scan, contract: GraphContract, placement: Placement, opened: _Opened) -> LoadedScan:
    """The scan on the network grid; with the original beside it, unless it is the network's array already."""
    laid, volume, scale = opened.laid, opened.volume, opened.scale
    if not scale.plain:
        placement.how["intensity"] = scale.describe()
    if scan.frame is not None:
        placement.how["frame"] = scan.frame
    LOG.info("%s: intensities %s, on %s", scan.path.name, scale.describe(), laid.grid.describe())
    image = conform(scale.apply(volume.data), placement)
    seg = opened.labels.seg
    plain = placement.untouched and scale.plain
    own = scan.file.grid if laid.source in (Laying.HEADER, Laying.NOTHING) else laid.grid
    if plain and laid.source is Laying.KIND:
        own = network_home(contract)
    return LoadedScan(
        scan=scan,
        image=scale.finish(image, str(scan.path)),
        taken_seg=seg if plain else None,
        affine=np.array(own.affine),
        intensity=scale.intensity.name,
        factor=scale.intensity.factor,
        stored_dtype=volume.stored_dtype,
        sha256=scan.file.sha256,
        seg_sha256=opened.labels.sha256,
        seg_dtype=opened.labels.dtype,
        placement=placement,
        source=None if plain else Source(volume.data, seg, placement.moving),
    )


def _affine_for(
    scan: Scan, image: np.ndarray, grid: Grid, atlas: LoadedScan, options: PlacingOptions
) -> Tuple[Optional[Affine], Dict[str, Any]]:
    if options.affine == NO_AFFINE:
        return None, {"affine": NO_AFFINE}
    if options.affine == AUTO_AFFINE:
        target = atlas.target or Target(atlas.image, atlas.placed.network)
        if scan.frame is None or options.series is None:
            found, on = search_affine(target, image, grid), {}
        else:
            choice = options.series
            found = target.found_once(
                (scan.file.sha256, choice, grid.affine.tobytes()),
                lambda: search_affine(target, searched_on(scan, choice, grid.shape), grid),
            )
            on = {"affine_searched_on": "the mean of all frames" if choice == MEAN else f"frame {choice}"}
        LOG.info("%s: affine found, brains overlap by %.2f (Dice)", scan.path.name, found.overlap)
        return found.affine, {**found.to_dict(), **on}
    return affine_from(options.affine, scan, (atlas.file_grid, atlas.sha256), grid)


def _report_outside(path: Path, image: np.ndarray, placement: Placement, affine: str = "none") -> None:
    outside, total = outside_network(image, placement)
    doubt = doubts.outside_doubt(outside, total)
    if total and outside > doubts.REFUSED_OUTSIDE * total:
        cause = {
            "none": "its header places it away from the atlas; align it with --affine auto or --affine FILE",
            "auto": "the affine that was searched did not align it, give a better one with --affine FILE",
        }.get(affine, "the affine that was given does not align it, check its file and direction")
        raise VolumeError(f"{path}: {doubt}; {cause}")
    _say(path, [doubt])


def _say(path: Path, notes: Sequence[Optional[str]]) -> None:
    for note in filter(None, notes):
        LOG.warning("%s: %s", path, note)


def load_atlas(path: Path, model: OfflineModel, placing: PlacingOptions = BY_HEADERS) -> LoadedScan:
    """The fixed image on the network grid, checked like a scan, with a segmentation from the same .npz or a file beside
    it.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder, expected the fixed image in one file" if path.is_dir() else "no such atlas"
        raise VolumeError(f"{path}: {found}; pass the fixed image with --atlas")
    # An atlas has labels of its own; the fixed images of pairs are scans as the moving ones are.
    return load_fixed(Scan("atlas", path, find_segmentation(path)), model, replace(placing, label_map=None))


def load_fixed(scan: Scan, model: OfflineModel, placing: PlacingOptions = BY_HEADERS) -> LoadedScan:
    """As `load_atlas`, with the segmentation that the scan names; its subject says in messages what it is."""
    fixed = load_atlas_anywhere(scan, model.contract, placing)
    if fixed.seg is None:
        LOG.warning(
            "%s: no segmentation of the %s (array `seg` or a file %s_seg), so no Dice",
            scan.path,
            scan.subject,
            volume_stem(scan.path),
        )
    return fixed
