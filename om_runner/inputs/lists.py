# SPDX-License-Identifier: Apache-2.0
"""Text files that name scans: lists with a path per line, and the lines of tables of pairs."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Iterable, List, Tuple

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import VolumeError

#: of a list; anything else that is given is a scan or a folder
LIST_SUFFIXES = (".txt", ".lst", ".list")
_MAX_BYTES = 64 << 20


def text_lines(path: Path, what: str, advice: str) -> List[Tuple[int, str]]:
    """Lines with their numbers, without empty ones and comments (``#``).

    Parameters
    ----------
    what, advice : str — of such a file, for messages.

    Raises
    ------
    VolumeError
        For a file that is no UTF-8 text, or has control characters.
    """
    try:
        text = read_bounded(path, _MAX_BYTES, what, advice).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise VolumeError(f"{path}: is no UTF-8 text, expected {what}; {advice}") from exc
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    for number, line in kept:
        wrong = next((c for c in line if c != "\t" and unicodedata.category(c) == "Cc"), None)
        if wrong is not None:
            raise VolumeError(
                f"{path}: line {number} contains the control character {wrong!r}, expected text; {advice}"
            )
    return kept


def without_lists(sources: Iterable[Path]) -> List[Path]:
    """Scans and folders, with what a list names in its place; relative paths start at the list's folder.

    Raises
    ------
    VolumeError
        For a list that cannot be read, is empty, or names a file that is not there.
    """
    found: List[Path] = []
    for source in map(Path, sources):
        if source.suffix.lower() in LIST_SUFFIXES and source.is_file():
            found += _listed(source)
        else:
            found.append(source)
    return found


def _listed(path: Path) -> List[Path]:
    lines = text_lines(path, "a list of scans", "write one path per line, as UTF-8 text")
    if not lines:
        raise VolumeError(f"{path}: names no scan, expected one path per line")
    named = [(number, path.parent / line.strip()) for number, line in lines]
    gone = [(number, source) for number, source in named if not os.path.lexists(str(source))]
    if gone:
        more = f"; and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise VolumeError(f"{path}: line {gone[0][0]}: {gone[0][1]}: no such folder or file{more}")
    return [source for _, source in named]
