# SPDX-License-Identifier: Apache-2.0
"""Grids, affine files, composition, resampling, inversion, Jacobian, surface distances: against foreign libraries and brute force."""
from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from tests.vxm_convert.grids import ISO, LIA, PAIRS, displacement, known_warp, points_of, turn
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affinefiles import read_affine, write_affine
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp, identity_warp, index_block
from vxm_convert.geometry.grids import Grid, apply_affine, grid_of_geometry, same_place
from vxm_convert.geometry.headers import inspect_header, read_grid
from vxm_convert.geometry.inversion import NOT_CONVERGED, OUTSIDE, invert
from vxm_convert.geometry.jacobian import determinant, jacobian_figures, strict_folds
from vxm_convert.geometry.maps import SpaceMap, compose
from vxm_convert.geometry.points import from_ras, read_points, to_ras, write_points
from vxm_convert.geometry.resample import resample, to_dtype
from vxm_convert.labelsets import load_label_set
from vxm_convert.metrics.surfaces import surface_distances
from vxm_convert.warp_numpy import warp_nearest

SOME = np.array([[3.0, -4, 5], [-7, 2, 1], [0, 0, 0]])


def some_affine() -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = turn(0.1, -0.05, 0.2) @ np.diag([1.1, 0.95, 1.02])
    matrix[:3, 3] = (3, -5, 7)
    return Affine(matrix)


# --- grids ---


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
        np.testing.assert_allclose(image.Image(str(tmp_path / "i.nii")).getAffine("voxel", "fsl"), grid.to_fsl(), atol=1e-5)


@pytest.mark.parametrize("shape, affine", [
    ((2, 2), np.eye(4)), ((0, 2, 2), np.eye(4)), ((2, 2, 2), np.zeros((4, 4))),
    ((2, 2, 2), np.full((4, 4), np.nan)), ((2, 2, 2), np.eye(3)),
    ((2, 2, 2), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
])
def test_impossible_grids(shape, affine):
    with pytest.raises(VolumeError, match="grid:"):
        Grid(shape, affine)


def test_header_notes(tmp_path):
    def notes(affine, qform=None, codes=(1, 1)):
        image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine)
        image.header.set_sform(affine, codes[1])
        image.header.set_qform(affine if qform is None else qform, codes[0], strip_shears=True)
        nib.save(image, str(tmp_path / "i.nii"))
        return " ".join(inspect_header(tmp_path / "i.nii")[1])
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
        read_grid(tmp_path / "flat.nii")


# --- affine files ---


@pytest.mark.parametrize("name, form", [("a.txt", "itk"), ("a.mat", "itk"), ("a.lta", "lta"), ("a.mat", "fsl"), ("a.txt", "ras")])
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
            np.testing.assert_allclose(apply_affine(ours, point), np.array(transform.TransformPoint(point * flip)) * flip, atol=1e-6)


def test_fsl_matrix_is_that_of_fslpy(tmp_path):
    image, flirt = pytest.importorskip("fsl.data.image"), pytest.importorskip("fsl.transform.flirt")
    fixed, moving = PAIRS["oblique"]
    images = []
    for name, grid in (("m.nii", moving), ("f.nii", fixed)):
        nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), str(tmp_path / name))
        images.append(image.Image(str(tmp_path / name)))
    push = np.linalg.inv(some_affine().pull)
    np.testing.assert_allclose(some_affine().to_fsl(fixed, moving), flirt.toFlirt(push, images[0], images[1], "world", "world"), atol=1e-4)


def test_lta_goes_from_source_to_destination_and_checks_geometry(tmp_path):
    fixed, moving = PAIRS["LIA from anisotropic LPS"]
    write_affine(tmp_path / "a.lta", some_affine(), "lta", fixed, moving)
    text = (tmp_path / "a.lta").read_text(encoding="utf-8")
    stored = np.array([line.split() for line in text.splitlines()[5:9]], dtype=float)
    np.testing.assert_allclose(stored, np.linalg.inv(some_affine().pull), atol=1e-12)
    read = read_affine(tmp_path / "a.lta")
    assert same_place(read.fixed, fixed) and same_place(read.moving, moving)
    with pytest.raises(VolumeError, match="goes the other way"):
        read_affine(tmp_path / "a.lta", moving, fixed)
    with pytest.raises(VolumeError, match="another image"):
        read_affine(tmp_path / "a.lta", ISO, None)
    voxels = fixed.inverse @ stored @ moving.affine
    rows = "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in voxels)
    lines = text.splitlines(keepends=True)
    (tmp_path / "v.lta").write_text("type      = 0 # VOX\n" + "".join(lines[1:5]) + rows + "".join(lines[9:]), encoding="utf-8")
    np.testing.assert_allclose(read_affine(tmp_path / "v.lta").pull, some_affine().pull, atol=1e-9)


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", b"", "bytes, expected an affine"), ("a.txt", b"x" * 70000, "bytes, expected an affine"), ("a.txt", b"1 2 3\n", "4x4 matrix"),
    ("a.txt", b"1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n", "determinant"), ("a.txt", b"nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "finite"),
    ("a.mat", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "without both images"),
    ("a.mat", b"\0" * 64, "MATLAB 4"), ("a.mat", b"\0" * 7, "ends after"),
    ("a.txt", b"\xff\xfe\x41", "neither text"), ("a.lta", b"type = 3\nnxforms = 1\n1 4 4\n", "type 3"),
    ("a.lta", b"nxforms = 1\n1 4 4\n", "type ="),
    ("a.txt", b"#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1\n", "expected a matrix"),
    ("a.txt", b"#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\nParameters: 1 2\n", "expected 12 finite"),
    ("a.txt", b"#Insight Transform File V1.0\n", "0 transforms"),
])
def test_hostile_affines(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=message) as caught:
        read_affine(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


# --- composition and resampling ---


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
    assert SpaceMap([warp], "edge")(far).tolist() == [[502, 2, 2]] and SpaceMap([warp], "zero")(far).tolist() == [[500, 0, 0]]


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_resampling_is_simpleitks(tmp_path, pair, interpolation):
    itk = pytest.importorskip("SimpleITK")
    from vxm_convert.geometry.warpfiles import write_warp
    from vxm_convert.nifti import write_nifti

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
    theirs = itk.GetArrayFromImage(itk.Resample(itk.ReadImage(str(tmp_path / "m.nii")), reference, transform, how, 0.0)).T
    ours = resample(image, warp, interpolation)
    fraction = np.abs(index_block(fixed.shape, slice(0, fixed.shape[0])) + warp.u) % 1
    # Rounding half up or half to even, and the border itself, are a matter of the last bit.
    clear = np.all(np.abs(fraction - 0.5) > 1e-4, axis=-1)
    assert clear.mean() > 0.9 and (ours > 0).mean() > 0.2 and np.abs(ours - theirs)[clear].max() < 2e-2


def test_clamping_is_the_networks_rule():
    rng = np.random.RandomState(0)
    labels, flow = rng.randint(0, 9, ISO.shape).astype(np.int32), rng.uniform(-6, 6, ISO.shape + (3,)).astype(np.float32)
    assert np.array_equal(resample(labels, Warp(flow, ISO, ISO), "nearest", edge="clamp"), warp_nearest(labels, flow))
    outside = resample(labels + 1, Warp(flow, ISO, ISO), "nearest", edge="zero") == 0
    assert np.array_equal(outside, ~ISO.contains(index_block(ISO.shape, slice(0, ISO.shape[0])) + flow)) and outside.any()


def test_label_safe_is_one_hot_linear_argmax():
    rng = np.random.RandomState(1)
    labels = rng.choice([0, 3, 7, 16777217, 16777219], ISO.shape).astype(np.int32)
    warp = Warp(rng.uniform(-2, 2, ISO.shape + (3,)), ISO, ISO)
    ids = np.unique(labels)
    onehot = np.stack([resample((labels == i).astype(np.float64), warp, "linear", "clamp") for i in ids])
    order = np.sort(onehot, axis=0)
    clear = order[-1] - order[-2] > 1e-6
    got = resample(labels, warp, "labels", "clamp")
    assert clear.mean() > 0.99 and np.array_equal(got[clear], ids[onehot.argmax(axis=0)][clear]) and got.dtype == np.int32
    tie = Warp(np.broadcast_to([0.5, 0.0, 0.0], (2, 1, 1, 3)).copy(), Grid((2, 1, 1), np.eye(4)), Grid((2, 1, 1), np.eye(4)))
    assert resample(np.array([9, 4]).reshape(2, 1, 1), tie, "labels")[0, 0, 0] == 4


def test_resampling_refuses_what_does_not_belong():
    warp = identity_warp(ISO, ISO)
    for image, how, message in ((np.zeros((2, 2, 2)), "linear", "another image"), (np.zeros(ISO.shape), "labels", "expected integers"),
                                (np.zeros(ISO.shape), "cubic", "expected one of")):
        with pytest.raises(VolumeError, match=message):
            resample(image, warp, how)
    assert to_dtype(np.array([-3.0, 254.6, 999.0]), np.uint8).tolist() == [0, 255, 255]


# --- inversion ---


@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_inverse_undoes_the_warp(pair):
    fixed, moving = PAIRS[pair]
    inverse, mask, report = invert(known_warp(fixed, moving))
    assert inverse.fixed == moving and inverse.moving == fixed
    assert report.moving_mm.n > 500 and report.moving_mm.max <= 1e-3 and report.not_converged == np.count_nonzero(mask & NOT_CONVERGED) == 0
    assert report.folded == 0 and report.outside == np.count_nonzero(mask & OUTSIDE) > 0
    assert report.fixed_mm.n > 500 and report.fixed_mm.mean < 0.05 and report.fixed_mm.p95 <= report.fixed_mm.max < 0.5
    some = np.argwhere(mask == 0)[::20]
    at = some + inverse.u[tuple(some.T)]
    some, at = (values[np.all((at >= 0) & (at <= np.array(fixed.shape) - 1), axis=1)] for values in (some, at))
    p, q = apply_affine(fixed.affine, at), apply_affine(moving.affine, some)
    assert len(p) > 30
    # The warp is sampled on voxels of about 1 mm, so it differs from the formula by its interpolation error.
    assert np.linalg.norm(p + displacement(p) - q, axis=-1).max() < 0.05


def test_folds_are_marked_and_counted():
    x = index_block(ISO.shape, slice(0, ISO.shape[0]))
    u = np.zeros(ISO.shape + (3,))
    u[..., 0] = 4 * np.sin(x[..., 0])
    warp = Warp(u, ISO, ISO)
    _, mask, report = invert(warp)
    assert report.folded == np.count_nonzero(mask & 1) > 0
    with pytest.raises(VolumeError, match="no inverse"):
        invert(Warp(-x, ISO, ISO))


# --- Jacobian ---


def test_determinant_is_a_volume_ratio_for_any_pair_of_grids():
    matrix = some_affine().pull
    for fixed, moving in PAIRS.values():
        warp = compose([Affine(matrix)], fixed, moving)
        np.testing.assert_allclose(determinant(warp), np.linalg.det(matrix[:3, :3]), rtol=1e-6)
        figures = jacobian_figures(warp)
        assert figures.folded == figures.strict_folded == 0 and figures.sdlogj < 1e-6


def test_strict_folding_by_brute_force():
    u = np.random.RandomState(2).uniform(-0.7, 0.7, (11, 6, 5, 3))
    grid = Grid((11, 6, 5), np.eye(4))
    m = index_block(grid.shape, slice(0, 11)) + u
    expected = np.zeros(grid.shape, bool)
    for index in np.ndindex(*grid.shape):
        for side in itertools.product((1, -1), repeat=3):
            columns = []
            for axis, step in enumerate(side):
                other = list(index)
                other[axis] += step if 0 <= index[axis] + step < grid.shape[axis] else -step
                sign = other[axis] - index[axis]
                columns.append((m[tuple(other)] - m[index]) * sign)
            expected[index] |= np.linalg.det(np.array(columns).T) <= 0
    assert np.array_equal(strict_folds(Warp(u, grid, grid)), expected) and 0.05 < expected.mean() < 0.95


def test_sdlogj_and_learn2regs_version_of_it():
    u = np.random.RandomState(2).uniform(-0.7, 0.7, (12, 11, 10, 3))
    grid = Grid((12, 11, 10), np.eye(4))
    gradients = [np.gradient(u[..., c]) for c in range(3)]
    j = np.linalg.det(np.moveaxis(np.array(gradients), (0, 1), (-2, -1)) + np.eye(3))
    figures, theirs = jacobian_figures(Warp(u, grid, grid)), jacobian_figures(Warp(u, grid, grid), l2r_compat=True)
    assert figures.sdlogj == pytest.approx(np.log(np.maximum(j, 1e-9)).std(), rel=1e-4) and "max(J, 1e-9)" in figures.sdlogj_formula
    assert theirs.sdlogj == pytest.approx(np.log(j[2:-2, 2:-2, 2:-2] + 3).std(), rel=1e-4) and theirs.folded == 0 < figures.folded
    assert figures.folded == np.count_nonzero(j <= 0) and figures.strict_folded > figures.folded
    with pytest.raises(VolumeError, match="mask"):
        jacobian_figures(Warp(u, grid, grid), np.zeros(grid.shape, bool))


# --- surface distance ---


def blobs(seed):
    from scipy.ndimage import gaussian_filter
    noise = gaussian_filter(np.random.RandomState(seed).normal(size=(14, 12, 13)), 2)
    return np.digitize(noise, np.percentile(noise, (55, 85))).astype(np.int16)


def test_surface_distance_by_brute_force():
    a, b, spacing = blobs(0), blobs(5), (1.0, 1.5, 0.7)

    def surface(volume, label):
        padded = np.pad(volume == label, 1, mode="constant")
        return np.array([i for i in np.argwhere(volume == label) if any(
            not padded[tuple(i + 1 + s * np.eye(3, dtype=int)[d])] for d in range(3) for s in (-1, 1))]) * spacing

    got = surface_distances(a, b, [1, 2, 9], spacing)
    for label in (1, 2):
        gaps = np.linalg.norm(surface(a, label)[:, np.newaxis] - surface(b, label), axis=-1)
        forth, back = gaps.min(axis=1), gaps.min(axis=0)
        assert got[label].hd95 == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)))
        assert got[label].assd == pytest.approx((forth.sum() + back.sum()) / (len(forth) + len(back)))
    assert np.isnan(got[9].hd95) and np.isnan(got[9].assd)
    same = surface_distances(a, a, [1], spacing)[1]
    assert same.hd95 == same.assd == 0


def test_surface_distance_with_simpleitks_filters():
    itk = pytest.importorskip("SimpleITK")
    # Their contour takes no voxel at the volume's face, so shapes stay off it.
    a, b = np.pad(blobs(0), 2, mode="constant"), np.pad(blobs(5), 2, mode="constant")
    images = []
    for volume in (a, b):
        image = itk.GetImageFromArray((volume == 2).astype(np.uint8).T)
        image.SetSpacing((1.0, 1.5, 0.7))
        images.append(image)
    sides = []
    for one, other in (images, images[::-1]):
        distance = itk.Abs(itk.SignedMaurerDistanceMap(itk.LabelContour(other), squaredDistance=False, useImageSpacing=True))
        sides.append(itk.GetArrayFromImage(distance)[itk.GetArrayFromImage(itk.LabelContour(one)) == 1])
    got = surface_distances(a, b, [2], (1.0, 1.5, 0.7))[2]
    assert got.hd95 == pytest.approx(max(np.percentile(side, 95) for side in sides), abs=1e-5)
    assert got.assd == pytest.approx(np.concatenate(sides).mean(), abs=1e-5)


# --- label sets, points ---


def test_label_sets_by_name_and_from_files(tmp_path):
    assert len(load_label_set("paper30").ids) == 30 and load_label_set("common24").names[2] == "Left-Cerebral-White-Matter"
    (tmp_path / "lut.txt").write_text("# FreeSurfer\n17 Left-Hippocampus 220 216 20 0\n\n2\n", encoding="utf-8")
    (tmp_path / "dseg.tsv").write_text("index\tname\tcolor\n5\tmine\t#ff0000\n", encoding="utf-8")
    found = load_label_set(str(tmp_path / "lut.txt"))
    assert found.ids == (2, 17) and found.names == {2: "Left-Cerebral-White-Matter", 17: "Left-Hippocampus"}
    assert load_label_set(str(tmp_path / "dseg.tsv")).names == {5: "mine"}
    for text, message in (("", "0 labels"), ("a b\nc d\n", "expected a label id"), ("1 x\n1 y\n", "stands twice")):
        (tmp_path / "bad.txt").write_text(text, encoding="utf-8")
        with pytest.raises(VolumeError, match=message):
            load_label_set(str(tmp_path / "bad.txt"))
    with pytest.raises(VolumeError, match="expected one of common24"):
        load_label_set("paper31")


def test_point_lists(tmp_path):
    (tmp_path / "p.csv").write_text("name,z,y,x\nac,3,2,1\n", encoding="utf-8")
    points = read_points(tmp_path / "p.csv")
    assert points.xyz.tolist() == [[1, 2, 3]]
    write_points(tmp_path / "q.csv", points, points.xyz * 2)
    assert (tmp_path / "q.csv").read_text(encoding="utf-8") == "name,z,y,x\nac,6.000000,4.000000,2.000000\n"
    grid = PAIRS["oblique"][0]
    for frame in ("ras", "lps", "voxel"):
        np.testing.assert_allclose(from_ras(to_ras(SOME, frame, grid), frame, grid), SOME, atol=1e-9)
    assert to_ras(SOME, "lps", None)[0].tolist() == [-3, 4, 5]
    bad = {"": "no points", "x,y\n1,2\n": "expected x, y and z", "1,2\n": "expected numbers", "1,2,nan\n": "finite"}
    for text, message in bad.items():
        (tmp_path / "p.csv").write_text(text, encoding="utf-8")
        with pytest.raises(VolumeError, match=message):
            read_points(tmp_path / "p.csv")


def test_a_packed_scan_header_needs_no_voxels(tmp_path):
    noise = np.random.RandomState(0).normal(size=(20, 20, 20)).astype(np.float32)
    (tmp_path / "i.nii.gz").write_bytes(gzip.compress(nib.Nifti1Image(noise, np.diag([2.0, 2, 2, 1])).to_bytes())[:-500])
    assert read_grid(tmp_path / "i.nii.gz").spacing_mm == (2, 2, 2)
    (tmp_path / "j.nii.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(VolumeError, match="not a readable"):
        read_grid(tmp_path / "j.nii.gz")
