# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of every kind of file that a reader of this project opens, and of every file of an output folder: a
reader takes a copy or refuses it with one of our errors; any other exception is a traceback for a user.

The short run takes a copy of each mutation's seeds; the long one (``-m slow``) takes 20,000. A failure names kind and seed.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import nibabel as nib
import numpy as np
import pytest

from om_runner.bids.dataset import read_object
from om_runner.bids.participants import read_participants
from om_runner.qc.from_files import case_of, open_fixed, open_results
from om_runner.qc.record import read_record
from om_runner.results.layout import Layout
from om_runner.results.previous_run import read_failures
from om_runner.results.resume import Records
from tests.support import fakes
from tests.support.graphs import PbBuilder, compile_pb
from tests.support.mutations import mutated
from tests.support.registration_bench import Bench
from train.data.scan_list import read_manifest as read_scan_list
from vxm_convert.__main__ import main as vxm_main
from vxm_convert.artifacts.sha256sums import begin_manifest, read_manifest
from vxm_convert.errors import VxmError
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_graph import read_graph
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.inspection.inspect import describe_file, inspect_file
from vxm_convert.inspection.verify import verify_folders
from vxm_convert.model.contract import GraphContract
from vxm_convert.profiles.profile import load_profile, shipped_profiles
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.transforms.affines import read_affine
from vxm_convert.transforms.points import read_points
from vxm_convert.transforms.warps import read_warp, write_warp

LONG = 20000
SHORT_PER_KIND = 12
#: added to every seed: change it to look elsewhere
FIRST_SEED = 20261129
GRID = Grid(fakes.SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))


class Kind(NamedTuple):
    """A good file, its name, and all that reads such a file."""

    name: str
    data: bytes
    readers: Tuple[Callable[[Path], Any], ...]


def scan(path: Path) -> None:
    file = ScanFile(path)
    file.image()
    file.labels()


def described(path: Path) -> None:
    "\n".join(describe_file(path, True)).encode("utf-8", "backslashreplace")
    json.dumps(inspect_file(path).to_dict(), sort_keys=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a registered scan, a failed one and pictures."""
    home = tmp_path_factory.mktemp("registered")
    patch = pytest.MonkeyPatch()
    bench = Bench(home, patch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    (bench.inputs / "broken.nii").write_bytes(b"")
    assert bench.run("--outputs", "moved,warp,seg,inverse,jacobian,qc") == 1
    patch.undo()
    return bench.out


def kinds(folder: Path, tmp: Path) -> List[Kind]:
    made = tmp / "good"
    made.mkdir()
    image, _ = fakes.brain(1)
    for name, kind in (("a.nii", nib.Nifti1Image), ("b.nii", nib.Nifti2Image), ("a.mgh", nib.MGHImage)):
        nib.save(kind(image, GRID.affine), str(made / name))
    shutil.copyfile(str(made / "a.nii"), str(made / "plain.nii"))
    nib.save(nib.Nifti1Image(image, GRID.affine), str(made / "a.nii.gz"))
    fakes.write_scan(made / "a.npz", 1)
    fakes.contract(1).save(made / "contract.json")
    flow = np.random.RandomState(0).uniform(-1, 1, fakes.SHAPE + (3,)).astype(np.float32)
    write_warp(made / "warp.nii.gz", Warp(flow, GRID, GRID), "itk", {}, {"kind": "none"})
    made_texts = {
        "points.csv": b"label,x,y,z\na,1,2,3\nb,4,5,6\n",
        "points.fcsv": b"# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        b"# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n1,1,2,3,0,0,0,1,1,1,0,F-1,,\n",
        "points.mrk.json": json.dumps(
            {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [{"position": [1, 2, 3]}]}]}
        ).encode(),
        "affine.txt": b"1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n",
        "scans.csv": b"moving,fixed,seg\na.nii,b.nii,\n",
        "participants.tsv": b"participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\n",
        "dataset_description.json": b'{"Name": "x", "BIDSVersion": "1.8.0"}',
    }
    for name, data in made_texts.items():
        (made / name).write_bytes(data)

    def of(name: str, *readers: Callable[[Path], Any]) -> Kind:
        return Kind(name, (made / name).read_bytes(), readers)

    found = [of(name, scan) for name in ("a.nii", "b.nii", "a.mgh", "a.nii.gz", "a.npz")]
    found += [
        of("contract.json", GraphContract.load, described),
        of("warp.nii.gz", read_warp),
        of("affine.txt", lambda path: read_affine(path, GRID, GRID)),
        of("scans.csv", read_scan_list),
        of("participants.tsv", lambda path: read_participants(path.parent)),
        of("dataset_description.json", read_object, described),
        *[of(name, read_points) for name in ("points.csv", "points.fcsv", "points.mrk.json")],
        Kind("research.yaml", shipped_profiles()["research"].read_bytes(), (lambda path: load_profile(str(path)),)),
        Kind("moved.nii.gz.json", (folder / "a" / "moved.nii.gz.json").read_bytes(), (described,)),
        Kind(
            "SHA256SUMS",
            (folder / "SHA256SUMS").read_bytes(),
            (read_manifest, lambda path: begin_manifest(path.parent)),
        ),
    ]
    pb = PbBuilder()
    kind = np.dtype(np.float32)
    pb.node("Add", "y", pb.placeholder("x", (1, 4)), pb.const("one", np.ones((1, 4), np.float32)), T=kind)
    compile_pb(pb.save(made / "frozen.pb"), made / "vxm.om", [("y", 0)])
    found += [of("frozen.pb", read_graph, described), of("vxm.om", read_om, described)]
    try:
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        )
        found.append(Kind("a.onnx", helper.make_model(graph, producer_name="x").SerializeToString(), (described,)))
    except ImportError:
        pass
    return found


def outcome(read: Callable[[Path], Any], path: Path) -> str:
    try:
        read(path)
        return "taken"
    except VxmError as exc:
        return "refused" if str(exc).strip() else "an error without a word"


def attempt(kind: Kind, seed: int, place: Path) -> Tuple[List[str], List[str]]:
    """What became of one damaged copy with each reader, and tracebacks."""
    path = place / kind.name
    said, wrong = [], []
    for read in kind.readers:
        path.write_bytes(mutated(kind.data, seed))
        try:
            said.append(outcome(read, path))
        except Exception as exc:
            wrong.append(f"{kind.name}, seed {seed}: {type(exc).__name__}: {exc!s:.150}")
    if path.is_file():
        path.unlink()
    return said, wrong


def all_readers_of_a_folder(folder: Path) -> None:
    """What a later run, `verify`, `qc` and `inspect` read of an output folder, whatever its state."""
    read_failures_of(folder)
    records = Records(Layout(folder))
    record = records.read("a")
    if record is not None:
        records.damage(record)
    for step in (
        lambda: verify_folders([folder]),
        lambda: list(map(read_record, sorted(folder.glob("qc/*/record.json")))),
        lambda: qc_of(folder),
    ):
        try:
            step()
        except VxmError:
            continue


def read_failures_of(folder: Path) -> None:
    try:
        read_failures(folder)
    except VxmError:
        return


def qc_of(folder: Path) -> None:
    results = open_results(folder)
    fixed = open_fixed(folder.parent / "atlas.npz")
    for subject in results.subjects:
        case_of(results, subject, fixed)


def run_kinds(folder: Path, tmp: Path, per_kind: int, first: int) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    wrong: List[str] = []
    place = tmp / "bad"
    place.mkdir()
    logging.disable(logging.CRITICAL)
    try:
        for kind in kinds(folder, tmp):
            (place / kind.name).write_bytes(kind.data)
            for read in kind.readers:
                if kind.name != "scans.csv":
                    assert outcome(read, place / kind.name) == "taken", f"{kind.name}: the good file is refused"
                (place / kind.name).write_bytes(kind.data)
            for seed in range(first, first + per_kind):
                said, bad = attempt(kind, seed, place)
                wrong += bad
                for word in said:
                    counts[word] = counts.get(word, 0) + 1
    finally:
        logging.disable(logging.NOTSET)
    assert not wrong, f"{len(wrong)} tracebacks:\n" + "\n".join(wrong[:40])
    assert set(counts) == {"taken", "refused"} and counts["refused"] > per_kind, counts
    return counts


def run_folder(folder: Path, tmp: Path, rounds: int, first: int) -> int:
    """Every file of the folder, one damaged at a time; returns how many."""
    copy = tmp / "home" / "out"
    copy.parent.mkdir()
    shutil.copytree(str(folder), str(copy))
    shutil.copyfile(str(folder.parent / "atlas.npz"), str(copy.parent / "atlas.npz"))
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".png" and path.name != "lock")
    wrong, done = [], 0
    logging.disable(logging.CRITICAL)
    try:
        for at in range(rounds):
            path = files[at % len(files)]
            good = path.read_bytes()
            path.write_bytes(mutated(good, first + at))
            try:
                all_readers_of_a_folder(copy)
            except Exception as exc:
                wrong.append(f"{path.relative_to(copy)}, seed {first + at}: {type(exc).__name__}: {exc!s:.150}")
            path.write_bytes(good)
            done += 1
    finally:
        logging.disable(logging.NOTSET)
    assert not wrong, f"{len(wrong)} tracebacks:\n" + "\n".join(wrong[:40])
    return done


def test_no_damaged_file_is_a_traceback(folder, tmp_path):
    run_kinds(folder, tmp_path, SHORT_PER_KIND, FIRST_SEED)


def test_no_damaged_output_folder_is_a_traceback(folder, tmp_path):
    assert run_folder(folder, tmp_path, 40, FIRST_SEED) == 40


@pytest.mark.slow
def test_twenty_thousand_damaged_files(folder, tmp_path):
    rounds = 600
    n_kinds = len(kinds(folder, tmp_path / "first" if (tmp_path / "first").mkdir() is None else tmp_path))
    per_kind = -(-(LONG - rounds) // n_kinds)
    counts = run_kinds(folder, tmp_path, per_kind, FIRST_SEED + 10**6)
    done = run_folder(folder, tmp_path, rounds, FIRST_SEED + 2 * 10**6)
    assert per_kind * n_kinds + done >= LONG and counts["taken"] > 100


@pytest.mark.parametrize(
    "content", [bytes(300), b"[" * 100000, b"\xff" * 40, b""], ids=["nul", "deep", "bytes", "empty"]
)
def test_a_run_starts_on_damaged_tables_and_records(tmp_path, monkeypatch, content):
    """As after a power cut: every table and record of the run before is something else."""
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run() == 0
    for name in ("failures.tsv", "metrics.tsv", "run.json", "SHA256SUMS", ".om_runner/a.json", "a/moved.nii.gz.json"):
        (bench.out / name).write_bytes(content)
    assert bench.run() == 0
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a"]


def test_inspect_and_verify_print_no_raw_control_characters(tmp_path, capsys):
    side = {
        "file": "a\x1b[2J\nok  other.nii",
        "sha256": "\x1b]0;x\x07",
        "made_from": {"a\nb": "\u202e"},
        "toolchain": {},
    }
    (tmp_path / "x.nii.json").write_text(json.dumps(side), encoding="utf-8")
    assert vxm_main(["inspect", str(tmp_path / "x.nii.json")]) == 0
    assert vxm_main(["verify", str(tmp_path)]) == 1
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert not [line for line in said.out.splitlines() if line.startswith("ok  other")]
