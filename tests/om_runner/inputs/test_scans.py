# SPDX-License-Identifier: Apache-2.0
"""Finding scans, their names, segmentations, and the atlas among them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from om_runner.inputs import scans
from om_runner.inputs.placement import BY_HEADERS, load_anywhere, load_atlas_anywhere
from tests.support.fakes import SHAPE, brain, contract, write_scan
from vxm_convert.errors import VolumeError
from vxm_convert.scans import scan_file
from vxm_convert.scans.discovery import find_segmentation
from vxm_convert.scans.network_grid import network_affine


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def test_sorted_scans_without_segmentations_hidden_files_and_others(tmp_path):
    folder = touch(
        tmp_path / "in",
        "b.nii.gz",
        "b_seg.nii.gz",
        "a.npz",
        "c.mgz",
        "c-aseg.mgz",
        ".hidden.npz",
        "notes.txt",
        "d_labels.nii",
    )
    (folder / "sub").mkdir()
    atlas = touch(tmp_path / "atlas", "atlas.npz") / "atlas.npz"
    found = scans.discover(folder, atlas)
    assert [s.subject for s in found] == ["a", "b", "c"]
    assert [s.seg_path.name if s.seg_path else None for s in found] == [None, "b_seg.nii.gz", "c-aseg.mgz"]


def test_segmentation_by_the_word_brain(tmp_path):
    folder = touch(tmp_path / "in", "s1_brain_crop.nii.gz", "s1_seg_crop.nii.gz")
    found = scans.discover(folder, touch(tmp_path / "x", "atlas.npz") / "atlas.npz")
    assert [(s.subject, s.seg_path.name) for s in found] == [("s1_brain_crop", "s1_seg_crop.nii.gz")]


@pytest.mark.parametrize("copy", [False, True])
def test_the_atlas_in_the_folder_is_skipped_and_said(tmp_path, caplog, copy):
    folder = tmp_path / "in"
    atlas = write_scan(folder / "atlas.npz", 0)
    write_scan(folder / "one.npz", 1)
    if copy:
        atlas = Path(shutil.copy(str(atlas), str(tmp_path / "elsewhere.npz")))
    with caplog.at_level(logging.INFO):
        found = scans.discover(folder, atlas)
    assert [s.subject for s in found] == ["one"]
    assert "atlas.npz: this is the atlas itself, skipped" in caplog.text


def test_limit_counts_after_the_atlas(tmp_path):
    folder = tmp_path / "in"
    atlas = write_scan(folder / "a.npz", 0)
    for seed, name in enumerate(("b", "c", "d"), 1):
        write_scan(folder / f"{name}.npz", seed)
    assert [s.subject for s in scans.discover(folder, atlas, limit=2)] == ["b", "c"]


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.npz", "b.nii.gz"], ["a", "b"]),
        (["a.npz", "a.nii.gz"], ["a_npz", "a_nii_gz"]),
        (["A.npz", "a.nii"], ["A_npz", "a_nii"]),
        (["precision.npz"], ["precision_npz"]),
        (["my scan (1).npz"], ["my_scan__1_"]),
        (["x.y.npz", "x_y.npz", "x y.npz"], ["x.y", "x_y_npz", "x_y_npz_2"]),
        (["..evil.npz", "-rf.npz"], ["evil", "rf"]),
        (["x.npz", "x.nii", "x_npz.mgz"], ["x_npz", "x_nii", "x_npz_mgz"]),
    ],
)
def test_subject_names_are_unique_and_safe(names, expected):
    assert scans.subject_names([Path(n) for n in names]) == expected


def test_empty_and_missing_folders(tmp_path):
    atlas = touch(tmp_path / "x", "atlas.npz") / "atlas.npz"
    with pytest.raises(VolumeError, match="no scan to register"):
        scans.discover(touch(tmp_path / "empty", "readme.txt"), atlas)
    with pytest.raises(VolumeError, match="no such folder"):
        scans.discover(tmp_path / "nowhere", atlas)


def test_nifti_with_segmentation_beside_it(tmp_path):
    image, seg = brain(1)
    affine = network_affine(SHAPE)
    nib.save(nib.Nifti1Image(image, affine), str(tmp_path / "s.nii.gz"))
    nib.save(nib.Nifti1Image(seg, affine), str(tmp_path / "s_seg.nii.gz"))
    scan = scans.Scan("s", tmp_path / "s.nii.gz", find_segmentation(tmp_path / "s.nii.gz"))
    loaded = load_anywhere(scan, contract(), atlas_in(tmp_path), BY_HEADERS)
    assert loaded.intensity == "0..255" and loaded.factor == 255 and loaded.stored_dtype == "uint8"
    assert loaded.image.dtype == np.float32 and np.array_equal(np.rint(loaded.image * 255), image)
    assert np.array_equal(loaded.seg, seg)


def test_a_header_that_says_nothing_is_warned_about_for_each_scan(tmp_path, caplog):
    image, _ = brain(1)
    atlas = atlas_in(tmp_path)
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(image, np.eye(4)), str(tmp_path / f"{name}.nii"))
        loaded = load_anywhere(scans.Scan(name, tmp_path / f"{name}.nii"), contract(), atlas, BY_HEADERS)
        assert loaded.placement.untouched and loaded.placement.moving == atlas.placement.network
        assert (
            f"{name}.nii: its header does not give the array's orientation (it has an identity affine)" in caplog.text
        )
    assert caplog.text.count("assumed to be on the network grid (LIA)") == 2


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    """Its header is read once and its bytes are hashed once, for all that ask, as long as it stays as it is."""
    calls = []
    monkeypatch.setattr(scan_file, "sha256_of", lambda path: calls.append("hash") or "0" * 64)
    read = scan_file.read_header
    monkeypatch.setattr(scan_file, "read_header", lambda *args: calls.append("header") or read(*args))
    image, seg = brain(1)
    for name, data in (("s.nii", image), ("s_seg.nii", seg)):
        nib.save(nib.Nifti1Image(data, network_affine(SHAPE) @ np.diag([0.9, 0.9, 0.9, 1])), str(tmp_path / name))
    atlas = atlas_in(tmp_path)
    scan = scans.Scan("s", tmp_path / "s.nii", tmp_path / "s_seg.nii")
    assert scan.file.sha256 and scan.seg_file.sha256
    calls.clear()
    load_anywhere(scan, contract(), atlas, BY_HEADERS)
    assert calls == ["header", "header"], "one each of scan and segmentation; the hashes are known"
    nib.save(nib.Nifti1Image(image[:-1], network_affine(SHAPE)), str(tmp_path / "s.nii"))
    assert scan.file.grid.shape[0] == SHAPE[0] - 1 and calls.count("header") == 3, "another file, read again"


def atlas_in(folder: Path) -> scans.LoadedScan:
    path = write_scan(folder / "atlas" / "atlas.npz", 0)
    return load_atlas_anywhere(scans.Scan("atlas", path), contract(), BY_HEADERS)
