# SPDX-License-Identifier: Apache-2.0
"""The simulated ATC as a program: grammar, order of checks, codes, exit status, what it prints and leaves behind."""
from __future__ import annotations

import json

import numpy as np
import pytest

from tests.vxm_convert.graphs import up_conv_graph
from vxm_convert.formats.om import read_om
from vxm_convert.sim.atc.__main__ import FAILURE, START, SUCCESS, main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder with g.pb in it."""
    monkeypatch.chdir(tmp_path)
    up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")
    return tmp_path


GOOD = {"model": "g.pb", "framework": "3", "output": "out/m", "soc_version": "Ascend910A", "out_nodes": "y:0"}


def _run(capsys, drop=(), **changes):
    flags = {key: value for key, value in {**GOOD, **changes}.items() if key not in drop}
    code = main([f"--{key}={value}" for key, value in flags.items()])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_success(folder, capsys):
    code, out, _ = _run(capsys)
    lines = out.splitlines()
    assert code == 0 and lines[0] == START and lines[-1] == SUCCESS and "SIMULATED" in lines[1]
    model = read_om(folder / "out" / "m.om")
    assert model.name == "m" and model.attrs["attr_model_out_nodes_name"] == ["y:0"]
    assert "--soc_version=Ascend910A" in model.attrs["atc_cmdline"]
    assert json.loads((folder / "fusion_result.json").read_text())[0]["graph_fusion"]["ConvBiasaddFusionPass"]["effect_times"] == "1"


def test_suffix_is_always_appended(folder, capsys):
    assert _run(capsys, output="m.om")[0] == 0 and (folder / "m.om.om").exists()


@pytest.mark.parametrize("words", [
    ["--soc-version", "Ascend910"], ["-soc_version=Ascend910"], ["--soc_ver=Ascend910"],
])
def test_spellings_of_a_flag_and_the_old_chip_name(words, folder, capsys):
    assert main([f"--{key}={value}" for key, value in GOOD.items() if key != "soc_version"] + words) == 0
    assert read_om(folder / "out" / "m.om").soc_version == "Ascend910A"


@pytest.mark.parametrize("words, text", [
    (["--no_such_flag=1"], "unknown command line flag 'no_such_flag'"),
    (["stray"], "Non-option parameter: stray"),
    (["--model"], "missing its argument"),
])
def test_grammar_errors_go_to_stderr(words, text, folder, capsys):
    assert main(words) == 255
    captured = capsys.readouterr()
    assert text in captured.err and START in captured.out and FAILURE in captured.out


BAD = [
    ("E10007", {"framework": "7"}), ("E10007", {"drop": ["framework"]}), ("E10003", {"framework": "x"}), ("E10010", {"log": "loud"}),
    ("E10001", {"input_format": "XYZ"}), ("E10054", {"drop": ["soc_version"]}), ("E10054", {"drop": ["output"]}),
    ("E10054", {"drop": ["model"]}), ("E10001", {"model": "nowhere.pb"}), ("E10001", {"model": "g*.pb"}),
    ("E10022", {"output": "folder/"}), ("E10021", {"output": "x" * 5000}), ("E20101", {"soc_version": "Ascend910B1"}),
    ("E20101", {"soc_version": "ascend910a"}), ("E10001", {"precision_mode": "fp8"}), ("E10001", {"precision_mode_v2": "fp32"}),
    ("E10056", {"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}),
    ("E10001", {"precision_mode": "allow_mix_precision_bf16"}), ("E10002", {"input_shape": "x"}), ("E10002", {"input_shape": "x:1,a"}),
    ("E10011", {"input_shape": "x:1,0,4,4,8"}), ("E10016", {"input_shape": "nowhere:1,4,4,4,8"}),
    ("E10017", {"input_shape": "y:1,4,4,4,8"}), ("E10016", {"out_nodes": "nowhere:0"}), ("E10001", {"out_nodes": "y"}),
    ("E10001", {"keep_dtype": "nowhere.cfg"}), ("E10001", {"op_debug_level": "9"}), ("E10003", {"op_debug_level": "-1"}),
    ("E10005", {"enable_compress_weight": "maybe"}), ("E10001", {"buffer_optimize": "none"}), ("E10001", {"auto_tune_mode": "GA"}),
    ("E10055", {"framework": "5"}), ("E10055", {"mode": "6"}), ("E10055", {"dynamic_batch_size": "1,2"}),
    ("E20001", {"precision_mode": "must_keep_origin_dtype"}),
]


@pytest.mark.parametrize("code, changes", BAD, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:30])
def test_bad_values_give_their_code_and_leave_nothing(code, changes, folder, capsys):
    status, out, _ = _run(capsys, **changes)
    assert status == 255 and f"({code})" in out and FAILURE in out and "TraceBack (most recent call last):" in out
    assert sorted(path.name for path in folder.iterdir()) == ["g.pb"]


def test_a_file_that_is_no_graph(folder, capsys):
    (folder / "bad.pb").write_bytes(b"\xff" * 100)
    assert "(E13005)" in _run(capsys, model="bad.pb")[1]


def test_help(folder, capsys):
    assert main(["--help"]) == 0
    assert "--precision_mode" in capsys.readouterr().out


def test_keep_dtype_file(folder, capsys):
    (folder / "keep.cfg").write_text("y\n")
    assert _run(capsys, keep_dtype="keep.cfg")[0] == 0
    relu = next(op for op in read_om(folder / "out" / "m.om").graph if op.type == "LeakyRelu")
    assert relu.output_descs[0].dtype == "float32"
