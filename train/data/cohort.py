# SPDX-License-Identifier: Apache-2.0
"""The scans of a run, split into those for training, validation and test. Opens no scan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from train.data.scan_list import Subject, is_manifest, read_manifest
from train.settings.run import SPLIT_NAMES, DataSettings
from vxm_convert.errors import TrainingError
from vxm_convert.scans.discovery import find_segmentation, say_folders, scan_files
from vxm_convert.scans.header import KINDS_READ, volume_suffix

#: makes the split's random numbers independent of those of the order (see `train.data.pairs`)
_SPLIT_STREAM = 1


@dataclass(frozen=True)
class Cohort:
    """Subjects of the three parts."""

    train: Tuple[Subject, ...]
    validation: Tuple[Subject, ...] = ()
    test: Tuple[Subject, ...] = ()

    @property
    def subjects(self) -> Tuple[Subject, ...]:
        return self.train + self.validation + self.test

    def to_dict(self) -> Dict[str, Any]:
        """Part → file names, for `split.json`."""
        return {part: [str(s.moving) for s in getattr(self, part)] for part in SPLIT_NAMES}


def find_scans(folder: Path, atlas: Optional[Path]) -> List[Path]:
    """Scans of a folder in sorted order, without segmentations and without the atlas itself (see
    `vxm_convert.scans.discovery`).

    Raises
    ------
    TrainingError
        If the folder does not exist or contains no scan.
    VolumeError
        If it cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TrainingError(
            f"{folder}: no such folder; pass the folder of training scans, or a .csv or .txt manifest, as --data"
        )
    scans = scan_files(folder, atlas if atlas is not None else folder)
    if not scans:
        say_folders(folder)
        raise TrainingError(
            f"{folder}: no scan to train on, expected files of these kinds: {KINDS_READ} (segmentations and the "
            "atlas do not count)"
        )
    return scans


def read_cohort(data: DataSettings, seed: int) -> Cohort:
    """The scans of a folder or a manifest, split.

    Raises
    ------
    TrainingError
        If there are no scans, if an atlas is needed and missing, or if the split leaves nothing to train on.
    """
    if data.source is None:
        raise TrainingError("data: none given; pass --data with the folder of scans, or a manifest")
    if is_manifest(data.source):
        subjects = read_manifest(data.source)
    else:
        subjects = [Subject(path) for path in find_scans(data.source, data.atlas)]
    subjects = [s if s.seg is not None else replace(s, seg=segmentation_of(s.moving)) for s in subjects]
    subjects = [replace(s, fixed_seg=segmentation_of(s.fixed)) if s.fixed and not s.fixed_seg else s for s in subjects]
    if data.pairing == "atlas" and data.atlas is None and any(s.fixed is None for s in subjects):
        raise TrainingError("atlas: none given; pass --atlas FILE, a manifest with a column 'fixed', or --pairs scans")
    cohort = _split(subjects, data.split, seed)
    if not cohort.train:
        raise TrainingError(
            f"{data.source}: {len(subjects)} scans, none of them left to train on; increase the first part of --split"
        )
    if data.pairing == "scans" and any(
        len(part) == 1 and part[0].fixed is None for part in (cohort.train, cohort.validation)
    ):
        raise TrainingError(
            f"{data.source}: a part of the split has a single scan, --pairs scans needs two; add scans or change "
            "--split"
        )
    return cohort


def segmentation_of(path: Path) -> Optional[Path]:
    """The file with a scan's labels: an .npz may contain them, otherwise a file beside it."""
    beside = find_segmentation(path)
    return beside if beside is not None else path if volume_suffix(path) == ".npz" else None


def _split(subjects: List[Subject], shares: Sequence[float], seed: int) -> Cohort:
    """Split by the manifest's column if it has one, else by seed and share."""
    if any(s.part for s in subjects):
        return Cohort(**{part: tuple(s for s in subjects if (s.part or "train") == part) for part in SPLIT_NAMES})
    order = np.random.RandomState([seed, _SPLIT_STREAM]).permutation(len(subjects))
    ends = [int(round(e * len(subjects))) for e in np.cumsum(shares)]
    picks = [sorted(order[start:end]) for start, end in zip([0] + ends[:-1], ends)]
    return Cohort(*(tuple(subjects[i] for i in pick) for pick in picks))
