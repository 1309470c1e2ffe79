# SPDX-License-Identifier: Apache-2.0
"""SHA256SUMS: what it lists, that it proves itself, and that other tools read it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from vxm_convert.artifacts.files import sha256_of, write_sidecar
from vxm_convert.artifacts.names import STEPS, SUMS_NAME, step_of
from vxm_convert.artifacts.sha256sums import (
    begin_manifest,
    files_below,
    finish_manifest,
    read_manifest,
    refresh_manifest,
)
from vxm_convert.errors import ArtifactError, FormatError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("a.txt", "a"), ("sub 1/b ü.bin", "b"), ("old.txt", "old")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    finish_manifest(tmp_path, ["a.txt", "never made.txt"] + files_below(tmp_path, "sub 1"), {})
    return tmp_path


def test_it_lists_what_was_made(folder: Path) -> None:
    entries = read_manifest(folder / SUMS_NAME)
    assert entries == {name: sha256_of(folder / name) for name in ("a.txt", "sub 1/b ü.bin")}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_reads_it(folder: Path) -> None:
    command = ["sha256sum", "--strict", "-c", SUMS_NAME]
    assert subprocess.run(command, cwd=str(folder), stdout=subprocess.DEVNULL).returncode == 0
    (folder / "a.txt").write_text("b")
    done = subprocess.run(command, cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert done.returncode == 1 and b"a.txt: FAILED" in done.stdout


def test_every_flipped_bit_of_the_list_itself_is_seen(folder: Path) -> None:
    path = folder / SUMS_NAME
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        with pytest.raises(FormatError, match="is damaged"):
            read_manifest(path)
    for cut in (b"", whole[:-1], whole + b"\n", whole + whole):
        path.write_bytes(cut)
        with pytest.raises(FormatError):
            read_manifest(path)


@pytest.mark.parametrize("line", ["{0}  ../x", "{0}  /etc/passwd", "{0}  a/../../x", "{0} x", "zz  x", "{0}  "])
def test_it_cannot_point_out_of_its_folder_or_be_of_another_form(tmp_path: Path, line: str) -> None:
    body = line.format("0" * 64) + "\n"
    path = tmp_path / SUMS_NAME
    path.write_text(body + "# sha256 of the lines above: " + hashlib.sha256(body.encode()).hexdigest() + "\n")
    with pytest.raises(FormatError, match="not a sha256 and a file below"):
        read_manifest(path)


def test_a_later_run_keeps_what_still_stands(folder: Path) -> None:
    before = read_manifest(folder / SUMS_NAME)
    earlier = begin_manifest(folder)
    assert earlier == before and not (folder / SUMS_NAME).exists()
    (folder / "a.txt").unlink()
    (folder / "new.txt").write_text("new")
    finish_manifest(folder, ["new.txt"], earlier)
    assert sorted(read_manifest(folder / SUMS_NAME)) == ["new.txt", "sub 1/b ü.bin"]


def test_a_damaged_list_is_not_carried_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / SUMS_NAME).write_text("x")
    assert begin_manifest(folder) == {} and "have no recorded hash any more" in caplog.text


def test_a_recorded_hash_is_taken_and_the_file_not_read_again(folder: Path) -> None:
    """A result that was damaged after its side-car was written is not blessed by the list."""
    (folder / "big.bin").write_text("as made")
    write_sidecar(folder / "big.bin", {}, {"kind": "none"})
    made = sha256_of(folder / "big.bin")
    (folder / "big.bin").write_text("damaged")
    finish_manifest(folder, ["big.bin"], {})
    assert read_manifest(folder / SUMS_NAME)["big.bin"] == made


def test_refresh_adds_to_a_list_but_makes_none(folder: Path, tmp_path: Path) -> None:
    refresh_manifest(folder, ["old.txt"])
    assert set(read_manifest(folder / SUMS_NAME)) == {"a.txt", "sub 1/b ü.bin", "old.txt"}
    empty = tmp_path / "empty"
    empty.mkdir()
    refresh_manifest(empty, ["x"])
    assert list(empty.iterdir()) == []
    with pytest.raises(ArtifactError):
        read_manifest(empty / SUMS_NAME)


@pytest.mark.parametrize(
    "name, step",
    [
        ("model-5.index.json", "checkpoint"),
        ("model-5.state.json", "checkpoint"),
        ("spec.json", "checkpoint"),
        ("frozen.pb.json", "frozen graph"),
        ("vxm.om", "offline model"),
        ("contract.json", "contract"),
        ("moved.nii.gz.json", "output"),
        ("run.json", "run"),
        ("report.html", "report"),
        ("notes.json", "other"),
        ("notes", "other"),
        (SUMS_NAME, "list"),
    ],
)
def test_where_files_stand_in_the_chain(name: str, step: str) -> None:
    assert step_of(Path("somewhere") / name) == step and step in dict(STEPS)


def test_a_kill_while_a_run_writes_loses_no_line(folder: Path) -> None:
    """`old` is of a subject that no later run looks at."""
    before = read_manifest(folder / SUMS_NAME)
    begin_manifest(folder)
    assert not (folder / SUMS_NAME).is_file(), "a folder whose run did not end has no list"
    # Killed here. The next run is killed as well, a third one ends.
    begin_manifest(folder)
    (folder / "new.txt").write_text("new", encoding="utf-8")
    finish_manifest(folder, ["new.txt"], begin_manifest(folder))
    assert read_manifest(folder / SUMS_NAME) == {**before, "new.txt": sha256_of(folder / "new.txt")}
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
