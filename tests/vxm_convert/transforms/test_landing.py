# SPDX-License-Identifier: Apache-2.0
"""Fields of other tools: what their headers and their points say, read rightly or refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import LIA, PAIRS, displacement, points_of
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import warp_from_frame
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry
from vxm_convert.transforms.affines import read_affine
from vxm_convert.transforms.landing import share_inside
from vxm_convert.transforms.warps import read_warp

FIXED, MOVING = PAIRS["LIA from anisotropic LPS"]
THERE = points_of(FIXED) + displacement(points_of(FIXED))


def save(path, field, intent=1007, name="", p1=0.0, ndim=5, description="", extension=None, grid=FIXED):
    data = np.ascontiguousarray(field, np.float32)
    image = nib.Nifti1Image(data[:, :, :, np.newaxis] if ndim == 5 else data, grid.affine)
    image.header.set_intent(intent, name=name, allow_unknown=True)
    image.header["intent_p1"], image.header["descrip"] = p1, description.encode()
    if extension is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(extension, b"<AFNI_attributes/>"))
    nib.save(image, str(path))
    return path


def landed(warp):
    index = np.stack(np.meshgrid(*map(np.arange, warp.fixed.shape), indexing="ij"), axis=-1)
    return apply_affine(warp.moving.affine, index + warp.u)


@pytest.mark.parametrize(
    "p1, words", [(2, "control points"), (3, "velocity field"), (5, "velocity control"), (9, "unknown kind")]
)
def test_niftyreg_grids_are_named(tmp_path, p1, words):
    with pytest.raises(VolumeError, match=f"{words}.*reg_transform"):
        read_warp(save(tmp_path / "w.nii", THERE, name="NREG_TRANS", p1=p1))


@pytest.mark.parametrize(
    "how, words",
    [
        ({"description": "Flow Field"}, "velocity field.*Deformations utility"),
        ({"name": "Velocity"}, "velocity field"),
        ({"intent": 2016, "ndim": 4}, "topup"),
        ({"intent": 2008, "ndim": 4}, "fnirtfileutils"),
        ({"intent": 0, "extension": 4}, "AFNI wrote it"),
    ],
)
def test_what_moves_nothing_is_named(tmp_path, how, words):
    for form in (None, "itk"):
        with pytest.raises(VolumeError, match=words if form is None or "extension" not in how else "expected 5-D"):
            read_warp(save(tmp_path / "w.nii", 0.1 * displacement(points_of(FIXED)), **how), form, moving=MOVING)


def test_a_velocity_over_time_is_named(tmp_path):
    image = nib.Nifti1Image(np.zeros((6, 7, 8, 4, 3), np.float32), np.diag([3.0, 3, 3, 1]))
    image.header.set_intent(1007)
    nib.save(image, str(tmp_path / "v.nii.gz"))
    with pytest.raises(VolumeError, match="4 fields over time"):
        read_warp(tmp_path / "v.nii.gz")


def test_positions_with_zeros_outside_a_mask(tmp_path):
    field = THERE.copy()
    field[:, : FIXED.shape[1] * 2 // 3] = 0
    with pytest.raises(VolumeError, match="looks like positions.*--from spm"):
        read_warp(save(tmp_path / "w.nii", field), moving=MOVING)


def test_nan_of_mrtrix(tmp_path):
    field = THERE.copy()
    field[0] = np.nan
    with pytest.raises(VolumeError, match="MRtrix and SPM mark"):
        read_warp(save(tmp_path / "w.nii", field, intent=0, ndim=4), "spm", moving=MOVING)


def test_absolute_fsl_coordinates_between_other_axes(tmp_path):
    """The network's proportions from a RAS scan: the spread of the numbers does not tell, where they land does."""
    fixed = grid_of_geometry((20, 24, 28), (2, 2, 2), LIA, (0, 0, 0))
    moving = grid_of_geometry((24, 30, 26), (1.8, 2, 2), np.eye(3), (0, 0, 0))
    absolute = apply_affine(moving.to_fsl() @ moving.inverse, points_of(fixed))
    path = save(tmp_path / "a.nii.gz", absolute, 2006, ndim=4, grid=fixed)
    with pytest.raises(VolumeError, match="looks like positions.*convertwarp --relout"):
        read_warp(path, moving=moving)
    relative = absolute - apply_affine(
        fixed.to_fsl(), np.stack(np.meshgrid(*map(np.arange, fixed.shape), indexing="ij"), -1)
    )
    warp = read_warp(save(tmp_path / "r.nii.gz", relative, 2006, ndim=4, grid=fixed), moving=moving)
    assert np.abs(landed(warp) - points_of(fixed)).max() < 1e-4


def test_a_field_that_folds_everywhere(tmp_path):
    """A saw stretches nothing on the whole, and folds two voxels of three."""
    field = np.zeros(FIXED.shape + (3,))
    field[..., 0] = -2.0 * (np.arange(FIXED.shape[0]) % 6)[:, np.newaxis, np.newaxis]
    with pytest.raises(VolumeError, match="% of its voxels are folded"):
        read_warp(save(tmp_path / "w.nii", field))


def test_a_mirror_is_no_registration(tmp_path):
    ras = points_of(FIXED)
    with pytest.raises(VolumeError, match="100 % of its voxels are folded"):
        read_warp(save(tmp_path / "w.nii", (ras * (-1, 1, 1) - ras), 1006), moving=MOVING)


def test_metres_for_millimetres(tmp_path):
    with pytest.raises(VolumeError, match="another unit or frame"):
        read_warp(save(tmp_path / "w.nii", 9 * (points_of(FIXED) - FIXED.centre_ras), 1006), moving=MOVING)


def test_signs_tell_where_images_lie_apart():
    """Images 120 mm apart: displacements in the wrong frame miss the image, negated they hit it."""
    far = Grid(FIXED.shape, FIXED.affine + np.array([[0, 0, 0, 60.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    wrong = warp_from_frame(np.broadcast_to((-60.0, 0, 0), FIXED.shape + (3,)), "ras", FIXED, far)
    assert share_inside(wrong) == 0 and share_inside(wrong, mirrored=True) == 1


@pytest.mark.parametrize(
    "shape, words",
    [
        ((3, 9, 11, 10), "components come first.*half resolution.*zoom"),
        ((9, 11, 10, 3), "half resolution.*zoom"),
        ((3,) + FIXED.shape, "moveaxis"),
    ],
)
def test_learn2reg_arrays_of_other_layouts(tmp_path, shape, words):
    np.savez(str(tmp_path / "d.npz"), np.zeros(shape, np.float16))
    with pytest.raises(VolumeError, match=words):
        read_warp(tmp_path / "d.npz", fixed=FIXED)


def test_a_half_resolution_header_that_forgot_its_voxel_size(tmp_path):
    path = save(tmp_path / "w.nii", np.zeros((9, 11, 10, 3)))
    with pytest.raises(VolumeError, match="half resolution with the voxel size of full"):
        read_warp(path, fixed=FIXED)


SERIES = "#Insight Transform File V1.0\n" + "".join(
    f"#Transform {n}\nTransform: MatrixOffsetTransformBase_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 {n} 0 0\n"
    "FixedParameters: 0 0 0\n"
    for n in (2, 3)
)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("hmc.txt", SERIES, "2 transforms and no CompositeTransform: a series over time"),
        ("mcf.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n" * 3, "3 matrices, a series over time"),
        ("a.txt", "1 0 0 2 0 1 0 3 0 0 1 4\n" * 2, "AFNI matrices"),
        ("rp.txt", "0 0 0 .1 .2 .3\n" * 5, "motion parameters"),
        ("TransformParameters.0.txt", '(Transform "BSplineTransform")\n', "transformix -def all"),
    ],
)
def test_series_and_parameters_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(VolumeError, match=words):
        read_affine(tmp_path / name, FIXED, MOVING)


def test_a_composite_of_several_is_one(tmp_path):
    head, rest = SERIES.split("\n", 1)
    text = head + "\n#Transform 0\nTransform: CompositeTransform_double_3_3\n" + rest
    (tmp_path / "c.txt").write_text(text, encoding="utf-8")
    assert read_affine(tmp_path / "c.txt").pull[0, 3] == pytest.approx(-5)


def test_a_matrix_under_the_name_of_another_frame(tmp_path):
    """Grids apart: only one meaning of a bare matrix brings them together."""
    moving = grid_of_geometry((20, 20, 20), (2, 2, 2), np.eye(3), (150, 90, -60))
    pull = np.eye(4)
    pull[:3, 3] = moving.centre_ras - FIXED.centre_ras
    np.savetxt(str(tmp_path / "a.txt"), pull)
    assert np.allclose(read_affine(tmp_path / "a.txt", FIXED, moving).pull, pull)
    np.savetxt(str(tmp_path / "a.mat"), pull)
    with pytest.raises(VolumeError, match="in RAS mm .*rename it"):
        read_affine(tmp_path / "a.mat", FIXED, moving)
