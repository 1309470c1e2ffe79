# SPDX-License-Identifier: Apache-2.0
"""The `.om` container: what is written can be read, and every rule of the format has a file that breaks it."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from tests.support.fuzz import outcomes
from tests.support.graphs import PbBuilder, compile_pb, up_conv_graph
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats import fractal, ge_ir, om, tasks


@pytest.fixture
def om_path(tmp_path):
    path = tmp_path / "m.om"
    compile_pb(up_conv_graph(np.random.RandomState(0)).save(tmp_path / "m.pb"), path, [("y", 0)])
    return path


def _table(data):
    count = struct.unpack_from("<I", data, 256)[0]
    return [struct.unpack_from("<III", data, 260 + 12 * i) for i in range(count)], 260 + 12 * count


def test_header_and_partitions_of_a_written_file(om_path):
    data = om_path.read_bytes()
    header = np.frombuffer(data, om.HEADER, 1)[0]
    assert (data[:4], int(header["headsize"]), hex(int(header["version"]))) == (b"IMOD", 256, "0x20000000")
    assert int(header["length"]) + 256 == len(data) and header["name"] == b"model" and int(header["om_ir_version"]) == 2
    table, end = _table(data)
    assert [kind for kind, _, _ in table] == [om.MODEL_DEF, om.WEIGHTS_DATA, om.TBE_KERNELS, om.TASK_INFO]
    assert table[-1][1] + table[-1][2] + end == len(data)
    assert [table[i][1] + table[i][2] for i in range(3)] == [table[i][1] for i in range(1, 4)]


def test_says_that_it_is_simulated(om_path):
    model = om.read_om(om_path)
    assert model.simulated and model.attrs["atc_version"].startswith("sim-") and model.soc_version == "Ascend910A"
    assert b"simulated kernel" in om_path.read_bytes()


def test_weights_are_half_to_nearest_even_bit_for_bit(tmp_path):
    weights = np.random.RandomState(5).standard_normal((3, 3, 3, 20, 18)).astype(np.float32) * np.float32(1e-4)
    weights.flat[:6] = [1e-7, 6e-8, 2.9e-8, 65519.0, 1e6, -1e6]
    pb = PbBuilder()
    x, w = pb.placeholder("x", (1, 4, 4, 4, 20)), pb.const("w", weights)
    pb.node("Conv3D", "y", x, w, strides=[1] * 5, padding="SAME")
    model = compile_pb(pb.save(tmp_path / "g.pb"), tmp_path / "g.om", [("y", 0)])
    const = next(op for op in model.graph if op.type == "Const")
    assert const.output_descs[0].layout == "FRACTAL_Z_3D" and const.data.shape == (3 * 2 * 9, 2, 16, 16)
    unpacked = fractal.unpack_fractal_z_3d(const.data, const.output_descs[0].origin_shape)
    expected = np.clip(weights, -65504, 65504).astype(np.float16)
    assert np.array_equal(unpacked.view(np.uint16), expected.view(np.uint16))
    assert (np.abs(expected[expected != 0]) < 6.1e-5).any(), "no subnormal in the test"


def test_constants_lie_at_512_byte_boundaries(om_path):
    model = om.read_om(om_path)
    data, weights = om_path.read_bytes(), model.weights
    for op in model.graph:
        if op.data is not None:
            place = weights.find(op.data.tobytes())
            assert place % 512 == 0 and place >= 0
    assert model.attrs["weight_size"] == len(weights) and weights in data


def test_descriptors_agree_along_every_edge(om_path):
    graph = om.read_om(om_path).graph
    produced = {f"{op.name}:{i}": desc for op in graph for i, desc in enumerate(op.output_descs)}
    edges = [(source, desc) for op in graph for source, desc in zip(op.inputs, op.input_descs)]
    assert edges
    for source, desc in edges:
        made = produced[source]
        assert (made.dtype, made.shape, made.layout) == (desc.dtype, desc.shape, desc.layout), source


def test_reads_the_64_bit_table(om_path):
    data = om_path.read_bytes()
    table, end = _table(data)
    wide = struct.pack("<II", len(table), 0) + b"".join(
        struct.pack("<IIQQ", kind, 0, offset, size) for kind, offset, size in table
    )
    header = np.frombuffer(data[:256], om.HEADER, 1).copy()
    header["model_length"] = len(wide) + len(data) - end
    assert om.parse_om(_resealed(header.tobytes() + wide + data[end:])).attrs == om.read_om(om_path).attrs


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere.om"):
        om.read_om(tmp_path / "nowhere.om")


def _resealed(data):
    """With a checksum that fits, so that the rule behind it is reached."""
    return om._sealed(data[:256], data[256:])


def _edit(data, offset, fmt, value):
    return data[:offset] + struct.pack(fmt, value) + data[offset + struct.calcsize(fmt) :]


BROKEN = {
    "empty": lambda d: b"",
    "magic": lambda d: b"XMOD" + d[4:],
    "a pb": lambda d: b"\n\x05" + d,
    "header alone": lambda d: d[:256],
    "truncated": lambda d: d[:-1],
    "checksum flag": lambda d: _edit(d, 81, "<B", 0),
    "absurd checksum flag": lambda d: _edit(d, 81, "<B", 9),
    "trailing bytes": lambda d: d + b"\0",
    "header size": lambda d: _edit(d, 4, "<I", 255),
    "encrypted": lambda d: _edit(d, 80, "<B", 1),
    "length": lambda d: _edit(d, 76, "<I", 17),
    "several models": lambda d: _edit(d, 156, "<I", 2),
    "no partitions": lambda d: _edit(d, 256, "<I", 0),
    "absurd number of partitions": lambda d: _edit(d, 256, "<I", 0xFFFFFFFF),
    "unknown type": lambda d: _edit(d, 260, "<I", 15),
    "repeated type": lambda d: _edit(d, 272, "<I", 0),
    "gap": lambda d: _edit(d, 276, "<I", struct.unpack_from("<I", d, 276)[0] + 1),
    "overlap": lambda d: _edit(d, 276, "<I", struct.unpack_from("<I", d, 276)[0] - 1),
    "absurd size": lambda d: _edit(d, 268, "<I", 0xFFFFFFF0),
    "bytes after the last partition": lambda d: _edit(d + b"x", 76, "<I", len(d) - 255),
    "no model": lambda d: _edit(d, 260, "<I", 8),
    "garbage in the model": lambda d: d[:308] + b"\xff" * 64 + d[372:],
}


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_refuses(how, om_path):
    broken = BROKEN[how](om_path.read_bytes())
    om_path.write_bytes(_resealed(broken) if len(broken) >= 256 else broken)
    with pytest.raises(FormatError) as caught:
        om.read_om(om_path)
    assert str(om_path) in str(caught.value)


def _with_partition(data, kind, change):
    """The file with `change` applied to one partition; table and length are made to fit."""
    table, end = _table(data)
    parts = [(number, data[end + offset : end + offset + size]) for number, offset, size in table]
    parts = [(number, change(part) if number == kind else part) for number, part in parts]
    payload = om._encode_table(parts) + b"".join(part for _, part in parts)
    return _edit(data[:256], 76, "<I", len(payload)) + payload


def _kernels(change):
    return lambda data: _with_partition(data, om.TBE_KERNELS, change)


def _tasks(change):
    return lambda data: _with_partition(data, om.TASK_INFO, change)


def _model(change):
    """An edit of the ModelDef message."""

    def edit(part):
        message = ge_ir.parse_message(part, "test")
        change(message)
        return message.SerializeToString(deterministic=True)

    return lambda data: _with_partition(data, om.MODEL_DEF, edit)


def _op(kind, change):
    """An edit of the first operator of a type."""
    return _model(lambda message: change(next(op for op in message.graph[0].op if op.type == kind)))


def _constant(change):
    """An edit of a constant's value."""
    return _op("Const", lambda op: change(next(entry.value.t for entry in op.attr if entry.key == "value")))


def _set(name, value):
    return lambda message: setattr(message, name, value)


def _stray_task(part):
    return part + tasks._MESSAGES["ModelTaskDef"](stream_num=1, task=[{"id": 99, "stream_id": 7}]).SerializeToString()


#: what is broken → (how, the words of the rule that must refuse it); the checksum fits, so nothing else can
BEHIND_THE_CHECKSUM = {
    "format version": (lambda d: _edit(d, 8, "<I", 0x30000000), "format version 0x30000000"),
    "encrypted": (lambda d: _edit(d, 80, "<B", 1), "is encrypted"),
    "model type": (lambda d: _edit(d, 82, "<B", 6), "model type 6, expected 0 to 5"),
    "no models": (lambda d: _edit(d, 156, "<I", 0), "holds 0 models"),
    "dynamic flag": (lambda d: _edit(d, 193, "<B", 1), "dynamic shapes"),
    "name without end": (lambda d: d[:84] + b"n" * 32 + d[116:], "name is not terminated by a zero byte"),
    "name of no text": (lambda d: d[:84] + b"\xff\xfe\0" + d[87:], "name is not UTF-8"),
    "platform hides who made it": (
        lambda d: _edit(d[:160] + bytes(20) + d[180:], 81, "<B", 0),
        "checksum flag 0 and field disagree",
    ),
    "header size": (lambda d: _edit(d, 4, "<I", 264), "header size 264"),
    "too many partitions": (lambda d: _edit(d, 256, "<I", 33), "announces 33 partitions"),
    "table past the end": (lambda d: _edit(_edit(d[:280], 256, "<I", 32), 76, "<I", 24), "announces 32 partitions"),
    "no model": (lambda d: _edit(d, 260, "<I", 8), "has no MODEL_DEF partition"),
    "bytes after the last partition": (
        lambda d: _edit(d + b"x", 76, "<I", len(d) - 255),
        "1 bytes follow the last partition",
    ),
    "kernel cut inside its head": (_kernels(lambda part: part + b"\0" * 5), "5 bytes after the last kernel"),
    "kernel magic": (_kernels(lambda part: b"\0" + part[1:]), "the kernel at 0 starts with"),
    "kernel past the end": (_kernels(lambda part: _edit(part, 8, "<I", 0xFFFFFFF0)), "a kernel ends at"),
    "kernel name past the end": (_kernels(lambda part: _edit(part, 4, "<I", 0xFFFFFFF0)), "a kernel ends at"),
    "tasks are no message": (_tasks(lambda part: b"\xff" * 16), "not a ModelTaskDef message"),
    "tasks cut": (_tasks(lambda part: part[:-1]), "not a ModelTaskDef message"),
    "task on a stream that is not there": (_tasks(_stray_task), "a task on a stream above 0"),
    "tasks' version is no text": (_tasks(lambda part: part + b"\x0a\x02\xff\xfe"), "ModelTaskDef.version is not UTF-8"),
    "no graph": (_model(lambda m: m.ClearField("graph")), "holds 0 graphs"),
    "two graphs": (_model(lambda m: m.graph.add(name="second")), "holds 2 graphs"),
    "two nodes of one name": (
        _model(lambda m: setattr(m.graph[0].op[1], "name", m.graph[0].op[0].name)),
        "two nodes are named",
    ),
    "input without descriptor": (_op("Conv3D", lambda op: op.input_desc.__delitem__(-1)), "input descriptors"),
    "input from nowhere": (_op("Conv3D", lambda op: op.input.__setitem__(0, "nobody:0")), "input 'nobody:0'"),
    "edge of two dtypes": (_op("Conv3D", lambda op: _set("dtype", 7)(op.input_desc[0])), "does not agree"),
    "unknown dtype": (_op("Conv3D", lambda op: _set("dtype", 99)(op.output_desc[0])), "data type 99"),
    "negative side": (_op("Conv3D", lambda op: op.output_desc[0].shape.dim.append(-4)), "non-negative sides"),
    "too many sides": (_op("Conv3D", lambda op: op.output_desc[0].shape.dim.extend([1] * 9)), "at most 8"),
    "constant of another size": (_constant(lambda t: _set("weight_size", 2)(t.desc)), "2 bytes at"),
    "constant past the weights": (
        _constant(lambda t: _set("data_offset", 1 << 40)(t.desc)),
        f"at {1 << 40} do not hold",
    ),
    "constant before the weights": (_constant(lambda t: _set("data_offset", -2)(t.desc)), "at -2 do not hold"),
    "constant of absurd shape": (_constant(lambda t: t.desc.shape.dim.extend([1 << 62] * 2)), "do not hold"),
    "constant without bytes": (
        _constant(lambda t: (t.desc.shape.dim.__setitem__(0, 0), _set("weight_size", 0)(t.desc))),
        "contains no bytes",
    ),
    "constant unlike its node": (
        _op("Const", lambda op: op.output_desc[0].shape.dim.append(1)),
        "output descriptor disagree",
    ),
    "attribute of no text": (
        _model(lambda m: _set("s", b"\xff\xfe")(m.attr.add(key="note").value)),
        "attribute 'note' is not UTF-8",
    ),
}


@pytest.mark.parametrize("how", sorted(BEHIND_THE_CHECKSUM))
def test_refuses_by_its_own_rule_behind_a_fitting_checksum(how, om_path):
    edit, words = BEHIND_THE_CHECKSUM[how]
    broken = edit(om_path.read_bytes())
    assert broken != om_path.read_bytes()
    om_path.write_bytes(_resealed(broken))
    with pytest.raises(FormatError) as caught:
        om.read_om(om_path)
    assert str(om_path) in str(caught.value) and words in str(caught.value)


def test_a_weight_that_changed_does_not_fit_the_checksum(om_path):
    data = bytearray(om_path.read_bytes())
    data[data.index(om.read_om(om_path).weights)] ^= 1
    with pytest.raises(FormatError, match="checksum differs from the one in its header"):
        om.parse_om(bytes(data))


def test_a_simulated_model_cannot_pass_as_a_real_one_without_checksum(om_path):
    """Real files have no checksum; the model's own attribute says that this one needs it."""
    data = bytearray(om_path.read_bytes())
    data[12:76], data[81], data[160:180] = bytes(64), 0, bytes(20)
    with pytest.raises(FormatError, match="checksum flag 0 and field disagree"):
        om.parse_om(bytes(data))


def test_an_untouched_rebuild_still_reads(om_path):
    """The helper that crafts the broken files adds no defect of its own."""
    data = om_path.read_bytes()
    for kind in (om.MODEL_DEF, om.TBE_KERNELS, om.TASK_INFO):
        assert om.parse_om(_resealed(_with_partition(data, kind, lambda part: part))).attrs == om.read_om(om_path).attrs
    assert om.parse_om(_resealed(_model(lambda message: None)(data))).graph


def test_damaged_text_is_refused_without_a_word_on_stderr(om_path, capfd):
    """protobuf itself writes such fields to stderr or says nothing, by version; here it is the error that says it."""
    data = om_path.read_bytes()
    places = {
        "ModelDef.name": _with_partition(
            data, om.MODEL_DEF, lambda part: part.replace(b"\x0a\x05model", b"\x0a\x05mod\xffl", 1)
        ),
        "OpDef.type": _with_partition(data, om.MODEL_DEF, lambda part: part.replace(b"Conv3D", b"Conv3\xff")),
        "AttrEntry.key": _with_partition(
            data, om.MODEL_DEF, lambda part: part.replace(b"soc_version", b"soc_versio\xff")
        ),
        "TensorDescriptor.layout": _with_partition(
            data, om.MODEL_DEF, lambda part: part.replace(b"FRACTAL_Z_3D", b"FRACTAL_Z_3\xff")
        ),
        "ModelTaskDef.version": _with_partition(data, om.TASK_INFO, lambda part: part + b"\x0a\x02\xff\xfe"),
    }
    for field, broken in places.items():
        with pytest.raises(FormatError, match=f"{field} is not UTF-8"):
            om.parse_om(_resealed(broken))
    assert capfd.readouterr() == ("", "")


def test_a_renamed_pb_is_recognised(tmp_path):
    path = up_conv_graph(np.random.RandomState(0)).save(tmp_path / "renamed.om")
    with pytest.raises(FormatError, match="frozen TensorFlow graph"):
        om.read_om(path)


def _mutations(data, count, seed, reach=None):
    rng = np.random.RandomState(seed)
    for _ in range(count):
        copy = bytearray(data)
        for place in rng.randint(0, min(len(copy), reach or len(copy)), rng.randint(1, 4)):
            copy[place] ^= rng.randint(1, 256)
        kind = rng.randint(4)
        yield bytes(copy) if kind else bytes(copy[: rng.randint(len(copy))])


def test_every_mutation_is_refused(om_path):
    data = om_path.read_bytes()
    copies = [copy for copy in _mutations(data, 10000, 0) if copy != data]
    assert outcomes(om.parse_om, data, copies, FormatError) == (0, len(copies)) and len(copies) > 9900


#: Announced sizes, counts and offsets, each at its place in the container: (offset, struct format)
_NUMBERS = [(4, "<I"), (76, "<I"), (152, "<I"), (156, "<I"), (184, "<Q"), (256, "<I")] + [
    (260 + 4 * n, "<I") for n in range(12)
]
_ABSURD = (0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)


def _kernels_at(data):
    table, end = _table(data)
    return end + next(offset for kind, offset, _ in table if kind == om.TBE_KERNELS)


def _absurd_constant(data, field, value, sides):
    return _constant(lambda t: (t.desc.shape.dim.extend(sides), _set(field, value)(t.desc)))(data)


def _forgeries(data, count):
    """Random damage, absurd numbers in the container, absurd numbers in the model; all with a checksum that fits."""
    rng = np.random.RandomState(3)
    kernels = _kernels_at(data)
    for number, copy in enumerate(_mutations(data, count, 2, reach=6000)):
        value = int(_ABSURD[rng.randint(len(_ABSURD))])
        if number % 3 == 1:
            places = _NUMBERS + [(kernels + 4, "<I"), (kernels + 8, "<I")]
            place, fmt = places[rng.randint(len(places))]
            copy = _edit(data, place, fmt, value << 31 if fmt == "<Q" else value)
        elif number % 3 == 2:
            copy = _absurd_constant(
                data, ("weight_size", "data_offset")[number % 2], value << 20, [value] * (number % 4)
            )
        yield _resealed(copy) if len(copy) >= 256 else copy


def test_damage_never_makes_the_reader_allocate_what_the_file_announces(om_path):
    """Reading costs the partitions once more and objects per node: 50 kB for this file of 24 kB; announced sizes add
    nothing.

    64 KiB are for what does not grow with the file (objects of these nodes, errors), about twice what was measured.
    What protobuf's C code allocates is not seen here; it is given slices of the file.
    """
    data = om_path.read_bytes()
    limit = 2 * len(data) + (64 << 10)
    refused = 0
    om.parse_om(data)
    tracemalloc.start()
    try:
        for copy in _forgeries(data, 300):
            tracemalloc.clear_traces()
            try:
                om.parse_om(copy)
            except FormatError:
                refused += 1
            assert tracemalloc.get_traced_memory()[1] <= limit
    finally:
        tracemalloc.stop()
    assert refused > 150


def test_damage_behind_a_fitting_checksum_never_escapes_the_error_tree(om_path):
    """A forger can fit the checksum: then the file still reads, or it is a FormatError; nothing else."""
    data = om_path.read_bytes()
    copies = (_resealed(copy) if len(copy) >= 256 else copy for copy in _mutations(data, 1000, 1, reach=6000))
    taken, refused = outcomes(om.parse_om, _resealed(data), copies, FormatError)
    assert taken > 100 and refused > 300, (taken, refused)


@pytest.mark.parametrize("shape", [(3, 3, 3, 2, 16), (1, 2, 3, 17, 33), (3, 3, 3, 16, 3)])
def test_fractal_z_3d_round_trip(shape):
    weights = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    packed = fractal.pack_fractal_z_3d(weights)
    assert packed.shape == fractal.fractal_z_3d_shape(shape)
    assert np.array_equal(fractal.unpack_fractal_z_3d(packed, shape), weights)
    d, h, w, c, n = (side - 1 for side in shape)
    c1 = -(-shape[3] // 16)
    row = ((d * c1 + c // 16) * shape[1] + h) * shape[2] + w
    assert packed[row, n // 16, n % 16, c % 16] == weights[d, h, w, c, n]
