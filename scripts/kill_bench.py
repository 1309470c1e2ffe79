# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of a worker, a client, a shard or the scheduler at random moments of a cohort, and many shards started
together. Afterwards a rerun must leave the bytes of an undisturbed run, with every scan registered once and nothing left
behind. A bench that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from om_runner.options.cluster import SIMULATED_VARIABLE
from scripts.benchmark.cohort import SLEEP_VARIABLE
from scripts.benchmark.kills import KillTrial, Trials
from scripts.scale_bench import inputs, phantoms, small_model
from scripts.stages import MARKER, fresh_folder, run_stage
from vxm_convert.artifacts.names import OM_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE

RESULT_NAME = "kills.jsonl"
#: what is killed, in turn; the last two start more processes, which takes longer
VICTIMS = ("worker", "client", "shard", "worker", "client", "shard", "worker", "client", "devices", "scheduler")
TOGETHER = "together"
_SLEEP = "0.05"


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
        "--victims",
        default=",".join(VICTIMS),
        metavar="LIST",
        help="what is killed, in turn: a worker or the client of a running cluster, one of several shards, a client with "
        "--devices, the scheduler (default: %(default)s)",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=20,
        metavar="N",
        help="shards that are started together after the kills, none of them killed; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="begin again (default: go on after the last trial of an earlier call)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this script."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "kill_bench")


def _bench(args: argparse.Namespace) -> int:
    plan = _plan(args)
    settings = {"schema": 2, "scans": args.scans, "devices": args.devices}
    done = _begun(args.out, settings, args.fresh)
    os.environ[SLEEP_VARIABLE], os.environ[SIMULATED_VARIABLE] = _SLEEP, str(max(args.devices, args.shards, 1))
    model = args.out / "model" / OM_NAME
    if not model.is_file():
        small_model(args.out)
    cohort = phantoms(args.out / "cohort", args.scans)
    run_stage(["om_runner", *inputs(cohort, model, args.out / "undisturbed"), "--quiet"])
    todo = [(seed, victim) for seed, victim in plan if (seed, victim) not in done]
    begun = time.monotonic()
    with Trials(args.out, inputs(cohort, model, args.out / "disturbed"), args.devices, args.scans) as trials:
        for number, (seed, victim) in enumerate(todo, 1):
            shards = args.shards if victim == TOGETHER else args.devices
            trial = trials.run(random.Random(seed), victim, shards, killing=victim != TOGETHER)
            done[seed, victim] = trial
            _note(args.out, {"seed": seed, "victim": victim, **trial._asdict()})
            left = (time.monotonic() - begun) / number * (len(todo) - number)
            print(f"{len(done)} of {len(plan)}, seed {seed}: {trial.sentence(victim)}; {left:.0f} s to go", flush=True)
    print(_summary([done[key] for key in plan], args.scans, sum(victim != TOGETHER for _, victim in plan)))
    return EXIT_TOLERANCE if any(done[key].problems for key in plan) else EXIT_OK


def _plan(args: argparse.Namespace) -> List[Any]:
    """Seed and victim of every trial."""
    victims = args.victims.split(",")
    kills = [(args.seed + number, victims[number % len(victims)]) for number in range(args.moments)]
    return kills + ([(args.seed, TOGETHER)] if args.shards else [])


def _begun(out: Path, settings: Dict[str, Any], fresh: bool) -> Dict[Any, KillTrial]:
    """Trials of an earlier call with these settings; otherwise the folder is made anew."""
    path = out / RESULT_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if (out / MARKER).is_file() and path.is_file() else []
    if fresh or not lines or json.loads(lines[0]) != settings:
        fresh_folder(out)
        _note(out, settings)
        return {}
    earlier: Dict[Any, KillTrial] = {}
    for entry in map(json.loads, lines[1:]):
        key = entry.pop("seed"), entry.pop("victim")
        earlier[key] = KillTrial(**entry)
    return earlier


def _note(out: Path, entry: Dict[str, Any]) -> None:
    with open(str(out / RESULT_NAME), "a", encoding="utf-8") as handle:
        handle.write(json.dumps(entry, sort_keys=True) + "\n")


def _summary(trials: List[KillTrial], scans: int, kills: int) -> str:
    good = sum(not trial.problems for trial in trials)
    return (
        f"{kills} kills and {len(trials) - kills} start of many shards: {good} of {len(trials)} passed; "
        f"{sum(trial.once for trial in trials)} of {len(trials) * scans} subjects registered to the end exactly once; "
        f"{sum(trial.left for trial in trials)} files left over; verify: {sum(trial.broken for trial in trials)} broken; "
        f"other bytes than undisturbed: {sum(trial.other for trial in trials)}; {sum(t.seconds for t in trials):.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
