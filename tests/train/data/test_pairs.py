# SPDX-License-Identifier: Apache-2.0
"""Which files are trained on, with which partners, in which order and in which part of the split."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import List

import nibabel as nib
import numpy as np
import pytest

from train.data.cohort import find_scans, read_cohort
from train.data.pairs import PairOrder
from train.data.scan_list import Subject, read_manifest
from train.settings.run import DataSettings
from vxm_convert.errors import TrainingError

SHAPE = (16, 16, 16)


def write_scan(path: Path, value: int) -> Path:
    vol = np.zeros(SHAPE, np.uint8)
    vol[4:12, 4:12, 4:12] = value
    np.savez(str(path), vol=vol)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(3):
        write_scan(scans / f"s{index}.npz", 100 + 50 * index)
    write_scan(tmp_path / "atlas.npz", 255)
    return scans


def subjects(count: int) -> List[Subject]:
    return [Subject(Path(f"s{i}.npz")) for i in range(count)]


def names(paths: List[Path]) -> List[str]:
    return [p.name for p in paths]


def test_scans_are_sorted_without_atlas_and_label_maps(folder: Path, tmp_path: Path) -> None:
    shutil.copy(str(tmp_path / "atlas.npz"), str(folder / "a_copy.npz"))
    values = np.full(SHAPE, 7, np.uint8)
    for name, kind in (("s9.nii.gz", nib.Nifti1Image), ("s9_seg.nii.gz", nib.Nifti1Image), ("aseg.mgz", nib.MGHImage)):
        nib.save(kind(values, np.eye(4)), str(folder / name))
    (folder / "notes.txt").write_text("x")
    assert names(find_scans(folder, tmp_path / "atlas.npz")) == ["s0.npz", "s1.npz", "s2.npz", "s9.nii.gz"]
    cohort = read_cohort(DataSettings(folder, tmp_path / "atlas.npz"), 0)
    assert [s.seg.name for s in cohort.train] == ["s0.npz", "s1.npz", "s2.npz", "s9_seg.nii.gz"]


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        find_scans(tmp_path / "none", tmp_path / "atlas.npz")
    with pytest.raises(TrainingError, match="no scan to train on"):
        find_scans(tmp_path, tmp_path / "atlas.npz")


def test_every_scan_once_before_any_again() -> None:
    order = PairOrder(subjects(5), "atlas", seed=5)
    assert order.steps_per_pass(2) == 3
    shown = [pair.moving.name for step in range(10) for pair in order.pairs_of_step(step, 2)]
    assert Counter(shown) == {f"s{i}.npz": 4 for i in range(5)}
    for start in range(0, 20, 5):
        assert len(set(shown[start : start + 5])) == 5
    assert shown[:5] != shown[5:10]


def test_a_pair_depends_on_seed_and_number_alone() -> None:
    first, again, other = (PairOrder(subjects(6), "scans", seed) for seed in (1, 1, 2))
    numbers = list(range(30))
    backwards = {n: again.pair(n) for n in reversed(numbers)}
    assert [first.pair(n) for n in numbers] == [backwards[n] for n in numbers]
    assert [first.pair(n) for n in numbers] != [other.pair(n) for n in numbers]


def test_scans_are_paired_with_other_scans() -> None:
    order = PairOrder(subjects(4), "scans", seed=0)
    pairs = [order.pair(n) for n in range(200)]
    assert all(pair.fixed is not None and pair.fixed != pair.moving for pair in pairs)
    assert len({(pair.moving, pair.fixed) for pair in pairs}) == 12
    assert order.each_once() == order.each_once() and len(order.each_once()) == 4


def test_a_fixed_scan_of_its_own_comes_first() -> None:
    order = PairOrder([Subject(Path("a"), Path("b"), Path("c"), Path("d")), Subject(Path("e"))], "scans", seed=0)
    found = {order.pair(n).moving: order.pair(n) for n in range(4)}
    assert (found[Path("a")].fixed, found[Path("a")].fixed_seg, found[Path("e")].fixed) == (
        Path("b"),
        Path("d"),
        Path("a"),
    )


def test_a_split_is_drawn_by_the_seed(tmp_path: Path) -> None:
    for index in range(10):
        write_scan(tmp_path / f"s{index}.npz", 100)
    data = DataSettings(tmp_path, None, pairing="scans", split=(0.6, 0.2, 0.2))
    cohort, again, other = (read_cohort(data, seed) for seed in (0, 0, 1))
    assert [len(part) for part in (cohort.train, cohort.validation, cohort.test)] == [6, 2, 2]
    assert len({s.moving for s in cohort.subjects}) == 10
    assert cohort == again != other


def test_a_manifest_with_a_header(folder: Path) -> None:
    text = "# our scans\nsplit,moving,fixed,seg\ntrain,s0.npz,s1.npz,s0.npz\n\nvalidation,s2.npz,,\n"
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8-sig")
    assert read_manifest(path) == [
        Subject(folder / "s0.npz", folder / "s1.npz", folder / "s0.npz", None, "train"),
        Subject(folder / "s2.npz", part="validation"),
    ]
    cohort = read_cohort(DataSettings(path, folder / "s1.npz"), 0)
    assert names([s.moving for s in cohort.train]) == ["s0.npz"] and names([s.moving for s in cohort.validation]) == [
        "s2.npz"
    ]


def test_a_plain_list(folder: Path) -> None:
    path = folder.parent / "list.txt"
    path.write_text("scans/s0.npz\nscans/s1.npz , scans/s2.npz\n")
    assert read_manifest(path) == [Subject(folder / "s0.npz"), Subject(folder / "s1.npz", folder / "s2.npz")]


@pytest.mark.parametrize(
    "text, message",
    [
        ("moving,fixd\ns0.npz,s1.npz\n", "did you mean fixed"),
        ("moving,moving\ns0.npz,s1.npz\n", "at most once"),
        ("s0.npz\nnone.npz\nlist.txt\n", "(?s)2 lines.*line 2: none.npz: no such file.*line 3: list.txt: not a scan"),
        ("moving,split\ns0.npz,training\n", "split is 'training'"),
        ("moving\n,\n", "1 more cells than columns"),
        ("moving,fixed\n,s1.npz\n", "no moving scan"),
        ("# nothing\n", "contains no scan"),
    ],
)
def test_manifests_that_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "list.txt").write_text(text)
    with pytest.raises(TrainingError, match=message):
        read_manifest(folder / "list.txt")


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="UTF-8"):
        read_manifest(tmp_path / "list.csv")
