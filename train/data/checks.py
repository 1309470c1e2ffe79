# SPDX-License-Identifier: Apache-2.0
"""Reads every file of a run once before the first step and lists all unusable ones in one table. Changes nothing."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from train.data.cohort import Cohort
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.intensities.matching import scale_doubts
from vxm_convert.intensities.rules import load_scan
from vxm_convert.metrics.label_maps import LabelMap
from vxm_convert.metrics.labels import LabelSet
from vxm_convert.metrics.numbering import ids_in, wrong_numbering
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.model.spec import Shape3
from vxm_convert.scans.checks import kind_doubt
from vxm_convert.scans.grid import Laid, Laying, lay
from vxm_convert.scans.labels import labels_of_scan
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)

AXES = NetworkAxes()
#: relative difference of voxel sizes beyond which a scan is not on the atlas's grid
_SAME_VOXEL = 0.01
#: share of the atlas's field of view that a scan must cover
MIN_OVERLAP = 0.5
_THREADS = 4
_SAMPLES = 16
_OTHER_SCALE = "scale the scans alike with `train prepare`"


def atlas_shape(atlas: Path) -> Shape3:
    """Voxels of the atlas (or of any scan); raises VolumeError if it cannot be read."""
    shape = ScanFile(atlas).image().data.shape
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def check_cohort(
    cohort: Cohort,
    atlas: Optional[Path],
    atlas_seg: Optional[Path],
    shape: Shape3,
    need_labels: bool,
    scored: Optional[LabelSet] = None,
    mapped: Optional[LabelMap] = None,
) -> None:
    """Read everything: shape, finite values, range, overlap with the atlas, segmentations.

    Parameters
    ----------
    need_labels : bool — every scan must have a segmentation.
    scored : LabelSet or None — the structures that will be scored, of which ids of other tools are none.
    mapped : LabelMap or None — into whose labels those of all scans but the atlas are turned.

    Raises
    ------
    VolumeError
        A table with one row per file that cannot be used.
    """
    scans: Dict[Path, None] = {}
    labels: Dict[Tuple[Path, Path], None] = {}
    unlabelled: List[Path] = []
    for subject in cohort.subjects:
        scans.update(dict.fromkeys(p for p in (subject.moving, subject.fixed) if p is not None))
        pairs = ((subject.moving, subject.seg),) + (((subject.fixed, subject.fixed_seg),) if subject.fixed else ())
        labels.update(dict.fromkeys((scan, seg) for scan, seg in pairs if seg is not None))
        unlabelled += [scan for scan, seg in pairs if seg is None]
    frame = _Frame.of(atlas, shape) if atlas is not None else None
    if atlas is not None and any(s.fixed is None for s in cohort.subjects):
        labels.update(dict.fromkeys([(atlas, atlas_seg)] if atlas_seg is not None else []))
        unlabelled += [atlas] if atlas_seg is None else []
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = [p for p in pool.map(lambda path: _scan_problem(path, shape, frame), scans) if p is not None]
        maps = {pair: None if pair == (atlas, atlas_seg) else mapped for pair in labels}
        found = pool.map(lambda pair: _label_problem(pair[0], pair[1], shape, need_labels, scored, maps[pair]), labels)
        problems += [p for p in found if p is not None]
    if need_labels:
        wanted = "no segmentation, which --dice-weight needs: expected NAME_seg beside it"
        problems += [(path, wanted) for path in dict.fromkeys(unlabelled)]
    if problems:
        raise VolumeError(_table(problems, list(scans)))


def field_of_view_overlap(scan: np.ndarray, atlas: np.ndarray, shape: Shape3) -> float:
    """Share of the atlas's voxels whose position in space is inside the scan's grid; both have `shape` voxels.

    Parameters
    ----------
    scan, atlas : ndarray, shape (4, 4) — voxel index → RAS mm.
    """
    axes = [np.linspace(0, side - 1, _SAMPLES) for side in shape]
    points = np.array(list(product(*axes)))
    world = points @ atlas[:3, :3].T + atlas[:3, 3]
    inside = np.linalg.solve(scan[:3, :3], (world - scan[:3, 3]).T).T
    limits = np.array(shape) - 0.5
    return float(np.mean(np.all((inside >= -0.5) & (inside <= limits), axis=1)))


def _lie(scan: ScanFile, shape: Shape3, quiet: bool = False) -> Laid:
    """Where a scan is taken to lie."""
    return lay(scan, Grid(shape, network_affine(shape, AXES)), AXES, quiet=quiet)


def labels_for(
    scan: Path, seg: Path, shape: Shape3, quiet: bool = True, mapped: Optional[LabelMap] = None
) -> Optional[np.ndarray]:
    """Labels of a segmentation on the grid of its scan, or None for an .npz that holds none.

    Raises
    ------
    VolumeError
        As `vxm_convert.scans.labels.labels_of_scan`, and for a scan that has not `shape` voxels.
    """
    file = ScanFile(scan)
    laid = _lie(file, shape, quiet=True)
    if laid.grid.shape != tuple(shape):
        file.image(shape)
    return labels_of_scan(file, None if scan == seg else ScanFile(seg), laid, AXES, quiet, mapped)[0]


@dataclass(frozen=True)
class _Frame:
    """What scans are compared with: where the atlas lies, and its image, network intensities."""

    laid: Laid
    image: np.ndarray

    @classmethod
    def of(cls, atlas: Path, shape: Shape3) -> _Frame:
        scan = ScanFile(atlas)
        volume, _ = load_scan(scan, shape, IntensityRule())
        laid = _lie(scan, shape)
        if laid.grid.orientation != AXES.orientation:
            LOG.warning(
                "%s: axes run %s, registration with the exported model turns every scan to %s; prepare the scans, or "
                "train on an atlas with these axes",
                atlas,
                laid.grid.orientation,
                AXES.orientation,
            )
        return cls(laid, volume.data)


def _scan_problem(path: Path, shape: Shape3, frame: Optional[_Frame]) -> Optional[Tuple[Path, str]]:
    scan = ScanFile(path)
    try:
        volume, intensity = load_scan(scan, shape, IntensityRule())
        laid = _lie(scan, shape)
        if frame is not None:
            for doubt in scale_doubts(volume.data, frame.image, str(path), _OTHER_SCALE):
                LOG.warning("%s: %s", path, doubt)
    except VolumeError as exc:
        return path, _without_path(str(exc), path)
    unlike = kind_doubt(np.round(volume.data * np.float32(intensity.factor), 3))
    if unlike:
        LOG.warning("%s: %s", path, unlike)
    return None if frame is None else _differs(path, laid, frame.laid)


def _differs(path: Path, laid: Laid, frame: Laid) -> Optional[Tuple[Path, str]]:
    """What keeps a scan's array from lying on the atlas's, voxel by voxel."""
    codes, expected = laid.grid.orientation, frame.grid.orientation
    if codes != expected:
        return path, f"axes run {codes}, the atlas's {expected}; reorient the scan"
    sizes, wanted = laid.grid.spacing_mm, frame.grid.spacing_mm
    if not np.allclose(sizes, wanted, rtol=_SAME_VOXEL):
        got, want = (" x ".join(f"{size:.4g}" for size in triple) for triple in (sizes, wanted))
        return path, f"voxels of {got} mm, the atlas's {want}; bring the scan onto its grid with `train prepare`"
    if Laying.HEADER is not laid.source or Laying.HEADER is not frame.source:
        return None
    overlap = field_of_view_overlap(laid.grid.affine, frame.grid.affine, laid.grid.shape)
    if overlap < MIN_OVERLAP:
        return (
            path,
            f"covers {100 * overlap:.0f} % of the atlas's field of view by its header, expected at least "
            f"{100 * MIN_OVERLAP:.0f} %",
        )
    return None


def _label_problem(
    scan: Path, seg: Path, shape: Shape3, needed: bool, scored: Optional[LabelSet], mapped: Optional[LabelMap]
) -> Optional[Tuple[Path, str]]:
    try:
        found = labels_for(scan, seg, shape, False, mapped)
        if found is None and needed:
            return seg, "has no array 'seg', which --dice-weight needs"
        wrong = None if found is None or scored is None else wrong_numbering(ids_in(found), scored)
        if wrong is not None:
            return seg, wrong
    except VolumeError as exc:
        return seg, _without_path(str(exc), seg)
    return None


def _without_path(message: str, path: Path) -> str:
    return message[len(f"{path}: ") :] if message.startswith(f"{path}: ") else message


def _table(problems: List[Tuple[Path, str]], scans: List[Path]) -> str:
    width = max(len(str(path)) for path, _ in problems)
    rows = [f"  {str(path):<{width}}  {problem}" for path, problem in problems]
    bad = {path for path, _ in problems}
    others = len(bad.difference(scans))
    also = f" and {others} other files" if others else ""
    return "\n".join([f"{len(bad.intersection(scans))} of {len(scans)} training scans{also} cannot be used:"] + rows)
