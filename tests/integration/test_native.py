# SPDX-License-Identifier: Apache-2.0
"""A FreeSurfer subject as it left FreeSurfer, to an atlas as it left FreeSurfer, at full size; and the same brain on
other grids.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates, spline_filter

from tests.support.stages import run_stage
from vxm_convert.geometry.fields import index_block, slabs
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.metrics.labels import label_set
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.warps import read_warp

pytest.importorskip("tensorflow")
itk = pytest.importorskip("SimpleITK")
#: every axis first, middle and last, counted from either end; right- and left-handed ones
ORIENTATIONS = ("LIA", "RAS", "LPS", "PSR", "ASL", "IPR", "SRA", "RIP")
pytestmark = [pytest.mark.tf, pytest.mark.slow, pytest.mark.real_data]


@pytest.fixture(scope="module")
def model(shared_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    done = run_stage(
        folder,
        "export",
        "--checkpoint",
        shared_data / "weights/published_h5/cvpr2018_vm2_cc.h5",
        "--precision",
        "balanced",
        "--out",
        folder / "vxm",
        "--toolchain",
        "sim",
        "--skip-onnx",
    )
    assert done.returncode == 0, done.stderr
    return folder / "vxm" / "vxm.om"


def register(shared_data: Path, model: Path, scans: Path, out: Path, *extra: str) -> None:
    atlas = shared_data / "native" / "fsaverage" / "brain.mgz"
    base = (
        "--input",
        scans,
        "--atlas",
        atlas,
        "--model",
        model,
        "--out",
        out,
        "--compare",
        "none",
        "--profile",
        "none",
    )
    done = run_stage(out.parent, "om_runner", *base, *extra)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def bert(shared_data, model, tmp_path_factory) -> Path:
    """The result folder of bert, registered from its own 256³ space."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "in").mkdir()
    for name in ("norm.mgz", "aseg.mgz"):
        shutil.copyfile(str(shared_data / "native" / "bert" / name), str(folder / "in" / name))
    register(
        shared_data, model, folder / "in", folder / "out", "--affine", "auto", "--outputs", "moved,warp,inverse,seg"
    )
    return folder / "out"


def told(path: Path) -> dict:
    return json.loads(Path(str(path) + ".json").read_text(encoding="utf-8"))


def test_dice_in_the_atlas_space_and_back_in_the_scans_own(bert):
    with open(str(bert / "metrics.tsv"), encoding="utf-8", newline="") as handle:
        row = next(csv.DictReader(handle, delimiter="\t"))
    assert float(row["dice_before"]) == pytest.approx(0.637, abs=0.01) and float(row["dice_after"]) >= 0.69
    assert told(bert / "norm" / "atlas_seg_in_scan.nii.gz")["dice_mean"] >= 0.66


def test_simpleitk_gives_our_moved_scan(bert, shared_data, tmp_path):
    scan = nib.load(str(shared_data / "native" / "bert" / "norm.mgz"))
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj).astype(np.float32), scan.affine), str(tmp_path / "scan.nii"))
    ours = itk.ReadImage(str(bert / "norm" / "moved.nii.gz"), itk.sitkFloat32)
    warp = itk.DisplacementFieldTransform(itk.ReadImage(str(bert / "norm" / "flow.nii.gz"), itk.sitkVectorFloat64))
    theirs = itk.Resample(itk.ReadImage(str(tmp_path / "scan.nii")), ours, warp, itk.sitkLinear, 0.0)
    difference = np.abs(itk.GetArrayFromImage(theirs) - itk.GetArrayFromImage(ours))[2:-2, 2:-2, 2:-2]
    assert difference.max() <= 0.5 + 1e-3 * 161, "the scan and so our result is uint8"


def regridded(scan: nib.Nifti1Image, grid: Grid) -> np.ndarray:
    """The scan by cubic interpolation, as a scanner with other voxels might have given it."""
    source, out = (
        spline_filter(np.asarray(scan.dataobj, dtype=np.float32), order=3),
        np.empty(grid.shape, dtype=np.float32),
    )
    for part in slabs(grid.shape[0]):
        at = apply_affine(np.linalg.inv(scan.affine) @ grid.affine, index_block(grid.shape, part))
        out[part] = map_coordinates(source, np.moveaxis(at, -1, 0), order=3, mode="constant", prefilter=False)
    return np.clip(out, 0, 255)


def test_other_axes_and_voxel_sizes_give_the_same_result_in_space(bert, shared_data, model, tmp_path):
    scan = nib.load(str(shared_data / "native" / "bert" / "norm.mgz"))
    affine = told(bert / "norm" / "moved.nii.gz")["placement"]["affine_fixed_ras_to_moving_ras"]
    np.savetxt(str(tmp_path / "pre.txt"), affine, fmt="%.17g")
    (tmp_path / "in").mkdir()
    for axes in ORIENTATIONS:
        change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(axes))
        turned = nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine).as_reoriented(change)
        nib.save(turned, str(tmp_path / "in" / f"{axes.lower()}.nii.gz"))
    centre = Grid(scan.shape, scan.affine).centre_ras
    for name, side, spacing, axes in (("fine", 272, 0.8, "RAS"), ("coarse", 168, 1.3, "LPS")):
        grid = oriented((side,) * 3, axes, (spacing,) * 3, centre)
        nib.save(nib.Nifti1Image(regridded(scan, grid), grid.affine), str(tmp_path / "in" / f"{name}.nii.gz"))
    options = ("--affine", str(tmp_path / "pre.txt"), "--outputs", "warp", "--space", "network")
    register(shared_data, model, tmp_path / "in", tmp_path / "out", *options)
    labels = ScanFile(shared_data / "native" / "fsaverage" / "aseg.mgz").labels()
    points = np.array(
        [apply_affine(labels.affine, np.argwhere(labels.data == label).mean(axis=0)) for label in label_set("paper30")]
    )
    expected = SpaceMap([read_warp(bert / "norm" / "flow.nii.gz")])(points)
    for name, limit in [(axes.lower(), 1e-3) for axes in ORIENTATIONS] + [("fine", 0.1), ("coarse", 0.1)]:
        found = SpaceMap([read_warp(tmp_path / "out" / name / "flow.nii.gz")])(points)
        distance = np.linalg.norm(found - expected, axis=1)
        assert distance.mean() <= limit, (name, distance.mean(), distance.max())
