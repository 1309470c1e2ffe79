# SPDX-License-Identifier: Apache-2.0
"""The scans of a cohort with their segmentations and subject names; loading one. `vxm_convert.scans.discovery` decides
which files are scans.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np

from om_runner.inputs.lists import without_lists
from om_runner.names import RESERVED_SUBJECTS
from vxm_convert.affine.affine_search import Target
from vxm_convert.geometry.grids import Grid
from vxm_convert.intensities.matching import Reference
from vxm_convert.scans.conform import Placement, conform
from vxm_convert.scans.discovery import find_segmentations, named_after, safe_name, scans_of, unique_names, volume_stem
from vxm_convert.scans.scan_file import ScanFile

LOG = logging.getLogger(__name__)

#: in messages, what the fixed image of a pair is
FIXED_IMAGE = "fixed image"


@dataclass(frozen=True)
class Scan:
    """One moving scan to register: subject name (unique, safe as a folder name), its file, and its segmentation file if
    separate. `file` and `seg_file` are these files, opened once. `fixed` is the fixed image of a pair; None for a scan
    of a run with one atlas. `called` is what a table of pairs calls a fixed image, which its file's name may not tell
    from others. `frame` is the number of a frame of a series, from 0.
    """

    subject: str
    path: Path
    seg_path: Optional[Path] = None
    fixed: Optional[Scan] = None
    called: str = ""
    frame: Optional[int] = None
    file: ScanFile = field(init=False, compare=False, repr=False)
    seg_file: Optional[ScanFile] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", ScanFile(self.path, self.frame))
        object.__setattr__(self, "seg_file", None if self.seg_path is None else ScanFile(self.seg_path))


@dataclass(frozen=True)
class Source:
    """The original of a scan that had to be resampled.

    Parameters
    ----------
    image : ndarray, shape of `grid`, float32 — the file's own intensities.
    seg : ndarray, shape of `grid`, integer, or None.
    """

    image: np.ndarray
    seg: Optional[np.ndarray]
    grid: Grid


@dataclass(frozen=True)
class LoadedScan:
    """A scan as input of the network.

    Parameters
    ----------
    image : ndarray, shape (X, Y, Z), float32 — network intensities (value / scale).
    taken_seg : ndarray, shape (X, Y, Z), integer, or None — the labels of a scan that was not resampled.
    affine : ndarray, shape (4, 4) — the file's own affine, or that of the network grid if the format has none.
    intensity, factor : str, float — convention found in the file, and file value per network value.
    stored_dtype : str — dtype of the file's values.
    sha256 : str — of the scan's file.
    seg_sha256 : str — of the segmentation's file, or None if it is in the scan's file or there is none.
    seg_dtype : str — dtype of the segmentation's ids, which are in a smaller one here if that holds them; empty without one.
    placement : Placement — position of the scan relative to the network grid; None if not requested.
    reference : Reference — of an atlas that scans are matched to.
    target : Target — of an atlas that affines are searched to.
    source : Source — the original of a scan that was resampled to the network grid, else None.
    """

    scan: Scan
    image: np.ndarray
    taken_seg: Optional[np.ndarray]
    affine: np.ndarray
    intensity: str
    factor: float
    stored_dtype: str
    sha256: str
    seg_sha256: Optional[str] = None
    seg_dtype: str = ""
    placement: Optional[Placement] = None
    source: Optional[Source] = None
    reference: Optional[Reference] = None
    target: Optional[Target] = None

    @property
    def seg(self) -> Optional[np.ndarray]:
        """Its labels on the network grid, shape (X, Y, Z). Those of a resampled scan are resampled each time that they are
        asked for: only comparisons need them.
        """
        if self.source is None or self.source.seg is None:
            return self.taken_seg
        return conform(self.source.seg, self.placed, "nearest")

    @property
    def file_grid(self) -> Grid:
        """The grid of its file."""
        return self.placed.network if self.source is None else self.source.grid

    @property
    def placed(self) -> Placement:
        """`placement`, of a scan for which it was asked."""
        if self.placement is None:
            raise RuntimeError(f"{self.scan.path}: its placement was not asked for")
        return self.placement


def discover(source: Path, atlas: Path, limit: Optional[int] = None, more: Sequence[Path] = ()) -> List[Scan]:
    """The scans of a folder in name order, without segmentations, hidden files and the atlas; or scans given themselves,
    in their order.

    Parameters
    ----------
    source : Path — a folder, a scan, or a list of them (`om_runner.inputs.lists`).
    more : further paths of the same kind.

    Raises
    ------
    VolumeError
        If one is missing, not of a kind that is read, or a folder without a scan.
    """
    found: Dict[str, Path] = {}
    for path in without_lists((source, *more)):
        for image in scans_of(path, atlas):
            if found.setdefault(os.path.abspath(str(image)), image) is not image:
                LOG.warning("%s: given twice, registered once", image)
    images = list(found.values())
    names = subject_names(images)
    for name, path in zip(names, images):
        if name != safe_name(volume_stem(named_after(path))):
            LOG.warning(
                "%s: its results are named %s, because another scan or a file of the runner has its name", path, name
            )
    scans = [Scan(name, path, seg) for name, path, seg in zip(names, images, find_segmentations(images))]
    return scans if limit is None else scans[:limit]


def subject_names(paths: List[Path]) -> List[str]:
    """Folder-safe, unique names, one per file, or its FreeSurfer subject; see `vxm_convert.scans.discovery.unique_names`."""
    return unique_names([named_after(path) for path in paths], RESERVED_SUBJECTS)
