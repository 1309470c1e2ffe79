# SPDX-License-Identifier: Apache-2.0
"""Affine files: round trips, SimpleITK's and fslpy's reading of them, directions, hostile files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import ISO, PAIRS, SOME, some_affine
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import apply_affine, same_place
from vxm_convert.transforms.affines import read_affine, write_affine


@pytest.mark.parametrize(
    "name, form", [("a.txt", "itk"), ("a.mat", "itk"), ("a.lta", "lta"), ("a.mat", "fsl"), ("a.txt", "ras")]
)
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_affine_round_trip(tmp_path, name, form, pair):
    affine, (fixed, moving) = some_affine(), PAIRS[pair]
    write_affine(tmp_path / name, affine, form, fixed, moving)
    np.testing.assert_allclose(read_affine(tmp_path / name, fixed, moving).pull, affine.pull, atol=1e-10)


def test_itk_transforms_are_those_of_simpleitk(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    write_affine(tmp_path / "a.txt", some_affine(), "itk")
    write_affine(tmp_path / "a.mat", some_affine(), "itk")
    flip = np.array([-1, -1, 1])
    for name in ("a.txt", "a.mat"):
        theirs = itk.ReadTransform(str(tmp_path / name))
        for point in SOME:
            got = np.array(theirs.TransformPoint(point * flip)) * flip
            np.testing.assert_allclose(got, apply_affine(some_affine().pull, point), atol=1e-9)
    euler, versor, similarity = itk.Euler3DTransform(), itk.VersorRigid3DTransform(), itk.Similarity3DTransform()
    euler.SetRotation(0.1, 0.2, -0.3)
    versor.SetRotation((0.5, -1, 2), 0.4)
    similarity.SetRotation((0.5, -1, 2), 0.4)
    similarity.SetScale(1.2)
    zyx = itk.Euler3DTransform(euler)
    zyx.SetComputeZYX(True)
    for transform in (euler, zyx, versor, similarity):
        transform.SetCenter((5, -6, 7))
        transform.SetTranslation((1, 2, 3))
    shift = itk.TranslationTransform(3, (4, 5, 6))
    for transform in (euler, zyx, versor, similarity, shift, itk.CompositeTransform([versor, shift])):
        itk.WriteTransform(transform, str(tmp_path / "t.txt"))
        ours = read_affine(tmp_path / "t.txt").pull
        for point in SOME:
            np.testing.assert_allclose(
                apply_affine(ours, point), np.array(transform.TransformPoint(point * flip)) * flip, atol=1e-6
            )


def test_fsl_matrix_is_that_of_fslpy(tmp_path):
    image, flirt = pytest.importorskip("fsl.data.image"), pytest.importorskip("fsl.transform.flirt")
    fixed, moving = PAIRS["oblique"]
    images = []
    for name, grid in (("m.nii", moving), ("f.nii", fixed)):
        nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), str(tmp_path / name))
        images.append(image.Image(str(tmp_path / name)))
    push = np.linalg.inv(some_affine().pull)
    np.testing.assert_allclose(
        some_affine().to_fsl(fixed, moving), flirt.toFlirt(push, images[0], images[1], "world", "world"), atol=1e-4
    )


def test_lta_goes_from_source_to_destination_and_checks_geometry(tmp_path):
    fixed, moving = PAIRS["LIA from anisotropic LPS"]
    write_affine(tmp_path / "a.lta", some_affine(), "lta", fixed, moving)
    text = (tmp_path / "a.lta").read_text(encoding="utf-8")
    stored = np.array([line.split() for line in text.splitlines()[5:9]], dtype=float)
    np.testing.assert_allclose(stored, np.linalg.inv(some_affine().pull), atol=1e-12)
    read = read_affine(tmp_path / "a.lta")
    assert same_place(read.fixed, fixed) and same_place(read.moving, moving)
    with pytest.raises(VolumeError, match="has the opposite direction"):
        read_affine(tmp_path / "a.lta", moving, fixed)
    with pytest.raises(VolumeError, match="another image"):
        read_affine(tmp_path / "a.lta", ISO, None)
    voxels = fixed.inverse @ stored @ moving.affine
    rows = "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in voxels)
    lines = text.splitlines(keepends=True)
    (tmp_path / "v.lta").write_text(
        "type      = 0 # VOX\n" + "".join(lines[1:5]) + rows + "".join(lines[9:]), encoding="utf-8"
    )
    np.testing.assert_allclose(read_affine(tmp_path / "v.lta").pull, some_affine().pull, atol=1e-9)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", b"", "bytes, expected an affine"),
        ("a.txt", b"x" * 70000, "bytes, expected an affine"),
        ("a.txt", b"1 2 3\n", "4x4 matrix"),
        ("a.txt", b"1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n", "determinant"),
        ("a.txt", b"nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "finite"),
        ("a.mat", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "without both images"),
        ("a.mat", b"\0" * 64, "MATLAB 4"),
        ("a.mat", b"\0" * 7, "ends after"),
        ("a.txt", b"\xff\xfe\x41", "neither text"),
        ("a.lta", b"type = 3\nnxforms = 1\n1 4 4\n", "type 3"),
        ("a.lta", b"nxforms = 1\n1 4 4\n", "type ="),
        (
            "a.txt",
            b"#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1\n",
            "expected a matrix",
        ),
        (
            "a.txt",
            b"#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\nParameters: 1 2\n",
            "expected 12 finite",
        ),
        ("a.txt", b"#Insight Transform File V1.0\n", "0 transforms"),
    ],
)
def test_hostile_affines(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=message) as caught:
        read_affine(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
