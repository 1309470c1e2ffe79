# SPDX-License-Identifier: Apache-2.0
"""The scans to prepare: a folder of files, a folder of FreeSurfer subjects, or a manifest. By name, nothing is
opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Sequence

from train.data.scan_list import is_manifest, read_manifest
from vxm_convert.errors import TrainingError
from vxm_convert.scans.discovery import (
    FREESURFER_SCANS,
    find_segmentation,
    freesurfer_scans,
    named_after,
    scan_files,
    unique_names,
)
from vxm_convert.scans.header import KINDS_READ
from vxm_convert.scans.kinds import no_scan
from vxm_convert.scans.scan_file import ScanFile

#: name of the reference among the results
REFERENCE = "reference"


@dataclass(frozen=True)
class Source:
    """One scan: its name (unique, safe in file names), its file, the file of its segmentation, and its part where a
    manifest says so.
    """

    name: str
    path: Path
    seg: Optional[Path] = None
    part: Optional[str] = None
    file: ScanFile = field(init=False, compare=False, repr=False)
    seg_file: Optional[ScanFile] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", ScanFile(self.path))
        object.__setattr__(self, "seg_file", None if self.seg is None else ScanFile(self.seg))


def find_sources(data: Path, out: Path) -> List[Source]:
    """All scans, in the order of their names or of the manifest's lines.

    Raises
    ------
    TrainingError
        Nothing there, a manifest that names fixed scans, or scans that lie in the output folder.
    """
    data = Path(data)
    sources = _from_manifest(data) if is_manifest(data) else _from_folder(data)
    if not sources:
        raise TrainingError(
            f"{data}: no scan to prepare, expected files of these kinds: {KINDS_READ} (segmentations do not count), or "
            f"folders of FreeSurfer subjects with mri/{' or mri/'.join(FREESURFER_SCANS)}"
        )
    inside = [s.path for s in sources if Path(out).resolve() in s.path.resolve().parents]
    if inside:
        raise TrainingError(
            f"{inside[0]}: lies in the output folder {out}, where results would replace it; choose another --out"
        )
    return sources


def _from_manifest(path: Path) -> List[Source]:
    subjects = read_manifest(path)
    if any(s.fixed is not None or s.fixed_seg is not None for s in subjects):
        raise TrainingError(
            f"{path}: names fixed scans; every scan is prepared against one reference, leave these columns out"
        )
    names = _names([named_after(s.moving) for s in subjects])
    return [Source(name, s.moving, s.seg or find_segmentation(s.moving), s.part) for name, s in zip(names, subjects)]


def _from_folder(folder: Path) -> List[Source]:
    if not folder.is_dir():
        raise TrainingError(
            f"{folder}: no such folder; pass the folder of scans, or a .csv or .txt manifest, as --data"
        )
    paths = scan_files(folder, folder) + freesurfer_scans(folder)
    return [
        Source(name, path, find_segmentation(path))
        for name, path in zip(_names([named_after(p) for p in paths]), paths)
    ]


def _names(paths: Sequence[Path]) -> List[str]:
    """Unique, and none that would be taken for anything but a scan among the results."""
    names = unique_names(paths, (REFERENCE,))
    taken = {name.lower() for name in names}
    for at, name in enumerate(names):
        while no_scan(name) or (name != names[at] and name.lower() in taken):
            name += "_scan"
        names[at] = name
        taken.add(name.lower())
    return names
