# SPDX-License-Identifier: Apache-2.0
"""A worker of a Dask cluster with one device, started again if it dies; it listens on loopback unless told otherwise."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from om_runner.cluster.connect import LOOPBACK, worker_settings
from om_runner.cluster.order import DEVICE_VARIABLE, RESOURCE
from vxm_convert.errors import EXIT_OK, ToolchainError
from vxm_convert.interrupts import STOPPED

LOG = logging.getLogger(__name__)

#: seconds to wait for the scheduler
_PATIENCE = 60
#: port of the dashboard, on loopback; another one is taken if it is in use
_DASHBOARD = 8787


def serve(scheduler: str, device: int, listen: Optional[str], slots: int) -> int:
    """Work until the scheduler ends; returns the exit code.

    Raises
    ------
    ToolchainError
        If the scheduler is on another host and no address to listen at is given, or nothing answers.
    """
    if listen is None and not _on_this_host(scheduler):
        raise ToolchainError(
            f"{scheduler}: is on another host, which cannot reach a worker on {LOOPBACK}; pass the address of this host in "
            "that network with --listen"
        )
    with worker_settings():
        stopped = asyncio.run(_work(scheduler, device, listen or LOOPBACK, slots))
    return STOPPED if stopped else EXIT_OK


def schedule(listen: Optional[str], port: int, file: Optional[Path]) -> int:
    """Schedule until stopped; returns the exit code. Raises ToolchainError if the address cannot be used."""
    with worker_settings():
        stopped = asyncio.run(_schedule(listen or LOOPBACK, port, file))
    return STOPPED if stopped else EXIT_OK


async def _schedule(listen: str, port: int, file: Optional[Path]) -> bool:
    from distributed import Scheduler

    try:
        scheduler: Any = await Scheduler(
            host=listen,
            port=port,
            dashboard_address=f"{LOOPBACK}:{_DASHBOARD}",
            scheduler_file=None if file is None else str(file),
        )
    except OSError as exc:
        raise ToolchainError(
            f"{listen}:{port}: cannot listen there ({exc}); choose another --listen or --port"
        ) from exc
    LOG.info("the scheduler listens at %s", scheduler.address)
    return await _until_stopped(scheduler)


async def _until_stopped(server: Any) -> bool:
    """Wait until a server ends, or end it by Ctrl-C or SIGTERM; returns whether it was stopped."""
    loop, asked = asyncio.get_event_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    waiting = [asyncio.ensure_future(server.finished()), asyncio.ensure_future(asked.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await server.close()
    return asked.is_set()


async def _work(scheduler: str, device: int, listen: str, slots: int) -> bool:
    from distributed import Nanny

    try:
        nanny: Any = await Nanny(
            scheduler,
            nthreads=slots,
            resources={RESOURCE: 1},
            host=listen,
            dashboard_address=f"{LOOPBACK}:0",
            name=f"device-{device}-{socket.gethostname()}-{listen}",
            env={DEVICE_VARIABLE: str(device)},
            memory_limit=0,
            death_timeout=_PATIENCE,
        )
    except (OSError, asyncio.TimeoutError) as exc:
        raise ToolchainError(
            f"{scheduler}: no Dask scheduler answers there ({exc}); check address and network"
        ) from exc
    LOG.info("device %d of this host works for %s at %s", device, scheduler, nanny.worker_address)
    stopped = await _until_stopped(nanny)
    if not stopped:
        LOG.warning(
            "device %d: the scheduler has ended, or a run has sent this worker away; the log of the run says why",
            device,
        )
    return stopped


def _on_this_host(scheduler: str) -> bool:
    host = urlsplit(scheduler if "://" in scheduler else f"tcp://{scheduler}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
