# SPDX-License-Identifier: Apache-2.0
"""Warp files: round trips through foreign libraries, bytes, side-cars, hostile input."""

from __future__ import annotations

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pytest

from tests.support.grids import PAIRS, displacement, known_warp, points_of
from vxm_convert.errors import FormatError, VolumeError
from vxm_convert.geometry import compiled
from vxm_convert.geometry.fields import Warp, identity_warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.transforms import freesurfer, warps
from vxm_convert.transforms.formats import FORMATS
from vxm_convert.transforms.nifti_field import MAX_FIELD_VOXELS
from vxm_convert.transforms.warps import read_warp, write_warp

#: the promise, in mm
LIMIT = 1e-5
PAIR_NAMES = sorted(PAIRS)


def in_mm(warp, other):
    return np.linalg.norm((warp.u - other.u) @ warp.moving.affine[:3, :3].T, axis=-1).max()


@pytest.mark.parametrize("pair", PAIR_NAMES)
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_our_own_round_trip(tmp_path, pair, form):
    warp = known_warp(*PAIRS[pair])
    write_warp(tmp_path / "w.nii.gz", warp, form, {"moving": "0" * 64})
    back = read_warp(tmp_path / "w.nii.gz")
    moved = back.on_moving(warp.moving)
    assert in_mm(warp, moved) < LIMIT
    if form != "itk":
        assert back.moving.shape == warp.moving.shape
    side = json.loads((tmp_path / "w.nii.gz.json").read_text(encoding="utf-8"))
    assert (
        side["warp_format"] == form
        and side["unit"] == FORMATS[form].unit
        and "fixed points to moving points" in side["maps"]
    )
    assert side["made_from"] == {"moving": "0" * 64} and side["moving_grid"]["shape"] == list(warp.moving.shape)


@pytest.mark.parametrize("pair", PAIR_NAMES)
@pytest.mark.parametrize("form", ["freesurfer", "fsl", "itk"])
def test_a_field_made_while_it_is_written_has_the_bytes_of_the_whole(tmp_path, monkeypatch, pair, form):
    pytest.importorskip("numba")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    fixed, moving = PAIRS[pair]
    warp = Warp(known_warp(fixed, moving).u.astype(np.float32), fixed, moving)
    write_warp(tmp_path / "made.nii.gz", warp, form)
    monkeypatch.setattr(warps, "frame_planes", lambda *args: None)
    write_warp(tmp_path / "whole.nii.gz", warp, form)
    made, whole = ((tmp_path / f"{name}.nii.gz").read_bytes() for name in ("made", "whole"))
    assert made == whole and len(whole) > 1000


def test_a_field_made_while_it_is_written_is_refused_beyond_float32(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv(compiled.VARIABLE, "numba")
    grid = Grid((6, 5, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
    u = np.zeros((6, 5, 4, 3), dtype=np.float32)
    u[5, 4, 3, 2] = 3e38
    with pytest.raises(VolumeError, match="do not fit float32"):
        write_warp(tmp_path / "w.nii.gz", Warp(u, grid, grid))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_simpleitk_reads_our_itk_warp(tmp_path, pair):
    itk = pytest.importorskip("SimpleITK")
    fixed, moving = PAIRS[pair]
    write_warp(tmp_path / "w.nii.gz", known_warp(fixed, moving), "itk")
    image = itk.ReadImage(str(tmp_path / "w.nii.gz"))
    field = itk.GetArrayFromImage(image).transpose(2, 1, 0, 3).astype(np.float64) * (-1, -1, 1)
    ras = points_of(fixed)
    assert np.linalg.norm(field - displacement(ras), axis=-1).max() < LIMIT
    transform = itk.DisplacementFieldTransform(itk.Cast(image, itk.sitkVectorFloat64))
    for index in ((0, 0, 0), (5, 11, 8), tuple(n - 1 for n in fixed.shape)):
        where = image.TransformIndexToPhysicalPoint(index)
        got = np.array(transform.TransformPoint(where)) * (-1, -1, 1)
        assert np.linalg.norm(got - (ras + displacement(ras))[index]) < LIMIT


@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_fslpy_reads_our_fsl_warp(tmp_path, pair):
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    image = pytest.importorskip("fsl.data.image")
    fixed, moving = PAIRS[pair]
    for name, grid in (("fixed", fixed), ("moving", moving)):
        nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), str(tmp_path / (name + ".nii.gz")))
    write_warp(tmp_path / "w.nii.gz", known_warp(fixed, moving), "fsl")
    source, reference = (image.Image(str(tmp_path / (name + ".nii.gz"))) for name in ("moving", "fixed"))
    field = fnirt.readFnirt(str(tmp_path / "w.nii.gz"), source, reference)
    assert field.deformationType == "relative"
    ras = points_of(fixed)[::3, ::3, ::3].reshape(-1, 3)
    got = field.transform(ras, from_="world", to="world")
    assert np.isfinite(got).all() and np.linalg.norm(got - ras - displacement(ras), axis=-1).max() < LIMIT


@pytest.mark.parametrize("pair", PAIR_NAMES)
def test_nibabel_reads_our_freesurfer_warp(tmp_path, pair):
    fixed, moving = PAIRS[pair]
    write_warp(tmp_path / "w.nii.gz", known_warp(fixed, moving), "freesurfer")
    image = nib.load(str(tmp_path / "w.nii.gz"))
    header = image.header
    assert (
        image.shape == fixed.shape + (1, 3)
        and int(header["intent_code"]) == 1006
        and header.get_xyzt_units() == ("mm", "sec")
    )
    assert np.linalg.norm(np.asarray(image.dataobj)[:, :, :, 0] - displacement(points_of(fixed)), axis=-1).max() < LIMIT
    assert [e.get_code() for e in header.extensions] == [14]
    geometry = freesurfer.decode(header.extensions[0].get_content())
    assert geometry.kind == "disp_ras" and geometry.source.shape == moving.shape
    np.testing.assert_allclose(geometry.source.affine, moving.affine, atol=1e-5)
    np.testing.assert_allclose(geometry.target.affine, fixed.affine, atol=1e-5)


def test_bytes_of_the_freesurfer_extension():
    content = freesurfer.encode(Grid((2, 3, 4), np.eye(4)), Grid((5, 6, 7), np.eye(4)))
    assert content[:4] == b">\x00\x03\x01"
    assert struct.unpack(">iqi3i3f", content[4:44]) == (10, 160, 1, 2, 3, 4, 1.0, 1.0, 1.0)
    assert content[-13:] == struct.pack(">iq", -1, 1) + b"*"
    assert len(content) == 4 + 12 + 160 + 12 + 184 + 12 + 12 + 13


@pytest.mark.parametrize("cut", [0, 3, 20, 100, 300])
def test_a_damaged_freesurfer_extension(cut):
    content = freesurfer.encode(PAIRS["oblique"][0], PAIRS["oblique"][1])
    with pytest.raises(FormatError):
        freesurfer.decode(content[:cut])


def test_surfa_reads_our_freesurfer_warp(tmp_path):
    surfa = pytest.importorskip("surfa")
    fixed, moving = PAIRS["LIA from anisotropic LPS"]
    write_warp(tmp_path / "w.nii.gz", known_warp(fixed, moving), "freesurfer")
    warp = surfa.load_warp(str(tmp_path / "w.nii.gz"))
    np.testing.assert_allclose(warp.source.vox2world.matrix, moving.affine, atol=1e-5)


def test_big_displacements_keep_their_promise_in_space_formats(tmp_path):
    """Grids 250 mm apart: voxel differences are large, the displacement in space is not."""
    far = np.array([[1.0, 0, 0, 250], [0, 1, 0, -180], [0, 0, 1, 90], [0, 0, 0, 1]])
    warp = known_warp(PAIRS["iso RAS"][0], Grid((20, 20, 20), far))
    assert np.abs(warp.u).max() > 200
    for form in ("itk", "freesurfer"):
        write_warp(tmp_path / "w.nii.gz", warp, form)
        assert in_mm(warp, read_warp(tmp_path / "w.nii.gz", moving=warp.moving)) < 1e-6


def test_half_precision_npz_and_its_limit(tmp_path):
    fixed, _ = PAIRS["iso RAS"]
    warp = known_warp(fixed, fixed)
    write_warp(tmp_path / "w.npz", warp, "l2r", dtype="float16")
    with np.load(str(tmp_path / "w.npz"), allow_pickle=False) as archive:
        assert archive["arr_0"].dtype == np.float16 and archive["arr_0"].shape == fixed.shape + (3,)
    assert np.abs(read_warp(tmp_path / "w.npz").u - warp.u).max() < 0.002
    (tmp_path / "w.npz.json").unlink()
    with pytest.raises(VolumeError, match="pass the fixed image"):
        read_warp(tmp_path / "w.npz")
    assert read_warp(tmp_path / "w.npz", fixed=fixed).fixed == fixed
    with pytest.raises(VolumeError, match="write float32"):
        write_warp(tmp_path / "v.npz", Warp(warp.u + 1e5, fixed, fixed), "l2r", dtype="float16")


def test_what_cannot_be_written(tmp_path):
    fixed, moving = PAIRS["iso RAS"]
    warp = known_warp(fixed, moving)
    sheared = np.array(fixed.affine)
    sheared[0, 1] = 0.3
    for wrong, form, name, message in (
        (warp, "itk", "w.mgz", "change the name"),
        (warp, "nrrd", "w.nii", "expected one of"),
        (Warp(np.full_like(warp.u, np.nan), fixed, moving), "itk", "w.nii", "NaN or infinite"),
        (identity_warp(Grid(fixed.shape, sheared), moving), "itk", "w.nii", "sheared"),
    ):
        with pytest.raises(VolumeError, match=message):
            write_warp(tmp_path / name, wrong, form)
    assert not list(tmp_path.iterdir())


def test_a_side_car_of_other_bytes_is_not_believed(tmp_path):
    fixed, moving = PAIRS["LIA from anisotropic LPS"]
    write_warp(tmp_path / "w.nii", known_warp(fixed, moving), "vxm")
    data = bytearray((tmp_path / "w.nii").read_bytes())
    data[-1] ^= 1
    (tmp_path / "w.nii").write_bytes(bytes(data))
    with pytest.raises(VolumeError, match="does not define the meaning of the numbers"):
        read_warp(tmp_path / "w.nii")
    with pytest.raises(VolumeError, match="100 % of its voxels are folded"):
        read_warp(tmp_path / "w.nii", "vxm")
    assert read_warp(tmp_path / "w.nii", "vxm", moving).moving.shape == moving.shape


SHAPE = (6, 7, 8)


def save(path, shape=SHAPE + (1, 3), intent=1007, dtype=np.float32, edit=None, value=0.0):
    image = nib.Nifti1Image(np.full(shape, value, dtype), np.eye(4))
    image.header["intent_code"] = intent
    raw = bytearray(image.to_bytes())
    if edit is not None:
        edit(raw)
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))
    return path


def put(form, offset, *values):
    return lambda raw: struct.pack_into("<" + form, raw, offset, *values)


HOSTILE = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_bytes(b"no nifti" * 100), "expected a (NIfTI|gzip stream)"),
    "short": (
        lambda p: p.write_bytes(struct.pack("<i", 348) + bytes(100)),
        "ends after 104 bytes|expected a gzip stream",
    ),
    "negative zooms": (lambda p: save(p, edit=put("f", 80, -1.0)), "positive numbers of mm"),
    "NaN zooms": (lambda p: save(p, edit=put("f", 84, np.nan)), "positive numbers of mm"),
    "huge dims": (
        lambda p: save(p, edit=put("6h", 40, 5, 30000, 30000, 30000, 1, 3)),
        "the header claims 30000x30000x30000x1x3",
    ),
    "header asks for more": (lambda p: save(p, edit=put("6h", 40, 5, 60, 70, 80, 1, 3)), "claims|damaged"),
    "voxels far away": (lambda p: save(p, edit=put("f", 108, 2e9)), "start at byte"),
    "NaN": (lambda p: save(p, value=np.nan), "NaN or infinite, the first at index"),
    "integers": (lambda p: save(p, dtype=np.int16), "lost its fractions"),
    "scalar image": (lambda p: save(p, shape=SHAPE, intent=0), "one displacement of three components"),
    "no intent": (lambda p: save(p, intent=0), "ANTs would treat this as the identity"),
    "4-D vector": (lambda p: save(p, shape=SHAPE + (3,)), "ANTs would treat this as the identity"),
    "4-D voxels": (lambda p: save(p, shape=SHAPE + (3,), intent=0), "ANTs would treat this as the identity"),
    "coefficients": (lambda p: save(p, shape=SHAPE + (3,), intent=2007), "fnirtfileutils"),
    "FSL without moving": (lambda p: save(p, shape=SHAPE + (3,), intent=2006), "pass the moving image"),
    "zero affine": (lambda p: save(p, edit=put("12f", 280, *[0.0] * 12)), "affine"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_warps(tmp_path, name, suffix):
    make, message = HOSTILE[name]
    path = tmp_path / ("w" + suffix)
    make(path)
    with pytest.raises(VolumeError, match=message) as caught:
        read_warp(path)
    assert str(path) in str(caught.value)


def test_truncated_and_bombs(tmp_path):
    good = save(tmp_path / "good.nii.gz", value=1.0).read_bytes()
    read_warp(tmp_path / "good.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes(good[:-20])
    (tmp_path / "cut_early.nii.gz").write_bytes(good[:30])
    bomb = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2, 1, 3), np.float32), np.eye(4)).to_bytes()[:352])
    struct.pack_into("<6h", bomb, 40, 5, 400, 400, 400, 1, 3)
    struct.pack_into("<h", bomb, 68, 1007)
    assert 400**3 < MAX_FIELD_VOXELS
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(bomb)))
    for name, message in (("cut", "damaged"), ("cut_early", "damaged|expected a NIfTI"), ("bomb", "claims")):
        with pytest.raises(VolumeError, match=message):
            read_warp(tmp_path / (name + ".nii.gz"))
    with pytest.raises(VolumeError, match="no such file"):
        read_warp(tmp_path / "none.nii.gz")


def test_a_format_that_the_header_contradicts(tmp_path):
    with pytest.raises(VolumeError, match="its header is that of itk"):
        read_warp(save(tmp_path / "w.nii"), "fsl")
    with pytest.raises(VolumeError, match="belongs to another image"):
        read_warp(tmp_path / "w.nii", fixed=Grid((9, 9, 9), np.eye(4)))


def test_absolute_fsl_coordinates_are_recognised(tmp_path):
    grid = Grid(SHAPE, np.eye(4))
    warp = identity_warp(grid, grid)
    write_warp(tmp_path / "w.nii", warp, "fsl")
    image = nib.load(str(tmp_path / "w.nii"))
    index = (
        np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1) @ grid.to_fsl()[:3, :3].T
        + grid.to_fsl()[:3, 3]
    )
    absolute = nib.Nifti1Image(index.astype(np.float32), np.eye(4))
    absolute.header["intent_code"] = int(image.header["intent_code"])
    nib.save(absolute, str(tmp_path / "a.nii"))
    with pytest.raises(VolumeError, match="absolute coordinates"):
        read_warp(tmp_path / "a.nii", moving=grid)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 4, 5, 6), np.float32), "expected floats of shape"),
        (np.zeros(SHAPE + (3,), np.int16), "expected floats"),
        (np.zeros((4, 4, 4, 3), np.float32), "the fixed grid is"),
        (np.full(SHAPE + (3,), np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_hostile_npz(tmp_path, array, message):
    np.savez(str(tmp_path / "w.npz"), array)
    with pytest.raises(VolumeError, match=message):
        read_warp(tmp_path / "w.npz", fixed=Grid(SHAPE, np.eye(4)))
