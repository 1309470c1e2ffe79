# SPDX-License-Identifier: Apache-2.0
"""The files of one prepared scan: written whole, the record last; and whether those of an earlier run still stand.

A scan is finished when its record (the side-car of its image) stands: it names every file of the scan with its hash,
what they were made from, and the key of the settings. A run that was killed in between leaves no record, and the scan
is made again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from train.prepare.settings import PrepareSettings, file_names
from vxm_convert.artifacts.files import read_bounded, sha256_of, sidecar_path, write_sidecar
from vxm_convert.errors import VxmError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.npz import write_npz
from vxm_convert.transforms.affines import write_affine

SCANS, TRANSFORMS, PICTURES = "scans", "transforms", "pictures"
#: no Ascend tool has a part in a preparation
NO_TOOLCHAIN = {"kind": "none"}
RECORD_KIND = "prepared scan"
_MAX_RECORD = 1 << 20
Record = Dict[str, Any]


def write_arrays(
    folder: Path, name: str, settings: PrepareSettings, image: np.ndarray, seg: Optional[np.ndarray], grid: Grid
) -> List[Path]:
    """Image and segmentation as training and the runner take them; the image's file comes first."""
    image_name, seg_name = file_names(name, settings.format)
    path = folder / image_name
    if seg_name is None:
        write_npz(path, {settings.array: image, **({} if seg is None else {"seg": seg})})
        return [path]
    write_nifti(path, image, grid.affine)
    if seg is None:
        return [path]
    write_nifti(folder / seg_name, seg, grid.affine)
    return [path, folder / seg_name]


def write_transforms(
    folder: Path, name: str, affine: Affine, fixed: Grid, moving: Grid, made_from: Dict[str, str]
) -> List[Path]:
    """``NAME.txt`` (ITK) and, for grids without shear, ``NAME.lta`` (FreeSurfer), with side-cars."""
    paths = [(folder / f"{name}.txt", "itk")]
    if not (fixed.sheared or moving.sheared):
        paths.append((folder / f"{name}.lta", "lta"))
    for path, form in paths:
        write_affine(path, affine, form, fixed, moving, made_from)
    return [path for path, _ in paths]


def write_record(out: Path, files: List[Path], made_from: Dict[str, str], details: Mapping[str, Any]) -> Path:
    """The side-car of the image, `files[0]`; written last."""
    listed = {path.relative_to(out).as_posix(): sha256_of(path) for path in files}
    return write_sidecar(files[0], made_from, NO_TOOLCHAIN, kind=RECORD_KIND, files=listed, **details)


def read_record(path: Path) -> Optional[Record]:
    """The record of an image file, or None where there is none that can be read."""
    side = sidecar_path(path)
    try:
        found = json.loads(read_bounded(side, _MAX_RECORD, "the record of a scan", "prepare it again").decode("utf-8"))
    except (VxmError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def finished(
    out: Path, name: str, settings: PrepareSettings, key: str, made_from: Mapping[str, str]
) -> Optional[Record]:
    """The record of a scan, if it was made by the same settings from the same bytes and all its files are as it
    says.
    """
    record = read_record(out / SCANS / file_names(name, settings.format)[0])
    if record is None or record.get("key") != key or record.get("made_from") != dict(made_from):
        return None
    return record if _whole(out, record) else None


def _whole(out: Path, record: Record) -> bool:
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        return False
    paths = {
        out / name: digest
        for name, digest in files.items()
        if ".." not in Path(name).parts and not Path(name).is_absolute()
    }
    return len(paths) == len(files) and all(
        path.is_file() and sha256_of(path) == digest for path, digest in paths.items()
    )


def remove_earlier(out: Path, name: str) -> None:
    """Take away every file of a scan, its record first, so that nothing old stands beside what fails now."""
    for path in sorted(_files_of(out, name), key=lambda p: not p.name.endswith((".npz.json", ".nii.gz.json"))):
        path.unlink()


def _files_of(out: Path, name: str) -> List[Path]:
    images = [n for form in ("npz", "nii.gz") for n in file_names(name, form) if n is not None]
    places = [(SCANS, n) for n in images] + [(TRANSFORMS, name + ending) for ending in (".txt", ".lta")]
    places += [(PICTURES, name + ending) for ending in (".png", "_before.png")]
    paths = [out / folder / n for folder, n in places]
    return [path for path in paths + [sidecar_path(path) for path in paths] if path.is_file()]


def others(out: Path, names: List[str]) -> Tuple[Dict[str, Record], List[str]]:
    """What lies in ``scans`` beside the scans of this run: records by name, and files that no record names."""
    folder = out / SCANS
    expected = {n for name in names for form in ("npz", "nii.gz") for n in file_names(name, form) if n is not None}
    files = (
        [p for p in sorted(folder.iterdir()) if p.name[:1] != "." and p.suffix != ".json"] if folder.is_dir() else []
    )
    records, named = {}, set(expected)
    for path in files:
        record = read_record(path)
        if (
            path.name not in expected
            and record is not None
            and record.get("kind") == RECORD_KIND
            and isinstance(record.get("files"), dict)
        ):
            records[str(record.get("name"))] = record
            named |= {Path(n).name for n in record["files"]}
    return records, [path.name for path in files if path.name not in named]
