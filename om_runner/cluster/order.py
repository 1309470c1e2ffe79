# SPDX-License-Identifier: Apache-2.0
"""What the client sends to workers and what they send back; plain data, so that both sides may be different processes
on different machines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from om_runner.registration.job import Settings
from om_runner.results.cohort_record import Known
from om_runner.results.columns import MetricsRow
from om_runner.results.turns import Stamps

#: name of the resource of which every worker with a device has one
RESOURCE = "NPU"
#: the device of a worker that was started by hand
DEVICE_VARIABLE = "VXM_DEVICE"


@dataclass(frozen=True)
class Order:
    """One run.

    Parameters
    ----------
    session : str — its name, new for every run.
    settings : Settings
    key : dict — everything that determines results, and must be the same on every worker.
    versions : dict — of the packages that results depend on, likewise.
    devices : devices of a cluster on this host, by the worker's number; None if workers know their devices.
    witness : str — a file that every worker must see: of the client, in the output folder.
    slots : int — scans in work at the same time on a worker.
    trace : bool — whether to send the events of the timeline.
    """

    session: str
    settings: Settings
    key: Mapping[str, Any]
    versions: Mapping[str, str]
    devices: Optional[Tuple[int, ...]]
    witness: str
    slots: int
    trace: bool


@dataclass(frozen=True)
class Chunk:
    """Scans for one execution of the model.

    Parameters
    ----------
    scans : as many as the model's batch, or fewer.
    gone : owners that are dead, as the scheduler knows.
    keep : subject → start of the names of its arrays for the comparison.
    before : subject → stamps of its records before the run: with others, a worker that died has finished it.
    """

    scans: Tuple[Known, ...]
    gone: Tuple[str, ...] = ()
    keep: Mapping[str, str] = field(default_factory=dict)
    before: Optional[Mapping[str, Stamps]] = None


#: how a scan ended: registered; failed; done by another process; in work by another; given back, because the device of
#: this worker is lost (by this scan, or by another one); given back, because the run ends
DONE, FAILED, ELSEWHERE, HELD, DEVICE, BACK = "done", "failed", "elsewhere", "held", "device", "back"
STOPPED = "stopped"


@dataclass(frozen=True)
class Outcome:
    """What became of one scan on a worker; `why` is a message or the owner that holds the scan; `full` if there was no
    room for its results.
    """

    subject: str
    kind: str
    row: Optional[MetricsRow] = None
    stage: str = ""
    why: str = ""
    full: bool = False


@dataclass(frozen=True)
class Report:
    """What a worker sends back for a chunk.

    Parameters
    ----------
    outcomes : one per scan.
    token : str — the worker's process, as in the names of its claims.
    worker, host, device : where it was.
    executed : int — scans that the model has run.
    device_seconds : float
    sums : stage → wall and processor seconds.
    events : of the timeline, with times in seconds since 1970.
    loaded : float — seconds that opening the model took.
    opened : bool — False if this worker's device or files refuse the run.
    said : warnings that belong to no row of results.
    """

    outcomes: List[Outcome]
    token: str
    worker: str
    host: str
    device: int
    executed: int = 0
    device_seconds: float = 0.0
    sums: Dict[str, Tuple[float, float]] = field(default_factory=dict)
    events: List[Dict[str, Any]] = field(default_factory=list)
    loaded: float = 0.0
    opened: bool = True
    said: List[str] = field(default_factory=list)
