# SPDX-License-Identifier: Apache-2.0
"""Writes the inputs and outputs of operators during an execution into dump files in the device's layout
(`formats.dump`).

A `DumpPlan` is a checked dump section; it makes a `Dumper` for each model that is loaded while it is active. Folders:
``<dump_path>/<time>/<device>/<model name>/<model id>/<execution>/<OpType>.<op>.<task>.<stream>.<time>``.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

import numpy as np

from vxm_convert.ascend.acl_codes import FORMATS
from vxm_convert.errors import VxmError
from vxm_convert.formats.dump import Dump, DumpTensor, dump_name, plain_name, write_dump
from vxm_convert.formats.fractal import BLOCK, ndc1hwc0_shape
from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.formats.gears import POSTFIX

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import Program

log = logging.getLogger(__name__)

MODES = ("input", "output", "all")
_SWITCHES = ("on", "off")
_KNOWN = {"dump_list", "dump_path", "dump_mode", "dump_op_switch", "dump_data", "dump_debug", "dump_step", "dump_level"}
#: Operators that hold values and compute nothing.
_NOT_DUMPED = ("Data", "Const")


class ModelEntry(NamedTuple):
    """Dump this model (any model if the name is empty): these layers, or all if the list is empty."""

    model_name: str
    layers: FrozenSet[str]


@dataclass(frozen=True)
class DumpPlan:
    """A checked dump section; the name of `folder` contains the time of reading."""

    folder: Path
    mode: str
    models: Tuple[ModelEntry, ...]

    def dumper_for(self, model_name: str, device_id: int, model_id: int) -> Optional[Dumper]:
        """A dumper for a loaded model, None when the plan does not name it."""
        for entry in self.models:
            if entry.model_name in ("", model_name):
                folder = self.folder / str(device_id) / (plain_name(model_name) or "model") / str(model_id)
                return Dumper(folder, self.mode, entry.layers)
        return None


def plan_from_section(section: object) -> DumpPlan:
    """Check the section ``dump`` of a configuration file; raises ValueError with the reason."""
    if not isinstance(section, dict):
        raise ValueError(f"is a {type(section).__name__}, expected an object")
    unknown = sorted(set(section) - _KNOWN)
    if unknown:
        raise ValueError(f"has unknown keys {', '.join(unknown)}")
    path = section.get("dump_path")
    if not isinstance(path, str) or not path:
        raise ValueError(f"dump_path is {path!r}, expected a folder")
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        raise ValueError(f"dump_path {path} is not a writable folder; create it first")
    mode = section.get("dump_mode", "output")
    if mode not in MODES:
        raise ValueError(f"dump_mode is {mode!r}, expected one of {', '.join(MODES)}")
    switch = section.get("dump_op_switch", "off")
    if switch not in _SWITCHES:
        raise ValueError(f"dump_op_switch is {switch!r}, expected on or off")
    return DumpPlan(Path(path) / time.strftime("%Y%m%d%H%M%S"), mode, _entries(section.get("dump_list", [{}])))


def _entries(listed: object) -> Tuple[ModelEntry, ...]:
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ValueError("dump_list is not a list of objects")
    entries = []
    for entry in listed:
        name, layers = entry.get("model_name", ""), entry.get("layer", [])
        if (
            not isinstance(name, str)
            or not isinstance(layers, list)
            or not all(isinstance(layer, str) for layer in layers)
        ):
            raise ValueError("dump_list: model_name must be a text and layer a list of texts")
        entries.append(ModelEntry(name, frozenset(layers)))
    return tuple(entries)


class Dumper:
    """Writes the dump files of one loaded model, a folder per execution."""

    def __init__(self, folder: Path, mode: str, layers: FrozenSet[str]) -> None:
        self._folder = folder
        self._mode = mode
        self._layers = layers
        self._executions = 0

    def execution(self, program: Program, arrays: List[np.ndarray]) -> None:
        """Dump one execution of an engine.Program on these inputs. A full disk stops the dump, not the model."""
        folder = self._folder / str(self._executions)
        self._executions += 1
        chosen = [(task, op) for task, op in enumerate(program.ops) if self._wants(op)]
        names = (
            {f"{op.name}:{i}" for _, op in chosen for i in range(len(op.output_descs))}
            if self._mode != "input"
            else set()
        )
        if self._mode != "output":
            names |= {source for _, op in chosen for source in op.inputs}
        values = {f"{name}:{index}": array for name, index, array in program.run_with_dumps(arrays, names)}
        last = {
            name: task
            for task, op in chosen
            for name in op.inputs + [f"{op.name}:{i}" for i in range(len(op.output_descs))]
        }
        try:
            for task, op in chosen:
                self._write(folder, task, op, values)
                # At full size a tensor takes up to a gigabyte.
                for name in [name for name in values if last[name] <= task]:
                    del values[name]
        except VxmError as exc:
            log.warning("simulated device: dumping stopped: %s", exc)

    def _wants(self, op: Op) -> bool:
        if op.type in _NOT_DUMPED:
            return False
        # In a model with gears each gear has its own name for the node; the user knows the original name.
        names = {op.name, op.name.partition(POSTFIX)[0]} | set(op.attrs.get("_datadump_original_op_names") or [])
        return not self._layers or bool(self._layers & names)

    def _write(self, folder: Path, task: int, op: Op, values: Dict[str, np.ndarray]) -> None:
        now = int(time.time() * 1e6)
        inputs = zip(op.inputs, op.input_descs) if self._mode != "output" else ()
        outputs = ((f"{op.name}:{i}", desc) for i, desc in enumerate(op.output_descs)) if self._mode != "input" else ()
        dump = Dump(
            op.name,
            now,
            [_stored(values[name], desc) for name, desc in inputs],
            [_stored(values[name], desc) for name, desc in outputs],
        )
        write_dump(folder / str(dump_name(op.type, op.name, task, 0, now)), dump)


def _stored(array: np.ndarray, desc: Desc) -> DumpTensor:
    """A tensor in the device's form: dtype and layout of `desc`; `array` in logical or in storage shape."""
    typed = np.asarray(array).astype(desc.dtype, copy=False)
    if desc.layout == "NDC1HWC0" and typed.shape != desc.shape:
        typed = _blocked(typed.reshape(desc.logical_shape))
    return DumpTensor(typed.reshape(desc.shape), FORMATS.get(desc.layout, FORMATS["ND"]), desc.logical_shape)


def _blocked(ndhwc: np.ndarray) -> np.ndarray:
    """(N, D, H, W, C) → (N, D, C1, H, W, 16), zero padded."""
    stored = np.zeros(ndc1hwc0_shape(ndhwc.shape), ndhwc.dtype)
    for block in range(stored.shape[2]):
        part = ndhwc[..., block * BLOCK : (block + 1) * BLOCK]
        stored[:, :, block, :, :, : part.shape[-1]] = part
    return stored
