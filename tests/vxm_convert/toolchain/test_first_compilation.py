# SPDX-License-Identifier: Apache-2.0
"""The first compilation: which loops, in which order, and when another process takes part."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vxm_convert.geometry import compiled
from vxm_convert.toolchain import first_compilation
from vxm_convert.toolchain.first_compilation import compile_beside, groups, main

pytest.importorskip("numba")


def test_every_loop_of_the_host_is_there_once_and_the_search_comes_first():
    names = [load.args[0] for load in groups(simulated=False)["host"]]
    assert sorted(names) == sorted(compiled.tables()) and names[1:4] == ["blurred", "counted", "pulled"]


@pytest.mark.parametrize("usable", [True, False])
def test_a_real_device_needs_no_loops_of_the_simulated_one(usable, monkeypatch):
    monkeypatch.setattr("vxm_convert.sim.engine.ending.run.usable", lambda: usable)
    assert list(groups(simulated=False)) == ["host"]
    assert list(groups(simulated=True)) == (["simulated device", "host"] if usable else ["host"])


def test_the_program_begins_with_what_a_run_needs_last(monkeypatch):
    done, loads = [], {"first": [lambda: done.append(1), lambda: done.append(2)], "then": [lambda: done.append(3)]}
    monkeypatch.setattr(first_compilation, "groups", lambda simulated: loads if simulated else {})
    assert main(["simulated"]) == 0 and done == [3, 2, 1]
    assert main([]) == 0 and len(done) == 3


_ONE_LOOP = """
import json, sys
from types import SimpleNamespace
from vxm_convert.geometry import compiled
from vxm_convert.toolchain import first_compilation

def popen(command, **streams):
    started.append(command)
    if sys.argv[2] == "fails":
        raise OSError("no more processes")

started = []
first_compilation.subprocess = SimpleNamespace(Popen=popen, DEVNULL=-3)
first_compilation.compile_beside(int(sys.argv[1]), simulated=False)
for name in ("linear_map", "spread"):
    compiled.kernel(name)
print(json.dumps(started))
"""


@pytest.mark.parametrize("threads, popen, count", [(2, "works", 1), (1, "works", 0), (2, "fails", 1)])
def test_another_process_is_started_once_if_something_is_compiled(
    threads, popen, count, project_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def run():
        command = [sys.executable, "-c", _ONE_LOOP, str(threads), popen]
        return json.loads(subprocess.run(command, cwd=str(project_root), stdout=subprocess.PIPE, check=True).stdout)

    assert run() == [[sys.executable, "-m", "vxm_convert.toolchain.first_compilation"]] * count
    assert run() == [], "everything is in the cache"


def test_no_process_is_started_where_compiled_code_cannot_be_kept(monkeypatch):
    """As numba says so: before it compiles, when it is asked to keep what follows."""
    import numba

    def njit(signature, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function")
        return lambda function: (function, compiled._when_compiling)

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(compiled, "_when_compiling", None)
    compile_beside(2, simulated=False)
    assert compiled._when_compiling is not None
    assert compiled.compile_loop(compiled.tables()["spread"][0], ())[1] is None
