# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder are scans and which are segmentations: one rule, which training and registration both
follow.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import List

import pytest

from om_runner.inputs.scans import discover
from train.data.cohort import find_scans
from vxm_convert.scans.discovery import find_segmentation, scan_files, volume_stem

#: files of a folder → the scans among them
FOLDERS = {
    "named after": (
        ["b.nii.gz", "b_seg.nii.gz", "c.mgz", "c-aseg.mgz", "d.labels.nii", "e_label.npz"],
        ["b.nii.gz", "c.mgz"],
    ),
    "freesurfer": (["aparc+aseg.mgz", "aseg.mgz", "norm.mgz", "orig.mgz"], ["norm.mgz", "orig.mgz"]),
    "the word brain": (["s_brain_crop.nii", "s_seg_crop.nii"], ["s_brain_crop.nii"]),
    "case": (["A_SEG.NII.GZ", "A.NII.GZ"], ["A.NII.GZ"]),
    "others": ([".hidden.npz", "a.npz", "notes.txt", "seg.nii"], ["a.npz"]),
    "npz too": (["a.npz", "a_seg.npz"], ["a.npz"]),
    "part of a word": (["baseg.nii", "labelled.nii", "segment.nii"], ["baseg.nii", "labelled.nii", "segment.nii"]),
}


def fill(folder: Path, names: List[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("case", sorted(FOLDERS))
def test_training_and_registration_see_the_same_scans(tmp_path, case):
    files, expected = FOLDERS[case]
    folder, atlas = fill(tmp_path / "in", files), fill(tmp_path / "atlas", ["atlas.npz"]) / "atlas.npz"
    (folder / "sub.npz").mkdir()
    assert [p.name for p in scan_files(folder, atlas)] == expected
    assert find_scans(folder, atlas) == [scan.path for scan in discover(folder, atlas)] == scan_files(folder, atlas)


@pytest.mark.parametrize(
    "name, seg",
    [("b.nii.gz", "b_seg.nii.gz"), ("b.nii.gz", "b-labels.mgz"), ("s_norm.mgz", "s_aseg.mgz"), ("b.npz", None)],
)
def test_the_segmentation_beside_a_scan(tmp_path, name, seg):
    folder = fill(tmp_path / "in", [name, "c_seg.nii.gz"] + ([seg] if seg else []))
    found = find_segmentation(folder / name)
    assert (found.name if found else None) == seg


def test_the_atlas_is_left_out_as_a_copy_too(tmp_path):
    folder = fill(tmp_path / "in", ["a.npz", "b.npz"])
    copy = tmp_path / "elsewhere.npz"
    shutil.copy(str(folder / "a.npz"), str(copy))
    for atlas in (folder / "a.npz", copy):
        assert [p.name for p in scan_files(folder, atlas)] == ["b.npz"]
    assert len(scan_files(folder, tmp_path / "none.npz")) == 2


def test_stems():
    assert [volume_stem(Path(n)) for n in ("a.b.nii.gz", "a.npz", "a.txt")] == ["a.b", "a", "a.txt"]
