# SPDX-License-Identifier: Apache-2.0
"""One trial of the kill bench: a cohort is disturbed, registered again, and looked at. Clients and shards are forked from
a process that has loaded everything, which saves most of their processor time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Type

from om_runner.__main__ import main as register
from om_runner.cluster.session import run_on_cluster  # noqa: F401 -- loaded once, for all forks
from om_runner.names import STATE_FOLDER
from scripts.scale_bench import cluster
from vxm_convert.artifacts.temporaries import remove
from vxm_convert.inspection.verify import BROKEN, verify_folders

_FORK = multiprocessing.get_context("fork")
#: seconds between two looks at the records, until a trial is given up, and until everything must be tidy after it
_LOOK, _PATIENCE, _TIDY = 0.01, 300.0, 60.0
#: most seconds between the record after which something is killed and the kill
_JITTER = 0.15


class KillTrial(NamedTuple):
    """What a trial left: scans finished before the rerun and registered exactly once, files left over, broken links and
    images with other bytes.
    """

    moment: int
    finished_before: int
    once: int
    left: int
    broken: int
    other: int
    seconds: float
    problems: List[str]

    def sentence(self, victim: str) -> str:
        """The trial in a line."""
        verdict = "; ".join(self.problems) or "as undisturbed"
        return f"{victim} at scan {self.moment}, {self.finished_before} finished before the rerun, {self.seconds:.1f} s: {verdict}"


class Trials:
    """A folder of results that is disturbed, with the undisturbed ones beside it, and a cluster; a context manager."""

    def __init__(self, folder: Path, words: List[str], devices: int, scans: int) -> None:
        self._folder, self._words, self._devices, self._scans = folder, words, devices, scans
        self._out = folder / "disturbed"
        self._state = self._out / STATE_FOLDER
        self._wanted = volumes(folder / "undisturbed")
        self._cluster = ExitStack()
        self._address = ""
        self._seen: Dict[str, Set[Tuple[int, int]]] = {}

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._cluster.close()

    def run(self, chance: random.Random, victim: str, shards: int, killing: bool = True) -> KillTrial:
        """One kill at a random moment, and the rerun."""
        remove(self._out)
        self._seen, begun = {}, time.monotonic()
        moment = chance.randrange(self._scans)
        clients = self._started(victim, shards)
        if killing:
            self._until(lambda: len(self._seen) >= moment or not _living(clients))
            self._until(lambda: False, chance.uniform(0, _JITTER))
            self._kill(victim, clients, chance)
        self._until(lambda: not _living(clients))
        finished = len(self._seen)
        again = self._client()
        self._until(lambda: not _living([again]))
        self._until(lambda: not self._left(), _TIDY)
        return self._judged(moment, finished, again.exitcode, time.monotonic() - begun)

    # who takes part ---------------------------------------------------------------------------------------------
    def _started(self, victim: str, shards: int) -> List[Any]:
        if victim in ("worker", "client", "scheduler"):
            if not self._address:
                self._address = self._cluster.enter_context(cluster(self._folder, self._devices))
            return [self._client("--scheduler", self._address)]
        if victim == "devices":
            return [self._client("--devices", ",".join(str(number) for number in range(self._devices)))]
        return [self._client("--shard", f"{number}/{shards}") for number in range(1, shards + 1)]

    def _client(self, *how: str) -> Any:
        words = [*self._words, "--quiet", *how]
        process = _FORK.Process(target=_register, args=(words, str(self._folder / "said.txt")))
        process.start()
        return process

    def _kill(self, victim: str, clients: List[Any], chance: random.Random) -> None:
        if victim == "worker":
            self._until(lambda: bool(self._workers(clients)) or not _living(clients))
            workers = self._workers(clients)
            _kill_process(chance.choice(workers) if workers else clients[0].pid)
        elif victim == "scheduler":
            _kill_process(_listener(self._address))
            # Its clients wait for it for a while; the workers end.
            self._until(lambda: not _living(clients))
            self._cluster.close()
            self._address = ""
        else:
            _kill_process(chance.choice(clients).pid)

    def _workers(self, clients: List[Any]) -> List[int]:
        """Numbers of the processes that have scans in work."""
        owners = [path.name.split(".")[1] for path in (self._state / "owners").glob("*.*.*")]
        return sorted(set(map(int, owners)) - {client.pid for client in clients})

    # what became of it ------------------------------------------------------------------------------------------
    def _until(self, done: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Wait, and note every version of every record meanwhile."""
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self._look()
            time.sleep(_LOOK)
        self._look()

    def _look(self) -> None:
        try:
            entries = [entry for entry in os.scandir(str(self._state)) if entry.name.endswith(".json")]
            stats = [(entry.name, entry.stat()) for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            # The folder is not there yet, or a record is just being replaced.
            return
        for name, stat in stats:
            self._seen.setdefault(name, set()).add((stat.st_ino, stat.st_mtime_ns))

    def _left(self) -> List[str]:
        names = [path.relative_to(self._out).as_posix() for path in self._out.rglob("*")]
        return [name for name in names if "/.tmp-" in f"/{name}" or "/claims" in name or "/owners" in name]

    def _judged(self, moment: int, finished: int, code: Optional[int], seconds: float) -> KillTrial:
        found = volumes(self._out)
        other = [name for name in sorted(set(found) | set(self._wanted)) if found.get(name) != self._wanted.get(name)]
        repeated = sorted(name for name, versions in self._seen.items() if len(versions) > 1)
        left = self._left()
        broken = [link for link in verify_folders([self._out]) if link.state == BROKEN]
        problems = [f"the rerun ended with {code}, see said.txt"] if code else []
        problems += [f"other bytes: {other[:3]}"] if other else []
        problems += [f"registered more than once: {repeated[:3]}"] if repeated else []
        problems += [f"{self._scans - len(self._seen)} never registered"] if len(self._seen) != self._scans else []
        problems += [f"left behind: {left[:3]}"] if left else []
        problems += [f"verify: {broken[0]}"] if broken else []
        once = len(self._seen) - len(repeated)
        return KillTrial(moment, finished, once, len(left), len(broken), len(other), round(seconds, 1), problems)


def volumes(folder: Path) -> Dict[str, bytes]:
    """The images of results, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.nii.gz")}


def _register(words: List[str], said: str) -> None:
    with open(said, "ab") as handle:
        os.dup2(handle.fileno(), sys.stderr.fileno())
    sys.exit(register(words))


def _living(processes: List[Any]) -> bool:
    return any(process.is_alive() for process in processes)


def _listener(address: str) -> int:
    """Number of the process that listens at an address."""
    import psutil

    port = int(address.rpartition(":")[2])
    listening = [c for c in psutil.net_connections("tcp") if c.laddr.port == port and c.status == psutil.CONN_LISTEN]
    return int(listening[0].pid)


def _kill_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It ended in this moment, which is a moment as well.
        return
