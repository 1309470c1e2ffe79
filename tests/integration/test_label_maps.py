# SPDX-License-Identifier: Apache-2.0
"""``--label-map``: labels of another tool score as FreeSurfer's own, in every command that reads a scan's labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import List

import numpy as np
import pytest

from om_runner import Registrar
from om_runner.__main__ import main
from om_runner.qc.from_files import fixed_of_pair, open_results
from tests.support import fakes, textual
from tests.support.foreign_labels import OTHER, other
from tests.support.registration_bench import Bench
from tests.support.shift import ShiftBench
from train.__main__ import main as train
from train.data.checks import check_cohort
from train.data.cohort import read_cohort
from train.data.loading import Loader
from train.prepare import run as prepare
from train.prepare.loaded import load_source
from train.prepare.settings import PrepareSettings, key_of
from train.prepare.subjects import REFERENCE, Source
from train.settings.run import DataSettings
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.metrics.label_maps import load_label_map
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.model.spec import ModelSpec
from vxm_convert.scans.nifti import write_nifti

pytestmark = pytest.mark.any_python("labels are NumPy arrays")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "map.tsv"
    path.write_text("from\tto\n" + "".join(f"{theirs}\t{ours}\n" for ours, theirs in OTHER.items() if ours))
    return path


def test_the_runner_takes_labels_of_another_tool(tmp_path: Path, monkeypatch, caplog, table: Path) -> None:
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run() == 0
    (ours,) = bench.table("metrics.tsv")
    bench.out = tmp_path / "theirs"
    fakes.write_scan(bench.inputs / "a.npz", 1, seg=other(1))
    assert bench.run("--label-map", str(table)) == 0
    (theirs,) = bench.table("metrics.tsv")
    assert theirs["dice_after"] == ours["dice_after"] != "n/a" and theirs["n_labels"] == ours["n_labels"]
    assert json.loads((bench.out / "run.json").read_text())["geometry"]["label_map"] == str(table)
    told = json.loads((bench.out / "a" / "moved_seg.nii.gz.json").read_text())["placement"]
    assert (told["label_map"], told["label_map_sha256"]) == ("map.tsv", sha256_of(table))
    caplog.set_level("INFO")
    assert bench.run("--label-map", str(table)) == 0 and "1 unchanged" in caplog.text
    table.write_text(table.read_text().replace("35\t16\n", ""))
    with pytest.raises(ArtifactError, match="label_map is .* there and"):
        bench.run("--label-map", str(table))
    assert bench.run("--label-map", str(table), "--force") == 0
    (less,) = bench.table("metrics.tsv")
    assert int(less["n_labels"]) == int(ours["n_labels"]) - 1
    assert (
        "1 of its 3 labels (" in less["warnings"]
        and "not in the label map map.tsv and become background: 35" in (less["warnings"])
    )


def test_both_images_of_a_pair_are_mapped_and_an_atlas_is_not(tmp_path: Path, monkeypatch, table: Path) -> None:
    bench = Bench(tmp_path, monkeypatch)
    for seed, name in ((1, "a"), (2, "b")):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed, seg=other(seed))
    (tmp_path / "p.csv").write_text("moving,fixed\nin/a.npz,in/b.npz\n")
    assert bench.run("--pairs", str(tmp_path / "p.csv"), "--label-map", str(table)) == 0
    (row,) = bench.table("metrics.tsv")
    assert row["n_labels"] == "3"
    fixed = fixed_of_pair(open_results(bench.out), "a__b")
    assert np.array_equal(fixed.seg, fakes.brain(2)[1]), "pictures from the files show the same labels"
    ShiftBench(tmp_path / "api", monkeypatch)
    with Registrar("vxm.om", bench.atlas, label_map=table) as register:
        assert register(bench.inputs / "a.npz").metrics.n_labels == 3
    with pytest.raises(VolumeError, match="label map: got 'none'"):
        Registrar("vxm.om", bench.atlas, label_map="none")


def test_the_verb_scores_labels_of_another_tool(tmp_path: Path, table: Path) -> None:
    fixed, moved = fakes.brain(1)[1], fakes.brain(2)[1]
    write_nifti(tmp_path / "fixed.nii", fixed, textual.LIA)
    scores: List[float] = []
    for name, seg, more in (("ours", moved, ()), ("theirs", other(2), ("--label-map", str(table)))):
        path = tmp_path / f"{name}.nii"
        write_nifti(path, seg, textual.LIA)
        words = ["evaluate", "--fixed-seg", str(tmp_path / "fixed.nii"), "--moved-seg", str(path), *more]
        assert main([*words, "--format", "json", "--out", str(tmp_path / f"{name}.json")]) == 0
        found = json.loads((tmp_path / f"{name}.json").read_text())["overlap"]
        scores.append(found["dice_mean"])
        assert found["label_map"] == (more[1] if more else None)
    assert scores[0] == scores[1] > 0


def test_prepared_labels_are_those_of_the_map(tmp_path: Path, monkeypatch, table: Path) -> None:
    fakes.write_scan(tmp_path / "in" / "s.npz", 1, seg=other(1))
    asked: List[PrepareSettings] = []
    monkeypatch.setattr(prepare, "run", lambda settings: asked.append(settings) or 0)
    shape = ",".join(map(str, fakes.SHAPE))
    words = ["prepare", "--data", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--shape", shape]
    assert train([*words, "--label-map", str(table)]) == 0
    (settings,) = asked
    source = Source("s", tmp_path / "in" / "s.npz", None)
    assert np.array_equal(load_source(source, settings).seg, fakes.brain(1)[1])
    reference = replace(source, name=REFERENCE)
    assert np.array_equal(load_source(reference, settings).seg, other(1)), "a given reference has its own labels"
    before = key_of(settings)
    table.write_text(table.read_text().replace("35\t16", "35\t0"))
    assert key_of(settings) != before != key_of(replace(settings, label_map=None))


def test_the_evaluation_of_a_training_scores_labels_of_another_tool(tmp_path: Path, table: Path, capsys) -> None:
    atlas = fakes.write_scan(tmp_path / "atlas.npz", 0)
    fakes.write_scan(tmp_path / "in" / "s.npz", 1, seg=other(1))
    cohort, labels = read_cohort(DataSettings(tmp_path / "in", atlas), 0), load_label_set("paper30")
    with pytest.raises(VolumeError, match="not FreeSurfer's"):
        check_cohort(cohort, atlas, atlas, fakes.SHAPE, False, labels)
    mapped = load_label_map(str(table))
    check_cohort(cohort, atlas, atlas, fakes.SHAPE, False, labels, mapped)
    loader = Loader(ModelSpec("vm2", fakes.SHAPE), atlas, atlas, mapped=mapped)
    (subject,) = cohort.subjects
    assert np.array_equal(loader.labels(subject.moving, subject.seg), fakes.brain(1)[1])
    assert np.array_equal(loader.labels(atlas, atlas), fakes.brain(0)[1])
    words = ["evaluate", "--checkpoint", "box", "--data", str(tmp_path / "in"), "--atlas", str(atlas)]
    assert train([*words, "--label-map", "nothing", "--out", str(tmp_path / "out")]) == 1
    assert "label map: got 'nothing'" in capsys.readouterr().err
