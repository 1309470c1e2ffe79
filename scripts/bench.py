# SPDX-License-Identifier: Apache-2.0
"""``make bench``: one pair in the simulated device against the same pair in TensorFlow on this CPU, and the runner's memory.

Owns no measurement of its own: times come from the runner's tables, memory from the operating system. On a simulated
toolchain the seconds say how long a user waits here, and nothing about an Ascend device. Scans are phantoms; without
--model the weights come from a two-step training at a small size (almost random: the cost is the same).
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional

from scripts.stages import fresh_folder, read_table, run_stage
from vxm_convert.artifacts import write_json
from vxm_convert.cliargs import add_model_group, add_precision_group, run_main
from vxm_convert.contract import CONTRACT_NAME, GraphContract
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, ArtifactError
from vxm_convert.spec import SIDE_MULTIPLE

RESULT_NAME = "bench.json"
_SMALL_SHAPE = ",".join([str(2 * SIDE_MULTIPLE)] * 3)
_GIB = float(1 << 30)
#: load average per CPU above which other work is likely to have disturbed the times
_BUSY = 0.3


def build_parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Registers phantoms in the simulated device and in TensorFlow; compares seconds, measures memory.",
        epilog="exit codes: 0 within the limits, 1 something to fix, 2 usage, 3 beyond a limit",
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="where everything goes (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=None, metavar="FILE",
                        help="a .om, contract.json and frozen.pb beside it, which say model, batch and precision (default: make one)")
    add_model_group(parser)
    add_precision_group(parser)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pairs per device run (default: %(default)s)")
    parser.add_argument("--scans", type=int, default=3, metavar="N", help="phantoms to register (default: %(default)s)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-device-seconds", type=float, default=5.0, metavar="S",
                        help="median seconds per pair inside the device (default: %(default)s)")
    limits.add_argument("--max-memory-gib", type=float, default=4.0, metavar="GIB",
                        help="peak memory of the runner, GiB (default: %(default)s)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the benchmark."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "bench")


def _bench(args: argparse.Namespace) -> int:
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    out = fresh_folder(args.out)
    model = args.model if args.model is not None else _make_model(out, args)
    contract = GraphContract.load(model.with_name(CONTRACT_NAME))
    scans = max(args.scans, contract.model.batch)
    shape = ",".join(str(n) for n in contract.model.volume_shape)
    cohort = str(out / "cohort")
    run_stage(["vxm_convert", "phantom", "--out", cohort, "--shape", shape, "--subjects", str(scans), "--quiet"])
    register = ["om_runner", "--input", cohort + "/scans", "--atlas", cohort + "/atlas.npz", "--model", str(model), "--quiet"]
    # Two runs over the same pairs: a parent's peak memory would include the TensorFlow process that it waits for.
    alone = run_stage(register + ["--out", str(out / "alone"), "--compare", "none"])
    run_stage(register + ["--out", str(out / "compared"), "--compare", "all"])
    device = [float(row["device_seconds"]) for name in ("alone", "compared") for row in read_table(out / name / "metrics.tsv")]
    report = _read_json(out / "compared" / "precision" / "report.json")
    reference = [float(row["reference_seconds"]) for row in report["rows"]]
    result = {
        "model": contract.model.to_dict(), "precision": contract.precision.name, "toolchain": report["toolchain"],
        "scans": scans, "device_seconds": _spread(device), "tensorflow_seconds": _spread(reference),
        "tensorflow_over_device": round(median(reference) / median(device), 3), "tensorflow": report["reference"]["tensorflow"],
        "runner_peak_gib": round(alone.peak_bytes / _GIB, 3), "cpus": os.cpu_count(), "python": platform.python_version(),
        "machine": platform.machine(), "load_per_cpu_before": round(load, 2), "idle_before": load <= _BUSY,
    }
    write_json(out / RESULT_NAME, result)
    return _judge(result, args, out / RESULT_NAME)


def _make_model(out: Path, args: argparse.Namespace) -> Path:
    small, trained, model = (str(out / name) for name in ("small", "train", "vxm"))
    run_stage(["vxm_convert", "phantom", "--out", small, "--shape", _SMALL_SHAPE, "--subjects", "1", "--quiet"])
    run_stage(["train", "--data", small + "/scans", "--atlas", small + "/atlas.npz", "--out", trained, "--variant", args.variant,
               "--epochs", "1", "--steps-per-epoch", "2", "--quiet"])
    run_stage(["export", "--checkpoint", trained, "--variant", args.variant, "--shape", args.shape, "--batch", str(args.batch),
               "--precision", args.precision, "--skip-onnx", "--out", model, "--quiet"])
    return Path(model) / "vxm.om"


def _spread(seconds: List[float]) -> Dict[str, Any]:
    """Median, extremes and how many values they rest on; seconds per pair."""
    return {"median": round(median(seconds), 4), "min": round(min(seconds), 4), "max": round(max(seconds), 4), "n": len(seconds)}


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{path}: cannot read the runner's report ({exc}); see its messages above") from exc


def _judge(result: Dict[str, Any], args: argparse.Namespace, path: Path) -> int:
    device, reference, model = result["device_seconds"], result["tensorflow_seconds"], result["model"]
    kind = "SIMULATED device" if result["toolchain"]["simulated"] else "device"
    grid = "x".join(str(n) for n in model["volume_shape"])
    within = device["median"] <= args.max_device_seconds, result["runner_peak_gib"] <= args.max_memory_gib
    words = ["within" if ok else "BEYOND" for ok in within]
    print(f"\n{model['variant']} {grid}, batch {model['batch']}, {result['precision']}; {result['scans']} phantoms, {result['cpus']} CPUs, "
          f"toolchain {result['toolchain']['version']}, TensorFlow {result['tensorflow']}, Python {result['python']}")
    print(f"  {'seconds per pair':34s}{'median':>9s}{'min':>9s}{'max':>9s}{'n':>5s}")
    for name, row in ((kind, device), ("TensorFlow on this CPU, frozen.pb", reference)):
        print(f"  {name:34s}{row['median']:9.3f}{row['min']:9.3f}{row['max']:9.3f}{row['n']:5d}")
    print(f"  TensorFlow / {kind}: {result['tensorflow_over_device']:.2f}")
    print(f"  {kind}: {words[0]} the limit of {args.max_device_seconds:g} s")
    print(f"  peak memory of the runner: {result['runner_peak_gib']:.2f} GiB, {words[1]} the limit of {args.max_memory_gib:g} GiB")
    if not result["idle_before"]:
        print(f"  The machine was busy before the start (load {result['load_per_cpu_before']:.2f} per CPU): compare ratios, not seconds.")
    print(f"  {path}")
    return EXIT_OK if all(within) else EXIT_TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
