# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of a worker, the client or the scheduler at random moments of a cohort; afterwards a rerun must leave the
bytes of an undisturbed run, redo nothing that was finished, and leave nothing behind.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from om_runner.names import STATE_FOLDER
from om_runner.options.cluster import SIMULATED_VARIABLE
from scripts.benchmark.cohort import SLEEP_VARIABLE
from scripts.scale_bench import cluster, inputs, phantoms, small_model
from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.temporaries import remove
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE
from vxm_convert.inspection.verify import BROKEN, verify_folders

RESULT_NAME = "kills.json"
VICTIMS = ("worker", "client", "scheduler", "shards")


def build_parser() -> argparse.ArgumentParser:
    """Options of this script."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.kill_bench",
        description=__doc__,
        epilog="exit codes: 0 all moments passed, 1 something to fix, 2 usage, 3 one did not pass",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench/kills"), metavar="DIR", help="work folder (default: %(default)s)"
    )
    parser.add_argument("--moments", type=int, default=100, metavar="N", help="kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first moment (default: %(default)s)")
    parser.add_argument("--scans", type=int, default=60, metavar="N", help="scans of the cohort (default: %(default)s)")
    parser.add_argument("--devices", type=int, default=3, metavar="N", help="devices (default: %(default)s)")
    parser.add_argument(
        "--victims", default=",".join(VICTIMS), metavar="LIST", help="what is killed, in turn (default: %(default)s)"
    )
    parser.add_argument("--model", type=Path, default=None, metavar="FILE", help="a small .om (default: make one)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this script."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "kill_bench")


def _bench(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    os.environ[SLEEP_VARIABLE], os.environ[SIMULATED_VARIABLE] = "0.05", str(args.devices)
    model = small_model(out) if args.model is None else args.model
    cohort = phantoms(out / "cohort", args.scans)
    run_stage(["om_runner", *inputs(cohort, model, out / "undisturbed"), "--quiet"])
    bench = _Bench(out, inputs(cohort, model, out / "disturbed"), args.devices)
    victims = args.victims.split(",")
    trials = []
    for number in range(args.moments):
        trials.append(bench.trial(args.seed + number, victims[number % len(victims)]))
        print(trials[-1], flush=True)
    write_json(out / RESULT_NAME, {"schema": 1, "scans": args.scans, "trials": trials})
    bad = [trial for trial in trials if trial["problems"]]
    print(f"{len(trials) - len(bad)} of {len(trials)} moments passed; seeds in {out / RESULT_NAME}")
    return EXIT_TOLERANCE if bad else EXIT_OK


class _Bench:
    """A folder of results that is disturbed, and the undisturbed ones beside it."""

    def __init__(self, folder: Path, words: List[str], devices: int) -> None:
        self._folder, self._words, self._devices = folder, words, devices
        self._out = folder / "disturbed"
        self._wanted = _volumes(folder / "undisturbed")

    def trial(self, seed: int, victim: str) -> Dict[str, Any]:
        """One kill at a random moment, and the rerun."""
        remove(self._out)
        chance = random.Random(seed)
        if victim == "scheduler":
            with cluster(self._folder, self._devices) as address:
                self._disturb(victim, ["--scheduler", address], chance)
        elif victim == "shards":
            self._shards(chance)
        else:
            devices = ",".join(str(number) for number in range(self._devices))
            self._disturb(victim, ["--devices", devices], chance)
        finished = _records(self._out)
        run = subprocess.run(
            [sys.executable, "-m", "om_runner", *self._words, "--quiet"], stderr=subprocess.PIPE, text=True
        )
        return {
            "seed": seed,
            "victim": victim,
            "finished_before": len(finished),
            "problems": self._problems(finished, run),
        }

    def _disturb(self, victim: str, how: List[str], chance: random.Random) -> None:
        client = self._start(*how)
        self._wait_for_work(client)
        time.sleep(chance.uniform(0, 1.5))
        tokens = _owners(self._out)
        workers = [pid for pid in tokens if pid != client.pid]
        if victim == "worker" and workers:
            _kill(chance.choice(workers))
        elif victim == "scheduler":
            _kill(_parent_of_scheduler(how[1]))
        else:
            _kill(client.pid)
        client.wait(300)
        # Workers of a client that was killed end by themselves, after what they have in work.
        end = time.monotonic() + 60
        while any(_alive(pid) for pid in workers if victim == "client") and time.monotonic() < end:
            time.sleep(0.1)

    def _shards(self, chance: random.Random) -> None:
        """Several shards at the same moment; one of them is killed."""
        count = self._devices
        children = [self._start("--shard", f"{number}/{count}") for number in range(1, count + 1)]
        self._wait_for_work(children[0])
        time.sleep(chance.uniform(0, 1.0))
        _kill(chance.choice(children).pid)
        for child in children:
            child.wait(300)

    def _start(self, *how: str) -> Any:
        words = [sys.executable, "-m", "om_runner", *self._words, "--quiet", *how]
        return subprocess.Popen(words, stderr=subprocess.DEVNULL)

    def _wait_for_work(self, process: Any) -> None:
        claims = self._out / STATE_FOLDER / "claims"
        while process.poll() is None and not (claims.is_dir() and any(claims.glob("*.1"))):
            time.sleep(0.02)

    def _problems(self, finished: Dict[str, bytes], run: Any) -> List[str]:
        found = []
        if run.returncode:
            found.append(f"the rerun ended with {run.returncode}: {run.stderr[-300:]}")
        if _volumes(self._out) != self._wanted:
            found.append("other bytes than undisturbed")
        again = [name for name, record in _records(self._out).items() if finished.get(name, record) != record]
        if again:
            found.append(f"finished scans were registered again: {again}")
        names = [path.relative_to(self._out).as_posix() for path in self._out.rglob("*")]
        left = [name for name in names if "/.tmp-" in f"/{name}" or "/claims" in name or "/owners" in name]
        if left:
            found.append(f"left behind: {left[:5]}")
        broken = [link for link in verify_folders([self._out]) if link.state == BROKEN]
        if broken:
            found.append(f"verify: {len(broken)} broken, the first {broken[0]}")
        return found


def _volumes(folder: Path) -> Dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.nii.gz")}


def _records(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / STATE_FOLDER).glob("*.json")}


def _owners(folder: Path) -> List[int]:
    """Process numbers of the owners of a folder."""
    return [int(path.name.split(".")[1]) for path in (folder / STATE_FOLDER / "owners").glob("*.*.*")]


def _parent_of_scheduler(address: str) -> int:
    """Process number of the scheduler that listens at an address."""
    import psutil

    port = int(address.rpartition(":")[2])
    listening = [c for c in psutil.net_connections("tcp") if c.laddr.port == port and c.status == psutil.CONN_LISTEN]
    return int(listening[0].pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It ended in this moment, which is a moment as well.
        return


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as handle:
            return handle.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
