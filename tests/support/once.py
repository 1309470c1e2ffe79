# SPDX-License-Identifier: Apache-2.0
"""What takes seconds to make is made once per run of the tests, by the worker that needs it first."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Callable

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills in one worker while the others wait; nobody may write into it afterwards.

    Parameters
    ----------
    name : str — of the folder; one that failed is made again by the next worker that asks.
    """
    base = factory.getbasetemp()
    # The folder of a worker lies in that of the run.
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    home.mkdir(exist_ok=True)
    folder, whole = home / name, home / f"{name}.whole"
    with open(str(home / f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(str(folder), ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
