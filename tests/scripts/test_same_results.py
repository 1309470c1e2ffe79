# SPDX-License-Identifier: Apache-2.0
"""Trees of results: a planted difference of each kind is found, what may differ is not; the inputs repeat."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Callable, Dict, List

import numpy as np
import onnx
import pytest
from PIL import Image

from scripts.results_inputs import write_bids, write_mixed, write_raw
from scripts.results_tree import PARTS, commands
from scripts.same_results import main

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")

_VOXELS = bytes(range(200)) * 20


def _gzip(data: bytes, mtime: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=mtime) as file:
        file.write(data)
    return packed.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def _png(value: int, level: int) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(np.full((30, 40), value, np.uint8)).save(packed, "PNG", compress_level=level)
    return packed.getvalue()


def _onnx(number: int, kind: str = "Relu") -> bytes:
    """A model with two nodes, the first of which tf2onnx would have added and numbered."""
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], [f"Transpose__{number}:0"], f"Transpose__{number}"),
        onnx.helper.make_node(kind, [f"Transpose__{number}:0"], ["y"], "last"),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2]) for name in "xy"]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", ends[:1], ends[1:])).SerializeToString()


def _tree(root: Path, stamp: int) -> Path:
    """A part `demo` whose times, places and packing come from `stamp`, and whose results do not."""
    places = {"TREE": str(root), "DATA": None, "CODE": f"/code/{stamp}", "PYTHON": f"/python/{stamp}"}
    volume, row = _gzip(_VOXELS, stamp), {"subject": "a", "dice_after": 0.75, "total_seconds": stamp}
    files: Dict[str, bytes] = {
        "a/moved.nii.gz": volume,
        "a/moved.nii.gz.json": json.dumps({"sha256": hashlib.sha256(volume).hexdigest(), "unit": "mm"}).encode(),
        "a/log.txt": b"%d" % stamp,
        "scan.npz": _npz(vol=np.arange(60), seg=np.arange(5)),
        "picture.png": _png(9, 1 + stamp % 9),
        "metrics.tsv": f"subject\tdice_after\ttotal_seconds\na\t0.75\t{stamp}\n".encode(),
        "metrics.jsonl": json.dumps({"loss": 0.5, "seconds": stamp}).encode(),
        "run.json": json.dumps(
            {"started": stamp, "inputs": {f"{root}/a": 1}, "command": [f"/python/{stamp}", "-m", "x", "--limit", "2"]}
        ).encode(),
        "junit.xml": f'<testcase name="dice" time="0.{stamp}" />'.encode(),
        ".om_runner/a.json": json.dumps({"row": row, "sha256": f"{stamp:064x}"}).encode(),
        "contract.json": json.dumps({"schema": 1, "tools": {"numpy": stamp}}).encode(),
        "vxm.om": _VOXELS,
        "vxm.onnx": _onnx(stamp),
        "index.html": b"<p>%d" % stamp,
    }
    events = f"tensorboard/events.out.tfevents.{stamp}.machine{stamp}"
    files[events] = b"%d" % stamp
    sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in ("run.json", events)]
    files["SHA256SUMS"] = "\n".join([*sums, f"# {stamp}", ""]).encode()
    for name, data in files.items():
        path = root / "demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made = {"places": places, "runs": [{"name": "demo", "exit": 0, "seconds": stamp}]}
    (root / "demo" / "made.json").write_text(json.dumps(made), encoding="utf-8")
    return root


@pytest.fixture
def trees(tmp_path: Path) -> List[Path]:
    return [_tree(tmp_path / "old code", 3), _tree(tmp_path / "new", 41)]


def _change(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(part: Path) -> None:
        data = (part / name).read_bytes()
        assert old in data
        (part / name).write_bytes(data.replace(old, new))

    return change


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda part: (part / name).write_bytes(data) and None


def test_times_places_and_packing_do_not_count(trees: List[Path], capsys: pytest.CaptureFixture) -> None:
    assert main([str(tree) for tree in trees]) == 0
    said = capsys.readouterr().out
    assert "0 differ" in said and "*.html" in said


PLANTED = {
    "a/moved.nii.gz": (
        _write("a/moved.nii.gz", _gzip(_VOXELS[:-1] + b"!", 0)),
        "1 of 4000 bytes differ, the first at 3999",
    ),
    "a/moved.nii.gz.json": (_change("a/moved.nii.gz.json", b'"mm"', b'"m"'), "unit: mm -> m"),
    "scan.npz": (_write("scan.npz", _npz(vol=np.arange(60), seg=np.arange(1, 6))), "seg.npy"),
    "picture.png": (_write("picture.png", _png(10, 1)), "bytes differ"),
    "metrics.tsv": (_change("metrics.tsv", b"0.75", b"0.76"), "[1][1]: 0.75 -> 0.76"),
    "metrics.jsonl": (_change("metrics.jsonl", b"0.5", b"0.6"), "[0].loss: 0.5 -> 0.6"),
    "run.json": (_change("run.json", b'"2"', b'"3"'), "command[1]: 2 -> 3"),
    "junit.xml": (_change("junit.xml", b"dice", b"epe"), 'name="epe"'),
    ".om_runner/a.json": (_change(".om_runner/a.json", b"0.75", b"0.7"), "row.dice_after: 0.75 -> 0.7"),
    "contract.json": (_change("contract.json", b'"schema": 1', b'"schema": 2'), "schema: 1 -> 2"),
    "vxm.om": (_write("vxm.om", _VOXELS + b"!"), "4000 -> 4001 bytes"),
    "vxm.onnx": (_write("vxm.onnx", _onnx(41, "Tanh")), "bytes"),
    "made.json": (_change("made.json", b'"exit": 0', b'"exit": 3'), "demo: demo: 0 -> 3"),
    "new.tsv": (_write("new.tsv", b"subject\n"), "only in AFTER"),
    "scan.npz damaged": (_write("scan.npz", b"PK no archive"), "cannot be read"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_difference_is_found(name: str, trees: List[Path], capsys: pytest.CaptureFixture) -> None:
    plant, expected = PLANTED[name]
    plant(trees[1] / "demo")
    assert main([str(tree) for tree in trees]) == 1
    said = capsys.readouterr().out
    assert expected in said
    assert ("exit codes" if name == "made.json" else f"demo/{name.split()[0]}") in said


def test_missing_file_is_a_difference(trees: List[Path], capsys: pytest.CaptureFixture) -> None:
    (trees[1] / "demo" / "metrics.tsv").unlink()
    assert main([str(tree) for tree in trees]) == 1
    assert "only in BEFORE" in capsys.readouterr().out


def test_new_file_does_not_rename_the_hash_of_an_equal_one(trees: List[Path], capsys: pytest.CaptureFixture) -> None:
    part = trees[1] / "demo"
    (part / "a" / "a copy.nii.gz").write_bytes((part / "a" / "moved.nii.gz").read_bytes())
    assert main([str(tree) for tree in trees]) == 1
    assert "1 differ" in capsys.readouterr().out


def test_part_that_is_not_complete_is_refused(trees: List[Path], capsys: pytest.CaptureFixture) -> None:
    (trees[1] / "demo" / "made.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main([str(tree) for tree in trees])
    assert ended.value.code == 2
    assert "not complete" in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS)
def test_every_command_is_filled_in(part: str) -> None:
    found = commands(part, Path("/the tree"), Path("/data"))
    assert found
    for words in found.values():
        assert words[0] in ("scripts.demo", "vxm_convert", "train", "export", "om_runner")
        assert not [word for word in words if "{" in word or "(none)" in word]
        assert any(word.startswith("/the tree/") for word in words)


def test_inputs_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    scans = tmp_path / "cohort" / "scans"
    scans.mkdir(parents=True)
    head = {
        "vol": np.arange(480, dtype=np.uint16).reshape(6, 8, 10).astype(np.uint8),
        "seg": np.ones((6, 8, 10), np.int16),
    }
    for path in (scans.parent / "atlas.npz", *(scans / f"sub-{number:02d}.npz" for number in (1, 2, 3))):
        np.savez(str(path), **head)
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_mixed(scans.parent, folder / "mixed", folder / "atlas")
        write_bids(scans.parent, folder / "bids")
        write_raw(scans.parent, folder / "raw")
        written.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert len(written[0]) > 25
    assert written[0] == written[1]
