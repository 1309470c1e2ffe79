# SPDX-License-Identifier: Apache-2.0
"""What the first run after an installation waits for: seconds to compile every loop, in a cache of numba that is empty, and
to load it afterwards, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from scripts.benchmark.cohort import environment
from scripts.benchmark.common import machine
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, EXIT_TOLERANCE, ToolchainError
from vxm_convert.toolchain.first_compilation import compile_beside, groups

RESULT_NAME = "compiling.json"
#: seconds that compilation of all loops may take
_LIMIT = 10.0
#: of both the processes that measure
_SECONDS = 600.0


def build_parser() -> argparse.ArgumentParser:
    """Options of this part."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.compiling",
        description="Seconds to compile all loops, and to load them afterwards; numba is imported before.",
        epilog="exit codes: 0 within the limit, 1 something to fix, 2 usage, 3 beyond the limit",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/bench/compiling"),
        metavar="DIR",
        help=f"folder for {RESULT_NAME} and for temporary files (default: %(default)s)",
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="only compile or load the loops in this process, with the cache that NUMBA_CACHE_DIR names, and print the "
        "seconds as JSON (default: measure with an empty cache, then with a full one)",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code of this part."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _here() if args.here else _bench(args.out), "compiling")


def _here() -> int:
    print(json.dumps(measured()))
    return EXIT_OK


def measured() -> Dict[str, float]:
    """Wall seconds of each group of loops, in this process; another one compiles beside it, as in a run."""
    seconds = {}
    compile_beside(os.cpu_count() or 1, True)
    for name, loads in groups(True).items():
        begun = time.perf_counter()
        for load in loads:
            load()
        seconds[name] = round(time.perf_counter() - begun, 2)
    return seconds


def _bench(folder: Path) -> int:
    out, before = check_output_folder(folder), machine()
    with tempfile.TemporaryDirectory(prefix=".cache-", dir=str(out)) as cache, environment("NUMBA_CACHE_DIR", cache):
        rows = {when: _in_own_process() for when in ("empty", "full")}
    result = {"schema": 1, "kind": "compilation benchmark", "machine": before, "limit": _LIMIT, "cache": rows}
    write_json(out / RESULT_NAME, result)
    print(table(result) + f"{out / RESULT_NAME}")
    return EXIT_OK if compiling_seconds(result) <= _LIMIT else EXIT_TOLERANCE


def _in_own_process() -> Dict[str, float]:
    command = [sys.executable, "-m", "scripts.benchmark.compiling", "--here"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=_SECONDS)
    if ran.returncode:
        raise ToolchainError(
            f"{' '.join(command)}: ended with exit code {ran.returncode}, expected 0; see its message above"
        )
    found: Dict[str, float] = json.loads(ran.stdout.decode("utf-8"))
    return found


def compiling_seconds(result: Mapping[str, Any]) -> float:
    """Of all loops."""
    total: float = sum(result["cache"]["empty"].values())
    return total


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    empty, full = result["cache"]["empty"], result["cache"]["full"]
    lines = [f"{'loops':24s}{'compiled, s':>12s}{'loaded, s':>12s}"]
    lines += [f"{name:24s}{seconds:12.2f}{full[name]:12.2f}" for name, seconds in empty.items()]
    if "simulated device" not in empty:
        lines.append("no loops of the simulated device: this processor has no AVX-512")
    total = compiling_seconds(result)
    verdict = "within" if total <= result["limit"] else "BEYOND"
    lines.append(
        f"all loops compiled in {total:.1f} s, once per installation; {verdict} the limit of {result['limit']:g} s"
    )
    if not result["machine"]["idle"]:
        lines.append(f"The machine was busy before the start (load {result['machine']['load_per_cpu']:.2f} per CPU).")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
