# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: a bar with the remaining time on a terminal, elsewhere occasional log lines."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator

LOG = logging.getLogger(__name__)

_BAR_COLUMNS = 80
#: seconds between lines: the first gap, the growth factor, and the longest gap
_FIRST_GAP, _GROWTH, _LONGEST_GAP = 10.0, 1.5, 600.0


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], Any]]:
    """Yields a function that takes the number of scans just done; log lines do not break the bar."""
    if not on_terminal():
        yield Lines(total, what).update
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    # Some pseudo-terminals report a size of 0x0, on which tqdm draws nothing: both sizes are passed.
    width = min(shutil.get_terminal_size().columns or _BAR_COLUMNS, _BAR_COLUMNS)
    with logging_redirect_tqdm(), tqdm(total=total, unit=" scan", desc=what, ncols=width, nrows=2) as bar:
        yield bar.update


class Lines:
    """Log lines at growing intervals, and always at the last scan.

    Parameters
    ----------
    total : int — number of scans.
    what : str — name of the work: ``registration``.
    clock : callable — seconds.
    """

    def __init__(self, total: int, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._what, self._clock = total, what, clock
        self._done = 0
        self._start = clock()
        self._gap = _FIRST_GAP
        self._next = self._start + self._gap

    def update(self, n: int) -> None:
        """Report `n` more finished scans."""
        self._done += n
        now = self._clock()
        if self._done >= self._total:
            LOG.info("%s: %d of %d scans done in %s", self._what, self._done, self._total, duration(now - self._start))
        elif now >= self._next:
            left = (now - self._start) / self._done * (self._total - self._done)
            LOG.info("%s: %d of %d scans done, about %s left", self._what, self._done, self._total, duration(left))
            self._gap = min(self._gap * _GROWTH, _LONGEST_GAP)
            self._next = now + self._gap


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(int(round(seconds)), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
