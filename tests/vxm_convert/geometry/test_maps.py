# SPDX-License-Identifier: Apache-2.0
"""Composition and resampling: against the chain of maps, SimpleITK and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.grids import ISO, LIA, PAIRS, displacement, known_warp, points_of, some_affine
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp, identity_warp, index_block
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry
from vxm_convert.geometry.maps import SpaceMap, compose
from vxm_convert.geometry.reference_warp import warp_nearest
from vxm_convert.geometry.resample import resample, to_dtype


@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_composition_is_the_chain_of_maps(pair):
    fixed, moving = PAIRS[pair]
    network = grid_of_geometry((32, 36, 34), (1, 1, 1), LIA, fixed.centre_ras)
    warp, pre, post = known_warp(network, network), Affine(np.linalg.inv(some_affine().pull)), some_affine()
    composed = compose([pre, warp, post], fixed, moving)
    ras = points_of(fixed)
    middle = apply_affine(pre.pull, ras)
    at = apply_affine(network.inverse, middle)
    inside = np.all((at >= 0) & (at <= np.array(network.shape) - 1), axis=-1)
    expected = apply_affine(moving.inverse, apply_affine(post.pull, middle + displacement(middle)))
    got = index_block(fixed.shape, slice(0, fixed.shape[0])) + composed.u
    # Linear interpolation of a field whose second derivative is at most 2/64 per mm².
    assert inside.mean() > 0.5 and np.abs(got - expected)[inside].max() < 0.03


def test_points_beyond_a_warp():
    warp = Warp(np.full(ISO.shape + (3,), 2.0), ISO, ISO)
    far = np.array([[500.0, 0, 0]])
    assert SpaceMap([warp], "edge")(far).tolist() == [[502, 2, 2]] and SpaceMap([warp], "zero")(far).tolist() == [
        [500, 0, 0]
    ]


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_resampling_is_simpleitks(tmp_path, pair, interpolation):
    itk = pytest.importorskip("SimpleITK")
    from vxm_convert.scans.nifti import write_nifti
    from vxm_convert.transforms.warps import write_warp

    fixed, moving = PAIRS[pair]
    image = np.random.RandomState(3).uniform(1, 100, moving.shape).astype(np.float32)
    warp = known_warp(fixed, moving)
    write_nifti(tmp_path / "m.nii", image, moving.affine)
    write_warp(tmp_path / "w.nii", warp, "itk")
    field = itk.ReadImage(str(tmp_path / "w.nii"))
    reference = itk.Image(field.GetSize(), itk.sitkFloat32)
    reference.CopyInformation(field)
    how = itk.sitkLinear if interpolation == "linear" else itk.sitkNearestNeighbor
    transform = itk.DisplacementFieldTransform(itk.Cast(field, itk.sitkVectorFloat64))
    theirs = itk.GetArrayFromImage(
        itk.Resample(itk.ReadImage(str(tmp_path / "m.nii")), reference, transform, how, 0.0)
    ).T
    ours = resample(image, warp, interpolation)
    fraction = np.abs(index_block(fixed.shape, slice(0, fixed.shape[0])) + warp.u) % 1
    # Rounding half up or half to even, and the border itself, are a matter of the last bit.
    clear = np.all(np.abs(fraction - 0.5) > 1e-4, axis=-1)
    assert clear.mean() > 0.9 and (ours > 0).mean() > 0.2 and np.abs(ours - theirs)[clear].max() < 2e-2


def test_clamping_is_the_networks_rule():
    rng = np.random.RandomState(0)
    labels, flow = (
        rng.randint(0, 9, ISO.shape).astype(np.int32),
        rng.uniform(-6, 6, ISO.shape + (3,)).astype(np.float32),
    )
    assert np.array_equal(resample(labels, Warp(flow, ISO, ISO), "nearest", edge="clamp"), warp_nearest(labels, flow))
    outside = resample(labels + 1, Warp(flow, ISO, ISO), "nearest", edge="zero") == 0
    assert (
        np.array_equal(outside, ~ISO.contains(index_block(ISO.shape, slice(0, ISO.shape[0])) + flow)) and outside.any()
    )


def test_label_safe_is_one_hot_linear_argmax():
    rng = np.random.RandomState(1)
    labels = rng.choice([0, 3, 7, 16777217, 16777219], ISO.shape).astype(np.int32)
    warp = Warp(rng.uniform(-2, 2, ISO.shape + (3,)), ISO, ISO)
    ids = np.unique(labels)
    onehot = np.stack([resample((labels == i).astype(np.float64), warp, "linear", "clamp") for i in ids])
    order = np.sort(onehot, axis=0)
    clear = order[-1] - order[-2] > 1e-6
    got = resample(labels, warp, "labels", "clamp")
    assert (
        clear.mean() > 0.99 and np.array_equal(got[clear], ids[onehot.argmax(axis=0)][clear]) and got.dtype == np.int32
    )
    tie = Warp(
        np.broadcast_to([0.5, 0.0, 0.0], (2, 1, 1, 3)).copy(), Grid((2, 1, 1), np.eye(4)), Grid((2, 1, 1), np.eye(4))
    )
    assert resample(np.array([9, 4]).reshape(2, 1, 1), tie, "labels")[0, 0, 0] == 4


def test_resampling_refuses_what_does_not_belong():
    warp = identity_warp(ISO, ISO)
    for image, how, message in (
        (np.zeros((2, 2, 2)), "linear", "another image"),
        (np.zeros(ISO.shape), "labels", "expected integers"),
        (np.zeros(ISO.shape), "cubic", "expected one of"),
    ):
        with pytest.raises(VolumeError, match=message):
            resample(image, warp, how)
    assert to_dtype(np.array([-3.0, 254.6, 999.0]), np.uint8).tolist() == [0, 255, 255]
