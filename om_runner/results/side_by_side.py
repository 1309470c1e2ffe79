# SPDX-License-Identifier: Apache-2.0
"""The jobs of one subject in several threads: warnings, errors and processor time are those of the thread that waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, NamedTuple, Tuple, TypeVar

from om_runner.results.subject_log import add_notes, notes_to
from vxm_convert.processor_time import thread_seconds

T = TypeVar("T")
Job = Callable[[], T]


class Ended(NamedTuple):
    """What a job returned, and its processor seconds."""

    value: Any
    cpu: float


def side_by_side(jobs: List[Job[T]], threads: int) -> List[Ended]:
    """Do all jobs, `threads` at a time and the first ones first; what they returned, in their order.

    Parameters
    ----------
    jobs : list of callable — emptied: what a job holds is let go when it has ended.

    Raises
    ------
    Exception
        The error of the first one in the list that failed, when all have ended.
    """
    with ThreadPoolExecutor(threads, "files") as pool:
        futures = []
        while jobs:
            futures.append(pool.submit(_ended, jobs.pop(0)))
    ended = []
    for future in futures:
        notes, result = future.result()
        add_notes(notes)
        ended.append(result)
    return ended


def _ended(job: Job[T]) -> Tuple[List[str], Ended]:
    notes: List[str] = []
    started = thread_seconds()
    with notes_to(notes):
        value = job()
    return notes, Ended(value, thread_seconds() - started)
