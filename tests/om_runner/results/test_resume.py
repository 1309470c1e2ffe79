# SPDX-License-Identifier: Apache-2.0
"""What a second run into a folder does: skips what is finished, redoes what changed or broke, keeps rows, survives
being killed.
"""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from om_runner.names import STATE_FOLDER
from om_runner.registration import progress
from om_runner.registration.timeline import STAGES
from om_runner.results.layout import Layout
from om_runner.results.resume import Records
from om_runner.sharing.folder import output_folder
from tests.support import fakes
from tests.support.forked import ROOT, run_python
from tests.support.registration_bench import Bench
from vxm_convert.errors import AclError, ArtifactError

pytestmark = pytest.mark.any_python("hashes and records in JSON; sharing/test_kill_sweep resumes runs on both")

#: a run of the bench in a process of its own; what follows it is appended
CHILD = """
import logging, os, signal, sys, pytest
logging.basicConfig()
# A shell that puts the tests into the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from tests.support.registration_bench import Bench
bench = Bench(Path(sys.argv[1]), pytest.MonkeyPatch())
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    for seed, name in enumerate("abc", 1):
        fakes.write_scan(made.inputs / f"{name}.npz", seed)
    return made


def subjects(bench):
    return [row["subject"] for row in bench.table("metrics.tsv")]


def state_of(folder):
    """Every file with its content and time."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def n_fed(bench, *options, code=0):
    """How many batches the device was given."""
    bench.runtime.fed.clear()
    assert bench.run(*options) == code
    return len(bench.runtime.fed)


def test_an_unchanged_cohort_is_not_registered_again(bench, monkeypatch):
    bench.run()
    before, table = state_of(bench.out / "a"), (bench.out / "metrics.tsv").read_bytes()
    monkeypatch.setattr(bench.runtime, "_open", lambda: pytest.fail("the device was opened for nothing"))
    bench.runtime.fed.clear()
    assert bench.run() == 0 and not bench.runtime.fed
    assert state_of(bench.out / "a") == before and (bench.out / "metrics.tsv").read_bytes() == table
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert (run["registered"], run["taken_over"], run["timing"], len(run["inputs"])) == (3, 3, None, 3)


def test_a_new_scan_is_added_in_its_place(bench):
    bench.run()
    before = state_of(bench.out / "b")
    fakes.write_scan(bench.inputs / "ab.npz", 7)
    assert n_fed(bench) == 1 and subjects(bench) == ["a", "ab", "b", "c"]
    assert state_of(bench.out / "b") == before


@pytest.mark.parametrize(
    "options, why",
    [
        (("--space", "network"), "other settings: space"),
        (("--outputs", "moved"), "other settings: outputs"),
        (("--labels", "seed30"), "other settings: labels"),
        (("--intensity", "percentile"), "other settings: intensity"),
        (("--warp-format", "fsl"), "other settings: warp_format"),
    ],
)
def test_settings_that_change_results_are_refused_without_force(bench, capsys, options, why):
    bench.run()
    before = state_of(bench.out)
    capsys.readouterr()
    assert bench.run("--dry-run", *options) == 0
    assert capsys.readouterr().out.count(why) == 3
    named = options[0][2:].replace("-", "_")
    with pytest.raises(
        ArtifactError, match=f"its results have other settings: {named} is .* there and .* here; .*--force"
    ):
        bench.run(*options)
    assert state_of(bench.out) == before
    assert n_fed(bench, "--force", *options) == 3
    assert n_fed(bench, *options) == 0, "the folder has these settings now"


def test_settings_may_change_while_nothing_is_registered(bench):
    """Scans that all fail are registered with another setting, as the message about them says."""
    for name in "abc":
        fakes.write_scan(bench.inputs / f"{name}.npz", 1, vol=fakes.brain(1)[0] * np.float32(7))
    assert n_fed(bench, code=1) == 0
    assert n_fed(bench, "--intensity", "percentile") == 3 and not bench.table("failures.tsv")


def test_force_registers_all_again(bench, capsys):
    bench.run()
    assert bench.run("--dry-run", "--force") == 0
    assert capsys.readouterr().out.count("--force") == 3
    assert n_fed(bench, "--force") == 3


def test_results_that_laxer_limits_let_pass_are_judged_again(bench, tmp_path, capsys):
    """And those that met stricter ones are kept."""

    def profile(name, share):
        path = tmp_path / name
        limits = f"limits: {{}}\nplausible: {{displacement.share: {{max: {share}}}}}\n"
        path.write_text(f"schema: 1\nname: p\ndescription: for a test\n{limits}")
        return ("--profile", str(path))

    bench.run()
    assert bench.run("--dry-run", *profile("wide.yaml", 9)) == 0
    assert capsys.readouterr().out.count("judged by laxer limits of plausibility") == 3
    assert n_fed(bench, *profile("wide.yaml", 9)) == 3
    assert n_fed(bench, *profile("wider.yaml", 10)) == 0 and n_fed(bench) == 0
    assert n_fed(bench, *profile("narrow.yaml", 8)) == 3


@pytest.mark.parametrize("options", [("--threads", "3"), ("--trace", "trace.json"), ("--compare", "none")])
def test_settings_that_do_not_change_results_register_nothing(bench, tmp_path, options):
    bench.run()
    options = [str(tmp_path / o) if o.endswith(".json") else o for o in options]
    assert n_fed(bench, *options) == 0


def test_what_the_key_holds(bench, monkeypatch, capsys):
    seg = bench.inputs / "a_seg.npz"
    fakes.write_scan(bench.inputs / "a.npz", 1, with_seg=False)
    fakes.write_scan(seg, 1)
    bench.run()

    def why():
        capsys.readouterr()
        assert bench.run("--dry-run") == 0
        return dict(
            line.split("  ", 2)[1:] for line in capsys.readouterr().out.replace("register  ", "x  ").splitlines()[:3]
        )

    fakes.write_scan(bench.inputs / "b.npz", 9)
    fakes.write_scan(seg, 5)
    assert [text.split(": ")[1] for text in why().values() if "unchanged" not in text] == [
        "the scan's segmentation changed",
        "the scan changed",
    ]
    fakes.write_scan(bench.atlas, 6)
    assert all("another atlas" in text for text in why().values())
    monkeypatch.setattr(bench.model.toolchain.__class__, "describe", lambda self: {"kind": "cann", "version": "9"})
    assert all(
        "another toolchain, another atlas" in text or "another atlas, another toolchain" in text
        for text in why().values()
    )


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: path.write_bytes(b""),
    ],
)
@pytest.mark.parametrize("name", ["moved.nii.gz", "flow.nii.gz.json"])
def test_a_damaged_result_is_made_again(bench, capsys, harm, name):
    bench.run()
    good = (bench.out / "b" / name).read_bytes()
    harm(bench.out / "b" / name)
    capsys.readouterr()
    bench.run("--dry-run")
    said = capsys.readouterr().out
    assert f"b/{name} is " in said and "1 to register, 2 to skip" in said
    assert n_fed(bench) == 1 and (bench.out / "b" / name).read_bytes() == good and subjects(bench) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text", ["", "[]", "not json", '{"key": {}, "files": {}, "row": {}}', '{"key": 1, "files": 2, "row": 3}']
)
def test_a_damaged_record_is_none(bench, text):
    bench.run()
    (bench.out / STATE_FOLDER / "b.json").write_text(text, encoding="utf-8")
    assert Records(Layout(bench.out)).read("b") is None
    assert n_fed(bench) == 1 and subjects(bench) == ["a", "b", "c"]


def test_a_record_with_another_figure_is_none(bench):
    bench.run()
    path = bench.out / STATE_FOLDER / "b.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    assert Records(Layout(bench.out)).read("b") is not None
    data["row"]["flow_max_voxel"] += 1.0
    path.write_text(json.dumps(data), encoding="utf-8")
    assert Records(Layout(bench.out)).read("b") is None


def test_failed_scans_are_tried_again_alone_on_request(bench, capsys):
    good = (bench.inputs / "b.npz").read_bytes()
    (bench.inputs / "b.npz").write_bytes(b"broken")
    (bench.inputs / "c.npz").write_bytes(b"broken")
    assert bench.run() == 1
    (bench.inputs / "b.npz").write_bytes(good)
    fakes.write_scan(bench.inputs / "new.npz", 8)
    capsys.readouterr()
    assert bench.run("--retry-failed", "--dry-run") == 1
    out = capsys.readouterr().out
    assert out.count("failed before") == 1 and out.count("refuse    c") == 1
    assert n_fed(bench, "--retry-failed", code=1) == 1
    assert subjects(bench) == ["a", "b"] and [row["subject"] for row in bench.table("failures.tsv")] == ["c"]


def test_retry_without_a_run_before_is_refused(bench):
    with pytest.raises(ArtifactError, match="no run has ended there; register without --retry-failed"):
        bench.run("--retry-failed")
    assert not bench.out.exists()


def test_a_limit_keeps_the_rows_of_the_scans_that_it_leaves_out(bench):
    (bench.inputs / "c.npz").write_bytes(b"broken")
    bench.run()
    fakes.write_scan(bench.inputs / "a.npz", 9)
    assert n_fed(bench, "--limit", "1", code=1) == 1
    assert subjects(bench) == ["a", "b"] and [row["subject"] for row in bench.table("failures.tsv")] == ["c"]
    assert n_fed(bench, "--limit", "1", "--labels", "seed30", "--force", code=1) == 1
    assert subjects(bench) == ["a"], "rows of other settings are not mixed in"


def test_a_partial_run_says_what_is_missing_and_is_no_success(bench, caplog):
    assert n_fed(bench, "--limit", "1", code=1) == 1
    assert subjects(bench) == ["a"] and not bench.table("failures.tsv")
    assert "2 of 3 scans are still missing, neither registered nor failed: b, c" in caplog.text
    assert n_fed(bench) == 2


def test_a_retry_after_a_lost_device_says_what_it_never_reached(bench, caplog):
    """The device is lost at the second scan; the one that failed is tried again, the third is nobody's."""
    lost = []

    def lose(outputs):
        lost.append(1)
        if len(lost) == 2:
            raise AclError("device lost", "acl.mdl.execute", 507899)

    bench.runtime.spoil = lose
    with pytest.raises(AclError):
        bench.run("--threads", "1")
    failed = [row["subject"] for row in bench.table("failures.tsv")]
    assert "still missing" in caplog.text, "the run that lost its device says it too"
    caplog.clear()
    bench.runtime.spoil = lambda outputs: None
    assert bench.run("--retry-failed") == 1
    missing = sorted({"a", "b", "c"} - {"a", *failed})
    assert subjects(bench) == sorted({"a", *failed}) and not bench.table("failures.tsv") and missing
    assert f"{len(missing)} of 3 scans are still missing" in caplog.text
    assert bench.run() == 0 and subjects(bench) == ["a", "b", "c"]


def test_a_dry_run_writes_nothing_and_opens_no_device(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench.runtime, "_open", lambda: pytest.fail("the device was opened"))
    assert bench.run("--dry-run", "--compare", "1") == 0
    out = capsys.readouterr().out
    assert not bench.out.exists() and out.count("no finished result") == 3 and "SIMULATED" in out.splitlines()[-1]
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["register", name] for name in "abc"]


def run_child(folder, text):
    return run_python(["-c", CHILD + text, folder], ROOT, dict(os.environ))


def test_a_killed_run_loses_nothing_finished(bench, tmp_path, caplog):
    """Killed while the third scan is on the device, when the first two have their records."""
    done = run_child(
        tmp_path,
        """
real, seen = bench.runtime._run, []
def run(feeds):
    seen.append(0)
    while len(seen) == 3 and not all((bench.out / ".om_runner" / f"{n}.json").is_file() for n in "ab"):
        pass
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(feeds)
bench.runtime._run = run
bench.run()
""",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = state_of(bench.out / "a")
    assert n_fed(bench) == 1 and subjects(bench) == ["a", "b", "c"]
    assert state_of(bench.out / "a") == before and "was killed; its finished results are kept" in caplog.text
    assert not list(bench.out.glob(".tmp-*")) + list(bench.out.glob(".compare-*"))


def test_a_run_killed_between_old_and_new_result_keeps_one(bench, tmp_path):
    bench.run()
    before = (bench.out / "b" / "moved.nii.gz").read_bytes()
    done = run_child(
        tmp_path,
        """
real = os.replace
def replace(source, target):
    real(source, target)
    if str(target).endswith("-old/b"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
bench.run("--force", "--threads", "1")
""",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (bench.out / "b").exists()
    with output_folder(bench.out):
        assert (bench.out / "b" / "moved.nii.gz").read_bytes() == before
    assert bench.run() == 0 and subjects(bench) == ["a", "b", "c"]
    assert (bench.out / "b" / "moved.nii.gz").read_bytes() == before


def test_failures_of_a_killed_run_can_be_retried(bench, tmp_path):
    (bench.inputs / "a.npz").write_bytes(b"broken")
    done = run_child(tmp_path, "bench.runtime._run = lambda feeds: os.kill(os.getpid(), signal.SIGKILL)\nbench.run()\n")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["subject"] for row in bench.table("failures.tsv")] == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_writes_its_tables_and_finishes_what_the_device_has(bench, tmp_path, number):
    done = run_child(
        tmp_path,
        f"""
import time
from vxm_convert.cliargs import run_main
real = bench.runtime._run
def run(feeds):
    if len(bench.runtime.fed) == 1:
        os.kill(os.getpid(), {int(number)})
        time.sleep(0.3)
    return real(feeds)
bench.runtime._run = run
sys.exit(run_main(lambda: bench.run(), "om_runner"))
""",
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert subjects(bench) == ["a", "b"], "b was on the device when the signal came, c had not begun"
    assert "send the signal again to stop immediately" in done.stderr and "finished results are kept" in done.stderr
    assert [name for name in "abc" if Records(Layout(bench.out)).read(name) is not None] == subjects(bench)
    assert (bench.out / "run.json").is_file() and not list(bench.out.glob(".tmp-*"))
    assert n_fed(bench) == 1 and subjects(bench) == ["a", "b", "c"]


def test_a_second_signal_stops_at_once(bench, tmp_path):
    done = run_child(
        tmp_path,
        """
import threading, time
from vxm_convert.cliargs import run_main
real = bench.runtime._run
def run(feeds):
    os.kill(os.getpid(), signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    return real(feeds)
bench.runtime._run = run
sys.exit(run_main(lambda: bench.run(), "om_runner"))
""",
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert len(subjects(bench)) <= 1 and (bench.out / "run.json").is_file()


def test_every_subject_has_a_log(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, spoil=lambda outputs: outputs["flow"].fill(0))
    fakes.write_scan(bench.inputs / "a.npz", 1)
    bench.run()
    text = (bench.out / "a" / "log.txt").read_text(encoding="utf-8")
    assert "toolchain: SIMULATED sim-test" in text and "WARNING: a: longest displacement 0 voxel" in text
    assert "left/right flip suspected" in text, "said by the reading thread"
    assert [f"\n{stage}: " in text for stage in (*STAGES, "all stages")] == [True] * 7
    assert "registered: dice_before " in text


def test_lines_come_at_growing_distances(caplog):
    now = [0.0]
    lines = progress.Lines(1000, "registration", clock=lambda: now[0])
    with caplog.at_level("INFO"):
        for _ in range(1000):
            now[0] += 1
            lines.update(1)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "registration: 10 of 1000 scans done, about 16 min 30 s left"
    assert said[-1] == "registration: 1000 of 1000 scans done in 16 min 40 s"
    assert 5 < len(said) < 12


def test_a_second_device_error_does_not_hide_the_first(bench, monkeypatch):
    def fail(feeds):
        raise AclError(f"execution {len(bench.runtime.fed)} failed", "acl.mdl.execute", 507018)

    monkeypatch.setattr(bench.runtime, "_run", fail)
    with pytest.raises(AclError, match="execution 0 failed"):
        bench.run()
    assert [row["subject"] for row in bench.table("failures.tsv")] == ["a"]


@pytest.mark.parametrize("length", [230, 247, 251])
def test_a_long_name_is_registered_whole_and_taken_over(bench, length):
    """Names are as long as file systems allow; temporary names and records must not be longer."""
    name = "x" * length
    fakes.write_scan(bench.inputs / f"{name}.npz", 5)
    assert bench.run() == 0 and subjects(bench) == ["a", "b", "c", name]
    assert n_fed(bench) == 0 and not list(bench.out.rglob(".tmp-*"))
