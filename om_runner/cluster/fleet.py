# SPDX-License-Identifier: Apache-2.0
"""The workers of a run: who is there, who died, and what each device did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

from om_runner.cluster.order import DONE, FAILED, Report


@dataclass
class _Device:
    """What a device did."""

    scans: int = 0
    failed: int = 0
    busy: float = 0.0
    loaded: float = 0.0


class Fleet:
    """Workers by address, devices by host and number."""

    def __init__(self) -> None:
        self.living: Set[str] = set()
        self.reasons: List[str] = []
        self._retired: Set[str] = set()
        self._tokens: Dict[str, str] = {}
        self._devices: Dict[Tuple[str, int], _Device] = {}
        self._no_workers: Optional[float] = None
        #: address → scans in a row for whose results a worker had no room
        self._full: Dict[str, int] = {}

    @property
    def gone(self) -> List[str]:
        """Tokens of workers that have died."""
        alive = {self._tokens[address] for address in self.living if address in self._tokens}
        return sorted(set(self._tokens.values()) - alive)

    def joined(self, address: str, token: str) -> None:
        """A worker that was checked."""
        self.living.add(address)
        self._tokens[address] = token

    def reported(self, report: Report) -> None:
        """Note what a worker sent."""
        if report.worker not in self._retired:
            self.joined(report.worker, report.token)
        device = self._devices.setdefault((report.host, report.device), _Device())
        device.scans += sum(outcome.kind == DONE for outcome in report.outcomes)
        device.failed += sum(outcome.kind == FAILED for outcome in report.outcomes)
        device.busy += report.device_seconds
        device.loaded = max(device.loaded, report.loaded)
        for outcome in report.outcomes:
            if outcome.kind == DONE:
                self._full.pop(report.worker, None)
            elif outcome.full:
                self._full[report.worker] = self._full.get(report.worker, 0) + 1

    def full(self, address: str) -> int:
        """Scans in a row for whose results a worker had no room."""
        return self._full.get(address, 0)

    @property
    def all_full(self) -> int:
        """The same of all workers together, if none of them has room; else 0."""
        counts = [self.full(address) for address in self.living]
        return sum(counts) if all(counts) else 0

    def lost(self, address: str, why: str) -> None:
        """A worker that gets no more scans."""
        self.reasons.append(why)
        self._retired.add(address)
        self.living.discard(address)

    def present(self, addresses: Set[str]) -> None:
        """The workers that the scheduler knows now."""
        self.living = addresses - self._retired
        if self.living:
            self._no_workers = None

    def without_workers(self, now: float) -> float:
        """Seconds since a worker was last seen."""
        self._no_workers = now if self._no_workers is None else self._no_workers
        return now - self._no_workers

    def rows(self, wall: float) -> List[Dict[str, Any]]:
        """One entry per device, by host and number: scans, failures, share of `wall` in which it was busy."""
        return [
            {
                "host": host,
                "device": number,
                "scans": done.scans,
                "failed": done.failed,
                "busy": done.busy / wall if wall else 0.0,
                "device_seconds": done.busy,
                "model_load_seconds": done.loaded,
            }
            for (host, number), done in sorted(self._devices.items())
        ]
