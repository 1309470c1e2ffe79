# SPDX-License-Identifier: Apache-2.0
"""Cases from the files of an earlier run in either layout, each file checked against the hash in its side-car.

Optional data (warp, labels, the original scan) leave a note if they are missing; damaged data are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from om_runner.bids.records import results_in
from om_runner.names import FIXED_ROLES, FLOW_NAME, METRICS_NAME, MOVED_NAME, MOVED_SEG_NAME
from om_runner.qc.case import FIGURES, Case, by_affine_alone, onto
from om_runner.results.columns import WARNINGS_JOINT
from om_runner.results.previous_run import read_failures
from vxm_convert.artifacts.files import read_bounded, sha256_of, sidecar_path
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.names import RUN_NAME
from vxm_convert.artifacts.tsv import MISSING
from vxm_convert.errors import ChecksumError, FormatError, VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid, same_place
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.scans.discovery import find_segmentation
from vxm_convert.scans.grid import lay
from vxm_convert.scans.labels import labels_of_scan
from vxm_convert.scans.network_grid import NETWORK_AXES, network_affine
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import check_values
from vxm_convert.transforms.warps import read_warp

_MAX_JSON, _MAX_TABLE = 64 << 20, 256 << 20
_ADVICE = "register again, or pass the folder of a run"


class Fixed(NamedTuple):
    """The fixed image of the file; `trusted`: its header gives its position, or it has none."""

    file: ScanFile
    image: np.ndarray
    grid: Grid
    seg: Optional[np.ndarray]
    trusted: bool


@dataclass(frozen=True)
class Results:
    """A folder of results.

    Parameters
    ----------
    subjects : list of str — folders with a moved scan.
    rows : dict — subject → its row of metrics.tsv.
    failures : list of (subject, reason).
    scans : dict — sha256 → path of the scans that were read.
    """

    folder: Path
    subjects: List[str]
    rows: Dict[str, Dict[str, str]]
    failures: List[Tuple[str, str]]
    scans: Dict[str, Path]
    atlas: Optional[Path]
    simulated: Optional[bool]
    label_set: str
    missing: List[str] = field(default_factory=list)
    #: subject → plain name → file, of a BIDS derivative
    placed: Dict[str, Dict[str, Path]] = field(default_factory=dict)
    #: into whose labels those of scans were turned
    label_map: Optional[str] = None

    def file(self, subject: str, plain: str) -> Path:
        """Path of a subject's file with that plain name."""
        return (
            self.placed[subject].get(plain, self.folder / plain)
            if subject in self.placed
            else self.folder / subject / plain
        )


def open_results(folder: Path) -> Results:
    """The contents of a folder, by its run.json and tables.

    Raises
    ------
    VolumeError
        If there is no such folder, no run.json in it, or no subject.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VolumeError(f"{folder}: no such folder; pass the output folder of om_runner with --registered")
    placed = results_in(folder)
    if (folder / "dataset_description.json").is_file() and not placed:
        raise VolumeError(f"{folder}: a BIDS derivative without results of om_runner; {_ADVICE}")
    if not (folder / RUN_NAME).is_file():
        raise VolumeError(f"{folder}: has no {RUN_NAME}, expected the output folder of om_runner; {_ADVICE}")
    run = _json(folder / RUN_NAME)
    rows = {row["subject"]: row for row in _table(folder / METRICS_NAME) if row.get("subject")}
    failures = [(row.subject, row.reason) for row in read_failures(folder) or ()]
    found = sorted(path.parent.name for path in folder.glob(f"*/{MOVED_NAME}") if not path.parent.name.startswith("."))
    found = sorted(
        {*found, *(name for name, files in placed.items() if MOVED_NAME in files and files[MOVED_NAME].is_file())}
    )
    gone = sorted(name for name in rows if name not in found)
    if not found and not gone:
        raise VolumeError(f"{folder}: no subject with a {MOVED_NAME}; register with --outputs moved,warp,seg")
    inputs, atlas = run.get("inputs"), run.get("atlas")
    scans = {str(sha): Path(str(path)) for path, sha in inputs.items()} if isinstance(inputs, dict) else {}
    at = Path(str(atlas["path"])) if isinstance(atlas, dict) and atlas.get("path") else None
    simulated = run.get("simulated")
    label_set = str(run.get("label_set") or "")
    return Results(
        folder,
        found,
        rows,
        failures,
        scans,
        at,
        simulated if isinstance(simulated, bool) else None,
        label_set,
        gone,
        placed,
        _label_map(run),
    )


def _label_map(run: Dict[str, Any]) -> Optional[str]:
    geometry = run.get("geometry")
    chosen = geometry.get("label_map") if isinstance(geometry, dict) else None
    return chosen if isinstance(chosen, str) else None


def open_fixed(path: Path, labels: Optional[Path] = None, label_map: Optional[str] = None) -> Fixed:
    """The fixed image with its labels, in that file or those that belong to it, in the labels of a map if it is a scan;
    raises VolumeError if it is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such fixed image; pass the atlas of the run with --atlas")
    file, beside = ScanFile(path), labels or find_segmentation(path)
    volume = file.image()
    laid = lay(file, Grid(file.grid.shape, network_affine(file.grid.shape)), NETWORK_AXES, quiet=True)
    mapped = None if label_map is None else load_label_map(label_map)
    seg, _ = labels_of_scan(file, None if beside is None else ScanFile(beside), laid, mapped=mapped)
    return Fixed(file, volume.data, file.grid, seg, file.trust.axes_known or not file.has_header)


def fixed_of_pair(results: Results, subject: str) -> Fixed:
    """The fixed image that a pair was registered to; raises VolumeError if it is no longer where the run read it."""
    said = _json(sidecar_path(results.file(subject, MOVED_NAME))).get("made_from")
    made_from = said if isinstance(said, dict) else {}
    image, labels = (results.scans.get(str(made_from.get(role))) for role in FIXED_ROLES)
    if image is None:
        raise VolumeError(f"{results.folder}: its run.json does not say what {subject} was registered to; pass --atlas")
    return open_fixed(image, labels, results.label_map)


def case_of(results: Results, subject: str, fixed: Fixed) -> Case:
    """Read a subject's files.

    Raises
    ------
    ChecksumError
        If a file is not the one in its side-car, or was made with another fixed image.
    VolumeError
        If a file is damaged or has another shape.
    """
    notes: List[str] = []
    at = results.file(subject, MOVED_NAME)
    side = _checked(at)
    said = side.get("made_from")
    made_from = said if isinstance(said, dict) else {}
    if made_from.get("atlas") not in (None, fixed.file.sha256):
        raise ChecksumError(
            f"{at}: was made with another fixed image than {fixed.file.path}; pass that one with --atlas"
        )
    volume = ScanFile(at).image()
    check_values(volume)
    grid = Grid(volume.data.shape, volume.affine)
    # The run may have overridden a header without orientation: an atlas with the results' shape is then used voxel by
    # voxel.
    home = grid if fixed.grid.shape == grid.shape and not _said(fixed) else fixed.grid
    before = _before(results, side, grid, notes)
    warp = _warp(results.file(subject, FLOW_NAME), grid, notes)
    seg, labels = None, results.file(subject, MOVED_SEG_NAME)
    if labels.is_file():
        _checked(labels)
        volume_of_labels = ScanFile(labels).labels(grid.shape)
        seg = None if volume_of_labels is None else volume_of_labels.data
    simulated = side.get("simulated")
    return Case(
        subject=subject,
        grid=grid,
        fixed=onto(fixed.image, home, grid),
        moved=volume.data,
        before=before,
        warp=warp,
        fixed_seg=onto(fixed.seg, home, grid, "nearest"),
        moved_seg=seg,
        letters=fixed.trusted or not np.array_equal(grid.affine, np.eye(4)),
        figures={name: _cell(results.rows.get(subject, {}).get(name)) for name in FIGURES},
        label_set=results.label_set,
        simulated=simulated if isinstance(simulated, bool) else results.simulated,
        made_from={**{str(role): str(sha) for role, sha in made_from.items()}, "moved": str(side["sha256"])},
        notes=tuple(notes),
        warnings=_warnings(results.rows.get(subject, {})),
    )


def _warnings(row: Dict[str, str]) -> Tuple[str, ...]:
    text = row.get("warnings") or MISSING
    return () if text == MISSING else tuple(text.split(WARNINGS_JOINT))


def _said(fixed: Fixed) -> bool:
    return fixed.file.trust.axes_known


def _before(results: Results, side: Dict[str, Any], grid: Grid, notes: List[str]) -> Optional[np.ndarray]:
    """The original scan with the affine in the side-car, if it is still at its path, with the same bytes."""
    placement, sources = side.get("placement"), side.get("made_from")
    sha = sources.get("moving") if isinstance(sources, dict) else None
    path = results.scans.get(str(sha))
    if path is None or not isinstance(placement, dict):
        notes.append("no picture before the warp: the files do not record the scan or its position")
        return None
    if not path.is_file():
        notes.append(f"no picture before the warp: {path.name} is no longer at its path in the run")
        return None
    scan = ScanFile(path, placement.get("frame"))
    if scan.sha256 != sha:
        notes.append(f"no picture before the warp: {path.name} has changed since the run")
        return None
    try:
        entries = placement["moving_grid"]
        x, y, z = entries["shape"]
        moving = Grid((x, y, z), np.array(entries["affine"], dtype=np.float64))
        pull = Affine(np.array(placement["affine_fixed_ras_to_moving_ras"], dtype=np.float64)).pull
    except (KeyError, TypeError, ValueError) as exc:
        raise FormatError(
            f"{results.folder}: side-car of {path.name} has a damaged placement ({exc!r:.200}); {_ADVICE}"
        ) from exc
    return by_affine_alone(scan.image().data, moving, pull, grid)


def _warp(path: Path, grid: Grid, notes: List[str]) -> Optional[Warp]:
    if not path.is_file():
        notes.append("no grid and no Jacobian: the run wrote no warp")
        return None
    _checked(path)
    warp = read_warp(path)
    if not same_place(warp.fixed, grid, 0.1):
        raise VolumeError(f"{path}: is on {warp.fixed.describe()}, the moved scan on {grid.describe()}; {_ADVICE}")
    return Warp(warp.u, grid, warp.moving)


def _checked(path: Path) -> Dict[str, Any]:
    """The side-car of a file with the recorded hash."""
    if not path.is_file():
        raise VolumeError(f"{path}: no such file, but metrics.tsv lists the subject as registered; {_ADVICE}")
    side = _json(sidecar_path(path))
    if side.get("sha256") != sha256_of(path):
        raise ChecksumError(
            f"{path}: does not have the sha256 in {sidecar_path(path).name}; it was changed or damaged, {_ADVICE}"
        )
    return side


def _json(path: Path) -> Dict[str, Any]:
    data = read_bounded(path, _MAX_JSON, "a JSON file of a run", _ADVICE)
    entries = parse_json(data, str(path), _ADVICE)
    if not isinstance(entries, dict):
        raise FormatError(f"{path}: not a JSON object; {_ADVICE}")
    return entries


def _table(path: Path) -> List[Dict[str, str]]:
    """Rows of a tab-separated table; empty if there is no such file."""
    if not path.is_file():
        return []
    text = read_bounded(path, _MAX_TABLE, "a table of a run", _ADVICE).decode("utf-8", "replace")
    lines = [line.split("\t") for line in text.rstrip("\n").split("\n")]
    return [dict(zip(lines[0], cells)) for cells in lines[1:]]


def _cell(text: Optional[str]) -> Optional[float]:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
