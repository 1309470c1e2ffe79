# SPDX-License-Identifier: Apache-2.0
"""The `.om` container: what is written can be read, and every rule of the format has a file that breaks it."""
from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.vxm_convert.graphs import PbBuilder, compile_pb, up_conv_graph
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats import fractal, om


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
    wide = struct.pack("<II", len(table), 0) + b"".join(struct.pack("<IIQQ", kind, 0, offset, size) for kind, offset, size in table)
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
    return data[:offset] + struct.pack(fmt, value) + data[offset + struct.calcsize(fmt):]


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
    for copy in _mutations(data, 10000, 0):
        if copy != data:
            with pytest.raises(FormatError):
                om.parse_om(copy)


def test_damage_behind_a_fitting_checksum_never_escapes_the_error_tree(om_path):
    """A forger can fit the checksum: then the file still reads, or it is a FormatError; nothing else."""
    refused = 0
    for copy in _mutations(om_path.read_bytes(), 1000, 1, reach=6000):
        try:
            om.parse_om(_resealed(copy) if len(copy) >= 256 else copy)
        except FormatError:
            refused += 1
    assert refused > 300


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
