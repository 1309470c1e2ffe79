# SPDX-License-Identifier: Apache-2.0
"""Series: files of several frames, which are registered frame by frame as scans of their own, with one affine for all."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Sequence, Tuple

import numpy as np

from om_runner.inputs.scans import Scan
from vxm_convert.errors import VolumeError
from vxm_convert.scans.header import frames_in
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.text import whole_in

#: the image of a series on which its affine is searched, besides a number
MEAN = "mean"
#: least digits of a frame's number in the names of results
_DIGITS = 3


def is_series_choice(text: str) -> bool:
    """Whether a text is a value of ``--series``."""
    return text == MEAN or whole_in(text) is not None


def frame_by_frame(scans: Sequence[Scan]) -> List[Scan]:
    """Scans with the frames of each series in its place, named ``<subject>_frame-000`` and so on, from 0.

    Raises
    ------
    VolumeError
        If a frame would have the name of another scan.
    """
    found: List[Scan] = []
    for scan in scans:
        try:
            count = frames_in(scan.path)
        except VolumeError:
            # Its reading says why, as the failure of this scan alone.
            count = 1
        digits = max(_DIGITS, len(str(count - 1)))
        names = [f"{scan.subject}_frame-{frame:0{digits}d}" for frame in range(count)]
        found += [replace(scan, subject=name, frame=n) for n, name in enumerate(names)] if count > 1 else [scan]
    taken: Dict[str, Scan] = {}
    for scan in found:
        other = taken.setdefault(scan.subject.lower(), scan)
        if other is not scan:
            raise VolumeError(f"{scan.path} and {other.path}: both would be named {scan.subject}; rename one of them")
    return found


def searched_on(scan: Scan, choice: str, shape: Tuple[int, int, int]) -> np.ndarray:
    """The image of a frame's series on which the affine of all its frames is searched: float32, in the file's intensities.

    Raises
    ------
    VolumeError
        If the series has no such frame, and for frames that cannot be read or have values that are NaN or infinite.
    """
    count = frames_in(scan.path)
    number = whole_in(choice)
    if number is not None:
        if number >= count:
            raise VolumeError(f"{scan.path}: has the frames 0 to {count - 1}, --series asks for {choice}")
        return _frame(scan, number, shape)
    total = np.zeros(shape, np.float64)
    for frame in range(count):
        total += _frame(scan, frame, shape)
    return (total / count).astype(np.float32)


def _frame(scan: Scan, number: int, shape: Tuple[int, int, int]) -> np.ndarray:
    image = ScanFile(scan.path, number).image(shape).data
    if not np.isfinite(image).all():
        raise VolumeError(
            f"{scan.path}: frame {number}, on which the affine of all frames would be searched, has values that are NaN or "
            "infinite; correct it, or name a sound frame with --series N"
        )
    return image
