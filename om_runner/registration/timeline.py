# SPDX-License-Identifier: Apache-2.0
"""Times of each stage and subject: sums for the summary and, on request, a trace in Chrome's format.

The file is a JSON object for chrome://tracing and Perfetto: ``traceEvents`` with complete events (``ph`` X, times in
microseconds since the start) and the names of process and threads (``ph`` M), ``otherData`` with the toolchain. Events
are written as they end, so that memory does not grow with the cohort.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

from vxm_convert.artifacts.files import atomic_path
from vxm_convert.processor_time import thread_seconds

DECODE, H2D, EXECUTE, D2H, PRODUCTS, WRITE = STAGES = ("decode", "H2D", "execute", "D2H", "products", "write")


@dataclass
class Span:
    """One piece of work: seconds of wall time, and of the thread's own processor time; `elsewhere`: of other threads that it
    waits for, which whoever does the work notes.
    """

    wall: float = 0.0
    cpu: float = 0.0
    elsewhere: float = 0.0


class Timeline:
    """Sums per stage; with a path also the trace. A context manager: the complete trace appears on exit, also after an
    error.

    Parameters
    ----------
    path : Path or None — file of the trace.
    about : dict — metadata of the trace: toolchain, whether simulated.
    keep_events : bool — collect `events` for the timeline of another process; their times are seconds since 1970.
    """

    def __init__(
        self, path: Optional[Path] = None, about: Optional[Dict[str, Any]] = None, keep_events: bool = False
    ) -> None:
        self.sums = {stage: Span() for stage in STAGES}
        #: wall seconds of the first execution, which warms the device up
        self.first_execution: Optional[float] = None
        self._path, self._about = path, about or {}
        self._start = time.perf_counter()
        self._epoch = time.time() - self._start
        self._keep = keep_events
        self.events: List[Dict[str, Any]] = []
        self._lanes: Dict[str, int] = {}
        self._lock = threading.Lock()
        self._threads: Dict[Tuple[int, str], int] = {}
        self._file: Optional[TextIO] = None
        self._stack = ExitStack()

    def __enter__(self) -> Timeline:
        if self._path is not None:
            temporary = self._stack.enter_context(atomic_path(self._path))
            self._file = self._stack.enter_context(open(str(temporary), "w", encoding="utf-8"))
            name = "om_runner, SIMULATED device" if self._about.get("simulated") else "om_runner"
            self._file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            self._file.write(
                json.dumps({"name": "process_name", "ph": "M", "pid": os.getpid(), "tid": 0, "args": {"name": name}})
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._lock:
                self._file.write('\n], "otherData": ' + json.dumps(self._about, sort_keys=True) + "}\n")
                self._file = None
        # Also after an exception: the trace of a failed run is the most useful.
        self._stack.close()

    @contextmanager
    def span(self, stage: str, subjects: Sequence[str]) -> Iterator[Span]:
        """Time the body of a with statement, in its thread."""
        done = Span()
        started, cpu = time.perf_counter(), thread_seconds()
        try:
            yield done
        finally:
            ended = time.perf_counter()
            done.wall, done.cpu = ended - started, thread_seconds() - cpu + done.elsewhere
            self._add(stage, subjects, started, done)

    def _add(self, stage: str, subjects: Sequence[str], started: float, done: Span) -> None:
        with self._lock:
            self.sums[stage].wall += done.wall
            self.sums[stage].cpu += done.cpu
            if stage == EXECUTE and self.first_execution is None:
                self.first_execution = done.wall
            if self._file is None and not self._keep:
                return
            event = {
                "name": stage,
                "cat": "device" if stage == EXECUTE else "host",
                "ph": "X",
                "pid": os.getpid(),
                "tid": self._thread(),
                "ts": round((started - self._start) * 1e6, 1),
                "dur": round(done.wall * 1e6, 1),
                "args": {"subject": ", ".join(subjects), "cpu_ms": round(done.cpu * 1e3, 2)},
            }
            if self._keep:
                self.events.append({**event, "ts": self._epoch + started})
            else:
                self._line(event)

    def _line(self, event: Dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(",\n" + json.dumps(event))

    def add(self, lane: str, sums: Mapping[str, Tuple[float, float]], events: Sequence[Dict[str, Any]]) -> None:
        """Take over sums and events of another process, which has a lane of its own in the trace."""
        with self._lock:
            for stage, (wall, cpu) in sums.items():
                self.sums[stage].wall += wall
                self.sums[stage].cpu += cpu
            if self._file is None:
                return
            number = self._lanes.get(lane)
            if number is None:
                number = self._lanes[lane] = len(self._lanes) + 1
                self._line({"name": "process_name", "ph": "M", "pid": -number, "tid": 0, "args": {"name": lane}})
            for event in events:
                # Process numbers of several machines may be the same: lanes have negative ones.
                shifted = round((event["ts"] - self._epoch - self._start) * 1e6, 1)
                self._line({**event, "pid": -number, "ts": shifted})

    def _thread(self) -> int:
        """A small number for the calling thread; the trace names the thread at its first event."""
        current = threading.current_thread()
        # The system gives a number again when its thread has ended.
        identity = threading.get_ident(), current.name
        number = self._threads.get(identity)
        if number is None:
            number = self._threads[identity] = len(self._threads) + 1
            named = {
                "name": "thread_name",
                "ph": "M",
                "pid": os.getpid(),
                "tid": number,
                "args": {"name": current.name},
            }
            self._line(named)
        return number

    @property
    def host_cpu(self) -> float:
        """Processor seconds of everything except the execution."""
        return sum(span.cpu for stage, span in self.sums.items() if stage != EXECUTE)
