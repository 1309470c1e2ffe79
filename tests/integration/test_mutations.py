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
from typing import Any, Callable, Dict, List, Tuple

import pytest

from om_runner.qc.from_files import case_of, open_fixed, open_results
from om_runner.qc.record import read_record
from om_runner.results.layout import Layout
from om_runner.results.previous_run import read_failures
from om_runner.results.resume import Records
from tests.support import fakes
from tests.support.damaged import Kind, good_files
from tests.support.mutations import mutated
from tests.support.registration_bench import Bench
from vxm_convert.__main__ import main as vxm_main
from vxm_convert.errors import VxmError
from vxm_convert.inspection.verify import verify_folders

LONG, PARTS = 20000, 8
SHORT_PER_KIND = 6
#: added to every seed: change it to look elsewhere
FIRST_SEED = 20261129


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
    return good_files(folder, made)


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


def listed(wrong: List[str]) -> str:
    """Each error once for each file, with how often and a seed."""
    kinds_of: Dict[str, List[str]] = {}
    for line in wrong:
        name, _, rest = line.partition(", seed ")
        kinds_of.setdefault(f"{name}: {rest.partition(': ')[2]:.100}", []).append(rest.partition(":")[0])
    rows = [f"{len(seeds)} x {text} (seed {seeds[0]})" for text, seeds in sorted(kinds_of.items())]
    return f"{len(wrong)} tracebacks:\n" + "\n".join(rows[:60])


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
            for seed in range(first, first + max(1, per_kind // kind.every)):
                said, bad = attempt(kind, seed, place)
                wrong += bad
                counts["files"] = counts.get("files", 0) + 1
                for word in said:
                    counts[word] = counts.get(word, 0) + 1
    finally:
        logging.disable(logging.NOTSET)
    assert not wrong, listed(wrong)
    assert set(counts) == {"files", "taken", "refused"} and counts["refused"] > per_kind, counts
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
    assert not wrong, listed(wrong)
    return done


def test_no_damaged_file_is_a_traceback(folder, tmp_path):
    run_kinds(folder, tmp_path, SHORT_PER_KIND, FIRST_SEED)


def test_no_damaged_output_folder_is_a_traceback(folder, tmp_path):
    assert run_folder(folder, tmp_path, 40, FIRST_SEED) == 40


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_twenty_thousand_damaged_files(folder, tmp_path, part):
    """A share of them each, with other seeds."""
    rounds = 600 // PARTS
    (tmp_path / "first").mkdir()
    shares = sum(1 / kind.every for kind in kinds(folder, tmp_path / "first"))
    per_kind = -(-(LONG // PARTS - rounds) // int(shares))
    wrong, done = [], 0
    for step in (
        lambda: run_kinds(folder, tmp_path, per_kind, FIRST_SEED + 10**6 * (part + 1))["files"],
        lambda: run_folder(folder, tmp_path, rounds, FIRST_SEED + 10**6 * (part + 101)),
    ):
        try:
            done += step()
        except AssertionError as exc:
            wrong.append(str(exc))
    assert not wrong, "\n".join(wrong)
    assert done >= LONG // PARTS


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
