# SPDX-License-Identifier: Apache-2.0
"""Every warp format on random grids, against the libraries that define them: each point of the field lands within 0.1 mm of
where the foreign library puts it, or the file is refused. None is silently wrong.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import displacement, known_warp, points_of
from tests.support.random_grids import image_on, random_grid
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import LPS, apply_affine
from vxm_convert.transforms.warps import read_warp, write_warp

LIMIT_MM = 0.1
DRAWS = [pytest.param(15, id="15 draws"), pytest.param(500, id="500 draws", marks=pytest.mark.slow)]


def landed(warp):
    """RAS mm where the fixed voxels of a warp are sent."""
    index = np.stack(np.meshgrid(*map(np.arange, warp.fixed.shape), indexing="ij"), axis=-1)
    return apply_affine(warp.moving.affine, index + warp.u)


def truth(fixed):
    ras = points_of(fixed)
    return ras + displacement(ras)


def check(path, expected, moving, form=None, fixed=None):
    """True where the reader agrees, False where it refuses; fails where it is silently wrong."""
    try:
        warp = read_warp(path, form, moving=moving, fixed=fixed)
    except VolumeError:
        return False
    worst = np.linalg.norm(landed(warp) - expected, axis=-1).max()
    assert worst <= LIMIT_MM, (path.name, form, worst, moving.describe())
    return True


def save_field(path, fixed, field, rng, intent, name="", p1=0.0, ndim=5, codes=""):
    data = np.ascontiguousarray(field, dtype=np.float32)
    image = image_on(fixed, data[:, :, :, np.newaxis] if ndim == 5 else data, rng, codes)
    image.header.set_intent(intent, name=name, allow_unknown=True)
    image.header["intent_p1"] = p1
    nib.save(image, str(path))
    return path


@pytest.mark.parametrize("draws", DRAWS)
def test_fields_that_simpleitk_writes(tmp_path, draws):
    itk = pytest.importorskip("SimpleITK")
    rng, agreed = np.random.RandomState(1), 0
    for _ in range(draws):
        fixed, moving = random_grid(rng), random_grid(rng)
        field = displacement(points_of(fixed)) * (-1, -1, 1)
        image = itk.GetImageFromArray(np.ascontiguousarray(field.transpose(2, 1, 0, 3)), isVector=True)
        lps = LPS @ fixed.affine
        image.SetSpacing(fixed.spacing_mm)
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / np.asarray(fixed.spacing_mm)).ravel().tolist())
        itk.WriteImage(itk.Cast(image, itk.sitkVectorFloat32), str(tmp_path / "w.nii.gz"))
        transform = itk.DisplacementFieldTransform(itk.Cast(image, itk.sitkVectorFloat64))
        corner = tuple(n - 1 for n in fixed.shape)
        for index in ((0, 0, 0), corner, (2, 3, 1)):
            there = np.array(transform.TransformPoint(apply_affine(lps, index).tolist())) * (-1, -1, 1)
            assert np.linalg.norm(there - truth(fixed)[index]) < 1e-4
        agreed += check(tmp_path / "w.nii.gz", truth(fixed), moving)
    assert agreed == draws


@pytest.mark.parametrize("draws", DRAWS)
def test_fields_that_fslpy_writes(tmp_path, draws):
    """Relative ones are read; absolute ones are refused, whatever the axes of the two images."""
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    fnirt, image = pytest.importorskip("fsl.transform.fnirt"), pytest.importorskip("fsl.data.image")
    rng, met, agreed = np.random.RandomState(2), 0, 0
    for _ in range(draws):
        fixed, moving = random_grid(rng, 4), random_grid(rng, 4)
        source, reference = (
            image.Image(np.zeros(grid.shape, np.float32), xform=grid.affine) for grid in (moving, fixed)
        )
        world = nonlinear.DeformationField(
            truth(fixed),
            source,
            reference,
            header=reference.header,
            srcSpace="world",
            refSpace="world",
            defType="absolute",
        )
        absolute = fnirt.toFnirt(world)
        relative = nonlinear.convertDeformationType(absolute, "relative")
        save_field(tmp_path / "r.nii.gz", fixed, relative, rng, 2006, ndim=4)
        met += bool(moving.contains(apply_affine(moving.inverse, truth(fixed))).mean() > 0.2)
        agreed += check(tmp_path / "r.nii.gz", truth(fixed), moving)
        save_field(tmp_path / "a.nii.gz", fixed, absolute.data, rng, 2006, ndim=4)
        assert not check(tmp_path / "a.nii.gz", truth(fixed), moving), (fixed.describe(), moving.describe())
    assert agreed >= met > draws / 3


@pytest.mark.parametrize("draws", DRAWS)
def test_fields_in_nibabels_space(tmp_path, draws):
    """FreeSurfer's displacements, SPM's and NiftyReg's positions, in nibabel's RAS; the same without a name refused."""
    rng = np.random.RandomState(3)
    for _ in range(draws):
        fixed, moving = random_grid(rng), random_grid(rng)
        there, path = truth(fixed), tmp_path / "w.nii"
        moved = there - points_of(fixed)
        read = [
            check(save_field(path, fixed, moved, rng, 1006), there, moving),
            check(save_field(path, fixed, there, rng, 1007, "Mapping"), there, moving),
            check(save_field(path, fixed, there, rng, 1006, "Mapping"), there, moving),
            check(save_field(path, fixed, there, rng, 1007, "NREG_TRANS", 0), there, moving),
            check(save_field(path, fixed, moved, rng, 1007, "NREG_TRANS", 1), there, moving),
            check(save_field(path, fixed, there, rng, 1007), there, moving, "spm"),
            check(save_field(path, fixed, there, rng, 0, ndim=4), there, moving, "spm"),
        ]
        refused = [
            check(save_field(path, fixed, there, rng, 1007), there, moving),
            check(save_field(path, fixed, there * (-1, -1, 1), rng, 1007), there, moving),
            check(save_field(path, fixed, there, rng, 1006), there, moving),
            check(save_field(path, fixed, moved, rng, 1007, "Mapping"), there, moving),
            check(save_field(path, fixed, moved, rng, 1007, "NREG_TRANS", 0), there, moving),
            check(save_field(path, fixed, moved, rng, 1007, codes="-"), there, moving),
        ]
        assert all(read) and not any(refused), (read, refused, fixed.describe(), moving.describe())
        assert check(save_field(path, fixed, moved * (-1, -1, 1), rng, 1007, codes="-"), there, moving, fixed=fixed)


@pytest.mark.parametrize("draws", DRAWS)
def test_fields_in_voxels(tmp_path, draws):
    """Between images that overlap; where hardly a voxel of one meets the other, a refusal is right as well."""
    rng, met, agreed = np.random.RandomState(4), 0, 0
    for _ in range(draws):
        fixed, moving = random_grid(rng, 4), random_grid(rng, 4)
        there = truth(fixed)
        index = np.stack(np.meshgrid(*map(np.arange, fixed.shape), indexing="ij"), axis=-1)
        position = apply_affine(moving.inverse, there)
        np.savez(str(tmp_path / "w.npz"), (position - index).astype(np.float32))
        met += bool(moving.contains(position).mean() > 0.2)
        agreed += check(tmp_path / "w.npz", there, moving, fixed=fixed)
        np.savez(str(tmp_path / "p.npz"), position.astype(np.float32))
        assert not check(tmp_path / "p.npz", there, moving, fixed=fixed), (fixed.describe(), moving.describe())
        save_field(tmp_path / "w.nii", fixed, position - index, rng, 0, ndim=4)
        for form in ("l2r", "vxm"):
            check(tmp_path / "w.nii", there, moving, form)
        assert not check(tmp_path / "w.nii", there, moving)
    assert agreed >= met > draws / 3


@pytest.mark.parametrize("draws", DRAWS)
def test_what_we_write_is_read_by_nibabel(tmp_path, draws):
    """The world-space result of each format that we write, computed from the file's numbers by its definition."""
    rng = np.random.RandomState(5)
    for _ in range(draws):
        fixed, moving = random_grid(rng), random_grid(rng)
        warp, there = known_warp(fixed, moving), truth(fixed)
        for form in ("itk", "freesurfer", "vxm"):
            write_warp(tmp_path / "w.nii", warp, form)
            image = nib.load(str(tmp_path / "w.nii"))
            numbers = np.asarray(image.dataobj, dtype=float).reshape(fixed.shape + (3,))
            index = np.stack(np.meshgrid(*map(np.arange, fixed.shape), indexing="ij"), axis=-1)
            here = apply_affine(image.affine, index)
            found = {
                "itk": here + numbers * (-1, -1, 1),
                "freesurfer": here + numbers,
                "vxm": apply_affine(moving.affine, index + numbers),
            }[form]
            assert np.linalg.norm(found - there, axis=-1).max() < 1e-3
