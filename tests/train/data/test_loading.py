# SPDX-License-Identifier: Apache-2.0
"""Samples: intensities, labels, augmentation, noise; and the check of every file before the first step."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.training import SHAPE
from train.data.checks import check_cohort, field_of_view_overlap
from train.data.cohort import Cohort
from train.data.loading import Loader
from train.data.pairs import Pair
from train.data.scan_list import Subject
from vxm_convert.errors import VolumeError
from vxm_convert.model.spec import ModelSpec
from vxm_convert.scans.network_grid import network_affine

SPEC = ModelSpec("vm1", SHAPE)


@pytest.fixture
def pair(cohort: Path) -> Pair:
    scan = cohort / "scans" / "sub-01.npz"
    return Pair(scan, None, scan)


def loader(cohort: Path, **changes: object) -> Loader:
    return Loader(changes.pop("spec", SPEC), cohort / "atlas.npz", cohort / "atlas.npz", **changes)


def stored(path: Path, name: str = "vol") -> np.ndarray:
    return np.load(str(path))[name]


def test_images_are_normalised(cohort: Path, pair: Pair) -> None:
    sample = loader(cohort).arrays(pair, 0)
    assert set(sample) == {"moving", "fixed"}
    for name, path in (("moving", pair.moving), ("fixed", cohort / "atlas.npz")):
        np.testing.assert_array_equal(sample[name][..., 0], stored(path).astype(np.float32) / np.float32(255))
        assert sample[name].dtype == np.float32


def test_labels_are_those_of_every_second_voxel(cohort: Path, pair: Pair) -> None:
    sample = loader(cohort, with_labels=True).arrays(pair, 0)
    np.testing.assert_array_equal(sample["moving_seg"], stored(pair.moving, "seg")[::2, ::2, ::2])
    np.testing.assert_array_equal(sample["fixed_seg"], stored(cohort / "atlas.npz", "seg")[::2, ::2, ::2])
    assert sample["moving_seg"].dtype == np.int32 and sample["moving_seg"].any()


def test_a_flip_mirrors_everything_and_is_drawn_by_number(cohort: Path, pair: Pair) -> None:
    plain, flipping = loader(cohort, with_labels=True), loader(cohort, with_labels=True, augment=("flip",))
    before, flipped = plain.arrays(pair, 0), []
    for number in range(20):
        sample = flipping.arrays(pair, number)
        states = {name: np.array_equal(sample[name], value[::-1]) for name, value in before.items()}
        assert len(set(states.values())) == 1
        flipped.append(states["moving"])
        np.testing.assert_array_equal(sample["moving"], before["moving"][::-1] if flipped[-1] else before["moving"])
        np.testing.assert_array_equal(sample["moving"], flipping.arrays(pair, number)["moving"])
    assert 3 < sum(flipped) < 17


def test_intensity_changes_the_moving_image_alone(cohort: Path, pair: Pair) -> None:
    before = loader(cohort).arrays(pair, 0)
    sample = loader(cohort, augment=("intensity",)).arrays(pair, 3)
    np.testing.assert_array_equal(sample["fixed"], before["fixed"])
    change = np.abs(sample["moving"] - before["moving"]).max()
    assert (
        1e-3 < change < 0.3
        and sample["moving"].min() >= 0
        and sample["moving"].max() <= 1
        and sample["moving"].dtype == np.float32
    )


def test_noise_is_for_diffeomorphic_variants_and_drawn_by_number(cohort: Path, pair: Pair) -> None:
    source = loader(cohort, spec=ModelSpec("miccai2018", SHAPE))
    first, again, other = (source.arrays(pair, n)["noise"] for n in (4, 4, 5))
    assert first.shape == (8, 8, 16, 3) and abs(first.std() - 1) < 0.05
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1


def test_the_cache_serves_what_was_read(cohort: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.npz"
    scan.write_bytes((cohort / "scans" / "sub-01.npz").read_bytes())
    kept, fresh = loader(cohort, cache=True), loader(cohort)
    values = kept.arrays(Pair(scan), 0)["moving"]
    fresh.arrays(Pair(scan), 0)
    scan.unlink()
    np.testing.assert_array_equal(kept.arrays(Pair(scan), 1)["moving"], values)
    with pytest.raises(VolumeError, match="no such file"):
        fresh.arrays(Pair(scan), 1)
    assert isinstance(fresh.error, VolumeError)


def nifti(path: Path, affine: np.ndarray, cohort: Path) -> Path:
    nib.save(nib.Nifti1Image(stored(cohort / "atlas.npz"), affine), str(path))
    return path


def test_one_table_names_every_bad_file(cohort: Path, tmp_path: Path) -> None:
    affine = network_affine(SHAPE)
    atlas = nifti(tmp_path / "atlas.nii.gz", affine, cohort)
    away, turned = affine.copy(), affine @ np.diag([-1.0, 1, 1, 1])
    away[:3, 3] += 12.0
    good = nifti(tmp_path / "good.nii.gz", affine, cohort)
    paths = [good, nifti(tmp_path / "away.nii.gz", away, cohort), nifti(tmp_path / "turned.nii.gz", turned, cohort)]
    for name, vol in (
        ("nan", np.full(SHAPE, np.nan, np.float32)),
        ("odd", np.zeros((16, 16, 16), np.uint8)),
        ("wide", np.linspace(-5000, 5000, 16 * 16 * 32).reshape(SHAPE)),
    ):
        np.savez(str(tmp_path / (name + ".npz")), vol=vol)
        paths.append(tmp_path / (name + ".npz"))
    seg = np.zeros(SHAPE)
    seg[3] = 0.5
    np.savez(str(tmp_path / "halves.npz"), vol=stored(cohort / "atlas.npz"), seg=seg)
    subjects = tuple(Subject(p) for p in paths) + (Subject(tmp_path / "halves.npz", seg=tmp_path / "halves.npz"),)
    with pytest.raises(VolumeError) as caught:
        check_cohort(Cohort(subjects), atlas, None, SHAPE, need_labels=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 of 7 training scans cannot be used:" and len(lines) == 7
    rows = {Path(line.split()[0]).name: line for line in lines[1:]}
    for name, words in (
        ("away.nii.gz", "% of the atlas's field of view"),
        ("turned.nii.gz", "axes run RIA, the atlas's LIA"),
        ("nan.npz", "NaN"),
        ("odd.npz", "shape 16x16x16"),
        ("wide.npz", "intensities -5000..5000"),
        ("halves.npz", "not whole numbers"),
    ):
        assert words in rows[name], name
    assert "good.nii.gz" not in rows


def test_a_bad_segmentation_beside_a_scan_counts_apart(cohort: Path, tmp_path: Path) -> None:
    np.savez(str(tmp_path / "labels.npz"), seg=np.zeros((16, 16, 16), np.uint8))
    subject = Subject(cohort / "scans" / "sub-01.npz", seg=tmp_path / "labels.npz")
    with pytest.raises(
        VolumeError, match="(?s)0 of 1 training scans and 1 other files cannot be used:.*labels.npz *shape 16x16x16"
    ):
        check_cohort(Cohort((subject,)), cohort / "atlas.npz", None, SHAPE, need_labels=False)


def test_labels_are_asked_for_only_where_they_are_needed(cohort: Path, tmp_path: Path) -> None:
    np.savez(str(tmp_path / "bare.npz"), vol=stored(cohort / "atlas.npz"))
    bare = Cohort((Subject(tmp_path / "bare.npz", seg=tmp_path / "bare.npz"),))
    check_cohort(bare, cohort / "atlas.npz", cohort / "atlas.npz", SHAPE, need_labels=False)
    with pytest.raises(VolumeError, match="bare.npz *has no array 'seg'"):
        check_cohort(bare, cohort / "atlas.npz", cohort / "atlas.npz", SHAPE, need_labels=True)
    with pytest.raises(VolumeError, match="atlas.npz *no segmentation"):
        check_cohort(
            Cohort((Subject(cohort / "atlas.npz", seg=cohort / "atlas.npz"),)), cohort / "atlas.npz", None, SHAPE, True
        )


@pytest.mark.parametrize("shift, expected", [(0.0, 1.0), (8.0, 0.5), (100.0, 0.0)])
def test_overlap_of_shifted_grids(shift: float, expected: float) -> None:
    atlas = network_affine(SHAPE)
    scan = atlas.copy()
    scan[0, 3] += shift
    assert field_of_view_overlap(scan, atlas, SHAPE) == pytest.approx(expected, abs=0.07)


@pytest.mark.parametrize("atlas_has_header", [False, True])
def test_a_scan_on_other_axes_than_the_atlas_is_refused(cohort: Path, tmp_path: Path, atlas_has_header: bool) -> None:
    """An .npz has no header and counts as the network grid, whichever of the two it is."""
    ras = np.diag([1.0, 1, 1, 1])
    ras[:3, 3] = (-8, -20, -15)
    scan, atlas = nifti(tmp_path / "scan.nii.gz", ras, cohort), cohort / "atlas.npz"
    axes = "RAS, the atlas's LIA"
    if atlas_has_header:
        scan, atlas, axes = atlas, scan, "LIA, the atlas's RAS"
    with pytest.raises(VolumeError, match=f"axes run {axes}; reorient the scan"):
        check_cohort(Cohort((Subject(scan),)), atlas, None, SHAPE, need_labels=False)


def test_voxels_of_another_size_are_refused(cohort: Path, tmp_path: Path) -> None:
    scan = nifti(tmp_path / "scan.nii.gz", network_affine(SHAPE) @ np.diag([1.1, 1, 1, 1]), cohort)
    with pytest.raises(VolumeError, match="voxels of 1.1 x 1 x 1 mm, the atlas's 1 x 1 x 1"):
        check_cohort(Cohort((Subject(scan),)), cohort / "atlas.npz", None, SHAPE, need_labels=False)


def test_a_header_that_says_nothing_is_taken_for_the_network_grid_and_said(
    cohort: Path, tmp_path: Path, caplog
) -> None:
    scan = nifti(tmp_path / "scan.nii.gz", np.eye(4), cohort)
    check_cohort(Cohort((Subject(scan),)), cohort / "atlas.npz", None, SHAPE, need_labels=False)
    assert "scan.nii.gz: its header does not give the array's orientation (it has an identity affine)" in caplog.text
    assert "assumed to be on the network grid (LIA)" in caplog.text


def test_labels_stored_along_other_axes_are_learned_where_they_belong(cohort: Path, tmp_path: Path) -> None:
    """The file of the labels is flipped and its header says so."""
    source = cohort / "scans" / "sub-01.npz"
    image, seg, affine = stored(source), stored(source, "seg"), network_affine(SHAPE)
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += affine[:3, 0] * (SHAPE[0] - 1)
    nib.save(nib.Nifti1Image(image, affine), str(tmp_path / "s.nii.gz"))
    nib.save(nib.Nifti1Image(seg[::-1], flipped), str(tmp_path / "s_seg.nii.gz"))
    pair = Pair(tmp_path / "s.nii.gz", None, tmp_path / "s_seg.nii.gz")
    made = loader(cohort, with_labels=True).plain(pair)
    np.testing.assert_array_equal(made["moving_seg"], seg[::2, ::2, ::2])
    nib.save(nib.Nifti1Image(seg[::-1], np.eye(4)), str(tmp_path / "s_seg.nii.gz"))
    with pytest.raises(VolumeError, match="because its header has an identity affine"):
        loader(cohort, with_labels=True).plain(pair)
