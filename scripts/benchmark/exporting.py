# SPDX-License-Identifier: Apache-2.0
"""What an export costs: the whole process from checkpoint to checked offline model, with and without the ONNX file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from scripts.benchmark.common import GIB, machine, make_checkpoint
from scripts.stages import fresh_folder, run_stage
from vxm_convert.artifacts.files import write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.model.spec import VARIANTS

RESULT_NAME = "exporting.json"


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.exporting",
        description="Seconds, CPU-seconds and peak memory of python -m export.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/exporting"),
        metavar="DIR",
        help=f"where everything goes, {RESULT_NAME} included (default: %(default)s)",
    )
    parser.add_argument(
        "--variant", default="vm2", choices=sorted(VARIANTS), help="network variant (default: %(default)s)"
    )
    parser.add_argument("--shape", default="160,192,224", metavar="X,Y,Z", help="grid in voxels (default: %(default)s)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _bench(args), "exporting")


def _bench(args: argparse.Namespace) -> int:
    out = fresh_folder(args.out)
    checkpoint = make_checkpoint(out, args.variant)
    rows = []
    ways: Tuple[Tuple[str, List[str]], ...] = (("with vxm.onnx", []), ("--skip-onnx", ["--skip-onnx"]))
    for name, options in ways:
        ran = run_stage(
            [
                "export",
                "--checkpoint",
                str(checkpoint),
                "--variant",
                args.variant,
                "--shape",
                args.shape,
                "--out",
                str(out / name.strip("-").replace(" ", "_")),
                "--quiet",
            ]
            + options
        )
        rows.append(
            {
                "export": name,
                "seconds": round(ran.seconds, 2),
                "cpu_seconds": round(ran.cpu_seconds, 2),
                "peak_gib": round(ran.peak_bytes / GIB, 3),
            }
        )
    result = {
        "schema": 1,
        "kind": "export benchmark",
        "variant": args.variant,
        "shape": args.shape,
        "machine": machine(),
        "rows": rows,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'export ' + result['variant'] + ' ' + result['shape']:32s}{'wall s':>9s}{'CPU-s':>9s}{'peak GiB':>10s}{'n':>4s}"
    ]
    lines += [
        f"{row['export']:32s}{row['seconds']:9.1f}{row['cpu_seconds']:9.1f}{row['peak_gib']:10.2f}{1:4d}"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
