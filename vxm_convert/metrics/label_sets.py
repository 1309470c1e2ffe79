# SPDX-License-Identifier: Apache-2.0
"""A label set by name or from a file: which structures a table is about, and what they are called.

A file holds one structure per line: id and name, further columns ignored, ``#`` starts a comment. So
FreeSurferColorLUT.txt, a BIDS ``dseg.tsv`` that starts with index and name, and a plain list of ids are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Tuple

from vxm_convert.errors import VolumeError
from vxm_convert.metrics.labels import LABEL_SETS, label_name, label_set

_MAX_BYTES = 1 << 20
_MAX_LABELS = 10000


@dataclass(frozen=True)
class LabelSet:
    """Name of the set (the file's name for a file), ids ascending, id → structure name."""

    name: str
    ids: Tuple[int, ...]
    names: Dict[int, str]


def load_label_set(choice: str) -> LabelSet:
    """A named set, or the file of that path.

    Raises
    ------
    VolumeError
        For a name that is neither a set nor a file, and a file without labels.
    """
    if choice in LABEL_SETS:
        ids = tuple(sorted(label_set(choice)))
        return LabelSet(choice, ids, {label: label_name(label) for label in ids})
    path = Path(choice)
    if not path.is_file():
        raise VolumeError(
            f"label set: got {choice!r}, expected one of {', '.join(sorted(LABEL_SETS))} or a file of ids and names"
        )
    if path.stat().st_size > _MAX_BYTES:
        raise VolumeError(f"{path}: {path.stat().st_size} bytes, expected a label list of at most {_MAX_BYTES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise VolumeError(f"{path}: not a readable text file ({exc})") from exc
    names = _parse(lines, path)
    if not 0 < len(names) <= _MAX_LABELS:
        raise VolumeError(f"{path}: {len(names)} labels, expected 1 to {_MAX_LABELS} lines with an id and a name")
    return LabelSet(path.name, tuple(sorted(names)), names)


def _parse(lines: list, path: Path) -> Dict[int, str]:
    names: Dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words or (number == 1 and not words[0].lstrip("-").isdigit()):
            continue
        if not words[0].isdigit() or int(words[0]) >= 2**31:
            raise VolumeError(f"{path}, line {number}: {words[0]!r}, expected a label id from 0 to {2**31 - 1}")
        label = int(words[0])
        if label in names:
            raise VolumeError(f"{path}, line {number}: label {label} stands twice")
        names[label] = words[1] if len(words) > 1 else label_name(label)
    return names
