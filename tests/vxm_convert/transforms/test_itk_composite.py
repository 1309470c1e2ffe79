# SPDX-License-Identifier: Apache-2.0
"""ITK transforms in HDF5: points against SimpleITK's own, and files that are damaged or of another kind."""

from __future__ import annotations

import numpy as np
import pytest

from om_runner.__main__ import main
from tests.support.grids import PAIRS, SOME
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.transforms.affines import read_affine
from vxm_convert.transforms.itk_composite import read_composite
from vxm_convert.transforms.warps import read_warp

itk = pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.usefixtures("forked_commands")
FLIP = np.array([-1.0, -1.0, 1.0])


def euler():
    transform = itk.Euler3DTransform()
    transform.SetRotation(0.1, 0.2, -0.3)
    transform.SetCenter((5, -6, 7))
    transform.SetTranslation((1, 2, 3))
    return transform


def field_image():
    """A smooth field of a few mm on an oblique grid that covers `points`."""
    image = itk.Image(20, 22, 24, itk.sitkVectorFloat64)
    image.SetSpacing((2.0, 2.5, 3.0))
    image.SetOrigin((-20.0, -25.0, -30.0))
    image.SetDirection(euler().GetMatrix())
    rng = np.random.RandomState(0)
    waves = np.stack(np.meshgrid(*(np.linspace(0, 2, n) for n in (24, 22, 20)), indexing="ij"), axis=-1)
    filled = itk.GetImageFromArray(2.0 * np.sin(waves + rng.rand(3)), isVector=True)
    filled.CopyInformation(image)
    return filled


def composite(*parts):
    return itk.CompositeTransform(list(parts))


def written(folder, transform):
    path = folder / "t.h5"
    itk.WriteTransform(transform, str(path))
    return path


def test_matrices_make_one_affine(tmp_path, own_start):
    shift = itk.TranslationTransform(3, (4, 5, 6))
    transform = composite(euler(), shift, euler())
    found = read_affine(written(tmp_path, transform))
    for point in SOME:
        expected = np.array(transform.TransformPoint((point * FLIP).tolist())) * FLIP
        np.testing.assert_allclose(found.pull[:3, :3] @ point + found.pull[:3, 3], expected, atol=1e-9)
    with pytest.raises(VolumeError, match="contains only matrices"):
        read_warp(tmp_path / "t.h5")


def test_a_field_and_a_matrix_make_one_warp(tmp_path):
    image = field_image()
    transform = composite(euler(), itk.DisplacementFieldTransform(itk.Image(image)))
    path = written(tmp_path, transform)
    warp = read_warp(path)
    assert isinstance(warp, Warp) and warp.fixed.shape == (20, 22, 24)
    for index in ((0, 0, 0), (3, 7, 11), (19, 21, 23), (10, 11, 12)):
        point = image.TransformIndexToPhysicalPoint(index)
        theirs = np.array(transform.TransformPoint(point)) * FLIP
        here = warp.fixed.affine @ np.append(index, 1.0)
        np.testing.assert_allclose(here[:3], np.array(point) * FLIP, atol=1e-9)
        np.testing.assert_allclose(SpaceMap([warp], "edge")(here[:3][np.newaxis])[0], theirs, atol=1e-6)
    fixed, moving = PAIRS["oblique"]
    assert read_composite(path, fixed, moving).moving == moving and isinstance(fixed, Grid)
    with pytest.raises(VolumeError, match="contains a displacement field"):
        read_affine(path)


def test_a_single_transform_needs_no_composite(tmp_path):
    found = read_composite(written(tmp_path, euler()))
    assert isinstance(found, Affine) and abs(np.linalg.det(found.pull) - 1) < 1e-9


@pytest.mark.any_python("the reading of these files has tests on both")
@pytest.mark.parametrize("with_field", [True, False])
def test_the_command_resamples_as_itk_does(tmp_path, own_start, with_field):
    """``om_runner apply --transform t.h5``, and ``inverse:`` of one that has only matrices."""
    steps = [itk.DisplacementFieldTransform(field_image())] if with_field else []
    transform = composite(euler(), *steps)
    centre = np.array(field_image().TransformContinuousIndexToPhysicalPoint((9.5, 10.5, 11.5)))
    moving = itk.GetImageFromArray(np.random.RandomState(1).rand(20, 24, 22).astype(np.float32))
    moving.SetSpacing((2.0, 2.0, 2.5))
    moving.SetOrigin((centre - 24).tolist())
    # Inside the field, whose border ITK ends abruptly.
    fixed = itk.Image(10, 11, 12, itk.sitkFloat32)
    fixed.SetSpacing((1.5, 1.5, 1.5))
    fixed.SetOrigin((centre - 7).tolist())
    for name, image in (("moving", moving), ("fixed", fixed + 1)):
        itk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    path, out = written(tmp_path, transform), tmp_path / "out.nii.gz"
    words = ["--image", str(tmp_path / "moving.nii.gz"), "--fixed", str(tmp_path / "fixed.nii.gz"), "--out", str(out)]
    for word, theirs in [(str(path), transform)] + (
        [] if with_field else [(f"inverse:{path}", transform.GetInverse())]
    ):
        assert main(["apply", "--transform", word, *words, "--interpolation", "linear"]) == 0
        expected = itk.GetArrayFromImage(itk.Resample(moving, fixed, theirs, itk.sitkLinear, 0.0))
        found = itk.GetArrayFromImage(itk.ReadImage(str(out)))
        # At its faces, where an image ends is a matter of rounding.
        inside = (found != 0) & (expected != 0)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-4)
        out.unlink()


def test_other_kinds_are_named(tmp_path):
    path = written(tmp_path, itk.BSplineTransform(3))
    with pytest.raises(VolumeError, match="BSplineTransform, expected matrices and displacement fields"):
        read_composite(path)
    itk.WriteTransform(itk.Euler2DTransform(), str(tmp_path / "flat.h5"))
    with pytest.raises(VolumeError, match="2 dimensions, expected 3"):
        read_composite(tmp_path / "flat.h5")


@pytest.mark.parametrize("content", [b"", b"#Insight Transform File V1.0\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 5000])
def test_files_that_are_none(tmp_path, content):
    (tmp_path / "t.h5").write_bytes(content)
    for read in (read_affine, read_warp):
        with pytest.raises(VolumeError) as caught:
            read(tmp_path / "t.h5")
        assert str(caught.value).startswith(str(tmp_path / "t.h5")) and "Traceback" not in str(caught.value)


def test_cut_and_flipped_files_end_in_our_errors_or_in_a_transform(tmp_path):
    data = written(tmp_path, composite(euler(), euler())).read_bytes()
    rng = np.random.RandomState(0)
    refused = 0
    for number in range(6):
        bad = bytearray(data if number else data[: len(data) // 2])
        for at in rng.randint(8, len(bad), 200 if number else 0):
            bad[at] ^= 0xFF
        (tmp_path / "t.h5").write_bytes(bytes(bad))
        try:
            read_composite(tmp_path / "t.h5")
        except VolumeError as exc:
            assert str(exc).startswith(str(tmp_path / "t.h5")) and len(str(exc)) < 600
            refused += 1
    assert refused >= 3
