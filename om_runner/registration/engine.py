# SPDX-License-Identifier: Apache-2.0
"""How scans are carried to devices: in this process to one, or by another engine to many."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ContextManager, Dict, List, Optional, Sequence

from om_runner.inputs.scans import Scan
from om_runner.precision.store import CompareStore
from om_runner.registration.job import Job
from om_runner.registration.recorder import Recorder
from om_runner.registration.timeline import Timeline
from om_runner.results.turns import Turns
from om_runner.sharing.claims import Claims

if TYPE_CHECKING:
    from om_runner.qc.from_run import Pictures


@dataclass(frozen=True)
class Work:
    """What an engine needs to register scans and to note what becomes of them."""

    job: Job
    store: CompareStore
    recorder: Recorder
    turns: Turns
    timeline: Timeline
    pictures: Optional[Pictures] = None


class Engine(abc.ABC):
    """Carries scans to devices."""

    @abc.abstractmethod
    def opened(self, job: Job, claims: Claims, scans: Sequence[Scan], timeline: Timeline) -> ContextManager[object]:
        """The devices, with the model loaded; nothing in the output folder is changed before. Meanwhile scans may be read."""

    @abc.abstractmethod
    def run(self, work: Work, scans: Sequence[Scan]) -> None:
        """Register all scans; raises VxmError if the run must stop, KeyboardInterrupt after a stop by the user."""

    def devices(self, wall: float) -> List[Dict[str, Any]]:
        """A row per device with its share of `wall` seconds; empty if there is only the one of this process."""
        return []
