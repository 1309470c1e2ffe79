# SPDX-License-Identifier: Apache-2.0
"""Every compiled loop of the project, and their first compilation in two processes.

numba compiles one loop at a time in a process, and all of them take some 10 s. A run that has to compile starts this module
as a program, which begins with the loops that the run needs last; what it has compiled, the run finds in numba's cache.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import partial
from typing import Any, Callable, Dict, List, Sequence

from vxm_convert.geometry import compiled
from vxm_convert.lazy import LazyModule

ending = LazyModule("vxm_convert.sim.engine.ending.run")
LOG = logging.getLogger(__name__)
#: argument of the program
_SIMULATED = "simulated"

_started: List[subprocess.Popen[bytes]] = []


def groups(simulated: bool) -> Dict[str, List[Callable[[], Any]]]:
    """What compiles or loads each loop, in the order in which a run of raw scans needs them.

    Parameters
    ----------
    simulated : bool — whether the run is on a simulated device, which has loops of its own.
    """
    names = ["linear", "blurred", "counted", "pulled"]
    names += [name for name in compiled.tables() if name not in names]
    found: Dict[str, List[Callable[[], Any]]] = {}
    if simulated and ending.usable():
        found["simulated device"] = ending.loops()
    found["host"] = [partial(compiled.kernel, name) for name in names]
    return found


def compile_beside(threads: int, simulated: bool) -> None:
    """If this process has to compile a loop, let another one compile, too; not if it may use one thread only."""
    if threads > 1:
        compiled.when_compiling(partial(_start, simulated))


def _start(simulated: bool) -> None:
    command = [sys.executable, "-m", "vxm_convert.toolchain.first_compilation"] + [_SIMULATED] * simulated
    nothing = subprocess.DEVNULL
    try:
        _started.append(subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing))
    except OSError as exc:
        LOG.debug("loops are compiled by this process alone: %s", exc)


def main(argv: Sequence[str]) -> int:
    """Compile every loop that is not in numba's cache, the last first."""
    for loads in reversed(list(groups(_SIMULATED in argv).values())):
        for load in reversed(loads):
            load()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
