# SPDX-License-Identifier: Apache-2.0
"""The state of the simulated device: devices, handles, current contexts, last errors, findings.

There is one `Simulator` per process, like the ACL runtime. Clients call nothing in this module; the modules beside it
register the calls.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from typing import Any, Dict, List, Optional, Type, TypeVar

from vxm_convert.ascend.chips import DEFAULT_SOC, MEMORY_910
from vxm_convert.sim.faults import FAULTS

log = logging.getLogger("vxm_convert.sim.acl.module")

MAX_DEVICES = 64
MAX_FINDINGS = 1000
#: Handles are addresses that no 64-bit process can have, so that a handle used as a pointer is detected.
_FIRST_HANDLE = 0x00A5_0000_0000_0000
_HANDLE_STEP = 0x40
#: Lowest VXM_SIM_SPEED
_SLOWEST = 0.001
#: Highest VXM_SIM_LATENCY, in seconds
_LONGEST = 3600.0
HIGHEST_ADDRESS = 1 << 47

T = TypeVar("T")


class AclFailure(Exception):
    """A call fails with return code `code`; the caller gets the code, `get_recent_err_msg` returns the message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DeviceContext:
    """A device as one thread, or several, use it; `vxm_convert.sim.acl.runtime` makes them. Streams are not known here."""

    device_id: int
    alive: bool
    default_stream: Any
    streams: List[Any]

    def close(self) -> None:
        """End its streams and invalidate their handles."""
        raise NotImplementedError


class Device:
    """One simulated Ascend device: its memory account and its reference count.

    Parameters
    ----------
    device_id : int
    soc_name : str — what ``acl.get_soc_name`` reports.
    memory_bytes : int — size of its HBM in bytes.
    """

    def __init__(self, device_id: int, soc_name: str, memory_bytes: int) -> None:
        self.device_id = device_id
        self.soc_name = soc_name
        self.memory_bytes = memory_bytes
        self.used_bytes = 0
        self.references = 0
        self.default_context: Optional[DeviceContext] = None
        self.was_used = False

    def reserve(self, count: int, code: int) -> None:
        """Book `count` bytes; raises AclFailure(`code`) if the device has less than that left."""
        free = self.memory_bytes - self.used_bytes
        if count > free:
            raise AclFailure(
                code, f"device {self.device_id}: {count} bytes requested, {free} of {self.memory_bytes} free"
            )
        self.used_bytes += count

    def give_back(self, count: int) -> None:
        self.used_bytes = max(0, self.used_bytes - count)


class Simulator:
    """The state of the process; `settings` come from the environment when ACL is initialised."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread = threading.local()
        self.announced = False
        self.clear()

    def clear(self) -> None:
        """Reset everything, as in a new process; the caller must stop running streams first."""
        with self.lock:
            self.initialised = False
            self.finalised = False
            self.strict = False
            self.speed = 1.0
            self.latency = 0.0
            self.dump: Any = None
            self.dump_ready = False
            self.errors_of_process = False
            self.process_error: Optional[str] = None
            self.devices: List[Device] = []
            self.handles: Dict[int, Any] = {}
            self.models: Dict[int, Any] = {}
            self.findings: List[str] = []
            self.leaks: List[str] = []
            self._newest_handle = _FIRST_HANDLE - _HANDLE_STEP
            self._next_model = itertools.count(1)
            self.thread = threading.local()

    def configure(self) -> None:
        """Read the environment: VXM_SIM_DEVICES (count), VXM_SIM_MEMORY (bytes per device), VXM_SIM_SOC (name),
        VXM_SIM_STRICT (0, 1), VXM_SIM_SPEED (0.001 to 1: speed of executions, 1 is that of this CPU), VXM_SIM_LATENCY
        (seconds that each execution sleeps in addition) and VXM_SIM_FAULT (see `faults`).
        """
        try:
            FAULTS.read_environment()
            speed, latency = float(os.environ.get("VXM_SIM_SPEED") or 1), float(os.environ.get("VXM_SIM_LATENCY") or 0)
        except ValueError as exc:
            names = "VXM_SIM_FAULT, VXM_SIM_HANG_SECONDS, VXM_SIM_SPEED, VXM_SIM_LATENCY"
            raise AclFailure(100000, f"environment variables {names}: {exc}") from exc
        if not _SLOWEST <= speed <= 1:
            raise AclFailure(100000, f"environment variable VXM_SIM_SPEED is {speed}, expected {_SLOWEST} to 1")
        if not 0 <= latency <= _LONGEST:
            raise AclFailure(
                100000, f"environment variable VXM_SIM_LATENCY is {latency}, expected 0 to {_LONGEST:g} seconds"
            )
        self.speed, self.latency = speed, latency
        count = _whole_number("VXM_SIM_DEVICES", 1, 1, MAX_DEVICES)
        memory = _whole_number("VXM_SIM_MEMORY", MEMORY_910, 1 << 20, 1 << 44)
        soc = os.environ.get("VXM_SIM_SOC", DEFAULT_SOC)
        self.devices = [Device(i, soc, memory) for i in range(count)]
        self.strict = os.environ.get("VXM_SIM_STRICT", "0") == "1"

    # handles ------------------------------------------------------------------------------------------------
    def new_handle(self, thing: object) -> int:
        with self.lock:
            handle = self._newest_handle = self._newest_handle + _HANDLE_STEP
            self.handles[handle] = thing
        return handle

    def thing(self, handle: int, kind: Type[T], code: int) -> T:
        """The object behind a handle; raises AclFailure(`code`) if there is none of this kind."""
        found = self.handles.get(handle)
        if not isinstance(found, kind):
            raise AclFailure(code, f"handle {handle:#x} is not a live {kind.__name__}{self._fate_of(handle, found)}")
        return found

    def _fate_of(self, handle: int, found: object) -> str:
        """Why a handle is not usable, if that is known."""
        if found is not None:
            return f", it belongs to a {type(found).__name__}"
        if not _FIRST_HANDLE <= handle <= self._newest_handle or (handle - _FIRST_HANDLE) % _HANDLE_STEP:
            return ""
        if self.strict:
            self.note(f"handle {handle:#x} is used after it was destroyed")
        return ": it was destroyed (use after free or double free)"

    def drop_handle(self, handle: int) -> None:
        with self.lock:
            self.handles.pop(handle, None)

    def handle_of(self, thing: object) -> int:
        return next((h for h, known in list(self.handles.items()) if known is thing), 0)

    def new_model_id(self) -> int:
        return next(self._next_model)

    def live(self, kind: Type[T]) -> List[T]:
        """Every live object of a kind to which clients hold handles."""
        with self.lock:
            return [thing for thing in self.handles.values() if isinstance(thing, kind)]

    # devices and contexts -----------------------------------------------------------------------------------
    def device(self, device_id: int) -> Device:
        if not 0 <= device_id < len(self.devices):
            raise AclFailure(107001, f"device id {device_id}, expected 0..{len(self.devices) - 1}")
        return self.devices[device_id]

    @property
    def current(self) -> Optional[DeviceContext]:
        """The calling thread's context, or None."""
        context = getattr(self.thread, "context", None)
        return context if context is not None and context.alive else None

    @current.setter
    def current(self, context: Optional[DeviceContext]) -> None:
        self.thread.context = context

    def context(self) -> DeviceContext:
        """The calling thread's context; raises AclFailure(107002) if there is none."""
        context = self.current
        if context is None:
            raise AclFailure(
                107002, "this thread has no context: call acl.rt.set_device or acl.rt.set_context in this thread first"
            )
        return context

    def current_device(self) -> Device:
        return self.devices[self.context().device_id]

    # messages -----------------------------------------------------------------------------------------------
    def remember_error(self, call: str, code: int, message: str) -> None:
        self.thread.code = code
        self.thread.error = self.process_error = f"[SIMULATED] {call} returned {code}: {message}"

    def take_error(self) -> Optional[str]:
        """The last error of the calling thread (of the process with err_msg_mode 1), returned once; None if there is
        none.
        """
        error = self.process_error if self.errors_of_process else getattr(self.thread, "error", None)
        self.thread.error = self.process_error = None
        return error

    def last_code(self, forget: bool) -> int:
        """Return code of the calling thread's last failed call; 0 if none has failed since it was last cleared."""
        code = int(getattr(self.thread, "code", 0))
        if forget:
            self.thread.code = 0
        return code

    def find(self, message: str, code: int) -> None:
        """Record a use that a real device may refuse: normally a warning, AclFailure(`code`) with VXM_SIM_STRICT=1."""
        self.note(message)
        if self.strict:
            raise AclFailure(code, message)

    def note(self, message: str) -> None:
        """Record each finding once."""
        if message not in self.findings and len(self.findings) < MAX_FINDINGS:
            self.findings.append(message)
            log.warning("simulated device: %s", message)


def _whole_number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit() or not low <= int(text) <= high:
        raise AclFailure(100000, f"environment variable {name} is {text!r}, expected a whole number in {low}..{high}")
    return int(text)


def span_text(address: int, count: int) -> str:
    return f"[{address:#x}, +{count})"


SIM = Simulator()
