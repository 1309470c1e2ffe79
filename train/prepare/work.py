# SPDX-License-Identifier: Apache-2.0
"""Several scans at a time, each in a process of its own: one that dies (out of memory, a fault in a library) is a row,
not the end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Dict, Generator, Iterator, Optional, Sequence, Tuple

from train.prepare.scan import Failure, Job, Outcome, prepare_scan
from train.prepare.subjects import Source

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.5


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_all(job: Job, sources: Sequence[Source]) -> Generator[Tuple[Source, Outcome], None, None]:
    """Each scan with its record or its failure, in the order in which they end; processes are stopped when the caller
    leaves.
    """
    if job.settings.jobs == 0:
        for source in sources:
            yield source, prepare_scan(job, source)
        return
    waiting = list(sources)
    running: Dict[Connection, Tuple[Source, BaseProcess]] = {}
    # Spawned, not forked: libraries with threads of their own do not survive a fork.
    context = get_context("spawn")
    try:
        while waiting or running:
            while waiting and len(running) < job.settings.jobs:
                source = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                child = context.Process(target=_child, args=(theirs, job, source))
                with _one_thread_each():
                    child.start()
                theirs.close()
                running[ours] = (source, child)
            ready = wait(list(running))
            for pipe in [pipe for pipe in running if pipe in ready]:
                source, process = running.pop(pipe)
                outcome = _outcome(pipe, source, process)
                yield source, outcome
    finally:
        _stop(running)


def _child(pipe: Connection, job: Job, source: Source) -> None:
    # A group of its own: Ctrl-C reaches the parent alone, which then ends the group with whatever program it has
    # started.
    parent = os.getppid()
    os.setpgid(0, 0)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe.send(prepare_scan(job, source))
    pipe.close()


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end its children: they notice."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _outcome(ours: Connection, source: Source, process: BaseProcess) -> Outcome:
    try:
        outcome: Optional[Outcome] = ours.recv()
    except EOFError:
        outcome = None
    ours.close()
    process.join()
    if outcome is not None:
        return outcome
    # A program that it had started goes on writing into a folder that is about to be removed.
    if process.pid:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.exitcode or 0
    signalled = f"was ended by signal {-code}: out of memory? pass fewer --jobs"
    why = signalled if code < 0 else f"ended with code {code}, its traceback is above"
    return Failure(source.name, str(source.path), "run", f"its process {why}")


def _stop(running: Dict[Connection, Tuple[Source, BaseProcess]]) -> None:
    for _, process in running.values():
        try:
            os.killpg(process.pid or 0, signal.SIGTERM)
        except ProcessLookupError:
            # It has not made its group yet, or has ended.
            process.terminate()
    for ours, (_, process) in running.items():
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Libraries of a process that starts inside use one thread, because there are as many processes as CPUs."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
