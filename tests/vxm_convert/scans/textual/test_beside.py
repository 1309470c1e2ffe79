# SPDX-License-Identifier: Apache-2.0
"""Headers with their voxels in a file beside them: the same image as ITK reads, names that lead elsewhere, one hash for
both files.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import fakes, textual
from tests.support.registration_bench import Bench
from tests.support.textual import ARRAY, OBLIQUE, write
from vxm_convert.errors import VolumeError
from vxm_convert.inspection.verify import BROKEN, OK, _Sums, verify_folders
from vxm_convert.scans.header import read_header
from vxm_convert.scans.header_space import Trust
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile, scan_sha256

pytestmark = pytest.mark.any_python("bytes of files and NumPy arrays")

SUFFIXES = (".nhdr", ".mhd")
FIELD = {".nhdr": "data file", ".mhd": "ElementDataFile"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", ">i2", "<f4"])
def test_voxels_and_position(tmp_path: Path, suffix: str, packed: bool, dtype: str) -> None:
    array = ARRAY.astype(dtype)
    file = ScanFile(write(tmp_path / f"a b{suffix}", array, OBLIQUE, packed))
    assert file.trust is Trust.HEADER and np.allclose(file.grid.affine, OBLIQUE, atol=1e-9)
    assert np.array_equal(file.image().data, array) and file.image().stored_dtype == np.dtype(dtype).name


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_itk(tmp_path: Path, suffix: str, packed: bool) -> None:
    itk = pytest.importorskip("SimpleITK")
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * np.array([1.4, 1.1, 1.9])
    affine[:3, 3] = OBLIQUE[:3, 3]
    write_nifti(tmp_path / "a.nii", ARRAY.astype(np.int16), affine)
    itk.WriteImage(itk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / f"b{suffix}"), useCompression=packed)
    assert len(list(tmp_path.glob("b.*"))) == 2
    file = ScanFile(tmp_path / f"b{suffix}")
    assert file.trust is Trust.HEADER and np.allclose(file.grid.affine, affine, atol=1e-4)
    assert np.array_equal(file.image().data, ARRAY)
    if suffix != ".hdr":
        theirs = itk.ReadImage(str(write(tmp_path / f"c{suffix}", ARRAY.astype(np.int16), affine, packed)))
        assert np.array_equal(itk.GetArrayFromImage(theirs).T, ARRAY)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_in_any_script(tmp_path: Path, suffix: str) -> None:
    """Some of their bytes end a line in Latin-1."""
    path = write(tmp_path / f"全脑{suffix}", ARRAY.astype("u1"), OBLIQUE, content="先 Å\x1cx")
    assert np.array_equal(ScanFile(path).image().data, ARRAY)


def test_a_number_of_bytes_before_the_voxels(tmp_path: Path) -> None:
    for suffix, field in ((".mhd", "HeaderSize"), (".nhdr", "byte skip")):
        path = write(tmp_path / f"a{suffix}", ARRAY.astype("u1"), OBLIQUE, **{field: "7"})
        data = tmp_path / f"a{suffix}.raw"
        data.write_bytes(b"before." + data.read_bytes())
        assert np.array_equal(ScanFile(path).image().data, ARRAY)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "name, said",
    [
        ("/etc/passwd", "the name of one file in the folder of the header; copy that file there"),
        ("../outside.raw", "in the folder of the header"),
        ("sub/inside.raw", "in the folder of the header"),
        ("..\\outside.raw", "in the folder of the header"),
        ("C:outside.raw", "in the folder of the header"),
        ("..", "expected the name of one file"),
        (".", "expected the name of one file"),
        ("x" * 300, "expected the name of one file"),
        ("a\x1bb.raw", "expected the name of one file"),
        ("LIST", "in several files .'LIST'."),
        ("LIST 2D", "in several files"),
        ("slice%03d.raw 1 500000 1", "in several files"),
        ("none.raw", "which is not beside it .No such file or directory.; copy both files"),
        ("link.raw", "which is a link"),
        ("pipe.raw", "which is no regular file"),
        ("folder.raw", "which is no regular file"),
        ("HEADER", "which is the header itself"),
    ],
)
def test_a_name_that_leads_elsewhere(tmp_path: Path, suffix: str, name: str, said: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    sound = ARRAY.astype("u1").tobytes(order="F")
    for place in (tmp_path / "outside.raw", folder / "sub" / "inside.raw"):
        place.write_bytes(sound)
    (folder / "link.raw").symlink_to(tmp_path / "outside.raw")
    os.mkfifo(str(folder / "pipe.raw"))
    (folder / "folder.raw").mkdir()
    named = f"a{suffix}" if name == "HEADER" else name
    path = write(folder / f"a{suffix}", ARRAY.astype("u1"), OBLIQUE, **{FIELD[suffix]: named})
    with pytest.raises(VolumeError, match=said) as failed:
        ScanFile(path).image()
    assert str(path) in str(failed.value) and len(str(failed.value)) < 600


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_checked_before_the_voxels_are_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", ARRAY.astype("u1"), OBLIQUE)
    data = tmp_path / f"a{suffix}.raw"
    sound = data.read_bytes()
    for content in (sound[:-1], sound + b"\0", b""):
        data.write_bytes(content)
        with pytest.raises(VolumeError, match=f"claims 20x23x26 voxels, 11960 bytes in total, {data.name} has"):
            ScanFile(path).grid  # noqa: B018  # the header alone
    field = "byte skip" if suffix == ".nhdr" else "HeaderSize"
    for skip, has in (("6", 11961), ("999999999", 0)):
        write(path, ARRAY.astype("u1"), OBLIQUE, **{field: skip})
        data.write_bytes(b"before." + sound)
        with pytest.raises(VolumeError, match=f"{data.name} has {has};"):
            ScanFile(path).grid  # noqa: B018  # the voxels start at byte 7
    with pytest.raises(VolumeError, match="expected between 1 and"):
        ScanFile(write(path, ARRAY.astype("u1"), **{"sizes": "9999 9999 9999", "DimSize": "9999 9999 9999"})).image()


def test_a_header_without_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nhdr", ARRAY.astype("u1"), data_file=None)
    with pytest.raises(VolumeError, match="its voxels are in '', expected the name of one file"):
        ScanFile(path).image()
    write(tmp_path / "a.mha", ARRAY.astype("u1"), OBLIQUE).rename(tmp_path / "b.mhd")
    assert np.array_equal(ScanFile(tmp_path / "b.mhd").image().data, ARRAY), "voxels behind the header: LOCAL"


def test_both_files_count_in_the_hash(tmp_path: Path) -> None:
    path, data = write(tmp_path / "a.mhd", ARRAY.astype("u1"), OBLIQUE), tmp_path / "a.mhd.raw"
    file = ScanFile(path)
    before = file.sha256
    assert before == hashlib.sha256(path.read_bytes() + data.read_bytes()).hexdigest() == scan_sha256(path)
    sums = _Sums()
    sums.claim(path, before, "run.json")
    voxels = data.read_bytes()
    data.write_bytes(bytes(255 - value for value in voxels))
    os.utime(str(data), (1, 1))
    assert file.sha256 != before and np.array_equal(file.image().data, 255 - ARRAY)
    assert [link.state for link in sums.links()] == [OK]
    changed = _Sums()
    changed.claim(path, before, "run.json")
    assert [link.state for link in changed.links()] == [BROKEN]
    data.unlink()
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest(), "its reading says what is missing"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "<i2", "<f4"])
def test_analyze_has_voxels_and_no_place(tmp_path: Path, big: bool, dtype: str) -> None:
    itk = pytest.importorskip("SimpleITK")
    file = ScanFile(textual.write_analyze(tmp_path / "a", ARRAY.astype(dtype), (1.5, 2.0, 1.0), big))
    assert file.trust is Trust.NO_DIRECTIONS and "no trusted directions" in file.notes[-1]
    assert np.allclose(np.abs(np.diag(file.grid.affine)), (1.5, 2.0, 1.0, 1.0))
    assert np.array_equal(file.image().data, ARRAY) and file.image().stored_dtype == np.dtype(dtype).name
    theirs = itk.ReadImage(str(file.path), imageIO="NiftiImageIO")
    assert np.array_equal(itk.GetArrayFromImage(theirs).T, ARRAY)
    assert np.allclose(theirs.GetSpacing(), (1.5, 2.0, 1.0))


@pytest.mark.parametrize(
    "fields, said",
    [
        (
            {"dim": (40, "5h", 4, 20, 23, 26, 3)},
            "4-D volume 20x23x26x3, expected one 3-D scan; extract a single frame first$",
        ),
        ({"dim": (40, "5h", 4, 20, 23, -26, 1)}, "shape 20x23x-26x1, expected between 1 and"),
        ({"dim": (40, "h", 900)}, "900 dimensions, expected 1 to 7"),
        ({"dim": (40, "5h", 4, 20, 23, 27, 1)}, "claims 20x23x27 voxels, 12420 bytes in total, a.img has 11960"),
        ({"datatype": (70, "h", 128)}, "voxels of type 128, expected one of 2, 4, 8, 16, 64"),
        ({"pixdim": (80, "3f", 1, -1, 1)}, "voxel sizes 1, -1, 1, expected positive"),
        ({"vox_offset": (108, "f", -20)}, "start at byte -20"),
        ({"funused1": (112, "f", 0.37)}, "a factor of 0.37 .funused1., which SPM applies"),
        ({"sizeof_hdr": (0, "i", 349)}, "expected a NIfTI-1 or NIfTI-2 header"),
        ({"magic": (344, "4s", b"n+1\0")}, "save a scan as a single .nii file"),
    ],
)
def test_hostile_headers_of_pairs(tmp_path: Path, fields: dict, said: str) -> None:
    path = textual.write_analyze(tmp_path / "a", ARRAY.astype("u1"), **fields)
    with pytest.raises(VolumeError, match=said):
        ScanFile(path).image()


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair, nib.AnalyzeImage])
def test_an_image_with_more_than_its_voxels(tmp_path: Path, kind) -> None:
    """They start elsewhere than the header says: read from there, every voxel would be a neighbour's."""
    nib.save(kind(ARRAY.astype("u1"), textual.LIA), str(tmp_path / "a.hdr"))
    image = tmp_path / "a.img"
    image.write_bytes(b"front" + image.read_bytes())
    with pytest.raises(VolumeError, match="11960 bytes in total, a.img has 11965"):
        ScanFile(tmp_path / "a.hdr").grid  # noqa: B018  # the header alone


def test_a_pair_without_its_image(tmp_path: Path) -> None:
    path = textual.write_analyze(tmp_path / "a", ARRAY.astype("u1"))
    (tmp_path / "a.img").unlink()
    with pytest.raises(VolumeError, match="a.img: no such file, expected the voxels of a.hdr"):
        ScanFile(path).image()
    (tmp_path / "a.img.gz").write_bytes(b"")
    with pytest.raises(VolumeError, match="a.img.gz: the voxels of a.hdr, expected a.img; unpack it with gunzip"):
        ScanFile(path).image()
    for name, advice in (("a.img", "; give its header, a.hdr"), ("a.hdr.gz", "; convert it to .nii.gz by unpacking")):
        with pytest.raises(VolumeError, match=f"{name}: unknown kind of file, expected one of .*{advice}"):
            read_header(tmp_path / name)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VolumeError, match="the header ends after 200 bytes, expected 348"):
        ScanFile(path).image()


def test_lists_pairs_reruns_and_provenance(tmp_path: Path, monkeypatch, caplog) -> None:
    """The header is the scan; a changed file of the voxels is a changed scan."""
    bench = Bench(tmp_path, monkeypatch)
    bench.inputs.mkdir()
    for number, name in ((1, "a.mhd"), (2, "b.nhdr")):
        for ending, array in zip(("", "_seg"), fakes.brain(number)):
            write(bench.inputs / name.replace(".", f"{ending}."), array)
    nib.save(nib.Nifti1Pair(fakes.brain(3)[0], textual.LIA), str(bench.inputs / "c.hdr"))
    (bench.inputs / "some.txt").write_text("a.mhd\nb.nhdr\nc.hdr\n")
    folder, bench.inputs = bench.inputs, bench.inputs / "some.txt"
    assert bench.run() == 0 and [row["subject"] for row in bench.table("metrics.tsv")] == ["a", "b", "c"]
    assert [row["dice_after"] != "n/a" for row in bench.table("metrics.tsv")] == [True, True, False]
    assert [link for link in verify_folders([bench.out]) if link.state == BROKEN] == []
    data = folder / "a.mhd.raw"
    data.write_bytes(np.ascontiguousarray(fakes.brain(4)[0].T).tobytes())
    caplog.set_level(logging.INFO)
    assert bench.run() == 0 and "1 to register, 2 unchanged" in caplog.text
    (folder / "p.csv").write_text("moving,fixed\na.mhd,b.nhdr\n")
    bench.out = tmp_path / "pairs"
    assert bench.run("--pairs", str(folder / "p.csv")) == 0
    (row,) = bench.table("metrics.tsv")
    assert (row["subject"], row["source"], row["fixed"]) == ("a__b", "a.mhd", "b.nhdr")
