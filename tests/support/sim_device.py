# SPDX-License-Identifier: Apache-2.0
"""A scripted program in place of the engine, and a fresh simulated device per test."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest

import vxm_convert.sim.acl.module as simulated_acl
from om_runner.device.acl_runtime import AclRuntime
from vxm_convert.errors import FormatError
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.sim.acl import runtime
from vxm_convert.sim.acl.base import args
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.acl.memory import blocks as memory
from vxm_convert.sim.acl.models import loading as model_module

SHAPE = (1, 16, 16, 16, 1)
FLOW_SHAPE = SHAPE[:-1] + (3,)
COUNT = 16**3
MAGIC = b"FAKE-OM "


class Tensor(NamedTuple):
    name: str
    shape: Tuple[int, ...]
    dtype: Any
    format: str


def tensor(name: str, shape: Tuple[int, ...], dtype: Any = np.float32, layout: str = "NDHWC") -> Tensor:
    return Tensor(name, shape, np.dtype(dtype), layout)


class FakeProgram:
    """moved = moving + 2 * fixed; flow = moving in all three channels."""

    work_bytes = 1 << 20
    weight_bytes = 1 << 16

    def __init__(self) -> None:
        # The outputs stand in another order than in the contract, the inputs too.
        self.inputs = [tensor("fixed", SHAPE), tensor("moving", SHAPE)]
        self.outputs = [tensor("flow_field:0:flow", FLOW_SHAPE), tensor("moved:0:moved", SHAPE)]
        self.seconds = 0.0
        self.gate: Optional[threading.Event] = None
        self.fault: Optional[Callable[[], None]] = None
        self.seen: List[List[np.ndarray]] = []
        #: where the last execution could have written
        self.places: List[Optional[np.ndarray]] = []

    def lend(self, arrays: List[np.ndarray], places: Sequence[Optional[np.ndarray]] = ()) -> List[np.ndarray]:
        self.places = list(places)
        return self.run(arrays)

    def run(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.fault is not None:
            self.fault()
        time.sleep(self.seconds)
        fixed, moving = arrays
        self.seen.append([fixed.copy(), moving.copy()])
        return [np.repeat(moving, 3, axis=-1), moving + 2 * fixed]


class SimDevice:
    """The simulated ``acl`` in the state of a new process, and the scripted program that any model file becomes."""

    def __init__(self, folder: Path) -> None:
        self.acl = simulated_acl
        self.program = FakeProgram()
        self.loads = 0
        self.om_path = folder / "vxm.om"
        self.om_path.write_bytes(MAGIC + b"Ascend910A")

    def load(self, data: bytes, where: str) -> model_module.LoadedModel:
        if not data.startswith(MAGIC):
            raise FormatError(f"{where}: starts with {data[:4]!r}, expected an offline model")
        self.loads += 1
        return model_module.LoadedModel(self.program, "vxm", data[len(MAGIC) :].decode())

    def start(self) -> Any:
        """acl, initialised, with device 0 set in this thread."""
        assert self.acl.init() == 0
        assert self.acl.rt.set_device(0) == 0
        return self.acl

    def load_model(self) -> int:
        model_id, ret = self.acl.mdl.load_from_file(str(self.om_path))
        assert ret == 0
        return model_id

    def leftovers(self) -> List[Any]:
        """Everything that a client acquired and did not give back."""
        return memory.MEMORY.live() + list(SIM.models) + [type(thing).__name__ for thing in SIM.handles.values()]


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: Any) -> Iterator[SimDevice]:
    for name in [name for name in os.environ if name.startswith("VXM_SIM_")]:
        monkeypatch.delenv(name)
    runtime.restart()
    model_module._sized.clear()
    made = SimDevice(tmp_path)
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", made.load)
    yield made
    del args.INTERCEPT[:]
    runtime.restart()


def dataset(acl: Any, spans: List[Tuple[int, int]]) -> int:
    """A dataset of data buffers with these addresses and sizes."""
    made = acl.mdl.create_dataset()
    for address, size in spans:
        assert acl.mdl.add_dataset_buffer(made, acl.create_data_buffer(address, size)) == (made, 0)
    return made


def on_device(acl: Any, *sizes: int) -> List[Tuple[int, int]]:
    """Device memory of these sizes, as (address, size)."""
    spans = []
    for size in sizes:
        address, ret = acl.rt.malloc(size, 0)
        assert ret == 0
        spans.append((address, size))
    return spans


def io_spans(acl: Any) -> Tuple[List[Tuple[int, int]], List[Tuple[int, int]]]:
    """Device memory for the scripted program's inputs and outputs."""
    return on_device(acl, COUNT * 4, COUNT * 4), on_device(acl, COUNT * 12, COUNT * 4)


def contract() -> GraphContract:
    """A contract that fits the scripted program."""
    return GraphContract(
        model=ModelSpec("vm2", SHAPE[1:4]),
        inputs=(TensorSpec("moving", "moving", 0, SHAPE), TensorSpec("fixed", "fixed", 0, SHAPE)),
        outputs=(TensorSpec("moved", "moved", 0, SHAPE), TensorSpec("flow", "flow_field", 0, FLOW_SHAPE)),
        precision=PLANS["balanced"],
        soc_version="Ascend910A",
    )


def feeds(seed=0):
    random = np.random.RandomState(seed)
    return {name: random.rand(*SHAPE).astype(np.float32) for name in ("moving", "fixed")}


def runtime_of(sim, spec=None, **kwargs):
    return AclRuntime(sim.acl, sim.om_path, spec or contract(), **kwargs)
