# SPDX-License-Identifier: Apache-2.0
"""The two sides of a comparison: the toolchain under test with its device, and the simulator's prediction."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Callable, ContextManager, Dict, Iterator, List, Sequence

import numpy as np

from om_runner.device.measured import MeasuredRuntime
from om_runner.device_check.probes.probe import Probe
from vxm_convert.errors import AtcError, ToolchainError, VxmError
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.model.spec import ModelSpec
from vxm_convert.toolchain.atc_errors import diagnose, name_operators
from vxm_convert.toolchain.find import Toolchain
from vxm_convert.toolchain.prediction import Prediction

ATC_LOG = "atc.log"
#: the runtime wants a contract; its spec has no part in small graphs
_SPEC = ModelSpec("vm2", (16, 16, 16), 1)


@dataclass(frozen=True)
class Compiled:
    """A compiled probe; `seconds` of ATC."""

    om_path: Path
    contract: GraphContract
    seconds: float


def run_atc(toolchain: Toolchain, arguments: Sequence[str], folder: Path, seconds: float) -> float:
    """Run ATC in `folder`, its output into ``atc.log``; returns seconds.

    Raises
    ------
    ToolchainError
        If there is no ATC, or it cannot be started.
    AtcError
        If it fails or does not end in time.
    """
    if not toolchain.atc_command:
        raise ToolchainError(
            f"ATC: {toolchain.root} contains only the runtime; install the CANN toolkit to compile the graphs"
        )
    command = list(toolchain.atc_command) + list(arguments)
    started = time.monotonic()
    with open(str(folder / ATC_LOG), "wb") as log:
        log.write((" ".join(command) + "\n").encode("utf-8"))
        log.flush()
        try:
            done = subprocess.run(
                command,
                cwd=str(folder),
                env=toolchain.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except OSError as exc:
            raise ToolchainError(
                f"ATC: cannot start {command[0]} ({exc.strerror}); check the CANN installation"
            ) from exc
        except subprocess.TimeoutExpired as exc:
            raise AtcError(f"ATC did not end within {seconds:.0f} s and was stopped; see {ATC_LOG}") from exc
    said = (folder / ATC_LOG).read_text(encoding="utf-8", errors="replace")
    if done.returncode or "ATC run failed" in said:
        found = diagnose(said, done.returncode)
        shown = f"{found.code}: {found.message}" if found.code else "no error code"
        who = f"; operators: {name_operators(found.operators)}" if found.operators else ""
        raise AtcError(
            f"ATC failed (exit code {done.returncode}), {shown}{who}; cause: {found.explanation.cause}",
            found.code,
            said,
        )
    return time.monotonic() - started


def next_step(error: VxmError) -> str:
    """What to do about a failure of ATC; "" where its message says it already."""
    if not isinstance(error, AtcError) or not error.log:
        return ""
    return f"{diagnose(error.log, 1).explanation.next_step}; all of ATC's output is in {ATC_LOG} in the archive"


def compile_probe(probe: Probe, toolchain: Toolchain, soc_version: str, folder: Path) -> Compiled:
    """Write the probe's graph into `folder` and compile it there; raises as `run_atc` does."""
    folder.mkdir(parents=True, exist_ok=True)
    probe.graph.save(folder / "graph.pb")
    shapes = ";".join(f"{node}:{','.join(map(str, value.shape))}" for node, value in probe.feeds.items())
    arguments = [
        "--model=graph.pb",
        "--framework=3",
        "--output=graph",
        f"--soc_version={soc_version}",
        f"--input_shape={shapes}",
        "--out_nodes=" + ";".join(f"{node}:0" for node in probe.outputs),
        f"--precision_mode={probe.mode}",
    ]
    seconds = run_atc(toolchain, arguments, folder, probe.seconds)
    made = sorted(folder.glob("graph.om")) or sorted(folder.glob("graph_*.om"))
    if len(made) != 1:
        raise AtcError(f"ATC ended without error but left {len(made)} offline models, expected 1; see {ATC_LOG}")
    return Compiled(made[0], contract_of(probe, soc_version), seconds)


def contract_of(probe: Probe, soc_version: str) -> GraphContract:
    """The contract by which the runtime checks the compiled probe."""
    inputs = [TensorSpec(n, n, 0, tuple(v.shape), v.dtype.name, "ND") for n, v in probe.feeds.items()]
    outputs = [TensorSpec(n, n, 0, shape, dtype, "ND") for n, (shape, dtype) in probe.outputs.items()]
    return GraphContract(_SPEC, tuple(inputs), tuple(outputs), PrecisionPlan("check", probe.mode), soc_version)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class Device:
    """The toolchain under test.

    Parameters
    ----------
    toolchain : Toolchain
    number : int — device of this machine.
    soc_version : str — the chip that ATC compiles for.
    acl : module — pyACL, initialised by the caller.
    around : callable — a context around everything that is done with this toolchain.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        number: int,
        soc_version: str,
        acl: ModuleType,
        around: Callable[[], ContextManager[None]] = _nothing,
    ) -> None:
        self.toolchain = toolchain
        self.number = number
        self.soc_version = soc_version
        self.acl = acl
        self.around = around

    def compile(self, probe: Probe, folder: Path) -> Compiled:
        with self.around():
            return compile_probe(probe, self.toolchain, self.soc_version, folder)

    @contextmanager
    def opened(self, compiled: Compiled) -> Iterator[MeasuredRuntime]:
        """The compiled probe on the device."""
        with self.around():
            with MeasuredRuntime(self.acl, compiled.om_path, compiled.contract, self.number) as runtime:
                yield runtime

    def run(self, compiled: Compiled, feeds: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Output node → ndarray."""
        with self.opened(compiled) as runtime:
            return dict(runtime.run(feeds).outputs)


class Predictor:
    """The simulator.

    Parameters
    ----------
    toolchain : Toolchain — ``find_toolchain("sim")``.
    soc_version : str — the chip that it imitates.
    """

    def __init__(self, toolchain: Toolchain, soc_version: str) -> None:
        self.toolchain = toolchain
        self.soc_version = soc_version

    def compile(self, probe: Probe, folder: Path, device: Device, compiled: Compiled) -> Compiled:
        """A second compilation only if the device's was made by another tool."""
        if device.toolchain == self.toolchain and device.soc_version == self.soc_version:
            return compiled
        return compile_probe(probe, self.toolchain, self.soc_version, folder)

    def run(self, compiled: Compiled, feeds: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return Prediction(compiled.om_path).outputs(feeds)


def mismatches(first: np.ndarray, second: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Where two arrays differ by more than `tolerance`, bool; NaN equals NaN."""
    a, b = np.asarray(first), np.asarray(second)
    with np.errstate(invalid="ignore"):
        other = a != b
        if a.dtype.kind == "f" and b.dtype.kind == "f":
            other &= ~(np.isnan(a) & np.isnan(b))
        if tolerance:
            other &= ~(np.abs(a.astype(np.float64) - b.astype(np.float64)) <= tolerance)
    return other


def differing(first: np.ndarray, second: np.ndarray, tolerance: float = 0.0) -> int:
    """Number of values that differ; see `mismatches`."""
    return int(np.count_nonzero(mismatches(first, second, tolerance)))


def values_text(values: np.ndarray, limit: int = 4) -> str:
    """The first values in a form that shows single bits."""
    flat: List[str] = [f"{float(v):.9g}" for v in np.asarray(values).reshape(-1)[:limit]]
    return ", ".join(flat) + (", …" if np.asarray(values).size > limit else "")
