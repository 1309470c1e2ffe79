# SPDX-License-Identifier: Apache-2.0
"""Finding the scans of a cohort, their segmentations and subject names; loading one. Nothing below the folder itself is searched.

A segmentation belongs to a scan when it is the array `seg` of the same .npz, or a file beside it named after it:
``NAME_seg``, ``NAME_aseg``, ``NAME_dseg``, ``NAME_labels`` (also with ``-`` or ``.``), or NAME with ``brain`` or ``norm``
replaced by ``seg`` or ``aseg``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.artifacts import sha256_of
from vxm_convert.contract import GraphContract
from vxm_convert.errors import VolumeError
from vxm_convert.volumes import axis_codes, load_scan, network_affine, read_labels, volume_suffix

LOG = logging.getLogger(__name__)

#: names of files and folders that the runner itself makes in the output folder
RESERVED_SUBJECTS = ("precision", "metrics.tsv", "failures.tsv", "run.json")
_SEG_ENDING = re.compile(r"[_.\-](seg|aseg|dseg|labels?)$", re.IGNORECASE)
_SEG_ENDINGS = tuple(mark + word for mark in "_-." for word in ("seg", "aseg", "dseg", "labels", "label"))
_SEG_REPLACEMENTS = (("brain", "seg"), ("brain", "aseg"), ("norm", "seg"), ("norm", "aseg"))


@dataclass(frozen=True)
class Scan:
    """One moving scan to register: subject name (unique, safe as a folder name), its file, and its segmentation file if separate."""

    subject: str
    path: Path
    seg_path: Optional[Path] = None


@dataclass(frozen=True)
class LoadedScan:
    """A scan as the network takes it.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), float32 — network intensities (value / scale).
    seg : ndarray, shape (X, Y, Z), integer, or None.
    affine : ndarray, shape (4, 4) — the file's own affine, or the network grid's where the format has none.
    intensity, factor : str, float — convention found in the file, and file value per network value.
    stored_dtype : str — dtype of the file's values.
    sha256 : str — of the scan's file.
    """

    scan: Scan
    image: np.ndarray
    seg: Optional[np.ndarray]
    affine: np.ndarray
    intensity: str
    factor: float
    stored_dtype: str
    sha256: str


def discover(folder: Path, atlas: Path, limit: Optional[int] = None) -> List[Scan]:
    """The scans of a folder in name order, without segmentations, hidden files and the atlas.

    Raises
    ------
    VolumeError
        When the folder is missing or holds no scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VolumeError(f"{folder}: no such folder; pass the folder of scans with --input")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and volume_suffix(p))
    segs = _segmentation_files(files)
    images = [path for path in files if path not in segs and not _is_atlas(path, atlas)]
    if not images:
        raise VolumeError(
            f"{folder}: no scan to register, expected .npz, .nii, .nii.gz, .mgz or .mgh files (segmentations and the atlas do not count)"
        )
    scans = [Scan(name, path, find_segmentation(path)) for name, path in zip(subject_names(images), images)]
    return scans if limit is None else scans[:limit]


def find_segmentation(path: Path) -> Optional[Path]:
    """The segmentation file beside a scan, or None (an .npz may still hold its own)."""
    by_stem: Dict[str, Path] = {}
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and volume_suffix(other):
            by_stem.setdefault(_stem(other), other)
    return next((by_stem[stem] for stem in _seg_stems(_stem(path)) if stem in by_stem), None)


def subject_names(paths: List[Path]) -> List[str]:
    """Folder-safe, unique names, one per file: the stem; with its suffix where two stems agree; numbered as a last resort."""
    stems = [_safe(_stem(path)) for path in paths]
    folded = [stem.lower() for stem in stems]
    names: List[str] = []
    taken = {name.lower() for name in RESERVED_SUBJECTS}
    for path, stem in zip(paths, stems):
        # On file systems that ignore case, Sub1 and sub1 are one folder.
        name = _safe(path.name.replace(".", "_")) if folded.count(stem.lower()) > 1 or stem.lower() in taken else stem
        base, count = name, 1
        while name.lower() in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name.lower())
        names.append(name)
    return names


def load(scan: Scan, contract: GraphContract) -> LoadedScan:
    """Read and check a scan and its segmentation; raises VolumeError or ArtifactError with the reason."""
    shape = contract.model.volume_shape
    digest = sha256_of(scan.path)
    volume, intensity = load_scan(scan.path, shape, contract.intensity)
    LOG.info("%s: intensities %s%s", scan.path.name, intensity.name, f", divided by {intensity.factor:g}" if intensity.factor != 1 else "")
    own = scan.path if volume_suffix(scan.path) == ".npz" else None
    seg_source = scan.seg_path or own
    seg = read_labels(seg_source, shape) if seg_source is not None else None
    affine = volume.affine if volume.affine is not None else network_affine(shape, contract.grid)
    return LoadedScan(
        scan, volume.data, None if seg is None else seg.data, affine, intensity.name, intensity.factor, volume.stored_dtype, digest
    )


class OrientationWarner:
    """Warns once per run about headers that disagree with the network's axes; registration takes array axes as they are."""

    def __init__(self, contract: GraphContract) -> None:
        self._wanted = contract.grid.orientation
        self._warned = False

    def look(self, loaded: LoadedScan) -> None:
        found = axis_codes(loaded.affine)
        if found == self._wanted or self._warned:
            return
        self._warned = True
        LOG.warning(
            "%s: the header says axes %s, the network grid is %s; array axes are used as they are and the header is ignored "
            "(said once, other scans may be alike)",
            loaded.scan.path,
            found,
            self._wanted,
        )


def _segmentation_files(files: List[Path]) -> set:
    stems = {_stem(path) for path in files}
    named_after = {seg for stem in stems for seg in _seg_stems(stem) if seg in stems}
    return {path for path in files if _stem(path) in named_after or _SEG_ENDING.search(_stem(path))}


def _seg_stems(stem: str) -> Tuple[str, ...]:
    replaced = tuple(stem.replace(image, seg) for image, seg in _SEG_REPLACEMENTS if image in stem)
    return tuple(stem + ending for ending in _SEG_ENDINGS) + replaced


def _is_atlas(path: Path, atlas: Path) -> bool:
    atlas = Path(atlas)
    same = path.samefile(atlas) or (path.stat().st_size == atlas.stat().st_size and sha256_of(path) == sha256_of(atlas))
    if same:
        LOG.info("%s: this is the atlas itself, skipped", path)
    return same


def _stem(path: Path) -> str:
    return path.name[: -len(volume_suffix(path))]


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._\-]", "_", name).lstrip(".-") or "scan"
