# SPDX-License-Identifier: Apache-2.0
"""Killed before each call that creates, renames or removes something in the output folder: a rerun leaves the bytes of an
undisturbed run, an intact list of hashes, and nothing temporary.
"""

from __future__ import annotations

import os

import pytest

from tests.support import fakes
from tests.support.forked import ROOT, run_python
from tests.support.registration_bench import Bench
from vxm_convert.inspection.verify import first_broken, verify_folders

#: a run that dies before its n-th change to the output folder (n = 0: never), and notes how many there were
CHILD = """
import builtins, os, pathlib, signal, sys
folder, number = sys.argv[1], int(sys.argv[2])
seen = [0]
def change(path):
    if not isinstance(path, (str, os.PathLike)) or not os.path.abspath(os.fspath(path)).startswith(folder + "/out"):
        return
    seen[0] += 1
    if seen[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
def wrapped(real, wanted=lambda *args, **more: True):
    def call(path, *args, **more):
        if wanted(*args, **more):
            change(path)
        return real(path, *args, **more)
    return call
for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link"):
    patched = wrapped(getattr(os, name))
    setattr(os, name, patched)
    if hasattr(getattr(pathlib, "_normal_accessor", None), name):
        setattr(pathlib._normal_accessor, name, patched)
os.open = wrapped(os.open, lambda flags=0, *args, **more: flags & os.O_CREAT)
builtins.open = wrapped(builtins.open, lambda mode="r", *args, **more: any(letter in mode for letter in "wax"))
import pytest
from tests.support.registration_bench import Bench
from om_runner.sharing import owners
bench = Bench(pathlib.Path(folder), pytest.MonkeyPatch())
code = bench.run("--threads", "1", *sys.argv[3:])
pathlib.Path(folder, "changes").write_text(str(seen[0]))
sys.exit(code)
"""
#: tests that share the changes of a whole sweep, for some minutes each
PARTS = 8


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    for seed, name in enumerate("ab", 1):
        fakes.write_scan(made.inputs / f"{name}.npz", seed)
    (made.inputs / "c.npz").write_bytes(b"broken")
    return made


def run_child(folder, number, *options):
    return run_python(["-c", CHILD, str(folder), str(number), *options], ROOT, dict(os.environ, PYTHONPATH=str(ROOT)))


def volumes(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.nii.gz"))}


def problems(bench, wanted):
    """What is wrong after the rerun."""
    found = [] if bench.run() == 1 else ["another exit code"]
    found += [] if volumes(bench.out) == wanted else ["other bytes"]
    found += [str(path) for path in bench.out.rglob(".tmp-*")]
    found += [name for name in ("claims", "owners") if (bench.out / ".om_runner" / name).exists()]
    broken = first_broken(verify_folders([bench.out]))
    found += [] if broken is None else [str(broken)]
    rows = (
        [row["subject"] for row in bench.table("metrics.tsv")],
        [row["subject"] for row in bench.table("failures.tsv")],
    )
    return found + ([] if rows == (["a", "b"], ["c"]) else [str(rows)])


def sweep(bench, tmp_path, options, first, step):
    assert run_child(tmp_path, 0, *options).returncode == 1
    wanted, changes = volumes(bench.out), int((tmp_path / "changes").read_text(encoding="utf-8"))
    assert changes > 40
    bad = {}
    for number in range(first, changes + 1, step):
        if "--force" not in options:
            os.rename(str(bench.out), str(tmp_path / f"before{number}"))
        assert run_child(tmp_path, number, *options).returncode in (-9, 1)
        found = problems(bench, wanted)
        if found:
            bad[number] = found
    assert not bad


def test_a_run_killed_at_some_changes_is_repaired_by_the_next(bench, tmp_path):
    sweep(bench, tmp_path, (), 1, 23)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_a_run_killed_at_any_change_is_repaired_by_the_next(bench, tmp_path, part):
    sweep(bench, tmp_path, (), part, PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_a_run_that_registers_again_and_is_killed_at_any_change_is_repaired_by_the_next(bench, tmp_path, part):
    assert bench.run() == 1
    sweep(bench, tmp_path, ("--force",), part, PARTS)
