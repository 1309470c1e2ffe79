# SPDX-License-Identifier: Apache-2.0
"""Scans per second of many simulated devices that sleep, against one: through ``--devices``, and through a scheduler
with workers that were started apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from om_runner.cluster.connect import running_cluster, workers_of
from om_runner.options.cluster import SIMULATED_VARIABLE
from scripts.benchmark.cohort import SLEEP_VARIABLE
from scripts.benchmark.common import machine
from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.names import OM_NAME, RUN_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE

RESULT_NAME = "scale.json"
#: the smallest grid on which heads still overlap in the thousand voxels that a run asks for
_GRID = "16,16,32"
_WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "vm2"
#: how much slower a scheduler with workers started apart may be
_APART = 0.10


def build_parser() -> argparse.ArgumentParser:
    """Options of this benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.scale_bench",
        description=__doc__,
        epilog="exit codes: 0 within the limit, 1 something to fix, 2 usage, 3 beyond the limit",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench/scale"), metavar="DIR", help="work folder (default: %(default)s)"
    )
    parser.add_argument(
        "--devices",
        default="1,8",
        metavar="LIST",
        help="numbers of devices, the first for comparison (default: %(default)s)",
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.5,
        metavar="S",
        help="seconds a device sleeps per scan (default: %(default)s)",
    )
    parser.add_argument(
        "--scans", type=int, default=16, metavar="N", help="scans per device of every run (default: %(default)s)"
    )
    parser.add_argument(
        "--apart", action="store_true", help="also with a scheduler and workers of their own (default: off)"
    )
    parser.add_argument(
        "--model", type=Path, default=None, metavar="FILE", help=f"a small .om (default: make one of {_GRID})"
    )
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.875,
        metavar="R",
        help="speed of the most devices over that of the first number, as a share of the ideal (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this benchmark."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "scale_bench")


def _bench(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    counts = [int(word) for word in args.devices.split(",")]
    model = small_model(out) if args.model is None else args.model
    os.environ[SLEEP_VARIABLE], os.environ[SIMULATED_VARIABLE] = f"{args.latency:g}", str(max(counts))
    runs = []
    for count in counts:
        devices = ",".join(str(number) for number in range(count))
        runs.append(_register(out, model, count, args.scans * count, ["--devices", devices]))
        print(_line(runs[-1]), flush=True)
    if args.apart:
        with cluster(out, counts[-1]) as address:
            _wait_for_workers(address, counts[-1])
            runs.append(_register(out, model, counts[-1], args.scans * counts[-1], ["--scheduler", address]))
        print(_line(runs[-1]), flush=True)
    ideal = counts[-1] / counts[0]
    speedup = runs[len(counts) - 1]["scans_per_second"] / runs[0]["scans_per_second"]
    apart = runs[-1]["scans_per_second"] / runs[len(counts) - 1]["scans_per_second"]
    write_json(out / RESULT_NAME, {"schema": 1, "machine": machine(), "latency": args.latency, "runs": runs})
    print(f"{counts[-1]} devices: {speedup:.2f} times the scans per second of {counts[0]}, at best {ideal:g}")
    if args.apart:
        print(f"scheduler and workers started apart: {apart:.2f} times the speed of --devices")
    fine = speedup >= args.at_least * ideal and apart >= 1 - _APART
    return EXIT_OK if fine else EXIT_TOLERANCE


def _wait_for_workers(address: str, count: int) -> None:
    """A run begins with the workers that are there."""
    with running_cluster(address) as client:
        while len(workers_of(client)) < count:
            time.sleep(0.1)


def _register(out: Path, model: Path, devices: int, scans: int, how: List[str]) -> Dict[str, Any]:
    cohort = phantoms(out / f"cohort_{scans}", scans)
    result = out / f"registered_{devices}_{how[0].strip('-')}"
    run_stage(["om_runner", *inputs(cohort, model, result), "--outputs", "moved", "--quiet", *how])
    run = json.loads((result / RUN_NAME).read_text(encoding="utf-8"))
    busy = [row["busy"] for row in run["devices"]]
    timing = run["timing"]
    return {
        "how": how[0],
        "devices": devices,
        "scans": timing["scans"],
        "scans_per_second": timing["scans_per_second"],
        "wall_seconds": timing["wall_seconds"],
        "host_cpu_seconds": timing["host_cpu_seconds"],
        "busy": busy,
    }


def _line(run: Dict[str, Any]) -> str:
    return (
        f"{run['how']} {run['devices']}: {run['scans']} scans in {run['wall_seconds']:.2f} s, "
        f"{run['scans_per_second']:.2f} scans/s, devices busy {100 * min(run['busy']):.0f} to {100 * max(run['busy']):.0f} %, "
        f"host {run['host_cpu_seconds']:.2f} CPU-s"
    )


def small_model(out: Path) -> Path:
    """The weights in the box on a small grid."""
    words = ["--checkpoint", str(_WEIGHTS), "--variant", _WEIGHTS.name, "--shape", _GRID, "--skip-onnx", "--quiet"]
    run_stage(["export", *words, "--out", str(out / "model")])
    return out / "model" / OM_NAME


def phantoms(folder: Path, scans: int) -> Path:
    """A cohort of synthetic scans on the small grid."""
    if not folder.is_dir():
        words = ["--out", str(folder), "--shape", _GRID, "--subjects", str(scans), "--quiet"]
        run_stage(["vxm_convert", "phantom", *words])
    return folder


def inputs(cohort: Path, model: Path, out: Path) -> List[str]:
    """Options of a run without comparison and without limits: nothing is to be seen on so small a grid."""
    files = ["--input", str(cohort / "scans"), "--atlas", str(cohort / "atlas.npz"), "--model", str(model)]
    return [*files, "--out", str(out), "--compare", "none", "--profile", "none"]


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A scheduler and workers as processes of their own; yields the scheduler's address."""
    place = folder / f"scheduler_{time.time():.0f}.json"
    made = [_started("om_runner", "scheduler", "--port", "0", "--scheduler-file", str(place))]
    try:
        while not place.is_file() or not place.read_text(encoding="utf-8").rstrip().endswith("}"):
            time.sleep(0.05)
        address = str(json.loads(place.read_text(encoding="utf-8"))["address"])
        made += [_started("om_runner", "worker", "--scheduler", address, "--device", str(n)) for n in range(workers)]
        yield address
    finally:
        for process in reversed(made):
            process.terminate()
        for process in made:
            process.wait(60)


def _started(module: str, *words: str) -> Any:
    return subprocess.Popen([sys.executable, "-m", module, *words], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
