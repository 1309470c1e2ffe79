# SPDX-License-Identifier: Apache-2.0
"""Tuning of kernels with a scripted AOE: order of its jobs, what it is told, its repository in the manifest."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, List

import pytest

from export.__main__ import main
from export.kernels import BANK_VARIABLE, find_aoe, read_bank, tune_kernels
from tests.support.cann_releases import put_atc
from vxm_convert.errors import ToolchainError
from vxm_convert.model.contract import GraphContract
from vxm_convert.toolchain.find import Toolchain, find_toolchain

_AOE = """#!{python}
import json, os, pathlib, sys
bank = pathlib.Path(os.environ["TUNE_BANK_PATH"])
calls = bank.parent / "calls.json"
seen = json.loads(calls.read_text()) if calls.exists() else []
seen.append({{"argv": sys.argv[1:], "files": sorted(os.listdir("."))}})
calls.write_text(json.dumps(seen))
job = sys.argv[1].partition("=")[2]
(bank / "graph").mkdir(exist_ok=True)
(bank / "graph" / (job + ".json")).write_text("kernel " + job)
pathlib.Path("left_behind").write_text("x")
print("tuning", job)
sys.exit({code})
"""


def cann(tmp_path: Path, code: int = 0) -> Toolchain:
    root = tmp_path / "cann"
    put_atc(root / "bin" / "aoe", _AOE.format(python=sys.executable, code=code))
    return Toolchain("cann", "8.1.RC1", ("atc",), {"PATH": ""}, root)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "frozen.pb").write_bytes(b"graph")
    (tmp_path / "out").mkdir()
    return folder


def test_subgraphs_come_before_operators(tmp_path: Path, stage: Path, contract: GraphContract) -> None:
    bank = tune_kernels(stage, tmp_path / "out", contract, cann(tmp_path))
    calls: List[Any] = json.loads((tmp_path / "out" / "calls.json").read_text())
    assert [call["argv"][0] for call in calls] == ["--job_type=1", "--job_type=2"]
    for call in calls:
        assert call["files"] == ["frozen.pb"]
        assert f"--precision_mode={contract.precision.mode}" in call["argv"]
        assert "--framework=3" in call["argv"] and not any("soc_version" in word for word in call["argv"])
    assert bank is not None and sorted(bank.files) == ["graph/1.json", "graph/2.json"]
    assert sorted(path.name for path in stage.iterdir()) == ["frozen.pb"]
    assert "tuning 2" in (tmp_path / "out" / "aoe.log").read_text()


def test_the_compiler_takes_the_kernels_from_the_repository(tmp_path: Path, stage: Path, contract: Any) -> None:
    toolchain = cann(tmp_path)
    bank = tune_kernels(stage, tmp_path / "out", contract, toolchain)
    assert bank.used_by(toolchain).environment[BANK_VARIABLE] == str(tmp_path / "out" / "kernels")
    assert BANK_VARIABLE not in toolchain.environment


def test_the_manifest_holds_the_repository(tmp_path: Path, stage: Path, contract: Any) -> None:
    bank = tune_kernels(stage, tmp_path / "out", contract, cann(tmp_path))
    manifest = tmp_path / "atc_manifest.json"
    manifest.write_text(json.dumps({"schema": 1, "command": ["atc"]}))
    bank.record(manifest)
    data = json.loads(manifest.read_text())
    assert data["command"] == ["atc"] and data["kernels"]["sha256"] == bank.sha256
    assert data["kernels"]["jobs"] == ["subgraphs", "operators"] and set(data["kernels"]["files"]) == set(bank.files)


def test_nodes_that_keep_their_dtype_reach_aoe(tmp_path: Path, stage: Path, contract: Any) -> None:
    kept = replace(
        contract, precision=replace(contract.precision, keep_dtype=("warp/add",), fp32_results=("flow/Conv3D",))
    )
    tune_kernels(stage, tmp_path / "out", kept, cann(tmp_path))
    for call in json.loads((tmp_path / "out" / "calls.json").read_text()):
        assert "--keep_dtype=keep_dtype.cfg" in call["argv"] and "keep_dtype.cfg" in call["files"]
        assert any(word.startswith("--customize_dtypes=") and word[19:] in call["files"] for word in call["argv"])


def test_the_hash_of_a_repository_depends_on_every_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = read_bank(tmp_path, 1.0)
    (tmp_path / "b").write_text("2")
    second = read_bank(tmp_path, 1.0)
    (tmp_path / "b").write_text("3")
    assert len({first.sha256, second.sha256, read_bank(tmp_path, 1.0).sha256}) == 3
    assert read_bank(tmp_path, 9.0).to_dict()["files"].keys() == {"a", "b"}


def test_without_aoe_there_is_one_message(tmp_path: Path, stage: Path, contract: Any, caplog: Any) -> None:
    without = Toolchain("cann", "8.1.RC1", ("atc",), {"PATH": ""}, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert tune_kernels(stage, tmp_path / "out", contract, without) is None
        assert tune_kernels(stage, tmp_path / "out", contract, find_toolchain("sim")) is None
    assert [record.message.split(";")[0] for record in caplog.records] == [
        f"--tune-kernels: no aoe below {tmp_path}",
        "--tune-kernels: the simulated toolchain has no kernels",
    ]
    assert not (tmp_path / "out" / "kernels").exists()


def test_aoe_is_also_found_on_path(tmp_path: Path) -> None:
    put_atc(tmp_path / "aoe")
    assert find_aoe(Toolchain("cann", "8.1", ("atc",), {"PATH": str(tmp_path)}, tmp_path / "none")) == str(
        tmp_path / "aoe"
    )
    assert find_aoe(replace(find_toolchain("sim"), environment={"PATH": str(tmp_path)})) is None


def test_a_failing_aoe_ends_the_export(tmp_path: Path, stage: Path, contract: Any) -> None:
    with pytest.raises(ToolchainError, match="exit code 5.*omit --tune-kernels") as caught:
        tune_kernels(stage, tmp_path / "out", contract, cann(tmp_path, 5))
    assert "tuning 1" in str(caught.value) and not (stage / ".aoe").exists()


@pytest.mark.slow
@pytest.mark.tf
def test_an_export_with_the_simulator_says_it_once(checkpoint: Path, tmp_path: Path, caplog: Any) -> None:
    pytest.importorskip("tensorflow")
    argv = ["--checkpoint", str(checkpoint), "--shape", "16,16,32", "--skip-onnx", "--toolchain", "sim"]
    with caplog.at_level(logging.WARNING):
        assert main([*argv, "--out", str(tmp_path), "--tune-kernels", "-q"]) == 0
    assert sum("--tune-kernels" in record.message for record in caplog.records) == 1
    manifest = json.loads((tmp_path / "atc_manifest.json").read_text(encoding="utf-8"))
    assert "kernels" not in manifest and not (tmp_path / "kernels").exists()
