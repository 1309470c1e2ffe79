# SPDX-License-Identifier: Apache-2.0
"""The functions that Dask calls on workers: check a worker, register a chunk of scans, release the device."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set

from om_runner.cluster.order import BACK, DEVICE_VARIABLE, HELD, STOPPED, Chunk, Order, Outcome, Report
from om_runner.cluster.station import Station
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import open_model
from om_runner.registration.session import worker_job
from om_runner.registration.timeline import Timeline
from om_runner.results.cohort_record import different
from om_runner.results.subject_log import collecting, notes_to
from vxm_convert import __version__
from vxm_convert.artifacts.temporaries import process_token
from vxm_convert.errors import VxmError
from vxm_convert.geometry.compiled import set_threads
from vxm_convert.toolchain.doctor import installed_version

LOG = logging.getLogger(__name__)

#: packages whose versions results depend on
_PACKAGES = ("numpy", "scipy", "nibabel", "SimpleITK")
#: one at a time per process: the device belongs to one run
_STATIONS: Dict[str, Station] = {}
#: runs that hand out no more scans
_ENDING: Set[str] = set()
_LOCK = threading.Lock()


def versions() -> Dict[str, str]:
    """Versions that must be the same on every worker."""
    found = {name: str(installed_version(name)) for name in _PACKAGES}
    return {"vxm_convert": __version__, **found}


def check(order: Order) -> Dict[str, Any]:
    """What of this worker differs from the client: ``differences`` in words, none if all is well; and who it is."""
    about: Dict[str, Any] = {"token": process_token(), "host": socket.gethostname(), "differences": []}
    about["differences"] += [f"{name} is {now} there and {here} here" for name, now, here in _differing_versions(order)]
    if not Path(order.witness).is_file():
        about["differences"].append(f"it does not see the output folder {order.settings.out}")
    try:
        settings = order.settings
        job = worker_job(open_model(settings.model, settings.contract, settings.toolchain), settings)
    except (VxmError, OSError) as exc:
        about["differences"].append(str(exc))
        return about
    for name, here, there in different(order.key, job.keys.of_run):
        about["differences"].append(f"{name} is {_short(there)} there and {_short(here)} here")
    return about


def _differing_versions(order: Order) -> List[Any]:
    return [(name, now, here) for name, here, now in different(order.versions, versions())]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text


class Prepared(NamedTuple):
    """A worker's device: its number, what it refused the model for, and warnings while it was loaded."""

    device: int
    refused: Optional[str]
    said: List[str]


async def prepare(order: Order, dask_worker: Any = None) -> Prepared:
    """Load the model on this worker's device.

    `dask_worker` is set by Dask. It goes on answering the scheduler meanwhile.
    """
    device = device_of(order, dask_worker)

    def load() -> Prepared:
        said: List[str] = []
        with collecting(), notes_to(said):
            try:
                _station(order, device)
            except Occupied as exc:
                LOG.warning("%s", exc)
            except VxmError as exc:
                return Prepared(device, str(exc), said)
        return Prepared(device, None, said)

    return await asyncio.get_event_loop().run_in_executor(None, load)


def register(order: Order, chunk: Chunk) -> Report:
    """Register scans on this worker's device."""
    timeline, worker = Timeline(keep_events=order.trace), _worker()
    device = device_of(order, worker)
    report: Dict[str, Any] = {
        "token": process_token(),
        "host": socket.gethostname(),
        "device": device,
        "worker": str(worker.address),
    }
    said: List[str] = []
    if order.session in _ENDING:
        return Report([Outcome(scan.subject, STOPPED) for scan in chunk.scans], **report)
    with collecting(), notes_to(said):
        try:
            station = _station(order, device, working=1)
        except Occupied as exc:
            return Report([Outcome(scan.subject, HELD, why=str(exc)) for scan in chunk.scans], **report)
        except VxmError as exc:
            # Not the scans' doing: they are given back as if they had not been here.
            outcomes = [Outcome(scan.subject, BACK, why=str(exc)) for scan in chunk.scans]
            return Report(outcomes, said=said, opened=False, **report)
        try:
            outcomes, executed = station.register(chunk, timeline)
        finally:
            with _LOCK:
                station.working -= 1
    sums = {stage: (span.wall, span.cpu) for stage, span in timeline.sums.items()}
    return Report(
        outcomes,
        executed=executed,
        device_seconds=sums["execute"][0],
        sums=sums,
        events=timeline.events,
        loaded=station.loaded,
        said=said,
        **report,
    )


def drain(session: str) -> None:
    """Give back the scans of a run that have not begun."""
    _ENDING.add(session)


def release(session: str) -> None:
    """Release the device after a run."""
    drain(session)
    with _LOCK:
        station = _STATIONS.pop(session, None)
    if station is not None:
        station.close()


def device_of(order: Order, worker: Any) -> int:
    """The device of this worker: by its number in a cluster on this host, else from its environment."""
    if order.devices is not None:
        return order.devices[int(worker.name) % len(order.devices)]
    return int(os.environ.get(DEVICE_VARIABLE) or order.settings.device)


class Occupied(VxmError):
    """Another run works on this device."""


def _station(order: Order, device: int, working: int = 0) -> Station:
    """The place of work of a run, made if the device is free, with `working` scans more in work.

    Raises
    ------
    Occupied
    VxmError
        If this worker's software, files or device do not serve.
    """
    with _LOCK:
        station = _STATIONS.get(order.session)
        if station is None:
            found = check(order)["differences"]
            if found:
                raise VxmError(f"this worker differs from the client: {'; '.join(found)}")
            for session, other in list(_STATIONS.items()):
                if other.in_use():
                    raise Occupied("another run works on this device; the scans of this one wait until it has ended")
                _STATIONS.pop(session).close()
            settings = order.settings
            set_threads(settings.batch.threads)
            job = worker_job(open_model(settings.model, settings.contract, settings.toolchain), settings)
            station = _STATIONS[order.session] = Station(order, job, open_runtime(job.model, device))
        station.working += working
        return station


def _worker() -> Any:
    from distributed import get_worker

    return get_worker()
