# SPDX-License-Identifier: Apache-2.0
"""``make bench``: time and memory of registering at full size, against the limits the project promises.

Needs no data: the weights come from a two-step training at a small size, the scans are phantoms; neither changes the cost.
"""
from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from scripts.stages import column_mean, fresh_folder, read_table, run_stage
from vxm_convert.artifacts import write_json
from vxm_convert.cliargs import add_model_group, add_precision_group, run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE

_SMALL_SHAPE = "32,32,32"
_GIB = float(1 << 30)


def build_parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    parser = argparse.ArgumentParser(prog="make bench", description="Registers phantoms at full size; measures seconds and memory.")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="where everything goes (default: %(default)s)")
    add_model_group(parser)
    add_precision_group(parser)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pairs per device run (default: %(default)s)")
    parser.add_argument("--scans", type=int, default=3, metavar="N", help="phantoms to register (default: %(default)s)")
    limits = parser.add_argument_group("limits; beyond them the exit code is 3")
    limits.add_argument("--max-device-seconds", type=float, default=5.0, metavar="S",
                        help="seconds per pair inside the device (default: %(default)s)")
    limits.add_argument("--max-memory-gib", type=float, default=4.0, metavar="GIB",
                        help="peak memory of the runner, GiB (default: %(default)s)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of the benchmark."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "bench")


def _bench(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    small, large, trained, model, registered = (str(out / name) for name in ("small", "large", "train", "vxm", "registered"))
    run_stage(["vxm_convert", "phantom", "--out", small, "--shape", _SMALL_SHAPE, "--subjects", "1"])
    run_stage(["train", "--data", small + "/scans", "--atlas", small + "/atlas.npz", "--out", trained, "--variant", args.variant,
               "--epochs", "1", "--steps-per-epoch", "2"])
    run_stage(["vxm_convert", "phantom", "--out", large, "--shape", args.shape, "--subjects", str(args.scans)])
    export = run_stage(["export", "--checkpoint", trained, "--variant", args.variant, "--shape", args.shape, "--batch", str(args.batch),
                        "--precision", args.precision, "--out", model])
    runner = run_stage(["om_runner", "--input", large + "/scans", "--atlas", large + "/atlas.npz", "--model", model + "/vxm.om",
                        "--out", registered, "--compare", "none"])
    rows = read_table(Path(registered) / "metrics.tsv")
    result = {
        "variant": args.variant, "shape": args.shape, "batch": args.batch, "precision": args.precision, "scans": len(rows),
        "device_seconds_per_pair": round(column_mean(rows, "device_seconds"), 3), "runner_seconds": round(runner.seconds, 2),
        "runner_peak_gib": round(runner.peak_bytes / _GIB, 3), "export_seconds": round(export.seconds, 2),
        "export_peak_gib": round(export.peak_bytes / _GIB, 3), "cpus": os.cpu_count(), "python": platform.python_version(),
    }
    write_json(out / "bench.json", result)
    return _judge(result, args)


def _judge(result: Dict[str, Any], args: argparse.Namespace) -> int:
    checks = (("device_seconds_per_pair", args.max_device_seconds, "s"), ("runner_peak_gib", args.max_memory_gib, "GiB"))
    print("\n{variant} {shape} batch {batch} {precision}, {scans} scans, {cpus} CPUs".format(**result))
    for name, limit, unit in checks:
        verdict = "within" if result[name] <= limit else "BEYOND"
        print(f"  {name:24s} {result[name]:.2f} {unit}, {verdict} the limit of {limit:g} {unit}")
    for name in ("runner_seconds", "export_seconds", "export_peak_gib"):
        print(f"  {name:24s} {result[name]:.2f}")
    return EXIT_OK if all(result[name] <= limit for name, limit, _ in checks) else EXIT_TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
