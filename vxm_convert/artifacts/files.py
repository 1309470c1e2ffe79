# SPDX-License-Identifier: Apache-2.0
"""Files of the chain: hashing, atomic writing, side-cars. Nothing here depends on the meaning of a file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator

from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.shares import set_mode, write_problem
from vxm_convert.artifacts.temporaries import temporary_prefix
from vxm_convert.errors import ArtifactError, FormatError

_CHUNK = 1 << 20
#: characters of a name that its temporary name repeats: the whole must not be longer than a file system allows
_KEPT_OF_NAME = 40
#: The umask of the process. Read once, at import: reading it means setting it, which must not happen while other
#: threads write.
UMASK = os.umask(0o077)
os.umask(UMASK)


def sha256_of(path: Path, *more: Path) -> str:
    """Hex sha256 of the bytes of a file, and of more files behind it; raises ArtifactError if one cannot be read."""
    digest = hashlib.sha256()
    for one in (path, *more):
        try:
            with open(str(one), "rb") as handle:
                for block in iter(lambda: handle.read(_CHUNK), b""):  # noqa: B023  # used up in this turn
                    digest.update(block)
        except OSError as exc:
            raise ArtifactError(f"{one}: cannot read it to take its sha256 ({exc.strerror})") from exc
    return digest.hexdigest()


def read_bounded(path: Path, limit: int, what: str, advice: str) -> bytes:
    """All bytes of a small file.

    Parameters
    ----------
    limit : int — bytes; a larger file is refused before it is read, also if it grows in the meantime.
    what : str — the expected kind of file, with its article: "the contract".
    advice : str — advice if it cannot be read.

    Raises
    ------
    ArtifactError
        If it cannot be read.
    FormatError
        If it has more than `limit` bytes.
    """
    try:
        with open(str(path), "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            data = handle.read(limit + 1) if size <= limit else b""
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot read {what} ({exc.strerror}); {advice}") from exc
    if max(size, len(data)) > limit:
        raise FormatError(
            f"{path}: {max(size, len(data))} bytes, expected at most {limit} for {what}; this is a different file"
        )
    return data


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed onto it on success and removed on any failure.

    The temporary name has the same suffixes, because writers such as nibabel choose the format by them. Raises
    ArtifactError if the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=temporary_prefix(), suffix="-" + path.name[-_KEPT_OF_NAME:], dir=str(path.parent)
        )
    except OSError as exc:
        raise ArtifactError(_cannot_write(path, exc)) from exc
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; results should be shared as the umask allows.
        set_mode(temporary, 0o666 & ~UMASK)
        os.replace(name, str(path))
    except OSError as exc:
        raise ArtifactError(f"{path}: writing failed: {write_problem(exc)}") from exc
    finally:
        if temporary.exists():
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 atomically; bytes of file names that are not UTF-8 are escaped as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, data: object) -> None:
    """Write `data` as sorted, indented JSON (equal data, equal bytes); NaN is refused."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def sidecar_path(path: Path) -> Path:
    """`<file>.json`, next to the file it describes."""
    return Path(str(path) + ".json")


def write_sidecar(path: Path, made_from: Dict[str, str], toolchain: Dict[str, Any], **details: object) -> Path:
    """Write the side-car of `path`: its hash and sources.

    Parameters
    ----------
    path : Path — an existing file.
    made_from : dict — role → sha256 of each file it was made from.
    toolchain : dict — ``Toolchain.describe()``, or ``{"kind": "none"}`` if no Ascend tool took part.
    """
    path = Path(path)
    side = sidecar_path(path)
    write_json(
        side, {"file": path.name, "sha256": sha256_of(path), "made_from": made_from, "toolchain": toolchain, **details}
    )
    return side


def check_output_folder(folder: Path) -> Path:
    """Create the folder and check that it is writable, before long work starts; raises ArtifactError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=str(folder), prefix=temporary_prefix()):
            return folder
    except OSError as exc:
        raise ArtifactError(_cannot_write(folder, exc)) from exc


def remove_earlier(folder: Path, names: Iterable[str], what: str) -> None:
    """Remove files of an earlier run, which do not belong to the new results.

    Parameters
    ----------
    what : str — description of one of them, for the message: "report of an earlier run".

    Raises
    ------
    ArtifactError
        If one cannot be removed.
    """
    for path in (Path(folder) / name for name in names):
        try:
            if path.is_file():
                path.unlink()
        except OSError as exc:
            raise ArtifactError(f"{path}: cannot remove this {what} ({exc.strerror}); choose another --out") from exc


def _cannot_write(path: Path, exc: OSError) -> str:
    return f"{path}: cannot write there ({exc.strerror}); choose another output folder or change its permissions"


MAX_JSON_BYTES = 64 << 20


def read_json(path: Path) -> Any:
    """A JSON file of ours; raises ArtifactError if it is unreadable or too large, FormatError if it is not JSON."""
    content = read_bounded(Path(path), MAX_JSON_BYTES, "a JSON file of ours", "check the name and its permissions")
    return parse_json(content, str(path))
