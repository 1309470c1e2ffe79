# SPDX-License-Identifier: Apache-2.0
"""A real brain from FreeSurfer's own space, and the same brain turned by a known transform; at full size, with
SimpleITK.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from tests.support.grids import turn
from tests.support.native import turn_degrees
from train.__main__ import main
from vxm_convert.geometry.fields import index_block, slabs
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.metrics.labels import label_set
from vxm_convert.metrics.overlap import dice
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.affines import read_affine

pytest.importorskip("SimpleITK")
pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def prepare(*words: object) -> int:
    return main(["prepare", "--tool", "simpleitk", *map(str, words)])


def record(out: Path, name: str) -> dict:
    return json.loads((out / "scans" / f"{name}.npz.json").read_text(encoding="utf-8"))


def test_dice_is_that_of_the_runners_affine(shared_data: Path, tmp_path: Path) -> None:
    """0.637: what ``om_runner --affine auto`` reports for the same pair before the network deforms anything."""
    native = shared_data / "native"
    mri = tmp_path / "subjects" / "bert" / "mri"
    mri.mkdir(parents=True)
    for name in ("norm.mgz", "aseg.mgz"):
        shutil.copyfile(str(native / "bert" / name), str(mri / name))
    assert (
        prepare(
            "--data",
            tmp_path / "subjects",
            "--reference",
            native / "fsaverage" / "brain.mgz",
            "--out",
            tmp_path / "out",
        )
        == 0
    )
    moved, fixed = (ScanFile(tmp_path / "out" / name).labels().data for name in ("scans/bert.npz", "reference.npz"))
    score = dice(moved, fixed, label_set("paper30"))
    assert score.mean == pytest.approx(0.637, abs=0.01) and score.n_labels == 30
    found = record(tmp_path / "out", "bert")
    assert (
        found["after"]["dice"] == pytest.approx(score.mean) and found["before"]["dice"] < 0.2 and not found["warnings"]
    )
    with np.load(str(tmp_path / "out" / "scans" / "bert.npz")) as scan:
        assert scan["vol"].shape == (160, 192, 224) and 0.4 < np.percentile(scan["vol"][scan["vol"] > 0], 99.9) < 0.6


@pytest.mark.parametrize("angles, shift", [((0.3, -0.2, 0.35), (22, -15, 18)), ((-0.25, 0.3, -0.1), (-10, 25, -20))])
def test_a_known_turn_and_shift_of_a_real_brain(shared_data: Path, tmp_path: Path, angles, shift) -> None:
    """Within a millimetre everywhere in the brain, and a degree."""
    scan = nib.load(str(shared_data / "native" / "bert" / "norm.mgz"))
    values, grid = np.asarray(scan.dataobj, dtype=np.float32), Grid(scan.shape, scan.affine)
    brain = apply_affine(grid.affine, np.argwhere(values > 0)[::97])
    pull = np.eye(4)
    pull[:3, :3] = turn(*angles)
    pull[:3, 3] = brain.mean(axis=0) + shift - pull[:3, :3] @ brain.mean(axis=0)
    out = np.empty(grid.shape, np.float32)
    for part in slabs(grid.shape[0]):
        at = apply_affine(grid.inverse @ np.linalg.inv(pull) @ grid.affine, index_block(grid.shape, part))
        out[part] = map_coordinates(values, np.moveaxis(at, -1, 0), order=1, prefilter=False)
    (tmp_path / "in").mkdir()
    nib.save(nib.MGHImage(np.clip(out, 0, 255), scan.affine), str(tmp_path / "in" / "turned.mgz"))
    words = (
        "--data",
        tmp_path / "in",
        "--reference",
        shared_data / "native" / "bert" / "norm.mgz",
        "--out",
        tmp_path / "out",
    )
    assert prepare(*words, "--transform", "rigid") == 0
    found = read_affine(tmp_path / "out" / "transforms" / "turned.lta").pull
    error = np.linalg.norm(apply_affine(found, brain) - apply_affine(pull, brain), axis=1)
    assert error.max() < 1.0 and turn_degrees(found, pull) < 1.0, (error.mean(), error.max(), turn_degrees(found, pull))
    assert record(tmp_path / "out", "turned")["motion"]["rotation_degrees"] == pytest.approx(
        turn_degrees(pull, np.eye(4)), abs=0.5
    )
