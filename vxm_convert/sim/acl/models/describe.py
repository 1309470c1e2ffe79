# SPDX-License-Identifier: Apache-2.0
"""Model descriptions: names, dims, sizes, dtypes and formats of the inputs and outputs of a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Tuple, Union

from vxm_convert.ascend.acl_codes import DTYPE_UNDEFINED, FORMAT_UNDEFINED, FORMATS, acl_dtype
from vxm_convert.formats.gears import Gears
from vxm_convert.sim.acl.base.args import CONTEXT, INIT, call, query
from vxm_convert.sim.acl.base.state import SIM, AclFailure
from vxm_convert.sim.acl.models.loading import LoadedModel, Model, gears_of, loaded_from_file, model_of, tensors_of

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import TensorDesc


class Tensor(NamedTuple):
    """One input or output as the client sees it: -1 in `dims` for sides that a gear sets; `size` in bytes, of the
    largest gear.
    """

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
        self.gears: Optional[Gears] = None
        #: the loaded model; a description of a file has none
        self.model: Optional[Model] = None

    def fill(self, model: Union[Model, LoadedModel]) -> None:
        """From anything with a `program`: a loaded model, or one that was only read."""
        inputs, outputs = tensors_of(model)
        self.gears = gears_of(model)
        self.model = model if isinstance(model, Model) else None
        declared = self.gears.declared if self.gears else {}
        self.inputs = [_tensor(t)._replace(dims=declared.get(t.name, tuple(int(n) for n in t.shape))) for t in inputs]
        self.outputs = [_tensor(t) for t in outputs]


def tensor_bytes(tensor: TensorDesc) -> int:
    """Size in bytes of an engine.TensorDesc."""
    size = int(tensor.dtype.itemsize)
    for side in tensor.shape:
        size *= int(side)
    return size


def _tensor(tensor: TensorDesc) -> Tensor:
    dims = tuple(int(n) for n in tensor.shape)
    return Tensor(
        tensor.name, dims, acl_dtype(tensor.dtype), FORMATS.get(tensor.format, FORMAT_UNDEFINED), tensor_bytes(tensor)
    )


def desc_of(handle: int) -> Description:
    """The description behind a handle; raises AclFailure(100000)."""
    return SIM.thing(handle, Description, 100000)


def _at(tensors: List[Tensor], index: int, what: str) -> Tensor:
    if index >= len(tensors):
        raise AclFailure(100000, f"{what} {index} was requested, the model has {len(tensors)}")
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
    desc_of(handle)
    SIM.drop_handle(handle)


@call("mdl.get_desc", "KI", needs=CONTEXT)
def get_desc(handle: int, model_id: int) -> None:
    desc_of(handle).fill(model_of(model_id, 100000))


@call("mdl.get_desc_from_file", "Ks", needs=INIT)
def get_desc_from_file(handle: int, path: str) -> None:
    desc_of(handle).fill(loaded_from_file(path))


@query("mdl.get_num_inputs", "K")
def get_num_inputs(handle: int) -> int:
    return len(desc_of(handle).inputs)


@query("mdl.get_num_outputs", "K")
def get_num_outputs(handle: int) -> int:
    return len(desc_of(handle).outputs)


@call("mdl.get_input_index_by_name", "Ks", gives=(0,), needs=0)
def get_input_index_by_name(handle: int, name: str) -> int:
    return _index_of(desc_of(handle).inputs, name, "input")


@call("mdl.get_output_index_by_name", "Ks", gives=(0,), needs=0)
def get_output_index_by_name(handle: int, name: str) -> int:
    return _index_of(desc_of(handle).outputs, name, "output")


def _register_by_index(end: str) -> None:
    """The calls that exist for both ``input`` and ``output`` and take a description and an index."""

    def tensor(handle: int, index: int) -> Tensor:
        desc = desc_of(handle)
        return _at(desc.inputs if end == "input" else desc.outputs, index, end)

    query(f"mdl.get_{end}_size_by_index", "KI")(lambda handle, index: tensor(handle, index).size)
    query(f"mdl.get_{end}_name_by_index", "KI", otherwise="")(lambda handle, index: tensor(handle, index).name)
    query(f"mdl.get_{end}_format", "KI", otherwise=FORMAT_UNDEFINED)(lambda handle, index: tensor(handle, index).format)
    query(f"mdl.get_{end}_data_type", "KI", otherwise=DTYPE_UNDEFINED)(
        lambda handle, index: tensor(handle, index).data_type
    )
    for name in (f"get_{end}_dims", "get_input_dims_v2"):
        call("mdl." + name, "KI", gives=({},), needs=0)(lambda handle, index: tensor(handle, index).dims_dict())


_register_by_index("output")
_register_by_index("input")


@call("mdl.get_cur_output_dims", "KI", gives=({},), needs=0)
def get_cur_output_dims(handle: int, index: int) -> Dict[str, Any]:
    """For a model with gears: those of the gear that was set last."""
    desc = desc_of(handle)
    tensor = _at(desc.outputs, index, "output")
    if desc.gears is None:
        return tensor.dims_dict()
    gear = desc.model.gear if desc.model is not None else None
    if gear is None:
        raise AclFailure(500002, "no gear of the model has been set yet, so its outputs have no current shape")
    return tensor._replace(dims=desc.gears.outputs[gear][index]).dims_dict()
