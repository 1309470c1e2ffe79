# SPDX-License-Identifier: Apache-2.0
"""The device of a run. Uses child processes for imports that could end this one; imports neither TensorFlow nor
npu_bridge.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Optional, Tuple

from vxm_convert.errors import TrainingError
from vxm_convert.toolchain.devices import device_nodes, npu_bridge_problem

DEVICES = ("auto", "cpu", "gpu", "npu")
_GPU_NODES = ("nvidia0", "kfd", "dxg")
_GPU_SECONDS = 120
_LIST_GPUS = (
    "from tensorflow.python.client import device_lib; "
    "print('gpus:', sum(d.device_type == 'GPU' for d in device_lib.list_local_devices()))"
)


def choose_device(choice: str, system: Path = Path("/")) -> Tuple[str, str]:
    """(``cpu``, ``gpu`` or ``npu``; why).

    Parameters
    ----------
    choice : str — one of `DEVICES`; auto prefers an NPU, then a GPU, then the CPU.
    system : Path — root of the file system, for device nodes.

    Raises
    ------
    TrainingError
        If the requested device cannot be used.
    """
    if choice == "npu":
        problem = _npu_problem()
        if problem is not None:
            raise TrainingError(
                f"device: npu was requested, but {problem}; `python -m vxm_convert doctor` shows what is installed"
            )
        return "npu", "npu_bridge can be imported"
    if choice == "gpu":
        if not _gpus():
            raise TrainingError(
                "device: gpu was requested, but TensorFlow sees none; install tensorflow-gpu 1.15 with CUDA 10.0, or "
                "pass --device cpu"
            )
        return "gpu", "TensorFlow sees it"
    return ("cpu", "asked for") if choice == "cpu" else _best(system)


def _best(system: Path) -> Tuple[str, str]:
    reasons = []
    chips, _ = device_nodes(system)
    problem = _npu_problem() if chips else "no /dev/davinci device"
    if problem is None:
        return "npu", f"{', '.join(chips)} and npu_bridge"
    reasons.append(problem)
    if any((system / "dev" / node).exists() for node in _GPU_NODES):
        if _gpus():
            return "gpu", f"TensorFlow sees it; {problem}"
        reasons.append("TensorFlow sees no GPU")
    return "cpu", "; ".join(reasons)


def _npu_problem() -> Optional[str]:
    try:
        found = find_spec("npu_bridge")
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "npu_bridge is not installed"
    problem = npu_bridge_problem()
    return None if problem is None else f"npu_bridge {problem}"


def _gpus() -> bool:
    """Runs in a child process: TensorFlow takes the whole memory of every GPU it lists until its process ends."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_GPUS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GPU_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    counts = [
        line.split()[1] for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith("gpus: ")
    ]
    return bool(counts) and int(counts[-1]) > 0
