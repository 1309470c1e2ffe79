# SPDX-License-Identifier: Apache-2.0
"""Loaded by Dask into every worker. Ctrl-C in a terminal reaches all processes: only the client decides what it means.
Warnings go to the client, which logs them.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker starts."""
    logging.getLogger().addHandler(logging.NullHandler())
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
