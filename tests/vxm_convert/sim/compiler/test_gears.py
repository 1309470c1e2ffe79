# SPDX-License-Identifier: Apache-2.0
"""Models with gears: each gear equals the model of its shape alone, weights are there once, the file says what it
can.
"""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.support import gear_graphs
from tests.support.fuzz import outcomes
from tests.support.gear_graphs import CASES, compile_case, feeds, run_atc, static_results
from tests.support.graphs import PbBuilder
from vxm_convert.errors import FormatError
from vxm_convert.formats import ge_ir, om
from vxm_convert.formats.gears import BATCH, DIMS, IMAGE, filled, output_dims
from vxm_convert.inspection.graphs import describe_om
from vxm_convert.sim.atc.__main__ import main
from vxm_convert.sim.engine import geared
from vxm_convert.sim.engine.load import load_program


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_gear_equals_the_model_of_its_shape_bit_for_bit(name, folder):
    program = load_program(om.read_om(compile_case(name, folder)))
    for gear, shapes in enumerate(CASES[name].shapes):
        arrays = feeds(name, gear)
        assert [desc.shape for desc in program.tensors(gear)[0]] == list(shapes)
        results = program.program(gear).run(arrays)
        for got, expected in zip(results, static_results(name, gear, folder, arrays)):
            assert got.shape == expected.shape and np.array_equal(got, expected) and np.ptp(got) > 0


@pytest.mark.parametrize(
    "name, kind, declared",
    [
        ("batch", BATCH, {"x": (-1, 12, 12, 3)}),
        ("hw", IMAGE, {"x": (1, -1, -1, 3)}),
        ("dims", DIMS, {"x": (-1, -1, 8), "y": (-1, 8)}),
        ("volumes", BATCH, {"moving": (-1, 16, 16, 16, 1), "fixed": (-1, 16, 16, 16, 1)}),
    ],
)
def test_the_file_says_what_it_can_be_set_to(name, kind, declared, folder):
    model = om.read_om(compile_case(name, folder))
    gears = model.gears
    assert (gears.kind, gears.declared, list(gears.order)) == (kind, declared, list(declared))
    assert [tuple(gears.shapes(i).values()) for i in range(len(gears.profiles))] == list(CASES[name].shapes)
    edge = {op.name: op.output_descs[0].shape for op in model.graph if op.type == "Data"}
    assert edge.pop("ascend_mbatch_shape_data") == (len(gears.profiles[0]),)
    for position, (node, shape) in enumerate(edge.items()):
        assert np.prod(shape) == max(np.prod(shapes[position]) for shapes in CASES[name].shapes), node
    case = next(op for op in model.graph if op.type == "Case")
    assert list(model.model.branches) == case.subgraphs == [f"{name}_ascend_mbatch_batch_{i}" for i in range(3)]


def test_weights_that_gears_share_are_there_once(folder):
    model, alone = (
        om.read_om(compile_case("volumes", folder)),
        om.read_om(gear_graphs.compile_static("volumes", 0, folder)),
    )
    # besides: the table of gears, in a block of 512
    assert len(model.weights) == len(alone.weights) + 512
    assert int(model.attrs["weight_size"]) == len(model.weights)
    largest = om.read_om(gear_graphs.compile_static("volumes", 2, folder))
    assert model.attrs["memory_size"] == largest.attrs["memory_size"] > alone.attrs["memory_size"]


def test_constants_that_depend_on_the_shape_stay_apart(folder):
    pb = PbBuilder()
    x = pb.placeholder("x", (-1, 4))
    zeros = pb.node("ZerosLike", "zeros", x)
    pb.node("Add", "y", x, pb.node("Add", "ones", zeros, pb.const("one", np.ones((), np.float32))))
    path = run_atc(pb.save(folder / "g.pb"), folder / "g", ["y"], ["--input_shape=x:-1,4", "--dynamic_batch_size=2,5"])
    program = load_program(om.read_om(path))
    for gear, batch in enumerate((2, 5)):
        assert np.array_equal(program.program(gear).run([np.zeros((batch, 4), np.float32)])[0], np.ones((batch, 4)))


def test_numbers_of_dims_follow_the_order_on_the_command_line(folder):
    path = run_atc(
        gear_graphs.build("dims", folder),
        folder / "turned",
        ["mean"],
        ["--input_shape=y:-1,8;x:-1,-1,8", "--dynamic_dims=2,2,5;3,3,7", "--input_format=ND"],
    )
    gears = om.read_om(path).gears
    assert gears.order == ("y", "x") and list(gears.declared) == ["x", "y"]
    assert gears.shapes(1) == {"x": (3, 7, 8), "y": (3, 8)} and gears.flat_dims(1) == [3, 8, 3, 7, 8]


def test_an_input_that_the_command_line_leaves_out_keeps_its_shape(folder):
    pb = PbBuilder()
    pb.node("Add", "sum", pb.placeholder("x", (-1, 4)), pb.placeholder("row", (1, 4)))
    path = run_atc(
        pb.save(folder / "g.pb"), folder / "g", ["sum"], ["--input_shape=x:-1,4", "--dynamic_batch_size=1,2"]
    )
    gears = om.read_om(path).gears
    assert (
        gears.declared == {"x": (-1, 4), "row": (1, 4)}
        and gears.order == ("x", "row")
        and gears.flat_dims(1) == [2, 4, 1, 4]
    )


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_flags_of_the_edge_hold_for_every_gear(engine, folder, monkeypatch):
    pytest.importorskip(engine)
    monkeypatch.setenv("VXM_SIM_ENGINE", engine)
    model = om.read_om(compile_case("batch", folder, "--input_fp16_nodes=x", "--output_type=FP16"))
    program = load_program(model)
    assert [desc.dtype.name for desc in program.inputs + program.outputs] == ["float16", "int32", "float16"]
    got = program.program(1).run([array.astype(np.float16) for array in feeds("batch", 1)])[0]
    assert got.dtype == np.float16 and np.allclose(got.sum(axis=1), 1, atol=1e-2)


def test_a_gear_that_cannot_be_compiled_is_named(folder, capsys):
    pb = PbBuilder()
    pb.node("Reshape", "y", pb.placeholder("x", (-1, 4)), pb.const("form", np.array([2, 2], np.int32)))
    pb.save(folder / "g.pb")
    status = main(
        [
            "--model=g.pb",
            "--framework=3",
            "--output=g",
            "--soc_version=Ascend910A",
            "--input_shape=x:-1,4",
            "--dynamic_batch_size=1,3",
        ]
    )
    out = capsys.readouterr().out
    assert status == 255 and "(E20001): --dynamic_batch_size, gear 3: " in out and not list(folder.glob("*.om"))


def test_onnx_with_gears_equals_its_static_models(folder):
    onnx = pytest.importorskip("onnx")
    rng = np.random.RandomState(0)
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array((rng.randn(*shape) * 0.2).astype(np.float32), name)
        for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,)))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["y"], "act"),
        ],
        "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", floats, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    gears = ["--input_shape=x:1,3,-1,-1", "--dynamic_image_size=8,9;12,7"]
    program = load_program(om.read_om(run_atc(folder / "m.onnx", folder / "m", [], gears, framework=5)))
    assert program.gears.declared == {"x": (1, 3, -1, -1)}
    for gear, (height, width) in enumerate(((8, 9), (12, 7))):
        array = rng.rand(1, 3, height, width).astype(np.float32)
        alone = run_atc(folder / "m.onnx", folder / "alone", [], [f"--input_shape=x:1,3,{height},{width}"], framework=5)
        assert np.array_equal(program.program(gear).run([array])[0], load_program(om.read_om(alone)).run([array])[0])


def test_few_programs_are_kept_prepared(folder):
    path = run_atc(
        gear_graphs.build("batch", folder),
        folder / "m",
        ["prob"],
        ["--input_shape=x:-1,12,12,3", "--dynamic_batch_size=" + ",".join(map(str, range(1, 8)))],
    )
    program = load_program(om.read_om(path))
    first = program.program(0)
    assert program.program(0) is first
    for gear in range(7):
        program.program(gear)
    assert len(program._prepared) == geared.MAX_PREPARED and program.program(0) is not first
    array = np.random.RandomState(0).rand(1, 12, 12, 3).astype(np.float32)
    assert np.array_equal(program.program(0).run([array])[0], first.run([array])[0])


def test_modes_and_inspect_show_the_gears(folder, capsys):
    path = compile_case("hw", folder, "--display_model_info=1")
    line = "gear     info: dynamic_image_size[16,16;24,32;20,18]."
    assert line in capsys.readouterr().out
    assert main(["--mode=6", f"--om={path}"]) == 0 and line in capsys.readouterr().out
    assert main(["--mode=1", f"--om={path}", "--json=m.json"]) == 0
    graphs = json.loads((folder / "m.json").read_text())["graph"]
    assert [graph["name"] for graph in graphs] == ["hw_0"] + [f"hw_ascend_mbatch_batch_{i}" for i in range(3)]
    case = next(op for op in graphs[0]["op"] if op["type"] == "Case")
    assert case["subgraph_name"] == [graph["name"] for graph in graphs[1:]]
    facts = describe_om(path).facts
    assert ("gears", "dynamic_image_size 16,16;24,32;20,18") in facts and (
        "input",
        "x float32 [1, -1, -1, 3] NHWC",
    ) in facts


def test_precheck_compiles_every_gear_and_the_original_is_the_largest(folder):
    pb = gear_graphs.build("hw", folder)
    flags = [
        "--framework=3",
        f"--model={pb}",
        "--output=m",
        "--soc_version=Ascend910A",
        "--out_nodes=mask:0",
        *CASES["hw"].flags,
    ]
    assert main(flags + ["--mode=3"]) == 0
    assert json.loads((folder / "check_result.json").read_text())["result"] == "success" and not list(
        folder.glob("*.om")
    )
    assert main(flags + ["--save_original_model=true"]) == 0
    graph = json.loads(_as_json("m_original.om"))["graph"][0]
    assert next(op for op in graph["op"] if op["type"] == "Data")["output_desc"][0]["shape"]["dim"] == [1, 24, 32, 3]


def _as_json(path):
    assert main(["--mode=1", f"--om={path}", "--json=original.json"]) == 0
    with open("original.json", encoding="utf-8") as handle:
        return handle.read()


@pytest.mark.parametrize(
    "kind, profile, expected",
    [(BATCH, (4,), {"a": (4, 2), "b": (4, 3), "c": (7,)}), (DIMS, (4, 5), {"a": (4, 2), "b": (5, 3), "c": (7,)})],
)
def test_numbers_of_a_profile_go_to_their_sides(kind, profile, expected):
    declared = {"a": (-1, 2), "b": (-1, 3), "c": (7,)}
    assert filled(declared, list(declared), kind, profile) == expected


@pytest.mark.parametrize("kind, profile", [(IMAGE, (4, 5)), (DIMS, (4,)), (DIMS, (4, 5, 6))])
def test_numbers_that_do_not_match_the_sides_are_refused(kind, profile):
    with pytest.raises(ValueError):
        filled({"a": (-1, 2), "b": (-1, 3)}, ["a", "b"], kind, profile)


# --- the strict reader ---------------------------------------------------------------------------------------------


@pytest.fixture
def dims_om(folder):
    return compile_case("dims", folder)


def _edited(data, change):
    """The file with an edit of its ModelDef message and a checksum that fits."""
    count = struct.unpack_from("<I", data, 256)[0]
    base = 260 + 12 * count
    entries = [struct.unpack_from("<III", data, 260 + 12 * i) for i in range(count)]
    parts = [(kind, data[base + offset : base + offset + size]) for kind, offset, size in entries]
    message = ge_ir.parse_message(parts[0][1], "test")
    change(message)
    parts[0] = (om.MODEL_DEF, message.SerializeToString(deterministic=True))
    payload = om._encode_table(parts) + b"".join(part for _, part in parts)
    return om._sealed(data[:76] + struct.pack("<I", len(payload)) + data[80:256], payload)


def _op(kind, change, graph=0):
    return lambda message: change([op for op in message.graph[graph].op if op.type == kind][-1])


def _attr(kind, key, change, graph=0):
    """Edit of an attribute of the last node of a type."""
    return _op(kind, lambda op: change(next(entry for entry in op.attr if entry.key == key).value), graph)


def _drop(kind, key):
    return _op(kind, lambda op: op.attr.remove(next(entry for entry in op.attr if entry.key == key)))


def _ints(*values):
    def change(value):
        value.Clear()
        value.list.i.extend(values)

    return change


def _first_text(text):
    return lambda value: value.list.s.__setitem__(0, text)


def _number(value):
    def change(message):
        message.Clear()
        message.i = value

    return change


def _rename_graph(message):
    message.graph[2].name = message.graph[1].name


def _origin(message):
    data = next(op for op in message.graph[0].op if op.name == "x")
    return next(entry for entry in data.attr if entry.key == "_mbatch_origin_input_dims")


def _rename(message, old, new):
    for op in message.graph[0].op:
        op.name = new if op.name == old else op.name
        op.input[:] = [source.replace(old + ":", new + ":") for source in op.input]


def _resize(message):
    for op in message.graph[0].op:
        for desc in list(op.input_desc) + list(op.output_desc):
            if desc.dtype == 7 and list(desc.shape.dim) == [3]:
                desc.shape.dim[0] = 2


def _shrink(message):
    for op in message.graph[0].op:
        for desc in list(op.input_desc) + list(op.output_desc):
            if list(desc.shape.dim) == [2, 6, 8]:
                for dims in (desc.shape.dim, next(e for e in desc.attr if e.key == "origin_shape").value.list.i):
                    dims[0] = 1


#: what is broken → (edit, words of the rule that refuses it)
BROKEN = {
    "a graph nobody runs": (lambda m: m.graph.add(name="stray"), "holds 5 graphs"),
    "a graph is missing": (lambda m: m.graph.__delitem__(2), "holds 3 graphs"),
    "two graphs of one name": (_rename_graph, "holds 4 graphs"),
    "a graph is run twice": (_op("Case", lambda op: op.subgraph_name.append(op.subgraph_name[0])), "holds 4 graphs"),
    "more gears than graphs": (_attr("Case", "_batch_num", _number(4)), "4 are announced for 3 graphs"),
    "absurd number of gears": (_attr("Case", "_batch_num", _number(1 << 62)), "are announced for 3 graphs"),
    "number of gears is no number": (_attr("Case", "_batch_num", _ints(3)), "[3] are announced"),
    "unknown kind": (_attr("Case", "_dynamic_type", _number(4)), "kind 4, expected one of"),
    "kind of another flag": (_attr("Case", "_dynamic_type", _number(BATCH)), "expected 1 numbers"),
    "a profile is missing": (
        _drop("Case", "_pred_value_2"),
        "attribute _pred_value_2 of 'ascend_mbatch_shape_case' is not a list",
    ),
    "a profile twice": (_attr("Case", "_pred_value_1", _ints(1, 4, 1)), "a profile is repeated"),
    "a profile with zero": (_attr("Case", "_pred_value_1", _ints(2, 0, 2)), "expected 3 numbers above 0"),
    "a profile too short": (_attr("Case", "_pred_value_1", _ints(2, 6)), "expected 3 numbers above 0"),
    "an absurd profile": (_attr("Case", "_pred_value_1", _ints(1 << 40, 6, 2)), "expected 3 numbers above 0"),
    "a profile that is none of its graph": (
        _attr("Case", "_pred_value_1", _ints(2, 7, 2)),
        "the graph of gear 1 takes",
    ),
    "order of other inputs": (_attr("Case", "_user_designate_shape_order", _ints(1, 2)), "expected the inputs x, y"),
    "inputs not numbered": (_attr("Data", "index", _number(7)), "not numbered from 0"),
    "outputs' shapes": (_attr("NetOutput", "_dynamic_output_dims", _first_text(b"0,0,9,9")), "from its graphs"),
    "a gear gives another dtype": (
        _op("NetOutput", lambda op: setattr(op.output_desc[0], "dtype", 2), 1),
        "differ from those of the model",
    ),
    "a gear does not end": (lambda m: m.graph[1].op.__delitem__(-1), "does not end in NetOutput"),
    "a gear is empty": (lambda m: m.graph[1].ClearField("op"), "does not end in NetOutput"),
    "a broken edge in a gear": (lambda m: m.graph[2].op[-1].input.__setitem__(0, "nobody:0"), "input 'nobody:0'"),
    "fewer output names": (
        lambda m: next(e for e in m.attr if e.key == "attr_model_out_nodes_name").value.list.s.pop(),
        "are named",
    ),
    "no origin shape": (lambda m: _number(3)(_origin(m).value), "_mbatch_origin_input_dims of 'x' is not a list"),
    "origin shape with zero": (lambda m: _origin(m).value.list.i.__setitem__(2, 0), "expected -1 or sides above 0"),
    "origin shape without -1": (lambda m: _origin(m).value.list.i.__setitem__(0, 3), "has more numbers than"),
    "origin shape with more -1": (lambda m: _origin(m).value.list.i.__setitem__(2, -1), "has too few numbers"),
    "no input picks the gear": (
        lambda m: _rename(m, "ascend_mbatch_shape_data", "other"),
        "last input is not ascend_mbatch_shape_data",
    ),
    "it has another size": (_resize, "ascend_mbatch_shape_data is int32 (2,), expected int32 (3,)"),
    "edge smaller than a gear": (_shrink, "x has shape (1, 6, 8), its largest gear (2, 6, 8)"),
}


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_refuses_gears_that_do_not_agree(how, dims_om):
    edit, words = BROKEN[how]
    with pytest.raises(FormatError) as caught:
        om.parse_om(_edited(dims_om.read_bytes(), edit), "damaged.om")
    assert "damaged.om" in str(caught.value) and words in str(caught.value)


def test_an_untouched_rebuild_reads(dims_om):
    assert om.parse_om(_edited(dims_om.read_bytes(), lambda message: None)).gears == om.read_om(dims_om).gears


def test_a_real_file_that_the_layout_does_not_fit_is_read_without_gears(dims_om):
    def foreign(message):
        next(entry for entry in message.attr if entry.key == "atc_version").value.s = b"1.84.x"
        next(op for op in message.graph[0].op if op.type == "Case").attr.add(key="_batch_num").value.i = 7

    data = _edited(dims_om.read_bytes(), foreign)
    header = bytearray(data[:256])
    header[12:76], header[81], header[160:180] = bytes(64), 0, bytes(20)
    model = om.parse_om(bytes(header) + data[256:])
    assert model.gears is None and not model.simulated and len(model.model.branches) == 3


def test_every_mutation_is_refused(dims_om):
    data, rng = dims_om.read_bytes(), np.random.RandomState(0)
    for number in range(3000):
        copy = bytearray(data)
        copy[rng.randint(len(copy))] ^= rng.randint(1, 256)
        with pytest.raises(FormatError):
            om.parse_om(bytes(copy if number % 4 else copy[: rng.randint(len(copy))]))


def test_damage_behind_a_fitting_checksum_never_escapes_the_error_tree(dims_om):
    """What still reads loads or is refused; nothing else."""
    data, rng = dims_om.read_bytes(), np.random.RandomState(1)

    def read(copy):
        model = om.parse_om(om._sealed(copy[:256], copy[256:]))
        if model.gears:
            [model.gears.flat_dims(gear) for gear in range(3)]

    def damaged():
        for _ in range(400):
            copy = bytearray(data)
            copy[rng.randint(300, len(copy))] ^= rng.randint(1, 256)
            yield bytes(copy)

    taken, refused = outcomes(read, data, damaged(), FormatError)
    assert taken > 50 and refused > 100, (taken, refused)


def test_output_dims_name_gear_and_output():
    assert output_dims([[(1, 2), ()], [(3, 4), ()]]) == ["0,0,1,2", "0,1", "1,0,3,4", "1,1"]
