# SPDX-License-Identifier: Apache-2.0
"""Models with several shapes: listing their gears, setting one, and the gear that an execution uses.

A gear is set on a dataset: it is written into the buffer of the input ``ascend_mbatch_shape_data``, and an execution
with that dataset uses it from the moment it is queued. Error codes are the plausible ones in the vendor's list; which
of them a device returns for a wrong or missing gear was not checked on a device.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.formats.gears import BATCH, DIMS, FLAGS, IMAGE, Gears
from vxm_convert.sim.acl.base.args import CONTEXT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure
from vxm_convert.sim.acl.memory.blocks import Block, check_span
from vxm_convert.sim.acl.memory.dataset import DataBuffer, Dataset, dataset_of
from vxm_convert.sim.acl.models.describe import desc_of
from vxm_convert.sim.acl.models.loading import Model, gears_of, model_of

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import Program

_EMPTY_BATCH = {"batchCount": 0, "batch": []}  # type: Dict[str, Any]
_EMPTY_HW = {"hwCount": 0, "hw": []}  # type: Dict[str, Any]


def _profiles(handle: int, kind: int) -> Tuple[Tuple[int, ...], ...]:
    """The gears of a described model if they are of this kind."""
    gears = desc_of(handle).gears
    return tuple(gears.profiles) if gears is not None and gears.kind == kind else ()


@call("mdl.get_dynamic_batch", "K", gives=(_EMPTY_BATCH,), needs=0)
def get_dynamic_batch(handle: int) -> Dict[str, Any]:
    batches = [batch for (batch,) in _profiles(handle, BATCH)]
    return {"batchCount": len(batches), "batch": batches}


@call("mdl.get_dynamic_hw", "Ki", gives=(_EMPTY_HW,), needs=0)
def get_dynamic_hw(handle: int, index: int) -> Dict[str, Any]:
    """The index is reserved; clients pass -1."""
    sizes = [list(size) for size in _profiles(handle, IMAGE)]
    return {"hwCount": len(sizes), "hw": sizes}


@call("mdl.get_input_dynamic_gear_count", "Ki", gives=(0,), needs=0)
def get_input_dynamic_gear_count(handle: int, index: int) -> int:
    """Gears of --dynamic_dims; the index is reserved, clients pass -1."""
    return len(_profiles(handle, DIMS))


@call("mdl.get_input_dynamic_dims", "KiK", gives=([],), needs=0)
def get_input_dynamic_dims(handle: int, index: int, count: int) -> List[Dict[str, Any]]:
    """One dims dict per gear, all sides of all inputs in one row; `count` is the result of
    `get_input_dynamic_gear_count`.
    """
    known = len(_profiles(handle, DIMS))
    if count != known:
        raise AclFailure(100000, f"{count} gears were requested, the model has {known} of --dynamic_dims")
    gears = desc_of(handle).gears
    rows = [gears.flat_dims(gear) for gear in range(count)] if gears is not None else []
    return [{"name": "", "dimCount": len(row), "dims": row} for row in rows]


@call("mdl.set_dynamic_batch_size", "IKKK", needs=CONTEXT)
def set_dynamic_batch_size(model_id: int, dataset: int, index: int, batch: int) -> None:
    _set(model_of(model_id), dataset, index, BATCH, (batch,))


@call("mdl.set_dynamic_hw_size", "IKKKK", needs=CONTEXT)
def set_dynamic_hw_size(model_id: int, dataset: int, index: int, height: int, width: int) -> None:
    _set(model_of(model_id), dataset, index, IMAGE, (height, width))


@call("mdl.set_input_dynamic_dims", "IKKd", needs=CONTEXT)
def set_input_dynamic_dims(model_id: int, dataset: int, index: int, dims: Dict[str, Any]) -> None:
    """`dims` is one of the results of `get_input_dynamic_dims`."""
    model = model_of(model_id)
    gears = _gears(model)
    row = dims.get("dims")
    if not isinstance(row, (list, tuple)) or dims.get("dimCount") != len(row):
        raise AclFailure(100000, f"dims are {dims}, expected dimCount and as many dims")
    rows = [gears.flat_dims(gear) for gear in range(len(gears.profiles))]
    if gears.kind == DIMS and len(row) != len(rows[0]):
        raise AclFailure(
            100000, f"{len(row)} dims, expected all {len(rows[0])} sides of all inputs ({', '.join(gears.order)})"
        )
    if list(row) not in rows:
        raise AclFailure(145013, f"the model has no gear {list(row)}, it has {gears.text}")
    _set(model, dataset, index, DIMS, gears.profiles[rows.index(list(row))])


def _gears(model: Model) -> Gears:
    """The gears of a model; raises AclFailure(100019) for one without."""
    gears = gears_of(model)
    if gears is None:
        raise AclFailure(100019, "the model was compiled with static shapes")
    return gears


def _set(model: Model, dataset: int, index: int, kind: int, profile: Tuple[int, ...]) -> None:
    """Write the gear where the device reads it, and remember it for the next execution with this dataset."""
    gears, target = _gears(model), dataset_of(dataset)
    if 0 in profile:
        raise AclFailure(100000, f"gear {profile}: every number must be above 0")
    place = len(model.program.inputs) - 1
    if index != place or index >= len(target.handles):
        raise AclFailure(
            100000,
            f"input {index} of {len(target.handles)} in the dataset does not select the gear, input {place} does",
        )
    if gears.kind != kind or profile not in gears.profiles:
        raise AclFailure(145013, f"the model has no gear {profile} of --{FLAGS[kind]}, it has {gears.text}")
    view, _ = _picking(target.buffers()[place], len(profile))
    view[:] = profile
    target.profile = profile
    model.gear = gears.profiles.index(profile)


def _picking(buffer: DataBuffer, count: int) -> Tuple[np.ndarray, Optional[Block]]:
    """The numbers in the buffer that selects the gear, int32, not a copy, and the object that keeps that memory alive."""
    if buffer.address == 0:
        raise AclFailure(145011, "the data buffer of the input that selects the gear has no address")
    if buffer.size < 4 * count:
        raise AclFailure(
            145012, f"the data buffer of the input that selects the gear has {buffer.size} bytes, expected {4 * count}"
        )
    block = check_span(buffer.address, 4 * count, "input that selects the gear")
    if block is None:
        SIM.find("the gear of a model is in memory that acl.rt.malloc did not allocate", 145011)
    return np.frombuffer((ctypes.c_char * (4 * count)).from_address(buffer.address), np.int32), block


class Setting(NamedTuple):
    """The gear that an execution was queued with; `numbers` is the buffer that the device reads, `block` keeps it
    readable.
    """

    model: Model
    gear: int
    numbers: np.ndarray
    block: Optional[Block]

    def program(self) -> Program:
        """The engine.Program when the execution starts; setting a gear in the meantime is an error of the client."""
        expected: Sequence[int] = _gears(self.model).profiles[self.gear]
        found = [int(number) for number in self.numbers]
        if found != list(expected):
            SIM.find(
                f"the gear {list(expected)} of a queued execution was overwritten with {found} before it ran", 507011
            )
        program: Program = self.model.program.program(self.gear)
        return program


def gear_of(model: Model, dataset: Dataset) -> Setting:
    """The gear of a dataset; raises AclFailure if it has none, or one of another model."""
    gears = _gears(model)
    if not dataset.profile:
        raise AclFailure(
            145000, f"the model has gears ({gears.text}) and none is set; call acl.mdl.set_{_CALLS[gears.kind]} first"
        )
    if dataset.profile not in gears.profiles:
        raise AclFailure(145013, f"the model has no gear {dataset.profile}, it has {gears.text}")
    numbers, block = _picking(dataset.buffers()[-1], len(dataset.profile))
    return Setting(model, gears.profiles.index(dataset.profile), numbers, block)


_CALLS = {BATCH: "dynamic_batch_size", IMAGE: "dynamic_hw_size", DIMS: "input_dynamic_dims"}
