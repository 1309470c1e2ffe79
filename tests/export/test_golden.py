# SPDX-License-Identifier: Apache-2.0
"""Golden files: written with TensorFlow, named as the tools want them, judged after a round through other tools' names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from export.__main__ import main
from om_runner.__main__ import main as runner
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.golden import GoldenIndex
from vxm_convert.formats.tf_graph import placeholders, read_graph

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def exported_tiny(contract: Any, weights: Any, tmp_path_factory: Any) -> Path:
    """What an export leaves, without offline model: the graph and its contract."""
    from export.freeze import freeze, write_pb

    folder = tmp_path_factory.mktemp("exported")
    write_pb(freeze(contract, weights), folder / "frozen.pb")
    hashes = {"frozen_pb": sha256_of(folder / "frozen.pb")}
    replace(contract, hashes=hashes).save(folder / "contract.json")
    return Path(folder)


@pytest.fixture(scope="module")
def golden(exported_tiny: Path, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("golden")
    assert main(["golden", "--exported", str(exported_tiny), "--out", str(out), "-q"]) == 0
    return out


def as_ais_bench(golden: Path, out: Path) -> Path:
    (out / "2026_11_29-10_00_00").mkdir(parents=True)
    for path in (golden / "golden" / "npy").iterdir():
        shutil.copyfile(str(path), str(out / "2026_11_29-10_00_00" / path.name))
    return out


def judged(golden: Path, results: Path, out: Path, *more: str) -> int:
    argv = ["compare-files", "--golden", str(golden), "--results", str(results), "--out", str(out), "-q", *more]
    return int(runner(argv))


def test_inputs_are_in_the_order_of_the_model(golden: Path, exported_tiny: Path) -> None:
    index = GoldenIndex.load(golden)
    assert [end.node for end in index.inputs] == list(placeholders(read_graph(exported_tiny / "frozen.pb")))
    folders = sorted(path.name for path in (golden / "inputs" / "bin").iterdir())
    assert folders == [f"{end.index}_{end.meaning}" for end in index.inputs]
    for end in index.inputs:
        raw = (golden / "inputs" / "bin" / f"{end.index}_{end.meaning}" / "pair0000.bin").read_bytes()
        array = np.load(str(golden / "inputs" / "npy" / f"{end.index}_{end.meaning}" / "pair0000.npy"))
        assert array.shape == end.shape and array.tobytes() == raw and array.max() <= 1.0


def test_names_are_those_of_the_tools(golden: Path) -> None:
    index = GoldenIndex.load(golden)
    assert sorted(path.name for path in (golden / "golden" / "bin").iterdir()) == [
        f"pair000{number}_{end.index}.bin" for number in (0, 1) for end in index.outputs
    ]
    names = sorted(path.name for path in (golden / "golden_dumps" / "pair0000").iterdir())
    assert names == sorted(f"{end.node.replace('/', '_')}.0.{'0' * 16}.npy" for end in index.outputs)
    text = (golden / "commands.txt").read_text(encoding="utf-8")
    order = ",".join(f"inputs/npy/{end.index}_{end.meaning}" for end in index.inputs)
    assert f"--input {order} " in text and "msame --model" in text and "compare-files" in text


def test_the_same_seed_gives_the_same_files(golden: Path, exported_tiny: Path, tmp_path: Path) -> None:
    assert main(["golden", "--exported", str(exported_tiny), "--out", str(tmp_path), "--executions", "1", "-q"]) == 0
    name = "golden/npy/pair0000_0.npy"
    assert json.loads((tmp_path / "golden.json").read_text())["stems"] == ["pair0000"]
    assert np.load(str(tmp_path / name)).shape == np.load(str(golden / name)).shape


def test_results_of_ais_bench_are_judged(golden: Path, tmp_path: Path, capsys: Any) -> None:
    results = as_ais_bench(golden, tmp_path / "results")
    assert judged(golden, results, tmp_path / "out", "--profile", "clinical-strict") == 0
    assert capsys.readouterr().out.count("against TensorFlow ok") == 2
    report = json.loads((tmp_path / "out" / "compared_files.json").read_text(encoding="utf-8"))
    assert report["n_samples"] == 2 and report["summary"]["epe_voxel_max"] == 0.0
    assert report["simulated"] is True and report["toolchain"]["kind"] == "unknown"


def test_results_of_msame_in_half_precision(golden: Path, tmp_path: Path, capsys: Any) -> None:
    index = GoldenIndex.load(golden)
    for stem, stamp in zip(index.stems, ("2026_11_29_9_5_1_100", "2026_11_29_10_5_1_100")):
        (tmp_path / "results" / stamp).mkdir(parents=True)
        for end in index.outputs:
            array = np.load(str(golden / "golden" / "npy" / f"{stem}_{end.index}.npy"))
            array.astype(np.float16).tofile(str(tmp_path / "results" / stamp / f"vxm_output_{end.index}.bin"))
    assert judged(golden, tmp_path / "results", tmp_path / "out", "--device-was", "real") == 0
    report = json.loads((tmp_path / "out" / "compared_files.json").read_text(encoding="utf-8"))
    assert report["simulated"] is False and 0 < report["summary"]["moved_max_abs"] < 1e-3


def test_wrong_results_fail_the_profile(golden: Path, tmp_path: Path, capsys: Any) -> None:
    results = as_ais_bench(golden, tmp_path / "results")
    index = GoldenIndex.load(golden)
    flow = next(end for end in index.outputs if end.meaning == "flow")
    path = next(results.iterdir()) / f"pair0001_{flow.index}.npy"
    np.save(str(path), np.load(str(path)) + np.float32(0.5))
    assert judged(golden, results, tmp_path / "out") == 3
    assert "1 of 2 results are outside profile research" in capsys.readouterr().err


def spoiled(name: str) -> Any:
    def spoil(folder: Path) -> None:
        path = folder / "pair0001_0.npy"
        if name == "missing":
            path.unlink()
        elif name == "text":
            path.rename(path.with_suffix(".txt"))
        elif name == "another model":
            np.save(str(path), np.zeros((1, 3, 3, 3, 1), np.float32))
        elif name == "objects":
            np.save(str(path), np.array([{}], dtype=object))
        elif name == "integers":
            np.save(str(path), np.load(str(path)).astype(np.int32))
        elif name == "cut bin":
            path.unlink()
            path.with_suffix(".bin").write_bytes(b"1234567")
        elif name == "two runs":
            shutil.copytree(str(folder), str(folder.parent / "again"))

    return spoil


@pytest.mark.parametrize(
    "name, words",
    [
        ("missing", "the first missing one is output 0 of pair0001"),
        ("text", "let the tool write --outfmt BIN or NPY"),
        ("another model", "holds (1, 3, 3, 3, 1), output 0"),
        ("objects", "is no .npy file of numbers"),
        ("integers", "of floats"),
        ("cut bin", "has 7 bytes, output 0"),
        ("two runs", "is a second result for output 0 of pair0000"),
    ],
)
def test_unusable_results(golden: Path, tmp_path: Path, capsys: Any, name: str, words: str) -> None:
    results = as_ais_bench(golden, tmp_path / "results")
    spoiled(name)(next(results.iterdir()))
    assert judged(golden, results, tmp_path / "out") == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"stems": ["../../etc"]},
        {"stems": [".hidden"]},
        {"subjects": 0},
        {"spacing_mm": [1, 1]},
        {"outputs": [{"index": 0, "meaning": "moved", "node": "x", "shape": [1, -4], "dtype": "float32"}]},
        {"outputs": [{"index": 0, "meaning": "a/b", "node": "x", "shape": [1], "dtype": "float32"}]},
        {"golden_schema": 2},
    ],
)
def test_a_hostile_index_is_refused(golden: Path, tmp_path: Path, capsys: Any, change: Dict[str, Any]) -> None:
    data = {**json.loads((golden / "golden.json").read_text(encoding="utf-8")), **change}
    (tmp_path / "golden.json").write_text(json.dumps(data), encoding="utf-8")
    assert judged(tmp_path, golden, tmp_path / "out") == 1
    assert "python -m export golden" in capsys.readouterr().err


def test_a_graph_of_another_contract_is_refused(exported_tiny: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("frozen.pb", "contract.json"):
        shutil.copyfile(str(exported_tiny / name), str(tmp_path / name))
    with open(str(tmp_path / "frozen.pb"), "ab") as handle:
        handle.write(b"\x0a\x00")
    assert main(["golden", "--exported", str(tmp_path), "--out", str(tmp_path / "out"), "-q"]) == 1
    assert "export the model again" in capsys.readouterr().err
