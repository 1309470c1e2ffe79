# SPDX-License-Identifier: Apache-2.0
"""The corpus of hostile files as a cohort, as arguments of every verb, and as training data: one row or one message
each.
"""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest

from om_runner.__main__ import main
from tests.support import fakes, hostile
from tests.support.registration_bench import Bench
from train.data.checks import check_cohort
from train.data.cohort import Cohort
from train.data.scan_list import Subject
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.transforms.warps import write_warp

#: what a folder of scans is not asked about: nothing there may be opened
SKIPPED = ("a folder", "a named pipe", "a device")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return hostile.write_all(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    for name, seed in (("aa", 1), ("zz", 2)):
        fakes.write_scan(made.inputs / f"{name}.npz", seed)
    return made


def put(path, target):
    """The hostile file under another name in the same kind of place; links and folders by link."""
    if os.path.islink(str(path)) and not path.exists():
        os.symlink(str(path), str(target))
    else:
        (shutil.copyfile if path.is_file() else os.symlink)(str(path), str(target))


def test_every_file_of_the_corpus_is_one_row_and_the_others_are_registered(bench, corpus, caplog):
    cases = {}
    for number, (case, path) in enumerate((c, p) for c, p in corpus.items() if c in hostile.CORPUS):
        cases[f"{number:02d}"] = case
        put(path, bench.inputs / (f"{number:02d}" + path.name[1:]))
    with caplog.at_level(logging.WARNING):
        assert bench.run() == 1
    rows = {row["subject"][:2]: row for row in bench.table("failures.tsv")}
    assert sorted(cases[number] for number in rows) == sorted(set(hostile.CORPUS).difference(SKIPPED))
    for number, row in rows.items():
        # An .npz without a header of its own is asked for the network's shape before anything else.
        parts = ("the network needs",) if "the network needs" in row["reason"] else hostile.CORPUS[cases[number]].parts
        missing = [part for part in parts if part not in row["reason"]]
        assert row["stage"] == "read" and row["file"] in row["reason"] and not missing, (missing, row)
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["aa", "zz"]
    folders = sorted(p.name for p in bench.out.iterdir() if p.is_dir() and p.name not in (".om_runner", "report", "qc"))
    assert folders == ["aa", "zz"], "nothing of a failed scan is left"
    assert caplog.text.count("expected a scan in one file; skipped") == len(SKIPPED)


def test_a_hostile_segmentation_fails_its_scan_alone(bench, corpus):
    for number, case in enumerate(sorted(hostile.LABELS)):
        hostile.nifti(bench.inputs / f"{number}.nii", fakes.brain(number)[0])
        put(corpus[case], bench.inputs / f"{number}_seg.nii")
    assert bench.run() == 1
    reasons = {row["subject"]: row["reason"] for row in bench.table("failures.tsv")}
    assert sorted(reasons) == [str(number) for number in range(len(hostile.LABELS))]
    for number, case in enumerate(sorted(hostile.LABELS)):
        assert all(part in reasons[str(number)] for part in hostile.LABELS[case].parts), reasons[str(number)]


@pytest.mark.parametrize(
    "name",
    [b"a\x1b[2J.npz", b"a\nb.npz", b"\xff\xfe.npz", "脑 scan.npz".encode()],
    ids=["escape", "newline", "no-utf8", "chinese"],
)
def test_names_of_any_bytes(bench, name):
    made = fakes.write_scan(bench.inputs / "made.npz", 3)
    os.rename(str(made).encode(), str(bench.inputs).encode() + b"/" + name)
    (bench.inputs / "broken\x1b[31m.nii.gz").write_bytes(b"")
    # pytest keeps log records as they are, and cannot hand those with bytes that are no UTF-8 from one of its workers
    # to the other.
    logging.disable(logging.CRITICAL)
    try:
        assert bench.run() == 1
    finally:
        logging.disable(logging.NOTSET)
    assert len(bench.table("metrics.tsv")) == 3
    (failure,) = bench.table("failures.tsv")
    assert "\x1b" not in failure["reason"] + failure["file"] and "\\x1b[31m" in failure["file"]


def test_a_hostile_atlas_stops_the_run_before_anything_is_written(bench, corpus):
    honest = bench.atlas
    for case, path in corpus.items():
        if case in hostile.LABELS:
            continue
        bench.atlas = path
        with pytest.raises(VolumeError) as caught:
            bench.run()
        assert str(path) in str(caught.value) and not bench.out.exists(), case
    bench.atlas = honest
    assert bench.run() == 0 and bench.out.exists()


#: one of each way in which a file goes wrong; the readers that verbs call are tested with all
CHOSEN = (
    "empty file",
    "truncated gz",
    "gz bomb behind the voxels",
    "zip bomb",
    "claims 500 cubed from 8 KB",
    "huge sides, NIfTI-2",
    "claims 500 cubed, npz",
    "four frames",
    "NaN",
    "singular affine",
    "complex",
    "nifti as mgz",
    "objects in an npz",
    "a folder",
    "a named pipe",
    "a loop of links",
    "interpolated",
)


def verbs(folder, given):
    """Every verb with the file in every place that takes an image, a segmentation, a warp or points."""
    warp, image, out = folder / "warp.nii.gz", folder / "image.nii.gz", folder / "out" / "made.nii.gz"
    table, labels = folder / "out" / "made.csv", folder / "labels.nii.gz"
    return {
        "image": ("apply", "--transform", warp, "--image", given, "--out", out),
        "labels": ("apply", "--transform", warp, "--image", given, "--interpolation", "labels", "--out", out),
        "transform": ("apply", "--transform", given, "--image", image, "--out", out),
        "fixed": ("apply", "--transform", warp, "--image", image, "--fixed", given, "--out", out),
        "points": ("apply", "--transform", warp, "--points", given, "--out", table),
        "convert": ("convert-warp", "--warp", given, "--warp-format", "itk", "--out", out),
        "evaluate": ("evaluate", "--fixed-seg", given, "--moved-seg", labels, "--out", table),
        "invert": ("invert", "--warp", given, "--inverse", out),
        "jacobian": ("jacobian", "--warp", given, "--map", out),
        "mask": ("jacobian", "--warp", warp, "--mask", given, "--map", out),
    }


#: place of a verb → its honest file, and files of the corpus that do no harm there: of `--fixed` only the header is
#: read, an image may have voxels that are no number, a mask anything but 0
PLACES = {
    "image": ("image.nii.gz", {"NaN", "interpolated"}),
    "labels": ("image.nii.gz", set()),
    "transform": ("warp.nii.gz", set()),
    "fixed": ("image.nii.gz", {"NaN", "interpolated", "gz bomb behind the voxels"}),
    "points": ("points.csv", set()),
    "convert": ("warp.nii.gz", set()),
    "evaluate": ("labels.nii.gz", set()),
    "invert": ("warp.nii.gz", set()),
    "jacobian": ("warp.nii.gz", set()),
    "mask": ("image.nii.gz", {"interpolated"}),
}


@pytest.fixture
def folder(tmp_path):
    """An honest image, warp and table of points for the verbs."""
    grid = Grid(hostile.SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))
    write_warp(tmp_path / "warp.nii.gz", Warp(np.zeros(grid.shape + (3,), np.float32), grid, grid), "itk")
    hostile.nifti(tmp_path / "image.nii.gz")
    # Two structures of FreeSurfer, white matter and cortex of the left side.
    hostile.nifti(
        tmp_path / "labels.nii.gz",
        np.where(np.arange(np.prod(hostile.SHAPE)) % 2, 2, 3).reshape(hostile.SHAPE).astype(np.uint8),
    )
    (tmp_path / "points.csv").write_text("x,y,z,t\n-1,2,3,0\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("place", sorted(PLACES))
def test_every_verb_says_one_thing_and_writes_nothing(folder, corpus, capsys, place):
    honest, harmless = PLACES[place]
    assert main([str(word) for word in verbs(folder, folder / honest)[place]]) == 0
    assert any((folder / "out").iterdir()), "the honest file shows that the verb works"
    shutil.rmtree(str(folder / "out"))
    capsys.readouterr()
    taken = set()
    for case, path in ((case, corpus[case]) for case in CHOSEN):
        code = main([str(word) for word in verbs(folder, path)[place]])
        said = capsys.readouterr().err
        made = list((folder / "out").iterdir()) if (folder / "out").exists() else []
        if code == 0:
            taken.add(case)
            shutil.rmtree(str(folder / "out"))
            continue
        assert code == 1 and said.count(": error: ") == 1 and "Traceback" not in said, (case, said)
        assert str(path) in said and not made, (case, said)
    if place == "fixed":
        # How far beyond the header a gzip stream is read depends on the version of Python.
        taken.discard("truncated gz")
    assert taken == harmless


def test_training_lists_every_file_and_stops(corpus, tmp_path):
    bad = [corpus[case] for case in hostile.CORPUS]
    honest = fakes.write_scan(tmp_path / "honest.npz", 1)
    with pytest.raises(VolumeError) as caught:
        check_cohort(Cohort(tuple(Subject(path) for path in bad + [honest])), None, None, hostile.SHAPE, False)
    said = str(caught.value)
    for path in bad:
        assert f"  {path} " in said
    assert said.startswith(f"{len(bad)} of {len(bad) + 1} training scans cannot be used")
    assert "Traceback" not in said and str(honest) not in said
