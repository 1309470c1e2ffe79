# SPDX-License-Identifier: Apache-2.0
"""Faults of the simulated device, by name. This module decides when a fault occurs; it calls nothing of ACL.

They are switched on by ``VXM_SIM_FAULT=name[:argument][,name…]``, read when ``acl.init`` is called, or by `injected`:

===================  ===================================================================================================
``device_lost:n``    after n executions (default 0) the driver loses the device: 507899 from then on
``oom_load:n``       loading fails with 245000 after n loads (default 0)
``oom_malloc:n``     acl.rt.malloc returns 207001 once n bytes (default 0) were requested; ``:3calls`` counts calls
``wrong_soc:x``      the device is a chip x (default Ascend310): models for another one are refused with 545001
``corrupt_output``   ``:i`` flips bytes of output i (default 0) after each execution, which still reports success
``half_output``      ``:i`` executions write only the first half of output i (default 0), and report success
``unsteady_output``  ``:i`` flips the lowest bit of the middle value of output i (default 0) after every other execution
``hang:n``           executions after the first n (default 0) hang: 507014 after VXM_SIM_HANG_SECONDS (60)
``slow:f``           each execution takes f times as long (default 10)
===================  ===================================================================================================
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Set

import numpy as np

VARIABLE = "VXM_SIM_FAULT"
HANG_VARIABLE = "VXM_SIM_HANG_SECONDS"
_HANG_SECONDS = 60.0
#: Interval in seconds at which a hanging execution checks whether it may continue.
_HANG_CHECK_S = 0.01
#: Bytes that ``corrupt_output`` changes.
_CORRUPT_BYTES = 64
#: The bits of every fp32 value in them: a 0 becomes an arithmetic NaN.
_CORRUPT_BITS = np.uint32(0x7FC00001)
_CALLS = "calls"
#: Calls with which a client cleans up: they succeed on a lost device too, otherwise its records could not be cleared.
_RELEASES = ("free", "destroy", "unload", "reset", "finalize", "unsubscribe", "get_", "set_context", "update")
#: name → default argument
_DEFAULTS = {
    "device_lost": "0",
    "oom_load": "0",
    "oom_malloc": "0",
    "wrong_soc": "Ascend310",
    "corrupt_output": "0",
    "half_output": "0",
    "unsteady_output": "0",
    "hang": "0",
    "slow": "10",
}


class Strike(NamedTuple):
    """A fault that occurs now: the call's return code and the message."""

    code: int
    message: str


def parse_faults(text: str) -> Dict[str, str]:
    """Name → argument of a comma-separated list.

    Raises
    ------
    ValueError
        For an unknown name or an illegal argument.
    """
    found: Dict[str, str] = {}
    for part in filter(None, (word.strip() for word in text.split(","))):
        name, _, argument = part.partition(":")
        if name not in _DEFAULTS:
            raise ValueError(f"fault {name!r} is not known, expected one of {', '.join(sorted(_DEFAULTS))}")
        found[name] = argument or _DEFAULTS[name]
        _check_argument(name, found[name])
    return found


def _check_argument(name: str, argument: str) -> None:
    if name == "wrong_soc":
        return
    number = argument
    if name == "oom_malloc" and argument.endswith(_CALLS):
        number = argument[: -len(_CALLS)]
    if not number.isdigit() or (name == "slow" and int(number) < 1):
        raise ValueError(
            f"fault {name!r} has argument {argument!r}, expected a whole number" + (" from 1" if name == "slow" else "")
        )


class Faults:
    """The active faults and their counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._from_environment: Dict[str, str] = {}
        self._injected: List[Dict[str, str]] = []
        self._injected_bound: Optional[float] = None
        self.released = threading.Event()
        self._restart()

    def _restart(self) -> None:
        self._executions = self._loads = self._calls = self._bytes = 0
        self._lost: Set[int] = set()
        self.hang_seconds = self._injected_bound or float(os.environ.get(HANG_VARIABLE) or _HANG_SECONDS)
        self.released.clear()

    def read_environment(self) -> None:
        """Read the faults of a starting process; raises ValueError for a malformed variable."""
        with self._lock:
            self._from_environment = parse_faults(os.environ.get(VARIABLE, ""))
            self._restart()

    def argument(self, name: str) -> Optional[str]:
        """The argument of an active fault, or None."""
        for group in reversed(self._injected):
            if name in group:
                return group[name]
        return self._from_environment.get(name)

    # when each strikes --------------------------------------------------------------------------------------
    def at_call(self, name: str, device_id: Optional[int]) -> Optional[Strike]:
        """The failure of a call on a lost device; `device_id` of the calling thread's context, None if it has none."""
        short = name.rpartition(".")[2]
        if (
            not self._lost
            or device_id not in self._lost
            or not name.startswith(("rt.", "mdl."))
            or short.startswith(_RELEASES)
        ):
            return None
        return Strike(507899, f"device {device_id} was lost (injected fault device_lost)")

    def at_load(self) -> Optional[Strike]:
        limit = self.argument("oom_load")
        with self._lock:
            self._loads += 1
            if limit is None or self._loads <= int(limit):
                return None
        return Strike(245000, "no device memory for the model (injected fault oom_load)")

    def at_malloc(self, count: int) -> Optional[Strike]:
        limit = self.argument("oom_malloc")
        with self._lock:
            self._calls += 1
            self._bytes += count
            if limit is None:
                return None
            used, most = (
                (self._calls, int(limit[: -len(_CALLS)])) if limit.endswith(_CALLS) else (self._bytes, int(limit))
            )
        if used <= most:
            return None
        return Strike(207001, f"{count} bytes requested, no device memory left (injected fault oom_malloc:{limit})")

    def at_execute(self, device_id: int, stop: Callable[[], bool]) -> Optional[Strike]:
        """Called before an execution computes; a hang waits here until `stop()`, `release` or its time limit."""
        lost, hang = self.argument("device_lost"), self.argument("hang")
        with self._lock:
            self._executions += 1
            done = self._executions - 1
            if lost is not None and done >= int(lost):
                self._lost.add(device_id)
        if device_id in self._lost:
            return Strike(507899, f"device {device_id} was lost during an execution (injected fault device_lost)")
        if hang is not None and done >= int(hang) and not self._hang(stop):
            return Strike(507014, f"the execution did not end within {self.hang_seconds} s (injected fault hang)")
        return None

    def _hang(self, stop: Callable[[], bool]) -> bool:
        """Whether the execution was released."""
        end = time.monotonic() + self.hang_seconds
        while not stop() and time.monotonic() < end:
            if self.released.wait(_HANG_CHECK_S):
                return True
        return False

    def is_lost(self, device_id: int) -> bool:
        return device_id in self._lost

    def soc_name(self, true_name: str) -> str:
        return self.argument("wrong_soc") or true_name

    def slowness(self) -> float:
        """Factor by which executions take longer; 1.0 without the fault."""
        return float(self.argument("slow") or 1)

    def spoil(self, outputs: List[np.ndarray]) -> None:
        """Change bits in the middle of one output; `outputs` are uint8 views of device memory."""
        index = self.argument("corrupt_output")
        if index is not None and int(index) < len(outputs):
            raw = outputs[int(index)]
            # At a multiple of 4, so that whole values are changed.
            start = raw.size // 8 * 4
            raw[start : start + _CORRUPT_BYTES].view(np.uint32)[:] ^= _CORRUPT_BITS
        unsteady = self.argument("unsteady_output")
        if unsteady is not None and int(unsteady) < len(outputs) and self._executions % 2 == 0:
            raw = outputs[int(unsteady)]
            # Little endian: the first byte of a value is its lowest.
            raw[raw.size // 8 * 4] ^= 1

    def written(self, index: int, count: int) -> int:
        """Number of the `count` bytes that an execution writes to output `index`."""
        half = self.argument("half_output")
        return count // 2 if half is not None and int(half) == index else count


FAULTS = Faults()


@contextmanager
def injected(text: str, hang_seconds: Optional[float] = None) -> Iterator[Faults]:
    """Activate faults within a with statement, with counters at zero; `FAULTS.released.set()` ends a hang.

    Raises
    ------
    ValueError
        See `parse_faults`.
    """
    group = parse_faults(text)
    before = FAULTS._injected_bound
    FAULTS._injected.append(group)
    FAULTS._injected_bound = hang_seconds or before
    FAULTS._restart()
    try:
        yield FAULTS
    finally:
        FAULTS._injected.remove(group)
        FAULTS._injected_bound = before
        FAULTS.released.set()
