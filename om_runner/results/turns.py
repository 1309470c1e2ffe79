# SPDX-License-Identifier: Apache-2.0
"""Whose turn a scan is: this process's, another's that works on it, or nobody's, because another has done it already."""

from __future__ import annotations

import logging
import time
from enum import Enum
from typing import Callable, List, Mapping, Optional, Sequence, Tuple

from om_runner.inputs.scans import Scan
from om_runner.results.failures import FailureRecords
from om_runner.results.resume import Records
from om_runner.sharing.claims import Claims

LOG = logging.getLogger(__name__)

Stamps = Tuple[object, object]
#: seconds between two looks at the claims of others: the first gap, its growth, the longest
_FIRST_GAP, _GROWTH, _LONGEST_GAP = 0.2, 1.5, 5.0


class Turn(Enum):
    """What is to be done with a scan."""

    OURS = "ours"
    HELD = "held"
    DONE = "done"


class Turns:
    """Claims on scans, together with their records.

    Parameters
    ----------
    claims : Claims
    records, failures : of the output folder.
    scans : the scans that this process would register; their records of now are those of earlier runs.
    before : subject → stamps of the records of earlier runs, from another process of the same run, instead.
    """

    def __init__(
        self,
        claims: Claims,
        records: Records,
        failures: FailureRecords,
        scans: Sequence[Scan],
        before: Optional[Mapping[str, Stamps]] = None,
    ) -> None:
        self._claims, self._records, self._failures = claims, records, failures
        if before is None:
            before = {scan.subject: self._stamps(scan.subject) for scan in scans}
        self._before = before

    def before(self, subject: str) -> Stamps:
        """Stamps of the records of earlier runs."""
        return self._before[subject]

    def take(self, subject: str) -> Turn:
        """Claim a scan if it is still to be done."""
        held = self._claims.take(subject)
        if held is not None:
            LOG.debug("%s: in work by %s", subject, held.by)
            return Turn.HELD
        if self.done(subject):
            self._claims.release(subject)
            return Turn.DONE
        return Turn.OURS

    def done(self, subject: str) -> bool:
        """Whether another process has finished the scan, or failed with it, since this run began."""
        return any(
            now is not None and now != before for before, now in zip(self._before[subject], self._stamps(subject))
        )

    def ours(self, subject: str) -> bool:
        """Whether a claim that was taken still holds."""
        return self._claims.holds(subject)

    def release(self, subject: str) -> None:
        """Give a scan back, done or not."""
        self._claims.release(subject)

    def wait(self, scans: Sequence[Scan], done: Callable[[Scan], object], stop: Callable[[], bool]) -> List[Scan]:
        """Wait for the scans that other processes hold; returns those that nobody holds any more and nobody has done.

        Parameters
        ----------
        done : callable — called with each scan that another process has done.
        """
        left, told, gap = list(scans), False, _FIRST_GAP
        while left and not stop():
            free: List[Scan] = []
            for scan in list(left):
                turn = self.take(scan.subject)
                if turn is Turn.HELD:
                    continue
                left.remove(scan)
                if turn is Turn.DONE:
                    done(scan)
                else:
                    self._claims.release(scan.subject)
                    free.append(scan)
            if free:
                return free + left
            if left and not told:
                told = True
                LOG.info("waiting for %d scans that other processes work on: %s", len(left), _some(left))
            time.sleep(gap if left else 0)
            gap = min(gap * _GROWTH, _LONGEST_GAP)
        return []

    def _stamps(self, subject: str) -> Stamps:
        return self._records.stamp(subject), self._failures.stamp(subject)


def _some(scans: Sequence[Scan], most: int = 5) -> str:
    return ", ".join(scan.subject for scan in scans[:most]) + (" …" if len(scans) > most else "")
