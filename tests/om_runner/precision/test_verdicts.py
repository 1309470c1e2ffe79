# SPDX-License-Identifier: Apache-2.0
"""Profiles from the command line to exit code, report and JUnit file; a damaged output buffer; what the report says of
its origin.
"""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.device.acl_runtime import AclRuntime
from om_runner.precision import provenance as origin
from om_runner.precision import report as precision
from om_runner.registration import session
from tests.support import fakes
from tests.support.registration_bench import Bench
from tests.support.scripted_reference import ScriptedReference
from vxm_convert.errors import ArtifactError, FormatError, PrecisionError
from vxm_convert.metrics.ascend import ASCEND_NAMES
from vxm_convert.metrics.labels import label_set
from vxm_convert.model.contract import GraphContract
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.faults import VARIABLE

ONLY_MOVED = "schema: 1\nname: mine\nlimits:\n  moved.max_abs: {max: 0.01}\n"


def profile_file(tmp_path, text=ONLY_MOVED):
    path = tmp_path / "mine.yaml"
    # The arithmetic of the fakes is no warp: what outputs may be at all is not judged.
    path.write_text(text + "plausible: {}\n", encoding="utf-8")
    return str(path)


def bench_with_error(tmp_path, monkeypatch, error, names="ab"):
    """Every scan but the first is off by `error` in one voxel."""
    count = []

    def spoil(outputs):
        count.append(1)
        if len(count) > 1:
            outputs["moved"][:, 3, 4, 5, 0] += np.float32(error)

    bench = Bench(tmp_path, monkeypatch, spoil=spoil)
    for seed, name in enumerate(names, 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)
    return bench


def report_of(bench):
    return json.loads((bench.out / "precision" / "report.json").read_text(encoding="utf-8"))


def test_a_scan_out_of_the_profile_ends_in_exit_3_with_everything_named(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    with pytest.raises(PrecisionError) as caught:
        bench.run("--compare", "all", "--profile", profile_file(tmp_path))
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert "profile mine failed in 1 of 2 compared scans: b: moved.max_abs is 0.0312" in text
    assert ", limit <= 0.01 (intensity" in text and "--precision" in text
    report = report_of(bench)
    assert report["verdict"] == "failed" and [row["verdict"] for row in report["rows"]] == ["ok", "failed"]
    assert report["rows"][0]["failures"] == []
    (failure,) = report["rows"][1]["failures"]
    assert (failure["figure"], failure["relation"], failure["limit"]) == ("moved.max_abs", "<=", 0.01)
    assert failure["value"] == pytest.approx(1 / 32, rel=1e-4)
    assert report["profile"]["name"] == "mine" and len(report["profile"]["sha256"]) == 64
    assert report["profile"]["limits"] == [
        {"figure": "moved.max_abs", "relation": "<=", "limit": 0.01, "optional": False}
    ]
    assert report["summary"]["n_failed"] == 1
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["precision"]["verdict"] == "failed" and run["precision"]["profile"]["name"] == "mine"


def test_the_same_error_passes_a_wider_profile_and_none(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    wide = profile_file(tmp_path, ONLY_MOVED.replace("0.01", "4e-2"))
    assert bench.run("--compare", "all", "--profile", wide) == 0
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    assert bench.run("--compare", "all", "--profile", "none") == 0
    assert report_of(bench)["profile"]["limits"] == []


def test_a_cohort_limit_fails_although_every_scan_passes(tmp_path, monkeypatch, scripted):  # noqa: F811
    text = "schema: 1\nname: c\nlimits: {}\ncohort:\n  moved.max_abs: {max: 0.01}\n"
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    with pytest.raises(
        PrecisionError, match=r"cohort: mean over n = 2 scans of moved.max_abs is 0.0156\d+, limit <= 0.01"
    ):
        bench.run("--compare", "all", "--profile", profile_file(tmp_path, text))
    report = report_of(bench)
    assert report["verdict"] == "failed" == report["cohort"]["verdict"] and all(
        row["verdict"] == "ok" for row in report["rows"]
    )
    assert report["cohort"]["values"]["moved.max_abs"] == pytest.approx(1 / 64, rel=1e-4)


@pytest.mark.parametrize("choice, error", [("reserch", ArtifactError), ("BROKEN", FormatError)])
def test_a_bad_profile_is_refused_before_anything_is_registered(tmp_path, monkeypatch, scripted, choice, error):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 0)
    given = (
        profile_file(tmp_path, "schema: 1\nname: x\nlimits:\n  moved.max_ab: {max: 1}\n")
        if choice == "BROKEN"
        else choice
    )
    with pytest.raises(
        error, match="did you mean 'research'" if choice == "reserch" else "did you mean 'moved.max_abs'"
    ):
        bench.run("--compare", "all", "--profile", given)
    assert not bench.out.exists() and bench.runtime.fed == []


def test_junit_lists_every_subject_and_figure(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    with pytest.raises(PrecisionError):
        bench.run("--compare", "all", "--profile", profile_file(tmp_path))
    root = ElementTree.parse(str(bench.out / "precision" / "junit.xml")).getroot()
    (suite,) = root
    cases = {(case.get("classname"), case.get("name")): case for case in suite.iter("testcase")}
    assert set(cases) == {
        (f"subject.{s}", f) for s in "ab" for f in ("moved.non_finite", "flow.non_finite", "moved.max_abs")
    }
    failed = [key for key, case in cases.items() if case.find("failure") is not None]
    assert failed == [("subject.b", "moved.max_abs")] and "limit <= 0.01" in cases[failed[0]].find("failure").get(
        "message"
    )
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), root.get("failures")) == (
        "6",
        "1",
        "0",
        "1",
    )
    assert float(suite.get("time")) == pytest.approx(2.0)
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["profile"] == "mine"


def test_an_old_junit_file_does_not_stay(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 0)
    bench.run("--compare", "all")
    assert (bench.out / "precision" / "junit.xml").exists()
    bench.run("--compare", "none")
    assert (bench.out / "precision" / "junit.xml").exists(), "all results are those that it speaks of"
    bench.run("--compare", "none", "--force")
    assert not (bench.out / "precision" / "junit.xml").exists()


def test_rows_carry_the_figures_of_registration(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 1 / 32)
    bench.run("--compare", "all")
    row = report_of(bench)["rows"][1]
    assert set(row["moved"]["ascend"]) == set(row["flow"]["ascend"]) == set(ASCEND_NAMES)
    assert row["moved"]["ascend"]["MaxAbsoluteError"] == row["moved"]["max_abs"]
    inside, n = row["moved"]["inside"], int(np.prod(fakes.SHAPE))
    assert 0 < inside["n"] < n and row["moved"]["warp_only"]["n"] == n
    assert row["sampling"]["position_max"] == 0.0 and row["sampling"]["floor_flip_fraction"] == 0.0
    assert row["jacobian"]["offline"] == row["jacobian"]["reference"]
    assert row["jacobian"]["offline"]["min"] <= row["jacobian"]["offline"]["p01"] <= row["jacobian"]["offline"]["p50"]
    for name in ("epe_voxel", "moved_abs"):
        histogram = row["histograms"][name]
        assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == n
    labels = row["dice"]["per_label"]
    assert len(labels) == len(label_set("paper30")) and row["dice"]["min_change"] == row["dice"]["mean_change"] == 0.0
    known = {name: entry for name, entry in labels.items() if entry["change"] is not None}
    assert len(known) == row["dice"]["n_labels"] == 3
    assert np.mean([entry["offline"] for entry in known.values()]) == pytest.approx(row["dice"]["offline"])
    with open(str(bench.out / "precision" / "report.csv"), encoding="utf-8", newline="") as handle:
        columns = next(csv.reader(handle))
    assert "moved.inside.max_abs" in columns and "moved.ascend.CosineSimilarity" in columns
    assert not [name for name in columns if name.startswith("histograms") or "per_label" in name]


def test_the_report_says_where_it_comes_from(tmp_path, monkeypatch, scripted):  # noqa: F811
    bench = bench_with_error(tmp_path, monkeypatch, 0)
    (bench.out / "precision").mkdir(parents=True)
    om = bench.model.contract.hashes["om"]
    layers = {"model": {"om_sha256": om}, "layers": [{"name": "conv3d"}]}
    path = bench.out / "precision" / origin.LAYERS_JSON
    path.write_text(json.dumps(layers), encoding="utf-8")
    bench.run("--compare", "all")
    report = report_of(bench)
    assert [(entry["role"], entry["file"]) for entry in report["provenance"]] == [
        ("frozen_pb", "frozen.pb"),
        ("om", "vxm.om"),
    ]
    assert report["provenance"][1]["sha256"] == om
    plan = report["precision_plan"]
    assert plan["name"] == "balanced" and set(plan["reasons"]) == set(plan["split_weights"]) == {"conv3d"}
    assert report["layers"] == layers
    for foreign in (json.dumps({**layers, "model": {"om_sha256": "x"}}), "not json", "[1]"):
        path.write_text(foreign, encoding="utf-8")
        bench.run("--compare", "all")
        assert "layers" not in report_of(bench)


class TwiceFixed(ScriptedReference):
    """What the scripted device of `sim_device` computes: moved = moving + 2 fixed, flow = moving three times."""

    def run(self, subjects):
        for subject in subjects:
            moving, fixed = self.store.get(subject, "moving"), self.store.fixed(subject)
            np.save(str(self.store.path(subject, "ref_moved")), moving + 2 * fixed)
            np.save(str(self.store.path(subject, "ref_flow")), np.repeat(moving[..., np.newaxis], 3, axis=-1))
        return 1.0


@pytest.mark.parametrize("fault, verdict", [("", "ok"), ("corrupt_output", "failed"), ("corrupt_output:1", "failed")])
def test_a_damaged_output_buffer_ends_in_exit_3(tmp_path, monkeypatch, sim, fault, verdict):
    """Through the simulated device: execution succeeds, 64 bytes of an output are inverted, and only the comparison can
    tell.
    """
    from tests.support.sim_device import SHAPE, contract

    monkeypatch.setattr(precision, "ReferenceProcess", TwiceFixed)
    monkeypatch.setattr(session, "check_reference_python", lambda python: None)
    if fault:
        monkeypatch.setenv(VARIABLE, fault)
    made: GraphContract = contract()
    model = fakes.offline_model(tmp_path / "model")
    monkeypatch.setattr(session, "open_model", lambda *args: model)
    object.__setattr__(model, "contract", _with_hashes(made, model.contract))
    rng = np.random.RandomState(0)
    for name in ("in/a", "atlas"):
        path = tmp_path / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(str(path), vol=rng.randint(1, 120, SHAPE[1:4]).astype(np.uint8))
    profile = profile_file(tmp_path, ONLY_MOVED + "  flow.max_abs: {max: 0.01}\n")
    argv = [
        "--input",
        str(tmp_path / "in"),
        "--atlas",
        str(tmp_path / "atlas.npz"),
        "--out",
        str(tmp_path / "out"),
        "--profile",
        profile,
    ]
    settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)

    def run():
        return session.run_session(settings, lambda model, device: AclRuntime(sim.acl, sim.om_path, made))

    if verdict == "ok":
        assert run() == 0
    else:
        with pytest.raises(PrecisionError) as caught:
            run()
        assert caught.value.exit_code == 3
    report = json.loads((tmp_path / "out" / "precision" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == verdict and report["rows"][0]["verdict"] == verdict
    assert SIM is not None and sim.leftovers() == []


def _with_hashes(made, other):
    from dataclasses import replace

    return replace(made, hashes=other.hashes)
