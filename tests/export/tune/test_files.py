# SPDX-License-Identifier: Apache-2.0
"""What a search reads and writes: journal, plan, layer analysis, cost, headroom, page; hostile contents included."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from export.plans import load_plan, save_plan
from export.preflight.view.graph import read_view
from export.tune import results as outcome
from export.tune.cost import RESULT, SPLIT, GraphCost, keep_of, results_of, splits_of
from export.tune.groups import scope_groups, split_group
from export.tune.journal import Journal
from export.tune.margins import smallest_margin
from export.tune.oracle import judge_report
from export.tune.page import build_page
from export.tune.search import Group, Guarantee, search
from export.tune.sources import rank, read_layers, seeds
from export.tune.trials import Trials, Verdict
from tests.support.graphs import PbBuilder, conv_attrs
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.model.precision import PrecisionPlan

INPUTS = {"frozen_pb": "ab" * 32, "mode": "force_fp16", "scans": {"a.npz": "cd" * 32}}
A, B = frozenset(("a",)), frozenset(("a", "split:b"))


def journal(tmp_path: Path, resume: bool = True, **other: Any) -> Journal:
    return Journal(tmp_path / "trials.jsonl", {**INPUTS, **other}, resume)


def test_verdicts_come_back(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.add(A, Verdict(True, 0.25, "fine"), seconds=1.5)
        first.add(B, Verdict(False, -math.inf, "ATC: refused", True))
        assert first.find(frozenset()) is None
    with journal(tmp_path) as again:
        assert len(again) == 2
        assert again.find(A) == Verdict(True, 0.25, "fine")
        assert again.find(B) == Verdict(False, -math.inf, "ATC: refused", True)
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert (
        lines[0]["inputs"] == INPUTS
        and lines[1]["decisions"] == ["a"]
        and lines[1]["seconds"] == 1.5
        and lines[2]["score"] is None
    )


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, cut: int) -> None:
    with journal(tmp_path) as first:
        first.add(A, Verdict(True, 0.25))
        first.add(B, Verdict(True, 0.5))
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with journal(tmp_path) as again:
        assert again.find(A) is not None and again.find(B) is None
        again.add(B, Verdict(False, -1.0))
    with journal(tmp_path) as third:
        assert len(third) == 2 and third.find(B) == Verdict(False, -1.0)


def test_other_inputs_are_refused_or_start_anew(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.add(A, Verdict(True, 0.25))
    with pytest.raises(ArtifactError, match="mode differ"):
        journal(tmp_path, mode="force_fp32")
    with journal(tmp_path, resume=False, mode="force_fp32") as fresh:
        assert len(fresh) == 0 and fresh.find(A) is None
    with journal(tmp_path, resume=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials-1.jsonl", "trials-2.jsonl", "trials.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"key": "x", "decisions": ["a"], "accepted": true, "score": 1, "invalid": false}',
        '{"decisions": "a"}',
        '{"key": "x", "decisions": [1], "accepted": 1, "score": 1, "invalid": false}',
        "[" * 100000,
    ],
)
def test_a_damaged_line_is_refused(tmp_path: Path, line: str) -> None:
    with journal(tmp_path):
        pass
    with open(str(tmp_path / "trials.jsonl"), "a") as handle:
        handle.write(line + "\n")
    with pytest.raises(FormatError, match="line 2"):
        journal(tmp_path)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text("hello\n")
    with pytest.raises(FormatError, match="not JSON"):
        journal(tmp_path)
    (tmp_path / "trials.jsonl").write_text('{"schema": 1}\n')
    with pytest.raises(ArtifactError, match="other inputs"):
        journal(tmp_path)


def test_two_searches_do_not_share_a_journal(tmp_path: Path) -> None:
    with journal(tmp_path):
        with pytest.raises(ArtifactError, match="another search"):
            journal(tmp_path)


def test_a_resumed_search_asks_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    groups = [Group(name, (name,)) for name in "abcdef"]
    asked: List[Any] = []

    def recorded(log: Journal, stop: int) -> Any:
        def judge(atoms: Any) -> Verdict:
            known = log.find(atoms)
            if known is None:
                if len(asked) >= stop:
                    raise KeyboardInterrupt
                asked.append(atoms)
                known = Verdict({"b", "e"} <= atoms, float(len({"b", "e"} & atoms)))
                log.add(atoms, known)
            return known

        return judge

    with journal(tmp_path) as log, pytest.raises(KeyboardInterrupt):
        search(groups, Trials(recorded(log, 5), len, 100))
    assert len(asked) == 5
    with journal(tmp_path) as log:
        result = search(groups, Trials(recorded(log, 1000), len, 100))
    assert result.atoms == {"b", "e"} and len(asked) == len(set(asked))


# Plans.


def test_a_plan_comes_back(tmp_path: Path) -> None:
    plan = PrecisionPlan("tuned", "force_fp16", ("warp/add",), ("conv3d",), ("conv3d_1/Conv3D",))
    save_plan(tmp_path / "plan.json", plan, {"warp/add": "because"})
    assert load_plan(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text(json.dumps({"schema": 1, "name": "bare", "mode": "force_fp32"}))
    assert load_plan(tmp_path / "plan.json") == PrecisionPlan("bare", "force_fp32")


GOOD = {"schema": 1, "name": "x", "mode": "force_fp16"}
BAD: Dict[str, Any] = {
    "not JSON": ("{", "not JSON"),
    "deep": ("[" * 100000, "not JSON"),
    "a list": ("[]", "list"),
    "binary": ("\x00\xff", "not JSON"),
    "typing error": ({**GOOD, "keep_dtypes": []}, "did you mean 'keep_dtype'"),
    "no mode": ({"schema": 1, "name": "x"}, "has no mode"),
    "schema": ({**GOOD, "schema": 2}, "schema is 2"),
    "schema true": ({**GOOD, "schema": True}, "schema is True"),
    "mode": ({**GOOD, "mode": "force_fp15"}, "did you mean force_fp16"),
    "mode list": ({**GOOD, "mode": ["force_fp16"]}, "mode is"),
    "name": ({**GOOD, "name": "a\nb"}, "name is"),
    "no list": ({**GOOD, "keep_dtype": "node"}, "expected a list"),
    "line break": ({**GOOD, "keep_dtype": ["a\nOpType::Conv3D"]}, "not a node name"),
    "type": ({**GOOD, "keep_dtype": ["OpType::Add"]}, "not a node name"),
    "number": ({**GOOD, "keep_dtype": [1]}, "not a node name"),
    "empty name": ({**GOOD, "split_weights": [""]}, "not a node name"),
    "twice": ({**GOOD, "keep_dtype": ["a", "a"]}, "more than once"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_hostile_plans_are_refused(tmp_path: Path, case: str) -> None:
    content, words = BAD[case]
    (tmp_path / "plan.json").write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="latin-1"
    )
    with pytest.raises(FormatError, match=words):
        load_plan(tmp_path / "plan.json")


def test_a_missing_or_huge_plan(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        load_plan(tmp_path / "gone.json")
    (tmp_path / "plan.json").write_text(" " * ((4 << 20) + 1))
    with pytest.raises(FormatError, match="more than"):
        load_plan(tmp_path / "plan.json")


# Cost and groups.


def network(tmp_path: Path) -> Any:
    """x → Conv3D + bias → LeakyRelu → Mul → y, all of 64 voxels and 8 channels."""
    pb = PbBuilder()
    x = pb.placeholder("x", (1, 4, 4, 4, 8))
    conv = pb.node("Conv3D", "c/Conv3D", x, pb.const("c/kernel", np.ones((3, 3, 3, 8, 8), np.float32)), **conv_attrs())
    bias = pb.node("BiasAdd", "c/BiasAdd", conv, pb.const("c/bias", np.ones(8, np.float32)), data_format="NHWC")
    net = pb.node("LeakyRelu", "c/LeakyRelu", bias, alpha=0.2)
    pb.node("Mul", "y", net, pb.const("two", np.array(2, np.float32)))
    return read_view(pb.save(tmp_path / "net.pb"), ["y:0"])


def test_cost_by_hand(tmp_path: Path) -> None:
    cost, elements = GraphCost(network(tmp_path), "force_fp16"), 4 * 4 * 4 * 8
    assert cost(frozenset()) == 0
    # y writes fp32, so the cast of the result goes and one of its input comes: the same bytes; its work doubles.
    assert cost(frozenset(("y",))) == 2 + 2 * (elements + elements + 1)
    # In the middle: a cast on each side more.
    assert cost(frozenset(("c/LeakyRelu",))) == 2 * 6 * elements + 2 + 2 * (2 * elements)
    # A convolution with an fp32 result reads fp16 all the same; its bias is part of it.
    assert cost(frozenset((RESULT + "c/Conv3D",))) == 6 * elements + 2 + 2 * elements
    assert cost.decision("c/Conv3D") == RESULT + "c/Conv3D" and cost.decision("c/BiasAdd") is None
    # Neighbours share no cast.
    both = cost(frozenset(("y", "c/LeakyRelu")))
    assert both < cost(frozenset(("y",))) + cost(frozenset(("c/LeakyRelu",)))
    flop = 2 * elements * 27 * 8
    assert cost(frozenset((SPLIT + "c",))) == 2 * elements + 8 * elements + flop / 213
    assert cost(frozenset((SPLIT + "gone",))) >= 1 << 30


def test_a_chip_with_fp32_convolutions_keeps_them_as_any_node(tmp_path: Path) -> None:
    cost = GraphCost(network(tmp_path), "force_fp16", single_conv=True)
    assert cost.decision("c/Conv3D") == "c/Conv3D" and cost(frozenset(("c/Conv3D",))) > 0


def test_groups_are_scopes_then_nodes(tmp_path: Path) -> None:
    view = network(tmp_path)
    groups = scope_groups(view, GraphCost(view, "force_fp16"))
    assert groups == [
        Group("c/*", (RESULT + "c/Conv3D", "c/LeakyRelu")),
        Group("y", ("y",)),
        Group("split:c", ("split:c",)),
    ]
    assert split_group(groups[0]) == [
        Group(RESULT + "c/Conv3D", (RESULT + "c/Conv3D",)),
        Group("c/LeakyRelu", ("c/LeakyRelu",)),
    ]
    assert split_group(groups[1]) == [groups[1]]
    # Where vector operators are fp32 anyway, only the convolution is a decision; where all results are, the weights
    # alone.
    assert [g.atoms for g in scope_groups(view, GraphCost(view, "allow_fp32_to_fp16"))] == [
        (RESULT + "c/Conv3D",),
        ("split:c",),
    ]
    assert [g.atoms for g in scope_groups(view, GraphCost(view, "force_fp32"))] == [("split:c",)]
    assert keep_of(groups[0].atoms) == ("c/LeakyRelu",) and results_of(groups[0].atoms) == ("c/Conv3D",)
    assert splits_of(frozenset(("split:c", "y"))) == ("c",)


# Layer analysis.


def layers_file(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "layers.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_sources_lead_the_ranking(tmp_path: Path) -> None:
    rows = [
        {"name": "y", "single": {"RelativeEuclideanDistance": 0.5}, "source": False},
        {
            "name": "c/Conv3D",
            "originals": ["c/Conv3D", "c/BiasAdd"],
            "single": {"RelativeEuclideanDistance": 1e-3},
            "source": True,
        },
        {"name": "odd", "single": None, "source": None},
        {"name": "nan", "single": {"RelativeEuclideanDistance": None}},
    ]
    groups = [
        Group("c/*", ("c/Conv3D", "c/LeakyRelu")),
        Group("y", ("y",)),
        Group("z", ("z",)),
        Group("split:c", ("split:c",)),
    ]
    for content in (rows, {"schema": 1, "layers": rows}):
        layers = read_layers(layers_file(tmp_path, content))
        assert layers["c/BiasAdd"] == (True, 1e-3) and layers["y"] == (False, 0.5) and layers["nan"] == (False, 0.0)
        order = rank(groups, layers, ["z"], lambda atoms: len(atoms))
        assert order == ["split:c", "c/*", "z", "y"]
        assert seeds(groups, layers, ["y"]) == ["c/*", "split:c"]
    assert rank(groups, {}, [], lambda atoms: len(atoms))[-1] == "c/*" and seeds(groups, {}, ["split:c"]) == ["split:c"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"layers": {}}', '[{"name": 3}]', "3", "[" * 100000])
def test_hostile_layer_files_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(FormatError, match=r"layers\.json"):
        read_layers(layers_file(tmp_path, content))


# Headroom and verdicts.

LIMITS = [
    {"figure": "moved.max_abs", "relation": "<=", "limit": 0.01},
    {"figure": "dice.min_change", "relation": ">=", "limit": -0.005},
]


def row(moved: float, dice: Any = None, **more: Any) -> Dict[str, Any]:
    fields = {"subject": "s", "moved": {"max_abs": moved, "nan_count": 0, "inf_count": 0}, "dice": dice, "failures": []}
    return {**fields, **more}


def report(*rows: Any, verdict: str = "ok") -> Dict[str, Any]:
    return {"rows": list(rows), "verdict": verdict, "profile": {"limits": LIMITS}}


def test_the_margin_is_that_of_the_worst_figure() -> None:
    margin, words, finite = smallest_margin([row(0.004), row(0.008, {"min_change": -0.004})], LIMITS)
    assert margin == pytest.approx(0.2) and finite
    margin, words, _ = smallest_margin([row(0.004, {"min_change": -0.01}), row(0.012)], LIMITS)
    assert margin == pytest.approx(-1.0) and words.startswith("dice.min_change -0.01")
    undefined = row(0.004, failures=[{"figure": "dice.min_change", "value": None, "text": "no labels"}])
    assert smallest_margin([undefined], LIMITS)[:2] == (-1.0, "dice.min_change: no labels (s)")


def test_verdicts_of_reports() -> None:
    assert judge_report(report(row(0.005)), 0, 1).accepted
    outside = judge_report(report(row(0.02), verdict="failed"), 3, 1)
    assert not outside.accepted and not outside.invalid and outside.score == pytest.approx(-1.0)
    missing = judge_report(report(row(0.005)), 0, 2)
    assert missing.invalid and "1 of 2" in missing.reason
    broken = row(0.005)
    broken["moved"]["nan_count"] = 1
    assert judge_report(report(broken, verdict="failed"), 3, 1).invalid
    # Whatever the figures say: the runner's verdict counts.
    assert judge_report(report(row(0.005), verdict="failed"), 3, 1).score < 0


# The page.


def test_page_and_data_say_why(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    groups = [Group(evil, (evil,)), Group("b", ("b",))]
    trials = Trials(
        lambda atoms: Verdict(evil in atoms, 0.5 if evil in atoms else -2.0, f"moved.max_abs & {len(atoms)}"), len, 20
    )
    result = search(groups, trials)
    data = {
        "inputs": {
            "profile": evil,
            "mode": "force_fp16",
            "soc_version": "910",
            "frozen_pb": "a",
            "atlas": "b",
            "profile_sha256": "c",
        },
        "toolchain": {"kind": "simulator", "version": "1"},
        "simulated": True,
        "n_samples": 4,
        "start": "fast",
        "max_trials": 20,
        "atc_flags": ["--precision_mode=force_fp16"],
        **outcome.summary(groups, result, trials),
    }
    assert data["guarantee"] == Guarantee.EXACT and [entry["name"] for entry in data["kept"]] == [evil]
    assert data["kept"][0]["why"] == "without it: moved.max_abs & 0; with it: moved.max_abs & 1"
    assert [entry["name"] for entry in data["not_kept"]] == ["b"]
    text = build_page(json.loads(json.dumps(data)))
    assert evil not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "http://" not in text and "https://" not in text and "SIMULATED" in text and "n = 4" in text


def test_nothing_found_names_the_best_try() -> None:
    groups = [Group("a", ("a",))]
    trials = Trials(lambda atoms: Verdict(False, -1.0 - len(atoms), f"{len(atoms)} kept"), len, 20)
    data = outcome.summary(groups, search(groups, trials), trials)
    assert not data["found"] and data["best_try"]["reason"] == "0 kept" and data["kept"] == []
