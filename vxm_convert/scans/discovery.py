# SPDX-License-Identifier: Apache-2.0
"""Finds scans and their segmentations in a folder, by name; opens nothing.

A file is a segmentation if its name without suffix is ``seg``, ``aseg``, ``dseg``, ``label`` or ``labels``, or ends in
one of these after ``_``, ``-``, ``.`` or ``+`` (``aparc+aseg.mgz``), or is the name of a scan beside it with ``brain``
or ``norm`` replaced by ``seg`` or ``aseg``. The segmentation of a scan NAME is ``NAME_seg`` and so on, or that replaced
name; an .npz may contain its own as the array ``seg``. Subfolders are not searched.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.scans.header import volume_suffix

LOG = logging.getLogger(__name__)

_SEG_WORDS = ("seg", "aseg", "dseg", "labels", "label")
_SEG_NAME = re.compile(rf"(?:^|[_.\-+])(?:{'|'.join(_SEG_WORDS)})$", re.IGNORECASE)
_SEG_ENDINGS = tuple(mark + word for mark in "_-." for word in _SEG_WORDS)
_SEG_REPLACEMENTS = (("brain", "seg"), ("brain", "aseg"), ("norm", "seg"), ("norm", "aseg"))


def scan_files(folder: Path, atlas: Path) -> List[Path]:
    """The scans of a folder in name order, without hidden files, segmentations and the atlas itself (skipping it is
    logged).

    Parameters
    ----------
    folder : Path — an existing folder.
    atlas : Path — the fixed image, inside the folder or elsewhere.

    Raises
    ------
    VolumeError
        If the folder cannot be listed.
    """
    files = _volume_files(folder)
    for path in sorted(set(_named_like_volumes(folder)).difference(files)):
        LOG.warning(
            "%s: %s, expected a scan in one file; skipped", path, "a folder" if path.is_dir() else "no regular file"
        )
    segmentations = _segmentations(files)
    scans = []
    for path in files:
        if path in segmentations:
            continue
        if _same_bytes(path, Path(atlas)):
            LOG.info("%s: this is the atlas itself, skipped", path)
            continue
        scans.append(path)
    return scans


def find_segmentation(path: Path) -> Optional[Path]:
    """The segmentation file beside a scan, or None; raises VolumeError if its folder cannot be listed."""
    return find_segmentations([path])[0]


def find_segmentations(paths: Sequence[Path]) -> List[Optional[Path]]:
    """As `find_segmentation` for every scan; each folder is listed once, which matters for thousands of scans."""
    folders: Dict[Path, Dict[str, Path]] = {}
    for folder in {path.parent for path in paths}:
        by_stem = folders[folder] = {}
        for other in _volume_files(folder):
            by_stem.setdefault(volume_stem(other), other)
    return [
        next(
            (folders[path.parent][stem] for stem in _seg_stems(volume_stem(path)) if stem in folders[path.parent]), None
        )
        for path in paths
    ]


def volume_stem(path: Path) -> str:
    """The name of a volume file without its suffix (``.nii.gz`` counts as one); the whole name of any other file."""
    suffix = volume_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def is_segmentation_name(stem: str) -> bool:
    """Whether a file of that name (without suffix) is a segmentation by its name alone."""
    return bool(_SEG_NAME.search(stem))


def unique_names(paths: Sequence[Path], reserved: Iterable[str] = ()) -> List[str]:
    """Names safe for files and folders, one per scan: the stem; with its suffix if two stems are equal; numbered as a
    last resort.

    Parameters
    ----------
    reserved : names that no scan may get, in any case.
    """
    stems = [safe_name(volume_stem(path)) for path in paths]
    folded = Counter(stem.lower() for stem in stems)
    names: List[str] = []
    taken = {name.lower() for name in reserved}
    for path, stem in zip(paths, stems):
        # On file systems that ignore case, Sub1 and sub1 are one folder.
        name = safe_name(path.name.replace(".", "_")) if folded[stem.lower()] > 1 or stem.lower() in taken else stem
        base, count = name, 1
        while name.lower() in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name.lower())
        names.append(name)
    return names


def safe_name(name: str) -> str:
    """Letters, digits, dot, underscore and hyphen, not hidden; anything else becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9._\-]", "_", name).lstrip(".-") or "scan"


def _volume_files(folder: Path) -> List[Path]:
    try:
        return sorted(p for p in _named_like_volumes(folder) if os.path.isfile(str(p)) or not os.path.exists(str(p)))
    except OSError as exc:
        raise VolumeError(f"{folder}: cannot list this folder ({exc.strerror}); check its permissions") from exc


def _named_like_volumes(folder: Path) -> Iterator[Path]:
    """Files, broken links (reading them fails with its own message), and entries that must not be opened: pipes,
    folders.
    """
    return (p for p in Path(folder).iterdir() if not p.name.startswith(".") and volume_suffix(p))


def _segmentations(files: List[Path]) -> Set[Path]:
    stems = {volume_stem(path) for path in files}
    named_after = {seg for stem in stems for seg in _seg_stems(stem) if seg in stems}
    return {path for path in files if volume_stem(path) in named_after or is_segmentation_name(volume_stem(path))}


def _seg_stems(stem: str) -> Tuple[str, ...]:
    replaced = tuple(stem.replace(image, seg) for image, seg in _SEG_REPLACEMENTS if image in stem)
    return tuple(stem + ending for ending in _SEG_ENDINGS) + replaced


def _same_bytes(path: Path, other: Path) -> bool:
    if not other.is_file() or not path.is_file() or path.stat().st_size != other.stat().st_size:
        return False
    try:
        return path.samefile(other) or sha256_of(path) == sha256_of(other)
    except ArtifactError:
        # Unreadable: reading it later will report that for this scan alone.
        return False
