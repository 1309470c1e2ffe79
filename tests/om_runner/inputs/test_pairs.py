# SPDX-License-Identifier: Apache-2.0
"""``--pairs``: tables as people write them, what is refused, and that a pair is registered as a scan is to an atlas."""

from __future__ import annotations

import csv
import json
import logging
from functools import partial
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

from om_runner import Failure, Pair, Registrar
from om_runner import __main__ as cli
from om_runner.commands import collect, qc
from om_runner.inputs.fixed import FixedBatches, LatelyUsed, batch_of, by_fixed
from om_runner.inputs.pairs import read_pairs
from om_runner.inputs.scans import FIXED_IMAGE, Scan
from om_runner.registration import session
from om_runner.results.cohort_record import known, scans_from
from tests.support import fakes
from tests.support.scripted_reference import ScriptedReference, scripted  # noqa: F401
from tests.support.shift import ShiftBench
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import VolumeError
from vxm_convert.inspection.verify import BROKEN, verify_folders
from vxm_convert.scans.nifti import write_nifti

pytestmark = pytest.mark.any_python("tables of names and a scripted device; test_real_pairs registers pairs on both")

AFFINE = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])
BRAINS = ("a", "b", "c")


class PairBench(ShiftBench):
    """Three brains with segmentations, and calls that register them in pairs or to one atlas."""

    def __init__(self, folder: Path, monkeypatch, batch: int = 1) -> None:
        super().__init__(folder, monkeypatch, batch)
        self.folder, self.out = folder, folder / "out"
        for number, name in enumerate(BRAINS):
            fakes.write_scan(folder / "brains" / f"{name}.npz", number)
        monkeypatch.setattr(session, "open_model", lambda *args: self.model)

    def table(self, *lines: str, name: str = "pairs.tsv") -> Path:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def every_pair(self) -> Path:
        rows = [f"brains/{a}.npz\tbrains/{b}.npz" for a in BRAINS for b in BRAINS if a != b]
        return self.table("moving\tfixed", *rows)

    def run(self, *words: object) -> int:
        argv = [str(word) for word in ("--out", self.out, "--compare", "none", *words)]
        settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)
        return session.run_session(settings, lambda model, device: self._open(model, device, 2))

    def rows(self, name: str = "metrics.tsv") -> List[Dict[str, str]]:
        with open(str(self.out / name), encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch) -> PairBench:
    return PairBench(tmp_path, monkeypatch)


def same_results(one: Path, other: Path) -> None:
    names = {path.name for path in one.iterdir() if path.name.endswith(".gz")}
    assert len(names) >= 3 and names == {path.name for path in other.iterdir() if path.name.endswith(".gz")}
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_pairs_are_registered_as_scans_are_to_an_atlas(tmp_path: Path, monkeypatch, caplog, batch: int) -> None:
    """All ordered pairs of three brains with one open device, against three runs with an atlas each."""
    bench = PairBench(tmp_path, monkeypatch, batch)
    caplog.set_level(logging.INFO)
    wanted = ("--outputs", "moved,warp,seg,inverse")
    assert bench.run("--pairs", bench.every_pair(), *wanted) == 0
    assert "6 pairs in" in caplog.text and "3 fixed images, batch" in caplog.text
    (runtime,) = bench.runtimes
    fed = {fixed.tobytes() for feeds in runtime.fed for fixed in feeds["fixed"]}
    assert len(runtime.fed) == -(-6 // batch) and fed == {
        (fakes.brain(n)[0] / np.float32(255))[..., np.newaxis].astype(np.float32).tobytes() for n in range(3)
    }
    pairs = {row["subject"]: row for row in bench.rows()}
    assert list(pairs) == [f"{a}__{b}" for a in BRAINS for b in BRAINS if a != b], "in the order of the table"
    of_run = ("subject", "total_seconds", "device_seconds", "fixed")
    figures = [column for column in bench.rows()[0] if column not in of_run]
    for fixed in BRAINS:
        bench.out = tmp_path / f"to-{fixed}"
        assert bench.run("--input", tmp_path / "brains", "--atlas", tmp_path / "brains" / f"{fixed}.npz", *wanted) == 0
        for row in bench.rows():
            name = f"{row['subject']}__{fixed}"
            assert {key: pairs[name][key] for key in figures} == {key: row[key] for key in figures}
            assert row["dice_after"] != "n/a"
            assert pairs[name]["fixed"] == f"brains/{fixed}.npz" and row["fixed"] == f"{fixed}.npz"
            same_results(tmp_path / "out" / name, bench.out / row["subject"])
    links = verify_folders([tmp_path / "out"])
    assert [link for link in links if link.state == BROKEN] == []
    assert "c.npz" in {link.subject.name for link in links}


def test_a_second_run_skips_and_a_changed_fixed_image_is_registered_again(bench: PairBench, caplog) -> None:
    table = bench.every_pair()
    assert bench.run("--pairs", table) == 0
    caplog.set_level(logging.INFO)
    assert bench.run("--pairs", table) == 0 and "0 to register, 6 unchanged" in caplog.text
    fakes.write_scan(bench.folder / "brains" / "c.npz", 9)
    caplog.clear()
    assert bench.run("--pairs", table) == 0 and "4 to register, 2 unchanged" in caplog.text
    assert "a__c: registered again, another atlas" in caplog.text and "the scan changed" in caplog.text
    with pytest.raises(Exception, match="atlas is null there and"):
        bench.run("--input", bench.folder / "brains", "--atlas", bench.folder / "brains" / "a.npz")


def test_names_labels_and_comments(bench: PairBench) -> None:
    """A table with commas, quotes, comments, Windows line ends and a byte order mark."""
    folder = bench.folder / "brains"
    image, seg = fakes.brain(5)
    write_nifti(folder / "d, e.nii.gz", image, AFFINE)
    write_nifti(folder / "apart.nii.gz", seg, AFFINE)
    text = '\ufeffName, Moving,FIXED,fixed_labels\r\n# a comment\r\n\r\nfirst,brains/a.npz,"brains/d, e.nii.gz",'
    text += 'brains/apart.nii.gz\r\n,brains/a.npz,"brains/d, e.nii.gz",n/a\r\n'
    (bench.folder / "p.csv").write_bytes(text.encode("utf-8"))
    assert bench.run("--pairs", bench.folder / "p.csv") == 0
    first, second = bench.rows()
    assert first["subject"] == "first" and float(first["dice_after"]) > 0
    assert second["subject"] == "a__d__e" and second["dice_after"] == "n/a"
    side = json.loads((bench.out / "first" / "moved.nii.gz.json").read_text())
    assert side["made_from"]["fixed_seg"] == sha256_of(folder / "apart.nii.gz")


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for subject in ("s1", "s2"):
        for session_name in ("one", "two"):
            fakes.write_scan(tmp_path / subject / session_name / "t1.npz", 1)
    fakes.write_scan(tmp_path / "atlas.npz", 1)
    lines = [f"{s}/two/t1.npz,{s}/one/t1.npz" for s in ("s1", "s2")] + ["s1/one/t1.npz,atlas.npz"]
    (tmp_path / "p.csv").write_text("\n".join(["moving,fixed", *lines]))
    scans = read_pairs(tmp_path / "p.csv")
    assert [scan.subject for scan in scans] == ["s1_two_t1__s1_one_t1", "s2_two_t1__s2_one_t1", "s1_one_t1__atlas"]
    called = ["s1/one/t1.npz", "s2/one/t1.npz", "atlas.npz"]
    assert [scan.fixed.called for scan in scans] == called
    # Another process gets them as this.
    assert [scan.fixed.called for scan in scans_from(known(scans), {})] == called


def test_names_in_other_letters_are_told_apart(tmp_path: Path) -> None:
    """None of their letters is kept in the name of a folder."""
    for name in ("张三.npz", "李四.npz", "b.npz"):
        fakes.write_scan(tmp_path / name, 1)
    table = tmp_path / "pairs.tsv"
    table.write_text("moving\tfixed\n张三.npz\t李四.npz\n李四.npz\tb.npz\n", encoding="utf-8")
    assert [scan.subject for scan in read_pairs(table)] == ["___npz_____npz_2", "___npz_2__b"]
    assert [scan.path.name for scan in read_pairs(table)] == ["张三.npz", "李四.npz"]


@pytest.mark.parametrize(
    "lines, said",
    [
        ([], "is empty, expected a table of pairs"),
        (["a\tb"], "has no column moving and no column fixed, its first line says: a, b"),
        (["moving;fixed", "x;y"], "separate them by tabs or commas"),
        (["moving fixed", "x y"], "separate them by tabs or commas"),
        (["moving\tfixed"], "names no pair"),
        (["moving\tfixed\tmoving_label", "a\tb\tc"], "did you mean moving_labels"),
        (["moving\tfixed\tmoving", "a\tb\tc"], "each at most once"),
        (["moving\tfixed", "brains/a.npz"], "line 2: has 1 cells, expected 2"),
        (["moving\tfixed", "\tbrains/a.npz"], "line 2: names no moving image"),
        (["moving\tfixed", "brains/a.npz\tn/a"], "line 2: names no fixed image"),
        (["moving\tfixed", "brains/a.npz\tbrains/x.npz"], "line 2: fixed: .*x.npz: no such file"),
        (["moving\tfixed", "brains/a.npz\tbrains"], "line 2: fixed: .*brains: a folder"),
        (["moving\tfixed", "brains/a.npz\tpairs.tsv"], "not of a kind that is read"),
        (["moving\tfixed", "brains/a\x1b[2J.npz\tb"], r"line 2 contains the control character '\\x1b'"),
        (["moving,fixed", '"brains/a.npz,b'], "line 2: its quotes do not close"),
        (["moving\tfixed", "brains/a.npz\tbrains/b.npz", "brains/a.npz\tbrains/b.npz"], "line 3: .* that of line 2"),
        (
            ["moving\tfixed\tname", "brains/a.npz\tbrains/b.npz\tx", "brains/b.npz\tbrains/c.npz\tX"],
            "line 3: the name X is that of line 2",
        ),
        (["moving\tfixed\tname", "brains/a.npz\tbrains/b.npz\t../x"], "name '../x', expected .* such as _x"),
        (["moving\tfixed\tname", "brains/a.npz\tbrains/b.npz\tqc"], "the name qc is that of a file of the runner"),
        (["moving\tfixed\tname", f"brains/a.npz\tbrains/b.npz\t{'n' * 201}"], "would have 201 characters"),
        (["moving\tfixed", *["x\ty"] * 9], "9 lines cannot be used:\n  line 2.*\n  line 3.*\n.*\n.*\n.*\n  and 4 more"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_message(bench: PairBench, lines: List[str], said: str) -> None:
    with pytest.raises(VolumeError, match=said):
        bench.run("--pairs", bench.table(*lines))
    assert not bench.out.exists() and bench.runtimes == []


def test_files_that_are_no_tables(bench: PairBench) -> None:
    for content in (b"\xff\xfem\x00o\x00v\x00", b"moving\tfixed\n\x00\x00\n"):
        (bench.folder / "p.tsv").write_bytes(content)
        with pytest.raises(VolumeError, match="UTF-8 text|control character"):
            bench.run("--pairs", bench.folder / "p.tsv")
    for path in (bench.folder / "none.tsv", bench.folder / "brains"):
        with pytest.raises(VolumeError, match="no such table of pairs"):
            bench.run("--pairs", path)


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["--pairs", "p.tsv", "--atlas", "a.npz"],
            "argument --atlas: has no effect here, --pairs names moving and fixed",
        ),
        (["--pairs", "p.tsv", "--input", "x"], "argument --input: has no effect here, --pairs names moving and fixed"),
        (["--pairs", "p.tsv", "--bids"], "argument --bids: has no effect here, --pairs is no BIDS dataset"),
        (["--atlas", "a.npz"], "required: --input .or --pairs alone"),
        ([], "required: --input, --atlas .or --pairs alone"),
        (["ds", "out", "participant", "--pairs", "p.tsv"], "unrecognized arguments: --pairs"),
    ],
)
def test_options_that_do_not_go_together(capsys, words: List[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and all(part in text for part in said.split(".")), text


def test_a_bad_fixed_image_fails_its_pairs_alone(bench: PairBench, capsys) -> None:
    (bench.folder / "brains" / "c.npz").write_bytes(b"no image")
    table = bench.every_pair()
    assert bench.run("--pairs", table, "--dry-run") == 1
    said = capsys.readouterr().out
    assert said.count("refuse") == 5 and "4 would be refused" in said and not bench.out.exists()
    assert bench.run("--pairs", table) == 1
    assert [row["subject"] for row in bench.rows()] == ["a__b", "b__a"]
    failed = bench.rows("failures.tsv")
    assert [row["subject"] for row in failed] == ["a__c", "b__c", "c__a", "c__b"]
    assert all("c.npz" in row["reason"] and row["stage"] == "read" for row in failed)
    fakes.write_scan(bench.folder / "brains" / "c.npz", 2)
    assert bench.run("--pairs", table, "--retry-failed") == 0 and len(bench.rows()) == 6


def test_parts_tables_and_pictures(bench: PairBench) -> None:
    table = bench.every_pair()
    picked = ("--pairs", table, "--outputs", "moved,warp,seg,qc")
    assert bench.run(*picked, "--shard", "1/2") == 0 and len(bench.rows()) == 3
    assert bench.run(*picked, "--shard", "2/2") == 0 and len(bench.rows()) == 6
    inputs = json.loads((bench.out / "run.json").read_text())["inputs"]
    assert {Path(path).name for path in inputs} == {"a.npz", "b.npz", "c.npz"}
    (bench.out / "metrics.tsv").unlink()
    assert collect.main([str(bench.out)]) == 0 and len(bench.rows()) == 6
    assert qc.main(["--registered", str(bench.out), "--subject", "a__c", "--out", str(bench.folder / "qc")]) == 0
    again, drawn, other = (
        (place / "contours.png").read_bytes()
        for place in (bench.folder / "qc" / "a__c", bench.out / "qc" / "a__c", bench.out / "qc" / "a__b")
    )
    assert again == drawn != other


def test_pairs_are_compared_with_their_own_fixed_image(bench: PairBench, monkeypatch, scripted) -> None:  # noqa: F811
    seen = {}

    class Reference(ScriptedReference):
        def run(self, subjects):
            for subject in subjects:
                seen[subject] = np.array(self.store.fixed(subject)), self.store.get(subject, "fixed_seg")
            return super().run(subjects)

    from om_runner.precision import report

    monkeypatch.setattr(report, "ReferenceProcess", Reference)
    bench.run("--pairs", bench.every_pair(), "--compare", "all", "--profile", "none")
    assert len(seen) == 6
    for subject, (image, seg) in seen.items():
        number = BRAINS.index(subject[-1])
        assert np.array_equal(image, fakes.brain(number)[0] / np.float32(255))
        assert np.array_equal(seg, fakes.brain(number)[1])
    found = json.loads((bench.out / "precision" / "report.json").read_text())
    assert found["summary"]["n_with_dice"] == 6


def test_pairs_from_python(bench: PairBench) -> None:
    folder = bench.folder / "brains"
    image, seg = fakes.brain(1)
    pairs = [
        Pair(folder / "a.npz", folder / "b.npz"),
        Pair(folder / "a.npz", (image, AFFINE), fixed_labels=(seg, AFFINE), name="in memory"),
        Pair(folder / "none.npz", folder / "b.npz"),
        Pair(folder / "c.npz", folder / "none.npz", name="x"),
    ]
    with Registrar("vxm.om") as register:
        first, second, third, fourth = register.pairs(iter(pairs), on_error="yield")
        assert [one.name for one in (first, second, third, fourth)] == ["a__b", "in_memory", "none__b", "x"]
        assert isinstance(third, Failure) and isinstance(fourth, Failure) and "none.npz" in str(fourth.error)
        assert first.metrics.structures == second.metrics.structures and first.metrics.structures
        assert np.array_equal(np.asarray(first.moved.dataobj), np.asarray(second.moved.dataobj))
        table = list(register.pairs(bench.every_pair()))
        assert [one.name for one in table][:2] == ["a__b", "a__c"]
        first.save(bench.folder / "saved" / "a__b")
        with pytest.raises(VolumeError, match="atlas: none given"):
            register(folder / "a.npz")
        with pytest.raises(VolumeError, match="expected om_runner.Pair"):
            list(register.pairs([(folder / "a.npz", folder / "b.npz")]))
    assert len(bench.runtimes) == 1
    assert bench.run("--pairs", bench.folder / "pairs.tsv") == 0
    theirs, ours = (place / "a__b" for place in (bench.out, bench.folder / "saved"))
    for name in ("moved.nii.gz", "flow.nii.gz", "moved_seg.nii.gz", "moved.nii.gz.json"):
        assert (theirs / name).read_bytes() == (ours / name).read_bytes()


def test_a_fixed_file_that_changes_is_read_again(bench: PairBench) -> None:
    folder = bench.folder / "brains"
    with Registrar("vxm.om") as register:
        for number in (1, 2):
            fakes.write_scan(folder / "fixed.npz", number)
            (result,) = register.pairs([Pair(folder / "a.npz", folder / "fixed.npz")])
            assert np.array_equal(np.asarray(result.atlas_labels.dataobj), fakes.brain(number)[1])


def test_what_is_kept_of_fixed_images() -> None:
    made = []

    def make(key: str) -> str:
        made.append(key)
        if key == "bad":
            raise VolumeError("bad")
        return key.upper()

    kept: LatelyUsed[str] = LatelyUsed(2)
    assert [kept.get(key, partial(make, key)) for key in "aab"] == ["A", "A", "B"] and made == ["a", "b"]
    for _ in range(2):
        with pytest.raises(VolumeError):
            kept.get("bad", partial(make, "bad"))
    assert made == ["a", "b", "bad", "bad"], "a file on a share may be readable the next time"
    assert kept.get("b", partial(make, "b")) == "B" and kept.get("a", partial(make, "a")) == "A"
    assert made == ["a", "b", "bad", "bad", "a"]


def test_pairs_with_the_same_fixed_image_follow_each_other() -> None:
    fixed = [Scan(FIXED_IMAGE, Path(f"{n}.nii")) for n in range(2)]
    scans = [Scan(f"s{n}", Path("m.nii"), None, fixed[n % 2]) for n in range(5)]
    assert [scan.subject for scan in by_fixed(scans)] == ["s0", "s2", "s4", "s1", "s3"]
    assert by_fixed([Scan("b", Path("b")), Scan("a", Path("a"))])[0].subject == "b"


def test_batches_of_the_same_images_are_one_array() -> None:
    class Image:
        def __init__(self, value: float) -> None:
            self.image = np.full((2, 3, 4), value, np.float32)

    one, two, batches = Image(1), Image(2), FixedBatches(3)
    first = batches.of([one])  # type: ignore[list-item]
    assert first.shape == (3, 2, 3, 4, 1) and first.flags["C_CONTIGUOUS"] and (first == 1).all()
    assert batches.of([one, one, one]) is first  # type: ignore[list-item]
    mixed = batches.of([one, two])  # type: ignore[list-item]
    assert mixed[:, 0, 0, 0, 0].tolist() == [1, 2, 2] and (first == 1).all()


def test_a_batch_of_one_is_the_image_itself_and_a_larger_one_repeats_the_last() -> None:
    one, two = np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 4), np.float32)
    single = batch_of([one], 1)
    assert single.shape == (1, 2, 3, 4, 1) and np.shares_memory(single, one)
    batch = batch_of([one, two], 3)
    assert batch.shape == (3, 2, 3, 4, 1) and batch[:, 1, 2, 3, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "image", [np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4)), np.ones((2, 3, 4), ">f4")]
)
def test_a_batch_of_one_is_as_devices_take_it(image: np.ndarray) -> None:
    single = batch_of([image], 1)
    assert single.shape == (1, 2, 3, 4, 1) and single.flags.c_contiguous and single.dtype == np.float32
    assert np.array_equal(single[0, ..., 0], image)
