# SPDX-License-Identifier: Apache-2.0
"""The precision report: figures, page, the TensorFlow process and its refusals."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

from om_runner.precision import comparison as compare
from om_runner.precision import reference
from om_runner.precision.store import FLOW, MOVED, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from tests.support import fakes
from tests.support.registration_bench import Bench
from tests.support.scripted_reference import ScriptedReference, off_by_little
from vxm_convert.errors import ArtifactError, ChecksumError, FormatError, PrecisionError, ToolchainError
from vxm_convert.metrics.labels import label_set
from vxm_convert.profiles.profile import load_profile

pytestmark = pytest.mark.usefixtures("forked_commands")
LABELS = label_set("paper30")


def test_figures_of_a_known_fault(tmp_path, monkeypatch, scripted):
    bench = Bench(tmp_path, monkeypatch, spoil=off_by_little)
    for seed, name in enumerate("abc", 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)
    assert bench.run("--compare", "2") == 0
    report = json.loads((bench.out / "precision" / "report.json").read_text(encoding="utf-8"))
    assert (report["schema"], report["simulated"], report["n_samples"], report["n_run"], report["verdict"]) == (
        1,
        True,
        2,
        3,
        "ok",
    )
    assert [row["subject"] for row in report["rows"]] == ["a", "b"]
    row = report["rows"][0]
    assert row["moved"]["max_abs"] == pytest.approx(1 / 64, rel=1e-5) and row["moved"]["max_index"] == [3, 4, 5]
    assert row["moved"]["psnr_db"] == pytest.approx(10 * np.log10(np.prod(fakes.SHAPE) * 64**2), abs=1e-3)
    assert row["epe_voxel"]["max"] == pytest.approx(0.25, rel=1e-5) and row["epe_voxel"]["max_index"] == [6, 7, 8]
    assert row["epe_mm"]["max"] == pytest.approx(0.25, rel=1e-5), "the network grid has 1 mm voxels"
    assert row["dice"]["n_labels"] == 3 and abs(row["dice"]["change"]) < 1e-2
    assert report["summary"]["n"] == 2 and report["summary"]["epe_voxel_max"] == pytest.approx(0.25, rel=1e-5)
    with open(str(bench.out / "precision" / "report.csv"), encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["toolchain"] for r in rows] == ["simulated"] * 2 and float(rows[1]["epe_voxel.max"]) == pytest.approx(
        0.25, rel=1e-5
    )
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["precision"]["compared"] == 2 and run["precision"]["tensorflow"] == "scripted"
    assert not list(bench.out.glob(".compare-*")), "the temporary arrays are gone"


def test_millimetres_follow_the_atlas(tmp_path):
    with CompareStore(tmp_path, None) as store:
        image, _ = fakes.brain(1)
        flow = np.zeros(fakes.SHAPE + (3,), np.float32)
        store.put_fixed(image.astype(np.float32))
        store.put("s", image.astype(np.float32), None, image.astype(np.float32), flow)
        np.save(str(store.path("s", REFERENCE_MOVED)), image.astype(np.float32))
        np.save(str(store.path("s", REFERENCE_FLOW)), flow + np.float32([0, 0.5, 0]))
        result = compare.compare_subject(
            store, "s", compare.Standard(None, "paper30", LABELS, (1.0, 2.0, 3.0), load_profile("research")), 0.0
        )
    assert (result.epe_voxel.max, result.epe_mm.max) == (0.5, 1.0)
    assert result.dice is None and result.moved.psnr_db is None
    assert {failure.figure for failure in result.judgement.failures} == {
        "epe_voxel.max",
        "epe_voxel.p999",
        "epe_mm.p999",
    }
    skipped = {check.figure for check in result.judgement.checks if check.skipped}
    assert skipped == {"dice.min_change", "dice.mean_change"}, "no labels, said so; equal images have no PSNR and pass"


def test_batches_of_references(tmp_path):
    image = fakes.brain(1)[0].astype(np.float32) / 255
    seen = []
    with CompareStore(tmp_path, None) as store:
        store.put_fixed(image)
        for name in "abc":
            store.put(name, image, None, image, np.zeros(fakes.SHAPE + (3,), np.float32))
        scripted = ScriptedReference(None, None, None, store)
        results = compare.compare_all(
            store,
            scripted,
            2,
            compare.Standard(None, "paper30", LABELS, (1, 1, 1), load_profile("research")),
            lambda result, views: seen.append(result.subject),
            lambda n: None,
        )
        assert list(store.folder.glob("*.flow.npy")) == []
    assert scripted.groups == [["a", "b"], ["c"]] and seen == ["a", "b", "c"] and len(results) == 3


def test_nan_fails_with_exit_3_after_everything_is_written(tmp_path, monkeypatch, scripted):
    def spoil(outputs):
        outputs["moved"][0, 0, 0, 0, 0] = np.inf
        outputs["flow"][0, 1, 1, 1, 2] = np.nan

    bench = Bench(tmp_path, monkeypatch, spoil=spoil)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    words = "1 of 1 compared scans: a: moved: 0 NaN and 1 Inf in offline model or reference, expected none"
    with pytest.raises(PrecisionError, match=words) as caught:
        bench.run("--compare", "all")
    assert caught.value.exit_code == 3
    report = json.loads((bench.out / "precision" / "report.json").read_text(encoding="utf-8"))
    assert (
        report["verdict"] == "failed"
        and report["rows"][0]["flow"]["nan_count"] == 1
        and report["rows"][0]["moved"]["inf_count"] == 1
    )
    assert "failed" in (bench.out / "precision" / "report.html").read_text(encoding="utf-8")
    assert (bench.out / "metrics.tsv").exists() and len(bench.table("failures.tsv")) == 1


def test_a_store_keeps_no_more_than_asked(tmp_path):
    image = np.zeros((2, 2, 2), np.float32)
    with CompareStore(tmp_path, 1) as store:
        assert store.wants_more
        store.put("../evil", image, None, image, np.zeros((2, 2, 2, 3), np.float32))
        assert not store.wants_more
        assert store.path("../evil", FLOW).parent == store.folder and store.get("../evil", MOVED).shape == (2, 2, 2)
        assert store.get("../evil", "seg") is None
        store.drop("../evil")
        assert list(store.folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_tensorflow_is_told_before_the_cohort(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    bare.chmod(0o755)
    with pytest.raises(ToolchainError, match="--compare none") as caught:
        bench.run("--compare", "1", "--reference-python", str(bare))
    assert "--reference-python" in str(caught.value) and not bench.out.exists()
    with pytest.raises(ToolchainError, match="cannot run"):
        reference.check_reference_python(str(tmp_path / "nowhere"))


def test_which_python(monkeypatch):
    monkeypatch.delenv("VXM_REFERENCE_PYTHON", raising=False)
    assert reference.reference_python(None) == sys.executable
    monkeypatch.setenv("VXM_REFERENCE_PYTHON", "/a/python")
    assert reference.reference_python(None) == "/a/python" and reference.reference_python("/b/python") == "/b/python"


def open_process(tmp_path, model):
    with CompareStore(tmp_path, None) as store, reference.ReferenceProcess(
        sys.executable, model.pb_path, model.contract_path, store
    ):
        pytest.fail("it must not open")


def test_the_process_refuses_a_missing_or_foreign_pb(tmp_path):
    model = fakes.offline_model(tmp_path / "m", pb=b"graph")
    model.pb_path.write_bytes(b"another graph")
    with pytest.raises(ChecksumError, match="export pb and .om together again"):
        open_process(tmp_path, model)
    model.pb_path.unlink()
    with pytest.raises(ArtifactError, match="must be beside the .om"):
        open_process(tmp_path, model)


def test_a_process_that_dies_shows_its_last_words(tmp_path):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 9\n", encoding="utf-8")
    dying.chmod(0o755)
    model = fakes.offline_model(tmp_path / "m", pb=b"graph")
    with CompareStore(tmp_path, None) as store:
        with pytest.raises(ToolchainError, match=r"exit 9.*out of luck"):
            reference.ReferenceProcess(str(dying), model.pb_path, model.contract_path, store)


@pytest.mark.tf
def test_garbage_with_the_right_hash_is_no_graph(tmp_path, own_start):
    pytest.importorskip("tensorflow")
    with pytest.raises(FormatError, match="refuses the graph"):
        open_process(tmp_path, fakes.offline_model(tmp_path / "m", pb=b"garbage"))


@pytest.mark.tf
@pytest.mark.parametrize("batch", [1, 2])
def test_the_real_process_agrees_with_numpy(tmp_path, monkeypatch, batch):
    pytest.importorskip("tensorflow")
    bench = Bench(tmp_path, monkeypatch, batch=batch)
    bench.model = fakes.offline_model(tmp_path / "with_pb", batch, pb=fakes.frozen_arithmetic(batch))
    for seed, name in enumerate("abc", 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)
    assert bench.run("--compare", "all") == 0
    report = json.loads((bench.out / "precision" / "report.json").read_text(encoding="utf-8"))
    assert report["n_samples"] == 3 and report["reference"]["tensorflow"].startswith(("1.", "2."))
    for row in report["rows"]:
        assert row["moved"]["max_abs"] < 1e-6 and row["epe_voxel"]["max"] < 1e-6
        assert row["dice"]["change"] == 0 and row["dice"]["offline"] == row["dice"]["reference"]
