# SPDX-License-Identifier: Apache-2.0
"""The setting of BLAS: made by a run, kept where there is one, and left alone by programs that import the project."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vxm_convert.one_blas_thread as setting


def seen(program: str, value: str = "") -> str:
    """The variable after an import of the module by a program of this name."""
    code = f"import sys; sys.argv = [{program!r}]; import vxm_convert.one_blas_thread, os; print(os.environ.get('OPENBLAS_NUM_THREADS'))"
    rest = {name: kept for name, kept in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    given = {"OPENBLAS_NUM_THREADS": value} if value else {}
    ran = subprocess.run([sys.executable, "-c", code], env={**rest, **given}, stdout=subprocess.PIPE, check=True)
    return ran.stdout.decode().strip()


@pytest.mark.parametrize(
    "program, value, expected",
    [
        ("x/om_runner/__main__.py", "", "1"),
        ("bin/vxm-register", "", "1"),
        ("x/__main__.py", "4", "4"),
        ("mine.py", "", "None"),
    ],
)
def test_who_is_set(program, value, expected):
    assert seen(program, value) == expected


def test_the_runner_sets_it_before_numpy_is_there(project_root):
    source = (project_root / "om_runner" / "__main__.py").read_text(encoding="utf-8")
    imports = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports.index(setting.__name__) <= 2 and imports[0] == "__future__"
