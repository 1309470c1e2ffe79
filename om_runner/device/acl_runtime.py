# SPDX-License-Identifier: Apache-2.0
"""AclRuntime: an offline model on an Ascend device. The only file that calls pyACL.

It uses only calls of all CANN versions from 5 to 9, and none of ``acl.util``: pointers are Python ints, so NumPy's own
addresses and ctypes views are enough. The caller passes the module; the same code drives the simulated one.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from om_runner.device.buffers import Buffers, Port, index_of, same_bytes, tensor_bytes, view_of
from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import FIXED, RunResult, Runtime
from vxm_convert.ascend.acl_codes import (
    DEVICE_TO_HOST,
    FORMATS,
    HOST_TO_DEVICE,
    MALLOC_HUGE_FIRST,
    SUCCESS,
    describe_code,
    format_name,
    numpy_dtype,
)
from vxm_convert.ascend.chips import chip_of, runs_on
from vxm_convert.errors import AclError, ArtifactError, ContractError
from vxm_convert.model.contract import GraphContract, TensorSpec

log = logging.getLogger(__name__)

#: Code of acl.init if something else in the process has initialised ACL (for example npu_bridge).
_REPEATED_INIT = 100002
#: Layouts in which the bytes of a 5-D tensor are in the order of the array.
_PLAIN_FORMATS = {FORMATS["ND"], FORMATS["NDHWC"], FORMATS["NHWC"], FORMATS["NCHW"], FORMATS["NCDHW"]}
#: Longest execution in ms; the largest estimate for a batch of 8 is some seconds.
_HANG_MS = 600 * 1000
#: the same at the end, after a failure
_LAST_MS = 30 * 1000
#: A model may report its buffers rounded up to this alignment, in bytes.
_PADDING = 64
#: Every byte of the output buffers before an execution: NaN in every float dtype, with a payload that no arithmetic
#: produces.
_POISON = 0xFF
#: id of an acl module → its users in this process, and whether they have started it
_USERS: Dict[int, Tuple[int, bool]] = {}
_USERS_LOCK = threading.Lock()


class _Caller:
    """Calls pyACL functions by dotted name and turns every failure into one AclError.

    Parameters
    ----------
    acl : module — pyACL or the simulated module.
    where : str — the model's path, for messages.
    """

    def __init__(self, acl: ModuleType, where: str) -> None:
        self._acl = acl
        self._where = where

    @property
    def module(self) -> ModuleType:
        """The `acl` module itself, for parts that older releases do not have."""
        return self._acl

    def _function(self, name: str) -> Callable[..., Any]:
        target: Optional[Callable[..., Any]] = None
        place: object = self._acl
        for part in name.split("."):
            place = target = getattr(place, part, None)
        if target is None:
            raise AclError(
                f"{self._where}: this pyACL has no acl.{name}; install a complete CANN (5.0 or newer)", f"acl.{name}"
            )
        return target

    def _error(self, name: str, code: int, advice: str = "") -> AclError:
        row = describe_code(code)
        recent = getattr(self._acl, "get_recent_err_msg", None)
        said = (recent() if recent is not None else None) or "no further message"
        return AclError(
            f"{self._where}: acl.{name} returned {code} ({row.meaning}): {said}; {advice or row.do_this}",
            f"acl.{name}",
            code,
        )

    def do(self, name: str, *args: object) -> None:
        """A call that returns only its return code."""
        code = self._function(name)(*args)
        if code != SUCCESS:
            raise self._error(name, code)

    def get(self, name: str, *args: object) -> Any:
        """A call that returns one value and its return code."""
        value, code = self._function(name)(*args)
        if code != SUCCESS:
            raise self._error(name, code)
        return value

    def ask(self, name: str, *args: object) -> Any:
        """A call that returns a bare value."""
        return self._function(name)(*args)

    def make(self, name: str, *args: object) -> int:
        """A call that returns a bare handle, 0 being failure."""
        handle: int = self._function(name)(*args)
        if not handle:
            raise AclError(
                f"{self._where}: acl.{name} returned no handle; {describe_code(200000).do_this}", f"acl.{name}", 200000
            )
        return handle

    def release(self, name: str, *args: object) -> None:
        """A call that releases something: a failure is only logged, so that later releases still happen."""
        try:
            self.do(name, *args)
        except AclError as exc:
            log.warning("%s", exc)

    def initialise(self) -> bool:
        """Start ACL; False if the process has done so before, in which case we must not end it."""
        code: int = self._function("init")()
        if code not in (SUCCESS, _REPEATED_INIT):
            advice = (
                "older CANN cannot start ACL again in a process that has finalised it: use a new process"
                if code == 100037
                else ""
            )
            raise self._error("init", code, advice)
        return code == SUCCESS


@contextmanager
def acl_started(acl_module: ModuleType, where: str) -> Iterator[None]:
    """ACL for as long as this is open: started for the first of its users in this process, ended after the last one.

    What else has started it in the process must end it. Around several runtimes one after the other it keeps ACL
    started: older CANN cannot start it again in a process that has ended it.
    """
    caller, key = _Caller(acl_module, where), id(acl_module)
    with _USERS_LOCK:
        users, ours = _USERS.get(key, (0, False))
        _USERS[key] = users + 1, caller.initialise() or ours
    try:
        yield
    finally:
        with _USERS_LOCK:
            users, ours = _USERS.pop(key)
            if users > 1:
                _USERS[key] = users - 1, ours
            elif ours:
                caller.release("finalize")


class AclRuntime(Runtime):
    """An offline model on one device, loaded once; its buffers are allocated once and used by every run.

    Parameters
    ----------
    acl_module : module — the result of ``Toolchain.load_acl()``.
    om_path : Path — the offline model.
    contract : GraphContract — the contract written with it.
    device_id : int — device of this machine, from 0.
    dump_config : Path or None — a pyACL dump configuration; every execution then writes the tensors that it names.

    Raises
    ------
    ArtifactError
        At open: if the offline model is not a readable file.
    ContractError
        At open: if its inputs or outputs are not those of the contract. At run: see `Runtime.run`.
    AclError
        If a pyACL call fails.

    Notes
    ----- The fixed image is copied to the device only if it differs, byte for byte, from the one on the device. Output
    buffers are filled with NaN before every execution and searched for it afterwards: a value of an earlier run can
    never be taken for a result. Both together take about 40 ms for the 110 MB of a pair at 160x192x224 on one core.
    Several threads may use a runtime one after the other, never two at the same time; with two sets of buffers
    (`reserve`) one thread may execute one set while another stages or fetches the other. An execution is collected
    before the next one starts.
    """

    def __init__(
        self,
        acl_module: ModuleType,
        om_path: Path,
        contract: GraphContract,
        device_id: int = 0,
        dump_config: Optional[Path] = None,
    ) -> None:
        super().__init__(contract)
        self._dump_config = dump_config
        self.om_path = Path(om_path)
        self.device_id = int(device_id)
        self._call = _Caller(acl_module, str(om_path))
        self._releases = ExitStack()
        self._inputs: List[Port] = []
        self._outputs: List[Port] = []
        self._sets: List[Buffers] = []
        self._free: List[Buffers] = []
        self._context = self._stream = self._model_id = 0

    # open ---------------------------------------------------------------------------------------------------
    def _open(self) -> None:
        if not self.om_path.is_file():
            raise ArtifactError(
                f"{self.om_path}: no such file, expected the offline model (.om) that export wrote; run `make "
                "export-om` or pass --model"
            )
        try:
            self._open_device()
            self._open_model()
            self._add_buffers()
        except BaseException:
            self._close()
            raise

    def reserve(self, sets: int) -> int:
        """See `Runtime.reserve`; if the device lacks memory for another set, the present ones are used."""
        self._call.do("rt.set_context", self._context)
        while len(self._sets) < sets:
            try:
                self._add_buffers()
            except AclError as exc:
                log.warning("%s; continuing with %d set of buffers, which is slower", exc, len(self._sets))
                break
        return len(self._sets)

    def _add_buffers(self) -> None:
        """Allocate another set; on failure, its parts are released at once.

        Sets share what is never in use by two at a time: inputs are staged one after the other, and outputs leave the device
        before the next execution.
        """
        first = self._sets[0] if self._sets else None
        inputs, outputs = (self._inputs, self._outputs) if first is None else (first.inputs, first.outputs)
        made = Buffers([replace(port) for port in inputs], [replace(port) for port in outputs])
        with ExitStack() as undo:
            for port in made.inputs if first is None else ():
                self._allocate_host(port, undo)
            for port in made.outputs:
                self._allocate_host(port, undo)
            made.input_set = self._make_dataset(made.inputs, undo)
            made.output_set = self._make_dataset(made.outputs, undo) if first is None else first.output_set
            self._releases.push(undo.pop_all())
        self._sets.append(made)
        self._free.append(made)

    def _later(self, name: str, *args: object) -> None:
        """Record a release; `_close` runs them in reverse order."""
        self._releases.callback(self._call.release, name, *args)

    def _open_device(self) -> None:
        self._releases.enter_context(acl_started(self._call.module, str(self.om_path)))
        self._call.do("rt.set_device", self.device_id)
        self._later("rt.reset_device", self.device_id)
        self._check_chip()
        self._context = self._call.get("rt.create_context", self.device_id)
        self._later("rt.destroy_context", self._context)
        self._stream = self._call.get("rt.create_stream")
        self._later("rt.destroy_stream", self._stream)

    def _check_chip(self) -> None:
        """Compare the device with the contract: a failed check inside CANN comes back as a code that names no chip."""
        name = getattr(self._call.module, "get_soc_name", None)
        device = str((name() if name is not None else None) or "")
        compiled = self.contract.soc_version
        if runs_on(compiled, device):
            return
        if device and chip_of(device) is not None:
            raise ContractError(
                f"{self.om_path}: compiled for {compiled}, device {self.device_id} is {device}; export again with "
                f"--soc-version {device} (a simulated device is {compiled} with VXM_SIM_SOC={compiled})"
            )
        log.warning(
            "%s: compiled for %s; device %d calls itself %s, which is not in the table of chips; CANN decides",
            self.om_path,
            compiled,
            self.device_id,
            device or "nothing",
        )

    def _open_model(self) -> None:
        if self._dump_config is not None:
            # Only models that are loaded within this context are dumped.
            self._call.do("mdl.init_dump")
            self._later("mdl.finalize_dump")
            self._call.do("mdl.set_dump", str(self._dump_config))
        self._model_id = self._call.get("mdl.load_from_file", str(self.om_path))
        self._later("mdl.unload", self._model_id)
        desc = self._call.make("mdl.create_desc")
        self._later("mdl.destroy_desc", desc)
        self._call.do("mdl.get_desc", desc, self._model_id)
        self._inputs = self._match("input", desc, self.contract.inputs)
        self._outputs = self._match("output", desc, self.contract.outputs)

    def _match(self, end: str, desc: int, specs: Tuple[TensorSpec, ...]) -> List[Port]:
        """The model's inputs or outputs in model order, each with the contract entry of its name."""
        count = int(self._call.ask(f"mdl.get_num_{end}s", desc))
        names = [self._call.ask(f"mdl.get_{end}_name_by_index", desc, i) for i in range(count)]
        ports = [self._checked_port(end, desc, index_of(end, spec, names, self.om_path), spec) for spec in specs]
        if len(ports) != count:
            raise ContractError(
                f"{self.om_path}: has {count} {end}s ({', '.join(names)}), the contract has {len(ports)}; the model "
                "and contract.json are from different exports; export again"
            )
        return sorted(ports, key=lambda port: port.index)

    def _checked_port(self, end: str, desc: int, index: int, spec: TensorSpec) -> Port:
        """Compare dims, dtype, layout and size of one input or output with the contract."""
        dims = tuple(int(n) for n in self._call.get(f"mdl.get_{end}_dims", desc, index)["dims"])
        number = int(self._call.ask(f"mdl.get_{end}_data_type", desc, index))
        layout = int(self._call.ask(f"mdl.get_{end}_format", desc, index))
        size = int(self._call.ask(f"mdl.get_{end}_size_by_index", desc, index))
        dtype = np.dtype(spec.dtype)
        need = tensor_bytes(spec)
        if dims != tuple(spec.shape):
            self._refuse(end, spec, f"has dims {dims}", f"{tuple(spec.shape)}")
        if numpy_dtype(number) != dtype:
            self._refuse(end, spec, f"has dtype {numpy_dtype(number) or number}", str(dtype))
        if layout not in _PLAIN_FORMATS:
            self._refuse(end, spec, f"has the device layout {format_name(layout)}", spec.layout)
        if not need <= size <= need + _PADDING:
            self._refuse(end, spec, f"has {size} bytes", f"{need} (a size of 0 means the model's output is unbounded)")
        return Port(spec, index, size)

    def _refuse(self, end: str, spec: TensorSpec, got: str, expected: str) -> None:
        raise ContractError(
            f"{self.om_path}: {end} {spec.tensor_name} ({spec.meaning}) {got}, the contract says {expected}; the "
            "model and contract.json are from different exports; export again"
        )

    def _allocate_host(self, port: Port, undo: ExitStack) -> None:
        """Page-locked memory for a port; `undo` releases it."""
        port.host_address = self._call.get("rt.malloc_host", port.size)
        undo.callback(self._call.release, "rt.free_host", port.host_address)
        port.host = view_of(port.host_address, port.spec)
        # Touch it here, so that the first run does not wait for its pages.
        ctypes.memset(port.host_address, 0, port.size)

    def _make_dataset(self, ports: List[Port], undo: ExitStack) -> int:
        """Device memory for every port, and a dataset of it in model order; `undo` releases all of it."""

        def later(name: str, *args: object) -> None:
            undo.callback(self._call.release, name, *args)

        dataset = self._call.make("mdl.create_dataset")
        later("mdl.destroy_dataset", dataset)
        for port in ports:
            port.device_address = self._call.get("rt.malloc", port.size, MALLOC_HUGE_FIRST)
            later("rt.free", port.device_address)
            buffer = self._call.make("create_data_buffer", port.device_address, port.size)
            later("destroy_data_buffer", buffer)
            self._call.get("mdl.add_dataset_buffer", dataset, buffer)
        return dataset

    # run ----------------------------------------------------------------------------------------------------
    def _run(self, feeds: Dict[str, np.ndarray]) -> RunResult:
        return self.fetch(self.collect(self.execute(self._stage(feeds))))

    def stage(self, feeds: Dict[str, np.ndarray]) -> Buffers:
        return self._stage(self._complete(feeds))

    def _stage(self, feeds: Dict[str, np.ndarray]) -> Buffers:
        if not self._free:
            raise RuntimeError(f"all {len(self._sets)} sets of buffers are in use: fetch first, or reserve more")
        buffers = self._free.pop()
        with self._keeping(buffers):
            for port in buffers.inputs:
                # Removed from the feeds, so that an array without other references is freed before the device works.
                self._send(buffers, port, feeds.pop(port.spec.meaning))
            for port in buffers.outputs:
                ctypes.memset(port.host_address, _POISON, port.size)
        return buffers

    def execute(self, staged: Buffers) -> Buffers:
        with self._keeping(staged):
            self._poison(staged)
            start = time.perf_counter()
            self._call.do("mdl.execute_async", self._model_id, staged.input_set, staged.output_set, self._stream)
            self._synchronize(_HANG_MS)
            staged.seconds = time.perf_counter() - start
        return staged

    def _poison(self, staged: Buffers) -> None:
        """Fill the device's outputs, as `stage` does the host's: neither an incomplete execution nor an incomplete copy can
        leave an earlier result in place.
        """
        for port in staged.outputs:
            self._call.do("rt.memset", port.device_address, port.size, _POISON, port.size)

    def _synchronize(self, milliseconds: int) -> None:
        """Wait for the stream; where pyACL can, for a limited time, so that a hung device ends in an error."""
        limited = getattr(self._call.module.rt, "synchronize_stream_with_timeout", None)
        if limited is None:
            self._call.do("rt.synchronize_stream", self._stream)
        else:
            self._call.do("rt.synchronize_stream_with_timeout", self._stream, milliseconds)

    def collect(self, executed: Buffers) -> Buffers:
        with self._keeping(executed):
            for port in executed.outputs:
                count = tensor_bytes(port.spec)
                self._call.do("rt.memcpy", port.host_address, port.size, port.device_address, count, DEVICE_TO_HOST)
        return executed

    def fetch(self, collected: Buffers) -> RunResult:
        with self._keeping(collected):
            outputs = {port.spec.meaning: self._taken(port) for port in collected.outputs}
        self._free.append(collected)
        return RunResult(outputs, collected.seconds)

    @contextmanager
    def _keeping(self, buffers: Buffers) -> Iterator[None]:
        """Work on a set in any thread; it becomes free again on failure."""
        try:
            # The context belongs to the thread; the caller may run in another thread than at open.
            self._call.do("rt.set_context", self._context)
            yield
        except BaseException:
            self._free.append(buffers)
            raise

    def _send(self, buffers: Buffers, port: Port, array: np.ndarray) -> None:
        is_fixed = port.spec.meaning == FIXED
        if is_fixed:
            # Comparing bytes takes a few ms for a full-size volume and, unlike identity, detects changes in place.
            if not (any(one.fixed_is_there for one in self._sets) and same_bytes(port.array, array)):
                for one in self._sets:
                    one.fixed_is_there = False
            elif buffers.fixed_is_there:
                return
        np.copyto(port.array, array)
        self._call.do("rt.memcpy", port.device_address, port.size, port.host_address, array.nbytes, HOST_TO_DEVICE)
        if is_fixed:
            buffers.fixed_is_there = True

    def _taken(self, port: Port) -> np.ndarray:
        self._check_written(port)
        return np.array(port.array, copy=True)

    def _check_written(self, port: Port) -> None:
        if port.array.dtype.kind != "f":
            # All bits set is a NaN that no operator produces, but for integers it is -1, an ordinary index.
            return
        bits = np.dtype(f"u{port.array.dtype.itemsize}")
        left = port.array.view(bits) == np.iinfo(bits).max
        if not left.any():
            return
        first = tuple(int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        raise AclError(
            f"{self.om_path}: device {self.device_id} reported success but left {np.count_nonzero(left)} of "
            f"{left.size} values of output {port.spec.tensor_name} ({port.spec.meaning}) unwritten, the first at "
            f"{first}, expected none; no result of this run can be trusted: run it again; if it happens again, check "
            "the device with npu-smi and export the model again",
            "acl.mdl.execute_async",
        )

    # close --------------------------------------------------------------------------------------------------
    def abandon(self) -> None:
        """See `Runtime.abandon`."""
        super().abandon()
        self._releases.pop_all()

    def _close(self) -> None:
        if self._context:
            self._call.release("rt.set_context", self._context)
        if self._stream:
            # After a failed run the device may still write into the buffers that are freed next.
            try:
                self._synchronize(_LAST_MS)
            except AclError as exc:
                log.warning("%s", exc)
        # Drop the views first: after free_host they would point to freed memory.
        self._inputs, self._outputs, self._sets, self._free = [], [], [], []
        try:
            self._releases.close()
        finally:
            self._context = self._stream = self._model_id = 0


def open_runtime(model: OfflineModel, device: int) -> Runtime:
    """The pyACL runtime of the model's toolchain, as a context manager that is not yet open."""
    return AclRuntime(model.toolchain.load_acl(), model.om_path, model.contract, device)
