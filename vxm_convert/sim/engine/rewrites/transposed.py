# SPDX-License-Identifier: Apache-2.0
"""Engine rewrite: a 3×3×3 convolution of an upsampled volume becomes a transposed convolution of the small one.

Before: ``y = Conv3D(Concat(Upsample(x), skip), w, b)``; after: ``y = ConvTranspose3D(x, k) + Conv3D(skip, w_skip, b)``.
Upsampling copies each voxel twice per axis, so taps on the same copy may be added first. Along one axis, with
``u[j] = x[j // 2]`` and taps w0, w1, w2, the sum over ``u`` is a transposed convolution (stride 2, padding 1) with
``k = [w2, w1 + w2, w0 + w1, w0]``; zero padding of ``u`` needs no extra term, because both copies of a voxel are inside
or outside together. A third of the multiplications and the concatenated volume (0.9 GiB at full size) are saved.

Rounding: the taps are fp16 values and are added in fp32, so products and sums are those of the plain form in another
order; the result is rounded where the plain form rounds it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.sim.compiler.dtypes import FLOATS
from vxm_convert.sim.compiler.fusion import drop_dead
from vxm_convert.sim.compiler.layouts import unpacked

#: rows: taps of the 4-wide kernel, columns: taps w0, w1, w2
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)


def fold_upsampling(ops: List[Op]) -> List[Op]:
    """Apply the rewrite wherever it fits; expects `upsampling.find_upsampling` to have run."""
    producers = {f"{op.name}:{index}": op for op in ops for index in range(len(op.output_descs))}
    result: List[Op] = []
    for op in ops:
        parts = _upsampled_and_skip(op, producers)
        result.extend([op] if parts is None else _rewrite(op, *parts, producers))
    return drop_dead(result, [f"{ops[-1].name}:0"])


def _upsampled_and_skip(op: Op, producers: Dict[str, Op]) -> Optional[Tuple[Op, Optional[str], bool]]:
    """The Upsample, the tensor behind it in the concatenation (or None), and whether the input is rounded after both.

    None where the pattern is another.
    """
    if (
        op.type != "Conv3D"
        or op.attrs["strides"] != [1] * 5
        or op.attrs["dilations"] != [1] * 5
        or op.attrs["pads"] != [1] * 6
    ):
        return None
    if op.input_descs[1].logical_shape[:3] != (3, 3, 3) or op.attrs.get("groups", 1) != 1:
        return None
    source, rounded = _skip_moves(op.inputs[0], producers)
    if source.type == "Upsample":
        # Without a skip, only the bias remains of the sum.
        return (source, None, rounded) if len(op.inputs) > 2 else None
    if source.type != "ConcatV2D" or source.attrs["concat_dim"] != 4 or len(source.inputs) != 2:
        return None
    first, rounded_first = _skip_moves(source.inputs[0], producers)
    return (first, source.inputs[1], rounded) if first.type == "Upsample" and not rounded_first else None


def _skip_moves(tensor: str, producers: Dict[str, Op]) -> Tuple[Op, bool]:
    """The operator before layout changes and float casts, and whether one of the casts rounds to fp16."""
    op, rounded = producers[tensor], False
    while op.type == "TransData" or (
        op.type == "Cast" and op.input_descs[0].dtype in FLOATS and op.output_descs[0].dtype in FLOATS
    ):
        rounded = rounded or (op.type == "Cast" and op.output_descs[0].dtype == "float16")
        op = producers[op.inputs[0]]
    return op, rounded


def _rewrite(op: Op, upsample: Op, skip: Optional[str], rounded: bool, producers: Dict[str, Op]) -> List[Op]:
    filters = producers[op.inputs[1]]
    weights = unpacked(filters).astype(np.float32)
    channels = upsample.output_descs[0].logical_shape[-1]
    exact = replace(op.output_descs[0], dtype="float32")
    kernel = _const(f"{op.name}/phase_kernel", _fold_taps(weights[..., :channels, :]))
    made, small = _round_first(f"{op.name}/phase_small", upsample.inputs[0], rounded, producers)
    up = Op(
        f"{op.name}/phase_up",
        "ConvTranspose3D",
        [small, f"{kernel.name}:0"],
        {},
        [upsample.input_descs[0], kernel.output_descs[0]],
        [exact],
    )
    made += [kernel, up]
    if skip is None:
        total = Op(
            op.name,
            "BiasAdd",
            [f"{up.name}:0"] + op.inputs[2:3],
            dict(op.attrs),
            [exact] + op.input_descs[2:3],
            op.output_descs,
        )
        return made + [total]
    rest = _const(f"{op.name}/phase_filter", weights[..., channels:, :])
    more, side_input = _round_first(f"{op.name}/phase_side", skip, rounded, producers)
    side = Op(
        f"{op.name}/phase_skip",
        "Conv3D",
        [side_input, f"{rest.name}:0"] + op.inputs[2:],
        dict(op.attrs),
        [_desc(skip, producers), rest.output_descs[0]] + op.input_descs[2:],
        [exact],
    )
    total = Op(op.name, "Add", [f"{up.name}:0", f"{side.name}:0"], dict(op.attrs), [exact, exact], op.output_descs)
    return made + more + [rest, side, total]


def _round_first(name: str, tensor: str, rounded: bool, producers: Dict[str, Op]) -> Tuple[List[Op], str]:
    """Rounding commutes with copying: round the small volume and the skip before they would be joined."""
    desc = _desc(tensor, producers)
    if not rounded or desc.dtype == "float16":
        return [], tensor
    return [Op(name, "Cast", [tensor], {}, [desc], [replace(desc, dtype="float16")])], f"{name}:0"


def _fold_taps(weights: np.ndarray) -> np.ndarray:
    """(3, 3, 3, C, N) → (4, 4, 4, C, N)."""
    return np.einsum("ai,bj,ck,ijkmn->abcmn", _TAPS, _TAPS, _TAPS, weights).astype(np.float32)


def _const(name: str, data: np.ndarray) -> Op:
    return Op(name, "Const", [], {}, [], [Desc(data.dtype.name, data.shape, "DHWCN")], np.ascontiguousarray(data))


def _desc(tensor: str, producers: Dict[str, Op]) -> Desc:
    return producers[tensor].output_descs[int(tensor.rpartition(":")[2])]
