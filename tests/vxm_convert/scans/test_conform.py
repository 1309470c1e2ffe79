# SPDX-License-Identifier: Apache-2.0
"""Any scan onto the network grid: which grid, which map, which voxels; and what is said about doubtful scans."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import points_of, turn
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import index_block
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry
from vxm_convert.geometry.resample import resample
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.scans import checks as doubts
from vxm_convert.scans.conform import Placement, brain_mask, conform, network_grid_of, oriented, outside_network, place
from vxm_convert.scans.header_space import Trust
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.scan_file import ScanFile

AXES = NetworkAxes()
SHAPE = (32, 32, 48)
NETWORK = Grid(SHAPE, network_affine(SHAPE))
EIGHT = ("RAS", "LIA", "LPS", "PIR", "ASL", "SRP", "IAR", "RIA")
#: centre (relative to the network's, RAS mm) and radius of balls; labels 2 and 41 as left and right
BALLS = {2: ((-7.0, 2.0, 1.0), 5.0), 41: ((6.0, -3.0, -2.0), 5.5), 16: ((1.0, 9.0, 4.0), 4.0)}


def labels_on(grid: Grid) -> np.ndarray:
    """The balls as anybody would see them at this resolution."""
    points, seg = points_of(grid) - NETWORK.centre_ras, np.zeros(grid.shape, dtype=np.int16)
    for label, (centre, radius) in BALLS.items():
        seg[((points - centre) ** 2).sum(axis=-1) < radius**2] = label
    return seg


def image_on(grid: Grid) -> np.ndarray:
    """A smooth image without symmetry, 0 outside a ball of 20 mm."""
    x, y, z = np.moveaxis(points_of(grid) - NETWORK.centre_ras, -1, 0)
    bright = 0.5 + 0.2 * np.sin(x / 5 + 0.4) + 0.15 * np.cos(y / 6) + 0.1 * np.sin(z / 7 + x / 9)
    return (bright * np.clip(1.5 - np.sqrt(x**2 + y**2 + z**2) / 14, 0, 1)).astype(np.float32)


def flow() -> np.ndarray:
    """What a network might return: smooth, up to 2.5 voxels."""
    i, j, k = np.moveaxis(index_block(SHAPE, slice(0, SHAPE[0])), -1, 0)
    return np.stack([2 * np.sin(j / 9), 1.5 * np.cos(k / 8), 2.5 * np.sin(i / 7 + j / 11)], axis=-1).astype(np.float32)


def scan_grid(orientation: str, spacing: float, sides_mm: float = 56.0) -> Grid:
    side = int(np.ceil(sides_mm / spacing))
    return oriented((side, side + 2, side + 4), orientation, (spacing,) * 3, NETWORK.centre_ras + (1.3, -0.7, 0.4))


def warped_centroids(grid: Grid) -> np.ndarray:
    """Where three structures end, mm; they are soft, because the outlines of hard ones depend on the voxels they are
    drawn with.
    """
    warp, found = place(NETWORK, grid, AXES).final_warp(flow(), NETWORK), []
    for centre, radius in BALLS.values():
        distance = points_of(grid) - NETWORK.centre_ras - centre
        moved = resample(np.exp(-(distance**2).sum(axis=-1) / radius**2), warp).ravel()
        found.append(moved @ points_of(NETWORK).reshape(-1, 3) / moved.sum())
    return np.array(found)


def test_the_network_grid_of_freesurfers_volume_is_voxelmorphs_crop():
    atlas = oriented((256,) * 3, "LIA", (1, 1, 1), (0, 0, 0))
    image = np.zeros(atlas.shape, dtype=np.uint8)
    image[50, 40, 14] = image[205, 207, 205] = 100
    network = network_grid_of(image, atlas, (160, 192, 224), AXES)
    assert np.array_equal(network.affine, [[-1, 0, 0, 80], [0, 0, 1, -125], [0, -1, 0, 97], [0, 0, 0, 1]])
    image[46, 100, 100] = 100
    other = network_grid_of(image, atlas, (160, 192, 224), AXES)
    assert not np.array_equal(other.affine, network.affine), "a brain beyond that crop is centred"
    assert outside_network(image, place(network, atlas, AXES)) == (1, 3) and outside_network(
        image, place(other, atlas, AXES)
    ) == (0, 3)


@pytest.mark.parametrize("orientation", EIGHT)
def test_the_network_grid_of_any_atlas_of_1_mm_is_a_crop_of_it_about_the_brain(orientation):
    atlas = oriented((60, 50, 70), orientation, (1, 1, 1), (3, -8, 5))
    image = np.zeros(atlas.shape, dtype=np.float32)
    image[20:41, 15:36, 30:51] = np.random.RandomState(0).uniform(0.2, 1, (21, 21, 21))
    network = network_grid_of(image, atlas, SHAPE, AXES)
    assert network.orientation == "LIA" and network.shape == SHAPE
    placement = place(network, atlas, AXES)
    assert placement.copies and outside_network(image, placement) == (0, 21**3)
    there = conform(image, placement)
    assert np.array_equal(np.sort(there[there > 0]), np.sort(image[image > 0])), "the very voxels, none interpolated"
    centre = apply_affine(network.affine, (np.asarray(SHAPE) - 1) / 2)
    np.testing.assert_allclose(centre, apply_affine(atlas.affine, (30, 25, 40)), atol=0.51)


def test_the_network_grid_of_an_oblique_atlas_has_the_networks_axes():
    atlas = grid_of_geometry((40, 40, 40), (1.1, 1.1, 1.1), turn(0.2, -0.1, 0.3), (5, 5, 5))
    image = np.zeros(atlas.shape, dtype=np.float32)
    image[10:31, 10:31, 10:31] = 1
    network = network_grid_of(image, atlas, SHAPE, AXES)
    assert network.orientation == "LIA" and network.shear == 0 and network.spacing_mm == (1, 1, 1)
    assert outside_network(image, place(network, atlas, AXES))[0] == 0
    with pytest.raises(VolumeError, match="every voxel is 0"):
        network_grid_of(np.zeros_like(image), atlas, SHAPE, AXES)


def test_what_lies_on_the_network_grid_is_untouched():
    elsewhere = Grid(SHAPE, NETWORK.affine + np.array([[0, 0, 0, 9], [0, 0, 0, -4], [0, 0, 0, 2], [0, 0, 0, 0]]))
    image = image_on(NETWORK)
    for grid in (NETWORK, elsewhere):
        placement = place(NETWORK, grid, AXES)
        assert placement.untouched and conform(image, placement) is image
        assert np.array_equal(placement.final_warp(flow(), NETWORK).u, flow())
    assert not place(NETWORK, NETWORK, AXES, Affine(np.eye(4))).untouched
    assert not place(NETWORK, oriented(SHAPE, "RIA", (1, 1, 1), NETWORK.centre_ras), AXES).untouched, (
        "mirrored, same shape"
    )
    assert not place(NETWORK, oriented(SHAPE, "LIA", (1.1, 1, 1), NETWORK.centre_ras), AXES).untouched


ALL_48 = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]


@pytest.mark.parametrize("orientation", ALL_48)
def test_every_order_and_direction_of_axes_gives_the_same_bits(orientation):
    image = np.random.RandomState(1).uniform(0.1, 1, SHAPE).astype(np.float32)
    home = nib.Nifti1Image(image, NETWORK.affine)
    change = nib.orientations.ornt_transform(
        nib.io_orientation(home.affine), nib.orientations.axcodes2ornt(orientation)
    )
    turned = home.as_reoriented(change)
    placement = place(NETWORK, Grid(turned.shape, turned.affine), AXES)
    assert np.array_equal(conform(np.asarray(turned.dataobj), placement), image)


@pytest.mark.parametrize("orientation", EIGHT)
@pytest.mark.parametrize("spacing", [0.8, 1.0, 1.3])
def test_the_same_brain_gives_the_same_result_in_space(orientation, spacing):
    grid = scan_grid(orientation, spacing)
    distance = np.linalg.norm(warped_centroids(grid) - warped_centroids(NETWORK), axis=1)
    assert distance.mean() <= 0.1, distance
    np.testing.assert_allclose(conform(image_on(grid), place(NETWORK, grid, AXES)), image_on(NETWORK), atol=0.03)


def test_the_final_warp_is_the_chain_point_by_point():
    pull = np.eye(4)
    pull[:3, :3] = turn(0.1, -0.05, 0.2) @ np.diag([1.05, 0.95, 1.1])
    pull[:3, 3] = 4, -3, 2
    grid = scan_grid("PIR", 1.2)
    placement = place(NETWORK, grid, AXES, Affine(pull))
    warp = placement.final_warp(flow(), NETWORK)
    index = index_block(SHAPE, slice(0, SHAPE[0]))
    expected = apply_affine(grid.inverse @ pull @ NETWORK.affine, index + flow())
    np.testing.assert_allclose(index + warp.u, expected, atol=1e-9)
    coarse = oriented((12, 13, 14), "RAS", (2, 2, 2), NETWORK.centre_ras)
    assert placement.final_warp(flow(), coarse).u.shape == (12, 13, 14, 3)


def test_a_scan_in_the_atlas_space_by_affine_is_conformed_to_it():
    pull = np.eye(4)
    pull[:3, :3], pull[:3, 3] = turn(0.2, 0.1, -0.1), (3, 2, -4)
    grid = grid_of_geometry((70, 72, 74), (0.9, 0.9, 0.9), pull[:3, :3], apply_affine(pull, NETWORK.centre_ras))
    home = Grid(grid.shape, np.linalg.inv(pull) @ grid.affine)
    placement = place(NETWORK, grid, AXES, Affine(pull))
    np.testing.assert_allclose(conform(image_on(home), placement), image_on(NETWORK), atol=0.03)
    assert placement.to_dict()["conform"] == "linear, once"


def test_edges_of_a_small_scan():
    grid = oriented((8, 8, 8), "LIA", (1, 1, 1), NETWORK.centre_ras)
    placement, image = place(NETWORK, grid, AXES), np.full((8, 8, 8), 0.5, np.float32)
    assert np.count_nonzero(conform(image, placement)) == 8**3
    assert np.all(conform(image, placement, edge="clamp") == 0.5)
    with pytest.raises(VolumeError, match="the scan's grid is 8x8x8"):
        conform(np.zeros((8, 8, 9), np.float32), placement)


def test_brain_outside_is_counted():
    far = oriented(SHAPE, "RAS", (1, 1, 1), NETWORK.centre_ras + (0, 0, 20))
    image = np.zeros(SHAPE, np.float32)
    image[:, :, :24], image[0, 0, 47] = 1, 0.5
    outside, total = outside_network(image, place(NETWORK, far, AXES))
    assert total == 32 * 32 * 24 + 1 == np.count_nonzero(brain_mask(image))
    inside = NETWORK.contains(apply_affine(NETWORK.inverse @ far.affine, np.argwhere(image > 0)))
    assert 0 < outside == total - np.count_nonzero(inside)
    assert doubts.outside_doubt(0, 5) is None and "1 of 4 brain voxels (25 %)" in doubts.outside_doubt(1, 4)


def test_a_flip_is_suspected_from_the_labels():
    assert doubts.flip_doubt(labels_on(NETWORK), NETWORK) is None
    said = doubts.flip_doubt(labels_on(NETWORK)[::-1], NETWORK)
    assert "left/right flip suspected" in said and "13 mm" in said
    assert doubts.flip_doubt(np.full(SHAPE, 2, np.int16), NETWORK) is None, "one side alone says nothing"


def test_a_head_is_not_a_brain():
    grid = oriented((60, 60, 60), "LIA", (3, 3, 3), (0, 0, 0))
    distance = np.linalg.norm(points_of(grid), axis=-1)
    assert doubts.skull_doubt((distance < 70).astype(np.float32), grid) is None
    assert "skull" in doubts.skull_doubt((distance < 95).astype(np.float32), grid)


def test_brains_far_apart():
    image = image_on(NETWORK)
    assert doubts.distance_doubt(image, NETWORK, image, NETWORK) is None
    far = Grid(SHAPE, NETWORK.affine + np.array([[0, 0, 0, 20], [0] * 4, [0] * 4, [0] * 4]))
    assert "20 mm from the atlas's" in doubts.distance_doubt(image, NETWORK, image, far)


@pytest.mark.parametrize(
    "affine, codes, trusted",
    [
        (np.eye(4), (0, 2), False),
        (NETWORK.affine, (1, 1), True),
        (NETWORK.affine, (0, 1), True),
        (NETWORK.affine, (0, 0), False),
    ],
)
def test_which_headers_are_believed(tmp_path, affine, codes, trusted):
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    nib.save(image, str(tmp_path / "a.nii"))
    assert (ScanFile(tmp_path / "a.nii").trust is Trust.HEADER) is trusted


@pytest.mark.parametrize("letters", ["LLA", "XYZ", "LI"])
def test_letters_that_are_no_axes(letters):
    with pytest.raises(VolumeError, match="three letters such as LIA"):
        oriented((4, 4, 4), letters, (1, 1, 1), (0, 0, 0))


def test_a_placement_says_what_it_did():
    told = Placement(NETWORK, scan_grid("RAS", 1.3), Affine(np.eye(4)), how={"affine": "none"}).to_dict()
    assert (
        told["affine"] == "none"
        and told["moving_grid"]["orientation"] == "RAS"
        and told["network_grid"]["shape"] == list(SHAPE)
    )
