# SPDX-License-Identifier: Apache-2.0
"""Modes of the simulated ATC beside compiling: model to JSON, pre-check, display; and the files it writes beside a
model.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.graphs import PbBuilder, up_conv_graph
from vxm_convert.errors import FormatError
from vxm_convert.formats.om import parse_om, read_om
from vxm_convert.sim.atc.__main__ import main

COMPILE = ["--model=g.pb", "--framework=3", "--output=m", "--soc_version=Ascend910A", "--out_nodes=y:0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")
    return tmp_path


def _names_in_json(data):
    """As scripts that compare dumps read it: operator → original names, and → (dtype, origin) of each output."""
    origins, outputs = {}, {}
    for op in data["graph"][0]["op"]:
        for attr in op.get("attr", []):
            if attr["key"] == "_datadump_original_op_names":
                origins[op["name"]] = attr["value"]["list"]["s"]
        outputs[op["name"]] = [
            (desc["dtype"], {a["key"]: a["value"] for a in desc.get("attr", [])}) for desc in op.get("output_desc", [])
        ]
    return origins, outputs


def test_mode_1_of_an_om(folder):
    assert main(COMPILE) == 0 and main(["--mode=1", "--om=m.om", "--json=out/m.json"]) == 0
    data = json.loads((folder / "out" / "m.json").read_text())
    origins, outputs = _names_in_json(data)
    assert data["name"] == "m" and origins["conv"] == ["conv", "bias_add"]
    dtype, attrs = outputs["conv"][0]
    assert (
        dtype == "DT_FLOAT16"
        and attrs["origin_format"]["s"] == "NDHWC"
        and attrs["origin_shape"]["list"]["i"] == [1, 8, 8, 8, 5]
    )
    assert {op["type"] for op in data["graph"][0]["op"]} >= {"Data", "Conv3D", "NetOutput", "TransData"}
    assert (folder / "out" / "m.json").stat().st_size < 200000, "weights do not belong into it"


def test_mode_1_of_a_frozen_graph(folder):
    assert main(["--mode=1", "--om=g.pb", "--json=g.json", "--framework=3"]) == 0
    text = (folder / "g.json").read_text()
    nodes = {node["name"]: node for node in json.loads(text)["node"]}
    assert (
        nodes["conv"]["op"] == "Conv3D"
        and nodes["conv"]["input"] == ["both", "kernel"]
        and "tensor_content" not in text
    )
    attrs = {entry["key"]: entry["value"] for entry in nodes["x"]["attr"]}
    assert attrs["dtype"] == {"type": "DT_FLOAT"}


def test_mode_1_needs_a_framework_for_what_is_no_om(folder, capsys):
    assert main(["--mode=1", "--om=g.pb", "--json=g.json"]) == 255 and "(E10007)" in capsys.readouterr().out
    assert not (folder / "g.json").exists()


@pytest.mark.parametrize("how", ["mode 6", "display_model_info"])
def test_display_of_a_model(how, folder, capsys):
    assert main(COMPILE + (["--display_model_info=1"] if how != "mode 6" else [])) == 0
    if how == "mode 6":
        capsys.readouterr()
        assert main(["--mode=6", "--om=m.om"]) == 0
    out = capsys.readouterr().out
    model = read_om("m.om")
    sizes = dict(model.partitions)
    assert f"Original Atc command line: {model.attrs['atc_cmdline']}" in out and "soc_version[Ascend910A]" in out
    assert "framework_type[TensorFlow]" in out and f"memory_size[{model.attrs['memory_size']} B]" in out
    assert f"weight_size[{len(model.weights)} B], stream_num[1], event_num[0]" in out
    assert f"modeldef_size[{sizes['MODEL_DEF']} B]" in out and f"task_info_size[{sizes['TASK_INFO']} B]" in out


def test_the_original_model_has_one_partition_and_its_constants(folder):
    assert main(COMPILE + ["--save_original_model=true"]) == 0
    original = read_om("m_original.om")
    assert [name for name, _ in original.partitions] == ["MODEL_DEF"]
    kernel = next(op for op in original.graph if op.name == "kernel")
    assert kernel.data.shape == (3, 3, 3, 10, 5) and kernel.data.dtype == np.float32
    assert {"BiasAdd", "Conv3D"} <= {op.type for op in original.graph} and "Cast" not in {
        op.type for op in original.graph
    }


def _unsupported(folder):
    pb = PbBuilder()
    x = pb.placeholder("x", (4,))
    pb.node("Betainc", "first", x, x, x)
    pb.node("Relu", "second", "first")
    pb.node("Lgamma", "y", "second")
    pb.save(folder / "g.pb")


def test_pre_check_of_a_good_graph_writes_no_model(folder):
    assert main(COMPILE + ["--mode=3"]) == 0
    report = json.loads((folder / "check_result.json").read_text())
    assert report["result"] == "success" and {op["result"] for op in report["op"]} == {"success"}
    assert ("conv", "Conv3D") in {(op["op_name"], op["op_type"]) for op in report["op"]} and not (
        folder / "m.om"
    ).exists()


@pytest.mark.parametrize("mode", ["0", "3"])
def test_the_check_report_lists_every_operator_that_fails(mode, folder, capsys):
    _unsupported(folder)
    assert main(COMPILE + [f"--mode={mode}", "--check_report=reports/check.json"]) == 255
    assert "first (Betainc)" in capsys.readouterr().out
    report = json.loads((folder / "reports" / "check.json").read_text())
    assert {op["op_name"]: op["result"] for op in report["op"]} == {
        "x": "success",
        "first": "failed",
        "second": "success",
        "y": "failed",
    }
    assert report["op"][1]["cause"][0]["code"] == "E13010" and not (folder / "m.om").exists()


def test_side_files_go_to_the_work_path(folder, monkeypatch):
    monkeypatch.setenv("ASCEND_WORK_PATH", str(folder / "work"))
    assert (
        main(COMPILE) == 0
        and (folder / "work" / "fusion_result.json").is_file()
        and not (folder / "fusion_result.json").exists()
    )
    _unsupported(folder)
    assert main(COMPILE) == 255 and (folder / "work" / "check_result.json").is_file()


def test_an_original_model_is_refused_where_one_to_run_is_expected(folder):
    from vxm_convert.sim.engine.load import load_program

    assert main(COMPILE + ["--save_original_model=true"]) == 0
    with pytest.raises(FormatError):
        load_program(parse_om((folder / "m_original.om").read_bytes()))
