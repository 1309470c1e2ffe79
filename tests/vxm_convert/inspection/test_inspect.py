# SPDX-License-Identifier: Apache-2.0
"""``inspect`` on every kind of file, good and broken, and the checkpoint index read without TensorFlow."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

from tests.support.fuzz import outcomes
from tests.support.graphs import compile_pb, up_conv_graph
from tests.support.tf_index import ENTRIES, entry, index_bytes
from vxm_convert.__main__ import main
from vxm_convert.artifacts.files import sha256_of, write_json, write_sidecar
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.formats.tf_checkpoint import MAGIC, _crc32c, read_index
from vxm_convert.inspection.inspect import describe_file, inspect_file

SIMULATOR = {"kind": "simulator", "version": "sim-9", "simulated": True}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return up_conv_graph(np.random.RandomState(0)).save(tmp_path / "frozen.pb")


def shown(path: Path, *options: str) -> str:
    return "\n".join(describe_file(path, "--ops" in options))


def test_a_frozen_graph(graph: Path) -> None:
    text = shown(graph)
    assert "frozen TensorFlow graph" in text and f"size      {graph.stat().st_size} bytes" in text
    assert "input     x float32 [1, 4, 4, 4, 8]" in text and "output    y" in text
    assert "Conv3D 1" in text and "Const 6 (float32 2, int32 4)" in text
    assert "kernel" not in text
    assert "kernel                                   float32                3x3x3x10x5" in shown(graph, "--ops")


def test_an_offline_model_says_that_it_is_simulated(graph: Path, tmp_path: Path) -> None:
    om = tmp_path / "vxm.om"
    model = compile_pb(graph, om, [("y", 0)])
    write_sidecar(graph, {}, {"kind": "none"})
    write_sidecar(om, {"frozen_pb": sha256_of(graph)}, SIMULATOR)
    text = shown(om)
    assert (
        "SIMULATED offline model" in text
        and "device    Ascend910A" in text
        and "toolchain simulator sim-9, SIMULATED" in text
    )
    assert "input     x float32 [1, 4, 4, 4, 8]" in text and "output    y:0 float32 [1, 8, 8, 8, 5]" in text
    assert f"weights {len(model.weights)}, work {model.attrs['memory_size']} bytes" in text and "MODEL_DEF" in text
    assert f"made from frozen_pb {sha256_of(graph)[:12]} (frozen.pb)" in text
    assert "command   atc (test)" in text and "Conv3D 1 (float16)" in text
    assert "conv" in shown(om, "--ops").split("operators")[1]


def test_json_is_for_programs(graph: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(graph), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "frozen TensorFlow graph" and data["counts"]["Conv3D"] == 1 and data["file"] == str(graph)
    assert ["output", "y"] in data["facts"] and data["ops"][0] == {
        "name": "x",
        "type": "Placeholder",
        "inputs": [],
        "outputs": ["float32"],
        "shapes": [[1, 4, 4, 4, 8]],
    }


def test_ops_lists_one_line_each(graph: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(graph), "--ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = len(inspect_file(graph).ops)
    assert len([line for line in lines if line.startswith("  ")]) == total == 18


def test_a_sidecar_and_other_json(graph: Path, tmp_path: Path) -> None:
    write_sidecar(graph, {"checkpoint": "a" * 64}, SIMULATOR)
    text = shown(tmp_path / "frozen.pb.json")
    assert text.startswith(f"{tmp_path / 'frozen.pb.json'}: side-car") and "made from checkpoint aaaaaaaaaaaa" in text
    write_json(tmp_path / "other.json", {"a": 1})
    assert ": JSON\n" in shown(tmp_path / "other.json") and '"a": 1' in shown(tmp_path / "other.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"made_from": 1, "toolchain": 2}'])
def test_a_damaged_sidecar_does_not_hide_the_file(graph: Path, text: str) -> None:
    Path(str(graph) + ".json").write_text(text)
    assert "Conv3D 1" in shown(graph)


def test_a_dump_of_an_operator(tmp_path: Path) -> None:
    from vxm_convert.formats.dump import Dump, DumpTensor, dump_name, write_dump

    path = tmp_path / str(dump_name("Relu", "net/relu", 1, 2, 1_600_000_000_000_000))
    write_dump(path, Dump("net/relu", 1_600_000_000_000_000, [], [DumpTensor(np.zeros((2, 3), np.float16), 2, (2, 3))]))
    text = shown(path)
    assert (
        "dump of an operator" in text
        and "net/relu (Relu)" in text
        and "output    float16 [2, 3], originally [2, 3]" in text
    )
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(FormatError):
        describe_file(path)


def test_keras_weights(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(str(tmp_path / "w.h5"), "w") as handle:
        handle.attrs["keras_version"] = b"2.2.4"
        handle.create_dataset("conv/conv/kernel:0", data=np.zeros((3, 3, 3, 2, 16), np.float32))
    text = shown(tmp_path / "w.h5", "--ops")
    assert "keras     2.2.4" in text and "tensors   1: kernel 1 (float32)" in text and "3x3x3x2x16" in text
    (tmp_path / "w.h5").write_bytes(b"\x89HDF nothing")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        describe_file(tmp_path / "w.h5")


# --- checkpoints, with an index written here byte by byte ------------------------------------------------------------


def test_the_index_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.index").write_bytes(index_bytes(ENTRIES))
    index = read_index(tmp_path / "model.index")
    assert [(e.name, e.dtype, e.shape, e.offset, e.nbytes) for e in index.entries] == [
        ("conv3d/bias", "float32", (16,), 0, 64),
        ("conv3d/kernel", "float32", (3, 3, 3, 2, 16), 64, 3456),
        ("step", "int64", (), 3520, 8),
    ]
    assert "MISSING" in shown(tmp_path / "model")
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(bytes(3527))
    assert "CUT OFF, 3528 expected" in shown(tmp_path / "model")
    data.write_bytes(bytes(3528))
    text = shown(tmp_path / "model", "--ops")
    assert (
        "3528 bytes\n" in text
        and "tensors   3: bias 1 (float32), kernel 1 (float32), step 1 (int64)" in text
        and "3x3x3x2x16" in text
    )


def test_crc32c_of_the_standard() -> None:
    assert _crc32c(b"123456789") == 0xE3069283


DAMAGED = {
    "empty": (b"", "without the footer"),
    "noise": (b"x" * 100, "without the footer"),
    "cut off": (index_bytes(ENTRIES)[:-1], "without the footer"),
    "changed block": (b"\0" * 8 + index_bytes(ENTRIES)[8:], "check sum"),
    "compressed": (index_bytes(ENTRIES, kind=1), "compressed"),
    "without header": (index_bytes(ENTRIES[1:]), "no header"),
    "without entries": (index_bytes([]), "no header"),
    "handles of zero": (b"\0" * 40 + struct.pack("<Q", MAGIC), "ends after the end of the file"),
    "endless number": (b"\xff" * 40 + struct.pack("<Q", MAGIC), "more than 64 bits"),
    "big-endian": (index_bytes([(b"", b"\x08\x01\x10\x01")]), "big-endian"),
    "no message": (index_bytes([(b"", b"\x08\x01"), (b"a", b"\xff")]), "BundleEntryProto"),
    "absurd rank": (index_bytes([(b"", b"\x08\x01"), (b"a", entry(1, (1,) * 40, 0, 4))]), "damaged"),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    data, said = DAMAGED[name]
    (tmp_path / "model.index").write_bytes(data)
    with pytest.raises(FormatError, match=said):
        read_index(tmp_path / "model.index")


def test_mutated_indices_never_do_worse_than_an_error(tmp_path: Path) -> None:
    good, rng = index_bytes(ENTRIES), np.random.RandomState(0)

    def read(data: bytes) -> None:
        (tmp_path / "model.index").write_bytes(data)
        read_index(tmp_path / "model.index")

    def damaged() -> Iterator[bytes]:
        for _ in range(500):
            data = bytearray(good)
            data[rng.randint(len(data))] = rng.randint(256)
            yield bytes(data[: rng.randint(len(data)) if rng.rand() < 0.2 else None])

    taken, refused = outcomes(read, good, damaged(), FormatError)
    assert taken > 20 and refused > 200, (taken, refused)


@pytest.mark.tf
def test_tensorflow_reads_the_same_variables(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from vxm_convert.network.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        shapes = [(3, 4), (), (2, 1, 5)] * 40
        variables = [tf.Variable(np.ones(shape, np.float32), name=f"conv{n}/kernel") for n, shape in enumerate(shapes)]
        session.run([v.initializer for v in variables])
        tf.train.Saver(variables).save(session, str(tmp_path / "model"), write_meta_graph=False)
    expected = dict(tf.train.list_variables(str(tmp_path / "model")))
    assert {e.name: list(e.shape) for e in read_index(tmp_path / "model.index").entries} == expected


@pytest.mark.real_data
def test_the_checkpoint_of_a_real_910(shared_data: Path) -> None:
    text = shown(shared_data / "weights" / "vm2_mse_ascend910" / "model")
    assert "TensorFlow checkpoint" in text and "kernel 12 (float32)" in text and "CUT OFF" not in text


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ArtifactError, match="got a .txt"):
        inspect_file(tmp_path / "a.txt")
    with pytest.raises(ArtifactError, match="no such file"):
        inspect_file(tmp_path / "gone.om")


PYTORCH = b"PK\x03\x04" + bytes(60)


@pytest.mark.parametrize("name, words", [("model.pt", "a PyTorch file; .*train one with"), ("x.zip", "a zip archive")])
def test_a_file_of_others_is_named_for_what_it_is(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(PYTORCH)
    with pytest.raises(ArtifactError, match=f"{name}: is {words}"):
        inspect_file(path)


def test_a_network_of_tensorflow_2_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "vxm_dense.h5"
    with h5py.File(str(path), "w") as handle:
        handle.attrs["model_config"] = json.dumps({"class_name": "VxmDense"})
        handle.create_dataset("model_weights/vxm_dense/kernel:0", data=np.zeros((1, 1, 1, 1, 1), np.float32))
    facts = dict(inspect_file(path).facts)
    assert "cannot be converted" in facts["network"] and "VxmDense" in facts["network"]


@pytest.mark.parametrize("start, words", [(PYTORCH, "PyTorch"), (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"\x1f\x8b", "gzip")])
def test_weights_in_place_of_an_offline_model_or_a_graph(tmp_path: Path, capsys, start: bytes, words: str) -> None:
    from export.preflight.command import main as preflight
    from vxm_convert.formats.om import read_om

    path = tmp_path / "model.pt"
    path.write_bytes(start + bytes(300))
    with pytest.raises(FormatError, match=f"this is a.* {words}.*, not an offline model"):
        read_om(path)
    assert preflight(["--pb", str(path)], "Ascend910A") == 1
    said = capsys.readouterr().err
    assert f"{path}: is a" in said and "expected a frozen graph" in said and "Error parsing" not in said
