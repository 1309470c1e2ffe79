# SPDX-License-Identifier: Apache-2.0
"""MeasuredRuntime: an AclRuntime that also says what its device is, how its calls take their time, and how fast copies
are.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Dict, Iterator, List, Optional

from om_runner.device.acl_runtime import AclRuntime, _Caller, acl_started
from om_runner.device.buffers import Buffers
from vxm_convert.ascend.acl_codes import DEVICE_TO_HOST, HOST_TO_DEVICE, MALLOC_HUGE_FIRST
from vxm_convert.errors import AclError

#: attribute of device memory in ``acl.rt.get_mem_info``: HBM, and DDR for chips without it
_MEMORY_KINDS = (1, 0)
_COPIES = 3


@dataclass(frozen=True)
class Split:
    """One execution: seconds until execute_async returned, and until the stream was done; and the share of its speed
    that another Python thread kept meanwhile.
    """

    returned: float
    done: float
    others: float


class MeasuredRuntime(AclRuntime):
    """See `AclRuntime`; open it before any other call."""

    def model_bytes(self) -> Dict[str, int]:
        """``work`` and ``weights`` of the model, bytes on the device."""
        work, weights, code = self._call._function("mdl.query_size")(str(self.om_path))
        if code:
            raise self._call._error("mdl.query_size", code)
        return {"work": int(work), "weights": int(weights)}

    def output_names(self) -> List[str]:
        """The model's names of its outputs, in its order."""
        desc = self._call.make("mdl.create_desc")
        try:
            self._call.do("mdl.get_desc", desc, self._model_id)
            count = int(self._call.ask("mdl.get_num_outputs", desc))
            return [str(self._call.ask("mdl.get_output_name_by_index", desc, i)) for i in range(count)]
        finally:
            self._call.release("mdl.destroy_desc", desc)

    def memory(self) -> Optional[Dict[str, int]]:
        """``free`` and ``total`` bytes of the device, None if this pyACL does not say."""
        return memory_of(self._call)

    def split(self, staged: Buffers, speed: float) -> Split:
        """Execute a staged run, counting in another thread; `speed` is what `count_speed` gave with nothing running."""
        with self._keeping(staged):
            self._poison(staged)
            with _counting() as counter:
                start = time.perf_counter()
                self._call.do("mdl.execute_async", self._model_id, staged.input_set, staged.output_set, self._stream)
                returned = time.perf_counter() - start
                self._call.do("rt.synchronize_stream", self._stream)
                done = time.perf_counter() - start
                counted = counter.count
        staged.seconds = done
        return Split(returned, done, counted / (speed * done))

    def copy_rates(self, count: int) -> Dict[str, float]:
        """``to_device`` and ``to_host``, bytes per second of `count` bytes of page-locked memory, the best of three."""
        self._call.do("rt.set_context", self._context)
        host = self._call.get("rt.malloc_host", count)
        try:
            device = self._call.get("rt.malloc", count, MALLOC_HUGE_FIRST)
            try:
                return {
                    "to_device": count / self._copy_seconds(device, host, count, HOST_TO_DEVICE),
                    "to_host": count / self._copy_seconds(host, device, count, DEVICE_TO_HOST),
                }
            finally:
                self._call.release("rt.free", device)
        finally:
            self._call.release("rt.free_host", host)

    def _copy_seconds(self, to: int, source: int, count: int, kind: int) -> float:
        times = []
        for _ in range(_COPIES):
            start = time.perf_counter()
            self._call.do("rt.memcpy", to, count, source, count, kind)
            times.append(time.perf_counter() - start)
        return max(min(times), 1e-9)


def facts_of(acl: ModuleType, device: int) -> Dict[str, Any]:
    """What pyACL says of a device: ``soc``, ``count``, ``version``, ``memory``; started and ended here.

    Raises
    ------
    AclError
        If ACL cannot be started or the device cannot be set.
    """
    call = _Caller(acl, f"device {device}")
    with acl_started(acl, f"device {device}"):
        count = int(call.get("rt.get_device_count"))
        call.do("rt.set_device", device)
        try:
            return {"soc": str(call.ask("get_soc_name")), "count": count, "memory": memory_of(call)}
        finally:
            call.release("rt.reset_device", device)


def memory_of(call: _Caller) -> Optional[Dict[str, int]]:
    for kind in _MEMORY_KINDS:
        try:
            free, total, code = call._function("rt.get_mem_info")(kind)
        except AclError:
            return None
        if not code and total:
            return {"free": int(free), "total": int(total)}
    return None


class _Counter:
    """Counts in a thread for as long as it may."""

    def __init__(self) -> None:
        self.count = 0
        self.stop = False

    def run(self) -> None:
        while not self.stop:
            self.count += 1


@contextmanager
def _counting() -> Iterator[_Counter]:
    counter = _Counter()
    thread = threading.Thread(target=counter.run, daemon=True)
    thread.start()
    try:
        yield counter
    finally:
        counter.stop = True
        thread.join()


def count_speed(seconds: float) -> float:
    """Counts per second of such a thread while this one sleeps."""
    with _counting() as counter:
        time.sleep(seconds)
        counted = counter.count
    return max(counted / seconds, 1.0)
