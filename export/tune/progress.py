# SPDX-License-Identifier: Apache-2.0
"""Says how a search is going, on a terminal; elsewhere only with --verbose."""

from __future__ import annotations

import logging
import statistics
import sys
from typing import List

from export.tune.trials import Atoms, Verdict

_LOG = logging.getLogger(__name__)


class Progress:
    """Lines with a number, a verdict and how long the rest may take at most: the median candidate times what the budget
    allows.

    Parameters
    ----------
    budget : int — candidates at most.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._done = 0
        self._seconds: List[float] = []
        self._level = logging.INFO if sys.stderr.isatty() else logging.DEBUG

    def tell(self, atoms: Atoms, verdict: Verdict, seconds: float, known: bool) -> None:
        """One candidate is judged; `known` ones came from the journal and say nothing about time."""
        self._done += 1
        if not known:
            self._seconds.append(seconds)
        word = "invalid" if verdict.invalid else "accepted" if verdict.accepted else "rejected"
        _LOG.log(
            self._level,
            "candidate %d of at most %d, %d kept: %s, %s%s%s",
            self._done,
            self._budget,
            len(atoms),
            word,
            verdict.reason,
            " (from the journal)" if known else f"; {seconds:.0f} s",
            self._rest(),
        )

    def _rest(self) -> str:
        left = self._budget - self._done
        if not self._seconds or left <= 0:
            return ""
        return f"; at most {_span(statistics.median(self._seconds) * left)} to go"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"
