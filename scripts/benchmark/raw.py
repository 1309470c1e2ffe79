# SPDX-License-Identifier: Apache-2.0
"""Raw scans with every output from end to end: host CPU-seconds per scan, how busy the device is kept, when the first
result is there, peak memory.

Runs of ``python -m om_runner`` in processes of their own: one scan and several with the simulated device, several with one
that only sleeps, and scans that are on the network grid already.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from scripts.benchmark.cohort import SLEEP_VARIABLE, environment, export_model
from scripts.benchmark.common import GIB, machine, make_checkpoint
from scripts.benchmark.host import Scene, make_scene
from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.names import CONTRACT_NAME, RUN_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, ArtifactError
from vxm_convert.geometry.grids import Grid
from vxm_convert.model.contract import GraphContract
from vxm_convert.scans.conform import conform
from vxm_convert.scans.nifti import write_nifti

RESULT_NAME = "raw.json"
_EVERYTHING = ["--affine", "auto", "--outputs", "moved,warp,inverse,seg,qc"]
#: GiB for one scan on the network grid, for several, and for raw ones with every output
_MEMORY = (2.0, 2.3, 2.5)
_LEAST_BUSY, _FIRST_SECONDS = 0.6, 10.0
#: host CPU-seconds that a raw scan may take; also bounds the scans per second beside a device that sleeps
_HOST_SECONDS = 12.0
_NETWORK, _COHORT, _RAW, _SLEEPING = "one on the network grid", "on the network grid", "raw", "raw, sleeping device"
#: of raw scans; on two processors three keep the device busier than two
_RAW_THREADS, _SLEEPING_THREADS = "3", "4"


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.raw",
        description="Raw scans with every output from end to end: host, device, first result, memory.",
        epilog="exit codes: 0 within the limits, 1 something to fix, 2 usage, 3 beyond a limit",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench/raw"), metavar="DIR", help="work folder (default: %(default)s)"
    )
    parser.add_argument(
        "--model", type=Path, default=None, metavar="FILE", help="a .om with its contract.json (default: make one)"
    )
    parser.add_argument(
        "--shape", default="160,192,224", metavar="X,Y,Z", help="of a model made here (default: %(default)s)"
    )
    parser.add_argument("--scans", type=int, default=8, metavar="N", help="scans of a run (default: %(default)s)")
    parser.add_argument(
        "--sleep", type=float, default=0.3, metavar="S", help="seconds that a device sleeps (default: %(default)s)"
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "raw")


def _bench(args: argparse.Namespace) -> int:
    out, before = fresh_folder(args.out), machine()
    model = args.model or export_model(make_checkpoint(out, "vm2"), "vm2", args.shape, out / "model")
    scene = make_scene(GraphContract.load(model.with_name(CONTRACT_NAME)).model.volume_shape)
    atlas, flat = out / "atlas.nii.gz", out / "network.nii.gz"
    write_nifti(atlas, on_cube(scene), scene.atlas.affine)
    write_nifti(flat, scene.fixed, scene.placement.network.affine)
    raw = _scans(out / "raw", scene.moving, scene.labels, scene.placement.moving, args.scans)
    conformed, network = conform(scene.moving, scene.placement), scene.placement.network
    one, several = (_scans(out / f"on_grid_{n}", conformed, None, network, n) for n in (1, args.scans))
    rows = {
        _NETWORK: registered(["om_runner"], one, flat, model, out / "one", []),
        _COHORT: registered(["om_runner"], several, flat, model, out / "cohort", []),
        _RAW: registered(["om_runner"], raw, atlas, model, out / "all", [*_EVERYTHING, "--threads", _RAW_THREADS]),
    }
    with environment(SLEEP_VARIABLE, f"{args.sleep:g}"):
        sleeping = ["scripts.benchmark.sleeping"]
        options = [*_EVERYTHING, "--threads", _SLEEPING_THREADS]
        rows[_SLEEPING] = registered(sleeping, raw, atlas, model, out / "sleeping", options)
    result = {"schema": 1, "kind": "raw benchmark", "machine": before, "sleep": args.sleep, "rows": rows}
    result["processors"] = _processors()
    result["beyond"] = beyond(result)
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_TOLERANCE if result["beyond"] else EXIT_OK


def on_cube(scene: Scene) -> np.ndarray:
    """The fixed image in the cube of the atlas's file."""
    found = np.zeros(scene.atlas.shape, dtype=np.float32)
    corner = [(side - inner) // 2 for side, inner in zip(scene.atlas.shape, scene.fixed.shape)]
    found[tuple(slice(at, at + side) for at, side in zip(corner, scene.fixed.shape))] = scene.fixed
    return found


def _scans(folder: Path, image: np.ndarray, labels: Optional[np.ndarray], grid: Grid, count: int) -> Path:
    """Copies of one scan, as files of their own."""
    folder.mkdir()
    for number in range(count):
        write_nifti(folder / f"scan{number:02d}.nii.gz", image, grid.affine)
        if labels is not None:
            write_nifti(folder / f"scan{number:02d}_seg.nii.gz", labels, grid.affine)
    return folder


def registered(
    program: List[str], scans: Path, atlas: Path, model: Path, out: Path, options: List[str]
) -> Dict[str, Any]:
    """Figures of one run."""
    begun = time.time()
    paths = ["--input", str(scans), "--atlas", str(atlas), "--model", str(model), "--out", str(out)]
    ran = run_stage([*program, *paths, "--compare", "none", "--quiet", *options])
    try:
        timing = json.loads((out / RUN_NAME).read_text(encoding="utf-8"))["timing"]
        per_scan = timing["host_cpu_seconds"] / timing["scans"]
        return {
            "scans": timing["scans"],
            "host_cpu_seconds": round(per_scan, 2),
            "device_busy": round(timing["device_busy"], 3),
            "scans_per_second": round(timing["scans_per_second"], 4),
            "host_bound": round(_processors() / per_scan, 4),
            "first_seconds": round(first_result(out) - begun, 2),
            "peak_gib": round(ran.peak_bytes / GIB, 3),
            "stages": {
                name: round(span["cpu_seconds"] / timing["scans"], 3) for name, span in timing["stages"].items()
            },
        }
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ArtifactError(f"{out}: no timing in run.json ({exc}); see the messages of the run above") from exc


def _processors() -> int:
    """Of this machine, as many as the run has threads for."""
    return min(os.cpu_count() or 1, 4)


def first_result(out: Path) -> float:
    """When the first subject's folder was whole: the time of its youngest file."""
    folders = [path for path in out.iterdir() if path.is_dir() and any(path.glob("*.nii.gz"))]
    if not folders:
        raise ArtifactError(f"{out}: no subject was registered; see the messages of the run above")
    return min(max(path.stat().st_mtime for path in folder.iterdir()) for folder in folders)


def beyond(result: Mapping[str, Any]) -> List[str]:
    """What is beyond its limit."""
    rows = result["rows"]
    memory = [rows[_NETWORK]["peak_gib"], rows[_COHORT]["peak_gib"], rows[_RAW]["peak_gib"]]
    checks = {
        f"peak memory of {name} {peak:.2f} GiB, more than {most:g}": peak > most
        for name, peak, most in zip((_NETWORK, _COHORT, _RAW), memory, _MEMORY)
    }
    checks[f"device busy less than {_LEAST_BUSY:.0%} of the time with raw scans"] = (
        rows[_RAW]["device_busy"] < _LEAST_BUSY
    )
    checks[f"more than {_HOST_SECONDS:g} host CPU-s per raw scan"] = rows[_RAW]["host_cpu_seconds"] > _HOST_SECONDS
    least = min(result["processors"] / _HOST_SECONDS, 1 / result["sleep"])
    checks[f"fewer than {least:.3f} scans/s with a device that sleeps"] = rows[_SLEEPING]["scans_per_second"] < least
    first = rows[_NETWORK]["first_seconds"]
    checks[f"first result after {first:.1f} s, more than {_FIRST_SECONDS:g}"] = first > _FIRST_SECONDS
    return [text for text, failed in checks.items() if failed]


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'scans':28s}{'n':>3s}{'host CPU-s':>12s}{'busy %':>8s}{'scans/s':>9s}{'bound':>8s}{'first s':>9s}{'peak GiB':>10s}"
    ]
    for name, row in result["rows"].items():
        lines.append(
            f"{name:28s}{row['scans']:3d}{row['host_cpu_seconds']:12.2f}{100 * row['device_busy']:8.1f}"
            f"{row['scans_per_second']:9.3f}{row['host_bound']:8.3f}{row['first_seconds']:9.1f}{row['peak_gib']:10.2f}"
        )
    lines += [
        f"{name}, CPU-s per scan: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in row["stages"].items())
        for name, row in result["rows"].items()
    ]
    lines.append(
        "host CPU-s: per scan; bound: of scans/s by the host's processors; first: from the start of the process; threads: "
        f"{_RAW_THREADS} for raw scans, {_SLEEPING_THREADS} beside the device that sleeps, else the default"
    )
    lines += [f"BEYOND a limit: {text}" for text in result["beyond"]]
    if not result["machine"]["idle"]:
        lines.append(f"The machine was busy before the start (load {result['machine']['load_per_cpu']:.2f} per CPU).")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
