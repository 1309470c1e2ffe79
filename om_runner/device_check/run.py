# SPDX-License-Identifier: Apache-2.0
"""From settings to page and archive: starts processes that climb, waits for each rung, and records what they report."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple, cast

from om_runner.device_check.climb import Request
from om_runner.device_check.ladder import Step, chosen, rung_of
from vxm_convert.artifacts.files import check_output_folder, write_json, write_text
from vxm_convert.artifacts.reports import report_head
from vxm_convert.device_check.archive import ARCHIVE_NAME, CHECK_NAME, PAGE_NAME, write_archive, write_check
from vxm_convert.device_check.page import build_page
from vxm_convert.device_check.points import DIFFERS, FAILED, NOT_DONE, Point, Rung, count, sentence_of
from vxm_convert.device_check.scrub import Scrubber
from vxm_convert.errors import ArtifactError

LOG = logging.getLogger(__name__)

WORK = "work"
_LOG_NAME = "worker.log"
_ROOT = Path(__file__).resolve().parents[2]
#: files of the work folder that go into the archive
_ARCHIVED = ("*.log", "*.csv", "*.npz", "fusion_result.json", "check_result.json")
#: a process that has to be stopped this often in a row will not do better the next time
_GIVE_UP = 2


@dataclass(frozen=True)
class CheckSettings:
    """A parsed command line; `rung_seconds` is the time of a small rung, larger ones get a multiple of it."""

    out: Path
    request: Request
    short: bool
    only: Tuple[str, ...] = ()
    rung_seconds: float = 300.0
    #: argv prefix that starts a process that climbs
    worker: Sequence[str] = (sys.executable, "-m", "om_runner.device_check.worker")


@dataclass
class Check:
    """What the processes reported."""

    rungs: List[Rung] = field(default_factory=list)
    toolchain: Dict[str, Any] = field(default_factory=dict)
    soc_version: str = ""
    versions: Dict[str, Any] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """True unless a process said that its toolchain is real."""
        return self.toolchain.get("simulated") is not False


def run_check(settings: CheckSettings) -> Tuple[str, int]:
    """Climb, write page and archive; returns the text for the terminal and the number of points that are not as
    predicted.

    Raises
    ------
    VxmError
        If the output folder cannot be used, or --only names no rung.
    """
    steps = chosen(settings.short, settings.only)
    check_output_folder(settings.out)
    work = settings.out / WORK
    shutil.rmtree(str(work), ignore_errors=True)
    try:
        work.mkdir(parents=True)
    except OSError as exc:
        raise ArtifactError(f"{work}: cannot be made ({exc.strerror}); choose another --out") from exc
    started = time.monotonic()
    check = _climb(settings, steps, work)
    seconds = time.monotonic() - started
    _write(settings, check, seconds)
    numbers = count(check.rungs)
    lines = [sentence_of(point) for rung in check.rungs for point in rung.points if point.state in (DIFFERS, FAILED)]
    summary = ", ".join(f"{number} {state}" for state, number in numbers.items())
    word = "SIMULATED, no Ascend device took part" if check.simulated else "REAL device"
    lines.append(f"{word}: {summary}, in {seconds:.0f} s: {settings.out / PAGE_NAME}, {settings.out / ARCHIVE_NAME}")
    return "\n".join(lines), numbers[DIFFERS] + numbers[FAILED]


def _climb(settings: CheckSettings, steps: Sequence[Step], work: Path) -> Check:
    check = Check([rung_of(step) for step in steps])
    request = work / "request.json"
    write_json(request, settings.request.to_dict())
    left, stopped = list(range(len(steps))), 0
    while left and stopped < _GIVE_UP:
        names = [steps[at].name for at in left]
        command = list(settings.worker) + ["--request", str(request.resolve()), "--rungs", ",".join(names)]
        done = _one_process(command, work, check, [steps[at] for at in left], settings.rung_seconds)
        stopped = 0 if done > 1 else stopped + 1
        left = left[done:]
    for at in left:
        check.rungs[at].points.append(
            Point(steps[at].name, NOT_DONE, "", f"{_GIVE_UP} rungs before it had to be stopped, so it was left out")
        )
    return check


def _one_process(command: Sequence[str], work: Path, check: Check, steps: Sequence[Step], seconds: float) -> int:
    """Let a process climb; returns the number of rungs that are finished, the one in which it failed included."""
    rungs = {rung.name: rung for rung in check.rungs}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(str(work / _LOG_NAME), "ab") as log:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
        )
    finished, started = 0, time.monotonic()
    try:
        events = _events(cast(IO[bytes], process.stdout))
        while finished < len(steps):
            limit = seconds * steps[finished].share - (time.monotonic() - started)
            event = _next(events, limit)
            if event is None:
                rungs[steps[finished].name].points.append(_ended(process, steps[finished], limit, seconds))
                return finished + 1
            _record(event, check, rungs[steps[finished].name])
            if "begin" in event:
                started = time.monotonic()
                LOG.info("%s: %s", steps[finished].name, steps[finished].question)
            if "end" in event:
                rungs[steps[finished].name].seconds = float(event["seconds"])
                finished, started = finished + 1, time.monotonic()
        return finished
    finally:
        _stop(process)


def _events(stream: IO[bytes]) -> queue.Queue[Optional[Dict[str, Any]]]:
    """The lines of the process as they come; None at its end."""
    events: queue.Queue[Optional[Dict[str, Any]]] = queue.Queue()

    def read() -> None:
        with stream:
            for line in stream:
                try:
                    events.put(json.loads(line.decode("utf-8")))
                except ValueError:
                    LOG.debug("a line of the process is no event: %r", line[:200])
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    return events


def _next(events: queue.Queue[Optional[Dict[str, Any]]], seconds: float) -> Optional[Dict[str, Any]]:
    """The next event, None at the end of the process or of the time."""
    try:
        return events.get(timeout=max(seconds, 0.01))
    except queue.Empty:
        return None


def _record(event: Dict[str, Any], check: Check, rung: Rung) -> None:
    if "toolchain" in event:
        check.toolchain = event["toolchain"] or check.toolchain
        check.soc_version, check.versions = event["soc_version"], event["versions"]
    if "point" in event:
        point = Point.from_dict(event["point"])
        rung.points.append(point)
        (LOG.warning if point.state in (DIFFERS, FAILED) else LOG.info)("  %s", sentence_of(point))


def _ended(process: subprocess.Popen[bytes], step: Step, left: float, seconds: float) -> Point:
    """Why the process gave no more events."""
    try:
        code: Optional[int] = process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        code = None
    if code is None:
        process.kill()
        return Point(
            f"{step.name}: stopped",
            FAILED,
            "an end",
            f"it did not end within {seconds * step.share:.0f} s, and its process was stopped: a call to the device hangs",
            "",
            "look at npu-smi info, end other processes on the device, reset it, and run again with --only "
            f"{step.name}; a slow machine needs a larger --rung-seconds",
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Point(
        f"{step.name}: stopped",
        FAILED,
        "an end",
        f"its process ended by {how}",
        "",
        f"read {WORK}/{_LOG_NAME} in the archive; a library of CANN or of the driver does not fit",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        try:
            process.wait(timeout=10.0 if process.stdout is None or process.stdout.closed else 2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write(settings: CheckSettings, check: Check, seconds: float) -> None:
    """device-check.json, the page and the archive."""
    scrub = Scrubber([(settings.out, "OUT")])
    points = sum(len(rung.points) for rung in check.rungs)
    head = {
        **report_head("device-check", check.toolchain, check.simulated, points),
        "short": settings.short,
        "only": list(settings.only),
        "soc_version": check.soc_version,
        "versions": check.versions,
        "seconds": seconds,
    }
    written = write_check(settings.out, head, check.rungs, scrub)
    data = json.loads(written.read_text(encoding="utf-8"))
    write_text(settings.out / PAGE_NAME, build_page(data, [Rung.from_dict(rung) for rung in data["rungs"]]))
    members = [(CHECK_NAME, written), (PAGE_NAME, settings.out / PAGE_NAME)]
    members += [(path.relative_to(settings.out).as_posix(), path) for path in _logs(settings.out / WORK)]
    write_archive(settings.out, members, scrub)


def _logs(work: Path) -> Iterator[Path]:
    for pattern in _ARCHIVED:
        yield from sorted(path for path in work.rglob(pattern) if path.is_file() and not path.is_symlink())
