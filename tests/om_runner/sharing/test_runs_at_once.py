# SPDX-License-Identifier: Apache-2.0
"""Several processes and shards in one output folder: every scan is done once, and any process can make the tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from om_runner.__main__ import main
from om_runner.names import STATE_FOLDER
from om_runner.results import failures as failures_module
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.errors import AclError, ArtifactError
from vxm_convert.inspection.verify import first_broken, verify_folders

pytestmark = pytest.mark.any_python(
    "files that processes share; test_kill_sweep and test_bids_at_once run such on both"
)

#: a run of the bench that notes every execution in a file that all processes share
CHILD = """
import os, signal, sys, time, pytest
from pathlib import Path
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.cliargs import run_main
# The atlas is there: another process may just be reading it.
fakes.write_scan = lambda path, *args, **more: path
import logging; logging.basicConfig(level=logging.INFO)
folder, options = Path(sys.argv[1]), sys.argv[2:]
bench = Bench(folder, pytest.MonkeyPatch())
real = bench.runtime._run
def run(feeds):
    handle = os.open(str(folder / "executed"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(handle, b"%f %d\\n" % (feeds["moving"].sum(), os.getpid()))
    os.close(handle)
    time.sleep(0.1)
    return real(feeds)
bench.runtime._run = run
"""
RUN = "sys.exit(run_main(lambda: bench.run(*options), 'om_runner'))\n"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    for seed in range(1, 9):
        fakes.write_scan(made.inputs / f"s{seed}.npz", seed)
    return made


def start(folder, *options, text=RUN):
    words = [sys.executable, "-c", CHILD + text, str(folder), *options]
    return subprocess.Popen(words, stderr=subprocess.PIPE, universal_newlines=True)


def executed(folder):
    """Sum of the scan's values, and process, of every execution."""
    return [line.split() for line in (folder / "executed").read_text(encoding="utf-8").splitlines()]


def volumes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.nii.gz"))}


def nothing_left(out):
    names = [path.name for path in out.rglob("*")]
    return not [name for name in names if name.startswith(".tmp-") or name in ("claims", "owners")]


def intact(out):
    return first_broken(verify_folders([out])) is None


def test_three_processes_share_a_cohort(bench, tmp_path):
    children = [start(tmp_path) for _ in range(3)]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], said
    runs = executed(tmp_path)
    assert len(runs) == len({scan for scan, _ in runs}) == 8, "no scan twice"
    assert [row["subject"] for row in bench.table("metrics.tsv")] == [f"s{n}" for n in range(1, 9)]
    assert nothing_left(bench.out) and intact(bench.out)
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert sum(entry["registered"] for entry in run["processes"]) == 8


#: begins with the tables when the other one has looked at the records already
LATE = """
(folder / "there").touch()
from om_runner.registration.run import CohortRun
write = CohortRun._write
CohortRun._write = lambda self: (time.sleep(1), write(self))
"""
#: looks at the records of all processes, and writes what it saw when the other one would have ended
SLOW_TO_WRITE = """
while not (folder / "there").exists():
    time.sleep(0.01)
from om_runner.registration import run as run_module
write = run_module.write_run
def write_late(*content):
    (folder / "looked").touch()
    time.sleep(2)
    write(*content)
run_module.write_run = write_late
"""


def test_tables_of_a_slow_writer_lack_nobody(bench, tmp_path):
    slow, other = start(tmp_path, text=SLOW_TO_WRITE + RUN), start(tmp_path, text=LATE + RUN)
    said = [child.communicate(timeout=120)[1] for child in (slow, other)]
    assert [slow.returncode, other.returncode] == [0, 0] and (tmp_path / "looked").exists(), said
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert sum(entry["registered"] for entry in run["processes"]) == 8
    assert len(bench.table("metrics.tsv")) == 8 and nothing_left(bench.out) and intact(bench.out)


def test_scans_of_a_killed_process_go_to_a_living_one(bench, tmp_path):
    victim = start(tmp_path)
    while not (tmp_path / "executed").exists():
        assert victim.poll() is None
        time.sleep(0.01)
    other = start(tmp_path)
    time.sleep(0.3)
    victim.kill()
    victim.communicate()
    said = other.communicate(timeout=120)[1]
    assert other.returncode == 0, said
    assert len(bench.table("metrics.tsv")) == 8 and nothing_left(bench.out) and intact(bench.out)


def test_shards_are_disjoint_and_make_up_the_whole(bench, capsys):
    fed = []
    for number in (2, 1, 3):
        assert bench.run("--shard", f"{number}/3") == 0
        fed.append(len(bench.runtime.fed))
    assert fed == [3, 3, 2]
    rows = (bench.out / "metrics.tsv").read_bytes()
    assert [row["subject"] for row in bench.table("metrics.tsv")] == [f"s{n}" for n in range(1, 9)]
    bench.runtime.fed.clear()
    assert bench.run() == 0 and not bench.runtime.fed, "all is done"
    (bench.out / "metrics.tsv").unlink()
    (bench.out / "SHA256SUMS").unlink()
    assert main(["collect", str(bench.out)]) == 0
    assert (bench.out / "metrics.tsv").read_bytes() == rows and intact(bench.out)
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert run["registered"] == 8 and len(run["inputs"]) == 8


def test_sums_lost_in_a_kill_come_back_with_scans_that_left_the_input(bench):
    assert bench.run() == 0
    sums = (bench.out / "SHA256SUMS").read_text(encoding="utf-8")
    lines = [line for line in sums.splitlines() if "  s3/" in line]
    (bench.out / "SHA256SUMS").unlink()
    (bench.inputs / "s3.npz").unlink()
    assert bench.run() == 0
    again = (bench.out / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    assert lines and not set(lines) - set(again) and intact(bench.out)


def test_collect_names_what_is_missing_and_what_failed(bench, caplog):
    (bench.inputs / "s1.npz").write_bytes(b"broken")
    assert bench.run("--shard", "1/4") == 1
    for name in ("metrics.tsv", "failures.tsv", "run.json"):
        (bench.out / name).unlink()
    caplog.clear()
    assert main(["collect", str(bench.out)]) == 1
    assert [row["subject"] for row in bench.table("failures.tsv")] == ["s1"]
    assert "6 scans are neither registered nor failed: s2, s3, s4, s6, s7 …" in caplog.text
    assert json.loads((bench.out / "run.json").read_text(encoding="utf-8"))["model"]["sha256"] == "0" * 64


def test_collect_of_another_folder_is_one_message(tmp_path, capsys):
    assert main(["collect", str(tmp_path)]) == 1
    assert "no run has registered scans into it" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "3", "a/b", "-1/3"])
def test_shards_that_do_not_exist_are_wrong_usage(bench, wrong):
    with pytest.raises(SystemExit):
        bench.run("--shard", wrong)


def test_other_settings_are_refused_while_a_run_goes_on(bench, tmp_path):
    """Also before anything is registered, and also with --force."""
    child = start(tmp_path)
    while not (tmp_path / "executed").exists():
        assert child.poll() is None
        time.sleep(0.01)
    with pytest.raises(ArtifactError, match='labels is "paper30" there and "seed30" here.*another process is writing'):
        bench.run("--force", "--labels", "seed30")
    child.communicate(timeout=120)
    assert child.returncode == 0 and len(bench.table("metrics.tsv")) == 8


def test_failures_cost_the_same_at_any_number(bench, monkeypatch):
    for index in range(40):
        (bench.inputs / f"bad{index:02d}.npz").write_bytes(b"broken")
    whole, real = [], failures_module.write_failures
    monkeypatch.setattr(failures_module, "write_failures", lambda *args: whole.append(1) or real(*args))
    assert bench.run() == 1
    assert len(bench.table("failures.tsv")) == 40 and len(whole) == 1, "the heading; every failure adds a line"


def test_a_full_disk_stops_the_run_with_one_message(bench, monkeypatch, caplog):
    for index in range(20):
        fakes.write_scan(bench.inputs / f"t{index:02d}.npz", index)
    real = os.replace

    def full(source, target):
        if str(target).endswith(tuple(f"out/t{index:02d}" for index in range(20))):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArtifactError, match="no room is left: 3 scans in a row .*; free space and run"):
        bench.run("--threads", "1")
    assert len(bench.table("metrics.tsv")) == 8 and 3 <= len(bench.table("failures.tsv")) <= 6
    monkeypatch.setattr(os, "replace", real)
    assert bench.run() == 0 and nothing_left(bench.out)


def test_linked_results_are_replaced_and_never_followed(bench, tmp_path):
    bench.run()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept.txt").write_text("mine", encoding="utf-8")
    os.rename(str(bench.out / "s1"), str(tmp_path / "moved_away"))
    (bench.out / "s1").symlink_to(victim)
    flow = bench.out / "s2" / "flow.nii.gz"
    os.rename(str(flow), str(tmp_path / "flow.nii.gz"))
    flow.symlink_to(tmp_path / "flow.nii.gz")
    (bench.out / "failures.tsv").unlink()
    (bench.out / "failures.tsv").symlink_to(victim / "kept.txt")
    bench.runtime.fed.clear()
    assert bench.run() == 0 and len(bench.runtime.fed) == 2
    assert not (bench.out / "s1").is_symlink() and not flow.is_symlink()
    assert [path.name for path in victim.iterdir()] == ["kept.txt"]
    assert (victim / "kept.txt").read_text(encoding="utf-8") == "mine" and nothing_left(bench.out)


def test_a_device_that_hangs_ends_the_run_by_its_time_out(bench, tmp_path):
    """The child would hang for ever if anything waited for the device's thread."""
    text = """
import threading
def hang(feeds):
    threading.Event().wait()
bench.runtime._run = lambda feeds: hang(feeds) if (folder / "executed").exists() else run(feeds)
"""
    child = start(tmp_path, "--device-timeout", "0.4", text=text + RUN)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 1 and "has not finished an execution within 0.4 s" in said and "Traceback" not in said
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["s1"]
    assert bench.run() == 0 and len(bench.table("metrics.tsv")) == 8


def test_a_second_sigterm_ends_a_run_whose_device_hangs(bench, tmp_path):
    text = """
import threading
from om_runner.registration import loop
loop._GRACE = 0.5
bench.runtime._run = lambda feeds: (run(feeds), threading.Event().wait())
"""
    child = start(tmp_path, text=text + RUN)
    while not (tmp_path / "executed").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    for line in child.stderr:
        if "send the signal again" in line:
            break
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 130 and (bench.out / "run.json").is_file()


def test_an_error_of_the_device_is_still_the_one_reported(bench, monkeypatch):
    def fail(feeds):
        raise AclError("lost", "acl.mdl.execute", 507899)

    monkeypatch.setattr(bench.runtime, "_run", fail)
    with pytest.raises(AclError, match="lost"):
        bench.run("--device-timeout", "0")
    assert nothing_left(bench.out) and (bench.out / STATE_FOLDER / "failed").is_dir()
