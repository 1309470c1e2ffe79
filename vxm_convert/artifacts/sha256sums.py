# SPDX-License-Identifier: Apache-2.0
"""SHA256SUMS: the hash of every file of a run in its folder, including side-cars and reports. Written last, and
protected by its own hash.

The lines are those of ``sha256sum``, so ``sha256sum -c SHA256SUMS`` checks a folder without this project. The last line
is a comment with the hash of all lines before it: so a flipped bit in the list is distinguished from one in the listed
files. A folder whose run did not end has no list.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from vxm_convert.artifacts.files import read_bounded, sha256_of, sidecar_path, write_text
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.names import RECORDS_FOLDER, SUMS_NAME
from vxm_convert.artifacts.temporaries import MARK, remove
from vxm_convert.errors import ArtifactError, FormatError, VxmError

LOG = logging.getLogger(__name__)

#: folders of files that come and go while processes work: they are in no list
_PASSING = ("owners", "claims")
#: the list of earlier runs while another one writes: a kill leaves it for the next run
_KEPT_NAME = f".{SUMS_NAME}.earlier"
_HEAD = "# What the runs that wrote here left behind; sha256sum -c SHA256SUMS checks it.\n"
_LAST = "# sha256 of the lines above: "
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]+)")
_MAX_BYTES = 256 << 20
_MAX_SIDECAR = 1 << 20
_ADVICE = "delete it and make the folder's files again"


def begin_manifest(folder: Path) -> Dict[str, str]:
    """Remove the manifest of earlier runs before anything is written; returns its entries for `finish_manifest`.

    Raises
    ------
    ArtifactError
        If it cannot be removed.
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
    except FileNotFoundError:
        # Another process that works on this folder was faster.
        return earlier
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot remove files of an earlier run ({exc.strerror}); choose another output folder"
        ) from exc
    return earlier


def set_aside(folder: Path) -> None:
    """Remove the manifest, if there is one, before a file that it lists changes."""
    if (Path(folder) / SUMS_NAME).is_file():
        begin_manifest(folder)


def _entries_of(path: Path) -> Dict[str, str]:
    if not path.is_file() or path.is_symlink():
        return {}
    try:
        return read_manifest(path)
    except VxmError as exc:
        if not path.exists():
            return {}
        LOG.warning("%s; files of earlier runs have no recorded hash any more", exc)
        return {}


def finish_manifest(
    folder: Path, names: Iterable[str], earlier: Mapping[str, str], known: Optional[Mapping[str, str]] = None
) -> Path:
    """Write the manifest: the new files, and those of earlier runs that still exist.

    Parameters
    ----------
    names : iterable of str — paths below `folder`, with forward slashes; names of missing files are skipped.
    earlier : mapping — the result of `begin_manifest`.
    known : mapping — hashes of files that a record holds: they are not read again.
    """
    folder = Path(folder)
    recorded = dict(known or {})
    entries = {name: digest for name, digest in {**earlier, **recorded}.items() if (folder / name).is_file()}
    new = sorted(set(names) - set(recorded))
    for name in new:
        try:
            entries[name] = recorded_digest(folder / name)
        except ArtifactError:
            # Missing, or removed just now by another process that works on the folder.
            if (folder / name).is_file():
                raise
    _write(folder / SUMS_NAME, entries)
    remove(folder / _KEPT_NAME)
    return folder / SUMS_NAME


def _write(path: Path, entries: Mapping[str, str]) -> None:
    body = _HEAD + "".join(f"{digest}  {name}\n" for name, digest in sorted(entries.items()))
    write_text(path, body + _LAST + hashlib.sha256(body.encode("utf-8")).hexdigest() + "\n")


def refresh_manifest(folder: Path, names: Iterable[str]) -> None:
    """Add files to an existing manifest; without one, do nothing."""
    if (Path(folder) / SUMS_NAME).is_file():
        finish_manifest(folder, names, begin_manifest(folder))


def files_below(folder: Path, *parts: str) -> List[str]:
    """Names of all files in ``folder/part`` for `finish_manifest`; for folders that are entirely ours."""
    folder = Path(folder)
    found = [path for part in parts for path in _lasting(folder / part)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _lasting(top: Path) -> Iterator[Path]:
    """Permanent files: neither temporary nor claims, and no links. What other processes remove meanwhile is no error."""
    for place, folders, files in os.walk(str(top)):
        if Path(place).name == RECORDS_FOLDER:
            folders[:] = [name for name in folders if name not in _PASSING]
        folders[:] = [name for name in folders if not name.startswith(MARK)]
        paths = [Path(place) / name for name in files if not name.startswith(MARK)]
        yield from (path for path in paths if not path.is_symlink() and path.is_file())


def read_manifest(path: Path) -> Dict[str, str]:
    """File name → sha256.

    Raises
    ------
    ArtifactError
        If it cannot be read.
    FormatError
        If it is damaged: the hash in its last line is wrong, or a line does not have the format.
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
    """The hash in the side-car, so that large results are not read again; else computed now."""
    side = sidecar_path(path)
    try:
        recorded = (
            parse_json(read_bounded(side, _MAX_SIDECAR, "a side-car", _ADVICE), str(side)) if side.is_file() else None
        )
    except VxmError:
        recorded = None
    digest = recorded.get("sha256") if isinstance(recorded, dict) and recorded.get("file") == path.name else None
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else sha256_of(path)
