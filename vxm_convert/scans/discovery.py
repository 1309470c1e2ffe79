# SPDX-License-Identifier: Apache-2.0
"""Finds scans and their segmentations in a folder, by name, and says what of it is neither.

A file is a segmentation of a scan if it is called as the scan with ``seg``, ``aseg``, ``dseg``, ``label`` or ``labels``
after ``_``, ``-`` or ``.``, or with ``brain`` or ``norm`` replaced by ``seg`` or ``aseg``; an .npz may contain its own as
the array ``seg``. `vxm_convert.scans.kinds` knows the other names. Subfolders are not searched, but those of FreeSurfer
subjects are known.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.scans.header import FREESURFER_SUFFIXES, KINDS_READ, kinds_for, volume_suffix
from vxm_convert.scans.kinds import UNREAD, Kind, made_of_another, no_scan, unread_images
from vxm_convert.scans.scan_file import scan_sha256
from vxm_convert.text import line_of

LOG = logging.getLogger(__name__)

_SEG_WORDS = ("seg", "aseg", "dseg", "labels", "label")
_SEG_ENDINGS = tuple(mark + word for mark in "_-." for word in _SEG_WORDS)
#: names in a line of the log
_MOST_NAMED = 4
#: in a FreeSurfer subject, best first: bias-corrected and without skull
FREESURFER_SCANS = ("norm.mgz", "brain.mgz")
_FREESURFER_FOLDER = "mri"
_SEG_REPLACEMENTS = (("brain", "seg"), ("brain", "aseg"), ("norm", "seg"), ("norm", "aseg"))


def scan_files(folder: Path, atlas: Path) -> List[Path]:
    """The scans of a folder in name order, without hidden files, segmentations, what tools leave beside scans, and the
    atlas itself; what is left out is counted and named in the log.

    Parameters
    ----------
    folder : Path — an existing folder.
    atlas : Path — the fixed image, inside the folder or elsewhere.

    Raises
    ------
    VolumeError
        If the folder cannot be listed.
    """
    entries = _entries(folder)
    named = [path for path in entries if volume_suffix(path)]
    files = [path for path in named if os.path.isfile(str(path)) or not os.path.exists(str(path))]
    for path in sorted(set(named).difference(files)):
        LOG.warning(
            "%s: %s, expected a scan in one file; skipped", path, "a folder" if path.is_dir() else "no regular file"
        )
    left_out = _left_out(files)
    scans = []
    for path in files:
        if path in left_out:
            continue
        if not _is_atlas(path, atlas):
            scans.append(path)
    _say_left_out(folder, left_out)
    say_unread(folder, entries)
    return scans


def scans_of(source: Path, atlas: Path) -> List[Path]:
    """The scans that a path names: those of a folder (see `scan_files`) with those of its FreeSurfer subjects, that of a
    FreeSurfer subject, or one file, whatever its name says.

    Parameters
    ----------
    source : Path — a folder or a file.
    atlas : Path — the fixed image, which is skipped in a folder.

    Raises
    ------
    VolumeError
        If there is nothing, if it is not a file of scans, and if a folder cannot be listed or has no scan.
    """
    source = Path(source)
    if source.is_dir():
        subject = freesurfer_scan(source)
        if subject is not None:
            return [subject]
        scans = scan_files(source, atlas) + [path for path in freesurfer_scans(source) if not _is_atlas(path, atlas)]
        if not scans:
            say_folders(source)
            raise VolumeError(
                f"{source}: no scan to register, expected files of these kinds: {KINDS_READ} (segmentations, what tools leave "
                "beside scans, and the atlas do not count), or FreeSurfer subjects with "
                f"mri/{' or mri/'.join(FREESURFER_SCANS)}; name a file itself to register it anyway"
            )
        return scans
    if not os.path.lexists(str(source)):
        raise VolumeError(f"{source}: no such folder or file; pass a folder of scans, or a scan, with --input")
    if volume_suffix(source) is None:
        raise VolumeError(
            f"{source}: not a scan of a kind that is read, expected a folder, or one of {kinds_for(source)}"
        )
    kind = no_scan(volume_stem(source))
    if kind is not None:
        LOG.warning("%s: by its name a %s; taken as a scan, because it is given itself", source, kind.one)
    return [source]


def freesurfer_scans(folder: Path) -> List[Path]:
    """The scans of the FreeSurfer subjects in a folder, in the order of their names."""
    found = (freesurfer_scan(path) for path in _entries(folder) if path.is_dir())
    return [path for path in found if path is not None]


def freesurfer_scan(subject: Path) -> Optional[Path]:
    """The scan of a FreeSurfer subject's folder, or None if it is none."""
    paths = (Path(subject) / _FREESURFER_FOLDER / name for name in FREESURFER_SCANS)
    return next((path for path in paths if path.is_file()), None)


def named_after(path: Path) -> Path:
    """What a scan has its name from: its file; in a FreeSurfer subject that folder, because the files of all subjects
    have one name.
    """
    subject = path.parent.name == _FREESURFER_FOLDER and path.name in FREESURFER_SCANS
    return path.parent.parent if subject else path


def say_folders(folder: Path) -> None:
    """Warn of subfolders, for a folder without scans."""
    folders = [path for path in _entries(folder) if path.is_dir()]
    if folders:
        LOG.warning(
            "%s: subfolders are not searched (%s); pass the folder of the scans itself, or a BIDS dataset",
            folder,
            _named(folders),
        )


def say_unread(folder: Path, entries: Sequence[Path]) -> None:
    """Warn of images of kinds that are not read among the entries of a folder or a dataset."""
    unread = unread_images(entries)
    if not unread:
        return
    number = sum(map(len, unread.values()))
    counted = [f"{len(paths)} {suffix} ({_named(paths)})" for suffix, paths in sorted(unread.items())]
    ways: Dict[str, List[str]] = {}
    for suffix in sorted(unread):
        ways.setdefault(UNREAD[suffix], []).append(suffix)
    LOG.warning(
        "%s: %d file%s of kinds that are not read: %s; convert to .nii.gz: %s",
        folder,
        number,
        "" if number == 1 else "s",
        ", ".join(counted),
        ", ".join(f"{' and '.join(suffixes)} by {way}" for way, suffixes in sorted(ways.items())),
    )


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


def _entries(folder: Path) -> List[Path]:
    """What a folder contains, without hidden entries."""
    try:
        return sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except OSError as exc:
        raise VolumeError(f"{folder}: cannot list this folder ({exc.strerror}); check its permissions") from exc


def _volume_files(folder: Path) -> List[Path]:
    """Files, and broken links (reading them fails with its own message); pipes and folders must not be opened."""
    return [
        path
        for path in _entries(folder)
        if volume_suffix(path) and (os.path.isfile(str(path)) or not os.path.exists(str(path)))
    ]


def _left_out(files: List[Path]) -> Dict[Path, Optional[Kind]]:
    """Files that are no scans, with what they are; None for the segmentation of a scan that is there."""
    stems = {volume_stem(path) for path in files}
    kinds: Dict[Path, Optional[Kind]] = {}
    for path in files:
        stem = volume_stem(path)
        kinds[path] = no_scan(stem) or made_of_another(stem, stems, volume_suffix(path) in FREESURFER_SUFFIXES)
    scans = {volume_stem(path) for path, kind in kinds.items() if kind is None}
    named_after = {seg for stem in scans for seg in _seg_stems(stem) if seg in stems}
    found: Dict[Path, Optional[Kind]] = {}
    for path, kind in kinds.items():
        if volume_stem(path) in named_after:
            found[path] = None
        elif kind is not None:
            found[path] = kind
    return found


def _say_left_out(folder: Path, left_out: Dict[Path, Optional[Kind]]) -> None:
    kinds = Counter(kind for kind in left_out.values() if kind is not None)
    if not kinds:
        return
    counted = [
        f"{kind.counted(number)} ({_named([path for path in left_out if left_out[path] is kind])})"
        for kind, number in sorted(kinds.items())
    ]
    number = sum(kinds.values())
    LOG.warning(
        "%s: left out %d file%s that by %s no scan%s: %s; rename one that is a scan",
        folder,
        number,
        "" if number == 1 else "s",
        "its name is" if number == 1 else "their names are",
        "" if number == 1 else "s",
        ", ".join(counted),
    )


def _named(paths: Sequence[Path]) -> str:
    names = [line_of(path.name) for path in paths[:_MOST_NAMED]]
    return ", ".join(names) + (", …" if len(paths) > _MOST_NAMED else "")


def _seg_stems(stem: str) -> Tuple[str, ...]:
    replaced = tuple(stem.replace(image, seg) for image, seg in _SEG_REPLACEMENTS if image in stem)
    return tuple(stem + ending for ending in _SEG_ENDINGS) + replaced


def _is_atlas(path: Path, atlas: Path) -> bool:
    """Whether a scan is the atlas, or a copy of it; then said."""
    same = _same_bytes(path, Path(atlas))
    if same:
        LOG.info("%s: this is the atlas itself, skipped", path)
    return same


def _same_bytes(path: Path, other: Path) -> bool:
    if not other.is_file() or not path.is_file() or path.stat().st_size != other.stat().st_size:
        return False
    try:
        return path.samefile(other) or scan_sha256(path) == scan_sha256(other)
    except ArtifactError:
        # Unreadable: reading it later will report that for this scan alone.
        return False
