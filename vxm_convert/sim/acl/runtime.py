# SPDX-License-Identifier: Apache-2.0
"""Initialisation and finalisation of ACL, devices and contexts. The first initialisation logs that the device is
simulated.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

from vxm_convert.sim.acl.base.args import CONTEXT, INIT, NOTHING, call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure, Device, DeviceContext, log
from vxm_convert.sim.acl.dumps.config import Configuration, read_configuration
from vxm_convert.sim.acl.memory.blocks import MEMORY
from vxm_convert.sim.acl.memory.leaks import note_context, report_leaks
from vxm_convert.sim.acl.streams.stream import Stream
from vxm_convert.sim.faults import FAULTS

#: Version of the interface (not of CANN) that is simulated.
_VERSION = (1, 1, 0)
_RUN_MODE_HOST = 1


class Context(DeviceContext):
    """A context of a device for one or several threads: its default stream and the streams created in it."""

    def __init__(self, device: Device) -> None:
        self.device_id = device.device_id
        self.alive = True
        self.default_stream = Stream(self)
        self.streams: List[Stream] = []

    def close(self) -> None:
        """End its streams, including leaked ones, and invalidate their handles."""
        self.alive = False
        for stream in [self.default_stream] + self.streams:
            stream.close()
            SIM.drop_handle(SIM.handle_of(stream))
        del self.streams[:]


# init and finalize ------------------------------------------------------------------------------------------
@call("init", "|z", needs=NOTHING)
def init(config_path: Optional[str] = None) -> None:
    with SIM.lock:
        if SIM.initialised:
            raise AclFailure(100002, "acl.init has been called already in this process")
        configuration = read_configuration(config_path) if config_path else Configuration()
        SIM.configure()
        SIM.errors_of_process, SIM.dump = configuration.errors_of_process, configuration.dump
        SIM.initialised, SIM.finalised = True, False
    if not SIM.announced:
        SIM.announced = True
        device = SIM.devices[0]
        log.warning(
            "SIMULATED Ascend device: %d x %s with %.1f GiB, executed on this machine's CPU; no real device is used",
            len(SIM.devices),
            device.soc_name,
            device.memory_bytes / 2.0**30,
        )


@call("finalize", needs=NOTHING)
def finalize() -> None:
    """Ends every stream; memory that the client never freed stays readable, as in a real process, and is reported."""
    if SIM.finalised:
        raise AclFailure(100037, "acl.finalize has been called already")
    if not SIM.initialised:
        raise AclFailure(100001, "acl.init has not been called")
    defaults = [device.default_context for device in SIM.devices if device.default_context is not None]
    report_leaks([context for context in SIM.live(Context) if context not in defaults])
    for context in SIM.live(Context) + defaults:
        context.close()
    SIM.models.clear()
    SIM.initialised, SIM.finalised, SIM.dump, SIM.dump_ready = False, True, None, False
    SIM.current = None


@call("get_version", gives=(0, 0, 0), needs=NOTHING)
def get_version() -> Tuple[int, int, int]:
    return _VERSION


@query("get_soc_name", otherwise=None)
def get_soc_name() -> Optional[str]:
    return FAULTS.soc_name(SIM.devices[0].soc_name) if SIM.devices else None


@query("get_recent_err_msg", otherwise=None)
def get_recent_err_msg() -> Optional[str]:
    """Message of the calling thread's last failed call; each is returned once."""
    return SIM.take_error()


_THREAD_LEVEL = 0


def _check_level(level: int) -> None:
    if level != _THREAD_LEVEL:
        raise AclFailure(100000, f"error level {level}, expected {_THREAD_LEVEL} (thread)")


@query("rt.peek_at_last_error", "i", otherwise=100000)
def peek_at_last_error(level: int) -> int:
    """Return code of the calling thread's last failed call."""
    _check_level(level)
    return SIM.last_code(forget=False)


@query("rt.get_last_error", "i", otherwise=100000)
def get_last_error(level: int) -> int:
    """As `peek_at_last_error`, then clear it."""
    _check_level(level)
    return SIM.last_code(forget=True)


@query("app_log", "Is", otherwise=None)
def app_log(level: int, message: str) -> None:
    """Levels 0 debug, 1 info, 2 warning, 3 error."""
    log.log(10 * (min(level, 3) + 1), "%s", message)


# devices ----------------------------------------------------------------------------------------------------
@call("rt.set_device", "i")
def set_device(device_id: int) -> None:
    """Counts references; the first one makes the default context that all threads of the process share."""
    with SIM.lock:
        device = SIM.device(device_id)
        if FAULTS.is_lost(device_id):
            raise AclFailure(507033, f"device {device_id} cannot be opened: it was lost (injected fault device_lost)")
        if device.default_context is None:
            device.default_context = Context(device)
        device.references += 1
        device.was_used = True
        SIM.current = device.default_context


@call("rt.reset_device", "i")
def reset_device(device_id: int) -> None:
    """Waits for the default stream; with the last reference, everything on the device is freed."""
    device = SIM.device(device_id)
    if not device.was_used:
        raise AclFailure(107002, f"device {device_id} was never set in this process")
    device.references = max(0, device.references - 1)
    if device.default_context is not None:
        device.default_context.default_stream.wait()
    if device.references:
        return
    if device.default_context is not None:
        note_context(device.default_context, is_default=True)
        device.default_context.close()
        device.default_context = None
    _release_all_of(device)
    device.was_used = False


def _release_all_of(device: Device) -> None:
    for context in SIM.live(Context):
        if context.device_id == device.device_id:
            if context.alive:
                note_context(context)
            context.close()
            SIM.drop_handle(SIM.handle_of(context))
    for model_id, model in list(SIM.models.items()):
        if model.device_id == device.device_id:
            model.release()
            del SIM.models[model_id]
            SIM.leaks.append(f"model {model.name} (id {model_id})")
    left = MEMORY.release_device(device.device_id)
    if left:
        SIM.leaks.append(f"{left} blocks of device memory of device {device.device_id}")
        log.info(
            "simulated device: %d blocks of device memory were not freed before acl.rt.reset_device(%d)",
            left,
            device.device_id,
        )


@call("rt.get_device", gives=(0,))
def get_device() -> int:
    return SIM.context().device_id


@call("rt.get_device_count", gives=(0,))
def get_device_count() -> int:
    return len(SIM.devices)


@call("rt.get_run_mode", gives=(_RUN_MODE_HOST,), needs=INIT)
def get_run_mode() -> int:
    return _RUN_MODE_HOST


@call("rt.synchronize_device", needs=CONTEXT)
def synchronize_device() -> None:
    device_id = SIM.context().device_id
    contexts = SIM.live(Context) + [SIM.devices[device_id].default_context]
    for context in contexts:
        if context is not None and context.device_id == device_id and context.alive:
            for stream in [context.default_stream] + context.streams:
                stream.synchronize()


# contexts ---------------------------------------------------------------------------------------------------
@call("rt.create_context", "i", gives=(0,))
def create_context(device_id: int) -> int:
    """The new context becomes the calling thread's current one."""
    device = SIM.device(device_id)
    context = Context(device)
    device.was_used = True
    SIM.current = context
    return SIM.new_handle(context)


@call("rt.destroy_context", "K")
def destroy_context(handle: int) -> None:
    context = SIM.thing(handle, Context, 107000)
    if any(device.default_context is context for device in SIM.devices):
        raise AclFailure(107000, "the default context cannot be destroyed: use acl.rt.reset_device")
    note_context(context, is_default=True)
    context.close()
    SIM.drop_handle(handle)


@call("rt.set_context", "K")
def set_context(handle: int) -> None:
    SIM.current = SIM.thing(handle, Context, 107000)


@call("rt.get_context", gives=(0,))
def get_context() -> int:
    context = SIM.context()
    handle = SIM.handle_of(context)
    return handle or SIM.new_handle(context)


def restart() -> None:
    """Reset everything, as in a new process: for tests, which simulate many processes in one."""
    for context in SIM.live(Context) + [d.default_context for d in SIM.devices if d.default_context is not None]:
        context.close()
    MEMORY.clear()
    SIM.clear()
