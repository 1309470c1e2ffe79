# SPDX-License-Identifier: Apache-2.0
"""Claims: which process works on which subject, so that no subject is done twice.

A claim is a file that only one process can create (``O_EXCL``, which network file systems have where ``flock`` is
missing): ``claims/<subject>.<n>`` with n = 1. Whoever finds that the owner of claim n is gone creates claim n + 1: again
only one process can. The highest number holds the subject, and n − 1 owners died with it in their hands. Claims go when
their subject is finished, failed, or given back.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from om_runner.names import METRICS_NAME
from om_runner.sharing.names import file_name
from om_runner.sharing.owners import Owners, about_this_process, describe, listed, read_about
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

CLAIMS_FOLDER = "claims"
#: a name that no subject has, for the claim on the tables that all processes make
TABLES = METRICS_NAME
#: seconds after which a claim without content belongs to a process that died while writing it
_EMPTY = 5.0
#: seconds between two looks at a claim that is waited for
_LOOK = 0.05
#: the sets of claims of this process that are in use
_LIVE: Set[str] = set()


class Held(NamedTuple):
    """The claim of another process."""

    by: str
    owner: str = ""


class Claims:
    """The claims in an output folder.

    Parameters
    ----------
    owners : Owners — of the same folder; this process has joined them.
    session : str — of the run that this process belongs to, for `deaths`.
    """

    def __init__(self, owners: Owners, session: str = "") -> None:
        self.owners = owners
        self._folder = owners.folder.parent / CLAIMS_FOLDER
        self._session = session
        self._run = uuid.uuid4().hex
        _LIVE.add(self._run)
        self._mine: Dict[str, int] = {}
        self._lock = threading.Lock()
        self._empty_since: Dict[str, float] = {}

    def take(self, subject: str) -> Optional[Held]:
        """Claim a subject; None if it is ours now, else who holds it.

        Raises
        ------
        ArtifactError
            If claims cannot be written.
        """
        name = file_name(subject)
        while True:
            number, path = self._highest(name)
            if path is not None:
                about = read_about(path)
                if not self._abandoned(path, about):
                    return Held(describe(about), str(about.get("owner") or ""))
            if self._create(name, number + 1):
                break
        with self._lock:
            self._mine[subject] = number + 1
        if path is not None:
            LOG.warning("%s: taken over from %s, which is gone", subject, describe(about))
        return None

    def _abandoned(self, path: Path, about: Dict[str, object]) -> bool:
        token = str(about.get("owner") or "")
        if token:
            if token == self.owners.token:
                # Left by an earlier run in this process, unless that still goes on.
                return about.get("run") not in _LIVE
            return self.owners.is_gone(token) is True
        now = time.monotonic()
        if not path.exists():
            return True
        with self._lock:
            return now - self._empty_since.setdefault(path.name, now) > _EMPTY

    def _highest(self, name: str) -> Tuple[int, Optional[Path]]:
        found = self._numbers(name)
        return (found[-1], self._folder / f"{name}.{found[-1]}") if found else (0, None)

    def _numbers(self, name: str) -> List[int]:
        """Numbers of the claims on a subject. They are consecutive, so no listing of the folder is needed."""
        number, found = 1, []
        while os.path.lexists(str(self._folder / f"{name}.{number}")) or (number == 1 and self._later(name)):
            if os.path.lexists(str(self._folder / f"{name}.{number}")):
                found.append(number)
            number += 1
        return found

    def _later(self, name: str) -> bool:
        """Whether a second claim is there without the first, which its owner is just removing."""
        return os.path.lexists(str(self._folder / f"{name}.2"))

    def _create(self, name: str, number: int) -> bool:
        path = self._folder / f"{name}.{number}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(str(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except (FileExistsError, FileNotFoundError):
            # Another process was first, or is just removing the empty folder.
            return False
        except OSError as exc:
            raise ArtifactError(
                f"{path}: cannot write there ({exc.strerror}); choose another output folder or free space"
            ) from exc
        try:
            os.write(handle, json.dumps({**about_this_process(), "run": self._run, "session": self._session}).encode())
        except OSError as exc:
            os.unlink(str(path))
            raise ArtifactError(f"{path}: writing failed: {write_problem(exc)}") from exc
        finally:
            os.close(handle)
        return True

    def holds(self, subject: str) -> bool:
        """Whether our claim is still the highest: a process that was thought dead (a suspended machine) may have lost
        it.
        """
        number = self._mine.get(subject)
        return number is not None and self._highest(file_name(subject))[0] == number

    def deaths(self, subject: str) -> int:
        """How many owners of the same session died while they held a subject that we hold now."""
        name = file_name(subject)
        earlier = [number for number in self._numbers(name) if number < self._mine.get(subject, 0)]
        abouts = [read_about(self._folder / f"{name}.{number}") for number in earlier]
        return sum(bool(self._session) and about.get("session") == self._session for about in abouts)

    def deaths_so_far(self, subject: str) -> int:
        """As `deaths`, before the subject is claimed."""
        name = file_name(subject)
        paths = [self._folder / f"{name}.{number}" for number in self._numbers(name)]
        abouts = [(path, read_about(path)) for path in paths]
        return sum(about.get("session") == self._session and self._abandoned(path, about) for path, about in abouts)

    def release(self, subject: str) -> None:
        """Give a subject back, after its record is written or because it was not done; claims of dead owners go too."""
        with self._lock:
            mine = self._mine.pop(subject, None)
        if mine is None:
            return
        name = file_name(subject)
        # The lowest first: while ours is there, nobody else can hold the subject.
        for number in [number for number in self._numbers(name) if number <= mine]:
            _unlink(self._folder / f"{name}.{number}")

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Do something while no other process does, after waiting for whoever does it now.

        Raises
        ------
        ArtifactError
            If claims cannot be written.
        """
        while self.take(what) is not None:
            time.sleep(_LOOK)
        try:
            yield
        finally:
            self.release(what)

    def close(self) -> None:
        """Give back everything that is held here."""
        for subject in list(self._mine):
            self.release(subject)
        _LIVE.discard(self._run)

    def clear_dead(self) -> None:
        """Remove the claims whose owners are all gone."""
        held: Dict[str, List[Path]] = {}
        for name in listed(self._folder):
            held.setdefault(name.rpartition(".")[0], []).append(self._folder / name)
        for paths in held.values():
            abouts = [read_about(path) for path in paths]
            ours = set(map(file_name, self._mine))
            if all(self._abandoned(path, about) for path, about in zip(paths, abouts)) and (
                paths[0].name.rpartition(".")[0] not in ours
            ):
                for path in paths:
                    _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as exc:
        LOG.warning("%s: cannot remove this claim (%s)", path, exc.strerror)
