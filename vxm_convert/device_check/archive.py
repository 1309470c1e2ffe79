# SPDX-License-Identifier: Apache-2.0
"""``device-check.zip``: written with names of host and user removed, read without trusting it."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from vxm_convert.artifacts.files import write_bytes
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.device_check.points import CHECK_SCHEMA, Rung
from vxm_convert.errors import ArtifactError, FormatError

ARCHIVE_NAME = "device-check.zip"
CHECK_NAME = "device-check.json"
PAGE_NAME = "device-check.html"
#: what an archive may hold of one log
MAX_LOG_BYTES = 1 << 20
_MAX_CHECK_BYTES = 16 << 20
_MAX_ARCHIVE_BYTES = 1 << 30
#: texts are scrubbed; arrays are kept as they are
_TEXTS = (".json", ".html", ".log", ".txt", ".csv", ".cfg")
_ARRAYS = (".npz", ".pb")
_TIME = (1980, 1, 1, 0, 0, 0)


def write_archive(folder: Path, members: Sequence[Tuple[str, Path]], scrub: Callable[[str], str]) -> Path:
    """Write the archive of a check into `folder`.

    Parameters
    ----------
    members : sequence of (name in the archive, file) — texts, ``.npz`` and ``.pb``; other files are refused.
    scrub : callable — text → text without names of this machine.

    Raises
    ------
    ArtifactError
        If a file cannot be read or the archive cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in members:
            info = zipfile.ZipInfo(scrub(name), _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, _content(path, scrub))
    target = Path(folder) / ARCHIVE_NAME
    write_bytes(target, buffer.getvalue())
    return target


def _content(path: Path, scrub: Callable[[str], str]) -> bytes:
    if path.suffix not in _TEXTS + _ARRAYS:
        raise ArtifactError(f"{path}: files of this kind do not go into an archive")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be read for the archive ({exc.strerror})") from exc
    if path.suffix in _ARRAYS:
        return data
    text = data.decode("utf-8", "replace")
    if path.suffix == ".log" and len(text) > MAX_LOG_BYTES:
        text = text[: MAX_LOG_BYTES // 2] + "\n[… cut …]\n" + text[-MAX_LOG_BYTES // 2 :]
    return scrub(text).encode("utf-8")


def read_archive(path: Path) -> Tuple[Dict[str, Any], List[Rung]]:
    """(the check as it was written, its rungs) of an archive or of a ``device-check.json``.

    Raises
    ------
    ArtifactError, FormatError
        If the file is missing, is no archive of a check, or is too large.
    """
    path = Path(path)
    data = parse_json(_check_bytes(path), str(path), "pass a device-check.zip as the command wrote it")
    if not isinstance(data, dict) or data.get("kind") != "device-check" or data.get("check_schema") != CHECK_SCHEMA:
        raise FormatError(f"{path}: holds no device-check of schema {CHECK_SCHEMA}; write it with this version")
    rungs = data.get("rungs")
    if not isinstance(rungs, list):
        raise FormatError(f"{path}: has no list of rungs; run device-check again")
    try:
        return data, [Rung.from_dict(rung) for rung in rungs]
    except FormatError as exc:
        raise FormatError(f"{path}: {exc}") from exc


def _check_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_ARCHIVE_BYTES:
            raise FormatError(f"{path}: has {path.stat().st_size} bytes, an archive has at most {_MAX_ARCHIVE_BYTES}")
        with open(str(path), "rb") as handle:
            if handle.read(2) != b"PK":
                handle.seek(0)
                return _bounded(handle.read(_MAX_CHECK_BYTES + 1), path)
        with zipfile.ZipFile(str(path)) as archive, archive.open(CHECK_NAME) as member:
            return _bounded(member.read(_MAX_CHECK_BYTES + 1), path)
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be read ({exc.strerror or exc}); pass the archive of a check") from exc
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise FormatError(f"{path}: is no archive of a check ({exc}); pass device-check.zip") from exc


def _bounded(data: bytes, path: Path) -> bytes:
    if len(data) > _MAX_CHECK_BYTES:
        raise FormatError(f"{path}: its {CHECK_NAME} is longer than {_MAX_CHECK_BYTES} bytes")
    return data


def write_check(folder: Path, head: Dict[str, Any], rungs: Sequence[Rung], scrub: Callable[[str], str]) -> Path:
    """``device-check.json`` in `folder`, scrubbed; `head` is what every report has, and the facts."""
    data = {**head, "check_schema": CHECK_SCHEMA, "rungs": [rung.to_dict() for rung in rungs]}
    target = Path(folder) / CHECK_NAME
    write_bytes(target, scrub(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)).encode("utf-8"))
    return target
