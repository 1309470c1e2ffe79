# SPDX-License-Identifier: Apache-2.0
"""log.txt of a subject: warnings while it was read, registered and written, and the seconds of each stage."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple

from om_runner.results.columns import WARNINGS_JOINT
from vxm_convert.text import one_line, printable

_HERE = threading.local()
_LOCK = threading.Lock()
_LONGEST_WARNING = 500


class _Collector(logging.Handler):
    """Appends warnings to the list of the logging thread; one for all threads, so that each is noted once."""

    users = 0

    def emit(self, record: logging.LogRecord) -> None:
        notes = getattr(_HERE, "notes", None)
        if notes is not None:
            notes.append(f"{record.levelname}: {record.getMessage()}")


_COLLECTOR = _Collector(logging.WARNING)


@contextmanager
def collecting() -> Iterator[None]:
    """During a run, `notes_to` collects warnings, whatever the terminal shows. Several threads may be inside."""
    with _LOCK:
        _COLLECTOR.users += 1
        logging.getLogger().addHandler(_COLLECTOR)
    try:
        yield
    finally:
        with _LOCK:
            _COLLECTOR.users -= 1
            if not _COLLECTOR.users:
                logging.getLogger().removeHandler(_COLLECTOR)


def add_notes(notes: Sequence[str]) -> None:
    """Take over warnings that another thread collected for this one."""
    here = getattr(_HERE, "notes", None)
    if here is not None:
        here.extend(notes)


@contextmanager
def notes_to(notes: List[str]) -> Iterator[None]:
    """Warnings of this thread go to `notes` as well, one line each."""
    before = getattr(_HERE, "notes", None)
    _HERE.notes = notes
    try:
        yield
    finally:
        _HERE.notes = before


def warnings_in(notes: Sequence[str], subject: str, files: Sequence[Optional[Path]]) -> Tuple[str, ...]:
    """Lines of `notes_to` as they stand in the table of results: one line each, without level and without the names of
    the subject's own files in front, each once.
    """
    own = sorted({subject, *(name for path in files if path is not None for name in (str(path), path.name))}, key=len)
    found = []
    for note in notes:
        text = note.partition(": ")[2]
        for name in reversed(own):
            if text.startswith(name + ": "):
                text = text[len(name) + 2 :]
                break
        text = printable(one_line(text, _LONGEST_WARNING)).replace(WARNINGS_JOINT, ", ")
        if text and text not in found:
            found.append(text)
    return tuple(found)


def log_text(head: Mapping[str, str], notes: List[str], seconds: Mapping[str, float], closing: str) -> str:
    """The text of log.txt.

    Parameters
    ----------
    head : scan, atlas and model; the toolchain entry says whether it was simulated.
    notes : lines of `notes_to`.
    seconds : stage → wall seconds.
    closing : the result in one line.
    """
    lines = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())]
    lines += [f"{key}: {value}" for key, value in head.items()]
    lines += notes or ["no warnings"]
    lines += [f"{stage}: {wall:.3f} s" for stage, wall in seconds.items()]
    # A line break in the name of a file must not look like a line of this log.
    return "\n".join(printable(line).replace("\n", "\\n") for line in [*lines, closing]) + "\n"
