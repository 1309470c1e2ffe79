# SPDX-License-Identifier: Apache-2.0
"""Dask clusters: one on this host with a worker per device, or a running one; nothing listens beyond loopback unless it
was asked for.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from om_runner.cluster.order import RESOURCE
from vxm_convert.errors import ToolchainError
from vxm_convert.lazy import LazyModule

distributed = LazyModule("distributed")
dask_config = LazyModule("dask.config")

LOG = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
#: seconds to wait for the first worker and for a scheduler
_PATIENCE = 60
#: seconds to close a client
_FAREWELL = 2
#: workers that may die with a task before Dask gives it up; the claims on scans count more precisely
_ALLOWED_DEATHS = 1000
_PRELOAD = "om_runner.cluster.preload"
#: What Dask does at intervals whether there is work or not: with its own (10 ms, 20 ms, 0.5 s) a worker without a scan
#: takes 4 % of a processor, with these 0.4 %.
_INTERVALS = {
    "distributed.worker.profile.interval": "1s",
    "distributed.worker.profile.cycle": "10s",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
}
#: entries of the scheduler's logs in old versions, which kept so many of them that they grew with the cohort
_LOGGED = 1000
_LOGS = ("distributed.scheduler.transition-log-length", "distributed.scheduler.events-log-length")


@contextmanager
def local_cluster(devices: Sequence[int], slots: int) -> Iterator[Any]:
    """A client of a new cluster on this host: one process per device, which Dask starts again if it dies."""
    with ExitStack() as stack:
        stack.enter_context(worker_settings())
        stack.enter_context(_quiet())
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=len(devices),
                threads_per_worker=slots,
                processes=True,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                resources={RESOURCE: 1},
                memory_limit=0,
                silence_logs=logging.ERROR,
            )
        )
        yield stack.enter_context(distributed.Client(cluster))


@contextmanager
def worker_settings() -> Iterator[None]:
    """Dask's settings for workers with a device."""
    settings: Dict[str, Any] = {
        "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
        # A worker beyond Dask's estimate of its share of memory is not killed: the number of scans in work bounds it.
        "distributed.worker.memory.terminate": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.target": False,
        **_INTERVALS,
    }
    _require_dask()
    settings.update({name: _LOGGED for name in _LOGS if dask_config.get(name, None) is not None})
    preload = dask_config.get("distributed.worker.preload", [])
    settings["distributed.worker.preload"] = [*([preload] if isinstance(preload, str) else preload), _PRELOAD]
    # Dask's own files; old versions put them into the working folder.
    with tempfile.TemporaryDirectory(prefix="om_runner-dask-") as own:
        settings["temporary-directory"] = own
        with dask_config.set(settings):
            yield


@contextmanager
def running_cluster(address: str) -> Iterator[Any]:
    """A client of a running scheduler; TLS and other settings are those of Dask's own configuration.

    Raises
    ------
    ToolchainError
        If nothing answers there.
    """
    _require_dask()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        try:
            client = distributed.Client(address, timeout=_PATIENCE)
        except (OSError, ValueError, TypeError) as exc:
            raise ToolchainError(
                f"{address}: no Dask scheduler answers there ({exc}); start one with `python -m om_runner scheduler`, or check the "
                "address and its TLS settings"
            ) from exc
        # A scheduler that is lost does not answer a farewell.
        stack.callback(client.close, timeout=_FAREWELL)
        yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask reports every lost connection several times; what matters is said by the engine."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio", "bokeh")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def workers_of(client: Any) -> List[Tuple[str, str]]:
    """Address and name of every worker with a device."""
    known = client.scheduler_info(**_all(client))["workers"]
    return sorted(
        (address, str(about.get("name"))) for address, about in known.items() if about["resources"].get(RESOURCE)
    )


def _all(client: Any) -> Any:
    """Newer versions list five workers unless asked for all."""
    return {"n_workers": -1} if "n_workers" in inspect.signature(client.scheduler_info).parameters else {}


def dashboard_of(client: Any) -> Optional[str]:
    """Address of the dashboard; None without bokeh, which draws it."""
    try:
        import bokeh  # noqa: F401
    except ImportError:
        return None
    return str(client.dashboard_link)


def _require_dask() -> None:
    try:
        import distributed as _  # noqa: F401
    except ImportError as exc:
        raise ToolchainError(
            "several devices and clusters need Dask distributed, which is not installed; install it with pip install "
            '"vxm_convert[cluster]"'
        ) from exc
