# SPDX-License-Identifier: Apache-2.0
"""``--series``: every frame of a file is registered as a scan of its own, with one affine for all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List

import nibabel as nib
import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.commands import qc
from om_runner.inputs import placement
from om_runner.inputs.scans import Scan
from om_runner.inputs.series import frame_by_frame, searched_on
from om_runner.results.cohort_record import known, scans_from
from tests.support import fakes
from tests.support.registration_bench import Bench
from tests.support.searched import PLACE, Searched
from tests.support.textual import LIA
from vxm_convert.errors import VolumeError
from vxm_convert.scans.header import frames_in
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile

pytestmark = pytest.mark.any_python("headers and arrays, nothing that Pythons do in different ways")


def series(path: Path, affine: np.ndarray = LIA, margin: int = 0, seeds: range = range(1, 4)) -> List[np.ndarray]:
    """A file with a brain per frame; returns the frames."""
    frames = [np.pad(fakes.brain(seed)[0], margin, mode="constant") for seed in seeds]
    kind = {".mgz": nib.MGHImage, ".hdr": nib.Nifti1Pair}.get(path.suffix, nib.Nifti1Image)
    nib.save(kind(np.stack(frames, axis=-1), affine), str(path))
    return frames


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch)
    made.inputs.mkdir()
    return made


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.hdr"])
def test_a_frame_of_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frames = series(path)
    assert frames_in(path) == 3
    for number, frame in enumerate(frames):
        file = ScanFile(path, number)
        assert file.grid.shape == frame.shape and np.allclose(file.grid.affine, LIA)
        assert np.array_equal(file.image().data, frame)
    with pytest.raises(VolumeError, match="has the frames 0 to 2, got 3"):
        ScanFile(path, 3).image()
    with pytest.raises(VolumeError, match="extract a single frame first, or let om_runner .* with --series mean"):
        ScanFile(path).image()
    if name != "a.hdr":
        path.write_bytes(path.read_bytes()[:-4000])
        with pytest.raises(VolumeError, match="copy (it|the file) again"):
            ScanFile(path, 2).image()


def test_more_than_a_series_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2, 3), np.uint8), LIA), str(tmp_path / "five.nii"))
    nib.save(nib.Nifti1Image(np.zeros((1, 1, 2, 20000), np.uint8), LIA), str(tmp_path / "many.nii"))
    for name in ("five.nii", "many.nii"):
        with pytest.raises(VolumeError, match="expected a series of at most 10000 frames"):
            frames_in(tmp_path / name)
    with pytest.raises(VolumeError, match="5-D volume 4x4x4x2x3, expected one 3-D scan; extract a single frame first$"):
        ScanFile(tmp_path / "five.nii").image()


def test_frames_are_registered_as_scans_are(bench: Bench, tmp_path: Path, caplog) -> None:
    frames = series(bench.inputs / "a.nii.gz")
    write_nifti(bench.inputs / "a_seg.nii.gz", fakes.brain(1)[1], LIA)
    fakes.write_scan(bench.inputs / "b.npz", 5)
    assert bench.run() == 1
    (failed,) = bench.table("failures.tsv")
    assert "4-D volume" in failed["reason"] and "--series mean" in failed["reason"]
    bench.out = tmp_path / "frames"
    assert bench.run("--series", "mean") == 0
    rows = bench.table("metrics.tsv")
    names = ["a_frame-000", "a_frame-001", "a_frame-002"]
    assert [row["subject"] for row in rows] == [*names, "b"] and {row["source"] for row in rows[:3]} == {"a.nii.gz"}
    assert all(row["dice_after"] != "n/a" for row in rows), "the segmentation of the file is that of each frame"
    caplog.set_level("INFO")
    assert bench.run("--series", "mean") == 0 and "4 unchanged" in caplog.text
    for path in bench.inputs.iterdir():
        path.unlink()
    for name, frame in zip(names, frames):
        write_nifti(bench.inputs / f"{name}.nii.gz", frame, LIA)
    alone, bench.out = bench.out, tmp_path / "alone"
    assert bench.run() == 0
    for name in names:
        for file in ("moved.nii.gz", "flow.nii.gz"):
            assert (bench.out / name / file).read_bytes() == (alone / name / file).read_bytes()


@pytest.mark.parametrize("choice", ["mean", "2"])
def test_one_affine_is_searched_for_all_frames(bench: Bench, tmp_path: Path, monkeypatch, choice: str) -> None:
    search = Searched()
    monkeypatch.setattr(placement, "search_affine", search)
    frames = series(bench.inputs / "a.nii", PLACE, 4)
    series(bench.inputs / "b.nii", PLACE, 4, range(4, 6))
    assert bench.run("--series", choice, "--affine", "auto") == (0 if choice == "mean" else 1)
    if choice == "2":
        failed = bench.table("failures.tsv")
        assert [row["subject"] for row in failed] == ["b_frame-000", "b_frame-001"]
        assert all("has the frames 0 to 1, --series asks for 2" in row["reason"] for row in failed)
    assert len(search.images) == (2 if choice == "mean" else 1)
    wanted = np.mean(frames, axis=0) if choice == "mean" else frames[2]
    assert any(image.shape == wanted.shape and np.allclose(image, wanted, atol=1e-3) for image in search.images)
    for number in range(3):
        told = json.loads((bench.out / f"a_frame-00{number}" / "affine.txt.json").read_text())["placement"]
        assert told["affine_searched_on"] == ("the mean of all frames" if choice == "mean" else "frame 2")
    first, bench.out = bench.out, tmp_path / "again"
    (bench.inputs / "b.nii").unlink()
    assert bench.run("--series", choice, "--affine", str(first)) == 0, "a later run takes the affine of each frame"


@pytest.mark.parametrize("choice", ["mean", "1"])
def test_no_affine_is_searched_on_what_is_no_number(tmp_path: Path, choice: str) -> None:
    """The frame is named: to the other frames, whose affine it is, nothing is wrong."""
    data = np.ones((8, 9, 10, 3), np.float32)
    data[4, 4, 4, 1] = np.nan
    nib.save(nib.Nifti1Image(data, LIA), str(tmp_path / "a.nii"))
    with pytest.raises(VolumeError, match="a.nii: frame 1, on which .* name a sound frame with --series N"):
        searched_on(Scan("a_frame-000", tmp_path / "a.nii", frame=0), choice, (8, 9, 10))
    assert np.array_equal(searched_on(Scan("a", tmp_path / "a.nii", frame=1), "2", (8, 9, 10)), data[..., 2])


def test_names_of_frames(tmp_path: Path) -> None:
    series(tmp_path / "a.nii")
    write_nifti(tmp_path / "a_frame-001.nii", fakes.brain(1)[0], LIA)
    scan = Scan("a", tmp_path / "a.nii")
    frames = frame_by_frame([scan])
    assert [(one.subject, one.frame) for one in frames] == [(f"a_frame-00{n}", n) for n in range(3)]
    # Another process gets them as this.
    again = scans_from(known(frames), {})
    assert [(one.subject, one.frame, one.file.frame) for one in again] == [(f"a_frame-00{n}", n, n) for n in range(3)]
    with pytest.raises(VolumeError, match="both would be named A_frame-001; rename one"):
        frame_by_frame([scan, Scan("A_frame-001", tmp_path / "a_frame-001.nii")])
    assert frame_by_frame([Scan("none", tmp_path / "none.nii")])[0].frame is None, "its reading says what is wrong"


def test_a_folder_of_another_process_knows_the_frames(bench: Bench, tmp_path: Path) -> None:
    series(bench.inputs / "a.nii")
    assert bench.run("--series", "0", "--shard", "2/3") == 0
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a_frame-001"]
    told = json.loads((bench.out / "a_frame-001" / "moved.nii.gz.json").read_text())["placement"]
    assert told["frame"] == 1
    assert bench.run("--series", "0") == 0 and len(bench.table("metrics.tsv")) == 3
    words = ("--registered", str(bench.out), "--atlas", str(bench.atlas), "--subject", "a_frame-001")
    assert qc.main([*words, "--out", str(tmp_path / "qc")]) == 0
    page = (tmp_path / "qc" / "a_frame-001" / "index.html").read_text(encoding="utf-8")
    assert "no picture before the warp" not in page, "the frame is found again in its file"


@pytest.mark.parametrize(
    "words, said",
    [
        (["--input", "x", "--atlas", "y", "--series", "first"], "expected mean, or the number of a frame"),
        (["--input", "x", "--atlas", "y", "--series", "-1"], "argument --series"),
        (["--pairs", "p.tsv", "--series", "mean"], "argument --series: has no effect here"),
    ],
)
def test_usage_errors(capsys, words: List[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2 and said in capsys.readouterr().err
