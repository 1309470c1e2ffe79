# SPDX-License-Identifier: Apache-2.0
"""Pictures during a run and from the files of an earlier one; damaged results are named and do not stop the others."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest

from om_runner.__main__ import main
from om_runner.qc.record import read_record
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.artifacts.files import sha256_of, write_sidecar
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.scans.nifti import write_nifti


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    fakes.write_scan(made.inputs / "a.npz", 1)
    fakes.write_scan(made.inputs / "b & c.npz", 2, with_seg=False)
    return made


def qc(*words):
    return main(["qc", "--quiet", *(str(word) for word in words)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("space", ["atlas", "network", "native"])
def test_a_run_draws_what_the_verb_draws(bench, space):
    assert bench.run("--outputs", "moved,warp,seg,qc", "--space", space) == 0
    drawn = bench.out / "qc"
    assert names(drawn) == ["a", "b___c", "index.html"] and "index.html" in names(drawn / "a")
    first = {subject: read_record(drawn / subject / "record.json") for subject in ("a", "b___c")}
    assert (
        first["a"].simulated is True
        and first["a"].moved_labels
        and first["b___c"].by_labels
        and not first["b___c"].moved_labels
    )
    assert first["a"].figures["dice_after"] is not None and first["b___c"].figures["dice_after"] is None
    assert qc("--registered", bench.out, "--out", bench.out.parent / "again") == 0
    for subject, record in first.items():
        again = read_record(bench.out.parent / "again" / subject / "record.json")
        assert again.pictures == record.pictures and again.warnings == record.warnings and again.notes == ()
        for name, value in record.figures.items():
            assert again.figures[name] == (value if value is None else pytest.approx(value, abs=2e-3)), name


def test_the_pictures_are_in_the_list_of_hashes(bench):
    assert bench.run("--outputs", "moved,warp,qc") == 0
    sums = read_manifest(bench.out / "SHA256SUMS")
    listed = {name: digest for name, digest in sums.items() if name.startswith("qc/")}
    on_disk = {path.relative_to(bench.out).as_posix() for path in (bench.out / "qc").rglob("*") if path.is_file()}
    assert set(listed) == on_disk and all(sha256_of(bench.out / name) == digest for name, digest in listed.items())
    assert qc("--registered", bench.out, "--subject", "a") == 0
    listed = read_manifest(bench.out / "SHA256SUMS")
    assert all(sha256_of(bench.out / name) == digest for name, digest in listed.items() if name.startswith("qc/"))


def test_a_second_run_keeps_them_and_draws_what_is_missing(bench):
    assert bench.run("--outputs", "moved,qc") == 0
    thumb = bench.out / "qc" / "a" / "thumb.png"
    before = thumb.stat().st_mtime_ns
    assert bench.run("--outputs", "moved,qc") == 0
    assert thumb.stat().st_mtime_ns == before and (bench.out / "qc" / "index.html").is_file()
    shutil.rmtree(str(bench.out / "qc" / "a"))
    assert bench.run("--outputs", "moved,qc") == 0
    assert thumb.is_file()


def test_failed_scans_are_on_the_page(bench):
    (bench.inputs / "bad.npz").write_bytes(b"PK not a zip")
    assert bench.run("--outputs", "moved,qc") == 1
    page = (bench.out / "qc" / "index.html").read_text(encoding="utf-8")
    assert "1 not registered" in page and "bad" in page
    assert qc("--registered", bench.out, "--out", bench.out.parent / "p") == 0
    assert "1 not registered" in (bench.out.parent / "p" / "index.html").read_text(encoding="utf-8")


def test_without_a_warp_or_the_scan_the_rest_is_drawn(bench):
    assert bench.run("--outputs", "moved") == 0
    (bench.inputs / "a.npz").unlink()
    fakes.write_scan(bench.inputs / "b & c.npz", 7)
    assert qc("--registered", bench.out) == 0
    gone, changed = (read_record(bench.out / "qc" / subject / "record.json") for subject in ("a", "b___c"))
    assert "grid" not in gone.pictures and "before" not in gone.pictures and len(gone.notes) == len(changed.notes) == 2
    assert "is no longer at its path in the run" in gone.notes[0] and "has changed since the run" in changed.notes[0]


def damage_moved(folder):
    path = folder / "moved.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])


def damage_honestly(folder):
    path = folder / "moved.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    _resign(path)


def nan_warp(folder):
    path = folder / "flow.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-4:] = np.float32("nan").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    _resign(path)


def nan_moved(folder):
    write_nifti(folder / "moved.nii.gz", np.full(fakes.SHAPE, np.nan, np.float32), np.eye(4))
    _resign(folder / "moved.nii.gz")


def other_atlas(folder):
    path = folder / "moved.nii.gz"
    _resign(path, atlas="0" * 64)


def no_sidecar(folder):
    (folder / "moved.nii.gz.json").unlink()


def foolish_sidecar(folder):
    (folder / "moved.nii.gz.json").write_text("[1", encoding="utf-8")


def foolish_placement(folder):
    _resign(folder / "moved.nii.gz", placement={"moving_grid": {"shape": [1, 2], "affine": "x"}})


def other_shape(folder):
    write_nifti(folder / "flow.nii.gz", np.zeros((4, 4, 4, 1, 3), np.float32), np.eye(4), np.float32, intent="vector")
    _resign(folder / "flow.nii.gz")


def gone(folder):
    (folder / "moved.nii.gz").unlink()


def _resign(path, atlas=None, **changes):
    side = json.loads((path.parent / (path.name + ".json")).read_text(encoding="utf-8"))
    side.update(changes)
    made_from = {**side.pop("made_from"), **({"atlas": atlas} if atlas else {})}
    rest = {key: value for key, value in side.items() if key not in ("file", "sha256", "toolchain")}
    write_sidecar(path, made_from, side["toolchain"], **rest)


@pytest.mark.parametrize(
    "damage, words",
    [
        (damage_moved, "sha256"),
        (damage_honestly, "moved.nii.gz: "),
        (nan_warp, "NaN"),
        (nan_moved, "NaN"),
        (other_atlas, "another fixed image"),
        (no_sidecar, "cannot read"),
        (foolish_sidecar, "not JSON"),
        (foolish_placement, "damaged placement"),
        (other_shape, "is on"),
        (gone, "missing"),
    ],
)
def test_one_damaged_subject_does_not_stop_the_others(bench, damage, words, caplog):
    assert bench.run("--outputs", "moved,warp,seg") == 0
    damage(bench.out / "a")
    assert qc("--registered", bench.out) == 1
    assert [
        record.getMessage()
        for record in caplog.records
        if words in record.getMessage() and record.getMessage().startswith("a: ")
    ]
    page = (bench.out / "qc" / "index.html").read_text(encoding="utf-8")
    assert names(bench.out / "qc") == ["b___c", "index.html"] and "1 subject, 0 with warnings, 1 not registered" in page


def test_the_pages_can_show_one_subject_and_find_the_fixed_image_elsewhere(bench, tmp_path):
    assert bench.run("--outputs", "moved,warp") == 0
    assert qc("--registered", bench.out, "--out", tmp_path / "one", "--subject", "a") == 0
    assert names(tmp_path / "one") == ["a", "index.html"]
    elsewhere = tmp_path / "elsewhere.npz"
    shutil.move(str(bench.atlas), str(elsewhere))
    assert qc("--registered", bench.out, "--out", tmp_path / "two") == 1 and not (tmp_path / "two").exists()
    assert qc("--registered", bench.out, "--out", tmp_path / "two", "--atlas", elsewhere) == 0
    assert names(tmp_path / "two") == ["a", "b___c", "index.html"]


def test_wrong_folders_and_names(bench, tmp_path, capsys):
    def error(*words):
        assert qc(*words) == 1
        return capsys.readouterr().err

    assert "no such folder" in error("--registered", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "run.json" in error("--registered", tmp_path / "empty")
    (tmp_path / "empty" / "run.json").write_text("{}", encoding="utf-8")
    assert "no subject" in error("--registered", tmp_path / "empty")
    assert names(tmp_path / "empty") == ["run.json"]
    (tmp_path / "empty" / "dataset_description.json").write_text("{}", encoding="utf-8")
    assert "BIDS derivative" in error("--registered", tmp_path / "empty")
    assert bench.run("--outputs", "moved") == 0
    assert "no such fixed image" in error("--registered", bench.out, "--atlas", tmp_path / "no.npz")
    assert "no subject 'z'" in error("--registered", bench.out, "--subject", "z")
    assert "qc" not in names(bench.out)
    wrong = fakes.write_scan(tmp_path / "other.npz", 9)
    assert qc("--registered", bench.out, "--atlas", wrong, "--out", tmp_path / "w") == 1
    (bench.out / "run.json").write_text("[", encoding="utf-8")
    assert "not JSON" in error("--registered", bench.out)
