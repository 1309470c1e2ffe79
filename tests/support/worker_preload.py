# SPDX-License-Identifier: Apache-2.0
"""Dask loads this into its workers in tests: a model without a device, which sleeps, hangs, dies or is lost on request.

``VXM_TEST_DEVICE`` names a JSON file with the behaviour: ``sleep`` seconds; ``kill``: sums of the values of scans with which
the worker dies; ``lose`` and ``hang``: numbers of devices; ``log``: a file for every execution.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from om_runner.cluster import task
from om_runner.device.offline_model import OfflineModel
from tests.support import fakes
from vxm_convert.errors import AclError
from vxm_convert.model.contract import GraphContract

VARIABLE = "VXM_TEST_DEVICE"


class Device(fakes.FakeRuntime):
    """Behaves as the variable says."""

    def __init__(self, made: GraphContract, number: int) -> None:
        super().__init__(made)
        self._number = number

    def _run(self, feeds: Any) -> Any:
        wanted = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="utf-8"))
        value = float(feeds["moving"][0].sum(dtype="float64"))
        log = wanted.get("log")
        if log:
            with open(log, "a", encoding="utf-8") as handle:
                handle.write(f"{value:.3f} {self._number} {os.getpid()}\n")
        time.sleep(wanted.get("sleep", 0))
        if any(abs(value - other) < 0.01 for other in wanted.get("kill", ())):
            os._exit(9)
        if self._number in wanted.get("lose", ()):
            raise AclError(f"device {self._number} was lost", "acl.mdl.execute", 507899)
        if self._number in wanted.get("hang", ()):
            threading.Event().wait()
        self.fed.clear()
        return super()._run(feeds)


def open_model(om_path: Path, contract_path: Any, toolchain: Any) -> OfflineModel:
    contract_path = Path(om_path).with_name("contract.json")
    return OfflineModel(Path(om_path), contract_path, GraphContract.load(contract_path), fakes.FakeToolchain(), True)


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker starts."""
    task.open_model = open_model
    task.open_runtime = lambda model, number: Device(model.contract, number)
