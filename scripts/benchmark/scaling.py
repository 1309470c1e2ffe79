# SPDX-License-Identifier: Apache-2.0
"""How registration grows with the number of scans and with the size of the volume; fitted exponents.

Runs export and om_runner as a user would: a whole process each, start-up included. A power law y = c·x^k is fitted by
least squares in logarithms to the seconds beyond start-up; k = 1 is proportional.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from scripts.benchmark.common import GIB, machine, make_checkpoint
from scripts.stages import fresh_folder, read_table, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.artifacts.names import METRICS_NAME, OM_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, SpecError
from vxm_convert.model.spec import VARIANTS, parse_shape

RESULT_NAME = "scaling.json"
#: whole, two thirds and half of the network's usual grid, as far as multiples of 16 allow
SHAPES = ("80,96,112", "112,128,144", "160,192,224")
COUNTS = (1, 2, 4, 8)


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.scaling",
        description="Seconds and memory over the number of scans and over the volume.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/scaling"),
        metavar="DIR",
        help=f"where everything goes, {RESULT_NAME} included (default: %(default)s)",
    )
    parser.add_argument(
        "--variant", default="vm2", choices=sorted(VARIANTS), help="network variant (default: %(default)s)"
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=list(SHAPES),
        metavar="X,Y,Z",
        help="grids in voxels, two or more; the first also serves the number of scans (default: %(default)s)",
    )
    parser.add_argument(
        "--counts",
        nargs="+",
        type=int,
        default=list(COUNTS),
        metavar="N",
        help="numbers of scans, two or more (default: %(default)s)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "scaling")


def _bench(args: argparse.Namespace) -> int:
    if len(set(args.shapes)) < 2 or len(set(args.counts)) < 2 or min(args.counts) < 1:
        raise SpecError(
            "shapes, counts: expected two or more different ones; pass --shapes 80,96,112 160,192,224 --counts 1 4"
        )
    out = fresh_folder(args.out)
    checkpoint = make_checkpoint(out, args.variant)
    largest = max(args.counts)
    by_shape: List[Dict[str, Any]] = []
    by_count: List[Dict[str, Any]] = []
    for index, shape in enumerate(args.shapes):
        work = out / "x".join(shape.split(","))
        _prepare(work, checkpoint, args.variant, shape, largest if index == 0 else 1)
        by_shape.append(
            {"shape": list(parse_shape(shape)), "voxels": int(np.prod(parse_shape(shape))), **_register(work, 1)}
        )
        if index == 0:
            by_count = [{"scans": count, **_register(work, count)} for count in sorted(set(args.counts))]
    result = {
        "schema": 1,
        "kind": "scaling benchmark",
        "variant": args.variant,
        "machine": machine(),
        "by_shape": by_shape,
        "by_count": by_count,
        "exponents": {
            "device_seconds_over_voxels": exponent(
                [r["voxels"] for r in by_shape], [r["device_seconds"] for r in by_shape]
            ),
            "peak_memory_over_voxels": exponent([r["voxels"] for r in by_shape], [r["peak_gib"] for r in by_shape]),
            "cpu_seconds_over_scans": _beyond_start(by_count),
            "peak_memory_over_scans": exponent([r["scans"] for r in by_count], [r["peak_gib"] for r in by_count]),
        },
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def _prepare(work: Path, checkpoint: Path, variant: str, shape: str, scans: int) -> None:
    run_stage(
        ["vxm_convert", "phantom", "--out", str(work / "cohort"), "--shape", shape, "--subjects", str(scans), "--quiet"]
    )
    run_stage(
        [
            "export",
            "--checkpoint",
            str(checkpoint),
            "--variant",
            variant,
            "--shape",
            shape,
            "--skip-onnx",
            "--out",
            str(work / "model"),
            "--quiet",
        ]
    )


def _register(work: Path, count: int) -> Dict[str, float]:
    """One run over the first `count` scans: seconds of the whole process, of the device, peak memory.

    Into a folder of its own: results that are there already would be taken over.
    """
    out = Path(tempfile.mkdtemp(prefix=f"registered_{count}_", dir=str(work)))
    # With --limit the others would be missing, which is an error.
    scans = sorted((work / "cohort" / "scans").glob("*.npz"))[:count]
    ran = run_stage(
        [
            "om_runner",
            "--input",
            *map(str, scans),
            "--atlas",
            str(work / "cohort" / "atlas.npz"),
            "--model",
            str(work / "model" / OM_NAME),
            "--compare",
            "none",
            "--out",
            str(out),
            "--quiet",
        ]
    )
    rows = read_table(out / METRICS_NAME)
    return {
        "seconds": round(ran.seconds, 3),
        "cpu_seconds": round(ran.cpu_seconds, 3),
        "peak_gib": round(ran.peak_bytes / GIB, 4),
        "device_seconds": round(sum(float(row["device_seconds"]) for row in rows), 4),
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """k of the power law c·x^k through the points, least squares of the logarithms."""
    return round(float(np.polyfit(np.log(x), np.log(y), 1)[0]), 3)


def _beyond_start(rows: Sequence[Dict[str, float]]) -> float:
    """Exponent of the CPU-seconds beyond those of starting up, which a line through the points has at no scan."""
    counts, seconds = [row["scans"] for row in rows], [row["cpu_seconds"] for row in rows]
    start = max(0.0, float(np.polyfit(counts, seconds, 1)[1]))
    return exponent(counts, [max(value - start, 1e-3) for value in seconds])


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'':22s}{'wall s':>9s}{'CPU-s':>9s}{'device s':>10s}{'peak GiB':>10s}"]
    for name, row in [("x".join(map(str, r["shape"])) + ", 1 scan", r) for r in result["by_shape"]] + [
        (f"{r['scans']} scans", r) for r in result["by_count"]
    ]:
        lines.append(
            f"{name:22s}{row['seconds']:9.2f}{row['cpu_seconds']:9.2f}{row['device_seconds']:10.3f}{row['peak_gib']:10.3f}"
        )
    lines += [f"exponent of {name.replace('_', ' ')}: {value}" for name, value in result["exponents"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
