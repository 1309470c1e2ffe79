# SPDX-License-Identifier: Apache-2.0
"""The stages as a user starts them, and the sizes of the cohort that the tests across stages share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.forked import run_python

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (32, 32, 32)
BATCH = 2
SUBJECTS = 3


class Cohort(NamedTuple):
    """Phantom scans and their atlas."""

    scans: Path
    atlas: Path


def run_stage(cwd: Path, *argv: Any) -> subprocess.CompletedProcess:
    """``python -m …`` in a process of its own, started elsewhere than in the project."""
    return run_python(["-m", *argv], cwd, dict(os.environ, PYTHONPATH=str(ROOT)))
