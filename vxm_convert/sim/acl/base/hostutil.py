# SPDX-License-Identifier: Apache-2.0
"""``acl.util``: addresses of Python objects and back, and host threads. Needs neither a device nor initialisation."""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Any, Callable, Dict, Tuple

import numpy as np

from vxm_convert.sim.acl.base.args import NOTHING, call, query
from vxm_convert.sim.acl.base.state import HIGHEST_ADDRESS, AclFailure

log = logging.getLogger("vxm_convert.sim.acl.module")

#: NPY_* type numbers of the NumPy C interface
_NPY_TYPES: Dict[int, Any] = {
    0: np.bool_,
    1: np.int8,
    2: np.uint8,
    3: np.int16,
    4: np.uint16,
    5: np.int32,
    6: np.uint32,
    7: np.int64,
    8: np.uint64,
    9: np.longlong,
    10: np.ulonglong,
    11: np.float32,
    12: np.float64,
    23: np.float16,
}
_threads: Dict[int, threading.Thread] = {}


def _array(name: str, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"acl.util.{name} args parse failed: expected numpy.ndarray, got {type(value).__name__}")
    return value


@query("util.numpy_to_ptr", "O")
def numpy_to_ptr(array: object) -> int:
    """Address of the array's data; warns about a non-contiguous array, whose bytes are not in array order."""
    checked = _array("numpy_to_ptr", array)
    if not checked.flags["C_CONTIGUOUS"]:
        log.warning("acl.util.numpy_to_ptr: the array is not contiguous; a copy from its address contains other values")
    return int(checked.ctypes.data)


@query("util.numpy_contiguous_to_ptr", "O")
def numpy_contiguous_to_ptr(array: object) -> Tuple[int, np.ndarray]:
    contiguous = np.ascontiguousarray(_array("numpy_contiguous_to_ptr", array))
    return int(contiguous.ctypes.data), contiguous


def _check_readable(name: str, address: int, count: int) -> None:
    if address == 0 or address + count > HIGHEST_ADDRESS:
        raise ValueError(f"acl.util.{name}: {address:#x} is not an address in memory")


@query("util.ptr_to_numpy", "KtI")
def ptr_to_numpy(address: int, shape: Tuple[int, ...], type_number: int) -> np.ndarray:
    """A view of the memory, not a copy; it is valid as long as the memory."""
    if type_number not in _NPY_TYPES:
        raise ValueError(f"acl.util.ptr_to_numpy: NumPy type number {type_number} is not supported")
    dtype = np.dtype(_NPY_TYPES[type_number])
    sides = tuple(int(n) for n in shape)
    count = dtype.itemsize
    for side in sides:
        if side < 0:
            raise ValueError(f"acl.util.ptr_to_numpy: shape {sides} has a negative side")
        count *= side
    _check_readable("ptr_to_numpy", address, count)
    if count == 0:
        return np.empty(sides, dtype)
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(sides)


@query("util.bytes_to_ptr", "O")
def bytes_to_ptr(data: object) -> int:
    """Address of the bytes inside the object; it does not keep the object alive."""
    if not isinstance(data, bytes):
        raise ValueError(f"acl.util.bytes_to_ptr: expected bytes, got {type(data).__name__}")
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


@query("util.ptr_to_bytes", "KK")
def ptr_to_bytes(address: int, count: int) -> bytes:
    _check_readable("ptr_to_bytes", address, count)
    return ctypes.string_at(address, count)


@call("util.start_thread", "O|O", gives=(0,), needs=NOTHING)
def start_thread(function: Callable[..., object], argument: object = None) -> int:
    """Runs ``function(argument)``, or ``function()`` when the argument is None; the id is the thread's own."""
    if not callable(function):
        raise TypeError("acl.util.start_thread args parse failed: the first argument must be callable")
    thread = threading.Thread(target=function, args=() if argument is None else (argument,), daemon=True)
    thread.start()
    identity = int(thread.ident or 0)
    _threads[identity] = thread
    return identity


@call("util.stop_thread", "K", needs=NOTHING)
def stop_thread(identity: int) -> None:
    """Waits for the thread to return; the client must make it return."""
    thread = _threads.pop(identity, None)
    if thread is None:
        raise AclFailure(100000, f"thread {identity} was not started by acl.util.start_thread")
    thread.join()
