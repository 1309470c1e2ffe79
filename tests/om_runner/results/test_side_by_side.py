# SPDX-License-Identifier: Apache-2.0
"""Jobs of one subject in several threads, and the files that they write."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from functools import partial

import pytest

from om_runner.registration.timeline import WRITE, Timeline
from om_runner.results import writer as writer_module
from om_runner.results.side_by_side import side_by_side
from om_runner.results.subject_log import collecting, notes_to
from om_runner.results.writer import Writer
from tests.support import fakes
from tests.support.nifti import write_turned
from tests.support.registration_bench import Bench
from vxm_convert.errors import VolumeError


class Load:
    """Something that a job holds."""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_and_warnings_are_in_the_order_of_the_jobs(threads):
    notes = []

    def job(number):
        time.sleep(0.01 * (3 - number))
        logging.getLogger("anything").warning("job %d", number)
        return number

    with collecting(), notes_to(notes):
        ended = side_by_side([partial(job, number) for number in range(3)], threads)
    assert [one.value for one in ended] == [0, 1, 2]
    assert notes == [f"WARNING: job {number}" for number in range(3)]


def test_no_more_threads_than_given_and_all_of_them():
    both, running, most = threading.Barrier(2, timeout=10), [], []

    def job():
        running.append(1)
        most.append(len(running))
        both.wait()
        running.pop()

    side_by_side([job] * 4, 2)
    assert max(most) == 2


def test_the_first_error_is_raised_when_all_have_ended():
    ended = []

    def job(number):
        time.sleep(0.02 if number == 0 else 0)
        ended.append(number)
        if number < 2:
            raise VolumeError(f"job {number}")

    with pytest.raises(VolumeError, match="job 0"):
        side_by_side([partial(job, number) for number in range(4)], 2)
    assert sorted(ended) == [0, 1, 2, 3]


def test_a_job_is_let_go_when_it_has_ended():
    load, alive = Load(), []
    held = weakref.ref(load)
    jobs = [partial(id, load), lambda: alive.append(held() is not None)]
    del load
    side_by_side(jobs, 1)
    assert alive == [False] and jobs == []


def test_processor_time_of_other_threads_is_that_of_the_span():
    def work():
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    timeline = Timeline()
    with timeline.span(WRITE, ["a"]) as span:
        span.elsewhere = sum(one.cpu for one in side_by_side([work, work], 2))
    assert timeline.sums[WRITE].cpu >= 0.1


def files(bench):
    return {str(path.relative_to(bench.out)): path.read_bytes() for path in bench.out.rglob("*.nii.gz")}


def pictures(bench):
    return {str(path.relative_to(bench.out)): path.read_bytes() for path in bench.out.rglob("*.png")}


def test_files_and_pictures_are_the_same_for_any_number_of_threads(tmp_path, monkeypatch):
    """An atlas with several times the voxels of the network's grid gives a scan several threads."""
    bench, used = Bench(tmp_path, monkeypatch), []
    bench.inputs.mkdir()
    write_turned(bench.inputs, "a", "RAS", pad=2)
    write_turned(tmp_path, "atlas", "LIA", seed=0, pad=6)
    bench.atlas = tmp_path / "atlas.nii.gz"
    together = writer_module.side_by_side
    monkeypatch.setattr(
        writer_module, "side_by_side", lambda jobs, threads: used.append(threads) or together(jobs, threads)
    )
    wanted = ("--outputs", "moved,warp,inverse,seg,jacobian,qc")
    assert bench.run(*wanted, "--threads", "3") == 0
    found = files(bench), pictures(bench)
    assert bench.run(*wanted, "--threads", "1", "--force") == 0
    assert (files(bench), pictures(bench)) == found and len(found[0]) == 6 and len(found[1]) > 8
    assert used == [3, 1]


def test_pictures_that_fail_leave_no_folder(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    fakes.write_scan(bench.inputs / "a.npz", 1)

    def fail(*_):
        raise VolumeError("no picture")

    monkeypatch.setattr("om_runner.qc.from_run.draw", fail)
    assert bench.run("--outputs", "moved,qc") == 1
    assert [row["reason"] for row in bench.table("failures.tsv")] == ["no picture"]
    assert not (bench.out / "a").exists() and not list(bench.out.glob("qc/a"))


def test_the_inverse_is_let_go_before_the_pictures_are_drawn(tmp_path, monkeypatch):
    bench, held, alive = Bench(tmp_path, monkeypatch), [], []
    fakes.write_scan(bench.inputs / "a.npz", 1)
    from om_runner.qc import from_run

    write, draw = Writer._write_inverse, from_run.draw

    def written(self, folder, loaded, found, provenance):
        held.append(weakref.ref(found.warp.u))
        return write(self, folder, loaded, found, provenance)

    def drawn(case):
        alive.extend(one() is not None for one in held)
        return draw(case)

    monkeypatch.setattr(Writer, "_write_inverse", written)
    monkeypatch.setattr(from_run, "draw", drawn)
    assert bench.run("--outputs", "moved,warp,inverse,qc") == 0
    assert alive == [False]
