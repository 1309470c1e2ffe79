# SPDX-License-Identifier: Apache-2.0
"""The ATC wrapper: command line, checks before and after, every family of errors; with a scripted compiler."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from export.atc import build_arguments, check_pb, compile_om
from tests.support.real_om import FLOAT, small_model
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import AtcError, ContractError, FormatError, ToolchainError
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.toolchain.atc_errors import diagnose, explain, find_code, name_operators

START = "ATC start working now, please wait for a moment."
SUCCESS = "ATC run success, welcome to the next use."
FAILED = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"


@pytest.fixture
def folder(tmp_path, contract, frozen_pb):
    """A stage with a frozen graph."""
    path = tmp_path / "stage"
    path.mkdir()
    (path / "frozen.pb").write_bytes(frozen_pb)
    return path


@pytest.fixture(scope="session")
def frozen_pb(contract, weights):
    pytest.importorskip("tensorflow")
    from export.freeze import freeze

    return freeze(contract, weights).SerializeToString(deterministic=True)


def succeed(fake_atc, om, name="vxm.om"):
    fake_atc.script([START, "...", SUCCESS], {name: om})


def assert_nothing_made(folder):
    assert sorted(p.name for p in folder.iterdir() if p.name not in ("frozen.pb", "atc.log", "keep_dtype.cfg")) == []


def test_arguments_come_from_the_contract(contract):
    assert build_arguments(contract) == [
        "--model=frozen.pb",
        "--framework=3",
        "--output=vxm",
        "--soc_version=Ascend910A",
        "--input_shape=moving:1,16,16,32,1;fixed:1,16,16,32,1",
        "--out_nodes=moved:0;flow_field:0",
        "--precision_mode=force_fp16",
    ]


@pytest.mark.parametrize("name", ["vxm.om", "vxm_linux_x86_64.om"])
def test_success_leaves_model_log_and_manifest(folder, contract, fake_atc, make_om, caplog, name):
    caplog.set_level(logging.INFO)
    om = make_om(contract)
    succeed(fake_atc, om, name)
    made = compile_om(folder, contract, fake_atc.toolchain)
    assert made == folder / "vxm.om" and made.read_bytes() == om.read_bytes()
    assert START in (folder / "atc.log").read_text() and SUCCESS in caplog.text
    manifest = json.loads((folder / "atc_manifest.json").read_text())
    assert manifest["command"][2:] == build_arguments(contract) == fake_atc.seen["argv"]
    assert manifest["toolchain"]["kind"] == "cann" and manifest["toolchain"]["version"] == "0.test"
    assert manifest["sha256"] == {"vxm.om": sha256_of(made), "frozen.pb": sha256_of(folder / "frozen.pb")}
    assert manifest["environment"]["ASCEND_HOME_PATH"] == "/opt/cann"
    assert "SECRET_OF_USER" not in manifest["environment"]
    assert manifest["seconds"] > 0
    assert sorted(p.name for p in folder.iterdir()) == ["atc.log", "atc_manifest.json", "frozen.pb", "vxm.om"]


def test_nodes_that_keep_their_dtype_go_into_a_file(folder, contract, fake_atc, make_om):
    plan = PrecisionPlan("fast", "force_fp16", ("warp/Floor", "warp/sub"))
    contract = replace(contract, precision=plan)
    succeed(fake_atc, make_om(contract))
    compile_om(folder, contract, fake_atc.toolchain)
    assert (folder / "keep_dtype.cfg").read_text() == "warp/Floor\nwarp/sub\n"
    assert "--keep_dtype=keep_dtype.cfg" in fake_atc.seen["argv"] and "keep_dtype.cfg" in fake_atc.seen["files"]


def test_convolutions_with_fp32_results_go_into_their_own_file(folder, contract, fake_atc, make_om):
    contract = replace(contract, precision=PrecisionPlan("x", "force_fp16", fp32_results=("conv3d/Conv3D",)))
    succeed(fake_atc, make_om(contract))
    compile_om(folder, contract, fake_atc.toolchain)
    line = "conv3d/Conv3D::InputDtype:float16,float16,OutputDtype:float32\n"
    assert (folder / "customize_dtypes.cfg").read_text() == line
    assert "--customize_dtypes=customize_dtypes.cfg" in fake_atc.seen["argv"]
    assert "customize_dtypes.cfg" in fake_atc.seen["files"]
    manifest = json.loads((folder / "atc_manifest.json").read_text())
    assert manifest["sha256"]["customize_dtypes.cfg"] == sha256_of(folder / "customize_dtypes.cfg")


@pytest.mark.parametrize("lists", [{"keep_dtype": ("warp/Flor",)}, {"fp32_results": ("conv3d/Conv4D",)}])
def test_a_plan_with_unknown_nodes_does_not_reach_the_compiler(folder, contract, fake_atc, lists):
    """The real ATC would ignore them and say so in its own log only."""
    wrong = replace(contract, precision=PrecisionPlan("x", "force_fp16", **lists))
    with pytest.raises(ContractError, match="which precision plan x names"):
        compile_om(folder, wrong, fake_atc.toolchain)
    assert not fake_atc.ran


def test_passed_flags_are_in_command_and_manifest(folder, contract, fake_atc, make_om):
    bank = folder / "bank"
    bank.mkdir()
    (bank / "op.json").write_text("{}")
    flags = {"deterministic": "1", "op_precision_mode": "atc_op_precision_mode.ini", "op_bank_path": str(bank)}
    (folder / "atc_op_precision_mode.ini").write_text("[ByOpType]\nConv3D=high_precision\n")
    contract = replace(contract, atc_flags=flags)
    succeed(fake_atc, make_om(contract))
    compile_om(folder, contract, fake_atc.toolchain)
    argv = fake_atc.seen["argv"]
    assert {"--deterministic=1", "--op_precision_mode=atc_op_precision_mode.ini"} <= set(argv)
    assert "atc_op_precision_mode.ini" in fake_atc.seen["files"]
    manifest = json.loads((folder / "atc_manifest.json").read_text())
    assert manifest["atc_flags"] == flags and "atc_op_precision_mode.ini" in manifest["sha256"]
    first = manifest["banks"]["op_bank_path"]
    (bank / "op.json").write_text("{} ")
    compile_om(folder, contract, fake_atc.toolchain)
    assert json.loads((folder / "atc_manifest.json").read_text())["banks"]["op_bank_path"] != first
    newer = replace(contract, atc_flags={"precision_mode_v2": "fp16"})
    assert [w for w in build_arguments(newer) if "precision" in w] == ["--precision_mode_v2=fp16"]


def test_the_python_of_the_operator_compiler_is_named_before_atc_runs(folder, contract, fake_atc, make_om, caplog):
    succeed(fake_atc, make_om(contract))
    compile_om(folder, contract, fake_atc.toolchain)
    assert "operator compiler" not in caplog.text
    said = '{"version": "3.7.16", "prefix": "/x", "missing": ["sympy"], "numpy": "1.18.5"}'
    (fake_atc.folder / "python3").write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
    compile_om(folder, contract, fake_atc.toolchain)
    assert "it has no sympy; its numpy is 1.18.5, CANN wants 1.19.2 or newer" in caplog.text


def test_what_a_failed_compiler_left_is_kept(folder, contract, fake_atc):
    report, kernel = folder / "a", folder / "b"
    report.write_text('{"result": "failed"}')
    kernel.write_bytes(b"object")
    fake_atc.script([FAILED, "E20001: x"], {"check_result.json": report, "kernel.o": kernel}, exit_code=255)
    with pytest.raises(AtcError):
        compile_om(folder, contract, fake_atc.toolchain)
    kept = {path.name: path.read_bytes() for path in (folder / "atc-failed").iterdir()}
    assert kept == {"check_result.json": report.read_bytes(), "kernel.o": b"object"}
    assert not (folder / ".atc").exists()


FAMILIES = [
    ("E10001", "atc --help", "value"),
    ("E10002", "shape", "shapes"),
    ("E10011", "shape", "shapes"),
    ("E10016", "export again", "not in the graph"),
    ("E10021", "--out", "output path"),
    ("E10054", "report", "lacks a required argument"),
    ("E10501", "newer CANN", "operator"),
    ("E13010", "newer CANN", "operator"),
    ("E19010", "newer CANN", "operator"),
    ("EZ3003", "newer CANN", "operator"),
    ("E20001", "--precision", "compiled"),
    ("E20101", "npu-smi", "platform file"),
    ("E40020", "Python", "Python"),
    ("E13022", "--batch", "memory"),
    ("E13001", "permissions", "file"),
    ("E60038", "smaller", "limits"),
    ("E10041", "preflight", "graph file"),
    ("E40001", "doctor", "environment"),
    ("EL0004", "npu-smi", "driver"),
    ("E10036", "static", "dynamic"),
    ("E19999", "ASCEND_SLOG", "no cause"),
]


@pytest.mark.parametrize("block", ["new", "old"])
@pytest.mark.parametrize("code,next_step,cause", FAMILIES)
def test_every_family_of_errors_has_cause_and_next_step(folder, contract, fake_atc, block, code, next_step, cause):
    new = f"[PID: 4242] 2025-06-01-10:00:00.000.000 Some_Title({code}): the text of the compiler"
    line = new if block == "new" else f"{code}: the text of the compiler"
    fake_atc.script([START, "...", FAILED, line, "        Possible Cause: N/A"], exit_code=255)
    with pytest.raises(AtcError) as caught:
        compile_om(folder, contract, fake_atc.toolchain)
    message = str(caught.value)
    assert caught.value.code == code and line in caught.value.log
    assert f"{code}: the text of the compiler" in message and "exit code 255" in message
    assert next_step in explain(code).next_step
    assert cause in explain(code).cause and explain(code).next_step in message
    assert_nothing_made(folder)


TRANSCRIPTS = Path(__file__).with_name("transcripts")
#: file → (exit code of ATC, code found, word of the cause, word of the next step, operators)
RECORDED = {
    "new_block_value.txt": (255, "E10001", "value", "atc --help", ()),
    "new_block_soc.txt": (255, "E20101", "platform file", "--soc-version", ()),
    "new_block_node.txt": (255, "E10016", "not in the graph", "export again", ()),
    "new_block_inner_then_cause.txt": (255, "E20001", "compiled", "--precision", ("conv3d/Conv3D (Conv3D)",)),
    "new_block_inner_only.txt": (255, "E19999", "no cause", "ASCEND_SLOG", ()),
    "new_block_limit.txt": (255, "E60038", "limits", "--shape", ()),
    "new_block_memory.txt": (255, "E13022", "memory", "TE_PARALLEL_COMPILER", ()),
    "old_line_log_flag.txt": (255, "E10010", "value", "atc --help", ()),
    "old_line_shape.txt": (255, "E10011", "shapes", "--shape", ()),
    "old_parser_missing.txt": (255, "E19010", "operator", "newer CANN", ("Conv_52 (ai.onnx::11::Convx)",)),
    "old_parser_missing_many.txt": (
        255,
        "E19010",
        "operator",
        "newer CANN",
        tuple(f"node_{n} (Strange)" for n in range(7)),
    ),
    "engine_ez3003.txt": (255, "EZ3003", "operator", "newer CANN", ("warp/GatherNd (GatherNd)",)),
    "engine_ez9010.txt": (255, "EZ9010", "operator", "newer CANN", ("up_sample (UpSampling3D)",)),
    "tbe_traceback.txt": (255, "E60026", "limits", "--shape", ("conv3d/Conv3D (Conv3D)",)),
    "tbe_traceback_no_code.txt": (255, "E40021", "compiled", "--precision", ("conv3d/Conv3D (Conv3D)",)),
    "python_module_missing.txt": (255, "E40020", "Python", "packages", ()),
    "python_module_missing_no_code.txt": (255, None, "Python", "packages", ()),
    "environment_e40001.txt": (255, "E40001", "environment variable", "set_env.sh", ()),
    "killed_oom.txt": (137, None, "memory ran out", "dmesg", ()),
    "killed_silent.txt": (-9, None, "memory ran out", "TE_PARALLEL_COMPILER", ()),
    "crash.txt": (139, None, "crashed", "ascend/log", ()),
    "bad_alloc.txt": (-6, None, "out of memory", "--batch", ()),
    "library_missing.txt": (127, None, "library", "devlib", ()),
    "disk_full.txt": (255, "E19999", "disk", "--out", ()),
    "driver.txt": (255, "EL0004", "driver", "npu-smi", ()),
    "licence.txt": (255, "E19999", "licence", "npu-smi", ()),
    "unknown_flag.txt": (255, None, "value", "atc --help", ()),
    "python_package_ec0010.txt": (255, "EC0010", "Python", "packages", ()),
    "new_block_op_form.txt": (255, "E20001", "compiled", "--precision", ("conv3d_3/Conv3D (Conv3D)",)),
    "kernel_path_e40021.txt": (255, "E40021", "compiled", "--precision", ("warp/GatherV2 (GatherV2)",)),
    "kernel_limit_e50055.txt": (255, "E50055", "limits", "--shape", ("conv3d/Conv3D (Conv3D)",)),
    "ai_cpu_inner_e39999.txt": (255, "E39999", "no cause", "ASCEND_SLOG", ()),
    "tbe_eb0500.txt": (255, "EB0500", "TBE", "atc-failed", ()),
    "configuration_e21001.txt": (255, "E21001", "configuration file", "--atc-flag", ()),
    "libpython_e40001.txt": (255, "E40001", "Python", "packages", ()),
    "component_ep0001.txt": (255, "EP0001", "no text for", "error_code.json", ()),
    "terminated.txt": (-15, None, "stopped by a signal", "run again", ()),
}


def test_every_transcript_is_expected():
    assert {path.name for path in TRANSCRIPTS.iterdir()} == set(RECORDED)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_failure_is_read_as_cause_and_next_step(name):
    exit_code, code, cause, next_step, operators = RECORDED[name]
    found = diagnose((TRANSCRIPTS / name).read_text(), exit_code)
    assert found.code == code and bool(found.message) == (code is not None)
    assert cause in found.explanation.cause and next_step in found.explanation.next_step, found.explanation
    assert found.operators == operators


def test_a_failure_with_many_operators_names_the_first_and_counts_the_rest(folder, contract, fake_atc):
    fake_atc.script((TRANSCRIPTS / "old_parser_missing_many.txt").read_text().splitlines(), exit_code=255)
    with pytest.raises(AtcError, match=r"operators: node_0 \(Strange\), .*node_4 \(Strange\) and 2 more; cause"):
        compile_om(folder, contract, fake_atc.toolchain)
    assert name_operators(("a (A)",)) == "a (A)"


def test_a_compiler_that_is_killed_is_reported_as_such(folder, contract, fake_atc):
    fake_atc.script([START], exit_code=137)
    with pytest.raises(AtcError, match="no error code; cause: the operating system ended the compiler"):
        compile_om(folder, contract, fake_atc.toolchain)


#: every code that the sources of ATC give occasions for, and one of each family that has a range
CODES = (
    [
        f"E100{n:02d}"
        for n in list(range(1, 15)) + list(range(16, 23)) + [31, 32] + list(range(35, 42)) + [45, 46, 47, 54, 55, 56]
    ]
    + [
        "E10501",
        "E12009",
        "E12013",
        "E12029",
        "E14001",
        "E20001",
        "E20002",
        "E20101",
        "E20103",
        "E40001",
        "E40020",
        "E40021",
    ]
    + [f"E{family}0{n:02d}" for family in ("13", "19") for n in range(27)]
    + ["E60012", "E60013", "E60010", "E60026", "E60038", "E90001", "EZ0501", "EZ3002", "EZ3003", "EZ9010"]
    + [
        "E50041",
        "E50055",
        "E30008",
        "E70001",
        "EA0000",
        "EB0000",
        "EB1000",
        "EB4000",
        "EB9000",
        "EC0010",
        "EO0001",
        "EP0001",
    ]
)


def knows(code):
    """Whether the tables have more for a code than that ATC says nothing."""
    return explain(code) is not explain(None)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_cause_of_its_own(code):
    assert knows(code), code
    assert explain(code).cause and explain(code).next_step


def test_unknown_and_inner_codes_say_that_they_are():
    inner = ("E19999", "E29999", "E39999", "E89999", "EZ9999", "EH9999", "EB9999")
    assert not any(knows(code) for code in inner + ("ED0001",))


def test_an_inner_error_gives_way_to_the_code_behind_it():
    log = "E19999: Inner Error!\n  [PID: 1] t Title(EZ3003): No supported kernel for [x]\nE10001: later"
    assert find_code(log) == ("EZ3003", "No supported kernel for [x]")
    assert find_code("E19999: Inner Error!") == ("E19999", "Inner Error!")
    assert find_code("all went well; SEE10001: no code") == (None, "")


def test_a_failure_without_a_code_shows_the_tail(folder, contract, fake_atc):
    fake_atc.script([f"line {n}" for n in range(40)] + ["Segmentation fault"], exit_code=139)
    with pytest.raises(AtcError, match="no error code") as caught:
        compile_om(folder, contract, fake_atc.toolchain)
    assert (
        caught.value.code is None and "Segmentation fault" in str(caught.value) and "line 3\n" not in str(caught.value)
    )


def test_exit_code_zero_is_not_success_if_it_says_failed(folder, contract, fake_atc, make_om):
    fake_atc.script([START, FAILED, "E10001: x"], {"vxm.om": make_om(contract)})
    with pytest.raises(AtcError, match="E10001"):
        compile_om(folder, contract, fake_atc.toolchain)
    assert_nothing_made(folder)


def test_success_without_a_model_is_a_failure(folder, contract, fake_atc):
    fake_atc.script([START, SUCCESS])
    with pytest.raises(AtcError, match="left 0 offline models"):
        compile_om(folder, contract, fake_atc.toolchain)
    assert_nothing_made(folder)


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"", lambda data: b"PK" + data[2:]])
def test_a_damaged_model_is_a_failure(folder, contract, fake_atc, make_om, damage):
    om = make_om(contract)
    om.write_bytes(damage(om.read_bytes()))
    succeed(fake_atc, om)
    with pytest.raises(AtcError, match="wrote an invalid offline model"):
        compile_om(folder, contract, fake_atc.toolchain)
    assert_nothing_made(folder)


def real_om(contract, soc="Ascend910A"):
    """A model of the real ATC with the contract's ends, and all that differs from ours in between."""
    made = small_model(soc)
    del made.graph.op[:]
    for tensor in contract.inputs:
        made.data(tensor.node, tensor.shape)
    made.op("Cast", "trans_Cast_0", [("moving:0", FLOAT, (7,)), ("", 0, ())], [(FLOAT, (5, 3))])
    made.op("NetOutput", "Node_Output", [("trans_Cast_0:0", FLOAT, (15,)), ("fixed:0", FLOAT, (1,))], [])
    for entry in made.message.attr:
        if entry.key == "attr_model_out_nodes_name":
            del entry.value.list.s[:]
            entry.value.list.s.extend(tensor.tensor_name.encode() for tensor in contract.outputs)
    return made


def test_a_model_of_the_real_atc_is_no_failure(folder, contract, fake_atc, tmp_path):
    """Absent operands, edges over removed reshapes, a NetOutput without outputs: every real Conv3D model has them."""
    succeed(fake_atc, real_om(contract).save(tmp_path / "real.om"))
    assert compile_om(folder, contract, fake_atc.toolchain).read_bytes() == (tmp_path / "real.om").read_bytes()
    succeed(fake_atc, real_om(contract, "Ascend310").save(tmp_path / "other.om"))
    with pytest.raises(ContractError, match="compiled for Ascend310"):
        compile_om(folder, contract, fake_atc.toolchain)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"soc_version": "Ascend310P3"}, "compiled for Ascend310P3"),
        ({"shape": (2, 16, 16, 32, 1)}, "inputs are"),
        ({"outputs": ["flow_field:0", "moved:0"]}, "outputs are"),
    ],
)
def test_a_model_of_something_else_is_a_failure(folder, contract, fake_atc, make_om, options, message):
    succeed(fake_atc, make_om(contract, **options))
    with pytest.raises(ContractError, match=message):
        compile_om(folder, contract, fake_atc.toolchain)
    assert_nothing_made(folder)


def test_ascend910_is_another_name_of_ascend910a(folder, contract, fake_atc, make_om):
    succeed(fake_atc, make_om(contract))
    compile_om(folder, replace(contract, soc_version="Ascend910"), fake_atc.toolchain)


def test_the_pb_must_have_the_shapes_of_the_contract(folder, contract, fake_atc):
    other = replace(contract, inputs=tuple(replace(t, shape=(1, 32, 32, 32, 1)) for t in contract.inputs))
    said = r"placeholder 'moving' is float32 \(1,16,16,32,1\), the contract says float32 \(1,32,32,32,1\)"
    with pytest.raises(ContractError, match=said):
        compile_om(folder, other, fake_atc.toolchain)
    assert not fake_atc.ran, "ATC ran although the shapes disagree"


def test_the_pb_must_have_the_nodes_of_the_contract(folder, contract):
    renamed = replace(contract, inputs=(replace(contract.inputs[0], node="input_src"), contract.inputs[1]))
    with pytest.raises(ContractError, match="no placeholder 'input_src'"):
        check_pb(folder / "frozen.pb", renamed)
    with pytest.raises(ContractError, match=r"missing: \['warped'\]"):
        check_pb(folder / "frozen.pb", replace(contract, outputs=(replace(contract.outputs[0], node="warped"),)))
    with pytest.raises(ContractError, match="beyond the contract"):
        check_pb(folder / "frozen.pb", replace(contract, inputs=contract.inputs[:1]))
    (folder / "frozen.pb").write_bytes(b"IMOD no graph")
    with pytest.raises(FormatError):
        check_pb(folder / "frozen.pb", contract)


def test_a_runtime_without_compiler_says_so(folder, contract, fake_atc):
    with pytest.raises(ToolchainError, match="no compiler"):
        compile_om(folder, contract, replace(fake_atc.toolchain, atc_command=()))
    with pytest.raises(ToolchainError, match="cannot start"):
        compile_om(folder, contract, replace(fake_atc.toolchain, atc_command=("/nonexistent/atc",)))
