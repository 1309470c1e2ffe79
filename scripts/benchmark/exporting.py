# SPDX-License-Identifier: Apache-2.0
"""What an export costs: the whole process from checkpoint to checked offline model, step by step, with and without the
ONNX file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from scripts.benchmark.common import GIB, machine, make_checkpoint
from scripts.stages import Ran, StageFailed, fresh_folder
from vxm_convert.artifacts.files import write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK
from vxm_convert.model.spec import VARIANTS

RESULT_NAME = "exporting.json"
#: how an export announces a step
_STEP = re.compile(r"\[(\d+)/\d+\] ([^:;,]+)")
_BEGIN = "starting"


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
        ran, phases = exported(
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
            ]
            + options
        )
        rows.append(
            {
                "export": name,
                "seconds": round(ran.seconds, 2),
                "cpu_seconds": round(ran.cpu_seconds, 2),
                "peak_gib": round(ran.peak_bytes / GIB, 3),
                "phases": phases,
            }
        )
    result = {
        "schema": 2,
        "kind": "export benchmark",
        "variant": args.variant,
        "shape": args.shape,
        "machine": machine(),
        "rows": rows,
    }
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK


def exported(arguments: List[str]) -> Tuple[Ran, List[Dict[str, Any]]]:
    """Run ``python -m <arguments>``, its messages on the terminal; the whole, and each step that it announces.

    Raises
    ------
    StageFailed
        When it does not end with 0.
    """
    begun = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    assert process.stdout is not None
    phases = phases_of(process.stdout, lambda: (time.time() - begun, cpu_of(process.pid)))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if process.returncode:
        raise StageFailed(f"python -m export: ended with exit code {process.returncode}", process.returncode)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ran = Ran(time.time() - begun, peak, usage.ru_utime + usage.ru_stime)
    phases[-1]["cpu_seconds"] += round(ran.cpu_seconds - sum(phase["cpu_seconds"] for phase in phases), 2)
    return ran, phases


def phases_of(lines: Iterable[str], now: Callable[[], Tuple[float, float]]) -> List[Dict[str, Any]]:
    """Seconds and CPU-seconds between the lines that announce a step; the last step goes to the end of the lines."""
    names, marks = [_BEGIN], [(0.0, 0.0)]
    for line in lines:
        sys.stderr.write(line)
        step = _STEP.search(line)
        if step is not None:
            names.append(step.group(2).strip())
            marks.append(now())
    marks.append(now())
    return [
        {"phase": name, "seconds": round(after[0] - at[0], 2), "cpu_seconds": round(max(0.0, after[1] - at[1]), 2)}
        for name, at, after in zip(names, marks, marks[1:])
    ]


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process and of its children that ended; 0 where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime, stime, cutime, cstime are fields 14 to 17; the first after the name is field 3.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def table(result: Dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'export ' + result['variant'] + ' ' + result['shape']:32s}{'wall s':>9s}{'CPU-s':>9s}{'peak GiB':>10s}{'n':>4s}"
    ]
    for row in result["rows"]:
        lines.append(f"{row['export']:32s}{row['seconds']:9.1f}{row['cpu_seconds']:9.1f}{row['peak_gib']:10.2f}{1:4d}")
        lines += [f"  {one['phase'][:29]:30s}{one['seconds']:9.1f}{one['cpu_seconds']:9.1f}" for one in row["phases"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
