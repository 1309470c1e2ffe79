# SPDX-License-Identifier: Apache-2.0
"""ITK transforms in HDF5: points against SimpleITK's own, and files that are damaged or of another kind."""

from __future__ import annotations

import numpy as np
import pytest

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
