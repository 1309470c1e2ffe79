# SPDX-License-Identifier: Apache-2.0
"""The simulated ATC as a program: grammar, order of checks, codes, exit status, what it prints and leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import vxm_convert.sim.atc.flags as flags_module
from tests.support.graphs import up_conv_graph
from vxm_convert.formats.om import read_om
from vxm_convert.sim.atc.__main__ import FAILURE, START, SUCCESS, main
from vxm_convert.sim.atc.flags import FLAGS, SWITCH, WITHOUT_EFFECT, usage


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
    assert (
        json.loads((folder / "fusion_result.json").read_text())[0]["graph_fusion"]["ConvBiasaddFusionPass"][
            "effect_times"
        ]
        == "1"
    )


def test_suffix_is_always_appended(folder, capsys):
    assert _run(capsys, output="m.om")[0] == 0 and (folder / "m.om.om").exists()


@pytest.mark.parametrize("words", [["--soc-version", "Ascend910"], ["-soc_version=Ascend910"], ["--soc_ver=Ascend910"]])
def test_spellings_of_a_flag_and_the_old_chip_name(words, folder, capsys):
    assert main([f"--{key}={value}" for key, value in GOOD.items() if key != "soc_version"] + words) == 0
    assert read_om(folder / "out" / "m.om").soc_version == "Ascend910A"


@pytest.mark.parametrize(
    "words, text",
    [
        (["--no_such_flag=1"], "unknown command line flag 'no_such_flag'"),
        (["stray"], "Non-option parameter: stray"),
        (["--model"], "missing its argument"),
    ],
)
def test_grammar_errors_go_to_stderr(words, text, folder, capsys):
    assert main(words) == 255
    captured = capsys.readouterr()
    assert text in captured.err and START in captured.out and FAILURE in captured.out


#: (code, flag, value, further flags): every flag has a line here or stands in ANY_TEXT.
BAD = [
    ("E10001", "model", "nowhere.pb", {}),
    ("E10001", "model", "g*.pb", {}),
    ("E10054", "model", "", {}),
    ("E10055", "weight", "g.pb", {}),
    ("E10008", "framework", "0", {}),
    ("E10007", "framework", "7", {}),
    ("E10003", "framework", "x", {}),
    ("E10055", "framework", "1", {}),
    ("E10013", "framework", "99999999999", {}),
    ("E10022", "output", "folder/", {}),
    ("E10021", "output", "x" * 5000, {}),
    ("E10054", "output", "", {}),
    ("E10001", "output", "a*b", {}),
    ("E10054", "soc_version", "", {}),
    ("E20101", "soc_version", "Ascend310P2", {}),
    ("E20101", "soc_version", "ascend910a", {}),
    ("E20101", "soc_version", "Ascend910_9999", {}),
    ("E10002", "input_shape", "x", {}),
    ("E10002", "input_shape", "x:1,a", {}),
    ("E10002", "input_shape", "x:1,2.5", {}),
    ("E10011", "input_shape", "x:1,0,4,4,8", {}),
    ("E10011", "input_shape", "x:-1,4,4,4,8", {}),
    ("E10055", "input_shape", "x:1~4,4", {}),
    ("E10016", "input_shape", "nowhere:1,4,4,4,8", {}),
    ("E10017", "input_shape", "y:1,4,4,4,8", {}),
    ("E10001", "input_shape", "x:4,4", {}),
    ("E10055", "input_shape_range", "x:[1~2]", {}),
    ("E10001", "input_format", "XYZ", {}),
    ("E10016", "out_nodes", "nowhere:0", {}),
    ("E10001", "out_nodes", "y", {}),
    ("E10001", "out_nodes", "y:-1", {}),
    ("E10001", "output_type", "FP8", {}),
    ("E10001", "output_type", "up:0:FP16", {}),
    ("E10001", "output_type", "y:FP16", {}),
    ("E20001", "output_type", "UINT16", {}),
    ("E10055", "mode", "7", {}),
    ("E10001", "mode", "9", {}),
    ("E10004", "mode", "1", {}),
    ("E10004", "mode", "6", {}),
    ("E10001", "precision_mode", "fp8", {}),
    ("E10001", "precision_mode", "allow_mix_precision_bf16", {}),
    ("E20001", "precision_mode", "must_keep_origin_dtype", {}),
    ("E10001", "precision_mode_v2", "fp32", {}),
    ("E10056", "precision_mode_v2", "fp16", {"precision_mode": "force_fp16"}),
    ("E10001", "keep_dtype", "nowhere.cfg", {}),
    ("EZ3003", "keep_dtype", "cube.cfg", {}),
    ("E10001", "customize_dtypes", "nowhere.cfg", {}),
    ("E10001", "customize_dtypes", "keep.cfg", {}),
    ("E10001", "modify_mixlist", "mix.json", {}),
    ("E10032", "modify_mixlist", "keep.cfg", {"precision_mode": "allow_mix_precision"}),
    ("E10001", "modify_mixlist", "nowhere", {"precision_mode_v2": "mixed_float16"}),
    ("E10001", "modify_mixlist", "badmix.json", {"precision_mode": "allow_mix_precision"}),
    ("E10001", "op_precision_mode", "nowhere.ini", {}),
    ("E10001", "op_precision_mode", "bad.ini", {}),
    ("E10001", "op_precision_mode", "keep.cfg", {}),
    ("E10001", "op_select_implmode", "precise", {}),
    ("E10001", "optypelist_for_implmode", "Conv3D", {}),
    ("E10001", "optypelist_for_implmode", "Conv3D", {"op_select_implmode": "high_precision_for_all"}),
    ("E10001", "fusion_switch_file", "nowhere.cfg", {}),
    ("E10001", "fusion_switch_file", "keep.cfg", {}),
    ("E10001", "fusion_switch_file", "mix.json", {}),
    ("E10010", "log", "loud", {}),
    ("E10001", "op_debug_level", "9", {}),
    ("E10003", "op_debug_level", "-1", {}),
    ("E10001", "op_debug_config", "nowhere", {}),
    ("E10001", "op_name_map", "nowhere", {}),
    ("E10001", "buffer_optimize", "none", {}),
    ("E10001", "core_type", "aicore", {}),
    ("E10003", "aicore_num", "many", {}),
    ("E20103", "aicore_num", "33", {}),
    ("E20103", "aicore_num", "0", {}),
    ("E20103", "aicore_num", "31", {"soc_version": "Ascend910B"}),
    ("E20103", "aicore_num", "3", {"soc_version": "Ascend310"}),
    ("E10001", "op_compiler_cache_mode", "on", {}),
    ("E10001", "external_weight", "3", {}),
    ("E10001", "jit_compile", "3", {}),
    ("E10005", "enable_single_stream", "2", {}),
    ("E10005", "enable_compress_weight", "maybe", {}),
    ("E10005", "save_original_model", "on", {}),
    ("E10001", "compress_weight_conf", "nowhere", {}),
    ("E10055", "compress_weight_conf", "keep.cfg", {}),
    ("E10055", "compression_optimize_conf", "keep.cfg", {}),
    ("E10016", "input_fp16_nodes", "nowhere", {}),
    ("E10017", "input_fp16_nodes", "y", {}),
    ("E10055", "is_input_adjust_hw_layout", "true", {}),
    ("E10055", "is_output_adjust_hw_layout", "true", {}),
    ("E10001", "insert_op_conf", "nowhere", {}),
    ("E10055", "insert_op_conf", "keep.cfg", {}),
    ("E10055", "singleop", "mix.json", {}),
    ("E10001", "auto_tune_mode", "GA", {}),
    ("E10001", "om", "nowhere.om", {"mode": "6"}),
    ("E10041", "om", "g.pb", {"mode": "6"}),
    ("E10004", "json", "", {"mode": "1", "om": "g.pb"}),
    ("E10022", "json", "folder/", {"mode": "1", "om": "g.pb"}),
    ("E10001", "host_env_os", "plan9", {}),
    ("E10001", "host_env_cpu", "mips", {}),
    ("E10055", "help", "", {"mode": "30"}),
    ("E10004", "dynamic_batch_size", "1,2", {}),
    ("E10009", "dynamic_batch_size", "1,2", {"dynamic_dims": "1;2"}),
    ("E10040", "dynamic_batch_size", "1,2", {"input_shape": "x:1,4,4,4,8"}),
    ("E10018", "dynamic_batch_size", "1,2", {"input_shape": "x:1,-1,4,4,8"}),
    *[
        (code, "dynamic_batch_size", value, {"input_shape": "x:-1,4,4,4,8"})
        for code, value in (
            ("E10003", "a,b"),
            ("E10014", "1,,2"),
            ("E10035", "4"),
            ("E10036", ",".join(map(str, range(1, 102)))),
            ("E10037", "0,1"),
            ("E10039", "2,2"),
            ("E20001", "1,2"),
            ("E10037", "1,2147483648"),
        )
    ],
    ("E10019", "dynamic_image_size", "8,8;9,9", {"input_shape": "x:-1,4,4,3"}),
    ("E10020", "dynamic_image_size", "8;9", {"input_shape": "x:1,-1,-1,3"}),
    ("E10001", "dynamic_image_size", "8,8;9,9", {"input_shape": "x:1,-1,-1,3"}),
    ("E10019", "dynamic_image_size", "8,8;9,9", {"input_shape": "x:1,-1,-1,3", "input_format": "NCHW"}),
    ("E10019", "dynamic_image_size", "8,8;9,9", {"input_shape": "x:1,-1,-1,3", "framework": "5"}),
    ("E10045", "dynamic_dims", "1,2;3,4", {"input_shape": "x:-1,4"}),
    ("E10001", "dynamic_dims", "1;2", {"input_shape": "x:-1,4", "input_format": "NHWC"}),
    *[("E10006", name, "2", {}) for name, flag in sorted(FLAGS.items()) if flag.kind == SWITCH],
    *[("E10003", name, "yes", {}) for name, flag in sorted(FLAGS.items()) if flag.kind == SWITCH],
]
#: Paths and lists that ATC itself does not look at before it compiles.
ANY_TEXT = {
    "op_compiler_cache_dir",
    "op_bank_path",
    "mdl_bank_path",
    "debug_dir",
    "enable_scope_fusion_passes",
    "check_report",
}


def _write_side_files(folder):
    (folder / "keep.cfg").write_text("nowhere\n")
    (folder / "cube.cfg").write_text("conv\n")
    (folder / "mix.json").write_text('{"black-list": {"to-add": ["LeakyRelu"]}}')
    (folder / "badmix.json").write_text('{"red-list": {"to-add": ["LeakyRelu"]}}')
    (folder / "bad.ini").write_text("[ByOpType]\nConv3D=best\n")


@pytest.mark.parametrize(
    "code, flag, value, more", BAD, ids=[f"{code}-{flag}-{value[:12]}" for code, flag, value, _ in BAD]
)
def test_bad_values_give_their_code_and_leave_nothing(code, flag, value, more, folder, capsys):
    _write_side_files(folder)
    before = sorted(path.name for path in folder.iterdir())
    flags = {**more} if flag == "help" else {**more, flag: value}
    status, out, _ = _run(capsys, **flags)
    assert status == 255 and f"({code})" in out and FAILURE in out and "TraceBack (most recent call last):" in out
    assert sorted(path.name for path in folder.iterdir()) == before


def test_every_flag_is_in_the_matrix():
    assert {flag for _, flag, _, _ in BAD} | ANY_TEXT == set(FLAGS)


@pytest.mark.parametrize(
    "first, second",
    [
        ({"log": "loud"}, {"framework": "7"}),
        ({"framework": "7"}, {"input_format": "XYZ"}),
        ({"input_format": "XYZ"}, {"soc_version": ""}),
        ({"soc_version": ""}, {"model": "nowhere.pb"}),
        ({"model": "nowhere.pb"}, {"output": "folder/"}),
        ({"output": "folder/"}, {"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}),
        ({"precision_mode": "allow_mix_precision_bf16"}, {"input_shape": "x"}),
        ({"input_shape": "x"}, {"keep_dtype": "nowhere.cfg"}),
    ],
)
def test_of_two_faults_the_earlier_check_speaks(first, second, folder, capsys):
    both, alone = _run(capsys, **{**second, **first})[1], _run(capsys, **first)[1]
    assert _codes(both) == _codes(alone) != _codes(_run(capsys, **second)[1])


def _codes(out):
    return re.findall(r"\((E\d{5})\): (.*)", out)


def test_a_file_that_is_no_graph(folder, capsys):
    (folder / "bad.pb").write_bytes(b"\xff" * 100)
    assert "(E13005)" in _run(capsys, model="bad.pb")[1]
    report = json.loads((folder / "check_result.json").read_text())
    assert report["result"] == "failed" and report["error"]["code"] == "E13005"


def test_help(folder, capsys):
    assert main(["--help"]) == 0
    assert "--precision_mode" in capsys.readouterr().out


def test_help_says_of_every_flag_whether_it_does_something():
    """A flag that the code never reads is among those without effect, and none of those is read."""
    text = usage()
    effective, _, rest = text.partition("checked, and without effect")
    without, _, refused = rest.partition("refused by")
    listed = [re.findall(r"^  --(\w+)", part, re.MULTILINE) for part in (effective, without, refused)]
    assert sorted(sum(listed, [])) == sorted(FLAGS) and set(listed[1]) == WITHOUT_EFFECT
    folder = Path(flags_module.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "flags.py")
    # The value of a side file that only has to be readable counts as checked.
    read = {name for name in FLAGS if f'flags["{name}"]' in code} | {"help"}
    assert not read & WITHOUT_EFFECT
    assert set(listed[0]) - read <= set(re.findall(r"dynamic_\w+", code)), set(listed[0]) - read


def test_singleop_is_refused_by_its_name(folder, capsys):
    """It needs neither a framework nor a model, and must not be answered by their absence."""
    assert main(["--singleop=op.json", "--output=o", "--soc_version=Ascend910A"]) == 255
    out = capsys.readouterr().out
    assert "(E10055): --singleop is not supported" in out and "E10007" not in out


def test_keep_dtype_file(folder, capsys):
    (folder / "keep.cfg").write_text("y\n")
    assert _run(capsys, keep_dtype="keep.cfg")[0] == 0
    relu = next(op for op in read_om(folder / "out" / "m.om").graph if op.type == "LeakyRelu")
    assert relu.output_descs[0].dtype == "float32"
    (folder / "keep.cfg").write_text("y\nyy\n")
    status, out, _ = _run(capsys, keep_dtype="keep.cfg")
    assert status == 0 and "does not have: yy;" in out and "ignores" in out, "the real ATC goes on as well"
