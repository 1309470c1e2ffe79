# SPDX-License-Identifier: Apache-2.0
"""Runs the stages as a user would, each in a process of its own. Shared by demo and bench; knows no stage's inside."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from vxm_convert.artifacts.files import check_output_folder, write_text
from vxm_convert.errors import ArtifactError, VxmError

MARKER = ".made-by-scripts"


class Ran(NamedTuple):
    """Wall seconds, the process's largest resident memory in bytes (0 where the system does not say), seconds of CPU it
    took.

    Both of the last are the process's own and its children's that it waited for.
    """

    seconds: float
    peak_bytes: int
    cpu_seconds: float


class StageFailed(VxmError):
    """A stage ended with an exit code; its own message is already on the terminal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_stage(arguments: Sequence[str]) -> Ran:
    """Run ``python -m <arguments>`` with this Python, its output on the terminal.

    Raises
    ------
    StageFailed
        When it does not end with 0.
    """
    start = time.time()
    process = subprocess.Popen([sys.executable, "-m"] + list(arguments))
    # wait4 instead of wait: it is the only way to learn one child's peak memory.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if process.returncode:
        code = process.returncode
        raise StageFailed(f"python -m {' '.join(arguments)}: ended with exit code {code}; see its message above", code)
    return Ran(
        time.time() - start,
        usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        usage.ru_utime + usage.ru_stime,
    )


def fresh_folder(folder: Path) -> Path:
    """An empty folder; an earlier result of these scripts is removed, anything else is refused with ArtifactError."""
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise ArtifactError(f"{folder}: is not empty and was not made here; choose another folder with OUT=")
        shutil.rmtree(str(folder))
    check_output_folder(folder)
    write_text(folder / MARKER, "This folder is removed and made again by the next run.\n")
    return folder


def read_table(path: Path) -> List[Dict[str, str]]:
    """Rows of a tab-separated table; raises ArtifactError when it is not there."""
    try:
        with open(str(path), newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot read the table ({exc.strerror})") from exc


def column_mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a numeric column over its rows."""
    return sum(float(row[name]) for row in rows) / len(rows)
