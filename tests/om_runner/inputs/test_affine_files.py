# SPDX-License-Identifier: Apache-2.0
"""The affine of a scan as a file: what a run leaves, a later run takes without searching, and only where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from om_runner.inputs import placement
from om_runner.inputs.affine_files import affine_file
from tests.support import fakes
from tests.support.registration_bench import Bench
from tests.support.searched import MOVED, PLACE, Searched
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.inspection.verify import BROKEN, verify_folders
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.affines import read_affine, write_affine

pytestmark = pytest.mark.any_python("text files and sums, nothing that Pythons do in different ways")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Searched:
    found = Searched()
    monkeypatch.setattr(placement, "search_affine", found)
    return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Searched) -> Bench:
    """Two scans, registered with ``--affine auto`` into ``first``."""
    made = Bench(tmp_path, monkeypatch)
    made.inputs.mkdir()
    for number, name in ((1, "a"), (2, "b")):
        write_nifti(made.inputs / f"{name}.nii.gz", np.pad(fakes.brain(number)[0], 4, mode="constant"), PLACE)
    made.out = tmp_path / "first"
    assert made.run("--affine", "auto", "--outputs", "moved,warp,inverse") == 0
    return made


def side(path: Path) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    return found


def test_a_later_run_takes_the_matrices_of_an_earlier_one(bench: Bench, search: Searched, tmp_path: Path) -> None:
    first = bench.out
    assert [row["affine_overlap"] for row in bench.table("metrics.tsv")] == ["0.875", "0.875"]
    read = read_affine(first / "a" / "affine.txt")
    assert np.array_equal(read.pull, MOVED.pull), "digit for digit"
    noted = side(first / "a" / "affine.txt")
    assert noted["made_from"]["moving"] == side(first / "a" / "moved.nii.gz")["made_from"]["moving"]
    assert noted["frame"] == "LPS mm" and noted["simulated"] is True
    bench.out = tmp_path / "second"
    assert bench.run("--affine", str(first), "--outputs", "moved,warp,inverse") == 0 and len(search.images) == 2
    for name in ("a", "b"):
        for file in ("moved.nii.gz", "flow.nii.gz", "inverse.nii.gz", "affine.txt"):
            assert (bench.out / name / file).read_bytes() == (first / name / file).read_bytes()
        told = side(bench.out / name / "moved.nii.gz")
        assert told["placement"]["affine"] == "affine.txt" and told["placement"]["affine_tool"] == "a search"
        assert told["made_from"]["affine"] == side(first / name / "affine.txt")["sha256"]
    assert [row["affine_overlap"] for row in bench.table("metrics.tsv")] == ["0.875", "0.875"]
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["geometry"]["affine"] == str(first) and str(first / "a" / "affine.txt") in run["inputs"]
    links = verify_folders([first, bench.out])
    assert [link for link in links if link.state == BROKEN] == []
    assert any("made from affine" in link.text and link.state == "ok" for link in links)


def test_a_folder_can_be_registered_again_with_its_own_matrices(bench: Bench, search: Searched, caplog) -> None:
    assert bench.run("--affine", str(bench.out), "--space", "network", "--force") == 0 and len(search.images) == 2
    caplog.set_level("INFO")
    assert bench.run("--affine", str(bench.out), "--space", "network") == 0 and "2 unchanged" in caplog.text
    assert np.array_equal(read_affine(bench.out / "b" / "affine.txt").pull, MOVED.pull)


def failures(bench: Bench, out: Path, affine: object, *more: str) -> Dict[str, str]:
    bench.out = out
    assert bench.run("--affine", str(affine), *more) == 1
    return {row["subject"]: row["reason"] for row in bench.table("failures.tsv")}


def test_a_matrix_of_another_scan_is_refused(bench: Bench, tmp_path: Path) -> None:
    first = bench.out
    write_nifti(bench.inputs / "a.nii.gz", np.pad(fakes.brain(5)[0], 4, mode="constant"), PLACE)
    write_nifti(bench.inputs / "c.nii.gz", np.pad(fakes.brain(6)[0], 4, mode="constant"), PLACE)
    found = failures(bench, tmp_path / "second", first)
    assert sorted(found) == ["a", "c"]
    assert "was made for another image than the scan a.nii.gz (sha256 " in found["a"]
    assert "search this one with --affine auto" in found["a"]
    assert "there is no affine of c in" in found["c"] and "register it once with --affine auto" in found["c"]
    # One file for all scans is right for its own alone.
    found = failures(bench, tmp_path / "third", first / "b" / "affine.txt")
    assert sorted(found) == ["a", "c"] and "another image than the scan c.nii.gz" in found["c"]


def test_a_matrix_of_another_atlas_or_other_axes_or_a_changed_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    first = bench.out
    found = failures(bench, tmp_path / "axes", first, "--orientation", "RAS")
    assert all("when the scan was read with other axes (--orientation)" in reason for reason in found.values())
    fakes.write_scan(bench.atlas, 9)
    found = failures(bench, tmp_path / "atlas", first)
    assert sorted(found) == ["a", "b"]
    assert all("was made for another image than the fixed image" in reason for reason in found.values())
    file = first / "a" / "affine.txt"
    file.write_text(file.read_text().replace("0.995", "0.996"))
    found = failures(bench, tmp_path / "changed", first)
    assert "was changed after a run wrote it" in found["a"] and "remove affine.txt.json" in found["a"]
    Path(f"{file}.json").unlink()
    assert sorted(failures(bench, tmp_path / "own", first)) == ["b"], "now it is a file as any other"


def test_where_a_file_is_looked_for(tmp_path: Path) -> None:
    assert affine_file("none", "s") is None and affine_file("auto", "s") is None
    assert affine_file(str(tmp_path / "{subject}.lta"), "s") == tmp_path / "s.lta"
    assert affine_file(str(tmp_path), "s") == tmp_path / "s" / "affine.txt"
    there = tmp_path / "sub-01" / "ses-2" / "provenance" / "sub-01_ses-2_affine.txt"
    there.parent.mkdir(parents=True)
    write_affine(there, MOVED, "itk")
    assert affine_file(str(tmp_path), "sub-01_ses-2") == there
    assert affine_file(str(tmp_path), "sub-01") == tmp_path / "sub-01" / "affine.txt"


def test_a_side_car_of_another_tool_says_nothing(bench: Bench, tmp_path: Path) -> None:
    """Only what a run of ours wrote is judged by its side-car."""
    file = tmp_path / "given.txt"
    write_affine(file, MOVED, "itk")
    Path(f"{file}.json").write_text('{"Description": "by hand"}')
    bench.out = tmp_path / "given"
    assert bench.run("--affine", str(file)) == 0
    odd = {"affine_format": "itk", "sha256": sha256_of(file), "made_from": {"moving": 3}, "placement": ["affine_tool"]}
    Path(f"{file}.json").write_text(json.dumps(odd))
    assert "for another image than the scan a.nii.gz (sha256 3, the" in failures(bench, tmp_path / "odd", file)["a"]
    Path(f"{file}.json").write_text("{")
    assert "given.txt.json: not JSON" in failures(bench, tmp_path / "damaged", file)["a"]
