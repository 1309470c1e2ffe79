# SPDX-License-Identifier: Apache-2.0
"""Manifest files: the fixed image, segmentations and part of the split of each scan.

``.csv`` with a header line: the columns ``moving`` (required), ``fixed``, ``seg`` (of moving), ``fixed_seg``, ``split``
(train, validation or test) in any order. Without a header, and in ``.txt``: moving[,fixed[,seg]]. Empty cells mean
"none"; lines that start with # are comments; relative paths start at the manifest's folder.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from train.settings.run import SPLIT_NAMES
from vxm_convert.errors import TrainingError
from vxm_convert.scans.header import kinds_for, volume_suffix
from vxm_convert.text import read_reason

SUFFIXES = (".csv", ".txt")
COLUMNS = ("moving", "fixed", "seg", "fixed_seg", "split")
_PLAIN = COLUMNS[:3]
#: number of a line and its cells
Row = Tuple[int, List[str]]
_MAX_BYTES = 64 << 20
_MAX_SHOWN = 10


@dataclass(frozen=True)
class Subject:
    """One scan with its files; `fixed` None means the atlas, or another scan. `part`: from the manifest, if it has the
    column.
    """

    moving: Path
    fixed: Optional[Path] = None
    seg: Optional[Path] = None
    fixed_seg: Optional[Path] = None
    part: Optional[str] = None


def is_manifest(path: Path) -> bool:
    """Whether the name ends in .csv or .txt."""
    return Path(path).suffix.lower() in SUFFIXES


def read_manifest(path: Path) -> List[Subject]:
    """Subjects in the order of the lines.

    Raises
    ------
    TrainingError
        For an unreadable or empty file, unknown columns or missing files: all problems with line numbers in one
        message.
    """
    path = Path(path)
    rows = _rows(path)
    columns, first = _header(path, rows)
    subjects, problems = [], []
    for number, cells in rows[first:]:
        try:
            subjects.append(_subject(path.parent, dict(zip(columns, cells)), len(cells) - len(columns)))
        except ValueError as exc:
            problems.append(f"line {number}: {exc}")
    if problems:
        more = [f"and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
        raise TrainingError(
            "\n  ".join([f"{path}: {len(problems)} lines cannot be used:"] + problems[:_MAX_SHOWN] + more)
        )
    if not subjects:
        raise TrainingError(f"{path}: contains no scan, expected one per line; see `python -m train --help`")
    return subjects


def _rows(path: Path) -> List[Row]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TrainingError(f"{path}: {path.stat().st_size} bytes, expected a manifest of at most {_MAX_BYTES}")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise TrainingError(
            f"{path}: cannot read the manifest ({read_reason(exc)}); expected UTF-8 text with one scan per line"
        ) from exc
    kept = [
        (number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    try:
        return [(number, [cell.strip() for cell in next(csv.reader([line]))]) for number, line in kept]
    except csv.Error as exc:
        raise TrainingError(
            f"{path}: not a table of scans (its quotes do not close); write it as text with commas"
        ) from exc


def _header(path: Path, rows: List[Row]) -> Tuple[Tuple[str, ...], int]:
    """Column names, and the index of the first row after them."""
    first = [cell.lower() for cell in rows[0][1]] if rows else []
    if "moving" not in first:
        return _PLAIN, 0
    unknown = [name for name in first if name not in COLUMNS]
    if unknown or len(set(first)) != len(first):
        close = difflib.get_close_matches(unknown[0], COLUMNS, 1) if unknown else []
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TrainingError(
            f"{path}: columns {', '.join(first)}, expected each at most once of {', '.join(COLUMNS)}{hint}"
        )
    return tuple(first), 1


def _subject(folder: Path, cells: Dict[str, str], extra: int) -> Subject:
    if extra > 0:
        raise ValueError(f"{extra} more cells than columns")
    part = cells.get("split", "").lower() or None
    if part not in SPLIT_NAMES + (None,):
        raise ValueError(f"split is {part!r}, expected one of {', '.join(SPLIT_NAMES)}")
    moving, fixed, seg, fixed_seg = (_file(folder, cells.get(name, "")) for name in COLUMNS[:4])
    if moving is None:
        raise ValueError("no moving scan")
    return Subject(moving, fixed, seg, fixed_seg, part)


def _file(folder: Path, cell: str) -> Optional[Path]:
    if not cell:
        return None
    path = folder / cell
    if volume_suffix(path) is None:
        raise ValueError(f"{cell}: not a scan, expected one of {kinds_for(path)}")
    if not path.is_file():
        raise ValueError(f"{cell}: no such file")
    return path
