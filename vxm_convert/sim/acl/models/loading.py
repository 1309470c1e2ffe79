# SPDX-License-Identifier: Apache-2.0
"""Loading, sizing and unloading of offline models. The engine runs a model; it is reached through `PROGRAM_LOADER`."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from vxm_convert.ascend.chips import runs_on
from vxm_convert.errors import FormatError, VxmError
from vxm_convert.formats.gears import Gears
from vxm_convert.sim.acl.base.args import CONTEXT, INIT, call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure, Device, DeviceContext, log
from vxm_convert.sim.acl.memory.blocks import check_span
from vxm_convert.sim.faults import FAULTS

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import TensorDesc

MAX_MODEL_BYTES = 4 << 30


class LoadedModel(NamedTuple):
    """The result of a loader.

    Parameters
    ----------
    program : engine.Program — ``inputs``, ``outputs``, ``run``, ``work_bytes``, ``weight_bytes``.
    name, soc_version : str — from the offline model.
    """

    program: Any
    name: str
    soc_version: str


def load_from_bytes(data: bytes, where: str) -> LoadedModel:
    """Parse an offline model and prepare it for execution; raises VxmError if it cannot run here."""
    # Imported here: the engine imports an inference library, which programs that load no model do not need.
    from vxm_convert.formats.om import parse_om
    from vxm_convert.sim.engine.load import load_program

    om = parse_om(data, where)
    if not om.simulated:
        raise VxmError(
            f"{where}: made by the real ATC for {om.soc_version or 'an unnamed chip'}; it holds code of the device, which "
            "no simulator can run: run it on an Ascend machine, or export again with --toolchain sim"
        )
    return LoadedModel(load_program(om), om.name, om.soc_version)


#: ``(bytes, where) -> LoadedModel``; tests replace it with their own program.
PROGRAM_LOADER: Callable[[bytes, str], LoadedModel] = load_from_bytes


class Model:
    """A model on a device: its program, the memory booked for it, and one execution at a time."""

    def __init__(self, loaded: LoadedModel, device: Device, booked: int, context: DeviceContext) -> None:
        self.program = loaded.program
        self.name = loaded.name
        self.device_id = device.device_id
        self.booked = booked
        self.context = context
        self.lock = threading.Lock()
        self.dumper: Any = None
        #: number of the gear that was set last; None before that, and for a model with one shape
        self.gear: Optional[int] = None

    def release(self) -> None:
        SIM.devices[self.device_id].give_back(self.booked)
        self.booked = 0


#: The model that was sized last, so that loading after sizing does not prepare it again.
_sized: Dict[str, LoadedModel] = {}


def _prepare(data: bytes, where: str, keep: bool = False) -> LoadedModel:
    """The model in `data`; with `keep` it is kept for one later load.

    Raises
    ------
    AclFailure
        100003 for bytes that are not an offline model, 545001 if this device cannot run it, 545000 for a bug.
    """
    digest = hashlib.sha256(data).hexdigest()
    loaded = _sized.pop(digest, None)
    if loaded is None:
        try:
            loaded = PROGRAM_LOADER(data, where)
        except FormatError as exc:
            raise AclFailure(100003, str(exc)) from exc
        except VxmError as exc:
            raise AclFailure(545001, str(exc)) from exc
        except Exception as exc:  # a return code for the client, the traceback for us
            log.exception("simulated device: loading %s raised", where)
            raise AclFailure(545000, f"{where}: {type(exc).__name__}: {exc}") from exc
    if keep:
        _sized.clear()
        _sized[digest] = loaded
    return loaded


def _read_file(path: str) -> bytes:
    try:
        size = Path(path).stat().st_size
        if size > MAX_MODEL_BYTES:
            raise AclFailure(145006, f"{path}: {size} bytes, expected at most {MAX_MODEL_BYTES}")
        return Path(path).read_bytes()
    except OSError as exc:
        raise AclFailure(145002, f"{path}: cannot be read ({exc.strerror})") from exc


def _read_memory(address: int, size: int) -> bytes:
    if size == 0:
        raise AclFailure(145006, "the model data has size 0")
    if size > MAX_MODEL_BYTES:
        raise AclFailure(145006, f"the model data is declared with {size} bytes, expected at most {MAX_MODEL_BYTES}")
    check_span(address, size, "model data")
    return ctypes.string_at(address, size)


def _check_chip(loaded: LoadedModel, device: Device, where: str) -> None:
    got, expected = loaded.soc_version, FAULTS.soc_name(device.soc_name)
    if runs_on(got, expected):
        return
    advice = f"compile it with --soc_version={expected}"
    raise AclFailure(545001, f"{where}: E10001 the model was compiled for {got}, this device is {expected}; {advice}")


def _check_user_memory(what: str, address: int, size: int, needed: int) -> int:
    """Bytes that the system must book: all if the client provides no memory, else none."""
    if address == 0:
        return needed
    if size < needed:
        raise AclFailure(100000, f"{what} memory has {size} bytes, the model needs {needed}")
    if needed:
        check_span(address, needed, what + " memory")
    return 0


def _load(data: bytes, where: str, work: Tuple[int, int] = (0, 0), weight: Tuple[int, int] = (0, 0)) -> int:
    device = SIM.current_device()
    loaded = _prepare(data, where)
    _check_chip(loaded, device, where)
    strike = FAULTS.at_load()
    if strike is not None:
        raise AclFailure(*strike)
    booked = _check_user_memory("work", work[0], work[1], int(loaded.program.work_bytes))
    booked += _check_user_memory("weight", weight[0], weight[1], int(loaded.program.weight_bytes))
    device.reserve(booked, 245000)
    with SIM.lock:
        model_id = SIM.new_model_id()
        model = SIM.models[model_id] = Model(loaded, device, booked, SIM.context())
        if SIM.dump is not None:
            model.dumper = SIM.dump.dumper_for(loaded.name, device.device_id, model_id)
    return model_id


def model_of(model_id: int, code: int = 145003) -> Model:
    """The loaded model with that id; raises AclFailure(`code`)."""
    model: Optional[Model] = SIM.models.get(model_id)
    if model is None:
        raise AclFailure(code, f"no model with id {model_id} is loaded")
    return model


@call("mdl.load_from_file", "s", gives=(0,), needs=CONTEXT)
def load_from_file(path: str) -> int:
    return _load(_read_file(path), path)


@call("mdl.load_from_mem", "KK", gives=(0,), needs=CONTEXT)
def load_from_mem(address: int, size: int) -> int:
    return _load(_read_memory(address, size), "model in memory")


@call("mdl.load_from_file_with_mem", "sKKKK", gives=(0,), needs=CONTEXT)
def load_from_file_with_mem(path: str, work: int, work_size: int, weight: int, weight_size: int) -> int:
    return _load(_read_file(path), path, (work, work_size), (weight, weight_size))


@call("mdl.load_from_mem_with_mem", "KKKKKK", gives=(0,), needs=CONTEXT)
def load_from_mem_with_mem(address: int, size: int, work: int, work_size: int, weight: int, weight_size: int) -> int:
    return _load(_read_memory(address, size), "model in memory", (work, work_size), (weight, weight_size))


def loaded_from_file(path: str) -> LoadedModel:
    """The model in a file, kept for one later load."""
    return _prepare(_read_file(path), path, keep=True)


@call("mdl.query_size", "s", gives=(0, 0), needs=INIT)
def query_size(path: str) -> Tuple[int, int]:
    program = loaded_from_file(path).program
    return int(program.work_bytes), int(program.weight_bytes)


@call("mdl.query_size_from_mem", "KK", gives=(0, 0), needs=INIT)
def query_size_from_mem(address: int, size: int) -> Tuple[int, int]:
    program = _prepare(_read_memory(address, size), "model in memory", keep=True).program
    return int(program.work_bytes), int(program.weight_bytes)


@call("mdl.unload", "I", needs=CONTEXT)
def unload(model_id: int) -> None:
    model = model_of(model_id)
    if model.context is not SIM.context():
        SIM.find("a model is unloaded in another context than it was loaded in", 107002)
    with model.lock:
        model.release()
        SIM.models.pop(model_id, None)


# loading by a configuration handle --------------------------------------------------------------------------
_PRIORITY, _TYPE, _PATH, _ADDRESS, _SIZE, _WEIGHT, _WEIGHT_SIZE, _WORK, _WORK_SIZE = range(9)
_BY_FILE, _BY_FILE_WITH_MEM, _BY_MEM, _BY_MEM_WITH_MEM = 1, 2, 3, 4
_LAST_OPTION = 12


class LoadConfig:
    """Options of one later load, by attribute number."""

    def __init__(self) -> None:
        self.options: Dict[int, Any] = {}

    def number(self, attribute: int) -> int:
        return int(self.options.get(attribute, 0))


@query("mdl.create_config_handle")
def create_config_handle() -> int:
    return SIM.new_handle(LoadConfig())


@call("mdl.destroy_config_handle", "K", needs=0)
def destroy_config_handle(handle: int) -> None:
    SIM.thing(handle, LoadConfig, 100000)
    SIM.drop_handle(handle)


@call("mdl.set_config_opt", "KIO", needs=0)
def set_config_opt(handle: int, attribute: int, value: object) -> None:
    config = SIM.thing(handle, LoadConfig, 100000)
    if attribute > _LAST_OPTION or isinstance(value, str) != (attribute == _PATH):
        raise AclFailure(100000, f"option {attribute} cannot be {value!r}")
    if attribute != _PATH and not isinstance(value, int):
        raise TypeError(
            f"acl.mdl.set_config_opt args parse failed: option {attribute} expects int, got {type(value).__name__}"
        )
    config.options[attribute] = value


@call("mdl.load_with_config", "K", gives=(0,), needs=CONTEXT)
def load_with_config(handle: int) -> int:
    config = SIM.thing(handle, LoadConfig, 100000)
    kind = config.number(_TYPE)
    if kind in (_BY_FILE, _BY_FILE_WITH_MEM):
        path: Optional[str] = config.options.get(_PATH)
        if not path:
            raise AclFailure(100000, "the load type needs a file, but option 2 (path) is not set")
        data, where = _read_file(path), path
    elif kind in (_BY_MEM, _BY_MEM_WITH_MEM):
        data, where = _read_memory(config.number(_ADDRESS), config.number(_SIZE)), "model in memory"
    else:
        raise AclFailure(100000, f"load type {kind}, expected 1..4")
    if kind in (_BY_FILE, _BY_MEM):
        return _load(data, where)
    return _load(
        data,
        where,
        (config.number(_WORK), config.number(_WORK_SIZE)),
        (config.number(_WEIGHT), config.number(_WEIGHT_SIZE)),
    )


def tensors_of(model: Union[Model, LoadedModel]) -> Tuple[List[TensorDesc], List[TensorDesc]]:
    """The model's inputs and outputs (engine.TensorDesc), in model order."""
    return list(model.program.inputs), list(model.program.outputs)


def gears_of(model: Union[Model, LoadedModel]) -> Optional[Gears]:
    """The `formats.gears.Gears` of anything with a `program`, None for a model with one shape."""
    gears: Optional[Gears] = getattr(model.program, "gears", None)
    return gears
