# SPDX-License-Identifier: Apache-2.0
"""Warps for Python programs: reading, applying, inverting, converting, saving agree with what the verbs write."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from om_runner.__main__ import main
from tests.support.grids import PAIRS, known_warp, points_of
from vxm_convert import VolumeError, Warp, warps
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.warps import write_warp

FIXED, MOVING = PAIRS["LIA from anisotropic LPS"]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    write_warp(tmp_path / "warp.nii.gz", known_warp(FIXED, MOVING), "itk")
    ras = points_of(MOVING)
    write_nifti(tmp_path / "moving.nii.gz", (100 + 50 * np.sin(ras[..., 0] / 6)).astype(np.uint8), MOVING.affine)
    write_nifti(tmp_path / "seg.nii.gz", (ras[..., 1] > MOVING.centre_ras[1]).astype(np.int16) * 17, MOVING.affine)
    write_nifti(tmp_path / "fixed.nii.gz", np.ones(FIXED.shape, np.float32), FIXED.affine)
    return tmp_path


@pytest.mark.parametrize("image, how", [("moving", "linear"), ("seg", "nearest"), ("seg", "labels")])
def test_apply_is_the_verb(bench: Path, image: str, how: str) -> None:
    words = [
        "apply",
        "--transform",
        "warp.nii.gz",
        "--image",
        f"{image}.nii.gz",
        "--interpolation",
        how,
        "--out",
        "m.nii.gz",
    ]
    assert main([str(bench / w) if w.endswith(".gz") else w for w in words]) == 0
    theirs = nib.load(str(bench / "m.nii.gz"))
    file = bench / f"{image}.nii.gz"
    loaded = nib.load(str(file))
    for given in (file, loaded, (np.asarray(loaded.dataobj), loaded.affine)):
        ours = warps.apply(warps.read(bench / "warp.nii.gz"), given, how)
        assert ours.get_data_dtype() == theirs.get_data_dtype() and np.allclose(ours.affine, theirs.affine)
        assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        assert int(ours.header["qform_code"]) == int(ours.header["sform_code"]) == 1


@pytest.mark.parametrize(
    "form, suffix", [("fsl", ".nii.gz"), ("freesurfer", ".nii"), ("l2r", ".npz"), ("vxm", ".nii.gz")]
)
def test_convert_is_the_verb(bench: Path, form: str, suffix: str) -> None:
    ours, theirs = bench / f"ours{suffix}", bench / f"theirs{suffix}"
    warp = warps.convert(bench / "warp.nii.gz", ours, form, moving=bench / "moving.nii.gz")
    words = [
        "--warp",
        bench / "warp.nii.gz",
        "--moving",
        bench / "moving.nii.gz",
        "--warp-format",
        form,
        "--out",
        theirs,
    ]
    assert main(["convert-warp", *map(str, words)]) == 0
    assert ours.read_bytes() == theirs.read_bytes()
    again = warps.read(ours, moving=bench / "moving.nii.gz", fixed=nib.load(str(bench / "fixed.nii.gz")))
    assert isinstance(again, Warp) and np.abs(again.u - warp.u).max() < 1e-3


def test_invert_is_the_verb(bench: Path) -> None:
    warp = warps.read(bench / "warp.nii.gz", moving=bench / "moving.nii.gz")
    warps.invert(warp).save(bench / "ours.nii.gz")
    words = ["--warp", bench / "warp.nii.gz", "--moving", bench / "moving.nii.gz", "--inverse", bench / "theirs.nii.gz"]
    assert main(["invert", *map(str, words), "--out", str(bench / "figures.txt")]) == 0
    assert (bench / "ours.nii.gz").read_bytes() == (bench / "theirs.nii.gz").read_bytes()
    assert 0 < warp.inverse_report().fixed_mm.p95 < 1
    back = warp.invert().apply(bench / "fixed.nii.gz")
    assert back.shape == MOVING.shape and np.asarray(back.dataobj).max() == 1


def test_refusals(bench: Path) -> None:
    warp = warps.read(bench / "warp.nii.gz")
    away = np.array(MOVING.affine)
    away[:3, 3] += 1000
    with pytest.raises(VolumeError, match="voxels of the fixed grid meet this image"):
        warp.apply((np.ones(MOVING.shape), away))
    with pytest.raises(VolumeError, match="expected one of"):
        warp.apply(bench / "moving.nii.gz", "cubic")
    with pytest.raises(VolumeError, match="ants"):
        warp.save(bench / "x.nii.gz", "ants")
    with pytest.raises(VolumeError, match="moving image"):
        warp.save(bench / "f.nii.gz", "fsl")
        (bench / "f.nii.gz.json").unlink()
        warps.read(bench / "f.nii.gz", "fsl")
    assert not (bench / "x.nii.gz").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("use", ["apply", "apply to labels", "invert", "inverse_report"])
def test_a_warp_that_is_no_number_somewhere(value: float, use: str) -> None:
    """A program makes it from an array; files are checked when they are read."""
    good = known_warp(FIXED, MOVING)
    u = good.u.copy()
    u[1, 2, 3, 0] = value
    warp, image = Warp(u, FIXED, MOVING), (np.ones(MOVING.shape, np.uint8), MOVING.affine)
    uses = {
        "apply": lambda: warp.apply(image),
        "apply to labels": lambda: warps.apply(warp, image, "labels"),
        "invert": lambda: warps.invert(warp),
        "inverse_report": warp.inverse_report,
    }
    with pytest.raises(VolumeError, match=r"warp: 1 values are NaN or infinite, the first at index \(1, 2, 3, 0\)"):
        uses[use]()


@pytest.mark.parametrize("tolerance", [0, -1, float("nan")])
def test_a_tolerance_that_nothing_meets(tolerance: float) -> None:
    warp = Warp.of(known_warp(FIXED, MOVING))
    for use in (warp.invert, warp.inverse_report):
        with pytest.raises(VolumeError, match=f"tolerance_mm: got {tolerance}, expected mm above 0"):
            use(tolerance)
