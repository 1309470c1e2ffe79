# SPDX-License-Identifier: Apache-2.0
"""``acl.prof``: execution times between `start` and `stop`, written as one JSON summary that says it is simulated, and
per operator as the vendor's tool exports them.
"""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from vxm_convert.artifacts.files import write_json, write_text
from vxm_convert.errors import ArtifactError, ToolchainError
from vxm_convert.sim.acl.base.args import INIT, call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure, log
from vxm_convert.sim.acl.models.execute import OBSERVERS, OperatorTimes
from vxm_convert.sim.version import SIM_VERSION

#: data type of a profile: times of tasks
TASK_TIME = 2
#: a subset of the columns of msprof's export, in its order
_COLUMNS = ("Device_id", "Model ID", "Op Name", "OP Type", "Task Type", "Task Duration(us)")
EXPORT_FOLDER, SIMULATED_TASK = "mindstudio_profiler_output", "SIMULATED"
#: aclprofAicoreMetrics: arithmetic, pipe, memory, L0, conflict, none
_METRICS = (0, 1, 2, 3, 4, 0xFF)


class ProfileConfig:
    """What to profile."""

    def __init__(self, devices: Tuple[int, ...], metrics: int, mask: int) -> None:
        self.devices = devices
        self.metrics = metrics
        self.mask = mask


class Profiler:
    """Folder of the summary and the measurements so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.folder: Optional[Path] = None
        self.running: Optional[ProfileConfig] = None
        self.seconds: Dict[str, List[float]] = {}
        self.operators: Dict[str, OperatorTimes] = {}

    def observe(self, model: str, seconds: float, operators: Callable[[], OperatorTimes]) -> None:
        with self._lock:
            if self.running is None:
                return
            self.seconds.setdefault(model, []).append(seconds)
            if self.running.mask & TASK_TIME and model not in self.operators:
                try:
                    self.operators[model] = operators()
                except (ToolchainError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as exc:
                    # A measurement that fails must not fail the execution; engines raise RuntimeError.
                    log.warning("simulated device: no times of operators: %s", exc)
                    self.operators[model] = []

    def export(self) -> str:
        """The times of operators as msprof exports them; marked in the column of the task's type."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for number, (_, times) in enumerate(sorted(self.operators.items()), 1):
            writer.writerows([0, number, name, kind, SIMULATED_TASK, f"{1e6 * s:.3f}"] for name, kind, s in times)
        return text.getvalue()

    def summary(self) -> Dict[str, Any]:
        models = {
            name: {"executions": len(times), "mean_ms": 1e3 * sum(times) / len(times), "max_ms": 1e3 * max(times)}
            for name, times in sorted(self.seconds.items())
        }
        return {
            "simulated": True,
            "version": SIM_VERSION,
            "note": "times of this machine's CPU, no Ascend device",
            "models": models,
        }


PROFILER = Profiler()
OBSERVERS.append(PROFILER.observe)


@call("prof.init", "s", needs=INIT)
def init(path: str) -> None:
    if PROFILER.folder is not None:
        raise AclFailure(100000, "acl.prof.init has been called already")
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        raise AclFailure(100000, f"{path} is not a writable folder")
    PROFILER.folder = Path(path)
    PROFILER.seconds, PROFILER.operators = {}, {}


@query("prof.create_config", "tIKK")
def create_config(devices: Sequence[int], metrics: int, events: int, mask: int) -> int:
    """`events` is a reserved pointer to events chosen by the vendor."""
    for device_id in devices:
        SIM.device(int(device_id))
    if metrics not in _METRICS:
        raise AclFailure(100000, f"AI Core metrics {metrics}, expected one of {_METRICS}")
    if not mask:
        raise AclFailure(100000, "the mask of data types is 0")
    return SIM.new_handle(ProfileConfig(tuple(int(d) for d in devices), metrics, mask))


@call("prof.destroy_config", "K", needs=0)
def destroy_config(handle: int) -> None:
    if SIM.thing(handle, ProfileConfig, 100000) is PROFILER.running:
        raise AclFailure(100000, "the configuration is in use: call acl.prof.stop first")
    SIM.drop_handle(handle)


@call("prof.start", "K", needs=INIT)
def start(handle: int) -> None:
    config = SIM.thing(handle, ProfileConfig, 100000)
    if PROFILER.folder is None or PROFILER.running is not None:
        raise AclFailure(100000, "call acl.prof.init first, and stop the running profile")
    PROFILER.running = config


@call("prof.stop", "K", needs=INIT)
def stop(handle: int) -> None:
    if PROFILER.running is not SIM.thing(handle, ProfileConfig, 100000):
        raise AclFailure(100000, "profiling was not started with that configuration")
    PROFILER.running = None


@call("prof.finalize", needs=INIT)
def finalize() -> None:
    """Writes ``PROF_SIMULATED_<time>/summary.json`` into the folder, and with times of tasks what msprof would export."""
    folder = PROFILER.folder
    if folder is None:
        raise AclFailure(100000, "acl.prof.init has not been called")
    PROFILER.folder = PROFILER.running = None
    try:
        stamp = time.strftime("%Y%m%d%H%M%S")
        made = folder / f"PROF_SIMULATED_{stamp}"
        write_json(made / "summary.json", PROFILER.summary())
        if any(PROFILER.operators.values()):
            write_text(made / EXPORT_FOLDER / f"op_summary_{stamp}.csv", PROFILER.export())
    except ArtifactError as exc:
        raise AclFailure(300000, str(exc)) from exc
