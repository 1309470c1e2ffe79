# SPDX-License-Identifier: Apache-2.0
"""``python -m vxm_convert``: doctor, inspect, verify, phantom, sim env, each as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

import vxm_convert.toolchain.doctor as doctor_module
from vxm_convert.__main__ import main, simulator_exports
from vxm_convert.artifacts.files import sha256_of, write_bytes, write_json, write_sidecar
from vxm_convert.artifacts.names import CONTRACT_NAME, RUN_NAME
from vxm_convert.inspection.verify import BROKEN, OK, OUTSIDE, UNPROVEN, verify_folders
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.toolchain.doctor import FOUND, MISSING, Finding, can_register, examine, installed_version, summary

NO_TOOLCHAIN = {"kind": "none"}


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A folder as export leaves it: a pb with a side-car, a contract naming it, an om made from it."""
    folder = tmp_path / "vxm"
    folder.mkdir()
    pb, om = folder / "frozen.pb", folder / "vxm.om"
    write_bytes(pb, b"graph")
    write_sidecar(pb, {"checkpoint": "a" * 64}, NO_TOOLCHAIN)
    write_bytes(om, b"model")
    write_sidecar(om, {"frozen_pb": sha256_of(pb)}, NO_TOOLCHAIN)
    spec = ModelSpec("vm2", (16, 16, 16))
    tensors = [TensorSpec(m, m, 0, spec.image_shape) for m in ("moving", "fixed", "moved")] + [
        TensorSpec("flow", "f", 0, spec.flow_shape)
    ]
    GraphContract(
        spec,
        tuple(tensors[:2]),
        tuple(tensors[2:]),
        PLANS["fast"],
        "Ascend910A",
        hashes={"frozen_pb": sha256_of(pb), "om": sha256_of(om), "checkpoint": "a" * 64},
    ).save(folder / CONTRACT_NAME)
    return folder


def broken(folder: Path) -> List[str]:
    return sorted({link.subject.name for link in verify_folders([folder]) if link.state == BROKEN})


def test_an_untouched_chain_holds(chain: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(chain)]) == 0
    assert "0 broken" in capsys.readouterr().out
    states = {link.state for link in verify_folders([chain])}
    assert states == {OK, OUTSIDE}


def test_a_changed_file_is_named(chain: Path, capsys: pytest.CaptureFixture) -> None:
    (chain / "frozen.pb").write_bytes(b"grapH")
    assert main(["verify", str(chain)]) == 1
    captured = capsys.readouterr()
    assert (
        "frozen.pb" in captured.err
        and "was made from it" in captured.err
        and "recorded in contract.json" in captured.err
    )
    assert broken(chain) == ["frozen.pb"]


def test_a_model_replaced_with_its_own_sidecar_is_caught_by_the_contract(chain: Path) -> None:
    write_bytes(chain / "vxm.om", b"other")
    write_sidecar(chain / "vxm.om", {"frozen_pb": sha256_of(chain / "frozen.pb")}, NO_TOOLCHAIN)
    assert broken(chain) == ["vxm.om"]


def test_a_pb_replaced_with_its_own_sidecar_breaks_the_model_made_from_the_old_one(chain: Path) -> None:
    (chain / CONTRACT_NAME).unlink()
    write_bytes(chain / "frozen.pb", b"other")
    write_sidecar(chain / "frozen.pb", {}, NO_TOOLCHAIN)
    assert broken(chain) == ["frozen.pb"]


@pytest.mark.parametrize("name", ["frozen.pb", "vxm.om"])
def test_a_missing_file_is_named(chain: Path, name: str) -> None:
    (chain / name).unlink()
    assert broken(chain) == [name]


@pytest.mark.parametrize("text, why", [("{", "not JSON"), ('{"schema": 99}', "schema is 99, expected 1")])
def test_a_damaged_contract_is_named(chain: Path, text: str, why: str) -> None:
    (chain / CONTRACT_NAME).write_text(text)
    (link,) = [link for link in verify_folders([chain]) if link.state == BROKEN]
    assert link.subject.name == CONTRACT_NAME
    assert str(chain / CONTRACT_NAME) in link.text and why in link.text


def test_a_damaged_sidecar_is_named(chain: Path) -> None:
    (chain / "vxm.om.json").write_text("{")
    assert broken(chain) == ["vxm.om"]


def test_a_sidecar_cannot_point_elsewhere(chain: Path) -> None:
    data = json.loads((chain / "vxm.om.json").read_text())
    (chain / "vxm.om.json").write_text(json.dumps({**data, "file": "../../elsewhere/vxm.om"}))
    assert broken(chain) == ["vxm.om"]


def test_a_sidecar_without_hashes_is_not_passed_over(chain: Path) -> None:
    (chain / "extra.bin").write_bytes(b"x")
    (chain / "extra.bin.json").write_text(json.dumps({"file": "extra.bin"}))
    assert [link.subject.name for link in verify_folders([chain]) if link.state == UNPROVEN] == ["extra.bin"]


def test_several_folders_make_one_chain(chain: Path, tmp_path: Path) -> None:
    weights = tmp_path / "train" / "model-1.data-00000-of-00001"
    write_bytes(weights, b"weights")
    write_sidecar(weights, {}, NO_TOOLCHAIN)
    write_sidecar(chain / "frozen.pb", {"checkpoint": sha256_of(weights)}, NO_TOOLCHAIN)
    texts = [
        link.text
        for link in verify_folders([chain, weights.parent])
        if link.subject.name == "frozen.pb" and link.state == OK
    ]
    assert any("which is here" in text for text in texts)


ROLES = ("om", "atlas", "moving", "result")


@pytest.fixture
def run(chain: Path, tmp_path: Path) -> Dict[str, Path]:
    """A registration with the model of `chain`: run.json, one result, and where each file of its chain lies."""
    files = {
        "om": chain / "vxm.om",
        "atlas": tmp_path / "data" / "atlas.npz",
        "moving": tmp_path / "data" / "scan.npz",
        "result": tmp_path / "out" / "scan" / "moved.nii.gz",
    }
    for role in ROLES[1:]:
        write_bytes(files[role], role.encode())
    digests = {role: sha256_of(path) for role, path in files.items()}
    write_sidecar(files["result"], {role: digests[role] for role in ROLES[:3]}, NO_TOOLCHAIN)
    contract = chain / CONTRACT_NAME
    write_json(
        tmp_path / "out" / RUN_NAME,
        {
            "model": {
                "path": str(files["om"]),
                "sha256": digests["om"],
                "contract": str(contract),
                "contract_sha256": sha256_of(contract),
            },
            "atlas": {"path": str(files["atlas"]), "sha256": digests["atlas"]},
            "inputs": {str(files["moving"]): digests["moving"]},
        },
    )
    return files


def test_the_output_folder_alone_proves_model_to_result(run: Dict[str, Path], tmp_path: Path) -> None:
    links = verify_folders([tmp_path / "out"])
    assert {link.state for link in links} == {OK}
    proved = [link.text for link in links if link.subject == run["result"] and "was made from" in link.text]
    assert [text.split()[3] for text in proved] == ["atlas", "moving", "om"]


@pytest.mark.parametrize("role", ROLES)
def test_one_changed_byte_anywhere_is_named(
    run: Dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, role: str
) -> None:
    data = bytearray(run[role].read_bytes())
    data[len(data) // 2] ^= 1
    run[role].write_bytes(bytes(data))
    assert main(["verify", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 1 and str(run[role]) in captured.err
    unproven = [link.text for link in verify_folders([tmp_path / "out"]) if link.state == UNPROVEN]
    assert len(unproven) == (role != "result") and all(f"was made from {role}" in text for text in unproven)


@pytest.mark.parametrize("role", ROLES[:3])
def test_a_source_that_is_gone_is_outside_not_broken(run: Dict[str, Path], tmp_path: Path, role: str) -> None:
    run[role].unlink()
    links = verify_folders([tmp_path / "out"])
    assert not [link for link in links if link.state == BROKEN]
    assert [link.subject for link in links if link.state == OUTSIDE] == [run["result"], tmp_path / "out" / RUN_NAME]


def test_a_copy_in_another_folder_outweighs_a_broken_source(run: Dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "backup" / "vxm.om"
    write_bytes(copy, run["om"].read_bytes())
    write_sidecar(copy, {}, NO_TOOLCHAIN)
    run["om"].write_bytes(b"other")
    states = {link.state for link in verify_folders([tmp_path / "out", copy.parent]) if link.subject == run["result"]}
    assert states == {OK}


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"model": {}, "atlas": {}, "inputs": {}}', '{"model": 1, "atlas": 2, "inputs": 3}']
)
def test_a_damaged_run_is_named(run: Dict[str, Path], tmp_path: Path, text: str) -> None:
    (tmp_path / "out" / RUN_NAME).write_text(text)
    links = [link for link in verify_folders([tmp_path / "out"]) if link.state == BROKEN]
    assert [link.subject.name for link in links] == [RUN_NAME] and "register again" in links[0].text


def test_a_run_naming_what_no_file_can_be_called(run: Dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "out" / RUN_NAME
    data = json.loads(path.read_text())
    data["inputs"] = {"a\0b": "0" * 64, "x" * 5000: "1" * 64, str(tmp_path): "2" * 64}
    path.write_text(json.dumps(data))
    assert (
        len([link for link in verify_folders([tmp_path / "out"]) if link.state == OUTSIDE and link.subject == path])
        == 3
    )


def test_a_folder_without_proof_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["verify", str(folder)]) == 1
    assert "no side-car" in capsys.readouterr().err


def test_inspect_tells_a_contract(chain: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(chain / CONTRACT_NAME)]) == 0
    text = capsys.readouterr().out
    assert (
        "vm2, 16x16x16 voxels, batch 1" in text
        and "fast: force_fp16" in text
        and "flow     f:0 float32 [1, 16, 16, 16, 3]" in text
    )


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.om", b"model"),
        ("a.pb", b"\xff\xff\xff"),
        ("a.onnx", b"\xff\xff\xff"),
        ("a.onnx", b""),
        ("contract.json", b"{"),
        ("a.txt", b"x"),
        ("none.pb", None),
    ],
)
def test_inspect_refuses_what_is_not_that_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, content: bytes
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["inspect", str(tmp_path / name)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("vxm_convert: error: ") and name in message


def test_inspect_reads_an_onnx_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    onnx = pytest.importorskip("onnx")
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3]) for n in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "g", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)]), str(tmp_path / "m.onnx"))
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    text = capsys.readouterr().out
    assert "ai.onnx 15" in text and "a [1, 3]" in text and "operators 1: Relu 1" in text


def test_phantom_writes_a_cohort(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["phantom", "--out", str(tmp_path / "c"), "--shape", "16,16,32", "--subjects", "1", "-q"]) == 0
    assert f"scans: {tmp_path / 'c' / 'scans'} (1)" in capsys.readouterr().out
    with np.load(str(tmp_path / "c" / "scans" / "sub-01.npz"), allow_pickle=False) as data:
        assert data["vol"].shape == data["seg"].shape == (16, 16, 32)


def test_phantom_names_a_bad_shape(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["phantom", "--out", str(tmp_path / "c"), "--shape", "16,16"]) == 1
    assert "expected three whole numbers" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_no_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_doctor_finds_what_is_here() -> None:
    rows = {row.subject: row for row in examine()}
    assert rows["numpy"].state == FOUND and rows["numpy"].detail.startswith(np.__version__)
    assert {"python", "tensorflow", "npu_bridge", "CANN", "atc", "acl", "simulator", "openvino", "onnxruntime"} <= set(
        rows
    )
    assert all(row.detail for row in rows.values())


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    real = doctor_module._module_path
    monkeypatch.setattr(
        doctor_module, "_module_path", lambda name: None if name in ("nibabel", "tensorflow") else real(name)
    )
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert (
        "nibabel      missing" in text
        and "pip install nibabel" in text
        and "om_runner    no: packages are missing" in text
    )


def rows_with(**states: str) -> List[Finding]:
    base = {
        **dict.fromkeys(("tensorflow", "npu_bridge", "CANN", "acl", "onnxruntime"), MISSING),
        **dict.fromkeys(("python", "numpy", "simulator", "openvino"), FOUND),
        **states,
    }
    return [Finding(name, state, "", name in ("python", "numpy")) for name, state in base.items()]


@pytest.mark.parametrize(
    "states, expected",
    [
        ({}, ["train        no", "export       no", "om_runner    yes, on the simulated device"]),
        (
            {"tensorflow": FOUND},
            ["train        yes, CPU", "export       yes, with the simulated atc", "om_runner    yes, on the simulated"],
        ),
        (
            {"tensorflow": FOUND, "npu_bridge": FOUND, "CANN": FOUND, "acl": FOUND},
            ["train        yes, NPU", "export       yes, with CANN's atc", "om_runner    yes, through CANN"],
        ),
        ({"openvino": MISSING}, ["train", "export", "om_runner    no: neither CANN nor an engine"]),
        ({"numpy": MISSING, "tensorflow": FOUND}, ["train        no", "export       no", "om_runner    no: packages"]),
    ],
)
def test_doctor_concludes_per_stage(states: dict, expected: List[str]) -> None:
    lines = summary(rows_with(**states))
    assert all(line.startswith(start) for line, start in zip(lines, expected)), lines
    assert can_register(rows_with(**states)) == ("numpy" not in states)


def test_installed_version_of_nothing() -> None:
    assert installed_version("no-such-distribution") is None


def test_sim_env_makes_atc_and_acl_reachable_from_anywhere(tmp_path: Path) -> None:
    python = "import acl; print(acl.__name__, callable(acl.init))"
    script = "\n".join(simulator_exports() + ["command -v atc", f'"{sys.executable}" -c "{python}"'])
    done = subprocess.run(
        ["sh", "-c", script], cwd=str(tmp_path), env={"PATH": os.environ["PATH"]}, capture_output=True, timeout=120
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert lines[0].endswith("shims/bin/atc") and lines[1] == "vxm_convert.sim.acl.module True"


def test_sim_env_quotes_for_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/a b/$(touch x)/python")
    assert "export VXM_SIM_PYTHON='/a b/$(touch x)/python'" in simulator_exports()
