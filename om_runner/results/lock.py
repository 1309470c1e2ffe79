# SPDX-License-Identifier: Apache-2.0
"""One run per output folder: a lock that the system releases when its holder dies, and the clean-up after a killed run."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from om_runner.names import STATE_FOLDER
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.sha256sums import LOCK_NAME
from vxm_convert.artifacts.shares import Lock, take_lock, write_problem
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

_OLD = ".old"


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Create the folder, check that it is writable, and lock it; remove it again if it was new and stays empty.

    Raises
    ------
    ArtifactError
        If it cannot be written, or another run is writing there.
    """
    existed = out.exists()
    check_output_folder(out)
    state = out / STATE_FOLDER
    try:
        with _lock(state / LOCK_NAME, out):
            _clear_leftovers(out)
            yield
    finally:
        _remove_if_empty(state)
        if not existed:
            _remove_if_empty(out)


@contextmanager
def _lock(path: Path, out: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(exist_ok=True)
        handle = _take(path, out)
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be written: {write_problem(exc)}") from exc
    try:
        yield
    finally:
        # Removed while it is held: another run finds either this file, busy, or none.
        removed = _removed(path)
        handle.close()
        if not removed:
            # CIFS does not remove an open file.
            _removed(path)


def _take(path: Path, out: Path) -> IO[str]:
    while True:
        handle = open(str(path), "a+", encoding="utf-8")
        answer = take_lock(handle.fileno(), out)
        if answer is Lock.BUSY:
            handle.seek(0)
            holder = handle.read(200).strip() or "of another process"
            handle.close()
            raise ArtifactError(f"{out}: another run ({holder}) is writing there; wait for it or choose another --out")
        if answer is Lock.NONE:
            return handle
        if not _is_same_file(handle, path):
            # Its holder removed it between our opening and locking it.
            handle.close()
            continue
        handle.seek(0)
        stale = handle.read(200).strip()
        if stale:
            LOG.warning(
                "%s: the previous run (%s) was killed; its finished results are kept, the others are registered again",
                out,
                stale,
            )
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        return handle


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError as exc:
        LOG.debug("%s: not removed (%s)", path, exc.strerror)
    return not path.exists()


def _is_same_file(handle: IO[str], path: Path) -> bool:
    try:
        there = os.stat(str(path))
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle.fileno()), there)


def _clear_leftovers(out: Path) -> None:
    """Temporary files of a killed run. An old result that was moved aside is moved back if the new one is missing."""
    for path in sorted(out.glob(".tmp-*")) + sorted(out.glob(".compare-*")) + sorted(out.glob("qc/.tmp-*")):
        # .tmp-XXXXXXXX-<subject>.old, see `om_runner.results.writer.whole_folder`
        subject = path.name[: -len(_OLD)].split("-", 2)[-1]
        try:
            if path.name.endswith(_OLD) and path.is_dir() and not (path.parent / subject).exists():
                path.rename(path.parent / subject)
            elif path.is_dir():
                shutil.rmtree(str(path), ignore_errors=True)
            else:
                path.unlink()
        except OSError as exc:
            LOG.warning("%s: left over from a killed run and cannot be removed: %s", path, write_problem(exc))


def _remove_if_empty(folder: Path) -> None:
    try:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as exc:
        LOG.debug("%s: not removed (%s)", folder, exc.strerror)
