# SPDX-License-Identifier: Apache-2.0
"""Tensor descriptions: dtype, dims and format that a client attaches to a dataset, or asks of one after an
execution.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from vxm_convert.ascend.acl_codes import FORMAT_UNDEFINED, FORMATS, acl_dtype
from vxm_convert.sim.acl.base.args import call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure
from vxm_convert.sim.acl.memory.dataset import Dataset, dataset_of

#: Dimensions that a description can have (vendor reference of aclCreateTensorDesc).
_MAX_DIMS = 128


class TensorDesc:
    """A client's description of a tensor, or the system's description of an output."""

    def __init__(self, data_type: int, dims: Tuple[int, ...], layout: int) -> None:
        self.data_type = data_type
        self.dims = dims
        self.format = layout


def _desc(handle: int) -> TensorDesc:
    return SIM.thing(handle, TensorDesc, 100000)


@query("create_tensor_desc", "iti")
def create_tensor_desc(data_type: int, dims: Sequence[int], layout: int) -> int:
    if not all(isinstance(side, int) for side in dims):
        raise TypeError("acl.create_tensor_desc args parse failed: dims must be whole numbers")
    if len(dims) > _MAX_DIMS:
        raise AclFailure(100000, f"{len(dims)} dims, expected at most {_MAX_DIMS}")
    return SIM.new_handle(TensorDesc(data_type, tuple(dims), layout))


@query("destroy_tensor_desc", "K", otherwise=None)
def destroy_tensor_desc(handle: int) -> None:
    _desc(handle)
    SIM.drop_handle(handle)


@query("get_tensor_desc_num_dims", "K")
def get_tensor_desc_num_dims(handle: int) -> int:
    return len(_desc(handle).dims)


@call("get_tensor_desc_dim_v2", "KK", gives=(0,), needs=0)
def get_tensor_desc_dim_v2(handle: int, index: int) -> int:
    dims = _desc(handle).dims
    if index >= len(dims):
        raise AclFailure(100000, f"dimension {index} was requested, the tensor has {len(dims)}")
    return dims[index]


@call("mdl.set_dataset_tensor_desc", "KKK", gives=(0,), needs=0)
def set_dataset_tensor_desc(handle: int, desc: int, index: int) -> int:
    dataset = dataset_of(handle)
    _desc(desc)
    if index >= len(dataset.handles):
        raise AclFailure(100000, f"the dataset has {len(dataset.handles)} buffers, number {index} was described")
    dataset.descriptions[index] = desc
    return handle


@query("mdl.get_dataset_tensor_desc", "KK")
def get_dataset_tensor_desc(handle: int, index: int) -> int:
    return dataset_of(handle).descriptions.get(index, 0)


def describe_outputs(dataset: Dataset, tensors: List[Any]) -> None:
    """Describe the output shapes of an execution, unless the client has described them."""
    for index, tensor in enumerate(tensors):
        dims = tuple(int(side) for side in tensor.shape)
        handle = dataset.descriptions.get(index, 0)
        if not handle:
            handle = SIM.new_handle(
                TensorDesc(acl_dtype(tensor.dtype), dims, FORMATS.get(tensor.format, FORMAT_UNDEFINED))
            )
            dataset.descriptions[index] = handle
            dataset.own.append(handle)
        elif handle in dataset.own:
            # Another gear, another shape.
            _desc(handle).dims = dims
