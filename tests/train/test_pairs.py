# SPDX-License-Identifier: Apache-2.0
"""Which files are trained on, in which order, and what happens to bad ones."""
from __future__ import annotations

import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import List

import nibabel as nib
import numpy as np
import pytest

from train.pairs import PairSource, find_scans
from vxm_convert.errors import TrainingError, VolumeError

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


def names(paths: List[Path]) -> List[str]:
    return [p.name for p in paths]


def test_scans_are_sorted_without_atlas_and_label_maps(folder: Path, tmp_path: Path) -> None:
    shutil.copy(str(tmp_path / "atlas.npz"), str(folder / "a_copy.npz"))
    values = np.full(SHAPE, 7, np.uint8)
    for name, kind in (("s9.nii.gz", nib.Nifti1Image), ("s9_seg.nii.gz", nib.Nifti1Image), ("aseg.mgz", nib.MGHImage)):
        nib.save(kind(values, np.eye(4)), str(folder / name))
    (folder / "notes.txt").write_text("x")
    assert names(find_scans(folder, tmp_path / "atlas.npz")) == ["s0.npz", "s1.npz", "s2.npz", "s9.nii.gz"]


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        find_scans(tmp_path / "none", tmp_path / "atlas.npz")
    with pytest.raises(TrainingError, match="no scan to train on"):
        find_scans(tmp_path, tmp_path / "atlas.npz")


def test_every_scan_once_before_any_again(folder: Path, tmp_path: Path) -> None:
    source = PairSource(find_scans(folder, tmp_path / "atlas.npz"), tmp_path / "atlas.npz", SHAPE, batch=2, seed=5)
    assert source.steps_per_pass == 2
    shown = [p.name for batch in islice(source.batches(), 6) for p in batch.paths]
    assert Counter(shown) == {"s0.npz": 4, "s1.npz": 4, "s2.npz": 4}
    for start in range(0, 12, 3):
        assert len(set(shown[start:start + 3])) == 3


def test_the_seed_decides_the_order(folder: Path, tmp_path: Path) -> None:
    def order(seed: int) -> List[str]:
        source = PairSource(find_scans(folder, tmp_path / "atlas.npz"), tmp_path / "atlas.npz", SHAPE, 1, seed)
        return [b.paths[0].name for b in islice(source.batches(), 12)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_batches_are_normalised(folder: Path, tmp_path: Path) -> None:
    source = PairSource([folder / "s0.npz"], tmp_path / "atlas.npz", SHAPE, batch=2, seed=0)
    batch = next(source.batches())
    assert batch.moving.shape == source.fixed.shape == (2,) + SHAPE + (1,)
    assert batch.moving.dtype == source.fixed.dtype == np.float32
    assert batch.moving.max() == np.float32(100 / 255) and source.fixed.max() == 1.0


def test_every_bad_scan_is_named_before_training(folder: Path, tmp_path: Path) -> None:
    np.savez(str(folder / "bad1.npz"), vol=np.full(SHAPE, np.nan, np.float32))
    np.savez(str(folder / "bad2.npz"), vol=np.zeros((16, 16, 32), np.uint8))
    source = PairSource(find_scans(folder, tmp_path / "atlas.npz"), tmp_path / "atlas.npz", SHAPE, 1, 0)
    with pytest.raises(VolumeError, match="(?s)2 of 5.*bad1.*bad2"):
        source.check_all()
