# SPDX-License-Identifier: Apache-2.0
"""The corpus of hostile files through every reader: one message that names the file, nothing else raised, little memory
taken.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import hostile
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.geometry.maps import compose
from vxm_convert.geometry.resample import resample
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.scans.values import check_values
from vxm_convert.text import printable
from vxm_convert.transforms.warps import read_warp, write_warp

#: what reading the whole corpus may add to a process: a file's honest voxels are 8 KB, its bombs hold 3 GB
MEMORY_LIMIT = 48 << 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return hostile.write_all(tmp_path_factory.mktemp("hostile"))


def one_message(error: Exception, path: Path, parts: tuple) -> None:
    said = str(error)
    assert said.startswith(str(path)) and said.count(str(path)) <= 2, said
    missing = [part for part in parts if part not in said]
    assert not missing, (missing, said)
    assert "\n" not in said and len(said) < 600, said


@pytest.mark.parametrize("case", sorted(hostile.CORPUS))
def test_no_scan(corpus, case):
    with pytest.raises(VolumeError) as caught:
        check_values(ScanFile(corpus[case]).image(hostile.SHAPE if corpus[case].suffix != ".npz" else None))
    one_message(caught.value, corpus[case], hostile.CORPUS[case].parts)


@pytest.mark.parametrize("case", sorted(hostile.LABELS))
def test_no_segmentation(corpus, case):
    with pytest.raises(VolumeError) as caught:
        ScanFile(corpus[case]).labels()
    one_message(caught.value, corpus[case], hostile.LABELS[case].parts)


def honest_scan(folder):
    hostile.nifti(folder / "honest.nii.gz")
    return folder / "honest.nii.gz"


def honest_warp(folder):
    grid = Grid(hostile.SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
    write_warp(folder / "honest.nii.gz", Warp(np.zeros(grid.shape + (3,), np.float32), grid, grid), "itk")
    return folder / "honest.nii.gz"


READERS = {
    "image": lambda path: ScanFile(path).image(),
    "labels": lambda path: ScanFile(path).labels(),
    "header": lambda path: (ScanFile(path).grid, ScanFile(path).trust, ScanFile(path).notes),
    "warp": read_warp,
}
#: what only the voxels give away
GOOD_HEADERS = {
    *("fewer voxels than claimed, gz", "more voxels than claimed", "more voxels than claimed, gz"),
    *("gz bomb behind the voxels", "gz bomb, mgz", "NaN", "infinite", "slope beyond float32", *hostile.LABELS),
}
#: Reader → an honest file for it, and what of the corpus it takes: labels of an .npz without a segmentation are None.
TAKEN = {
    "header": (honest_scan, GOOD_HEADERS),
    "labels": (honest_scan, {"zip bomb", "claims 500 cubed, npz", "huge sides, npz", "objects in an npz"}),
    "warp": (honest_warp, set()),
}


@pytest.mark.parametrize("reader", sorted(TAKEN))
def test_every_reader_ends_well_or_with_one_message(corpus, tmp_path, reader):
    honest, harmless = TAKEN[reader]
    assert READERS[reader](honest(tmp_path)) is not None
    taken = {}
    for case, path in corpus.items():
        try:
            taken[case] = READERS[reader](path)
        except VolumeError as exc:
            one_message(exc, path, ())
    # How far beyond the header a gzip stream is read depends on the version of Python.
    assert set(taken) - ({"truncated gz"} if reader == "header" else set()) == harmless
    assert reader != "labels" or set(taken.values()) == {None}


def test_damage_anywhere_in_a_header_ends_well_or_with_one_message(tmp_path):
    """Some bytes overwritten, 60 times for each of five kinds of file, from a fixed seed."""
    hostile.nifti(tmp_path / "n2.nii", kind=nib.Nifti2Image)
    hostile.renamed_npz(tmp_path / "z.npz")
    whole = {"a.nii": hostile.nifti_bytes(), "b.mgh": hostile.mgh_bytes(), "c.nii": hostile.extended(32)}
    whole.update({"d.nii": (tmp_path / "n2.nii").read_bytes(), "e.npz": (tmp_path / "z.npz").read_bytes()})
    random = np.random.RandomState(6)
    for name, content in whole.items():
        path = tmp_path / name
        path.write_bytes(content)
        # An .npz without a segmentation has no labels, whatever its bytes.
        readers = ("image", "header") + (("labels",) if path.suffix != ".npz" else ())
        outcomes = {reader: [0, 0] for reader in readers}
        for reader in outcomes:
            READERS[reader](path)
        for _ in range(60):
            raw = bytearray(content)
            for place in random.randint(0, 560, size=random.randint(1, 5)):
                raw[place] = random.choice([0, 1, 127, 128, 255])
            path.write_bytes(bytes(raw))
            for reader, counts in outcomes.items():
                try:
                    READERS[reader](path)
                    counts[0] += 1
                except VolumeError as exc:
                    counts[1] += 1
                    one_message(exc, path, ())
        # taken and refused, each of them by every reader
        assert all(min(counts) >= 2 for counts in outcomes.values()), (name, outcomes)


def test_little_memory_is_taken(corpus):
    """In a process of its own: this one's peak has other reasons."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from /proc")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import nibabel, numpy, nibabel.cifti2\n"
        "from vxm_convert.errors import VolumeError\n"
        "from vxm_convert.scans.scan_file import ScanFile\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) << 10 for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    for read in (ScanFile.image, ScanFile.labels):\n"
        "        try:\n"
        "            read(ScanFile(Path(path)))\n"
        "        except VolumeError:\n"
        "            pass\n"
        "print(peak() - before)\n"
    )
    paths = [str(path) for path in corpus.values()]
    root = str(Path(hostile.__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program] + paths, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < MEMORY_LIMIT, f"{int(done.stdout) >> 20} MB"


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_not_set_leaves_the_voxels_as_they_are(tmp_path, slope):
    (tmp_path / "a.nii").write_bytes(hostile.nifti_bytes(b112=hostile.floats(slope, 7.0)))
    assert np.array_equal(ScanFile(tmp_path / "a.nii").image().data, hostile.image(np.float32))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_honest_files_of_either_byte_order(tmp_path, kind, order, name):
    data = hostile.image(np.int16)
    made = kind(data, np.eye(4))
    header = made.header.as_byteswapped(order) if made.header.endianness != order else made.header
    image = kind(data, np.diag([-1.0, 1, 1, 1]), header)
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, str(tmp_path / name))
    volume = ScanFile(tmp_path / name).image()
    assert (
        np.allclose(volume.data, np.asarray(nib.load(str(tmp_path / name)).dataobj))
        and volume.data.shape == hostile.SHAPE
    )


def test_rubbish_in_a_cifti_extension_is_left_alone_or_refused(tmp_path):
    """Which of both depends on nibabel's version; the XML parser's own error must not come through."""
    path = tmp_path / "a.nii"
    path.write_bytes(hostile.extended(32, 32))
    try:
        assert np.array_equal(ScanFile(path).image().data, hostile.image(np.float32))
    except VolumeError as exc:
        one_message(exc, path, ("not a readable .nii",))


def test_what_freesurfer_writes_behind_the_voxels_is_no_damage(tmp_path):
    hostile.packed(hostile.mgh_bytes() + bytes(20) + b"\0\0\0\3mri_convert a b" * 500)(tmp_path / "a.mgz")
    assert np.array_equal(ScanFile(tmp_path / "a.mgz").image().data, hostile.image(np.float32))


@pytest.mark.parametrize("how", ["nearest", "labels"])
def test_ids_above_2_to_the_24_survive_exactly(tmp_path, how):
    """float32 would make one of two neighbouring ids out of both."""
    data = np.zeros((6, 6, 6), np.int32)
    data[1:3, 1:5, 1:5], data[3:5, 1:5, 1:5] = 2**24 + 1, 2**31 - 1
    grid = Grid(data.shape, np.eye(4))
    write_nifti(tmp_path / "a.nii.gz", data, grid.affine)
    moved = resample(ScanFile(tmp_path / "a.nii.gz").labels().data, compose([Affine(np.eye(4))], grid, grid), how)
    write_nifti(tmp_path / "b.nii.gz", moved, grid.affine)
    back = np.asarray(nib.load(str(tmp_path / "b.nii.gz")).dataobj)
    assert back.dtype == np.int32 and np.array_equal(back, data)


def test_ids_below_0_are_kept_and_said(tmp_path, caplog):
    hostile.nifti(tmp_path / "a_seg.nii", hostile.with_value(-3).astype(np.int16))
    assert ScanFile(tmp_path / "a_seg.nii").labels().data.min() == -3
    assert "1 voxels have ids below 0, down to -3" in caplog.text


def test_an_image_that_float32_rounds_is_said(tmp_path, caplog):
    data = hostile.image(np.int32)
    data[0, 0, 0] = 2**24 + 1
    hostile.nifti(tmp_path / "a.nii", data)
    ScanFile(tmp_path / "a.nii").image()
    assert "values up to 16777217, read as float32, which rounds above 16777216" in caplog.text


@pytest.mark.parametrize(
    "raw, shown",
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\x00", "a\\rb\\x00"),
        ("\u202egz.iin", "\\u202egz.iin"),
        ("\udcff.nii", "\\udcff.nii"),
        ("Äther\n\tßcan 脑.nii", "Äther\n\tßcan 脑.nii"),
    ],
)
def test_names_cannot_write_on_the_terminal(raw, shown):
    assert printable(raw) == shown
