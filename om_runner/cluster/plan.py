# SPDX-License-Identifier: Apache-2.0
"""The scans of a run that still have to be handed out: in order, back from lost workers, or held by other processes."""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, List, Sequence, Set

from om_runner.inputs.scans import Scan

#: workers whose device may be lost with a scan, or that may have no room for its results, before it counts as failed
_MOST_WORKERS = 2


class Plan:
    """What to hand out next.

    Parameters
    ----------
    scans : in order.
    batch : int — scans per execution of the model.
    """

    def __init__(self, scans: Sequence[Scan], batch: int) -> None:
        self._todo: Deque[Scan] = deque(scans)
        self._held: List[Scan] = []
        self._batch = batch
        self._workers: Dict[str, Set[str]] = {}

    @property
    def ready(self) -> bool:
        """Whether there is something to hand out now."""
        return bool(self._todo)

    @property
    def more(self) -> bool:
        """Whether anything is left, in work elsewhere or not."""
        return bool(self._todo or self._held)

    def next(self) -> List[Scan]:
        """The scans of one execution."""
        return [self._todo.popleft() for _ in range(min(self._batch, len(self._todo)))]

    def back(self, scan: Scan) -> None:
        """Hand a scan out again, before the others: it has waited longest."""
        self._todo.appendleft(scan)

    def later(self, scan: Scan) -> None:
        """Hand a scan out after the next look at the cluster: another process holds it, or its worker had no room."""
        self._held.append(scan)

    def look_again(self) -> None:
        """Held scans are asked for again."""
        self._todo.extend(self._held)
        self._held = []

    def again(self, scan: Scan, worker: str) -> bool:
        """Whether a scan that a worker could not finish may be tried on another."""
        tried = self._workers.setdefault(scan.subject, set())
        tried.add(worker)
        return len(tried) < _MOST_WORKERS
