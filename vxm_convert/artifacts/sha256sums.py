# SPDX-License-Identifier: Apache-2.0
"""SHA256SUMS: the hash of every file that a run left in its folder, side-cars and reports included. Written last, and
proves itself.

The lines are those of ``sha256sum``, so ``sha256sum -c SHA256SUMS`` checks a folder without this project. The last line
is a comment with the hash of all lines before it: a flipped bit in the list itself is told from one in the files it
names. A folder whose run did not end has none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Tuple

from vxm_convert.artifacts.files import read_bounded, sha256_of, sidecar_path, write_text
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.names import SUMS_NAME
from vxm_convert.errors import ArtifactError, FormatError, VxmError

LOG = logging.getLogger(__name__)

#: a lock's name; its holder removes it, so it is in no list
LOCK_NAME = "lock"
#: the list of earlier runs while another one writes: a kill leaves it for the next run
_KEPT_NAME = f".{SUMS_NAME}.earlier"
_HEAD = "# What the runs that wrote here left behind; sha256sum -c SHA256SUMS checks it.\n"
_LAST = "# sha256 of the lines above: "
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]+)")
_MAX_BYTES = 256 << 20
_MAX_SIDECAR = 1 << 20
_ADVICE = "delete it and make the folder's files again"


def begin_manifest(folder: Path) -> Dict[str, str]:
    """Take the manifest of earlier runs away before anything is written; returns its entries for `finish_manifest`.

    Raises
    ------
    ArtifactError
        It cannot be removed.
    """
    path, kept = Path(folder) / SUMS_NAME, Path(folder) / _KEPT_NAME
    # A run that was killed left what it had taken away; what stands is newer.
    earlier = {**_entries_of(kept), **_entries_of(path)}
    try:
        if path.is_file() and kept.is_file():
            _write(kept, earlier)
            path.unlink()
        elif path.is_file():
            os.replace(str(path), str(kept))
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot remove what an earlier run wrote ({exc.strerror}); choose another output folder"
        ) from exc
    return earlier


def _entries_of(path: Path) -> Dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return read_manifest(path)
    except VxmError as exc:
        LOG.warning("%s; the files of earlier runs stay without proof", exc)
        return {}


def finish_manifest(folder: Path, names: Iterable[str], earlier: Mapping[str, str]) -> Path:
    """Write the manifest: the files just made, and those of earlier runs that still stand.

    Parameters
    ----------
    names : iterable of str — paths below `folder`, with forward slashes; names of files that were not made are passed
        over.
    earlier : mapping — what `begin_manifest` gave.
    """
    folder = Path(folder)
    entries = {name: digest for name, digest in earlier.items() if (folder / name).is_file()}
    entries.update({name: recorded_digest(folder / name) for name in sorted(set(names)) if (folder / name).is_file()})
    _write(folder / SUMS_NAME, entries)
    kept = folder / _KEPT_NAME
    if kept.is_file():
        kept.unlink()
    return folder / SUMS_NAME


def _write(path: Path, entries: Mapping[str, str]) -> None:
    body = _HEAD + "".join(f"{digest}  {name}\n" for name, digest in sorted(entries.items()))
    write_text(path, body + _LAST + hashlib.sha256(body.encode("utf-8")).hexdigest() + "\n")


def refresh_manifest(folder: Path, names: Iterable[str]) -> None:
    """Take further files into a manifest that stands; where none stands, none is made."""
    if (Path(folder) / SUMS_NAME).is_file():
        finish_manifest(folder, names, begin_manifest(folder))


def files_below(folder: Path, *parts: str) -> List[str]:
    """Names of all files in ``folder/part`` for `finish_manifest`; for folders that are ours as a whole."""
    folder = Path(folder)
    found = [path for part in parts for path in (folder / part).rglob("*") if _lasting(path)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _lasting(path: Path) -> bool:
    """A file that stays: neither a temporary one nor the lock that its holder removes."""
    return path.is_file() and not path.name.startswith(".tmp-") and path.name != LOCK_NAME


def read_manifest(path: Path) -> Dict[str, str]:
    """File name → sha256.

    Raises
    ------
    ArtifactError
        It cannot be read.
    FormatError
        It is damaged: the hash in its last line is not that of the others, or a line is not of the format.
    """
    path = Path(path)
    data = read_bounded(path, _MAX_BYTES, "the manifest", _ADVICE)
    at = data.rfind(_LAST.encode())
    if at < 0 or data[at:] != (_LAST + hashlib.sha256(data[:at]).hexdigest() + "\n").encode():
        raise FormatError(f"{path}: is damaged, its last line is not the sha256 of the lines above it; {_ADVICE}")
    lines = data[:at].decode("utf-8", "replace").splitlines()
    return dict(_entry(path, line) for line in lines if not line.startswith("#"))


def _entry(path: Path, line: str) -> Tuple[str, str]:
    match = _LINE.fullmatch(line)
    parts = match.group(2).split("/") if match else [".."]
    if match is None or ".." in parts or not parts[0]:
        raise FormatError(f"{path}: line {line[:80]!r} is not a sha256 and a file below the folder; {_ADVICE}")
    return match.group(2), match.group(1)


def recorded_digest(path: Path) -> str:
    """What the side-car recorded when the file was made, so that large results are not read again; else taken now."""
    side = sidecar_path(path)
    try:
        recorded = (
            parse_json(read_bounded(side, _MAX_SIDECAR, "a side-car", _ADVICE), str(side)) if side.is_file() else None
        )
    except VxmError:
        recorded = None
    digest = recorded.get("sha256") if isinstance(recorded, dict) and recorded.get("file") == path.name else None
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else sha256_of(path)
