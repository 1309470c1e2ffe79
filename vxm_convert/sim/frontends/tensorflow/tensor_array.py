# SPDX-License-Identifier: Apache-2.0
"""Tensor arrays, resolved while the graph is imported: the flow tensor names the state, and the state is a tuple of
tensors.

The real compiler runs these nodes on the AI CPU. Here a scatter becomes Unpack, a gather becomes Pack, and reading and
writing only rename tensors; that needs constant sizes and indices, which an unrolled loop has.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.refusal import AtcRefusal

#: More elements than any batch has; larger sizes come from damaged graphs and are refused.
MAX_ELEMENTS = 1 << 16


def _create(importer: Importer, node: TfNode) -> None:
    size = int(importer.const(node, 0))
    if not 0 <= size <= MAX_ELEMENTS:
        raise AtcRefusal("E20001", f"{node.name}: a tensor array of {size} elements, expected at most {MAX_ELEMENTS}")
    importer.arrays[f"{node.name}:0"] = importer.arrays[f"{node.name}:1"] = (None,) * size


def _state(importer: Importer, node: TfNode, position: int) -> Tuple[Optional[str], ...]:
    flow = importer.tensor(node.inputs[position])
    if flow not in importer.arrays:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): operand {position} is not the flow of a tensor array")
    return importer.arrays[flow]


def _indices(importer: Importer, node: TfNode, size: int) -> List[int]:
    indices = importer.ints(node, 1)
    if any(not 0 <= index < size for index in indices):
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): indices {indices} of a tensor array of {size} elements")
    return indices


def _read(importer: Importer, node: TfNode) -> None:
    elements = _state(importer, node, 2)
    (index,) = _indices(importer, node, len(elements))
    importer.aliases[f"{node.name}:0"] = _written(node, elements[index], index)


def _write(importer: Importer, node: TfNode) -> None:
    elements = list(_state(importer, node, 3))
    (index,) = _indices(importer, node, len(elements))
    elements[index] = importer.tensor(node.inputs[2])
    importer.arrays[f"{node.name}:0"] = tuple(elements)


def _scatter(importer: Importer, node: TfNode) -> None:
    elements = list(_state(importer, node, 3))
    indices = _indices(importer, node, len(elements))
    value = importer.desc(node.inputs[2])
    if not value.shape or value.shape[0] != len(indices):
        raise AtcRefusal("E20001", f"{node.name}: {len(indices)} indices for a value of shape {value.shape}")
    importer.add(
        node, "Unpack", [node.inputs[2]], [(value.dtype, value.shape[1:])] * len(indices), axis=0, num=len(indices)
    )
    for position, index in enumerate(indices):
        elements[index] = f"{node.name}:{position}"
    importer.arrays[f"{node.name}:0"] = tuple(elements)


def _gather(importer: Importer, node: TfNode) -> None:
    elements = _state(importer, node, 2)
    parts = [_written(node, elements[index], index) for index in _indices(importer, node, len(elements))]
    descs = [importer.desc(part) for part in parts]
    if not parts or len({desc.shape for desc in descs}) != 1:
        raise AtcRefusal(
            "E20001", f"{node.name}: elements of shapes {[desc.shape for desc in descs]} cannot be stacked"
        )
    importer.add(node, "Pack", parts, [(descs[0].dtype, (len(parts),) + descs[0].shape)], axis=0, N=len(parts))


def _size(importer: Importer, node: TfNode) -> None:
    importer.add_const(node.name, np.array(len(_state(importer, node, 1)), np.int32))


def _written(node: TfNode, element: Optional[str], index: int) -> str:
    if element is None:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): element {index} is read before it was written")
    return element


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "TensorArrayV3": _create,
    "TensorArrayReadV3": _read,
    "TensorArrayWriteV3": _write,
    "TensorArrayScatterV3": _scatter,
    "TensorArrayGatherV3": _gather,
    "TensorArraySizeV3": _size,
}
