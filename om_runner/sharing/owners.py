# SPDX-License-Identifier: Apache-2.0
"""The processes that work on an output folder: one small file each, touched while its process lives.

A process of this machine is judged by its number and start time. One of another machine cannot be seen: it counts as
silent when its file has not changed for `SILENT` seconds of our own clock, so that clocks are never compared. Nothing
here needs ``flock``, which NFS, CIFS and Lustre may not have.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.artifacts.temporaries import boot_id, process_is_dead, process_token
from vxm_convert.errors import ArtifactError, VxmError

LOG = logging.getLogger(__name__)

#: seconds between two signs of life, and without one until an owner counts as silent (NFS may show a file 60 s late)
BEAT, SILENT = 10.0, 120.0
#: seconds by which a file may be older than ours, whatever the clocks
OUTDATED = 3600.0
OWNERS_FOLDER = "owners"
_MAX_BYTES = 4096
_TRIES = 100


class Owners:
    """The owners of an output folder; `join` makes this process one of them.

    Parameters
    ----------
    state : Path — the runner's private folder in the output folder.
    clock : callable — seconds, for the silence of others.
    """

    def __init__(self, state: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = Path(state) / OWNERS_FOLDER
        self.token = process_token()
        self._clock = clock
        #: token → (last change of its file as we saw it, when we saw it first)
        self._seen: Dict[str, Tuple[object, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._joined = 0
        self._declared: Set[str] = set()

    def join(self) -> None:
        """Write this process's file and keep it fresh; raises ArtifactError if the folder cannot be written."""
        with self._lock:
            self._joined += 1
            if self._joined == 1:
                self._begin()

    def _begin(self) -> None:
        path = self.folder / self.token
        try:
            with open(_opened(path), "w", encoding="utf-8") as file:
                file.write(json.dumps(about_this_process()))
        except OSError as exc:
            raise ArtifactError(
                f"{path}: cannot write there ({exc.strerror}); choose another output folder or free space"
            ) from exc
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(path, self._ended), name="heartbeat", daemon=True).start()

    def leave(self) -> None:
        """Remove this process's file."""
        with self._lock:
            self._joined -= 1
            if self._joined == 0:
                self._ended.set()
                _unlink(self.folder / self.token)

    def declare_gone(self, tokens: Iterable[str]) -> None:
        """Processes of other machines that are known to be dead."""
        self._declared.update(tokens)

    @staticmethod
    def _beat(path: Path, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            try:
                os.utime(str(path))
            except OSError as exc:
                LOG.debug("%s: no sign of life could be left (%s)", path, exc)

    def is_gone(self, token: str) -> Optional[bool]:
        """Whether a process has ended or has left the folder; None while it cannot be told: on another machine, and
        not silent for long enough.
        """
        if token == self.token:
            return False
        dead = process_is_dead(token)
        path = self.folder / token
        if dead is not None:
            return dead
        changed = _changed(path)
        if changed is None or token in self._declared or self._restarted(path) or self._outdated(changed):
            return True
        with self._lock:
            before, since = self._seen.get(token, (None, 0.0))
            if before != changed:
                self._seen[token] = changed, self._clock()
                return None
            return True if self._clock() - since > SILENT else None

    def _restarted(self, path: Path) -> bool:
        """Whether the machine of an owner is this one, which has been started again since."""
        about = read_about(path)
        boots = about.get("boot"), boot_id()
        return about.get("host") == socket.gethostname() and all(boots) and boots[0] != boots[1]

    def _outdated(self, changed: int) -> bool:
        """Whether a file is so much older than ours that no difference of clocks explains it."""
        ours = _changed(self.folder / self.token)
        return ours is not None and ours - changed > OUTDATED * 1e9

    def in_use(self) -> bool:
        """Whether other processes work on the folder, or may."""
        return any(self.is_gone(token) is not True for token in self.others())

    def others(self) -> Iterator[str]:
        """Tokens of all other owners that have a file."""
        yield from (name for name in listed(self.folder) if name != self.token)

    def forget(self, token: str) -> None:
        """Remove the file of an owner that is gone."""
        _unlink(self.folder / token)

    def describe(self, token: str) -> str:
        """``process 12 on host``."""
        return describe(read_about(self.folder / token), token)


def _opened(path: Path) -> int:
    """A new file, never through a link; another process may just be removing its empty folder."""
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(str(path), os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError as exc:
            gone = exc
    raise gone


def listed(folder: Path) -> List[str]:
    """Names in a folder that other processes may just be removing, and that must not be a link."""
    if folder.is_symlink():
        return []
    try:
        return sorted(os.listdir(str(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def about_this_process() -> Dict[str, object]:
    """What the files of owners and claims say: token, host, process, boot."""
    return {"owner": process_token(), "host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id()}


def describe(about: Dict[str, object], token: str = "") -> str:
    """An owner in words."""
    pid = about.get("pid") or (token.split(".") + ["?"])[1]
    return f"process {pid} on {about.get('host') or 'another machine'}"


def read_about(path: Path) -> Dict[str, object]:
    """The content of an owner's or a claim's file; empty if it has none that can be read."""
    try:
        if path.is_symlink():
            return {}
        data = parse_json(read_bounded(path, _MAX_BYTES, "the file of an owner", "remove it"), str(path))
    except VxmError:
        return {}
    return data if isinstance(data, dict) else {}


def _changed(path: Path) -> Optional[int]:
    """The last change of a file, opened first so that NFS asks its server; None if there is no such file."""
    try:
        with open(str(path), "rb") as handle:
            return os.fstat(handle.fileno()).st_mtime_ns
    except OSError:
        return None


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as exc:
        LOG.warning("%s: cannot remove it (%s)", path, exc.strerror)
