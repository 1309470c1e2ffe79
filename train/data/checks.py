# SPDX-License-Identifier: Apache-2.0
"""Every file of a run is read once before the first step; whatever cannot be used stands in one table. Changes
nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from train.data.cohort import Cohort
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.orientations import axis_codes
from vxm_convert.model.contract import IntensityRule
from vxm_convert.model.spec import Shape3
from vxm_convert.scans.intensity import load_scan
from vxm_convert.scans.scan_file import ScanFile

#: share of the atlas's field of view that a scan on the same grid must cover
MIN_OVERLAP = 0.5
_THREADS = 4
_SAMPLES = 16


def atlas_shape(atlas: Path) -> Shape3:
    """Voxels of the atlas (or of any scan); raises VolumeError if it cannot be read."""
    shape = ScanFile(atlas).image().data.shape
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def check_cohort(
    cohort: Cohort, atlas: Optional[Path], atlas_seg: Optional[Path], shape: Shape3, need_labels: bool
) -> None:
    """Read everything: shape, finite values, range, overlap with the atlas, segmentations.

    Raises
    ------
    VolumeError
        A table with one row per file that cannot be used.
    """
    scans: Dict[Path, None] = {}
    labels: Dict[Path, None] = {}
    unlabelled: List[Path] = []
    for subject in cohort.subjects:
        scans.update(dict.fromkeys(p for p in (subject.moving, subject.fixed) if p is not None))
        pairs = ((subject.moving, subject.seg),) + (((subject.fixed, subject.fixed_seg),) if subject.fixed else ())
        labels.update(dict.fromkeys(seg for _, seg in pairs if seg is not None))
        unlabelled += [scan for scan, seg in pairs if seg is None]
    frame = _affine(atlas, shape) if atlas is not None else None
    if atlas is not None and any(s.fixed is None for s in cohort.subjects):
        labels.update(dict.fromkeys([atlas_seg] if atlas_seg is not None else []))
        unlabelled += [atlas] if atlas_seg is None else []
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = [p for p in pool.map(lambda path: _scan_problem(path, shape, frame), scans) if p is not None]
        problems += [
            p for p in pool.map(lambda path: _label_problem(path, shape, need_labels), labels) if p is not None
        ]
    if need_labels:
        wanted = "no segmentation, which --dice-weight needs: expected NAME_seg beside it"
        problems += [(path, wanted) for path in dict.fromkeys(unlabelled)]
    if problems:
        raise VolumeError(_table(problems, list(scans)))


def field_of_view_overlap(scan: np.ndarray, atlas: np.ndarray, shape: Shape3) -> float:
    """Share of the atlas's voxels whose place in the world lies inside the scan's grid; both have `shape` voxels.

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


def _affine(atlas: Path, shape: Shape3) -> Optional[np.ndarray]:
    return load_scan(ScanFile(atlas), shape, IntensityRule())[0].affine


def _scan_problem(path: Path, shape: Shape3, frame: Optional[np.ndarray]) -> Optional[Tuple[Path, str]]:
    try:
        affine = load_scan(ScanFile(path), shape, IntensityRule())[0].affine
    except VolumeError as exc:
        return path, _without_path(str(exc), path)
    if affine is None or frame is None:
        return None
    codes, expected = axis_codes(affine), axis_codes(frame)
    if codes != expected:
        return path, f"axes run {codes}, the atlas's {expected}; reorient the scan"
    overlap = field_of_view_overlap(affine, frame, shape)
    if overlap < MIN_OVERLAP:
        return (
            path,
            f"covers {100 * overlap:.0f} % of the atlas's field of view by its header, expected at least "
            f"{100 * MIN_OVERLAP:.0f} %",
        )
    return None


def _label_problem(path: Path, shape: Shape3, needed: bool) -> Optional[Tuple[Path, str]]:
    try:
        if ScanFile(path).labels(shape) is None and needed:
            return path, "holds no array 'seg', which --dice-weight needs"
    except VolumeError as exc:
        return path, _without_path(str(exc), path)
    return None


def _without_path(message: str, path: Path) -> str:
    return message[len(f"{path}: ") :] if message.startswith(f"{path}: ") else message


def _table(problems: List[Tuple[Path, str]], scans: List[Path]) -> str:
    width = max(len(str(path)) for path, _ in problems)
    rows = [f"  {str(path):<{width}}  {problem}" for path, problem in problems]
    bad = {path for path, _ in problems}
    others = len(bad.difference(scans))
    also = f" and {others} further files" if others else ""
    return "\n".join([f"{len(bad.intersection(scans))} of {len(scans)} training scans{also} cannot be used:"] + rows)
