# SPDX-License-Identifier: Apache-2.0
"""One brain stored along eight sets of axes and at other voxel sizes gives the same result in space.

Here with a stand-in for the network; tests/integration/test_native.py has a real brain and the published weights.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from tests.support import fakes
from tests.support.nifti import NETWORK, save
from tests.support.registration_bench import Bench
from vxm_convert.geometry.fields import index_block
from vxm_convert.geometry.grids import apply_affine
from vxm_convert.geometry.maps import SpaceMap
from vxm_convert.scans.conform import oriented
from vxm_convert.transforms.warps import read_warp

ORIENTATIONS = ("LIA", "RAS", "LPS", "PSR", "ASL", "IPR", "SRA", "RIP")
PAD = 4


def stretch(outputs) -> None:
    """The stand-in's displacements are hundredths of a voxel; a network's are voxels."""
    outputs["flow"] *= 30


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch, spoil=stretch)
    made.inputs.mkdir()
    return made


def brain() -> np.ndarray:
    """A smooth brain with a margin, float32: what is left after other voxels is then the resampling's.

    Smoothing dims so small a brain; the factor gives it the atlas's brightness back.
    """
    image, _ = fakes.brain(1)
    return np.clip(1.6 * gaussian_filter(np.pad(image, PAD, mode="constant").astype(np.float32), 1.0), 0, 255)


def test_the_same_result_in_space(bench):
    scan = nib.Nifti1Image(brain(), NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [-PAD] * 3))
    for axes in ORIENTATIONS:
        change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(axes))
        turned = scan.as_reoriented(change)
        save(bench.inputs / f"{axes}.nii.gz", np.asarray(turned.dataobj), turned.affine)
    spline, centre = spline_filter(brain(), order=3), apply_affine(scan.affine, np.array(scan.shape) / 2)
    for name, spacing in (("fine", 0.8), ("coarse", 1.3)):
        grid = oriented(tuple(int(np.ceil(max(scan.shape) / spacing)) for _ in range(3)), "RAS", (spacing,) * 3, centre)
        at = np.moveaxis(
            apply_affine(np.linalg.inv(scan.affine) @ grid.affine, index_block(grid.shape, slice(0, grid.shape[0]))),
            -1,
            0,
        )
        values = map_coordinates(spline, at, order=3, mode="constant", prefilter=False)
        save(bench.inputs / f"{name}.nii.gz", np.clip(values, 0, 255).astype(np.float32), grid.affine)
    assert bench.run("--outputs", "warp,moved") == 0
    _, seg = fakes.brain(0)
    centroids = np.array(
        [apply_affine(NETWORK.affine, np.argwhere(seg == label).mean(axis=0)) for label in (2, 16, 41)]
    )
    found = {
        axes: SpaceMap([read_warp(bench.out / axes / "flow.nii.gz")])(centroids)
        for axes in ORIENTATIONS + ("fine", "coarse")
    }
    assert np.linalg.norm(found["LIA"] - centroids, axis=1).max() > 0.05, "there is a displacement to compare"
    for name, points in found.items():
        distance = np.linalg.norm(points - found["LIA"], axis=1)
        assert distance.mean() <= (0.1 if name in ("fine", "coarse") else 1e-5), (name, distance)
    moved = [np.asarray(nib.load(str(bench.out / axes / "moved.nii.gz")).dataobj) for axes in ORIENTATIONS]
    assert all(np.abs(other - moved[0]).max() < 1e-3 for other in moved[1:])
