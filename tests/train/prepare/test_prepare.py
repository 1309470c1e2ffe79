# SPDX-License-Identifier: Apache-2.0
"""A preparation end to end on small brains with known transforms: results, use by training and runner, resuming, and
wrong input.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Dict, List
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest

from om_runner.inputs.placement import PlacingOptions, load_anywhere, load_atlas_anywhere
from om_runner.inputs.scans import Scan, discover
from tests.support.fakes import contract
from tests.support.grids import points_of
from tests.support.native import (
    NETWORK,
    PULLS,
    SHAPE,
    SHAPE_WORDS,
    brain,
    grid_of,
    save,
    turn_degrees,
    write_native,
    write_scan,
)
from train.__main__ import main
from train.data.checks import check_cohort
from train.data.cohort import read_cohort, segmentation_of
from train.prepare import scan as scan_module
from train.prepare.tools import Found
from train.settings.run import DataSettings
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.affines import read_affine


def prepare(data: Path, out: Path, *extra: str) -> int:
    words = ["prepare", "--data", str(data), "--out", str(out), "--shape", SHAPE_WORDS, "--tool", "simpleitk"]
    return main(words + [str(word) for word in (extra if "--jobs" in extra else extra + ("--jobs", "0"))])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    write_native(folder)
    return folder


@pytest.fixture(scope="module")
def done(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both scans, found by SimpleITK, as .npz."""
    pytest.importorskip("SimpleITK")
    out = tmp_path_factory.mktemp("prepared")
    assert prepare(native / "in", out, "--reference", native / "ref.nii.gz") == 0
    return out


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """The search replaced by the truth; names of the scans that asked for it."""
    pytest.importorskip("SimpleITK")
    asked: List[str] = []

    def known(tool, kind, reference, loaded, folder, threads):
        asked.append(loaded.source.name)
        return Found(Affine(PULLS.get(loaded.source.name.split("_")[0], np.eye(4))), 1.0, {"affine": kind})

    monkeypatch.setattr(scan_module, "find_transform", known)
    return asked


def record(out: Path, name: str, suffix: str = ".npz") -> Dict:
    return json.loads((out / "scans" / f"{name}{suffix}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_known_transform_is_found(done: Path, name: str) -> None:
    """Other axes, other voxel sizes, another format: within a millimetre and a degree, in both files."""
    points = points_of(NETWORK)[brain(points_of(NETWORK)) > 0.1]
    for suffix in (".txt", ".lta"):
        found = read_affine(done / "transforms" / (name + suffix), NETWORK, grid_of(name)).pull
        error = np.linalg.norm(apply_affine(found, points) - apply_affine(PULLS[name], points), axis=-1)
        assert error.mean() < 0.5 and error.max() < 1.0 and turn_degrees(found, PULLS[name]) < 1.0, (
            error.max(),
            suffix,
        )
    motion = record(done, name)["motion"]
    assert motion["rotation_degrees"] == pytest.approx(turn_degrees(PULLS[name], np.eye(4)), abs=1.0)
    assert motion["volume_change"] == pytest.approx(1 / np.linalg.det(PULLS[name][:3, :3]), abs=0.05)


@pytest.mark.parametrize("name", ["one", "two"])
def test_scan_and_labels_lie_on_the_reference(done: Path, name: str) -> None:
    with np.load(str(done / "scans" / f"{name}.npz")) as scan, np.load(str(done / "reference.npz")) as reference:
        assert (
            scan["vol"].shape == SHAPE
            and scan["vol"].dtype == np.float32
            and 0 <= scan["vol"].min() < scan["vol"].max() <= 1
        )
        assert np.abs(scan["vol"] - brain(points_of(NETWORK))).mean() < 0.02
        assert (scan["seg"] == reference["seg"]).mean() > 0.97 and set(np.unique(scan["seg"])) == {0, 2, 16, 41}
    found = record(done, name)
    assert (
        found["after"]["dice"] > 0.9 > found["before"]["dice"] and found["after"]["ncc"] > 0.95 > found["before"]["ncc"]
    )
    assert found["intensity"].startswith("0..255, divided by 255") and not found["warnings"]


def test_the_record_names_every_file_and_what_it_was_made_from(done: Path, native: Path) -> None:
    found = record(done, "two")
    assert found["made_from"] == {
        "scan": sha256_of(native / "in" / "two.mgz"),
        "seg": sha256_of(native / "in" / "two_seg.mgz"),
        "reference": sha256_of(native / "ref.nii.gz"),
    }
    assert {name: sha256_of(done / name) for name in found["files"]} == found["files"] and len(found["files"]) == 5
    assert found["sha256"] == found["files"]["scans/two.npz"] and found["placement"]["affine_tool"].startswith(
        "SimpleITK"
    )
    listed = read_manifest(done / "SHA256SUMS")
    assert set(found["files"]) | {"prepare.html", "prepare.json", "reference.npz", "failures.tsv"} <= set(listed)
    assert all(sha256_of(done / name) == digest for name, digest in listed.items())


def test_the_page_has_one_row_per_scan_with_pictures(done: Path) -> None:
    page = (done / "prepare.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 3 and page.count("<img src=") == 4
    assert "one, after" in page and "two, before" in page and "1 mm" in page and "SimpleITK" in page
    shown = [(done / unquote(name)).read_bytes() for name in re.findall(r'<img src="([^"]+)"', page)]
    assert all(png.startswith(b"\x89PNG") for png in shown) and page.count('loading="lazy"') == 4


def test_training_takes_it_as_it_is(done: Path) -> None:
    data = DataSettings(done / "scans", done / "reference.npz")
    cohort = read_cohort(data, 0)
    assert [s.moving.name for s in cohort.train] == ["one.npz", "two.npz"] and all(
        s.seg == s.moving for s in cohort.train
    )
    check_cohort(cohort, data.atlas, segmentation_of(data.atlas), SHAPE, need_labels=True)


@pytest.mark.tf
@pytest.mark.usefixtures("plain_graphs")
def test_a_step_of_training_on_it(done: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    words = [
        "--data",
        done / "scans",
        "--atlas",
        done / "reference.npz",
        "--out",
        tmp_path,
        "--variant",
        "vm1",
        "--epochs",
        "1",
        "--no-tensorboard",
        "--device",
        "cpu",
    ]
    assert main([str(word) for word in words]) == 0
    assert "loss" in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_nifti_results_with_headers_are_the_runners_network_grid(native: Path, tmp_path: Path, told: List[str]) -> None:
    """The runner takes reference and scans voxel by voxel, and the original scan with the transform's file to the same
    place.
    """
    assert prepare(native / "in", tmp_path, "--reference", native / "ref.nii.gz", "--format", "nii.gz") == 0
    agreed = contract().__class__(**{**vars(contract()), "model": contract().model.__class__("vm2", SHAPE)})
    atlas = load_atlas_anywhere(
        Scan("atlas", tmp_path / "reference.nii.gz", tmp_path / "reference_seg.nii.gz"), agreed, PlacingOptions()
    )
    assert atlas.placement.untouched and atlas.seg is not None
    scans = discover(tmp_path / "scans", tmp_path / "reference.nii.gz")
    assert [(s.subject, s.seg_path.name) for s in scans] == [("one", "one_seg.nii.gz"), ("two", "two_seg.nii.gz")]
    loaded = load_anywhere(scans[1], agreed, atlas, PlacingOptions())
    assert loaded.placement.untouched and loaded.factor == 1.0
    options = PlacingOptions(affine=str(tmp_path / "transforms" / "{subject}.lta"))
    original = load_anywhere(
        Scan("two", native / "in" / "two.mgz", native / "in" / "two_seg.mgz"), agreed, atlas, options
    )
    assert np.abs(original.image - loaded.image).max() < 1e-5 and (original.seg == loaded.seg).mean() > 0.999


def test_a_finished_scan_is_not_made_again(native: Path, tmp_path: Path, told: List[str]) -> None:
    data, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(str(native / "in"), str(data))
    words = (data, out, "--reference", native / "ref.nii.gz")
    assert prepare(*words) == 0 and told == ["one", "two"]
    first = {path: (path.stat().st_ino, sha256_of(path)) for path in (out / "scans").iterdir()}
    assert prepare(*words) == 0 and told == ["one", "two"]
    assert {path: (path.stat().st_ino, sha256_of(path)) for path in (out / "scans").iterdir()} == first
    assert prepare(*words, "--labels", "seed30") == 0 and len(told) == 2, "the label set changes figures, not results"
    save(data / "one_seg.nii.gz", np.zeros(grid_of("one").shape, np.int16), grid_of("one"))
    assert prepare(*words) == 0 and told[2:] == ["one"], "its segmentation is another one"
    (out / "transforms" / "two.lta").write_text("damaged", encoding="utf-8")
    assert prepare(*words) == 0 and told[3:] == ["two"]
    assert prepare(*words, "--force") == 0 and told[4:] == ["one", "two"]
    assert prepare(*words, "--transform", "rigid") == 0 and told[6:] == ["one", "two"]


def test_a_run_that_is_stopped_goes_on(
    native: Path, tmp_path: Path, told: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scan_module.find_transform

    def stopped(tool, kind, reference, loaded, *rest):
        if loaded.source.name == "two":
            raise KeyboardInterrupt
        return found(tool, kind, reference, loaded, *rest)

    monkeypatch.setattr(scan_module, "find_transform", stopped)
    words = (native / "in", tmp_path, "--reference", native / "ref.nii.gz")
    assert prepare(*words) == 130
    document = json.loads((tmp_path / "prepare.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in document["scans"]] == ["one"] and document["not_reached"] == ["two"]
    assert "not reached" in (tmp_path / "prepare.html").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob(".tmp-*"))
    (tmp_path / ".tmp-left by a kill").mkdir()
    monkeypatch.setattr(scan_module, "find_transform", found)
    assert prepare(*words) == 0 and told == ["one", "two"] and not list(tmp_path.rglob(".tmp-*"))


def test_a_scan_that_fails_is_a_row_and_leaves_nothing(native: Path, tmp_path: Path, told: List[str], capsys) -> None:
    data, out = tmp_path / "in put", tmp_path / "out"
    shutil.copytree(str(native / "in"), str(data))
    words = (data, out, "--reference", native / "ref.nii.gz")
    assert prepare(*words) == 0
    (data / "one.nii.gz").write_bytes(b"no scan")
    nan = np.full(SHAPE, np.nan, np.float32)
    save(data / "nan.nii.gz", nan, NETWORK)
    write_scan(
        data,
        "far",
        None,
        NETWORK.__class__(SHAPE, np.array([[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    )
    save(data / "headless.nii.gz", np.ones((9, 9, 9), np.float32), NETWORK.__class__((9, 9, 9), np.eye(4)))
    assert prepare(*words) == 1
    with open(str(out / "failures.tsv"), encoding="utf-8", newline="") as handle:
        rows = {row["subject"]: row for row in csv.DictReader(handle, delimiter="\t")}
    assert set(rows) == {"one", "nan", "far", "headless"} and {row["stage"] for row in rows.values()} == {"read"}
    assert "NaN" in rows["nan"]["reason"] and "--orientation" in rows["headless"]["reason"]
    assert sorted(p.name for p in (out / "scans").iterdir()) == ["two.npz", "two.npz.json"], (
        "the old result of a scan that fails now goes"
    )
    assert not (out / "transforms" / "one.lta").exists()
    page = (out / "prepare.html").read_text(encoding="utf-8")
    assert "4 failed" in page and page.index("Failed") < page.index("Scans</h2>")
    assert "next: python -m train --data" in capsys.readouterr().out


def test_processes_give_the_bytes_of_one(done: Path, native: Path, tmp_path: Path) -> None:
    assert prepare(native / "in", tmp_path, "--reference", native / "ref.nii.gz", "--jobs", "2") == 0
    for name in ("one", "two"):
        assert record(tmp_path, name)["files"] == record(done, name)["files"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--data", "nowhere"), "no such folder"),
        (("--data", "empty"), "no scan to prepare"),
        (("--data", "in", "--reference", "no.nii.gz"), "neither a file nor a scan"),
        (("--data", "in", "--reference", "text.txt"), "no scan"),
        (("--data", "in", "--shape", "30,32,48"), "multiple"),
        (("--data", "in", "--shape", "a,b"), "three whole numbers"),
        (("--data", "in", "--jobs", "-1"), "jobs: got -1"),
        (("--data", "in", "--labels", "nobody"), "label set"),
        (("--data", "in", "--out", "."), "lies in the output folder"),
        (("--data", "in", "--reference", "in/one_nan.nii.gz"), "NaN"),
        (("--data", "in", "--reference", "out/mine.nii.gz"), "lies in the output folder"),
        (("--data", "fixed.csv"), "names fixed scans"),
        (("--data", "in", "--orientation", "XYZ"), "three letters"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    native: Path, tmp_path: Path, monkeypatch, capsys, arguments, words: str
) -> None:
    shutil.copytree(str(native / "in"), str(tmp_path / "in"))
    save(tmp_path / "in" / "one_nan.nii.gz", np.full(SHAPE, np.nan, np.float32), NETWORK)
    for name in ("empty", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "mine.nii.gz").write_bytes(b"x")
    (tmp_path / "text.txt").write_text("x", encoding="utf-8")
    (tmp_path / "fixed.csv").write_text("moving,fixed\nin/one.nii.gz,in/two.mgz\n", encoding="utf-8")
    monkeypatch.chdir(str(tmp_path))
    defaults = [
        "--out",
        "out",
        "--shape",
        SHAPE_WORDS,
        "--jobs",
        "0",
        "--tool",
        "simpleitk",
        "--reference",
        "in/one.nii.gz",
    ]
    assert main(["prepare"] + defaults + list(arguments)) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_dry_run_writes_nothing(native: Path, done: Path, tmp_path: Path, capsys) -> None:
    assert prepare(native / "in", tmp_path / "out", "--reference", "one", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reference: ") and "(named)" in lines[0] and "32x32x48 LIA 1x1x1 mm" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["is", "to"] and lines[3].endswith(
        "two.mgz, labels two_seg.mgz -> scans/two.npz"
    )
    assert not (tmp_path / "out").exists()
    assert prepare(native / "in", done, "--reference", native / "ref.nii.gz", "--dry-run") == 0
    assert capsys.readouterr().out.count("done  ") == 2


def test_a_dry_run_refuses_what_the_run_refuses(native: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "in"
    shutil.copytree(str(native / "in"), str(folder))
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    write_scan(folder, "nan", None, NETWORK)
    path = next(folder.glob("nan.*"))
    image = nib.load(str(path))
    nib.save(image.__class__(np.full(image.shape, np.nan, np.float32), image.affine), str(path))
    options = ("--reference", native / "ref.nii.gz")
    assert prepare(folder, tmp_path / "out", *options, "--dry-run") == 1
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    foreseen = {Path(words[1]).name: words[2] for words in lines if words[0] == "refuse"}
    assert not (tmp_path / "out").exists() and sorted(foreseen) == ["broken.nii.gz", path.name]
    assert prepare(folder, tmp_path / "out", *options) == 1
    with open(str(tmp_path / "out" / "failures.tsv"), encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert {Path(row["file"]).name: row["reason"] for row in rows} == foreseen


def test_results_of_other_settings_never_mix(native: Path, tmp_path: Path, told: List[str], capsys) -> None:
    reference = ("--reference", native / "ref.nii.gz")
    assert prepare(native / "in", tmp_path, *reference) == 0
    more = tmp_path.parent / "more"
    write_scan(more, "three", None, NETWORK, size=1.02)
    assert prepare(more, tmp_path, *reference) == 0, "more scans, same settings: they stand side by side"
    assert [s["name"] for s in json.loads((tmp_path / "prepare.json").read_text(encoding="utf-8"))["scans"]] == [
        "one",
        "three",
        "two",
    ]
    assert prepare(more, tmp_path, *reference, "--intensity", "percentile") == 1
    assert "prepared with other settings" in capsys.readouterr().err
    assert prepare(more, tmp_path, *reference, "--intensity", "percentile", "--force") == 0
    assert sorted(p.name for p in (tmp_path / "scans").iterdir()) == ["three.npz", "three.npz.json"]
    (tmp_path / "scans" / "mine.nii.gz").write_bytes(b"x")
    assert prepare(more, tmp_path, *reference, "--intensity", "percentile") == 1
    assert (
        "belong to no finished scan, such as mine.nii.gz" in capsys.readouterr().err
        and (tmp_path / "scans" / "mine.nii.gz").exists()
    )


def test_two_runs_in_one_folder(native: Path, tmp_path: Path, told: List[str], capsys) -> None:
    from train.prepare.run import _alone_in

    with _alone_in(tmp_path):
        assert prepare(native / "in", tmp_path, "--reference", native / "ref.nii.gz") == 1
    assert "another preparation works there" in capsys.readouterr().err


def test_any_intensities_and_the_older_arrays_name(native: Path, tmp_path: Path, told: List[str], capsys) -> None:
    scan = nib.load(str(native / "in" / "one.nii.gz"))
    (tmp_path / "in").mkdir()
    nib.save(
        nib.Nifti1Image(np.asarray(scan.dataobj).astype(np.float32) * 16, scan.affine),
        str(tmp_path / "in" / "one.nii.gz"),
    )
    words = (tmp_path / "in", tmp_path / "out", "--reference", native / "ref.nii.gz", "--array", "vol_data")
    assert prepare(*words, "--intensity", "convention") == 1
    assert prepare(*words) == 0
    found = record(tmp_path / "out", "one")
    assert found["intensity"].startswith("99.9 %") and any(
        "fit" in w or "expected 0..255" in w for w in found["warnings"]
    )
    with np.load(str(tmp_path / "out" / "scans" / "one.npz")) as result:
        positive = result["vol_data"][result["vol_data"] > 0]
        assert list(result) == ["vol_data"] and np.percentile(positive, 99.9) == pytest.approx(0.5, abs=0.05)
    assert "percentile instead" in (tmp_path / "out" / "prepare.html").read_text(encoding="utf-8")


def test_a_scan_beyond_the_field_of_view_is_told(native: Path, tmp_path: Path, told: List[str], monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one.nii.gz", "one_seg.nii.gz"):
        shutil.copyfile(str(native / "in" / name), str(tmp_path / "in" / name))
    for shift, expected in ((14.0, 0), (40.0, 1)):
        moved = np.array(PULLS["one"])
        moved[:3, 3] += moved[:3, :3] @ (0, shift, 0)
        monkeypatch.setitem(PULLS, "one", moved)
        assert prepare(tmp_path / "in", tmp_path / "out", "--reference", native / "ref.nii.gz", "--force") == expected
        if not expected:
            found = record(tmp_path / "out", "one")
            assert 0.01 < found["after"]["outside"] < 0.5 and any("field of view" in w for w in found["warnings"])
    assert "field of view" in (tmp_path / "out" / "failures.tsv").read_text(encoding="utf-8")


@pytest.mark.parametrize("axes, sides", [("PIR", (52, 40, 44)), ("LIA", (30, 30, 30))])
def test_a_reference_of_any_grid_gives_the_network_grid(
    native: Path, tmp_path: Path, told: List[str], axes: str, sides
) -> None:
    """A larger one with other axes is cropped about its brain, a smaller one is padded with zeros."""
    reference = write_scan(
        tmp_path, "ref", None, oriented(sides, axes, (1.0, 1.0, 1.0), NETWORK.centre_ras + (1, -1, 1))
    )
    assert prepare(native / "in", tmp_path / "out", "--reference", reference) == 0
    place = json.loads((tmp_path / "out" / "reference.npz.json").read_text(encoding="utf-8"))["placement"][
        "network_grid"
    ]
    grid = Grid(tuple(place["shape"]), np.array(place["affine"]))
    assert grid.shape == SHAPE and grid.orientation == "LIA"
    with np.load(str(tmp_path / "out" / "reference.npz")) as result:
        assert np.abs(result["vol"] - brain(points_of(grid))).max() < 0.003
    with np.load(str(tmp_path / "out" / "scans" / "one.npz")) as result:
        assert np.abs(result["vol"] - brain(points_of(grid))).mean() < 0.02


def test_freesurfer_subjects_and_a_manifest_with_parts(native: Path, tmp_path: Path, told: List[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / "subjects" / name / "mri").mkdir(parents=True)
    for name, source in (
        ("one/mri/brain.mgz", "two.mgz"),
        ("two/mri/norm.mgz", "two.mgz"),
        ("two/mri/brain.mgz", "two_seg.mgz"),
        ("two/mri/aseg.mgz", "two_seg.mgz"),
    ):
        shutil.copyfile(str(native / "in" / source), str(tmp_path / "subjects" / name))
    reference = ("--reference", native / "ref.nii.gz")
    assert prepare(tmp_path / "subjects", tmp_path / "a", *reference) == 0 and told == ["one", "two"]
    assert Path(record(tmp_path / "a", "two")["source"]).name == "norm.mgz"
    assert (
        ScanFile(tmp_path / "a" / "scans" / "two.npz").labels() is not None
        and ScanFile(tmp_path / "a" / "scans" / "one.npz").labels() is None
    )
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "moving,split\nsubjects/one/mri/brain.mgz,test\nsubjects/two/mri/norm.mgz,train\n", encoding="utf-8"
    )
    assert prepare(manifest, tmp_path / "b", *reference) == 0
    cohort = read_cohort(DataSettings(tmp_path / "b" / "scans.csv", tmp_path / "b" / "reference.npz"), 0)
    assert [s.moving.name for s in cohort.train] == ["two.npz"] and [s.moving.name for s in cohort.test] == ["one.npz"]
    assert (
        prepare(tmp_path / "subjects", tmp_path / "b", *reference) == 0 and not (tmp_path / "b" / "scans.csv").exists()
    )


def test_the_folder_of_the_results_cannot_be_written(native: Path, tmp_path: Path, told: List[str], capsys) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert prepare(native / "in", tmp_path / "file", "--reference", native / "ref.nii.gz") == 1
    assert "cannot write there" in capsys.readouterr().err and os.path.getsize(str(tmp_path / "file")) == 0
