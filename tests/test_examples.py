# SPDX-License-Identifier: Apache-2.0
"""Every example runs, with a device whose answer is known, and says what it promises."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from tests.support import fakes
from tests.support.shift import ShiftBench
from vxm_convert.scans.nifti import write_nifti

AFFINE = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
#: other axes and another origin than the atlas
TURNED = np.array([[1.05, 0, 0, -8], [0, 0, -1.05, 17], [0, 1.05, 0, -8], [0, 0, 0, 1]])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch) -> Path:
    ShiftBench(tmp_path, monkeypatch)
    (tmp_path / "scans").mkdir()
    for name, seed, affine in (("atlas", 0, AFFINE), ("scans/a", 1, AFFINE), ("scans/b", 2, TURNED)):
        image, seg = fakes.brain(seed)
        write_nifti(tmp_path / f"{name}.nii.gz", image, affine)
        write_nifti(tmp_path / f"{name}_seg.nii.gz", seg, affine)
    return tmp_path


@pytest.fixture
def example(project_root: Path) -> Callable[..., Any]:
    def run(name: str, *words: object) -> int:

        return runpy.run_path(str(project_root / "examples" / name))["main"]([str(word) for word in words])

    return run


def test_ten_scans(bench: Path, example, capsys) -> None:
    words = ["--model", "vxm.om", "--atlas", bench / "atlas.nii.gz", "--input", bench / "scans", "--out", bench / "out"]
    assert example("register_ten.py", *words) == 0
    assert "2 of 2 scans registered" in capsys.readouterr().out
    with open(str(bench / "out" / "table.csv"), newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["scan"] for row in rows] == ["a", "b"] and all(0 < float(row["Dice after"]) < 1 for row in rows)
    assert (bench / "out" / "b_warp_fsl.nii.gz").is_file() and (bench / "out" / "a_moved.nii.gz").is_file()
    (bench / "scans" / "c.nii.gz").write_bytes(b"nothing")
    assert example("register_ten.py", *words) == 1
    assert "2 of 3 scans registered" in capsys.readouterr().out


@pytest.mark.parametrize("scan", ["a", "b"])
def test_other_programs_read_the_warp(bench: Path, example, capsys, scan: str) -> None:
    from om_runner import Registrar

    with Registrar("vxm.om", bench / "atlas.nii.gz") as register:
        register(bench / "scans" / f"{scan}.nii.gz").save(bench / "done")
    words = ["--warp", bench / "done" / "flow.nii.gz", "--atlas", bench / "atlas.nii.gz"]
    words += ["--scan", bench / "scans" / f"{scan}.nii.gz", "--out", bench / "formats"]
    assert example("read_warp.py", *words) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"5 points land within \S+ mm of ours", said)) == 3 - said.count("fslpy is not installed")


def test_two_plans(bench: Path, example, capsys) -> None:
    words = ["--models", "a.om", "b.om", "--atlas", bench / "atlas.nii.gz", "--scan", bench / "scans" / "a.nii.gz"]
    assert example("compare_plans.py", *words) == 0
    said = capsys.readouterr().out
    assert said.count("SIMULATED") == 2 and "max 0\n" in said and "difference +0" in said


def test_none_is_forgotten(project_root: Path) -> None:
    here = {path.name for path in (project_root / "examples").glob("*.py")}
    source = Path(__file__).read_text(encoding="utf-8")
    assert here and all(f'example("{name}"' in source for name in here)
    listed = re.findall(
        r"^\| `(\w+\.py)` \|", (project_root / "examples" / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert set(listed) == here
