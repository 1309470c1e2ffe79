# SPDX-License-Identifier: Apache-2.0
"""Looks at the cluster from a thread of its own, because a question to a lost scheduler is not answered for a long time."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, FrozenSet, Optional, Type

from om_runner.cluster.connect import workers_of

LOG = logging.getLogger(__name__)

_INTERVAL = 1.0


class Watch:
    """The workers that the scheduler knows; a context manager.

    Parameters
    ----------
    client : of Dask.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seen = time.monotonic()
        self._workers: FrozenSet[str] = frozenset()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._ended.set()

    @property
    def workers(self) -> FrozenSet[str]:
        """Addresses of workers with a device, when the scheduler last answered."""
        return self._workers

    @property
    def silence(self) -> float:
        """Seconds since the scheduler last answered."""
        return time.monotonic() - self._seen

    def _look(self) -> None:
        while not self._ended.is_set():
            try:
                self._workers = frozenset(address for address, _ in workers_of(self._client))
                self._seen = time.monotonic()
            except Exception as exc:  # noqa: BLE001 -- whatever a lost scheduler makes of it, it has not answered
                LOG.debug("the scheduler does not answer (%r)", exc)
            self._ended.wait(_INTERVAL)
