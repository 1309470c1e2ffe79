# SPDX-License-Identifier: Apache-2.0
"""Shares that refuse chmod, locks, syncing or mapping do not end a run, and a failed write says its own reason."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from export.tune.journal import Journal
from om_runner.precision import store
from om_runner.results.writer import whole_folder
from om_runner.sharing.folder import output_folder
from tests.support import fakes
from tests.support.registration_bench import Bench
from train.prepare.run import _alone_in
from vxm_convert.artifacts import shares
from vxm_convert.artifacts.files import write_text
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.cliargs import run_main
from vxm_convert.errors import ArtifactError, VolumeError
from vxm_convert.scans.scan_file import ScanFile

LACKING = (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", LACKING)
def test_a_mode_that_cannot_be_set_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "chmod", refusing(number))
    write_text(tmp_path / "a.txt", "a")
    with whole_folder(tmp_path / "sub") as folder:
        (folder / "b").write_text("b")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["a.txt", "sub", "sub/b"]


@pytest.mark.parametrize("number", LACKING + (errno.ENOLCK,))
def test_a_whole_run_on_such_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, number: int) -> None:
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    for module, name in ((os, "chmod"), (os, "fsync"), (fcntl, "flock")):
        monkeypatch.setattr(module, name, refusing(number))
    assert bench.run() == 0
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a"] and not bench.table("failures.tsv")
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert not [text for text in said if "lock" in text], "runs are kept apart without locks"


@pytest.mark.parametrize("number", LACKING + (errno.ENOLCK,))
def test_no_locks_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    monkeypatch.setattr(os, "fsync", refusing(number) if number != errno.ENOLCK else os.fsync)
    with _alone_in(tmp_path), output_folder(tmp_path / "out"), Journal(tmp_path / "journal", {"a": 1}, False):
        pass
    assert caplog.text.count("has no locks") == 2


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_held_lock_is_still_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(ArtifactError, match="choose another --out"), _alone_in(tmp_path):
        pytest.fail("two runs in one folder")
    with pytest.raises(ArtifactError, match="another search writes it"):
        Journal(tmp_path / "journal", {"a": 1}, False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_sync_is_a_failed_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(OSError):
        shares.sync(0)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL])
def test_arrays_are_read_where_nothing_can_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(str(tmp_path / "a.npy"), array)
    monkeypatch.setattr(np, "memmap", refusing(number))
    assert np.array_equal(store.load_mapped(tmp_path / "a.npy"), array)


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "change the permissions"),
        (errno.EPERM, "change the permissions"),
        (errno.EIO, "network share failed"),
        (errno.ESTALE, "network share failed"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.EBUSY, "check the folder"),
    ],
)
def test_the_reason_of_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    assert write_problem(OSError(number, os.strerror(number))).startswith(os.strerror(number) + "; ")
    monkeypatch.setattr(os, "replace", refusing(number))
    with pytest.raises(ArtifactError, match=f"a.txt: writing failed: {os.strerror(number)}; .*{advice}") as caught:
        write_text(tmp_path / "a.txt", "a")
    assert "disk full" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_an_error_of_the_disk_anywhere_is_the_failure_of_that_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    for seed, name in enumerate("ab", 1):
        fakes.write_scan(bench.inputs / f"{name}.npz", seed)

    def forget(records: Any, subject: str) -> None:
        if subject == "a":
            raise OSError(number, os.strerror(number), "a.json")

    monkeypatch.setattr("om_runner.results.resume.Records.forget", forget)
    assert bench.run() == 1
    (row,) = bench.table("failures.tsv")
    assert row["subject"] == "a" and row["stage"] == "write" and row["reason"].startswith("a.json: ")
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_share_that_fails_while_a_scan_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("vxm_convert.scans.raw_header._fill", refusing(number))
    import nibabel as nib

    nib.save(nib.Nifti1Image(fakes.brain(1)[0], np.diag([-1.0, 1, 1, 1])), str(tmp_path / "a.nii.gz"))
    with pytest.raises(VolumeError, match=f"a.nii.gz: cannot be read .{os.strerror(number)}.; check .* the connection"):
        ScanFile(tmp_path / "a.nii.gz").image()


@pytest.mark.parametrize("number, code", [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EIO, 1)])
def test_an_error_of_the_disk_is_one_message_of_every_command(capsys, number: int, code: int) -> None:
    def body() -> int:
        raise OSError(number, os.strerror(number), "/x/y.nii")

    assert run_main(body, "prog") == code
    assert capsys.readouterr().err.startswith(f"prog: error: /x/y.nii: {os.strerror(number)}; ")


def test_another_error_of_the_system_is_a_bug_with_its_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        run_main(lambda: open("/no/such/file") and 0, "prog")


def test_leftovers_that_cannot_be_removed_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".tmp-abc-x").write_text("x")
    monkeypatch.setattr(Path, "unlink", refusing(errno.EPERM))
    with output_folder(out):
        pass
    assert "left over from a killed run and cannot be removed: Operation not permitted" in caplog.text
