# SPDX-License-Identifier: Apache-2.0
"""NIfTI writing and the displacement file: bytes, round trips, and ITK as the second witness."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.geometry.fields import Warp, from_frame, to_frame
from vxm_convert.geometry.grids import LPS, Grid
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.scans import nifti
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.transforms.warps import read_warp, write_warp

SHAPE = (18, 20, 23)


def oblique(spacing=(1.0, 1.2, 0.8), origin=(7.0, -20.0, 33.0)):
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return nib.affines.from_matvec(turn @ np.diag(spacing), origin)


def smooth_flow(seed=0):
    rng = np.random.RandomState(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(0, np.pi, n) for n in SHAPE), indexing="ij"), axis=-1)
    return (1.7 * np.sin(grid + rng.uniform(0, 1, 3))).astype(np.float32)


def in_lps(*affines):
    """Voxel → LPS mm of both grids."""
    fixed, moving = affines if len(affines) == 2 and affines[1] is not None else (affines[0], affines[0])
    return LPS @ fixed, LPS @ moving


def warp_on(flow, affine):
    return Warp(flow, Grid(SHAPE, affine), Grid(SHAPE, affine))


AFFINES = {"LIA": network_affine(SHAPE), "oblique": oblique(), "RAS": np.diag([2.0, 1.0, 3.0, 1.0])}


def test_lia_axes_map_as_documented():
    flow = np.zeros((2, 2, 2, 3), np.float32)
    flow[...] = (1, 2, 3)
    # RAS = (−u0, u2, −u1), so LPS = (u0, −u2, −u1).
    assert np.array_equal(to_frame(flow, *in_lps(network_affine((2, 2, 2))))[0, 0, 0], [1, -3, -2])


@pytest.mark.parametrize("fixed", sorted(AFFINES))
@pytest.mark.parametrize("moving", [None, "LIA", "oblique"])
def test_round_trip(fixed, moving):
    flow = smooth_flow()
    pair = (AFFINES[fixed], None if moving is None else AFFINES[moving])
    np.testing.assert_allclose(from_frame(to_frame(flow, *in_lps(*pair), np.float32), *in_lps(*pair)), flow, atol=1e-5)


def test_the_formula_point_by_point():
    fixed, moving, flow = AFFINES["oblique"], AFFINES["LIA"], smooth_flow()
    lps = to_frame(flow, *in_lps(fixed, moving))
    for x in ((0, 0, 0), (3, 7, 11), (17, 19, 22)):
        m = np.append(np.add(x, flow[x]), 1)
        expected = (moving @ m - fixed @ np.append(x, 1))[:3] * (-1, -1, 1)
        np.testing.assert_allclose(lps[x], expected, atol=2e-6 * 60)


@pytest.mark.parametrize("name", sorted(AFFINES))
def test_the_file(tmp_path, name):
    affine, flow = AFFINES[name], smooth_flow()
    path = tmp_path / "flow.nii.gz"
    write_warp(path, warp_on(flow, affine), toolchain={"kind": "simulator"})
    image = nib.load(str(path))
    header = image.header
    assert image.shape == SHAPE + (1, 3) and image.get_data_dtype() == np.float32
    assert int(header["intent_code"]) == 1007 and header.get_xyzt_units()[0] == "mm"
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-5)
    back = read_warp(path, "itk")
    np.testing.assert_allclose(back.u, flow, atol=1e-5)
    np.testing.assert_allclose(back.fixed.affine, affine, atol=1e-5)
    side = json.loads((tmp_path / "flow.nii.gz.json").read_text(encoding="utf-8"))
    assert side["unit"] == "mm" and side["toolchain"]["kind"] == "simulator" and "pull" in side["direction"]


@pytest.mark.parametrize("name", sorted(AFFINES))
def test_itk_moves_labels_with_it_as_we_do(tmp_path, name):
    itk = pytest.importorskip("SimpleITK")
    affine, flow = AFFINES[name], smooth_flow()
    labels = np.random.RandomState(1).randint(0, 50, SHAPE).astype(np.int16)
    nifti.write_nifti(tmp_path / "moving.nii.gz", labels, affine)
    write_warp(tmp_path / "flow.nii.gz", warp_on(flow, affine))
    moving = itk.ReadImage(str(tmp_path / "moving.nii.gz"))
    field = itk.Cast(itk.ReadImage(str(tmp_path / "flow.nii.gz")), itk.sitkVectorFloat64)
    moved = itk.Resample(moving, moving, itk.DisplacementFieldTransform(field), itk.sitkNearestNeighbor, -1)
    theirs, ours = itk.GetArrayFromImage(moved).T, warp_nearest(labels, flow)
    inside = theirs >= 0
    assert inside.mean() > 0.5
    # A position within rounding of a voxel's border may fall either way.
    assert np.mean(theirs[inside] != ours[inside]) < 2e-3


@pytest.mark.parametrize(
    "make", [lambda d, a: nib.Nifti1Image(d, a), lambda d, a: nib.Nifti1Image(d[:, :, :, np.newaxis], a)]
)
def test_layouts_that_fool_other_tools_are_refused(tmp_path, make):
    nib.save(make(smooth_flow(), np.eye(4)), str(tmp_path / "f.nii.gz"))
    with pytest.raises(VolumeError, match="intent"):
        read_warp(tmp_path / "f.nii.gz", "itk")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_come_back_bit_for_bit(tmp_path, dtype, suffix):
    data = (np.random.RandomState(0).uniform(0, 100, SHAPE)).astype(dtype)
    nifti.write_nifti(tmp_path / ("v" + suffix), data, AFFINES["oblique"])
    image = nib.load(str(tmp_path / ("v" + suffix)))
    assert image.get_data_dtype() == data.dtype
    assert np.array_equal(np.asarray(image.dataobj), data)


def test_equal_volumes_equal_bytes_without_time_or_name(tmp_path):
    data = smooth_flow()[..., 0]
    nifti.write_nifti(tmp_path / "a.nii.gz", data, np.eye(4))
    nifti.write_nifti(tmp_path / "b.nii.gz", np.asfortranarray(data), np.eye(4))
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "b.nii.gz").read_bytes()
    assert first[:2] == b"\x1f\x8b" and first[3] == 0 and first[4:8] == b"\0\0\0\0", "no name flag, no time"


def test_both_compressors_give_the_same_voxels(tmp_path, monkeypatch):
    import zlib

    data = smooth_flow()[..., 0]
    nifti.write_nifti(tmp_path / "a.nii.gz", data, np.eye(4))
    monkeypatch.setattr(nifti, "_deflate", zlib)
    nifti.write_nifti(tmp_path / "b.nii.gz", data, np.eye(4))
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == gzip.decompress(
        (tmp_path / "b.nii.gz").read_bytes()
    )


def test_a_level_changes_bytes_and_no_voxel(tmp_path):
    data, sizes = smooth_flow()[..., 0], {}
    for level in range(10):
        nifti.write_nifti(tmp_path / "v.nii.gz", data, np.eye(4), level=level)
        stored = (tmp_path / "v.nii.gz").read_bytes()
        sizes[level] = len(stored)
        voxels = np.frombuffer(gzip.decompress(stored)[352:], "<f4").reshape(data.shape, order="F")
        assert np.array_equal(voxels, data) and stored[3:8] == bytes(5), "no name, no time"
    assert sizes[0] > data.nbytes and max(sizes[1], sizes[9]) < sizes[0]
    nifti.write_nifti(tmp_path / "v.nii.gz", data, np.eye(4))
    assert len((tmp_path / "v.nii.gz").read_bytes()) == sizes[1], "the default"


def test_wide_labels_are_narrowed_or_refused(tmp_path):
    nifti.write_nifti(tmp_path / "v.nii", np.full((2, 2, 2), 70000, np.int64), np.eye(4))
    assert nib.load(str(tmp_path / "v.nii")).get_data_dtype() == np.int32
    with pytest.raises(VolumeError, match="do not fit int32"):
        nifti.write_nifti(tmp_path / "w.nii", np.full((2, 2, 2), 2**40, np.int64), np.eye(4))
    assert not (tmp_path / "w.nii").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot write there"):
        nifti.write_nifti(tmp_path / "file" / "v.nii.gz", np.zeros((2, 2, 2), np.float32), np.eye(4))
