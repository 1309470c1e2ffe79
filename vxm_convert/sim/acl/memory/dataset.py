# SPDX-License-Identifier: Apache-2.0
"""Data buffers (an address and a size) and datasets (an ordered list of them). Neither owns the memory it names."""

from __future__ import annotations

from typing import Dict, List, Tuple

from vxm_convert.sim.acl.base.args import call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure

_MASK32 = (1 << 32) - 1


class DataBuffer:
    """``address`` and ``size`` in bytes; both 0 make the system allocate that output."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size


class Dataset:
    """Data buffers in the order of a model's inputs or outputs, kept by handle."""

    def __init__(self) -> None:
        self.handles: List[int] = []
        #: handles of tensor descriptions by position, see `tensordesc`
        self.descriptions: Dict[int, int] = {}
        #: descriptions that the system made and that it frees with the dataset
        self.own: List[int] = []
        #: numbers of the gear of its contents, see `gears`
        self.profile: Tuple[int, ...] = ()

    def buffers(self) -> List[DataBuffer]:
        """Raises AclFailure(100000) if one of them was destroyed in the meantime."""
        return [buffer_of(handle) for handle in self.handles]


def buffer_of(handle: int) -> DataBuffer:
    return SIM.thing(handle, DataBuffer, 100000)


def dataset_of(handle: int) -> Dataset:
    return SIM.thing(handle, Dataset, 100000)


def _check_pair(address: int, size: int) -> None:
    if (address == 0) != (size == 0):
        raise AclFailure(100000, f"a data buffer needs an address and a size, or neither: got {address:#x} and {size}")


@query("create_data_buffer", "KK")
def create_data_buffer(address: int, size: int) -> int:
    _check_pair(address, size)
    return SIM.new_handle(DataBuffer(address, size))


@call("destroy_data_buffer", "K", needs=0)
def destroy_data_buffer(handle: int) -> None:
    buffer_of(handle)
    SIM.drop_handle(handle)


@call("update_data_buffer", "KKK", needs=0)
def update_data_buffer(handle: int, address: int, size: int) -> None:
    _check_pair(address, size)
    buffer = buffer_of(handle)
    buffer.address, buffer.size = address, size


@query("get_data_buffer_addr", "K")
def get_data_buffer_addr(handle: int) -> int:
    return buffer_of(handle).address


@query("get_data_buffer_size", "K")
def get_data_buffer_size(handle: int) -> int:
    """32 bits wide, as in the C interface: sizes from 4 GiB on wrap."""
    return buffer_of(handle).size & _MASK32


@query("get_data_buffer_size_v2", "K")
def get_data_buffer_size_v2(handle: int) -> int:
    return buffer_of(handle).size


@query("mdl.create_dataset")
def create_dataset() -> int:
    return SIM.new_handle(Dataset())


@call("mdl.destroy_dataset", "K", needs=0)
def destroy_dataset(handle: int) -> None:
    """The buffers in it stay valid."""
    for description in dataset_of(handle).own:
        SIM.drop_handle(description)
    SIM.drop_handle(handle)


@call("mdl.add_dataset_buffer", "KK", gives=(0,), needs=0)
def add_dataset_buffer(handle: int, buffer: int) -> int:
    dataset = dataset_of(handle)
    buffer_of(buffer)
    dataset.handles.append(buffer)
    return handle


@query("mdl.get_dataset_num_buffers", "K")
def get_dataset_num_buffers(handle: int) -> int:
    return len(dataset_of(handle).handles)


@query("mdl.get_dataset_buffer", "KI")
def get_dataset_buffer(handle: int, index: int) -> int:
    handles = dataset_of(handle).handles
    if index >= len(handles):
        raise AclFailure(100000, f"the dataset has {len(handles)} buffers, number {index} was requested")
    return handles[index]
