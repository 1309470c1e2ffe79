# SPDX-License-Identifier: Apache-2.0
"""Grids, their frames, and what headers say of them: against FreeSurfer's convention and fslpy."""

from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import ISO, LIA, PAIRS
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid, grid_of_geometry
from vxm_convert.scans.scan_file import ScanFile


def test_frames_of_a_conformed_grid():
    grid = grid_of_geometry((160, 192, 224), (1, 1, 1), LIA, (0, -13, 1))
    assert grid.orientation == "LIA" and grid.affine[:3, 3].tolist() == [80, -125, 97] and not grid.flipped_for_fsl
    assert (grid.to_tkr() @ (80, 96, 112, 1)).tolist() == [0, 0, 0, 1]
    conformed = grid_of_geometry((256, 256, 256), (1, 1, 1), LIA, (0, 0, 0))
    # For c_ras = 0 tkregister's RAS is the scanner's.
    np.testing.assert_allclose(conformed.to_tkr(), conformed.affine)
    assert (ISO.to_fsl() @ (0, 0, 0, 1)).tolist() == [17, 0, 0, 1] and ISO.flipped_for_fsl


def test_fsl_frame_is_that_of_fslpy(tmp_path):
    image = pytest.importorskip("fsl.data.image")
    for grid in itertools.chain(*PAIRS.values()):
        nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), str(tmp_path / "i.nii"))
        np.testing.assert_allclose(
            image.Image(str(tmp_path / "i.nii")).getAffine("voxel", "fsl"), grid.to_fsl(), atol=1e-5
        )


@pytest.mark.parametrize(
    "shape, affine",
    [
        ((2, 2), np.eye(4)),
        ((0, 2, 2), np.eye(4)),
        ((2, 2, 2), np.zeros((4, 4))),
        ((2, 2, 2), np.full((4, 4), np.nan)),
        ((2, 2, 2), np.eye(3)),
        ((2, 2, 2), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_impossible_grids(shape, affine):
    with pytest.raises(VolumeError, match="grid:"):
        Grid(shape, affine)


def test_header_notes(tmp_path):
    def notes(affine, qform=None, codes=(1, 1)):
        image = nib.Nifti1Image(np.zeros((32, 35, 36), np.float32), affine)
        image.header.set_sform(affine, codes[1])
        image.header.set_qform(affine if qform is None else qform, codes[0], strip_shears=True)
        nib.save(image, str(tmp_path / "i.nii"))
        return " ".join(ScanFile(tmp_path / "i.nii").notes)

    plain = np.diag([2.0, 2, 2, 1])
    assert notes(plain) == ""
    moved = plain.copy()
    moved[0, 3] = 7
    assert "disagree by up to 7.0 mm" in notes(plain, moved)
    sheared = plain.copy()
    sheared[0, 1] = 0.5
    assert "sheared" in notes(sheared)
    assert "identity affine" in notes(np.eye(4))
    flat = bytearray((tmp_path / "i.nii").read_bytes())
    flat[312:328] = bytes(16)
    (tmp_path / "flat.nii").write_bytes(bytes(flat))
    with pytest.raises(VolumeError, match="affine"):
        _ = ScanFile(tmp_path / "flat.nii").grid


def test_a_packed_scan_header_needs_no_voxels(tmp_path):
    noise = np.random.RandomState(0).normal(size=(20, 20, 20)).astype(np.float32)
    (tmp_path / "i.nii.gz").write_bytes(
        gzip.compress(nib.Nifti1Image(noise, np.diag([2.0, 2, 2, 1])).to_bytes())[:-500]
    )
    assert ScanFile(tmp_path / "i.nii.gz").grid.spacing_mm == (2, 2, 2)
    (tmp_path / "j.nii.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(VolumeError, match="damaged or truncated"):
        _ = ScanFile(tmp_path / "j.nii.gz").grid
