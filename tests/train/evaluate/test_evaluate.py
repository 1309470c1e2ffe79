# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the statistics by hand, and a checkpoint whose flow is known scored against an independent
computation.
"""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from tests.support.training import SHAPE
from train.__main__ import main
from train.evaluate.scores import SubjectScores, overall, spread, structures
from vxm_convert.metrics.labels import LABEL_SETS, LabelSet

SET = LabelSet("mine", (2, 3, 5), {2: "two", 3: "three", 5: "five"})
#: voxels along the first axis that the known network moves everything by
SHIFT = 2.0


def subject(**scores: Dict) -> SubjectScores:
    return SubjectScores("s", scores.get("before"), scores.get("after"), 0.0, 0.0, 0.0, 0.0)


def test_means_over_values_and_over_subjects() -> None:
    """Subjects with different numbers of structures weigh differently in the two means."""
    rows = overall(
        [
            subject(before={0: 1.0, 2: 0.2, 3: 0.4, 5: None}, after={0: 1.0, 2: 0.5, 3: 0.7, 5: None}),
            subject(before={0: 0.9, 2: 0.6, 3: None, 5: None}, after={0: 0.8, 2: 0.9, 3: None, 5: None}),
            subject(),
        ],
        SET,
    )
    found = {(row["over"], row["background"]): row["after"] for row in rows}
    assert found["values", False] == {"mean": pytest.approx(0.7), "std": pytest.approx(np.std([0.5, 0.7, 0.9])), "n": 3}
    assert found["subjects", False] == {"mean": pytest.approx(0.75), "std": pytest.approx(0.15), "n": 2}
    assert (
        found["values", True]["mean"] == pytest.approx(np.mean([1.0, 0.5, 0.7, 0.8, 0.9]))
        and found["values", True]["n"] == 5
    )
    assert found["subjects", True]["mean"] == pytest.approx(np.mean([np.mean([1, 0.5, 0.7]), 0.85]))
    assert rows[0]["before"]["mean"] == pytest.approx(0.4)


def test_a_missing_structure_is_not_zero() -> None:
    rows = structures(
        [subject(before={0: 1.0, 2: 0.2, 3: None, 5: None}, after={0: 1.0, 2: 0.4, 3: None, 5: 0.6})], SET
    )
    assert [row["name"] for row in rows] == ["Background", "two", "three", "five"]
    assert (
        rows[2]["after"] == rows[3]["before"] == {"mean": None, "std": None, "n": 0} and rows[3]["after"]["mean"] == 0.6
    )
    assert spread([]) == spread([None]) == {"mean": None, "std": None, "n": 0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose flow is SHIFT voxels along the first axis, with its spec.json and a split."""
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    from vxm_convert.model.spec import ModelSpec
    from vxm_convert.network.inference_graph import build_inference_graph
    from vxm_convert.network.tf1 import tf

    folder = tmp_path_factory.mktemp("known")
    spec = ModelSpec("vm1", SHAPE)
    graph = build_inference_graph(spec)
    with graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.trainable_variables():
            if variable.op.name.startswith("flow/"):
                variable.load(
                    np.array([SHIFT, 0, 0], np.float32)
                    if "bias" in variable.op.name
                    else np.zeros(variable.shape.as_list(), np.float32),
                    session,
                )
        tf.train.Saver().save(session, str(folder / "model"), global_step=7, write_meta_graph=False)
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    (folder / "split.json").write_text(
        json.dumps({"train": ["/gone/sub-01.npz", "/gone/sub-02.npz"], "test": ["/gone/sub-03.npz"]})
    )
    return folder


@pytest.fixture(scope="module")
def evaluated(cohort: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    names = folder / "labels <1>.txt"
    names.write_text("2 Left&<White>\n3 Left-Cortex\n4\n999 Nothing\n")
    argv = [
        "evaluate",
        "--checkpoint",
        str(checkpoint),
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--labels",
        str(names),
        "--out",
        str(folder / "out"),
    ]
    assert main(argv) == 0
    return folder / "out"


def expected(cohort: Path, scan: str, label: int) -> List[float]:
    """Dice before and after a shift along the first axis, edges repeated."""
    atlas = np.load(str(cohort / "atlas.npz"))["seg"]
    seg = np.load(str(cohort / "scans" / scan))["seg"]
    moved = seg[np.minimum(np.arange(SHAPE[0]) + int(SHIFT), SHAPE[0] - 1)]
    return [
        2.0 * ((s == label) & (atlas == label)).sum() / ((s == label).sum() + (atlas == label).sum())
        for s in (seg, moved)
    ]


@pytest.mark.tf
def test_the_scores_are_those_of_the_shifted_labels(cohort: Path, evaluated: Path) -> None:
    rows = list(csv.DictReader((evaluated / "evaluation.csv").read_text().splitlines()))
    assert len(rows) == 3 * 5
    for row in rows:
        if row["label"] == "999":
            assert (row["dice_before"], row["dice_after"]) == ("n/a", "n/a")
            continue
        before, after = expected(cohort, row["scan"], int(row["label"]))
        assert float(row["dice_before"]) == pytest.approx(before) and float(row["dice_after"]) == pytest.approx(after)
        assert float(row["folding"]) == 0 and float(row["seconds"]) > 0


@pytest.mark.tf
def test_json_and_page_say_the_same(cohort: Path, evaluated: Path) -> None:
    report = json.loads((evaluated / "evaluation.json").read_text())
    assert (report["kind"], report["n_samples"], report["label_set"]) == ("evaluation", 3, "labels <1>.txt")
    values = [expected(cohort, f"sub-0{n}.npz", label)[1] for n in (1, 2, 3) for label in (2, 3, 4)]
    over = {(row["over"], row["background"]): row["after"] for row in report["overall"]}
    assert over["values", False]["mean"] == pytest.approx(np.mean(values)) and over["values", False]["n"] == 9
    assert over["subjects", False]["std"] == pytest.approx(np.std(np.reshape(values, (3, 3)).mean(axis=1)))
    assert {"checkpoint", "atlas", "scan sub-01.npz"} <= set(report["made_from"])
    assert report["subjects"][0]["mse_after"] > 0 and report["subjects"][0]["mean_after"] == pytest.approx(
        np.mean(values[:3])
    )
    page = (evaluated / "evaluation.html").read_text()
    assert "<White>" not in page and "Left&amp;&lt;White&gt;" in page and f"{over['values', False]['mean']:.4f}" in page
    assert "n/a" in page and "SIMULATED" not in page and "http" not in page.replace("http-equiv", "")
    parser = HTMLParser()
    parser.feed(page)
    assert (evaluated / "SHA256SUMS").is_file()


@pytest.mark.tf
def test_a_part_of_the_split(cohort: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    argv = [
        "evaluate",
        "--checkpoint",
        str(checkpoint),
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--out",
        str(tmp_path / "o"),
        "--labels",
        "seed30",
    ]
    assert main(argv + ["--part", "test"]) == 0
    report = json.loads((tmp_path / "o" / "evaluation.json").read_text())
    assert [row["name"] for row in report["subjects"]] == ["sub-03.npz"] and set(map(int, report["labels"])) == set(
        LABEL_SETS["seed30"]
    )
    printed = capsys.readouterr().out
    assert "label set seed30" in printed and "over subjects, with background" in printed and "n/a" in printed
    assert main(argv + ["--part", "validation"]) == 1
    assert "train evaluate: error: " in capsys.readouterr().err


class Asked(Exception):
    """What the registration was asked to do."""


@pytest.mark.tf
@pytest.mark.parametrize(
    "more",
    [
        "--checkpoint @weights.h5",
        "--data @list.txt",
        "--atlas @scans/sub-01.npz",
        "--atlas-seg @scans/sub-02.npz",
        "--part test",
        "--labels seed30",
        "--variant vm2",
        "--h5-indexing xy",
        "--threads 1",
    ],
)
def test_an_option_is_part_of_the_request(
    cohort: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    import train.evaluate.register

    def score_pairs(source: Path, pairs: Any, loader: Any, ids: Any, indexing: str, threads: int) -> None:
        raise Asked(source, pairs, loader.spec, loader._atlas, loader._atlas_seg, ids, indexing, threads)

    monkeypatch.setattr(train.evaluate.register, "score_pairs", score_pairs)
    (tmp_path / "scans").symlink_to(cohort / "scans")
    (tmp_path / "atlas.npz").symlink_to(cohort / "atlas.npz")
    (tmp_path / "list.txt").write_text(f"{cohort / 'scans' / 'sub-01.npz'}\n")
    (tmp_path / "weights.h5").write_bytes(b"weights")
    base = f"evaluate --checkpoint {checkpoint} --data @scans --atlas @atlas.npz --out @out"
    requests = []
    for line in (base, f"{base} {more}"):
        with pytest.raises(Asked) as asked:
            main([word.replace("@", f"{tmp_path}/") for word in line.split()])
        requests.append(asked.value.args)
    assert requests[0] != requests[1]


@pytest.mark.parametrize(
    "more, message",
    [
        (["--labels", "mine"], "label set"),
        (["--checkpoint", "/nowhere"], "nowhere"),
        (["--variant", "vm2"], "conv3d"),
        (["--data", "/nowhere"], "no such folder"),
        (["--threads", "-1"], "threads"),
    ],
)
@pytest.mark.tf
def test_wrong_input_is_one_message(
    cohort: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: List[str], message: str
) -> None:
    base = [
        "evaluate",
        "--checkpoint",
        str(checkpoint),
        "--data",
        str(cohort / "scans"),
        "--atlas",
        str(cohort / "atlas.npz"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(base + more) == 1
    error = capsys.readouterr().err
    assert error.startswith("train evaluate: error: ") and message in error and "Traceback" not in error
