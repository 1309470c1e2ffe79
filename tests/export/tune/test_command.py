# SPDX-License-Identifier: Apache-2.0
"""``python -m export tune`` on a small network and a phantom: real compiler runs, real registrations, real reports."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import numpy as np
import pytest

from export.__main__ import main
from export.tune import oracle as oracle_module
from export.tune.oracle import FileOracle, Setup
from export.tune.trials import Verdict
from tests.support.checkpoints import write_checkpoint
from tests.support.reference import random_weights
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import AtcError, ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort

pytestmark = pytest.mark.usefixtures("forked_commands")

SHAPE = (16, 16, 16)
FIGURE = "moved.max_abs"


class Case(NamedTuple):
    """Files of one search."""

    folder: Path
    common: List[str]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("tune")
    write_cohort(folder, PhantomSettings(SHAPE, 1))
    checkpoint = write_checkpoint(folder / "model", random_weights(ModelSpec("vm2", SHAPE), seed=11))
    # What the layer analysis would say: the warp loses most.
    layers = [{"name": "warp/Floor", "type": "Floor", "single": {"RelativeEuclideanDistance": 0.1}, "source": True}]
    (folder / "layers.json").write_text(json.dumps(layers))
    common = [
        "tune",
        "--checkpoint",
        str(checkpoint),
        "--shape",
        "16,16,16",
        "--input",
        str(folder / SCANS_FOLDER),
        "--atlas",
        str(folder / ATLAS_FILE),
        "--toolchain",
        "sim",
        "--layers",
        str(folder / "layers.json"),
    ]
    return Case(folder, common)


def profile(case: Case, name: str, limit: float) -> str:
    path = case.folder / f"{name}.yaml"
    path.write_text(f"schema: 1\nname: {name}\ndescription: for a test\nlimits:\n  {FIGURE}: {{max: {limit:.15f}}}\n")
    return str(path)


def told(entry: Dict[str, Any]) -> float:
    """The figure in a candidate's reason."""
    return float(entry["reason"].split()[1].rstrip(","))


@pytest.mark.tf
def test_a_search_from_checkpoint_to_plan(case: Case, capsys: pytest.CaptureFixture) -> None:
    out = case.folder / "out"
    assert main(case.common + ["--out", str(out), "--profile", profile(case, "never", 1e-12), "--max-trials", "2"]) == 3
    nothing, warp = json.loads((out / "tune.json").read_text())["candidates"]
    assert nothing["keep_dtype"] == [] and all(name.startswith("warp/") for name in warp["keep_dtype"])
    assert "no set of decisions" in capsys.readouterr().err
    assert logging.getLogger("export.atc").level == logging.NOTSET, "for whoever compiles next in this process"
    assert (
        (out / "tune.html").is_file() and not (out / "plan.json").exists() and not (out / "work" / "candidate").exists()
    )
    assert told(warp) < 0.7 * told(nothing), "keeping the warp in fp32 must show"
    assert len(list((out / "work" / "reference").iterdir())) == 1, "one scan, one reference, however many candidates"

    # A limit between the two: the second candidate meets it.
    between = profile(case, "between", (told(warp) * told(nothing)) ** 0.5)
    arguments = case.common + ["--out", str(out), "--profile", between, "--max-trials", "2"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    data = json.loads((out / "tune.json").read_text())
    plan = json.loads((out / "plan.json").read_text())
    assert data["found"] and data["verdict"]["accepted"] and plan["keep_dtype"] and plan["mode"] == "force_fp16"
    assert (out / "keep_dtype.cfg").read_text().split() == plan["keep_dtype"]
    flags = ["--precision_mode=force_fp16", "--keep_dtype=keep_dtype.cfg"]
    assert (out / "atc_flags.txt").read_text().split() == flags == data["atc_flags"]
    assert "SIMULATED" in shown and "keep_dtype.cfg" in shown
    assert (out / "trials-1.jsonl").is_file(), "the journal of the other profile is kept aside"

    # Again with the journal: no candidate is compiled or registered.
    lines = (out / "trials.jsonl").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle_module, "compile_om", None)
        assert main(arguments + ["--resume"]) == 0
    assert (out / "trials.jsonl").read_text() == lines and json.loads((out / "plan.json").read_text()) == plan
    assert main(case.common + ["--out", str(out), "--profile", profile(case, "other", 1.0), "--resume"]) == 1
    assert "other inputs" in capsys.readouterr().err

    # The plan compiles, and the contract carries it.
    checkpoint = case.common[case.common.index("--checkpoint") + 1]
    again = [
        "--checkpoint",
        checkpoint,
        "--shape",
        "16,16,16",
        "--toolchain",
        "sim",
        "--skip-onnx",
        "--plan",
        str(out / "plan.json"),
    ]
    assert main(again + ["--out", str(case.folder / "export")]) == 0
    contract = GraphContract.load(case.folder / "export" / "contract.json")
    assert contract.precision.name == "tuned" and list(contract.precision.keep_dtype) == plan["keep_dtype"]


@pytest.mark.tf
def test_ctrl_c_keeps_the_journal(case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    answers: List[Any] = [Verdict(False, -1.0, "outside")]

    def judge(oracle: FileOracle, atoms: Any) -> Verdict:
        if not answers:
            raise KeyboardInterrupt
        return answers.pop(0)

    monkeypatch.setattr(FileOracle, "__call__", judge)
    out = case.folder / "stopped"
    arguments = case.common + ["--out", str(out), "--profile", profile(case, "any", 1.0)]
    assert main(arguments) == 130
    assert len((out / "trials.jsonl").read_text().splitlines()) == 2 and not (out / "tune.json").exists()
    answers += [Verdict(True, 0.5, "inside")]
    assert main(arguments + ["--resume", "--max-trials", "2"]) == 0
    candidates = json.loads((out / "tune.json").read_text())["candidates"]
    assert [entry["reason"] for entry in candidates] == ["outside", "inside"] and answers == []
    assert "\x1b" not in capsys.readouterr().err


def test_plan_and_precision_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", "x", "--out", str(tmp_path), "--plan", "p.json", "--precision=fast"])
    assert stopped.value.code == 2 and "--plan" in capsys.readouterr().err
    assert main(["--checkpoint", "x", "--out", str(tmp_path / "o"), "--plan", str(tmp_path / "gone.json")]) == 1
    assert "gone.json" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        (["--input", "{tmp}/gone"], "no such folder"),
        (["--input", "{tmp}/empty"], "no scan"),
        (["--atlas", "{tmp}/gone.npz"], "no such atlas"),
        (["--layers", "{tmp}/gone.json"], "layer analysis"),
        (["--profile", "reserch"], "'reserch': neither a file nor one of"),
        (["--profile", "none"], "expected one with limits"),
        (["--checkpoint", "{tmp}/gone"], "no such checkpoint"),
        (["--soc-version", "a;b"], "soc version"),
        (["--shape", "100,16,16"], "multiple of 16"),
    ],
)
def test_wrong_input_is_one_message_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, change: List[str], words: str
) -> None:
    scans = tmp_path / "scans"
    for folder in (scans, tmp_path / "empty"):
        folder.mkdir()
    for name in ("a.npz", "atlas.npz"):
        np.savez(str(scans / name), vol=np.full((16, 16, 16), len(name), np.float32))
    (tmp_path / "p.yaml").write_text("schema: 1\nname: p\nlimits: {}\n")
    base = {
        "--profile": str(tmp_path / "p.yaml"),
        "--checkpoint": "x",
        "--input": str(scans),
        "--atlas": str(scans / "atlas.npz"),
        "--out": str(tmp_path / "out"),
    }
    base.update({change[0]: change[1].format(tmp=tmp_path)})
    assert main(["tune"] + [word for pair in base.items() for word in pair]) == 1
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and not (tmp_path / "out").exists()


# The oracle, with a compiler and a runner that do what the test says.


class Scripted:
    """Replaces compile and registration of `FileOracle`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contract: GraphContract) -> None:
        self.steps: List[Any] = []
        self.plans: List[Any] = []
        pb = tmp_path / "original.pb"
        pb.write_bytes(b"graph")
        toolchain = type("Tools", (), {"version": "t", "simulated": True})()
        self.oracle = FileOracle(Setup(contract, pb, toolchain, tmp_path, tmp_path, "p", 1, tmp_path / "work"))
        self.pb_sha256 = sha256_of(pb)
        monkeypatch.setattr(oracle_module, "compile_om", self.compile)
        monkeypatch.setattr(FileOracle, "_register", lambda oracle, folder: self.register(folder))

    def compile(self, folder: Path, contract: GraphContract, toolchain: Any) -> Path:
        self.plans.append(contract.precision)
        if self.steps[0] == "refuse":
            self.steps.pop(0)
            raise AtcError("ATC failed, E10016", "E10016", "log")
        (folder / "vxm.om").write_bytes(b"om")
        return folder / "vxm.om"

    def register(self, folder: Path) -> Any:
        step = self.steps.pop(0)
        contract = GraphContract.load(folder / "contract.json")
        assert contract.hashes["frozen_pb"] == self.pb_sha256 == sha256_of(folder / "frozen.pb")
        if step == "crash":
            return -11, "it said nothing"
        (folder / "out" / "precision").mkdir(parents=True)
        moved = {"max_abs": 0.5 * step[1], "nan_count": step[2]}
        report = {
            "verdict": step[0],
            "rows": [{"subject": "s", "moved": moved}],
            "profile": {"limits": [{"figure": FIGURE, "relation": "<=", "limit": 1.0}]},
        }
        (folder / "out" / "precision" / "report.json").write_text(json.dumps(report))
        return (0 if step[0] == "ok" else 3), ""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contract: GraphContract) -> Scripted:
    return Scripted(monkeypatch, tmp_path, contract)


def test_refusal_crash_and_nan_are_verdicts(scripted: Scripted, tmp_path: Path) -> None:
    scripted.steps = [("ok", 1.0, 0), "refuse", "crash", ("failed", 0.1, 3), ("failed", 4.0, 0)]
    good, refused, crashed, nan, outside = [scripted.oracle(frozenset((f"n{k}",))) for k in range(5)]
    assert good == Verdict(True, 0.5, "moved.max_abs 0.5, limit <= 1 (s)")
    assert refused.invalid and "E10016" in refused.reason
    assert crashed.invalid and "-11" in crashed.reason
    assert nan.invalid and "NaN" in nan.reason
    assert not outside.invalid and not outside.accepted and outside.score == -1.0
    assert [plan.keep_dtype for plan in scripted.plans] == [(f"n{k}",) for k in range(5)]
    assert not (tmp_path / "work" / "candidate").exists()


@pytest.mark.parametrize("first", ["refuse", "crash"])
def test_a_first_candidate_that_cannot_run_is_no_verdict(scripted: Scripted, first: str) -> None:
    """Broken scans or tools fail every candidate alike: the search must not report that as a property of the
    network.
    """
    scripted.steps = [first]
    with pytest.raises(ToolchainError, match="first candidate"):
        scripted.oracle(frozenset())
