# SPDX-License-Identifier: Apache-2.0
"""Tables of pairs: a moving and a fixed image per line, their segmentations if they are not beside them, and a name.

Separated by tabs, without quotes, or by commas; the first line names the columns, in any order. Empty cells and ``n/a``
mean "none"; lines that start with # are comments; relative paths start at the table's folder.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from om_runner.inputs.lists import text_lines
from om_runner.inputs.scans import FIXED_IMAGE, Scan
from om_runner.names import RESERVED_SUBJECTS
from vxm_convert.artifacts.tsv import MISSING
from vxm_convert.errors import VolumeError
from vxm_convert.parser import meant
from vxm_convert.scans.discovery import (
    find_segmentations,
    freesurfer_scan,
    named_after,
    safe_name,
    unique_names,
    volume_stem,
)
from vxm_convert.scans.header import kinds_for, volume_suffix
from vxm_convert.text import line_of, one_line

MOVING, FIXED, MOVING_LABELS, FIXED_LABELS, NAME = COLUMNS = (
    "moving",
    "fixed",
    "moving_labels",
    "fixed_labels",
    "name",
)
#: between the names of the two images in the name of a pair that has none
JOINT = "__"
_WHAT = "a table of pairs"
_ADVICE = f"write it as UTF-8 text with a first line such as {MOVING}<tab>{FIXED}"
#: longer names of folders are refused by some file systems
_LONGEST = 200
_SHOWN = 5
#: folders above a scan that may be needed to tell it from others
_DEEPEST = 8


class _Pair(NamedTuple):
    """One line of the table, with its word for the fixed image; the name is empty if it has none."""

    line: int
    moving: Path
    fixed: Path
    moving_labels: Optional[Path]
    fixed_labels: Optional[Path]
    called: str
    name: str


class _Bad(ValueError):
    """What is wrong with a line."""


def read_pairs(path: Path) -> List[Scan]:
    """The pairs of a table in its order: moving scans, each with its fixed image. Pairs without a name are called after
    both images, ``<moving>__<fixed>``.

    Raises
    ------
    VolumeError
        For a file that is no such table, and for lines that cannot be used: all of them with their numbers in one
        message.
    """
    path = Path(path)
    rows = _rows(path)
    columns = _columns(path, rows)
    pairs, problems = [], []
    for number, cells in rows[1:]:
        try:
            pairs.append(_pair(path.parent, number, columns, cells))
        except _Bad as exc:
            problems.append(f"line {number}: {exc}")
    names = _names(pairs)
    problems += _clashes(pairs, names)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines = "1 line" if len(problems) == 1 else f"{len(problems)} lines"
        raise VolumeError("\n  ".join([f"{path}: {lines} cannot be used:", *problems[:_SHOWN], *more]))
    if not pairs:
        raise VolumeError(f"{path}: names no pair, expected one per line after the names of the columns")
    return _scans(pairs, names)


def _rows(path: Path) -> List[Tuple[int, List[str]]]:
    """Numbers of lines and their cells, stripped."""
    if not os.path.isfile(str(path)):
        raise VolumeError(f"{path}: no such table of pairs; pass a text file with --pairs")
    kept = text_lines(path, _WHAT, _ADVICE)
    tabs = bool(kept) and "\t" in kept[0][1]
    rule = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True, "skipinitialspace": True}
    rows = []
    for number, line in kept:
        try:
            rows.append((number, [cell.strip() for cell in next(csv.reader([line], **rule))]))  # type: ignore[arg-type]
        except csv.Error as exc:
            raise VolumeError(f"{path}: line {number}: its quotes do not close ({exc}); {_ADVICE}") from exc
    return rows


def _columns(path: Path, rows: Sequence[Tuple[int, List[str]]]) -> List[str]:
    if not rows:
        raise VolumeError(f"{path}: is empty, expected {_WHAT}; {_ADVICE}")
    columns = [cell.lower() for cell in rows[0][1]]
    got = one_line(", ".join(line_of(name) or "(none)" for name in columns))
    missing = [name for name in (MOVING, FIXED) if name not in columns]
    if missing:
        hint = "; separate them by tabs or commas" if len(columns) == 1 else ""
        raise VolumeError(f"{path}: has no column {' and no column '.join(missing)}, its first line says: {got}{hint}")
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or len(set(columns)) != len(columns):
        hint = meant(unknown[0], COLUMNS) if unknown else ""
        raise VolumeError(f"{path}: has the columns {got}, expected each at most once of {', '.join(COLUMNS)}{hint}")
    return columns


def _pair(folder: Path, number: int, columns: Sequence[str], cells: Sequence[str]) -> _Pair:
    if len(cells) != len(columns):
        raise _Bad(f"has {len(cells)} cells, expected {len(columns)}, one per column")
    said = {column: "" if cell == MISSING else cell for column, cell in zip(columns, cells)}
    found = {column: _file(folder, column, said.get(column, "")) for column in COLUMNS[:-1]}
    moving, fixed = found[MOVING], found[FIXED]
    if moving is None or fixed is None:
        raise _Bad(f"names no {MOVING if moving is None else FIXED} image")
    name = said.get(NAME, "")
    if name and name != safe_name(name):
        raise _Bad(f"name {line_of(name)!r}, expected letters, digits, dot, _ and -, such as {safe_name(name)}")
    return _Pair(number, moving, fixed, found[MOVING_LABELS], found[FIXED_LABELS], said[FIXED], name)


def _file(folder: Path, column: str, cell: str) -> Optional[Path]:
    if not cell:
        return None
    path = folder / cell
    if column in (MOVING, FIXED):
        path = freesurfer_scan(path) or path
    if not os.path.isfile(str(path)):
        raise _Bad(f"{column}: {path}: {'a folder' if os.path.isdir(str(path)) else 'no such file'}")
    if volume_suffix(path) is None:
        raise _Bad(f"{column}: {path}: not of a kind that is read, expected one of {kinds_for(path)}")
    return path


def _names(pairs: Sequence[_Pair]) -> List[str]:
    images = dict.fromkeys(image for pair in pairs if not pair.name for image in (pair.moving, pair.fixed))
    labels = _labels(list(images))
    return [pair.name or JOINT.join((labels[pair.moving], labels[pair.fixed])) for pair in pairs]


def _labels(images: Sequence[Path]) -> Dict[Path, str]:
    """A name per image: its stem, behind as many of its folders' names as tell it from the others; with suffix and number
    as a last resort, of names in other letters than a to z for example.
    """
    labels: Dict[Path, str] = {}
    left = list(images)
    for depth in range(_DEEPEST):
        made = {image: _below(named_after(image), depth) for image in left}
        counts = Counter(label.lower() for label in [*made.values(), *labels.values()])
        labels.update((image, label) for image, label in made.items() if counts[label.lower()] == 1)
        left = [image for image in left if image not in labels]
    return {**labels, **dict(zip(left, unique_names(left, labels.values())))}


def _below(path: Path, depth: int) -> str:
    return safe_name("_".join([*path.parts[-1 - depth : -1], volume_stem(path)]))


def _clashes(pairs: Sequence[_Pair], names: Sequence[str]) -> List[str]:
    """What is wrong with the names."""
    problems = []
    # On file systems that ignore case, A and a are one folder.
    taken = {name.lower(): 0 for name in RESERVED_SUBJECTS}
    for pair, name in zip(pairs, names):
        start, before = f"line {pair.line}: ", taken.setdefault(name.lower(), pair.line)
        if before == 0:
            problems.append(f"{start}the name {name} is that of a file of the runner; choose another")
        elif before != pair.line:
            what = "the name" if pair.name else "the same two images, or two of the same names:"
            problems.append(f"{start}{what} {name} is that of line {before}; remove one, or tell them apart by {NAME}")
        elif len(name) > _LONGEST:
            problems.append(f"{start}its name would have {len(name)} characters, of {_LONGEST}; give a shorter {NAME}")
    return problems


def _scans(pairs: Sequence[_Pair], names: Sequence[str]) -> List[Scan]:
    images = list(dict.fromkeys(image for pair in pairs for image in (pair.moving, pair.fixed)))
    beside = dict(zip(images, find_segmentations(images)))
    opened: Dict[Tuple[Path, Optional[Path]], Scan] = {}
    scans = []
    for pair, name in zip(pairs, names):
        files = (pair.fixed, pair.fixed_labels or beside[pair.fixed])
        fixed = opened.setdefault(files, Scan(FIXED_IMAGE, *files, called=pair.called))
        scans.append(Scan(name, pair.moving, pair.moving_labels or beside[pair.moving], fixed))
    return scans
