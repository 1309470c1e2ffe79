# SPDX-License-Identifier: Apache-2.0
"""What a Python program passes to a `Registrar`, as scans on their way: their files, names and identities."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Dict, Hashable, Iterable, Iterator, List, Optional

from om_runner.api.result import Moving, Pair
from om_runner.inputs.scans import Scan
from vxm_convert.images import Image, on_disk, path_of
from vxm_convert.scans.discovery import find_segmentation, freesurfer_scan

LOG = logging.getLogger(__name__)


@dataclass
class Item:
    """A scan on its way, and the fixed image of a pair; `notes` are the warnings about it."""

    moving: Moving
    name: str
    fixed: Optional[Moving] = None
    notes: List[str] = field(default_factory=list)


def scan_in(moving: Moving, name: str, files: ExitStack) -> Scan:
    """The files of a scan, which are there as long as `files` is open."""
    path = files.enter_context(on_disk(moving.image, name))
    path = freesurfer_scan(path) or path
    if moving.labels is not None:
        return Scan(name, path, files.enter_context(on_disk(moving.labels, name + "_seg")))
    return Scan(name, path, None if path_of(moving.image) is None else find_segmentation(path))


def told_apart(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each under a name of its own: a later one with the name of an earlier one gets a number."""
    last: Dict[str, int] = {}
    for item in items:
        # On file systems that ignore case, Sub1 and sub1 are one folder.
        name, number = item.name, last.get(item.name.lower(), 0)
        while name.lower() in last:
            number += 1
            name = f"{item.name}_{number + 1}"
        last[item.name.lower()] = number
        last.setdefault(name.lower(), 0)
        if name != item.name:
            LOG.warning("%s: the name of an earlier scan; this one's results are named %s", item.name, name)
        yield replace(item, name=name)


def pair_of(scan: Scan) -> Pair:
    """A line of a table of pairs."""
    if scan.fixed is None:
        raise RuntimeError(f"{scan.subject}: a pair without a fixed image")
    return Pair(scan.path, scan.fixed.path, scan.seg_path, scan.fixed.seg_path, scan.subject)


def identity(image: Optional[Image]) -> Hashable:
    """Equal for the same image: a file by its path as long as it does not change."""
    path = None if image is None else path_of(image)
    if path is None:
        return _Same(image)
    try:
        found = os.stat(str(path))
    except (OSError, ValueError):
        # Reading it will report the reason.
        return str(path)
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino


class _Same:
    """An image in memory as a key, which keeps it alive."""

    def __init__(self, image: object) -> None:
        self._image = image

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._image is other._image

    def __hash__(self) -> int:
        return id(self._image)
