# SPDX-License-Identifier: Apache-2.0
"""``--input`` with a scan, or several, instead of a folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.errors import ArtifactError, VolumeError


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch)
    for seed, name in enumerate("abc", 1):
        fakes.write_scan(made.inputs / f"{name}.npz", seed)
    return made


def subjects(bench: Bench):
    return [row["subject"] for row in bench.table("metrics.tsv")]


def test_one_file_registers_that_one_scan(bench: Bench, monkeypatch) -> None:
    fakes.write_scan(bench.inputs / "b.npz", 2, with_seg=False)
    fakes.write_scan(bench.inputs / "b_seg.npz", 2)
    bench.inputs = bench.inputs / "b.npz"
    assert bench.run() == 0 and subjects(bench) == ["b"]
    assert (bench.out / "b" / "moved_seg.nii.gz").is_file(), "the segmentation beside it is found"


def test_several_files_in_their_order(bench: Bench, tmp_path: Path, caplog) -> None:
    folder = bench.inputs
    bench.inputs = folder / "c.npz"
    caplog.set_level(logging.INFO)
    again = Path(os.path.relpath(str(folder / "c.npz")))
    assert bench.run("--input", str(folder / "c.npz"), str(folder / "a.npz"), str(again)) == 0
    assert subjects(bench) == ["c", "a"] and "c.npz: given twice, registered once" in caplog.text
    assert "2 scans in the folders and files given, atlas atlas.npz" in caplog.text


def test_a_folder_and_a_file(bench: Bench, tmp_path: Path) -> None:
    other = fakes.write_scan(tmp_path / "elsewhere" / "a.npz", 9)
    assert bench.run("--input", str(bench.inputs), str(other)) == 0
    assert sorted(subjects(bench)) == ["a_npz", "a_npz_2", "b", "c"]


def test_a_list_names_scans_and_folders(bench: Bench, tmp_path: Path) -> None:
    fakes.write_scan(tmp_path / "elsewhere" / "d.npz", 9)
    text = "\ufeff# the cohort\r\nin/c.npz\r\n\r\nelsewhere\r\n" + str(bench.inputs / "a.npz") + "\r\n"
    (tmp_path / "list.txt").write_bytes(text.encode("utf-8"))
    bench.inputs = tmp_path / "list.txt"
    assert bench.run() == 0 and subjects(bench) == ["c", "d", "a"]
    bench.out = tmp_path / "elsewhere" / "out"
    with pytest.raises(ArtifactError, match="lies in the folder of --input"):
        bench.run()


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "names no scan"),
        (b"in/a.npz\nin/x.npz\nin/y.npz\n", "line 2: .*x.npz: no such folder or file; and 1 more"),
        (b"in/a\x1b.npz\n", "line 1 contains the control character"),
        (b"\xff\xfea\x00", "is no UTF-8 text, expected a list of scans"),
    ],
)
def test_a_list_that_cannot_be_used(bench: Bench, tmp_path: Path, content: bytes, said: str) -> None:
    bench.inputs = tmp_path / "list.txt"
    bench.inputs.write_bytes(content)
    with pytest.raises(VolumeError, match=said):
        bench.run()
    assert not bench.out.exists()


def test_freesurfer_subjects(bench: Bench, tmp_path: Path, caplog) -> None:
    """A folder of subjects, one of them the atlas; one subject; and a pair of them."""
    image, seg = fakes.brain(1)
    affine = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
    folder = tmp_path / "subjects"
    for name, kind, seed in (("bert", "norm", 1), ("ernie", "brain", 2), ("average", "brain", 3)):
        (folder / name / "mri").mkdir(parents=True)
        (folder / name / "surf").mkdir()
        for stem, array in zip((kind, "aseg"), fakes.brain(seed)):
            nib.save(nib.MGHImage(array.astype(np.int32), affine), str(folder / name / "mri" / f"{stem}.mgz"))
    nib.save(nib.MGHImage(image.astype(np.float32), affine), str(folder / "bert" / "mri" / "brain.mgz"))
    bench.inputs, bench.atlas = folder, folder / "average" / "mri" / "brain.mgz"
    caplog.set_level(logging.INFO)
    assert bench.run() == 0 and "this is the atlas itself, skipped" in caplog.text
    rows = bench.table("metrics.tsv")
    assert [(row["subject"], row["source"]) for row in rows] == [("bert", "norm.mgz"), ("ernie", "brain.mgz")]
    assert all(row["dice_before"] != "n/a" for row in rows)
    bench.inputs, bench.out = folder / "ernie", tmp_path / "one"
    assert bench.run() == 0 and subjects(bench) == ["ernie"]
    (tmp_path / "p.csv").write_text("moving,fixed\nsubjects/bert,subjects/ernie\n")
    bench.out = tmp_path / "pair"
    assert bench.run("--pairs", str(tmp_path / "p.csv")) == 0 and subjects(bench) == ["bert__ernie"]


def test_a_file_that_is_called_a_mask_is_taken_with_a_warning(bench: Bench, caplog) -> None:
    path = fakes.write_scan(bench.inputs / "a_mask.npz", 1)
    bench.inputs = path
    assert bench.run() == 0 and subjects(bench) == ["a_mask"]
    assert "by its name a mask; taken as a scan, because it is given itself" in caplog.text


@pytest.mark.parametrize(
    "name, words",
    [
        ("scan.gipl", "not a scan of a kind that is read.*convert it to .nii.gz by SimpleITK"),
        ("IM0001.dcm", "convert it to .nii.gz by dcm2niix"),
        ("IM0001", "convert it to .nii.gz by dcm2niix"),
        ("notes.md", "expected a folder, or one of .nii.gz, .npz, .nii, .hdr, .mgz, .mgh, .nrrd, .nhdr, .mha, .mhd$"),
        ("none.nii", "no such folder or file"),
    ],
)
def test_a_file_that_is_no_scan(bench: Bench, tmp_path: Path, name: str, words: str) -> None:
    bench.inputs = tmp_path / name
    if name != "none.nii":
        bench.inputs.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(VolumeError, match=f"{name}: .*{words}"):
        bench.run()
    assert not bench.out.exists()


def test_bids_options_need_one_dataset(bench: Bench) -> None:
    files = [str(bench.inputs / f"{name}.npz") for name in "ab"]
    with pytest.raises(VolumeError, match="BIDS options have no meaning"):
        bench.run("--bids", "--input", *files)
    bench.inputs = bench.inputs / "a.npz"
    with pytest.raises(VolumeError):
        bench.run("--bids")


def test_a_broken_link_is_the_failure_of_that_scan(bench: Bench) -> None:
    link = bench.inputs / "d.npz"
    link.symlink_to(bench.inputs / "nowhere.npz")
    assert bench.run("--input", str(bench.inputs / "a.npz"), str(link)) == 1
    (row,) = bench.table("failures.tsv")
    assert row["subject"] == "d" and "broken or circular link" in row["reason"] and subjects(bench) == ["a"]


@pytest.mark.parametrize("name", ["S.Nii.GZ", "S.NII", "S.MGZ", "S.NPZ", "S.nIi.gZ"])
def test_suffixes_in_any_case(bench: Bench, tmp_path: Path, name: str) -> None:
    import nibabel as nib

    from vxm_convert.scans.network_grid import network_affine

    lower = tmp_path / name.lower()
    data = fakes.brain(1)[0]
    if name == "S.NPZ":
        np.savez(str(lower), vol=data)
    else:
        kind = nib.MGHImage if name == "S.MGZ" else nib.Nifti1Image
        nib.save(kind(data, network_affine(fakes.SHAPE)), str(lower))
    bench.inputs = tmp_path / "cased"
    bench.inputs.mkdir()
    lower.rename(bench.inputs / name)
    assert bench.run() == 0 and subjects(bench) == ["S"]
    bench.atlas, bench.inputs = bench.inputs / name, fakes.write_scan(tmp_path / "x.npz", 4)
    bench.out = tmp_path / "again"
    assert bench.run() == 0 and subjects(bench) == ["x"]
