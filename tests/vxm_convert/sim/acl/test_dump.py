# SPDX-License-Identifier: Apache-2.0
"""Dump files: the format and its reader, and what executions write."""

from __future__ import annotations

import json
import re
import struct

import numpy as np
import pytest

from tests.support.fuzz import outcomes
from tests.support.graphs import compile_pb, up_conv_graph
from tests.support.sim_device import dataset, on_device
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats import dump as dump_format
from vxm_convert.formats.dump import Dump, DumpTensor, decode_dump, dump_name, encode_dump, parse_dump_name, read_dump
from vxm_convert.sim.acl.models import loading as model_module
from vxm_convert.sim.engine.load import load_program


def sample():
    half = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    return Dump(
        "a/b.c",
        1700000000000000,
        [DumpTensor(half, 2, (24,))],
        [DumpTensor(half[:1].astype(np.int32), 27, (1, 3, 4))],
        [b"L1"],
        [b"work", b""],
        {"k": "v"},
    )


def test_round_trip_and_order_of_the_parts():
    made, data = sample(), encode_dump(sample())
    length = struct.unpack_from("<Q", data)[0]
    assert data[8 + length :] == made.inputs[0].data.tobytes() + made.outputs[0].data.tobytes() + b"L1" + b"work"
    back = decode_dump(data)
    assert (back.op_name, back.dump_time, back.buffers, back.spaces, back.attrs) == (
        "a/b.c",
        made.dump_time,
        [b"L1"],
        [b"work", b""],
        {"k": "v"},
    )
    for got, expected in zip(back.inputs + back.outputs, made.inputs + made.outputs):
        np.testing.assert_array_equal(got.data, expected.data)
        assert (got.data.dtype, got.layout, got.original_shape) == (
            expected.data.dtype,
            expected.layout,
            expected.original_shape,
        )


def with_header(change):
    data = encode_dump(sample())
    length = struct.unpack_from("<Q", data)[0]
    message = dump_format._MESSAGES["DumpData"]()
    message.ParseFromString(data[8 : 8 + length])
    change(message)
    header = message.SerializeToString()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


BROKEN = {
    "too short": (lambda: encode_dump(sample())[:7], "truncated"),
    "empty": (lambda: b"", "0 bytes"),
    "header length 0": (lambda: bytes(8) + b"x", "header length 0"),
    "header longer than the file": (lambda: struct.pack("<Q", 1 << 60) + b"xx", "header length"),
    "no protobuf": (lambda: struct.pack("<Q", 4) + b"\xff\xff\xff\xff", "not a DumpData"),
    "payload cut": (lambda: encode_dump(sample())[:-1], "announces"),
    "payload too long": (lambda: encode_dump(sample()) + b"x", "announces"),
    "another version": (lambda: with_header(lambda m: setattr(m, "version", "two")), "version 'two'"),
    "no operator": (lambda: with_header(lambda m: m.ClearField("op_name")), "does not name an operator"),
    "unknown dtype": (lambda: with_header(lambda m: setattr(m.input[0], "data_type", 99)), "input 0: data type 99"),
    "shape and size disagree": (
        lambda: with_header(lambda m: m.output[0].shape.dim.append(2)),
        "output 0: 48 bytes do not hold int32",
    ),
    "huge shape": (lambda: with_header(lambda m: m.input[0].shape.dim.append(1 << 62)), "do not hold"),
    "rank 9": (lambda: with_header(lambda m: m.input[0].shape.dim.extend([1] * 6)), "rank 9"),
    "huge size": (lambda: with_header(lambda m: setattr(m.space[0], "size", 1 << 62)), "announces"),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_the_reader_refuses(case):
    make, message = BROKEN[case]
    with pytest.raises(FormatError, match=message):
        decode_dump(make())


def test_a_missing_file_and_mutations(tmp_path):
    with pytest.raises(ArtifactError, match="cannot read the dump file"):
        read_dump(tmp_path / "none")
    data, rng = encode_dump(sample()), np.random.RandomState(0)

    def damaged():
        for _ in range(300):
            spoilt = bytearray(data)
            spoilt[rng.randint(len(data))] = rng.randint(256)
            yield bytes(spoilt)

    taken, refused = outcomes(decode_dump, data, damaged(), FormatError)
    assert taken > 50 and refused > 50, (taken, refused)


def field(number, wire, payload):
    return bytes([number << 3 | wire]) + payload


def text(data):
    return bytes([len(data)]) + data


def test_a_real_dump_has_other_numbers_for_inputs_than_for_outputs():
    """By hand, as `dump_task.proto` numbers them: an output has its original operator as field 4, an input has not."""
    shape, values = text(field(1, 0, b"\x02")), np.array([1.5, -2], np.float32)
    wide = np.array([0x3FC0, 0xC000], np.uint16)
    into = field(1, 0, b"\x01") + field(2, 0, b"\x02") + field(3, 2, shape) + field(5, 0, b"\x08")
    into += field(6, 2, shape) + field(7, 0, b"\x00") + field(8, 0, b"\x7f")
    out = field(1, 0, b"\x1b") + field(2, 0, b"\x02") + field(3, 2, shape) + field(4, 2, text(field(1, 2, text(b"x"))))
    out += field(6, 0, b"\x04") + field(7, 2, shape) + field(9, 0, b"\x7f")
    header = field(1, 2, text(b"2.0")) + field(3, 2, text(out)) + field(4, 2, text(into)) + field(6, 2, text(b"conv"))
    dump = decode_dump(struct.pack("<Q", len(header)) + header + values.tobytes() + wide.tobytes())
    assert dump.inputs[0].data.tolist() == [1.5, -2] and dump.inputs[0].original_shape == (2,)
    assert dump.outputs[0].data.tolist() == [1.5, -2] and dump.outputs[0].data.dtype == np.float32, "bf16, as fp32"


@pytest.mark.parametrize(
    "name, task, stream",
    [
        ("Conv3D.conv.3.1.1700000000000000", 3, 1),
        ("Conv3D.conv.3.1700000000000000", 3, 0),
        ("Conv3D.conv.3.1.1700000000000000.4.12.0.0", 3, 1),
    ],
)
def test_names_of_other_chips(name, task, stream):
    found = parse_dump_name(name)
    assert (found.op_type, found.op_name, found.task_id, found.stream_id) == ("Conv3D", "conv", task, stream)


def test_names():
    name = dump_name("Conv3D", "a/b.c conv", 3, 0, 1700000000000000)
    assert str(name) == "Conv3D.a_b_c_conv.3.0.1700000000000000"
    assert parse_dump_name(str(name)) == name
    for wrong in ("Conv3D.a.3.0.17", "Conv3D.a/b.3.0.1700000000000000", "Conv3D", "Conv3D.a.3.0.1700000000000000.npy"):
        with pytest.raises(FormatError):
            parse_dump_name(wrong)


# --- what executions write -------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(tmp_path):
    """An fp16 model with upsampling, concat, Conv3D + bias and LeakyRelu; its program and its inputs."""
    rng = np.random.RandomState(5)
    out = tmp_path / "model.om"
    om = compile_pb(up_conv_graph(rng, side=4, channels=4, skip=2, filters=3).save(tmp_path / "g.pb"), out, [("y", 0)])
    program = load_program(om)
    return out, program, [rng.rand(*desc.shape).astype(np.float32) for desc in program.inputs]


def execute(acl, path, arrays, program, times=1):
    model_id, ret = acl.mdl.load_from_file(str(path))
    assert ret == 0
    spans = on_device(acl, *[a.nbytes for a in arrays])
    for (address, size), array in zip(spans, arrays):
        assert acl.rt.memcpy(address, size, array.ctypes.data, size, 1) == 0
    outputs = dataset(acl, on_device(acl, *[int(np.prod(d.shape)) * d.dtype.itemsize for d in program.outputs]))
    for _ in range(times):
        assert acl.mdl.execute(model_id, dataset(acl, spans), outputs) == 0
    return model_id


def dumps_in(folder):
    """op name → (parts of the file name, dump), of all files below."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[parse_dump_name(path.name).op_name] = (parse_dump_name(path.name), read_dump(path))
    return found


def test_dumps_hold_every_operator_in_its_storage_form(sim, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    path, program, arrays = compiled
    folder, config = tmp_path / "dumps", tmp_path / "acl.json"
    folder.mkdir()
    config.write_text(
        json.dumps({"dump": {"dump_path": str(folder), "dump_mode": "all", "dump_list": [{"model_name": "model"}]}})
    )
    acl = sim.acl
    assert acl.init(str(config)) == 0 and acl.rt.set_device(0) == 0
    model_id = execute(acl, path, arrays, program, times=2)
    (stamp,) = folder.iterdir()
    assert re.match(r"^\d{14}$", stamp.name)
    executions = stamp / "0" / "model" / str(model_id)
    assert sorted(p.name for p in executions.iterdir()) == ["0", "1"]
    found = dumps_in(executions / "0")
    ops = {op.name: op for op in program.ops if op.type not in ("Data", "Const")}
    assert {parts.op_type for parts, _ in found.values()} == {op.type for op in ops.values()}
    assert len(found) == len(ops)
    for _, dump in found.values():
        op = ops[dump.op_name]
        for tensors, descs in ((dump.inputs, op.input_descs), (dump.outputs, op.output_descs)):
            assert [(t.data.dtype.name, t.data.shape) for t in tensors] == [(d.dtype, d.shape) for d in descs]
    conv = next(dump for parts, dump in found.values() if parts.op_type == "Conv3D")
    assert conv.outputs[0].data.dtype == np.float16 and conv.outputs[0].data.shape[-1] == 16
    # Padding channels of the block are zero, the three true ones are not
    assert not conv.outputs[0].data[..., 3:].any() and conv.outputs[0].data[..., :3].any()


def test_blocked_storage_has_16_channels_innermost():
    from vxm_convert.sim.acl.dumps.dump_files import _blocked

    plain = np.random.RandomState(1).rand(2, 3, 4, 5, 18)
    stored = _blocked(plain)
    assert stored.shape == (2, 3, 2, 4, 5, 16)
    for channel in range(18):
        np.testing.assert_array_equal(stored[:, :, channel // 16, :, :, channel % 16], plain[..., channel])
    assert not stored[:, :, 1, :, :, 2:].any()


def test_the_dumped_output_is_the_models_output(sim, tmp_path, monkeypatch, compiled):
    _, program, arrays = compiled
    (expected,) = program.run(arrays)
    values = {f"{name}:{i}": array for name, i, array in program.run_with_dumps(arrays, [f"{program.ops[-1].name}:0"])}
    np.testing.assert_array_equal(values[f"{program.ops[-1].name}:0"].reshape(expected.shape), expected)


def test_inner_values_agree_with_the_operators_they_feed(compiled):
    """LeakyRelu applied to the dumped convolution is the dumped LeakyRelu, on the fp16 grid."""
    _, program, arrays = compiled
    relu = next(op for op in program.ops if op.type == "LeakyRelu")
    names = [relu.inputs[0], f"{relu.name}:0"]
    values = {f"{name}:{i}": array for name, i, array in program.run_with_dumps(arrays, names)}
    assert values[names[0]].dtype == np.float16
    conv = values[names[0]].astype(np.float32)
    expected = np.where(conv >= 0, conv, conv * np.float32(np.float16(0.2))).astype(np.float16)
    np.testing.assert_array_equal(values[names[1]], expected)


def test_a_normal_run_builds_nothing_for_dumps(compiled):
    _, program, arrays = compiled
    program.run(arrays)
    assert program._dumping is None


def test_only_models_loaded_between_set_and_finalize_are_dumped(sim, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    path, program, arrays = compiled
    folder, config = tmp_path / "dumps", tmp_path / "dump.json"
    folder.mkdir()
    config.write_text(
        json.dumps({"dump": {"dump_path": str(folder), "dump_list": [{"model_name": "model", "layer": ["y"]}]}})
    )
    acl = sim.start()
    execute(acl, path, arrays, program)
    assert acl.mdl.set_dump(str(config)) == 100000
    assert acl.mdl.finalize_dump() == 100000
    assert [acl.mdl.init_dump(), acl.mdl.init_dump(), acl.mdl.set_dump(str(config))] == [0, 100000, 0]
    chosen = execute(acl, path, arrays, program)
    spans = on_device(acl, *[a.nbytes for a in arrays]), on_device(acl, 4 * program.outputs[0].shape[1] ** 3 * 3)
    assert acl.mdl.finalize_dump() == 0
    execute(acl, path, arrays, program)
    assert acl.mdl.execute(chosen, *[dataset(acl, group) for group in spans]) == 0
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert files and {p.parent.parent.name for p in files} == {str(chosen)}
    # dump_mode is output where nothing is said, and the layer filter leaves one operator
    assert len(files) == 1
    ((parts, dump),) = dumps_in(folder).values()
    assert parts.op_type == "LeakyRelu" and not dump.inputs and len(dump.outputs) == 1


@pytest.mark.parametrize(
    "section",
    [
        {"dump_mode": "some"},
        {"dump_op_switch": "yes"},
        {"dump_list": {}},
        {"dump_list": [3]},
        {"dump_list": [{"model_name": 3}]},
        {"dump_list": [{"layer": "conv"}]},
        {"dump_path": ""},
        {"dump_path": 3},
    ],
)
def test_illegal_dump_sections(sim, tmp_path, section):
    config = tmp_path / "acl.json"
    config.write_text(json.dumps({"dump": {"dump_path": str(tmp_path), **section}}))
    assert sim.acl.init(str(config)) == 100000
    assert "dump" in sim.acl.get_recent_err_msg()
    assert not initialised()


def initialised():
    from vxm_convert.sim.acl.base.state import SIM

    return SIM.initialised
