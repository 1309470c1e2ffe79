# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage: the same image as ITK reads and as a NIfTI gives, and what is refused before memory is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import fakes, textual
from tests.support.registration_bench import Bench
from tests.support.textual import ARRAY, OBLIQUE
from vxm_convert.errors import VolumeError
from vxm_convert.scans.header_space import Trust
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile

SUFFIXES = (".nrrd", ".mha")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f8"])
def test_voxels_and_position(tmp_path: Path, suffix: str, packed: bool, dtype: str) -> None:
    array = ARRAY.astype(dtype)
    file = ScanFile(textual.write(tmp_path / f"a{suffix}", array, OBLIQUE, packed))
    assert file.trust is Trust.HEADER and np.allclose(file.grid.affine, OBLIQUE, atol=1e-9)
    image = file.image()
    assert image.stored_dtype == np.dtype(dtype).name and np.array_equal(image.data, array)
    labels = file.labels()
    assert labels is not None and np.array_equal(labels.data, array)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_itk(tmp_path: Path, suffix: str, packed: bool) -> None:
    """Written by SimpleITK from a NIfTI of known position; and ours are read by SimpleITK as such."""
    itk = pytest.importorskip("SimpleITK")
    right = np.linalg.qr(OBLIQUE[:3, :3])[0] * np.array([1.4, 1.1, 1.9])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = right, OBLIQUE[:3, 3]
    write_nifti(tmp_path / "a.nii", ARRAY.astype(np.int16), affine)
    itk.WriteImage(itk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / f"b{suffix}"), useCompression=packed)
    file = ScanFile(tmp_path / f"b{suffix}")
    assert np.allclose(file.grid.affine, affine, atol=1e-4) and np.array_equal(file.image().data, ARRAY)
    theirs = itk.ReadImage(str(textual.write(tmp_path / f"c{suffix}", ARRAY.astype(np.int16), affine, packed)))
    assert np.array_equal(itk.GetArrayFromImage(theirs).T, ARRAY)
    flip = np.diag([-1.0, -1.0, 1.0])
    for index in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (2, 3, 5)):
        there = flip @ np.array(theirs.TransformIndexToPhysicalPoint(index))
        assert np.allclose(there, (affine @ np.array([*index, 1]))[:3], atol=1e-6)


@pytest.mark.parametrize("space, flip", [("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))])
def test_spaces_of_nrrd(tmp_path: Path, space: str, flip: tuple) -> None:
    path = textual.write(tmp_path / "a.nrrd", ARRAY.astype("u1"), OBLIQUE, space=space)
    expected = np.diag([*flip, 1.0]) @ np.diag([-1.0, -1, 1, 1]) @ OBLIQUE
    assert np.allclose(ScanFile(path).grid.affine, expected)


@pytest.mark.parametrize(
    "name, replaced, trust",
    [
        ("a.nrrd", {"space": None}, Trust.NO_DIRECTIONS),
        ("a.nrrd", {"space": "3D-right-handed"}, Trust.NO_DIRECTIONS),
        ("a.nrrd", {"space directions": None, "space origin": None, "spacings": "2 2 2"}, Trust.NO_DIRECTIONS),
        ("a.mha", {"TransformMatrix": None}, Trust.NO_DIRECTIONS),
        (
            "a.mha",
            {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1 1"},
            Trust.IDENTITY,
        ),
    ],
)
def test_a_header_without_directions_is_not_trusted(tmp_path: Path, name: str, replaced: dict, trust: Trust) -> None:
    file = ScanFile(textual.write(tmp_path / name, ARRAY.astype("u1"), OBLIQUE, **replaced))
    assert file.trust is trust and file.notes


@pytest.mark.parametrize(
    "name, replaced, said",
    [
        ("a.nrrd", {"dimension": "4"}, "dimension '4', expected one 3-D scan"),
        ("a.nrrd", {"sizes": "20 23"}, "sides '20 23', expected three"),
        ("a.nrrd", {"sizes": "20 23 -26"}, "sides '20 23 -26'"),
        ("a.nrrd", {"sizes": "20 23 200000"}, "claims 20x23x200000 voxels, 92000000 bytes in total, the file has"),
        ("a.nrrd", {"sizes": "20 23 20"}, "claims 20x23x20 voxels"),
        ("a.nrrd", {"sizes": "9 9 " + "9" * 5000}, "sides '9 9 9999"),
        ("a.nrrd", {"type": "block"}, "voxels of type 'block'"),
        ("a.nrrd", {"encoding": "bzip2"}, "encoding 'bzip2', expected raw or gzip"),
        ("a.nrrd", {"data file": "/etc/passwd"}, "its voxels are in another file"),
        ("a.nrrd", {"byte skip": "-1"}, "do not start behind the header"),
        ("a.nrrd", {"space directions": "(1,0,0) (0,1,0) none"}, "expected three vectors"),
        ("a.nrrd", {"space directions": "(1,0,0) (0,1,0) (0,nan,0)"}, "expected 3 numbers"),
        ("a.nrrd", {"space directions": "(1,0,0) (0,1,0) (0,1,0)"}, "affine"),
        ("a.nrrd", {"space units": '"um" "um" "um"'}, "expected mm"),
        ("a.nrrd", {"units": '"cm" "cm" "cm"'}, "units .* expected mm"),
        ("a.nrrd", {"kinds": "vector domain domain"}, "an axis of the kind 'vector', expected three axes in space"),
        ("a.nrrd", {"kinds": "space space time"}, "an axis of the kind 'time'"),
        ("a.nrrd", {"kinds": "domain domain list"}, "an axis of the kind 'list'"),
        ("a.mha", {"NDims": "4"}, "NDims '4', expected one 3-D scan"),
        ("a.mha", {"DimSize": "20 23 9999999"}, "shape 20x23x9999999, expected between 1 and"),
        ("a.mha", {"ElementNumberOfChannels": "3"}, "several values per voxel"),
        ("a.mha", {"ElementDataFile": "other.raw"}, "its voxels are in another file"),
        ("a.mha", {"ElementDataFile": None}, "has no ElementDataFile"),
        ("a.mha", {"ElementType": "MET_STRING"}, "ElementType 'MET_STRING'"),
        ("a.mha", {"BinaryData": "False"}, "voxels written as text"),
        ("a.mha", {"HeaderSize": "-1"}, "do not start behind the header"),
        ("a.mha", {"ElementSpacing": "100 1 1"}, "expected 0.1 to 10 mm for a head"),
    ],
)
def test_hostile_headers(tmp_path: Path, name: str, replaced: dict, said: str) -> None:
    path = textual.write(tmp_path / name, ARRAY.astype("u1"), OBLIQUE, **replaced)
    with pytest.raises(VolumeError, match=said) as failed:
        ScanFile(path).image()
    assert str(path) in str(failed.value) and len(str(failed.value)) < 600


@pytest.mark.parametrize(
    "name, replaced",
    [
        ("a.nrrd", {"kinds": "space space space", "units": '"mm" "mm" "mm"'}),
        ("a.nrrd", {"kinds": "??? none domain"}),
        ("a.mha", {"ElementDataFile": "Local"}),
    ],
)
def test_other_spellings(tmp_path: Path, name: str, replaced: dict) -> None:
    file = ScanFile(textual.write(tmp_path / name, ARRAY.astype("u1"), OBLIQUE, **replaced))
    assert np.array_equal(file.image().data, ARRAY) and np.allclose(file.grid.affine, OBLIQUE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_data(tmp_path: Path, suffix: str) -> None:
    path = textual.write(tmp_path / f"a{suffix}", ARRAY.astype("u1"), OBLIQUE, packed=True)
    sound = path.read_bytes()
    turned = bytearray(sound)
    turned[-5] ^= 255
    for content, said in (
        (sound[:-9], "end too early"),
        (bytes(turned), "damaged data"),
        (sound[: len(sound) // 2], "damaged data|claims"),
        (b"", "expected an NRRD header|has no ElementDataFile"),
        (b"\0" * 4000, "expected an NRRD header|has no ElementDataFile"),
        (sound[:40], "has no end|has no ElementDataFile"),
    ):
        path.write_bytes(content)
        with pytest.raises(VolumeError, match=said):
            ScanFile(path).image()
    long = textual.write(tmp_path / f"b{suffix}", ARRAY.astype("u1"), OBLIQUE, packed=True).read_bytes()
    path.write_bytes(long.replace(b"20 23 26", b"20 23 25"))
    with pytest.raises(VolumeError, match="the voxels are more than the 11500 bytes"):
        ScanFile(path).image()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_result_is_that_of_a_nifti(tmp_path: Path, monkeypatch, suffix: str) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.inputs.mkdir()
    image, seg = fakes.brain(1)
    for kind in (suffix, ".nii.gz"):
        for name, array in (("a", image), ("a_seg", seg)):
            path = bench.inputs / f"{name}{kind}"
            if kind == ".nii.gz":
                write_nifti(path, array, textual.LIA)
            else:
                textual.write(path, array, textual.LIA)
        assert bench.run() == 0
        for path in bench.inputs.iterdir():
            path.unlink()
        bench.out.rename(tmp_path / kind)
    for name in ("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz"):
        one, other = ((tmp_path / kind / "a" / name).read_bytes() for kind in (suffix, ".nii.gz"))
        assert one == other
