# SPDX-License-Identifier: Apache-2.0
"""The file beside a header that holds its voxels. A name in a header comes from whoever wrote it: it is taken for a file
in the header's own folder, and for nothing else.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

#: longest name that file systems take
_LONGEST = 255
#: of a name for many files: a number's place in it (``slice%03d.raw``)
_PATTERN = re.compile(r"%[0-9]*[dui]")
_SHOWN = 80
_ONE_FILE = "expected the name of one file in the folder of the header"


def named_beside(header: Path, name: str) -> Path:
    """The file that a header names.

    Raises
    ------
    ValueError
        With the reason: a name that leads out of the header's folder or means several files, and anything but a regular
        file of that name.
    """
    plain = name[2:] if name.startswith("./") else name
    shown = f"{name[:_SHOWN]!r}"
    if not plain or plain in (".", "..") or len(plain) > _LONGEST or not plain.isprintable():
        raise ValueError(f"its voxels are in {shown}, {_ONE_FILE}")
    if any(mark in plain for mark in "/\\:"):
        raise ValueError(f"its voxels are in {shown}, {_ONE_FILE}; copy that file there and write its name alone")
    if plain.split()[0].upper() == "LIST" or _PATTERN.search(plain):
        raise ValueError(f"its voxels are in several files ({shown}), {_ONE_FILE}")
    path = header.with_name(plain)
    try:
        mode = os.lstat(str(path)).st_mode
    except OSError as exc:
        raise ValueError(
            f"its voxels are in {shown}, which is not beside it ({exc.strerror}); copy both files"
        ) from exc
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise ValueError(f"its voxels are in {shown}, which is {what}; {_ONE_FILE}")
    if os.path.lexists(str(header)) and os.path.samefile(str(path), str(header)):
        raise ValueError(f"its voxels are in {shown}, which is the header itself")
    return path


def skipped(text: str, what: str) -> int:
    """Bytes before the voxels in a file of their own; raises ValueError with the reason."""
    if not (text.isdigit() and len(text) < 10):
        raise ValueError(f"{what} {text[:_SHOWN]!r}, expected a number of bytes of at least 0")
    return int(text)
