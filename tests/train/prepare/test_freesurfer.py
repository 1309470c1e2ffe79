# SPDX-License-Identifier: Apache-2.0
"""FreeSurfer's part, played by a program that records how it is called and writes transforms as mri_robust_register
does.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from tests.support.grids import points_of
from tests.support.native import NETWORK, PULLS, SHAPE_WORDS, brain, grid_of, write_native
from train.__main__ import main
from vxm_convert.geometry.affines import Affine
from vxm_convert.transforms import lta
from vxm_convert.transforms.affines import read_affine

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.any_python("calls of a program and its files; what is prepared with them has tests on both")

#: stands in for mri_robust_register: notes its arguments and environment, then hands out the transform that lies beside
#: it
PROGRAM = """#!{python}
import json, os, shutil, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("mri_robust_register stand-in 7.4.1\\nsecond line")
    sys.exit(0)
options = dict(zip(arguments, arguments[1:]))
name = os.path.basename(options["--mov"]).split(".")[0]
note = {{"arguments": arguments, "threads": os.environ.get("OMP_NUM_THREADS"), "cwd": os.getcwd(),
        "exists": all(os.path.isfile(options[o]) for o in ("--mov", "--dst"))}}
with open(os.path.join(here, "calls.jsonl"), "a") as handle:
    handle.write(json.dumps(note) + "\\n")
plan = os.path.join(here, name + ".plan")
word = open(plan).read() if os.path.isfile(plan) else ""
if word == "fails" and "--affine" in arguments:
    print("reading " + options["--mov"])
    sys.stderr.write("ERROR: it did not converge\\n")
    sys.exit(7)
if word == "waits":
    note_pid = os.path.join(here, "waiting")
    with open(note_pid + ".new", "w") as handle:
        handle.write(str(os.getpid()))
    os.replace(note_pid + ".new", note_pid)
    time.sleep(600)
if word == "kills":
    os.kill(os.getppid(), signal.SIGKILL)
if word != "silent":
    theirs = os.path.join(here, word + ".lta")
    shutil.copyfile(theirs if os.path.isfile(theirs) else os.path.join(here, name + ".lta"), options["--lta"])
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_native(tmp_path_factory.mktemp("native")).parent


@pytest.fixture
def bench(native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scans (`in`), `ref.nii.gz`, the program in `bin` on PATH, and FreeSurfer's environment."""
    shutil.copytree(str(native / "in"), str(tmp_path / "in"))
    for path in native.glob("ref*"):
        shutil.copyfile(str(path), str(tmp_path / path.name))
    home = tmp_path / "free surfer"
    program = home / "bin" / "mri_robust_register"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    (home / "license.txt").write_text("x", encoding="utf-8")
    for name in ("one", "two"):
        text = lta.format_text(Affine(PULLS[name]), NETWORK, grid_of(name).as_stored(), kind=len(name) % 2)
        (program.parent / f"{name}.lta").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("FREESURFER_HOME", str(home))
    monkeypatch.delenv("FS_LICENSE", raising=False)
    return tmp_path


def prepare(bench: Path, *extra: str) -> int:
    words = [
        "prepare",
        "--data",
        bench / "in",
        "--out",
        bench / "out",
        "--shape",
        SHAPE_WORDS,
        "--reference",
        bench / "ref.nii.gz",
    ]
    return main([str(word) for word in words + list(extra if "--jobs" in extra else extra + ("--jobs", "0"))])


def calls(bench: Path) -> List[Dict[str, Any]]:
    path = bench / "free surfer" / "bin" / "calls.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def plan(bench: Path, name: str, word: str) -> None:
    (bench / "free surfer" / "bin" / f"{name}.plan").write_text(word, encoding="utf-8")


def failures(bench: Path) -> Dict[str, Dict[str, str]]:
    with open(str(bench / "out" / "failures.tsv"), encoding="utf-8", newline="") as handle:
        return {row["subject"]: row for row in csv.DictReader(handle, delimiter="\t")}


def test_rigid_then_affine_from_it(bench: Path) -> None:
    assert prepare(bench) == 0
    noted = calls(bench)
    assert (
        len(noted) == 4 and all(note["exists"] for note in noted) and all(int(note["threads"]) >= 1 for note in noted)
    )
    rigid, affine = noted[2]["arguments"], noted[3]["arguments"]
    assert rigid[:2] == ["--mov", str((bench / "in" / "two.mgz").resolve())], "FreeSurfer reads the file itself"
    assert rigid[2] == "--dst" and rigid[6:] == ["--satit", "--iscale"] and Path(rigid[3]).name == "reference.nii"
    assert affine[6:] == ["--satit", "--iscale", "--ixform", rigid[5], "--affine"] and affine[5] != rigid[5]
    assert not Path(noted[0]["cwd"]).exists(), "its working folder goes"


def test_its_transform_is_the_one_that_is_used(bench: Path) -> None:
    """Types 0 and 1 of LTA; the scan lands where the truth puts it."""
    assert prepare(bench) == 0
    for name in ("one", "two"):
        found = read_affine(bench / "out" / "transforms" / f"{name}.lta", NETWORK, grid_of(name)).pull
        assert np.abs(found - PULLS[name]).max() < 1e-4
        with np.load(str(bench / "out" / "scans" / f"{name}.npz")) as scan:
            assert np.abs(scan["vol"] - brain(points_of(NETWORK))).mean() < 0.02
        record = json.loads((bench / "out" / "scans" / f"{name}.npz.json").read_text(encoding="utf-8"))
        assert record["tool"] == "mri_robust_register (mri_robust_register stand-in 7.4.1)"
        assert record["placement"]["affine_commands"][1][-1] == "--affine"


def test_rigid_is_one_call(bench: Path) -> None:
    assert prepare(bench, "--transform", "rigid") == 0
    assert [len(note["arguments"]) for note in calls(bench)] == [8, 8]


def test_a_scan_that_it_cannot_read_is_handed_over_as_a_copy(bench: Path) -> None:
    """An .npz, and a header that --orientation overrides."""
    shutil.rmtree(str(bench / "in"))
    (bench / "in").mkdir()
    np.savez(str(bench / "in" / "flat.npz"), vol=brain(points_of(NETWORK)))
    identity = lta.format_text(Affine(np.eye(4)), NETWORK, NETWORK)
    (bench / "free surfer" / "bin" / "moving.lta").write_text(identity, encoding="utf-8")
    assert prepare(bench) == 0
    moving = Path(calls(bench)[0]["arguments"][1])
    assert moving.name == "moving.nii" and calls(bench)[0]["exists"] and not moving.exists()


@pytest.mark.parametrize(
    "word, reason",
    [("fails", "ended with code 7: reading"), ("silent", "without a transform"), ("one", "made for another image")],
)
def test_a_tool_that_fails_midway_is_a_row(bench: Path, word: str, reason: str) -> None:
    plan(bench, "two", word)
    assert prepare(bench) == 1
    assert (
        set(failures(bench)) == {"two"}
        and failures(bench)["two"]["stage"] == "register"
        and reason in failures(bench)["two"]["reason"]
    )
    assert word != "fails" or "did not converge" in failures(bench)["two"]["reason"]
    assert sorted(p.name for p in (bench / "out" / "scans").iterdir()) == ["one.npz", "one.npz.json"]
    (bench / "free surfer" / "bin" / "two.plan").unlink()
    before = len(calls(bench))
    assert prepare(bench) == 0 and len(calls(bench)) == before + 2, "the next run makes that one alone"


def test_a_transform_that_parts_the_brains_is_refused(bench: Path) -> None:
    away = np.eye(4)
    away[0, 3] = 40
    text = lta.format_text(Affine(away @ PULLS["two"]), NETWORK, grid_of("two").as_stored())
    (bench / "free surfer" / "bin" / "two.lta").write_text(text, encoding="utf-8")
    assert prepare(bench) == 1 and "brains that overlap by" in failures(bench)["two"]["reason"]


def test_a_process_that_dies_is_a_row(bench: Path) -> None:
    plan(bench, "two", "kills")
    assert prepare(bench, "--jobs", "2") == 1
    assert (
        set(failures(bench)) == {"two"}
        and failures(bench)["two"]["stage"] == "run"
        and "signal 9" in failures(bench)["two"]["reason"]
    )
    assert (bench / "out" / "scans" / "one.npz.json").is_file() and not list((bench / "out").rglob(".tmp-*"))


def waited_for(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within two minutes."""
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.1)
    return False


def running(pid: int) -> bool:
    """Neither gone nor waiting to be buried, as it may for a long time where no init process does that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_is_killed_leaves_nothing_running_and_goes_on(
    bench: Path, project_root: Path, number: int, code: int
) -> None:
    plan(bench, "two", "waits")
    words = [
        sys.executable,
        "-m",
        "train",
        "prepare",
        "--data",
        bench / "in",
        "--out",
        bench / "out",
        "--shape",
        SHAPE_WORDS,
        "--reference",
        bench / "ref.nii.gz",
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(
        [str(word) for word in words], cwd=str(project_root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    waiting = bench / "free surfer" / "bin" / "waiting"
    assert waited_for(waiting.is_file)
    process.send_signal(number)
    assert process.wait(120) == code
    assert waited_for(lambda: not running(int(waiting.read_text(encoding="utf-8"))))
    assert sorted(p.name for p in (bench / "out" / "scans").iterdir()) == ["one.npz", "one.npz.json"]
    assert number == signal.SIGKILL or not list((bench / "out").rglob(".tmp-*"))
    (waiting.parent / "two.plan").unlink()
    before = len(calls(bench))
    assert prepare(bench) == 0 and len(calls(bench)) == before + 2, "the finished one is not made again"
    assert not list((bench / "out").rglob(".tmp-*"))


def _no_home(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREESURFER_HOME")


def _no_licence(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench / "free surfer" / "license.txt").unlink()


def _no_program(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bench))


@pytest.mark.parametrize(
    "spoil, words",
    [
        (_no_home, "FREESURFER_HOME is not set"),
        (_no_licence, "no licence file"),
        (_no_program, "no mri_robust_register on PATH"),
    ],
)
def test_what_is_missing_is_said_and_auto_goes_on(
    bench: Path, monkeypatch, capsys, caplog, spoil: Callable, words: str
) -> None:
    spoil(bench, monkeypatch)
    assert prepare(bench, "--tool", "freesurfer") == 1 and words in capsys.readouterr().err
    assert not (bench / "out").exists()
    assert prepare(bench, "--dry-run") == 0 and "tool: SimpleITK" in capsys.readouterr().out
    assert spoil is _no_program or words in caplog.text


def test_simpleitk_can_be_asked_for(bench: Path, capsys) -> None:
    assert prepare(bench, "--tool", "simpleitk", "--dry-run") == 0
    assert "tool: SimpleITK" in capsys.readouterr().out and not calls(bench)


def test_compiled_loops_are_taken_before_simpleitk(bench: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("numba")
    _no_program(bench, monkeypatch)
    assert (
        prepare(bench, "--tool", "compiled", "--dry-run") == 0
        and "tool: compiled loops, numba" in capsys.readouterr().out
    )
    monkeypatch.setenv("VXM_HOST", "numba")
    assert prepare(bench, "--dry-run") == 0 and "tool: compiled loops, numba" in capsys.readouterr().out
    monkeypatch.delenv("VXM_HOST")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert (
        prepare(bench, "--tool", "compiled") == 1
        and "--tool compiled: numba cannot be imported" in capsys.readouterr().err
    )


def test_without_either_tool(bench: Path, monkeypatch, capsys) -> None:
    _no_program(bench, monkeypatch)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert prepare(bench) == 1 and "pip install SimpleITK" in capsys.readouterr().err
