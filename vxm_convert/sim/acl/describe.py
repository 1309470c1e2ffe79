# SPDX-License-Identifier: Apache-2.0
"""Model descriptions: names, dims, sizes, dtypes and formats of the inputs and outputs of a loaded model."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple

from vxm_convert.acl_tables import DTYPE_UNDEFINED, FORMAT_UNDEFINED, FORMATS, acl_dtype
from vxm_convert.sim.acl.args import CONTEXT, INIT, call, query
from vxm_convert.sim.acl.model import loaded_from_file, model_of, tensors_of
from vxm_convert.sim.acl.state import SIM, AclFailure

_EMPTY_BATCH = {"batchCount": 0, "batch": []}  # type: Dict[str, Any]
_EMPTY_HW = {"hwCount": 0, "hw": []}  # type: Dict[str, Any]


class Tensor(NamedTuple):
    """One input or output as the client sees it; `size` in bytes."""

    name: str
    dims: Tuple[int, ...]
    data_type: int
    format: int
    size: int

    def dims_dict(self) -> Dict[str, Any]:
        return {"name": self.name, "dimCount": len(self.dims), "dims": list(self.dims)}


class Description:
    """Empty until `get_desc` fills it."""

    def __init__(self) -> None:
        self.inputs: List[Tensor] = []
        self.outputs: List[Tensor] = []

    def fill(self, model: Any) -> None:
        """From anything with a `program`: a model that is loaded, or one that was only read."""
        inputs, outputs = tensors_of(model)
        self.inputs = [_tensor(t) for t in inputs]
        self.outputs = [_tensor(t) for t in outputs]


def tensor_bytes(tensor: Any) -> int:
    """Size in bytes of an engine.TensorDesc."""
    size = int(tensor.dtype.itemsize)
    for side in tensor.shape:
        size *= int(side)
    return size


def _tensor(tensor: Any) -> Tensor:
    dims = tuple(int(n) for n in tensor.shape)
    return Tensor(tensor.name, dims, acl_dtype(tensor.dtype), FORMATS.get(tensor.format, FORMAT_UNDEFINED), tensor_bytes(tensor))


def _desc(handle: int) -> Description:
    return SIM.thing(handle, Description, 100000)


def _at(tensors: List[Tensor], index: int, what: str) -> Tensor:
    if index >= len(tensors):
        raise AclFailure(100000, f"{what} {index} was asked, the model has {len(tensors)}")
    return tensors[index]


def _index_of(tensors: List[Tensor], name: str, what: str) -> int:
    for index, tensor in enumerate(tensors):
        if tensor.name == name:
            return index
    raise AclFailure(100000, f"no {what} is named {name!r}, the model has {', '.join(t.name for t in tensors)}")


@query("mdl.create_desc")
def create_desc() -> int:
    return SIM.new_handle(Description())


@call("mdl.destroy_desc", "K", needs=0)
def destroy_desc(handle: int) -> None:
    _desc(handle)
    SIM.drop_handle(handle)


@call("mdl.get_desc", "KI", needs=CONTEXT)
def get_desc(handle: int, model_id: int) -> None:
    _desc(handle).fill(model_of(model_id, 100000))


@call("mdl.get_desc_from_file", "Ks", needs=INIT)
def get_desc_from_file(handle: int, path: str) -> None:
    _desc(handle).fill(loaded_from_file(path))


@query("mdl.get_num_inputs", "K")
def get_num_inputs(handle: int) -> int:
    return len(_desc(handle).inputs)


@query("mdl.get_num_outputs", "K")
def get_num_outputs(handle: int) -> int:
    return len(_desc(handle).outputs)


@call("mdl.get_input_index_by_name", "Ks", gives=(0,), needs=0)
def get_input_index_by_name(handle: int, name: str) -> int:
    return _index_of(_desc(handle).inputs, name, "input")


@call("mdl.get_output_index_by_name", "Ks", gives=(0,), needs=0)
def get_output_index_by_name(handle: int, name: str) -> int:
    return _index_of(_desc(handle).outputs, name, "output")


def _register_by_index(end: str) -> None:
    """The calls that exist alike for ``input`` and ``output``, taking a description and an index."""

    def tensor(handle: int, index: int) -> Tensor:
        desc = _desc(handle)
        return _at(desc.inputs if end == "input" else desc.outputs, index, end)

    query(f"mdl.get_{end}_size_by_index", "KI")(lambda handle, index: tensor(handle, index).size)
    query(f"mdl.get_{end}_name_by_index", "KI", otherwise="")(lambda handle, index: tensor(handle, index).name)
    query(f"mdl.get_{end}_format", "KI", otherwise=FORMAT_UNDEFINED)(lambda handle, index: tensor(handle, index).format)
    query(f"mdl.get_{end}_data_type", "KI", otherwise=DTYPE_UNDEFINED)(lambda handle, index: tensor(handle, index).data_type)
    for name in (f"get_{end}_dims", f"get_{end}_dims_v2", f"get_cur_{end}_dims"):
        if name not in ("get_output_dims_v2", "get_cur_input_dims"):  # these two do not exist
            call("mdl." + name, "KI", gives=({},), needs=0)(lambda handle, index: tensor(handle, index).dims_dict())


_register_by_index("input")
_register_by_index("output")


# Dynamic shapes: every model here is static, which the queries answer and the setters refuse.
@call("mdl.get_dynamic_batch", "K", gives=(_EMPTY_BATCH,), needs=0)
def get_dynamic_batch(handle: int) -> Dict[str, Any]:
    _desc(handle)
    return _EMPTY_BATCH


@call("mdl.get_dynamic_hw", "Ki", gives=(_EMPTY_HW,), needs=0)
def get_dynamic_hw(handle: int, index: int) -> Dict[str, Any]:
    """The index is reserved; clients pass -1."""
    _desc(handle)
    return _EMPTY_HW


@call("mdl.get_input_dynamic_gear_count", "Ki", gives=(0,), needs=0)
def get_input_dynamic_gear_count(handle: int, index: int) -> int:
    _desc(handle)
    return 0


@call("mdl.get_input_dynamic_dims", "KiK", gives=([],), needs=0)
def get_input_dynamic_dims(handle: int, index: int, count: int) -> List[Dict[str, Any]]:
    """One dims dict per gear; `count` is what `get_input_dynamic_gear_count` said."""
    _desc(handle)
    if count:
        raise AclFailure(100000, f"{count} gears were asked, the model has none")
    return []


def _refuse_dynamic(model_id: int, *_: Any) -> None:
    model_of(model_id)
    raise AclFailure(100019, "the model was compiled with static shapes")


call("mdl.set_dynamic_batch_size", "IKKK", needs=CONTEXT)(_refuse_dynamic)
call("mdl.set_dynamic_hw_size", "IKKKK", needs=CONTEXT)(_refuse_dynamic)
call("mdl.set_input_dynamic_dims", "IKKd", needs=CONTEXT)(_refuse_dynamic)
