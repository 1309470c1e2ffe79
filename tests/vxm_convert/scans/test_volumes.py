# SPDX-License-Identifier: Apache-2.0
"""Reading scans and segmentations, hostile archives, the checks, and the intensity rule."""

from __future__ import annotations

import io
import zipfile

import nibabel as nib
import numpy as np
import pytest

from vxm_convert.errors import VolumeError
from vxm_convert.geometry.orientations import axis_codes, spacing_mm
from vxm_convert.intensities.rules import load_scan
from vxm_convert.model.contract import NetworkAxes
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.scans import npz
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.npz import NpzReader
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import check_values, narrowed

SHAPE = (4, 5, 6)
RULE = IntensityRule()


def image(dtype=np.float32, top=255.0):
    return np.linspace(0, top, int(np.prod(SHAPE))).reshape(SHAPE).astype(dtype)


def save(path, data, affine=None, **npz):
    if path.suffix == ".npz":
        np.savez_compressed(str(path), vol=data, **npz)
    elif path.suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(data, np.eye(4) if affine is None else affine), str(path))
    else:
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), str(path))
    return path


def member(header: bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(header).to_bytes(width, "little") + header + data


def archive(path, **members: bytes):
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name + ".npy", data)
    return path


def test_network_affine_is_the_crop_of_the_conformed_volume():
    expected = [[-1, 0, 0, 80], [0, 0, 1, -125], [0, -1, 0, 97], [0, 0, 0, 1]]
    assert np.array_equal(network_affine((160, 192, 224)), expected)
    crop = nib.affines.from_matvec([[-1, 0, 0], [0, 0, 1], [0, -1, 0]], [128, -128, 128]) @ nib.affines.from_matvec(
        np.eye(3), [48, 31, 3]
    )
    assert np.array_equal(network_affine((160, 192, 224)), crop)


def test_other_grids_share_the_centre():
    for shape, grid in (((32, 48, 64), NetworkAxes()), ((16, 16, 16), NetworkAxes("RAS", (2.0, 1.0, 1.5)))):
        affine = network_affine(shape, grid)
        assert np.allclose(affine @ [shape[0] / 2, shape[1] / 2, shape[2] / 2, 1], [0, -13, 1, 1])
        assert axis_codes(affine) == grid.orientation
        assert spacing_mm(affine) == pytest.approx(grid.spacing_mm)


def test_a_grid_without_three_axes_is_refused():
    with pytest.raises(VolumeError, match="one of each"):
        network_affine((16, 16, 16), NetworkAxes("LLA"))


@pytest.mark.parametrize("name", ["s.npz", "s.nii", "s.nii.gz", "s.mgz", "s.mgh"])
def test_every_format_gives_the_same_array(tmp_path, name):
    data = image()
    read = ScanFile(save(tmp_path / name, data)).image(SHAPE)
    assert read.data.dtype == np.float32 and read.data.flags["C_CONTIGUOUS"]
    assert np.array_equal(read.data, data)
    assert (read.affine is None) == name.endswith(".npz")
    assert read.stored_dtype == "float32"


def test_legacy_array_name_and_order(tmp_path):
    np.savez(str(tmp_path / "s.npz"), vol_data=np.asfortranarray(image(np.float64)))
    assert np.array_equal(ScanFile(tmp_path / "s.npz").image().data, image(np.float64).astype(np.float32))


def test_big_endian_arrays(tmp_path):
    np.savez(str(tmp_path / "s.npz"), vol=image(">f4"), seg=np.arange(120).reshape(SHAPE).astype(">i2"))
    assert np.array_equal(ScanFile(tmp_path / "s.npz").image().data, image())
    labels = ScanFile(tmp_path / "s.npz").labels()
    assert labels.data.dtype == np.dtype("=i2") and labels.data[3, 4, 5] == 119


def test_trailing_sides_of_one_are_dropped_and_frames_refused(tmp_path):
    assert ScanFile(save(tmp_path / "one.nii.gz", image()[..., np.newaxis])).image(SHAPE).data.shape == SHAPE
    for name in ("two.nii.gz", "two.npz"):
        with pytest.raises(VolumeError, match=r"4-D volume 4x5x6x2, expected one 3-D scan"):
            ScanFile(save(tmp_path / name, np.zeros(SHAPE + (2,), np.float32))).image(SHAPE)
    with pytest.raises(VolumeError, match="2-D volume"):
        ScanFile(save(tmp_path / "flat.npz", np.zeros((4, 5), np.float32))).image(SHAPE)


def test_another_shape_says_what_the_network_wants(tmp_path):
    with pytest.raises(VolumeError, match=r"s.nii: shape 4x5x6, the network needs 160x192x224"):
        ScanFile(save(tmp_path / "s.nii", image())).image((160, 192, 224))


@pytest.mark.parametrize(
    "name, data",
    [
        ("text.nii.gz", b"hello"),
        ("text.npz", b"hello"),
        ("text.mgz", b"hello"),
        ("empty.nii", b""),
        ("empty.npz", b""),
        ("odd.txt", b"x"),
    ],
)
def test_what_is_no_volume(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VolumeError, match=name):
        ScanFile(tmp_path / name).image()


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii", "cut.mgz", "cut.npz"])
def test_truncated_files(tmp_path, name):
    noise = np.random.RandomState(0).uniform(0, 255, (16, 16, 16)).astype(np.float32)
    path = save(tmp_path / name, noise)
    assert ScanFile(path).image().data.shape == (16, 16, 16)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VolumeError, match=name):
        ScanFile(path).image()


def test_missing_files(tmp_path):
    for name in ("no.npz", "no.nii.gz"):
        with pytest.raises(VolumeError, match=name):
            ScanFile(tmp_path / name).image()


def test_a_nifti_header_that_claims_too_much_is_refused_before_loading(tmp_path):
    path = save(tmp_path / "huge.nii", image())
    data = bytearray(path.read_bytes())
    data[40:48] = np.array([3, 32000, 32000, 32000], "<i2").tobytes()
    path.write_bytes(bytes(data))
    with pytest.raises(VolumeError, match="32000x32000x32000"):
        ScanFile(path).image()


def test_colour_nifti_is_no_scan(tmp_path):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), str(tmp_path / "rgb.nii"))
    with pytest.raises(VolumeError, match="colour"):
        ScanFile(tmp_path / "rgb.nii").image()


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000, 100000), }"
SMALL = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 5, 6), }"


@pytest.mark.parametrize(
    "data, message",
    [
        (member(HUGE), "header is damaged"),
        (member(SMALL, b"\0" * 10), "bytes in the archive"),
        (member(SMALL, b"\0" * 481), "bytes in the archive"),
        (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 5, 6), }", b"\0" * 960), "never unpickled"),
        (
            member(b"{'descr': '<c8', 'fortran_order': False, 'shape': (4, 5, 6), }", b"\0" * 960),
            "plain integers or floats",
        ),
        (
            member(b"{'descr': '<U4', 'fortran_order': False, 'shape': (4, 5, 6), }", b"\0" * 1920),
            "plain integers or floats",
        ),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 5, 6), }"), "negative side"),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5, 6), }"), "expected between 1"),
        (member(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4.5, 5, 6), }"), "malformed"),
        (member(b"__import__('os').getcwd()"), "malformed"),
        (member(b"(" * 5000), "malformed"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "the .npy header claims 4294967295 bytes"),
        (b"\x93NUMPY\x09\x00\x10\x00", "not a .npy array"),
        (b"PK", "not a .npy array"),
        (b"", "not a .npy array"),
    ],
    ids=range(15),
)
def test_hostile_npz_members(tmp_path, data, message):
    with pytest.raises(VolumeError, match=message):
        ScanFile(archive(tmp_path / "evil.npz", vol=data)).image()


def test_no_memory_is_taken_for_a_claimed_size(tmp_path):
    with NpzReader(
        archive(tmp_path / "evil.npz", vol=member(SMALL.replace(b"(4, 5, 6)", b"(512, 512, 513)")))
    ) as reader:
        with pytest.raises(VolumeError, match="expected at most 1000"):
            reader.read("vol", 1000)


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    path = archive(tmp_path / "lie.npz", vol=member(SMALL, b"\0" * 480))
    data = path.read_bytes()
    raw = len(member(SMALL, b"\0" * 480))
    # Central directory and local header both claim the raw size; the archive then holds a shorter stream.
    short = io.BytesIO()
    with zipfile.ZipFile(short, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("vol.npy", member(SMALL, b"\0" * 100))
    have = len(member(SMALL, b"\0" * 100))
    forged = short.getvalue().replace(have.to_bytes(4, "little"), raw.to_bytes(4, "little"))
    assert forged != data
    path.write_bytes(forged)
    with pytest.raises(VolumeError, match="lie.npz"):
        ScanFile(path).image()


def test_an_npz_without_the_array_lists_what_it_holds(tmp_path):
    np.savez(str(tmp_path / "s.npz"), other=image())
    with pytest.raises(VolumeError, match=r"contains \['other'\], expected an array named vol or vol_data"):
        ScanFile(tmp_path / "s.npz").image()
    assert ScanFile(tmp_path / "s.npz").labels() is None


def test_labels_keep_their_dtype_or_become_int32(tmp_path):
    for dtype, expected in ((np.uint8, np.uint8), (np.int16, np.int16), (np.float64, np.int32), (np.bool_, np.uint8)):
        labels = (np.arange(120).reshape(SHAPE) % 2).astype(dtype)
        read = ScanFile(save(tmp_path / "s.npz", image(), seg=labels)).labels()
        assert read.data.dtype == expected and np.array_equal(read.data, labels)


@pytest.mark.parametrize(
    "ids, dtype, held",
    [
        ((0, 255), "int32", "uint8"),
        ((0, 2035), "int32", "uint16"),
        ((-1, 77), "int64", "int8"),
        ((-1, 200), "int32", "int16"),
        ((0, 70000), "int32", "int32"),
        ((0, 2**40), "int64", "int64"),
        ((-1, 2**63 - 1), "int64", "int64"),
        ((0, 3), "uint8", "uint8"),
    ],
)
def test_ids_are_held_in_the_smallest_dtype(ids, dtype, held):
    given = np.array(ids, dtype)
    found = narrowed(given)
    assert found.dtype == held and np.array_equal(found, given) and (found is given) == (held == dtype)
    assert narrowed(given[:0]).dtype == dtype


def test_labels_that_were_interpolated_are_refused(tmp_path):
    labels = np.zeros(SHAPE)
    labels[0, 0, :2] = 1.5, np.nan
    with pytest.raises(VolumeError, match="2 voxels are not whole numbers"):
        ScanFile(save(tmp_path / "s.npz", image(), seg=labels)).labels()


def test_nan_and_constant_scans(tmp_path):
    data = image()
    data[1, 2, 3] = np.nan
    data[3, 0, 0] = np.inf
    with pytest.raises(VolumeError, match=r"2 voxels are NaN or infinite, the first at index \(1, 2, 3\)"):
        check_values(ScanFile(save(tmp_path / "s.npz", data)).image())
    with pytest.raises(VolumeError, match="every voxel is 7"):
        check_values(ScanFile(save(tmp_path / "c.npz", np.full(SHAPE, 7.0))).image())


def test_float64_beyond_float32_is_not_finite(tmp_path):
    data = image(np.float64)
    data[0, 0, 0] = 1e300
    with pytest.raises(VolumeError, match="infinite"):
        check_values(ScanFile(save(tmp_path / "s.nii", data)).image())


@pytest.mark.parametrize(
    "top, name, factor",
    [(255.0, "0..255", 255), (110.0, "0..255", 255), (1.0, "0..1", 1), (0.4, "0..1", 1), (1.001, "0..1", 1)],
)
def test_conventions_are_told_apart(tmp_path, top, name, factor):
    volume, found = load_scan(ScanFile(save(tmp_path / "s.npz", image(top=top))), SHAPE, RULE)
    assert (found.name, found.factor) == (name, factor)
    assert volume.data.max() == pytest.approx(top / factor, rel=1e-6)
    assert volume.data.dtype == np.float32


@pytest.mark.parametrize(
    "low, top, message",
    [
        (0, 4095, r"intensities 0..4095, expected 0..255 or 0..1"),
        (-3, 3, "expected 0..255"),
        (-1, 200, "expected 0..255"),
        (0, 1.4, "both conventions or neither"),
        (0, 20, "both conventions or neither"),
    ],
)
def test_what_fits_no_convention(tmp_path, low, top, message):
    data = image(top=top)
    data[0, 0, 0] = low
    with pytest.raises(VolumeError, match=message):
        load_scan(ScanFile(save(tmp_path / "s.npz", data)), SHAPE, RULE)


def test_equal_headers_of_a_cohort_are_parsed_once(tmp_path, monkeypatch):
    npz._parsed.cache_clear()
    parsed, real = [], npz.npy_format.read_array_header_1_0
    monkeypatch.setattr(npz.npy_format, "read_array_header_1_0", lambda file: parsed.append(1) or real(file))
    for number, shape in enumerate([(3, 5, 7), (3, 5, 7), (7, 5, 3)]):
        path = tmp_path / f"s{number}.npz"
        np.savez(str(path), vol=np.full(shape, number, np.int16))
        with NpzReader(path) as archive:
            assert archive.header("vol").shape == shape
            assert np.array_equal(archive.read("vol", 1 << 10), np.full(shape, number, np.int16))
    assert len(parsed) == 2
