# SPDX-License-Identifier: Apache-2.0
"""On a fresh checkout every worker would compile every module and every loop; instead each compiles a part, and loads
what the others wrote.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import importlib.util
from pathlib import Path

import pytest

from vxm_convert.geometry import compiled

PACKAGES = ("vxm_convert", "train", "export", "om_runner", "scripts")


def compile_part(root: Path, worker: int, workers: int) -> None:
    """Write the bytecode of every `workers`-th module of the project and of its tests as pytest rewrites them, and the
    machine code of every `workers`-th loop.
    """
    sources = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    for source in sources[worker::workers]:
        compileall.compile_file(str(source), quiet=2)
    for source in sorted((root / "tests").rglob("test_*.py"))[worker::workers]:
        # Collection imports it again, and says there what is wrong with it.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(source.relative_to(root).with_suffix("").parts))
    if importlib.util.find_spec("numba") is not None:
        for name in sorted(compiled.tables())[worker::workers]:
            compiled.kernel(name)
