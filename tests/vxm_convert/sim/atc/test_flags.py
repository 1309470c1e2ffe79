# SPDX-License-Identifier: Apache-2.0
"""What flags of the simulated ATC do to the model: data types at the edge and inside, fusion switches, chips."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.graphs import up_conv_graph
from vxm_convert.ascend.chips import CHIPS
from vxm_convert.formats.om import read_om
from vxm_convert.sim.atc.__main__ import main
from vxm_convert.sim.engine.load import load_program


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")
    return tmp_path


def _model(**changes):
    flags = {
        "model": "g.pb",
        "framework": "3",
        "output": "m",
        "soc_version": "Ascend910A",
        "out_nodes": "y:0;up:0",
        **changes,
    }
    assert main([f"--{key}={value}" for key, value in flags.items()]) == 0
    return read_om("m.om")


def _refused(words, capsys, **changes):
    with pytest.raises(AssertionError):
        _model(**changes)
    assert words in capsys.readouterr().out


def _edge(model):
    return [d.dtype for op in model.graph if op.type in ("Data", "NetOutput") for d in op.output_descs]


def _dtypes(model, kind):
    return {op.output_descs[0].dtype for op in model.graph if op.type == kind}


@pytest.mark.parametrize(
    "value, expected",
    [
        ("FP16", ["float16", "float16"]),
        ("INT32", ["int32", "int32"]),
        ("up:0:FP16", ["float32", "float16"]),
        ("y:0:UINT8;up:0:FP16", ["uint8", "float16"]),
        ("", ["float32", "float32"]),
    ],
)
def test_output_type(value, expected, folder):
    model = _model(output_type=value)
    assert _edge(model) == ["float32", "float32"] + expected
    feeds = [np.full(d.shape, 0.5, d.dtype) for d in load_program(model).inputs]
    assert [result.dtype.name for result in load_program(model).run(feeds)] == expected


def test_inputs_fed_in_half_give_what_the_rounded_input_gives(folder):
    rng = np.random.RandomState(0)
    plain, half = load_program(_model()), load_program(_model(input_fp16_nodes="x;skip"))
    assert [d.dtype.name for d in half.inputs] == ["float16", "float16"]
    feeds = [rng.rand(*d.shape).astype(np.float16) for d in half.inputs]
    for got, expected in zip(half.run(feeds), plain.run([feed.astype(np.float32) for feed in feeds])):
        assert np.array_equal(got, expected)


def test_mixlist_moves_operator_types(folder, capsys):
    assert _dtypes(_model(precision_mode="allow_mix_precision"), "LeakyRelu") == {"float16"}
    (folder / "mix.json").write_text(json.dumps({"black-list": {"to-add": ["LeakyRelu"]}}))
    black = _model(precision_mode="allow_mix_precision", modify_mixlist="mix.json")
    assert _dtypes(black, "LeakyRelu") == {"float32"} and _dtypes(black, "Conv3D") == {"float16"}
    (folder / "mix.json").write_text(json.dumps({"black-list": {"to-add": ["Conv3D"]}}))
    _refused("(EZ3003)", capsys, precision_mode="allow_mix_precision", modify_mixlist="mix.json")
    (folder / "mix.json").write_text(
        json.dumps({"black-list": {"to-add": ["ConcatV2D"]}, "white-list": {"to-add": ["LeakyRelu"]}})
    )
    mixed = _model(precision_mode_v2="mixed_float16", modify_mixlist="mix.json")
    assert _dtypes(mixed, "ConcatV2D") == {"float32"} and _dtypes(mixed, "LeakyRelu") == {"float16"}


def test_keep_dtype_takes_operator_types(folder, capsys):
    (folder / "keep.cfg").write_text("OpType::LeakyRelu\n\ndx\n")
    model = _model(keep_dtype="keep.cfg")
    assert _dtypes(model, "LeakyRelu") == {"float32"} and _dtypes(model, "Conv3D") == {"float16"}
    assert [op.name for op in model.graph if op.type == "ConcatV2D" and op.output_descs[0].dtype == "float32"] == ["dx"]
    (folder / "keep.cfg").write_text("OpType::Conv3D\n")
    _refused("(EZ3003)", capsys, keep_dtype="keep.cfg")


def _custom(folder, text, **flags):
    (folder / "custom.cfg").write_text(text)
    return _model(customize_dtypes="custom.cfg", **flags)


def test_customised_dtypes_win_over_kept_ones_and_a_node_over_its_type(folder):
    (folder / "keep.cfg").write_text("OpType::LeakyRelu\nOpType::ConcatV2D\n")
    model = _custom(
        folder,
        "OpType::ConcatV2D:InputDtype:float16,float16,OutputDtype:float16\n\n"
        "dz::InputDtype:float32,float32,OutputDtype:float32\nconv::OutputDtype:float16\n",
        precision_mode="force_fp32",
        keep_dtype="keep.cfg",
    )
    by_name = {op.name: op for op in model.graph}
    assert by_name["dz"].output_descs[0].dtype == "float32" and by_name["dy"].output_descs[0].dtype == "float16"
    assert by_name["conv"].output_descs[0].dtype == "float16", "fp32 by the mode, but customised"
    assert _dtypes(model, "LeakyRelu") == {"float32"}, "kept, and not customised"
    x = [np.random.RandomState(0).rand(*desc.shape).astype(np.float32) for desc in load_program(model).inputs]
    assert all(np.isfinite(part).all() for part in load_program(model).run(x))


def test_a_customised_cube_operator_gives_fp32_and_leaves_the_rest(folder):
    model = _custom(folder, "conv::InputDtype:float16,,OutputDtype:float32")
    (conv,) = (op for op in model.graph if op.type == "Conv3D")
    assert (conv.input_descs[0].dtype, conv.output_descs[0].dtype) == ("float16", "float32")
    assert _dtypes(model, "LeakyRelu") == {"float16"}


@pytest.mark.parametrize(
    "text, code, said",
    [
        ("nobody::InputDtype:float16", "E10016", "nobody"),
        ("conv::InputDtype:float32", "E20001", "conv (Conv3D)"),
        ("y::InputDtype:float32,OutputDtype:float16", "E20001", "y (LeakyRelu)"),
        ("y::InputDtype:int32", "E20001", "only float types"),
        ("y::InputDtype:float32,float32", "E20001", "2 input types"),
        ("y::InputDtype:half", "E10001", "'half'"),
        ("y::", "E10001", "'y::'"),
        ("y:InputDtype:float16", "E10001", "expected"),
        ("OpType::LeakyRelu", "E10001", "expected"),
    ],
)
def test_customised_dtypes_that_no_kernel_has(text, code, said, folder, capsys):
    (folder / "custom.cfg").write_text(text)
    flags = [
        "--model=g.pb",
        "--framework=3",
        "--output=m",
        "--soc_version=Ascend910A",
        "--out_nodes=y:0",
        "--customize_dtypes=custom.cfg",
    ]
    assert main(flags) == 255
    out = capsys.readouterr().out
    assert f"({code})" in out and said in out and not (folder / "m.om").exists()


def test_op_precision_mode_is_recorded_and_the_node_wins(folder):
    (folder / "p.ini").write_text(
        "[ByOpType]\nConv3D=high_precision\nLeakyRelu = high_performance\n[ByNodeName]\ny=keep_fp16\n"
    )
    model = _model(op_precision_mode="p.ini")
    modes = {op.type: op.attrs.get("_op_impl_mode_enum") for op in model.graph}
    assert modes["Conv3D"] == 4 and modes["LeakyRelu"] == 128 and modes["ConcatV2D"] is None


def test_implmode_marks_the_listed_types(folder):
    model = _model(op_select_implmode="high_precision", optypelist_for_implmode="Conv3D,LeakyRelu")
    assert {op.type for op in model.graph if op.attrs.get("_op_impl_mode_enum") == 4} == {"Conv3D", "LeakyRelu"}


@pytest.mark.parametrize(
    "text",
    [
        "ConvBiasaddFusionPass:off\nOther:on\n",
        '{"Switch": {"GraphFusion": {"ALL": "off"}, "UBFusion": {"ALL": "off"}}}',
        '{"Switch": {"GraphFusion": {"ConvBiasaddFusionPass": "off"}}}',
    ],
)
def test_a_fusion_pass_can_be_switched_off(text, folder):
    (folder / "switch.cfg").write_text(text)
    kinds = [op.type for op in _model(fusion_switch_file="switch.cfg").graph]
    assert kinds.count("BiasAdd") == 1
    report = json.loads((folder / "fusion_result.json").read_text())
    assert (
        report[0]["graph_fusion"]["ConvBiasaddFusionPass"]["effect_times"] == "0"
        and report[0]["session_and_graph_id"] == "0_0"
    )


def test_a_single_pass_stays_on_where_all_others_are_off(folder):
    (folder / "s.cfg").write_text('{"Switch": {"GraphFusion": {"ALL": "off", "ConvBiasaddFusionPass": "on"}}}')
    assert "BiasAdd" not in {op.type for op in _model(fusion_switch_file="s.cfg").graph}


@pytest.mark.parametrize("soc", sorted(CHIPS))
def test_every_chip_of_the_table_compiles_with_all_its_cores(soc, folder, capsys):
    assert _model(soc_version=soc, aicore_num=str(CHIPS[soc].cores or 1)).soc_version == soc
    assert ("NOTE: the simulated device rounds" in capsys.readouterr().out) == (not CHIPS[soc].first_910)
