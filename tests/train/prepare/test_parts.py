# SPDX-License-Identifier: Apache-2.0
"""Parts of the preparation by themselves: the choice of a reference, names, figures, pictures, the order of the
page.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import List

import numpy as np
import pytest

from tests.support.grids import points_of, turn
from tests.support.native import NETWORK, SHAPE, brain, labels, save, write_scan
from train.prepare.alignment import correlation, motion_of
from train.prepare.page import worst_first
from train.prepare.pictures import REFERENCE_COLOUR, SCAN_COLOUR, overlay
from train.prepare.reference import CHOSEN, find_reference
from train.prepare.settings import PrepareSettings, key_of
from train.prepare.subjects import find_sources
from vxm_convert.errors import TrainingError
from vxm_convert.geometry.affines import Affine

SIZES = {"a": 0.85, "b": 0.97, "c": 1.05, "d": 0.8, "e": 1.1}


def settings(folder: Path, **changes) -> PrepareSettings:
    return PrepareSettings(data=folder, out=folder / "out", shape=SHAPE, **changes)


def cohort(folder: Path, labelled: str = "") -> Path:
    for name, size in SIZES.items():
        write_scan(folder, name, None, NETWORK, size=size, with_labels=name in labelled)
    return folder


def chosen(folder: Path, earlier=None, **changes) -> str:
    given = settings(folder, **changes)
    source, why = find_reference(given, find_sources(folder, given.out), earlier)
    assert why == CHOSEN
    return source.name


def test_the_reference_is_the_brain_of_middle_size(tmp_path: Path) -> None:
    assert chosen(cohort(tmp_path)) == "b"


def test_scans_with_labels_come_first(tmp_path: Path) -> None:
    """The medians are those of all scans: of a (12 % off) and c (8 % off) the second is nearer."""
    assert chosen(cohort(tmp_path, labelled="ac")) == "c"


def test_doubtful_scans_are_not_chosen(tmp_path: Path) -> None:
    """The labels of b say that its left is right."""
    cohort(tmp_path)
    mirrored = labels(points_of(NETWORK))
    save(tmp_path / "b_seg.nii.gz", np.where(mirrored == 2, 41, np.where(mirrored == 41, 2, mirrored)), NETWORK)
    assert chosen(tmp_path) == "c"
    (tmp_path / "c.nii.gz").write_bytes(b"")
    assert chosen(tmp_path) in ("a", "e", "d")


def test_the_choice_of_an_earlier_run_stays(tmp_path: Path) -> None:
    cohort(tmp_path)
    assert chosen(tmp_path, earlier="e") == "e" and chosen(tmp_path, earlier="gone") == "b"
    assert chosen(tmp_path, earlier="e", force=True) == "b"


def test_nothing_to_choose_from(tmp_path: Path) -> None:
    save(tmp_path / "nan.nii.gz", np.full(SHAPE, np.nan, np.float32), NETWORK)
    with pytest.raises(TrainingError, match="no scan can be chosen.*\n.*NaN"):
        chosen(tmp_path)


def names_of(folder: Path, files: List[str]) -> List[str]:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    listed = folder / "all.csv"
    listed.write_text("moving\n" + "".join(f'"{name}"\n' for name in files), encoding="utf-8")
    return [source.name for source in find_sources(listed, folder / "out")]


@pytest.mark.parametrize(
    "files, names",
    [
        (["x/mri/norm.mgz", "y/mri/norm.mgz"], ["x", "y"]),
        (["a b,c.nii", "-d.npz"], ["a_b_c", "d"]),
        (["one/s.nii", "two/s.nii", "two/S.nii.gz"], ["s_nii", "s_nii_2", "S_nii_gz"]),
        (["reference.npz", "sub_seg.npz", "aseg.mgz"], ["reference_npz", "sub_seg_scan", "aseg_scan"]),
    ],
)
def test_names_are_unique_and_never_those_of_segmentations(tmp_path: Path, files: List[str], names: List[str]) -> None:
    assert names_of(tmp_path, files) == names


def test_correlation() -> None:
    values = np.random.RandomState(0).rand(3, 500)
    assert correlation(values[0], values[1]) == pytest.approx(np.corrcoef(values[0], values[1])[0, 1])
    assert (
        correlation(values[0], 3 - 2 * values[0]) == pytest.approx(-1) and correlation(values[0], np.ones(500)) is None
    )


def test_motion_is_that_of_the_scan() -> None:
    """A scan that is turned by 20 degrees, 5 % too large and 7 mm off is turned back, made smaller, and moved 7 mm."""
    pull = np.eye(4)
    pull[:3, :3] = 1.05 * turn(0.0, 0.0, np.radians(20))
    middle = NETWORK.affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2.0) + NETWORK.affine[:3, 3]
    pull[:3, 3] = middle - pull[:3, :3] @ middle + (0, 7, 0)
    found = motion_of(Affine(pull), NETWORK)
    assert found["rotation_degrees"] == pytest.approx(20) and found["translation_mm"] == pytest.approx(7)
    assert found["scale_min"] == pytest.approx(found["scale_max"]) == pytest.approx(1 / 1.05)
    assert found["volume_change"] == pytest.approx(1.05**-3)


def colours(png: bytes) -> np.ndarray:
    """(height, width, 3) of an indexed PNG without filters."""
    at, parts = 8, {}
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        parts[kind] = png[at + 8 : at + 8 + size]
        at += 12 + size
    width, height = (int.from_bytes(parts[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:]
    return np.frombuffer(parts[b"PLTE"], np.uint8).reshape(-1, 3)[lines]


def test_agreement_is_grey_and_the_rest_is_coloured() -> None:
    head = brain(points_of(NETWORK))
    alone, same = colours(overlay(np.zeros_like(head), head)), colours(overlay(0.5 * head, head))
    spread = same.astype(int).max(axis=-1) - same.astype(int).min(axis=-1)
    assert spread.max() <= 2 and same.max() > 200, "each image is shown on a scale of its own"
    assert (alone[alone.sum(axis=-1) > 0][:, 2] == 0).all() and tuple(
        alone.reshape(-1, 3).max(axis=0)
    ) == REFERENCE_COLOUR
    scan_alone = colours(overlay(head, np.zeros_like(head)))
    assert tuple(scan_alone.reshape(-1, 3).max(axis=0)) == SCAN_COLOUR
    assert same.shape == (48, 48 + 32 + 32 + 6, 3)


def test_the_worst_come_first() -> None:
    rows = [
        {"name": name, "warnings": warned, "after": {"ncc": ncc}}
        for name, warned, ncc in (
            ("good", [], 0.95),
            ("low", [], 0.5),
            ("warned", ["w"], 0.99),
            ("undefined", ["w"], None),
        )
    ]
    assert [row["name"] for row in worst_first(rows)] == ["undefined", "warned", "low", "good"]


def test_the_key_changes_with_whatever_shapes_the_results(tmp_path: Path) -> None:
    keys = [key_of(settings(tmp_path), tool="simpleitk")] + [
        key_of(settings(tmp_path, **change), tool="simpleitk")
        for change in (
            {"transform": "rigid"},
            {"intensity": "percentile"},
            {"format": "nii.gz"},
            {"array": "vol_data"},
            {"orientation": "LIA"},
        )
    ]
    keys += [
        key_of(settings(tmp_path), tool="freesurfer"),
        key_of(PrepareSettings(tmp_path, tmp_path / "o"), tool="simpleitk"),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(settings(tmp_path, jobs=3, force=True, labels="seed30"), tool="simpleitk") == keys[0]
