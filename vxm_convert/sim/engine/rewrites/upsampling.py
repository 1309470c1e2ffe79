# SPDX-License-Identifier: Apache-2.0
"""Engine rewrite: nearest upsampling written as concatenations becomes one operator.

Before (for each of the three axes): ``Reshape → ConcatV2D(x, x) → Reshape``, each voxel doubled along one axis. After:
``Upsample``. Both copy values, so the result is the same to the bit; it saves moving the channels to the end and back,
which makes the concatenations slow on a CPU.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.compiler.fusion import drop_dead

#: Operators that change how a tensor is stored or read, not its values.
MOVES = ("Reshape", "TransData")


def find_upsampling(ops: List[Op]) -> List[Op]:
    """Replace every complete pattern; anything that does not match exactly stays as it is."""
    producers = {f"{op.name}:{index}": op for op in ops for index in range(len(op.output_descs))}
    replaced: Dict[str, Op] = {}
    for op in ops:
        source = _match(op, producers)
        if source is not None:
            small = producers[source].output_descs[int(source.rpartition(":")[2])]
            replaced[op.name] = Op(op.name, "Upsample", [source], dict(op.attrs), [small], op.output_descs)
    return drop_dead([replaced.get(op.name, op) for op in ops], [f"{ops[-1].name}:0"])


def _match(op: Op, producers: Dict[str, Op]) -> Optional[str]:
    """The tensor that `op` (the last Reshape) upsamples by two along all three axes, or None."""
    if op.type != "Reshape" or len(op.output_descs[0].logical_shape) != 5:
        return None
    shape = op.output_descs[0].logical_shape
    tensor = f"{op.name}:0"
    axes = set()
    for _ in range(3):
        found = _one_axis(tensor, shape, producers)
        if found is None:
            return None
        tensor, shape, axis = found
        axes.add(axis)
    return tensor if axes == {1, 2, 3} and _shape_of(tensor, producers) == shape else None


def _one_axis(
    tensor: str, shape: Tuple[int, ...], producers: Dict[str, Op]
) -> Optional[Tuple[str, Tuple[int, ...], int]]:
    """(input, its 5-D shape, axis) of a doubling along one axis that ends in `tensor` of 5-D `shape`."""
    last = _skip_reshapes(tensor, producers)
    concat = producers[last]
    if concat.type != "ConcatV2D" or len(set(concat.inputs)) != 1 or len(concat.inputs) != 2:
        return None
    part = concat.input_descs[0].logical_shape
    where = concat.attrs["concat_dim"]
    # After the concatenated axis come all values of one voxel along the doubled axis.
    inner = 1
    for side in part[where:]:
        inner *= side
    behind = shape[4]
    for axis in (3, 2, 1):
        if behind == inner and shape[axis] % 2 == 0:
            smaller = shape[:axis] + (shape[axis] // 2,) + shape[axis + 1 :]
            return _as_5d(concat.inputs[0], smaller, producers), smaller, axis
        behind *= shape[axis]
    return None


def _skip_reshapes(tensor: str, producers: Dict[str, Op]) -> str:
    while producers[tensor].type in MOVES:
        tensor = producers[tensor].inputs[0]
    return tensor


def _as_5d(tensor: str, shape: Tuple[int, ...], producers: Dict[str, Op]) -> str:
    """Walk up reshapes until a tensor has the 5-D shape; a further walk would only undo earlier doublings."""
    while producers[tensor].type in MOVES and _shape_of(tensor, producers) != shape:
        tensor = producers[tensor].inputs[0]
    return tensor


def _shape_of(tensor: str, producers: Dict[str, Op]) -> Tuple[int, ...]:
    return producers[tensor].output_descs[int(tensor.rpartition(":")[2])].logical_shape
