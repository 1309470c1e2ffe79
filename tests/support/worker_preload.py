# SPDX-License-Identifier: Apache-2.0
"""Dask loads this into its workers in tests: a model without a device, which sleeps, hangs, dies or is lost on request.

``VXM_TEST_DEVICE`` names a JSON file with the behaviour: ``sleep`` seconds; ``wait``: until it says so no more; ``kill``:
sums of the values of scans with which the worker dies; ``kill_after``: names of scans after whose record it dies; ``log``:
a file for every execution. Numbers of devices: ``lose`` and ``hang``; ``refuse``: too little memory for the model;
``single``: for one set of buffers only; ``full``: no room for results; ``other``: another model.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

from om_runner.cluster import task
from om_runner.cluster.order import DEVICE_VARIABLE
from om_runner.device.offline_model import OfflineModel
from om_runner.registration.finish import Finisher
from tests.support import fakes
from vxm_convert.errors import AclError
from vxm_convert.model.contract import GraphContract

VARIABLE = "VXM_TEST_DEVICE"


class Device(fakes.FakeRuntime):
    """Behaves as the variable says."""

    def __init__(self, made: GraphContract, number: int) -> None:
        super().__init__(made)
        self._number = number

    def _open(self) -> None:
        if self._number in behaviour().get("refuse", ()):
            raise AclError("vxm.om: acl.rt.malloc returned 207001 (out of memory): fake", "acl.rt.malloc", 207001)
        super()._open()

    def reserve(self, sets: int) -> int:
        if self._number in behaviour().get("single", ()):
            logging.getLogger(__name__).warning("fake 207001; continuing with 1 set of buffers, which is slower")
            return 1
        return super().reserve(sets)

    def _run(self, feeds: Any) -> Any:
        wanted = behaviour()
        value = float(feeds["moving"][0].sum(dtype="float64"))
        log = wanted.get("log")
        if log:
            with open(log, "a", encoding="utf-8") as handle:
                handle.write(f"{value:.3f} {self._number} {os.getpid()}\n")
        time.sleep(wanted.get("sleep", 0))
        while behaviour().get("wait"):
            time.sleep(0.02)
        if any(abs(value - other) < 0.01 for other in wanted.get("kill", ())):
            os._exit(9)
        if self._number in wanted.get("lose", ()):
            raise AclError(f"device {self._number} was lost", "acl.mdl.execute", 507899)
        if self._number in wanted.get("hang", ()):
            threading.Event().wait()
        self.fed.clear()
        return super()._run(feeds)


def behaviour() -> Dict[str, Any]:
    """What the devices do now."""
    wanted: Dict[str, Any] = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="utf-8"))
    return wanted


def this_one(what: str) -> bool:
    """Whether this process is a worker whose device is named there."""
    number = os.environ.get(DEVICE_VARIABLE)
    return number is not None and int(number) in behaviour().get(what, ())


def open_model(om_path: Path, contract_path: Any, toolchain: Any) -> OfflineModel:
    contract_path = Path(om_path).with_name("contract.json")
    made = GraphContract.load(contract_path)
    if this_one("other"):
        made = replace(made, hashes={**made.hashes, "om": "f" * 64})
    return OfflineModel(Path(om_path), contract_path, made, fakes.FakeToolchain(), True)


def die_after_records() -> None:
    """Die between the record of a scan and its report to the client."""
    real = Finisher.finish

    def call(self: Finisher, ready: Any, *args: Any, **more: Any) -> Any:
        row = real(self, ready, *args, **more)
        if ready.subject in behaviour().get("kill_after", ()):
            os._exit(9)
        return row

    Finisher.finish = call


def full_now_and_then() -> None:
    """Results cannot be renamed into place while there is no room."""
    real = os.replace

    def call(source: Any, target: Any, **more: Any) -> None:
        if Path(target).parent.name == "out" and this_one("full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **more)

    os.replace = call


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker starts."""
    task.open_model = open_model
    full_now_and_then()
    die_after_records()
    task.open_runtime = lambda model, number: Device(model.contract, number)
