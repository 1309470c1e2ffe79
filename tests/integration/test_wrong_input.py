# SPDX-License-Identifier: Apache-2.0
"""What users get wrong: one clear message and exit 1, or a row in failures.tsv for a single scan; nothing
half-written.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import pytest

from export import __main__ as export_cli
from om_runner import __main__ as runner_cli
from tests.support.stages import SHAPE, Cohort
from train import __main__ as train_cli
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS, PrecisionPlan

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

SIZE = "x".join(str(n) for n in SHAPE)


class Bench:
    """Copies that a test may spoil, and one call per stage; every path is below `folder`."""

    def __init__(self, folder: Path, exported: Path, cohort: Cohort) -> None:
        self.folder, self.out = folder, folder / "out"
        self.model = Path(shutil.copytree(str(exported), str(folder / "vxm"))) / "vxm.om"
        self.scans = Path(shutil.copytree(str(cohort.scans), str(folder / "scans")))
        self.atlas = Path(shutil.copyfile(str(cohort.atlas), str(folder / "atlas.npz")))
        self.first = self.scans / "sub-01.npz"
        (folder / "file").write_text("in the way", encoding="utf-8")

    def register(self, **replaced: Any) -> int:
        options = {
            "input": self.scans,
            "atlas": self.atlas,
            "model": self.model,
            "out": self.out,
            "compare": "none",
            **replaced,
        }
        return runner_cli.main([word for name, value in options.items() for word in (f"--{name}", str(value))])

    def table(self, name: str) -> List[Dict[str, str]]:
        with open(str(self.out / name), encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))

    def files(self) -> List[Path]:
        return sorted(self.folder.rglob("*"))


@pytest.fixture
def bench(tmp_path, exported, cohort) -> Bench:
    return Bench(tmp_path, exported, cohort)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the image of an .npz by a function of it."""
    with np.load(str(path), allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    np.savez_compressed(str(path), **{**arrays, "vol": change(arrays["vol"].astype(np.float32))})


def with_nan(vol: np.ndarray) -> np.ndarray:
    vol[3, 4, 5] = np.nan
    return vol


def check_one_message(prog: str, said: str, *parts: str) -> None:
    assert said.count(f"{prog}: error: ") == 1 and "Traceback" not in said, said
    message = said.split(f"{prog}: error: ", 1)[1]
    missing = [part for part in parts if part not in message]
    assert not missing, (missing, message)


EXPORT: Dict[str, Tuple[List[str], Tuple[str, ...]]] = {
    "no such checkpoint": (
        ["--checkpoint", "{folder}/none/model"],
        ("none/model: no such checkpoint", "model.index", "pass --checkpoint"),
    ),
    "wrong variant": (
        ["--variant", "vm1"],
        ("does not fit --variant vm1", "expected", "these weights fit --variant vm2"),
    ),
    "not divisible by 16": (["--shape", "40,32,32"], ("got 40x32x32", "multiple of 16", "pad or crop")),
    "no write permission": (
        ["--out", "{folder}/file/out"],
        ("file/out", "cannot write there", "choose another output folder"),
    ),
    "a folder without checkpoint": (
        ["--checkpoint", "{folder}/empty"],
        ("empty", "contains no checkpoint", "pass --checkpoint"),
    ),
    "no keras file": (
        ["--checkpoint", "{folder}/file.h5"],
        ("file.h5", "cannot open it as HDF5", "expected a Keras weights file"),
    ),
}


@pytest.mark.parametrize("case", sorted(EXPORT))
def test_export_refuses(tmp_path, checkpoint, capsys, case):
    options, parts = EXPORT[case]
    (tmp_path / "empty").mkdir()
    for name in ("file", "file.h5"):
        (tmp_path / name).write_text("in the way", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    shape = ",".join(str(n) for n in SHAPE)
    base = ["--checkpoint", str(checkpoint), "--shape", shape, "--toolchain", "sim", "--out", str(tmp_path / "out")]
    assert export_cli.main(base + [option.format(folder=tmp_path) for option in options]) == 1
    check_one_message("export", capsys.readouterr().err, *parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_that_names_a_layer_the_graph_has_not(tmp_path, checkpoint, capsys, monkeypatch):
    plan = PrecisionPlan("balanced", PLANS["balanced"].mode, split_weights=("conv3d_99",))
    monkeypatch.setitem(PLANS, "balanced", plan)
    argv = [
        "--checkpoint",
        str(checkpoint),
        "--shape",
        "16,16,16",
        "--toolchain",
        "sim",
        "--out",
        str(tmp_path / "out"),
    ]
    assert export_cli.main(argv) == 1
    check_one_message(
        "export", capsys.readouterr().err, "precision plan balanced", "conv3d_99", "name layers of this network"
    )
    assert not (tmp_path / "out").exists()


def test_a_contract_that_the_onnx_process_cannot_read(tmp_path, checkpoint, capsys, monkeypatch):
    """As when two versions of the package meet: the process that converts refuses, and its one message arrives."""
    real = GraphContract.save

    def save_old(contract: Any, path: Path) -> None:
        real(contract, path)
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**data, "schema": 0}), encoding="utf-8")

    monkeypatch.setattr(GraphContract, "save", save_old)
    argv = [
        "--checkpoint",
        str(checkpoint),
        "--shape",
        "16,16,16",
        "--toolchain",
        "sim",
        "--out",
        str(tmp_path / "out"),
    ]
    assert export_cli.main(argv) == 1
    parts = ("ONNX: ", "contract.json: contract: schema is 0, expected 1", "export the model again")
    check_one_message("export", capsys.readouterr().err, *parts)
    assert not (tmp_path / "out").exists()


class Spoiled(NamedTuple):
    """How to spoil a bench (returning options to replace), and what the message must say."""

    spoil: Callable[[Bench], Any]
    parts: Tuple[str, ...]


def truncate(bench: Bench) -> None:
    bench.model.write_bytes(bench.model.read_bytes()[:-1000])


def rename_pb(bench: Bench) -> None:
    shutil.copyfile(str(bench.model.with_name("frozen.pb")), str(bench.model))


def flip_a_byte(bench: Bench) -> None:
    data = bytearray(bench.model.read_bytes())
    data[-1] ^= 1
    bench.model.write_bytes(bytes(data))


def edit_contract(bench: Bench, change: Callable[[Dict[str, Any]], Any]) -> None:
    path = bench.model.with_name("contract.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def old_contract(bench: Bench) -> None:
    edit_contract(bench, lambda data: data.update(schema=0))


def other_hash(bench: Bench) -> None:
    edit_contract(bench, lambda data: data["hashes"].update(om="0" * 64))


def foreign_contract(bench: Bench) -> None:
    """Another output node than the model's: only the opened model can tell."""
    edit_contract(bench, lambda data: data["outputs"][1].update(node="velocity"))


def frames(vol: np.ndarray) -> np.ndarray:
    return np.stack([vol, vol], axis=-1)


def pad(vol: np.ndarray) -> np.ndarray:
    return np.pad(vol, [(0, 16), (0, 0), (0, 0)], mode="constant")


REGISTER: Dict[str, Spoiled] = {
    "atlas of another shape": Spoiled(
        lambda b: rewrite(b.atlas, pad), ("atlas.npz: shape 48x32x32", f"the network needs {SIZE}", "resample or crop")
    ),
    "a 4-D atlas": Spoiled(lambda b: rewrite(b.atlas, frames), ("atlas.npz: 4-D volume", "expected one 3-D scan")),
    "NaN in the atlas": Spoiled(
        lambda b: rewrite(b.atlas, with_nan), ("atlas.npz", "1 voxels are NaN", "(3, 4, 5)", "correct the scan")
    ),
    "no such atlas": Spoiled(lambda b: {"atlas": b.folder / "none.npz"}, ("none.npz", "no such atlas", "--atlas")),
    "no such folder": Spoiled(lambda b: {"input": b.folder / "none"}, ("none", "no such folder", "--input")),
    "a folder without scans": Spoiled(
        lambda b: {"input": b.model.parent},
        ("vxm", "no scan to register", "expected files of these kinds: .nii.gz, .npz"),
    ),
    "no such model": Spoiled(
        lambda b: {"model": b.folder / "none.om"}, ("none.om", "no such offline model", "--model")
    ),
    "truncated .om": Spoiled(truncate, ("vxm.om", "header announces", "truncated", "compile it again")),
    "a pb renamed .om": Spoiled(rename_pb, ("vxm.om", "IMOD", "frozen TensorFlow graph", "python -m export")),
    "a changed .om": Spoiled(
        flip_a_byte, ("vxm.om: its checksum differs from the one in its header", "copy or compile it again")
    ),
    "the .om of another export": Spoiled(
        other_hash, ("vxm.om: sha256 ", "contract.json says 000", "different exports", "export again")
    ),
    "an old contract": Spoiled(old_contract, ("contract.json", "schema is 0, expected 1", "export the model again")),
    "no contract": Spoiled(
        lambda b: b.model.with_name("contract.json").unlink(),
        ("contract.json: cannot read the contract", "beside the model"),
    ),
    "a contract of another model": Spoiled(foreign_contract, ("vxm.om", "velocity", "export")),
    "no write permission": Spoiled(
        lambda b: {"out": b.folder / "file" / "out"}, ("file/out", "cannot write there", "choose another")
    ),
    "the toolchain of a device": Spoiled(lambda b: {"toolchain": "cann"}, ("CANN", "sim")),
}


@pytest.mark.parametrize("case", sorted(REGISTER))
def test_registration_refuses(bench, capsys, case):
    replaced = REGISTER[case].spoil(bench) or {}
    before = bench.files()
    assert bench.register(**replaced) == 1
    check_one_message("om_runner", capsys.readouterr().err, *REGISTER[case].parts)
    assert bench.files() == before


SCANS: Dict[str, Tuple[Callable[[np.ndarray], np.ndarray], Tuple[str, ...]]] = {
    "4-D": (frames, ("sub-01.npz", f"4-D volume {SIZE}x2", "expected one 3-D scan", "extract a single frame")),
    "NaN": (
        with_nan,
        (
            "sub-01.npz",
            "1 voxels are NaN or infinite, the first at index (3, 4, 5)",
            "expected finite",
            "correct the scan",
        ),
    ),
    "another shape": (pad, ("sub-01.npz", "shape 48x32x32", f"the network needs {SIZE}", "resample or crop")),
    "CT": (lambda v: v * 8 - 1000, ("sub-01.npz", "intensities -1000..", "expected 0..255 or 0..1")),
    "empty": (np.zeros_like, ("sub-01.npz", "every voxel is 0", "expected a scan with contrast")),
}


@pytest.mark.parametrize("case", sorted(SCANS))
def test_one_bad_scan_is_a_row_and_the_others_are_registered(bench, capsys, caplog, case):
    change, parts = SCANS[case]
    rewrite(bench.first, change)
    assert bench.register() == 1
    assert "Traceback" not in capsys.readouterr().err + caplog.text
    (row,) = bench.table("failures.tsv")
    assert (row["subject"], row["stage"], row["file"]) == ("sub-01", "read", str(bench.first))
    assert not [part for part in parts if part not in row["reason"]], row["reason"]
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["sub-02", "sub-03"]
    names = sorted(p.name for p in bench.out.iterdir() if p.name != ".om_runner")
    of_run = ["SHA256SUMS", "failures.tsv", "index.html", "metrics.tsv", "run.json", "structures.tsv"]
    assert names == sorted(of_run + ["sub-02", "sub-03"])


def test_both_intensity_conventions_are_taken_and_said(bench, caplog):
    rewrite(bench.first, lambda vol: vol / np.float32(255))
    with caplog.at_level(logging.INFO):
        assert bench.register() == 0
    assert [row["intensity"] for row in bench.table("metrics.tsv")] == ["0..1", "0..255", "0..255"]
    assert (
        "sub-01.npz: intensities 0..1" in caplog.text
        and "sub-02.npz: intensities 0..255, divided by 255" in caplog.text
    )


TRAIN: Dict[str, Tuple[List[str], Tuple[str, ...]]] = {
    "not divisible by 16": (["--atlas", "{folder}/odd.npz"], ("got 20x32x32", "multiple of 16", "pad or crop")),
    "no write permission": (["--out", "{folder}/file/out"], ("file/out", "cannot write there")),
    "no such folder": (["--data", "{folder}/none"], ("none", "no such folder", "--data")),
    "a bad scan": (["--data", "{folder}/bad"], ("1 of 1 training scans", "nan.npz", "NaN")),
    "no such atlas": (["--atlas", "{folder}/none.npz"], ("none.npz", "no such file")),
}


@pytest.mark.parametrize("case", sorted(TRAIN))
def test_training_refuses(tmp_path, cohort, capsys, case):
    options, parts = TRAIN[case]
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    (tmp_path / "bad").mkdir()
    np.savez_compressed(str(tmp_path / "odd.npz"), vol=np.arange(20 * 32 * 32, dtype=np.uint8).reshape(20, 32, 32))
    shutil.copyfile(str(cohort.scans / "sub-01.npz"), str(tmp_path / "bad" / "nan.npz"))
    rewrite(tmp_path / "bad" / "nan.npz", with_nan)
    before = sorted(tmp_path.rglob("*"))
    base = ["--data", str(cohort.scans), "--atlas", str(cohort.atlas), "--out", str(tmp_path / "out"), "--epochs", "1"]
    assert train_cli.main(base + [option.format(folder=tmp_path) for option in options]) == 1
    check_one_message("train", capsys.readouterr().err, *parts)
    assert sorted(tmp_path.rglob("*")) == before
