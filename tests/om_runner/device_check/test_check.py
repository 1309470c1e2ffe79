# SPDX-License-Identifier: Apache-2.0
"""The whole command on the simulator: processes, page, archive, comparison; and processes that hang or die."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest

from om_runner.commands import device_check
from om_runner.device_check.climb import Request
from om_runner.device_check.ladder import STEPS
from om_runner.device_check.run import CheckSettings, run_check
from vxm_convert.__main__ import main
from vxm_convert.device_check.archive import ARCHIVE_NAME, CHECK_NAME, PAGE_NAME, read_archive
from vxm_convert.device_check.assumptions import ASSUMPTIONS
from vxm_convert.device_check.points import AS_PREDICTED, FAILED, NOT_DONE, count


@pytest.fixture(scope="module")
def short_check(tmp_path_factory: Any) -> Path:
    """The short form as CI runs it, on the convolution and the warp."""
    out = tmp_path_factory.mktemp("check")
    argv = ["--short", "--only", "facts,conv3d,warp,timing", "--toolchain", "sim", "--out", str(out), "-q"]
    assert device_check.main(argv) == 0
    return Path(out)


def test_everything_is_as_predicted_on_the_simulator(short_check: Path) -> None:
    data, rungs = read_archive(short_check / ARCHIVE_NAME)
    numbers = count(rungs)
    assert numbers["differs"] == numbers["failed"] == 0 and numbers["as predicted"] > 20
    assert data["simulated"] is True and data["toolchain"]["kind"] == "simulator"
    assert [rung.name for rung in rungs] == ["facts", "conv3d", "warp", "timing"]
    assert all(rung.seconds > 0 for rung in rungs)


def test_the_page_says_simulated_and_shows_every_point(short_check: Path) -> None:
    page = (short_check / PAGE_NAME).read_text(encoding="utf-8")
    assert "SIMULATED" in page and "REAL" not in page
    assert "No Ascend device took part" in page
    _, rungs = read_archive(short_check / CHECK_NAME)
    for rung in rungs:
        assert f"{rung.name}: {len(rung.points)} points" in page
        assert all(point.name.replace("'", "&#39;") in page for point in rung.points)


def test_the_archive_names_neither_host_nor_user(short_check: Path) -> None:
    with zipfile.ZipFile(str(short_check / ARCHIVE_NAME)) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode("utf-8") for name in names if not name.endswith(".npz")}
    assert {CHECK_NAME, PAGE_NAME, "work/worker.log"} <= set(names)
    assert any(name.endswith("atc.log") for name in names)
    secret = [str(short_check), str(Path(sys.prefix)), os.path.expanduser("~"), os.getcwd(), socket.gethostname()]
    secret += [getpass.getuser()] if getpass.getuser() != "root" else []
    for name, text in texts.items():
        assert [word for word in secret if word in text] == [], name
    assert "PYTHON" in texts["work/probes/conv3d-force_fp16/atc.log"]


def test_a_comparison_without_differences(short_check: Path, capsys: Any) -> None:
    assert main(["device-check", "--compare", str(short_check / ARCHIVE_NAME)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("SIMULATED") and "no assumption is touched" in said
    assert "not tested by this check: " in said and "network_error" in said.split("not tested by this check: ")[1]


def test_the_rungs_are_those_of_the_assumptions() -> None:
    assert {assumption.rung for assumption in ASSUMPTIONS} <= {step.name for step in STEPS}
    assert len({step.name for step in STEPS}) == len(STEPS)


def test_an_unknown_rung(tmp_path: Path, capsys: Any) -> None:
    assert device_check.main(["--only", "conv4d", "--out", str(tmp_path)]) == 1
    assert "no rung conv4d, there are facts, conv3d" in capsys.readouterr().err


#: programs in place of the process that climbs; each prints what a climbing process prints, and then misbehaves
_BEGIN = (
    "import json, os, sys, time; rungs = sys.argv[4].split(',')\n"
    "def send(**event): print(json.dumps(event), flush=True)\n"
    "send(toolchain={'kind': 'simulator', 'version': 'x', 'simulated': True}, soc_version='Ascend910A', versions={})\n"
)
_HANGS = _BEGIN + "send(begin=rungs[0]); time.sleep(600)\n"
_DIES = _BEGIN + "send(begin=rungs[0]); os.kill(os.getpid(), 11)\n"
_DIES_LATER = _BEGIN + (
    "for name in rungs:\n"
    "    send(begin=name)\n"
    "    if name == 'warp': os._exit(7)\n"
    "    send(point={'name': name, 'state': 'as predicted'}); send(end=name, seconds=0.1)\n"
)


def checked(tmp_path: Path, program: str, only: str, seconds: float = 30.0) -> List[Any]:
    request = Request(work=str(tmp_path / "work"))
    worker = (sys.executable, "-c", program)
    run_check(CheckSettings(tmp_path, request, True, tuple(only.split(",")), seconds, worker))
    return read_archive(tmp_path / ARCHIVE_NAME)[1]


def test_a_process_that_hangs_is_stopped(tmp_path: Path) -> None:
    first, second, third = checked(tmp_path, _HANGS, "facts,conv3d,warp", 0.6)
    (point,) = first.points
    assert point.state == FAILED and "did not end within 1 s" in point.found and "--only facts" in point.advice
    assert second.state == FAILED
    assert third.state == NOT_DONE and "left out" in third.points[0].found


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    first, second = checked(tmp_path, _DIES, "facts,conv3d")
    assert "ended by signal 11" in first.points[0].found and "worker.log" in first.points[0].advice
    assert second.state == FAILED


def test_the_rungs_after_a_death_are_climbed_by_a_new_process(tmp_path: Path) -> None:
    rungs: Dict[str, str] = {r.name: r.state for r in checked(tmp_path, _DIES_LATER, "facts,conv3d,warp,gather")}
    assert rungs == {"facts": AS_PREDICTED, "conv3d": AS_PREDICTED, "warp": FAILED, "gather": AS_PREDICTED}
