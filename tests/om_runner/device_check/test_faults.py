# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a machine becomes one point that says what, and what to do; the other rungs go on."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, List

import pytest

from om_runner.device_check.machine import atc_python_point, chip_point
from om_runner.device_check.sides import next_step, run_atc
from tests.om_runner.device_check.climbing import climbed, fresh_device, touched
from tests.support.cann_releases import put_atc
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, NOT_DONE, Point
from vxm_convert.errors import AtcError
from vxm_convert.toolchain.find import Toolchain, find_toolchain

__all__ = ["fresh_device"]


def failures(points: List[Point]) -> List[Point]:
    return [point for point in points if point.state == FAILED]


def test_a_pyacl_that_cannot_be_loaded(tmp_path: Path, monkeypatch: Any) -> None:
    root = tmp_path / "cann"
    put_atc(root / "bin" / "atc")
    package = root / "python" / "site-packages" / "acl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libascendcl.so: cannot open shared object file')\n")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(root))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "acl", raising=False)
    (found,) = [p for p in failures(climbed(tmp_path, "facts", toolchain="cann")) if p.name == "pyACL and device"]
    assert "libascendcl.so: cannot open shared object file" in found.found and "set_env.sh" in found.found
    (left_out,) = climbed(tmp_path, "conv3d", toolchain="cann")
    assert left_out.state == NOT_DONE and "see facts" in left_out.found


def test_a_device_of_another_kind(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "wrong_soc:Ascend310")
    (chip,) = [point for point in climbed(tmp_path, "facts") if point.name == "chip"]
    assert (chip.state, chip.found) == (DIFFERS, "Ascend310") and "send the archive" in chip.advice
    (chip,) = [point for point in climbed(tmp_path, "facts", soc_version="Ascend910A") if point.name == "chip"]
    assert chip.state == FAILED and "pass --soc-version Ascend310" in chip.advice


def test_a_bin_of_the_same_chip_is_no_difference() -> None:
    assert chip_point("Ascend910ProA", "Ascend910A").state == AS_PREDICTED
    assert chip_point("Ascend910", None).state == AS_PREDICTED
    assert chip_point("Ascend910B3", "Ascend910A").state == FAILED


def answer(version: str, missing: str, numpy: str) -> str:
    """A python3 that gives this answer, whatever it is asked."""
    said = f'{{"version": "{version}", "prefix": "/usr", "missing": {missing}, "numpy": "{numpy}"}}'
    return f"#!/bin/sh\necho '{said}'\n"


@pytest.mark.parametrize(
    "script, state, words",
    [
        (answer("3.7.5", "[]", "1.19.5"), AS_PREDICTED, "Python 3.7.5 has all of them"),
        (answer("3.9.2", '["decorator", "attr"]', "1.22.0"), FAILED, "it has no decorator, attrs"),
        (answer("3.7.5", "[]", "1.18.5"), FAILED, "its numpy is 1.18.5, CANN wants 1.19.2 or newer"),
        ("#!/bin/sh\necho broken; exit 3\n", FAILED, "it cannot be run"),
        (None, FAILED, "no python3 on PATH"),
    ],
)
def test_the_python_of_atc(tmp_path: Path, script: str, state: str, words: str) -> None:
    if script is not None:
        put_atc(tmp_path / "python3", script)
    toolchain = Toolchain("cann", "8.1.RC1", ("atc",), {"PATH": str(tmp_path)})
    point = atc_python_point(toolchain)
    assert point.state == state and words in point.found
    assert bool(point.advice) == (state == FAILED)
    assert "decorator" not in point.found or "pip install decorator attrs" in point.advice


def test_this_python_as_the_one_of_atc(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    toolchain = replace(find_toolchain("sim"), kind="cann", environment={"PATH": str(tmp_path)})
    point = atc_python_point(toolchain)
    assert point.found.startswith("Python 3.") and ("has all of them" in point.found or "it has no " in point.found)


def test_a_refused_operator(tmp_path: Path) -> None:
    (point,) = failures(climbed(tmp_path, "leaky_relu", "no_leaky_relu"))
    assert point.name == "leaky_relu, force_fp16: compiled by ATC" and point.assumption == "accepted"
    assert "E10501" in point.found and "LeakyRelu" in point.found and point.predicted.endswith(": compiled")
    assert "cause: the graph holds an operator that this CANN does not support" in point.found
    assert point.advice.startswith("use a newer CANN")


def test_an_atc_whose_python_lacks_packages(tmp_path: Path) -> None:
    said = "E40021: [Op compile failed] ModuleNotFoundError: No module named 'decorator'"
    toolchain = replace(find_toolchain("sim"), atc_command=("/bin/sh", "-c", f'echo "{said}"; exit 255'))
    with pytest.raises(AtcError, match="E40021") as caught:
        run_atc(toolchain, [], tmp_path, 20.0)
    assert "pip" in next_step(caught.value) or "Python" in next_step(caught.value)


def test_an_atc_that_does_not_end(tmp_path: Path) -> None:
    toolchain = replace(find_toolchain("sim"), atc_command=("/bin/sleep", "60"))
    with pytest.raises(AtcError, match="did not end within 0 s"):
        run_atc(toolchain, [], tmp_path, 0.2)


def test_wrong_numbers_in_one_output(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "corrupt_output:3")
    found = touched(climbed(tmp_path, "conv3d"))
    assert list(found) == ["geometry"] and "no known alternative gives these values" in found["geometry"]


def test_no_memory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "oom_malloc:1000")
    (point,) = failures(climbed(tmp_path, "leaky_relu"))
    assert "207001" in point.found and point.found.count("; ") >= 1


def test_results_that_change(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "unsteady_output:0")
    points = climbed(tmp_path, "steadiness")
    assert {point.state for point in points} == {DIFFERS}
    assert all(point.found == "2 different results" for point in points)


def test_an_execution_that_ends_with_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VXM_SIM_FAULT", "hang")
    monkeypatch.setenv("VXM_SIM_HANG_SECONDS", "0.1")
    (point,) = failures(climbed(tmp_path, "leaky_relu"))
    assert "507014" in point.found
