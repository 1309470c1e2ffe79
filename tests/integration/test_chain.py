# SPDX-License-Identifier: Apache-2.0
"""The main job from checkpoint to verified results, each stage as a user starts it; small by default, full size where
marked slow.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Dict, List

import nibabel as nib
import numpy as np
import pytest

from om_runner.results.columns import COLUMNS
from tests.support.stages import BATCH, ROOT, SHAPE, SUBJECTS, Cohort, run_stage
from vxm_convert.artifacts.files import sha256_of

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

SUBJECT_NAMES = [f"sub-{n + 1:02d}" for n in range(SUBJECTS)]
RESULTS = ("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz")
REPORTS = ("junit.xml", "report.csv", "report.html", "report.json")


def register(cwd: Path, model: Path, cohort: Cohort, out: Path, *extra: str):
    base = ["om_runner", "--input", cohort.scans, "--atlas", cohort.atlas, "--model", model, "--out", out]
    done = run_stage(cwd, *base, *extra)
    # With a limit the other scans are missing, which is not success.
    assert done.returncode == (1 if "--limit" in extra else 0), done.stderr
    return done


def read_json(path: Path) -> Dict:
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path) -> List[Dict[str, str]]:
    with open(str(path), encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


@pytest.fixture(scope="module")
def registered(tmp_path_factory, exported, cohort):
    """The output folder of a run over the whole cohort, everything compared, and what it said."""
    out = tmp_path_factory.mktemp("registered") / "out"
    # All of research but the limit of a single structure: the smallest have some 90 voxels here, one of which is 0.0056
    # of their Dice.
    profile = out.parent / "profile.yaml"
    lines = (ROOT / "vxm_convert" / "profiles" / "research.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.lstrip().startswith("dice.min_change:")]
    assert len(kept) == len(lines) - 1
    profile.write_text("".join(kept), encoding="utf-8")
    return out, register(out.parent, exported / "vxm.om", cohort, out, "--compare", "all", "--profile", profile).stderr


def test_the_layout_of_the_output(registered):
    out, _ = registered
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and ".om_runner" not in p.parts)
    per_subject = [f"{s}/{name}{side}" for s in SUBJECT_NAMES for name in RESULTS for side in ("", ".json")]
    per_subject += [f"{s}/log.txt" for s in SUBJECT_NAMES]
    reports = [f"precision/{name}" for name in REPORTS]
    of_run = ["SHA256SUMS", "failures.tsv", "index.html", "metrics.tsv", "run.json", "structures.tsv"]
    assert files == sorted(per_subject + reports + of_run)


def test_the_table_has_a_row_per_scan_and_no_failure(registered):
    out, _ = registered
    rows = read_table(out / "metrics.tsv")
    assert list(rows[0]) == list(COLUMNS)
    assert [row["subject"] for row in rows] == SUBJECT_NAMES
    for row in rows:
        assert 0 < float(row["dice_before"]) < 1 and 0 <= float(row["dice_after"]) < 1
        assert float(row["device_seconds"]) > 0 and 0 <= float(row["folding_fraction"]) < 1
        assert float(row["flow_max_voxel"]) > 0.1 and row["toolchain"] == "simulated" and row["intensity"] == "0..255"
    assert read_table(out / "failures.tsv") == []


def test_everything_says_that_it_was_simulated(registered):
    out, said = registered
    report, run = read_json(out / "precision/report.json"), read_json(out / "run.json")
    assert report["simulated"] is True and report["toolchain"]["kind"] == "simulator"
    assert run["simulated"] is True and run["toolchain"]["kind"] == "simulator"
    assert "SIMULATED" in (out / "precision/report.html").read_text(encoding="utf-8")
    with open(str(out / "precision/report.csv"), encoding="utf-8", newline="") as handle:
        assert {row["toolchain"] for row in csv.DictReader(handle)} == {"simulated"}
    assert said.splitlines()[0].count("SIMULATED") == said.splitlines()[-1].count("SIMULATED") == 1
    for side in out.rglob("*.nii.gz.json"):
        assert read_json(side)["simulated"] is True and read_json(side)["toolchain"]["kind"] == "simulator"


def test_the_report_finds_the_offline_model_close_to_tensorflow(registered):
    report = read_json(registered[0] / "precision/report.json")
    assert (report["verdict"], report["n_samples"], report["n_run"]) == ("ok", SUBJECTS, SUBJECTS)
    assert [row["subject"] for row in report["rows"]] == SUBJECT_NAMES
    assert report["model"]["batch"] == BATCH and report["model"]["precision"] == "balanced"
    for row in report["rows"]:
        # Not zero: the convolutions really ran in fp16. Each subject met its own reference, so the error is small in
        # every place.
        assert 0 < row["epe_voxel"]["max"] < 0.1 and 0 < row["moved"]["max_abs"] < 0.02
        assert abs(row["dice"]["change"]) < 0.01
        assert row["dice"]["min_change"] > -0.01, "more than one voxel of a structure changed sides"


def test_results_differ_between_subjects_and_have_the_shape_of_the_atlas(registered):
    volumes = [nib.load(str(registered[0] / s / "moved.nii.gz")) for s in SUBJECT_NAMES]
    assert all(v.shape == SHAPE for v in volumes)
    data = [np.asarray(v.dataobj) for v in volumes]
    assert not any(np.array_equal(data[a], data[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_verify_proves_model_to_result(registered, exported, tmp_path):
    out, _ = registered
    done = run_stage(tmp_path, "vxm_convert", "verify", out)
    assert done.returncode == 0 and ", 0 broken" in done.stdout, done.stdout + done.stderr
    assert "outside" not in done.stdout and "unproven" not in done.stdout
    for name in RESULTS:
        assert (
            done.stdout.count(f"/{name}: was made from om {sha256_of(exported / 'vxm.om')[:12]}, which is here")
            == SUBJECTS
        )


@pytest.mark.parametrize("role", ["om", "moving", "atlas", "result"])
def test_verify_names_the_file_in_which_one_byte_changed(exported, cohort, tmp_path, role):
    """On copies, so that the shared files stay whole."""
    model = Path(shutil.copytree(str(exported), str(tmp_path / "vxm")))
    data = Path(shutil.copytree(str(cohort.atlas.parent), str(tmp_path / "data")))
    mine = Cohort(data / cohort.scans.name, data / cohort.atlas.name)
    register(tmp_path, Path("vxm/vxm.om"), mine, Path("out"), "--compare", "none", "--limit", "1")
    assert run_stage(tmp_path, "vxm_convert", "verify", "out").returncode == 0
    scan = mine.scans / (SUBJECT_NAMES[0] + ".npz")
    files = {
        "om": model / "vxm.om",
        "moving": scan,
        "atlas": mine.atlas,
        "result": tmp_path / "out" / SUBJECT_NAMES[0] / "flow.nii.gz",
    }
    content = bytearray(files[role].read_bytes())
    content[len(content) // 2] ^= 1
    files[role].write_bytes(bytes(content))
    # From another folder: what the run read was given as relative paths.
    done = run_stage(data, "vxm_convert", "verify", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert f"{files[role]}: sha256 is " in done.stderr


def test_a_rerun_gives_the_same_bytes(registered, exported, cohort, tmp_path):
    register(tmp_path, exported / "vxm.om", cohort, tmp_path / "again", "--compare", "none")
    for subject in SUBJECT_NAMES:
        for name in RESULTS:
            assert (tmp_path / "again" / subject / name).read_bytes() == (
                registered[0] / subject / name
            ).read_bytes(), (subject, name)


FULL = ("--shape", "160,192,224", "--variant", "vm2", "--batch", "1", "--toolchain", "sim", "--skip-onnx")


@pytest.fixture(scope="module")
def one_brain(shared_data, tmp_path_factory) -> Cohort:
    folder = tmp_path_factory.mktemp("brains")
    shutil.copyfile(str(shared_data / "brains" / "bert.npz"), str(folder / "bert.npz"))
    return Cohort(folder, shared_data / "brains" / "atlas_fsaverage.npz")


def full_size_row(folder: Path, checkpoint: Path, precision: str, brain: Cohort) -> Dict:
    """Export, register and compare one brain at full size; its row of the report."""
    made = run_stage(
        folder, "export", "--checkpoint", checkpoint, "--precision", precision, "--out", folder / "vxm", *FULL
    )
    assert made.returncode == 0, made.stderr
    register(folder, folder / "vxm" / "vxm.om", brain, folder / "out", "--compare", "all")
    done = run_stage(folder, "vxm_convert", "verify", folder / "vxm", folder / "out")
    assert done.returncode == 0, done.stderr
    report = read_json(folder / "out/precision/report.json")
    assert report["verdict"] == "ok" and report["n_samples"] == 1
    return report["rows"][0]


@pytest.mark.slow
@pytest.mark.real_data
def test_published_weights_at_full_size_reach_the_reference_dice(shared_data, one_brain, tmp_path):
    row = full_size_row(tmp_path, shared_data / "weights/published_h5/cvpr2018_vm2_cc.h5", "balanced", one_brain)
    assert row["dice"]["before"] == pytest.approx(0.599, abs=0.003)
    assert row["dice"]["reference"] == pytest.approx(0.716, abs=0.003)
    assert abs(row["dice"]["change"]) <= 0.001
    assert row["epe_voxel"]["p999"] <= 0.02 and row["epe_voxel"]["max"] <= 0.1


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["balanced", "fast"])
def test_the_checkpoint_of_a_real_910_at_full_size(shared_data, one_brain, tmp_path, precision):
    row = full_size_row(tmp_path, shared_data / "weights/vm2_mse_ascend910/model", precision, one_brain)
    if precision == "balanced":
        assert abs(row["dice"]["change"]) <= 0.001
        assert row["epe_voxel"]["p999"] <= 0.02 and row["epe_voxel"]["max"] <= 0.1
    else:
        assert row["moved"]["max_abs"] <= 1e-2 and row["moved"]["psnr_db"] >= 75
