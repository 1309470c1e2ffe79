# SPDX-License-Identifier: Apache-2.0
"""A whole run over a fake device: layout, tables, batches, bad scans, exit codes."""

from __future__ import annotations

import json
import logging
import os

import nibabel as nib
import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.names import MOVED_SEG_NAME, NATIVE_SEG_NAME
from om_runner.registration import progress as progress_module
from om_runner.registration.queues import read_ahead
from om_runner.results import writer
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.temporaries import process_token
from vxm_convert.errors import AclError, ArtifactError, VolumeError
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.transforms.warps import read_warp


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    fakes.write_scan(made.inputs / "b.npz", 2)
    fakes.write_scan(made.inputs / "a.npz", 1)
    return made


def test_layout_tables_and_run_json(bench):
    assert bench.run() == 0
    made = sorted(p.relative_to(bench.out).as_posix() for p in bench.out.rglob("*") if p.is_file())
    per_subject = [
        name + side for name in ("flow.nii.gz", "moved.nii.gz", "moved_seg.nii.gz") for side in ("", ".json")
    ]
    per_subject.append("log.txt")
    of_run = ["SHA256SUMS", "failures.tsv", "index.html", "metrics.tsv", "run.json", "structures.tsv"]
    of_run += [".om_runner/a.json", ".om_runner/b.json"]
    of_run += [f".om_runner/cohort/{name}.json" for name in ("settings", "scans", f"process-{process_token()}")]
    assert made == sorted([f"{s}/{f}" for s in "ab" for f in per_subject] + of_run)
    rows = bench.table("metrics.tsv")
    assert [r["subject"] for r in rows] == ["a", "b"]
    assert list(rows[0])[:3] == ["subject", "dice_before", "dice_after"]
    assert rows[0]["n_labels"] == "3" and rows[0]["label_set"] == "paper30" and rows[0]["toolchain"] == "simulated"
    assert float(rows[0]["device_seconds"]) == fakes.DEVICE_SECONDS and rows[0]["intensity"] == "0..255"
    assert all(-1 <= float(row[name]) <= 1 for row in rows for name in ("ncc_before", "ncc_after"))
    assert {row[name] for row in rows for name in ("affine_overlap", "dice_native", "inverse_mm_p95")} == {"n/a"}
    assert bench.table("failures.tsv") == []
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["simulated"] is True and run["registered"] == 2 and run["label_set"] == "paper30"
    assert len(run["inputs"]) == 2 and all(len(h) == 64 for h in run["inputs"].values())
    assert run["versions"]["numpy"] == np.__version__


def test_structures_are_those_of_the_mean(bench):
    assert bench.run() == 0
    rows = {row["subject"]: row for row in bench.table("metrics.tsv")}
    structures = bench.table("structures.tsv")
    assert list(structures[0]) == ["subject", "label", "name", "dice_before", "dice_after"]
    assert [row["label"] for row in structures] == ["2", "16", "41"] * 2
    assert structures[1]["name"] == "Brain-Stem"
    for subject, row in rows.items():
        own = [found for found in structures if found["subject"] == subject]
        for side in ("dice_before", "dice_after"):
            assert np.mean([float(found[side]) for found in own]) == pytest.approx(float(row[side]), abs=1e-5)
    before = (bench.out / "structures.tsv").read_bytes()
    assert bench.run() == 0 and (bench.out / "structures.tsv").read_bytes() == before, (
        "kept results keep their structures"
    )


def test_the_inverse_has_its_figures_in_the_table(bench):
    assert bench.run("--outputs", "moved,seg,inverse") == 0
    for row in bench.table("metrics.tsv"):
        assert 0 <= float(row["inverse_mm_p95"]) < 5 and 0 < float(row["dice_native"]) <= 1


def test_written_volumes_are_the_models_outputs_with_the_atlas_geometry(bench):
    bench.run()
    fed = bench.runtime.fed[0]
    outputs = fakes.arithmetic(fed["moving"], fed["fixed"])
    moved = nib.load(str(bench.out / "a" / "moved.nii.gz"))
    assert np.array_equal(moved.affine, network_affine(fakes.SHAPE))
    assert moved.get_data_dtype() == np.uint8, "a uint8 scan gives a uint8 result"
    assert np.array_equal(np.asarray(moved.dataobj), np.rint(outputs["moved"][0, ..., 0] * 255).astype(np.uint8))
    flow = read_warp(bench.out / "a" / "flow.nii.gz").u
    np.testing.assert_allclose(flow, outputs["flow"][0], atol=1e-6)
    side = json.loads((bench.out / "a" / "flow.nii.gz.json").read_text(encoding="utf-8"))
    assert side["simulated"] is True and side["unit"] == "mm" and "pull" in side["direction"]


def test_every_result_says_what_it_was_made_from(bench):
    bench.run()
    sources = {
        "om": bench.model.contract.hashes["om"],
        "moving": sha256_of(bench.inputs / "a.npz"),
        "atlas": sha256_of(bench.atlas),
    }
    for name in ("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz"):
        side = json.loads((bench.out / "a" / (name + ".json")).read_text(encoding="utf-8"))
        assert side["made_from"] == sources and side["sha256"] == sha256_of(bench.out / "a" / name)
        assert side["file"] == name and side["toolchain"]["kind"] == "simulator" and side["simulated"] is True
        assert side["subject"] == "a" and side["precision"] == "balanced"


def test_a_segmentation_of_its_own_is_a_source_of_the_moved_one_only(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    scan = fakes.write_scan(bench.inputs / "a.npz", 1, with_seg=False)
    seg = bench.inputs / "a_seg.npz"
    np.savez_compressed(str(seg), seg=fakes.brain(1)[1])
    assert bench.run() == 0
    made_from = {
        name: json.loads((bench.out / "a" / f"{name}.nii.gz.json").read_text(encoding="utf-8"))["made_from"]
        for name in ("moved", "flow", "moved_seg")
    }
    assert made_from["moved_seg"]["moving_seg"] == sha256_of(seg)
    assert "moving_seg" not in made_from["moved"] and "moving_seg" not in made_from["flow"]
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["inputs"] == {str(scan): sha256_of(scan), str(seg): sha256_of(seg)}


def test_labels_are_written_in_the_dtype_of_their_files(tmp_path, monkeypatch):
    """In memory they take the smallest one."""
    bench, held = Bench(tmp_path, monkeypatch), []
    seg = fakes.brain(1)[1]
    fakes.write_scan(bench.inputs / "a.npz", 1, seg=seg.astype(np.int32))
    write = writer.write_nifti
    monkeypatch.setattr(
        writer, "write_nifti", lambda path, data, *a, **k: held.append(data.dtype) or write(path, data, *a, **k)
    )
    assert bench.run("--outputs", "seg,inverse", "--space", "atlas") == 0
    stored = {
        name: nib.load(str(bench.out / "a" / name)).get_data_dtype() for name in (MOVED_SEG_NAME, NATIVE_SEG_NAME)
    }
    assert stored == {MOVED_SEG_NAME: np.int32, NATIVE_SEG_NAME: np.int16} and held == [np.uint8, np.uint8]


def test_float_scan_in_0_1_keeps_its_scale(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1, vol=(fakes.brain(1)[0] / 255.0))
    assert bench.run() == 0
    moved = nib.load(str(bench.out / "a" / "moved.nii.gz"))
    assert moved.get_data_dtype() == np.float32 and 0.3 < np.asarray(moved.dataobj).max() <= 1
    assert bench.table("metrics.tsv")[0]["intensity"] == "0..1"


def test_the_last_batch_is_padded_and_cut(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, batch=2)
    for seed, name in enumerate("abc", 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)
    assert bench.run() == 0
    first, last = bench.runtime.fed
    assert first["moving"].shape == (2,) + fakes.SHAPE + (1,)
    assert not np.array_equal(first["moving"][0], first["moving"][1])
    assert np.array_equal(last["moving"][0], last["moving"][1])
    assert first["fixed"] is last["fixed"], "the same object, so that it stays on the device"
    rows = bench.table("metrics.tsv")
    assert [r["subject"] for r in rows] == ["a", "b", "c"]
    assert [float(r["device_seconds"]) for r in rows] == [0.25, 0.25, 0.5]
    moved_b = np.asarray(nib.load(str(bench.out / "b" / "moved.nii.gz")).dataobj)
    assert np.array_equal(moved_b, np.rint(fakes.arithmetic(first["moving"], first["fixed"])["moved"][1, ..., 0] * 255))


def test_batches_do_not_change_the_results(tmp_path, monkeypatch):
    moved = []
    for batch in (1, 2):
        bench = Bench(tmp_path / str(batch), monkeypatch, batch=batch)
        for seed, name in enumerate("abc", 1):
            fakes.write_scan(bench.inputs / f"{name}.npz", seed)
        bench.run()
        moved.append(
            [
                (bench.out / s / f).read_bytes()
                for s in "abc"
                for f in ("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz")
            ]
        )
    assert moved[0] == moved[1]


def test_bad_scans_become_rows_and_the_rest_goes_on(bench, tmp_path, caplog):
    nan = fakes.brain(3)[0].astype(np.float32)
    nan[2, 3, 4] = np.nan
    fakes.write_scan(bench.inputs / "aa_nan.npz", 3, vol=nan)
    (bench.inputs / "ab_broken.nii.gz").write_bytes(b"not a gzip file")
    fakes.write_scan(bench.inputs / "ac_4d.npz", 3, vol=np.zeros(fakes.SHAPE + (2,), np.float32))
    fakes.write_scan(bench.inputs / "ad_small.npz", 3, vol=np.ones((8, 8, 8), np.float32))
    assert bench.run() == 1
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["a", "b"]
    failures = bench.table("failures.tsv")
    assert [(f["subject"], f["stage"]) for f in failures] == [
        (n, "read") for n in ("aa_nan", "ab_broken", "ac_4d", "ad_small")
    ]
    assert "1 voxels are NaN or infinite, the first at index (2, 3, 4)" in failures[0]["reason"]
    assert "4-D volume 16x16x32x2" in failures[2]["reason"] and "the network needs 16x16x32" in failures[3]["reason"]
    assert not (bench.out / "aa_nan").exists()
    assert [p.name for p in bench.out.iterdir() if p.name.startswith(".")] == [".om_runner"], (
        "nothing half-written or temporary stays"
    )


def test_a_failing_device_stops_the_run_but_keeps_what_is_done(bench, monkeypatch):
    calls = []

    def die_on_second(feeds):
        calls.append(feeds)
        if len(calls) == 2:
            raise AclError("acl.mdl.execute returned 507018", "acl.mdl.execute", 507018)
        return real(feeds)

    real = bench.runtime._run
    monkeypatch.setattr(bench.runtime, "_run", die_on_second)
    with pytest.raises(AclError):
        bench.run()
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["a"]
    assert [(f["subject"], f["stage"]) for f in bench.table("failures.tsv")] == [("b", "run")]


@pytest.mark.parametrize("registered_before", [False, True])
def test_a_device_that_refuses_the_model_changes_nothing(bench, monkeypatch, registered_before):
    if registered_before:
        bench.run()
        (bench.out / "precision").mkdir()
        (bench.out / "precision" / "report.json").write_text("{}", encoding="utf-8")
    before = {p: p.read_bytes() for p in bench.out.rglob("*") if p.is_file()}

    def refuse():
        raise AclError("acl.mdl.load_from_file returned 145000", "acl.mdl.load_from_file", 145000)

    monkeypatch.setattr(bench.runtime, "_open", refuse)
    with pytest.raises(AclError):
        bench.run("--force")
    assert bench.out.exists() == registered_before
    assert {p: p.read_bytes() for p in bench.out.rglob("*") if p.is_file()} == before


def test_nan_from_the_model_writes_nothing_for_that_scan(tmp_path, monkeypatch):
    def spoil(outputs):
        outputs["flow"][0, 0, 0, 0, 1] = np.nan

    bench = Bench(tmp_path, monkeypatch, spoil=spoil)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run() == 1
    assert not (bench.out / "a").exists()
    assert "1 NaN or infinite values" in bench.table("failures.tsv")[0]["reason"]


def test_scans_without_segmentation_have_no_dice(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1, with_seg=False)
    assert bench.run() == 0
    row = bench.table("metrics.tsv")[0]
    assert (row["dice_before"], row["dice_after"], row["n_labels"]) == ("n/a", "n/a", "n/a")
    assert not (bench.out / "a" / "moved_seg.nii.gz").exists()


def test_a_forced_second_run_gives_the_same_bytes_and_replaces_the_first(bench):
    bench.run()
    before = {p: p.read_bytes() for p in sorted(bench.out.rglob("*.nii.gz"))}
    (bench.out / "a" / "stray.txt").write_text("from before", encoding="utf-8")
    (bench.out / "precision").mkdir()
    (bench.out / "precision" / "report.json").write_text("{}", encoding="utf-8")
    bench.run("--force")
    assert {p: p.read_bytes() for p in sorted(bench.out.rglob("*.nii.gz"))} == before
    assert not (bench.out / "a" / "stray.txt").exists()
    assert not (bench.out / "precision" / "report.json").exists(), "a report of another run must not stay"


def test_first_and_last_log_lines_say_simulated(bench, caplog):
    with caplog.at_level(logging.INFO):
        bench.run()
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0].startswith("SIMULATED toolchain") and lines[-1].startswith("SIMULATED toolchain")


def test_an_output_folder_that_cannot_be_written(bench, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    bench.out = tmp_path / "file" / "out"
    with pytest.raises(ArtifactError, match="cannot write there"):
        bench.run()


def test_an_atlas_of_another_shape_stops_the_run(bench):
    fakes.write_scan(bench.atlas, 0, vol=np.ones((16, 16, 16), np.uint8))
    with pytest.raises(VolumeError, match="atlas.npz: shape 16x16x16, the network needs 16x16x32"):
        bench.run()
    assert not bench.out.exists()


def test_scans_of_one_name_are_told_apart_and_said(bench, caplog):
    nib.save(nib.Nifti1Image(fakes.brain(3)[0], network_affine(fakes.SHAPE)), str(bench.inputs / "a.nii.gz"))
    assert bench.run() == 0
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["a_nii_gz", "a_npz", "b"]
    assert (
        "a.npz: its results are named a_npz, because another scan" in caplog.text
        and "b.npz: its results" not in caplog.text
    )


def test_reading_ahead_is_bounded_and_in_order():
    begun = []

    def load(number):
        begun.append(number)
        return number * 10

    got = []
    for number, future in read_ahead(range(6), load, ahead=2):
        got.append((number, future.result()))
        assert len(begun) <= number + 3
    assert got == [(n, n * 10) for n in range(6)]


@pytest.mark.parametrize(
    "argv, code",
    [
        (["--input", "x"], 2),
        (["--input", "x", "--atlas", "y", "--compare", "some"], 2),
        (["--input", "x", "--atlas", "y", "--limit", "0"], 2),
        (["--input", "x", "--atlas", "y", "--labels", "mine"], 2),
    ],
)
def test_usage_errors(argv, code, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == code


def test_a_missing_model_is_one_message(tmp_path, capsys):
    assert cli.main(["--input", str(tmp_path), "--atlas", "y.npz", "--model", str(tmp_path / "no.om")]) == 1
    message = capsys.readouterr().err
    assert "no such offline model" in message and "make export-om" in message and "Traceback" not in message


def test_every_option_tells_its_default():
    for action in cli.build_parser()._actions:
        if not {"--help", "--help-all"} & {*action.option_strings}:
            assert "default" in action.help or "required" in action.help, action.option_strings


def test_the_bar_shows_on_a_terminal_only(bench, monkeypatch, capsys):
    bench.run()
    assert "registration:" not in capsys.readouterr().err
    monkeypatch.setattr(progress_module, "on_terminal", lambda: True)
    monkeypatch.setattr(progress_module.shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((0, 0)))
    bench.run("--force")
    assert "2/2" in capsys.readouterr().err
