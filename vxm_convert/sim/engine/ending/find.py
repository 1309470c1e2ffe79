# SPDX-License-Identifier: Apache-2.0
"""Finds the convolutions of full size at the end of a network, and divides its graph before and behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc, Op
from vxm_convert.sim.compiler.fusion import drop_dead
from vxm_convert.sim.compiler.layouts import unpacked
from vxm_convert.sim.engine.ending.sizes import LANES, LEAST_VOXELS, OUTPUTS
from vxm_convert.sim.engine.rewrites.upsampling import find_upsampling

#: Operators that multiply by weights: the graph behind the ending must not repeat one.
_HEAVY = frozenset(
    "Conv3D Conv2D DepthwiseConv2D Conv2DBackpropInputD Conv3DBackpropInputD BatchMatMul BatchMatMulV2 MatMul MatMulV2".split()
)
_SAME = {"strides": [1] * 5, "dilations": [1] * 5, "pads": [1] * 6, "data_format": "NDHWC"}


@dataclass(frozen=True)
class Convolution:
    """A convolution of 3×3×3 voxels that keeps the volume's size, its bias, and LeakyReLU behind it.

    Parameters
    ----------
    weights : ndarray, shape (3, 3, 3, C, N), float32 — on the fp16 grid.
    bias : ndarray, shape (N,), float32.
    rounds : bool — whether the sum is rounded to fp16.
    slope : float — of LeakyReLU, whose result is rounded to fp16; 1 if there is none.
    """

    weights: np.ndarray
    bias: np.ndarray
    rounds: bool
    slope: float


@dataclass(frozen=True)
class Ending:
    """The convolutions of full size, and the graphs before and behind.

    Parameters
    ----------
    small, beside : the shape (N, D, H, W, C) of the volume that is doubled, and that of the channels beside it.
    convolutions : list of Convolution — the first reads the doubled volume and the channels beside it, the last gives
        the flow.
    before : list of Op — computes these two, its only results.
    flow : Op — the result of the last convolution as an input, (N, 3, D, H, W).
    behind : list of Op — everything else, with `flow` as its last input.
    """

    small: Tuple[int, ...]
    beside: Tuple[int, ...]
    convolutions: List[Convolution]
    before: List[Op]
    flow: Op
    behind: List[Op]


def find_ending(ops: List[Op]) -> Optional[Ending]:
    """The ending of a network whose flow has a size worth the effort; None if the graph differs in anything."""
    ops = find_upsampling(ops)
    made = {f"{op.name}:{index}": op for op in ops for index in range(len(op.output_descs))}
    last = next((op for op in reversed(ops) if op.type == "Conv3D"), None)
    if last is None or any(op.type == "FrameworkOp" for op in ops):
        return None
    chain = _chain(last, made)
    flow = _as_input(last)
    behind = _behind(ops, last, flow)
    if not chain or any(op.type in _HEAVY for op in behind):
        return None
    joined = _walk(chain[0].op.inputs[0], made).op
    doubled = made[joined.inputs[0]]
    descs = [doubled.input_descs[0], joined.input_descs[1]]
    before = _before(ops, [doubled.inputs[0], joined.inputs[1]], descs)
    shapes = [desc.logical_shape for desc in descs]
    convolutions = [_convolution(source, made) for source in chain]
    return Ending(shapes[0], shapes[1], convolutions, before, flow, behind)


@dataclass(frozen=True)
class Source:
    """What computes a tensor.

    Parameters
    ----------
    slopes : list of float — of every LeakyReLU between, the last first.
    narrow : bool — whether the result is rounded to fp16 before it gets to one of them.
    """

    op: Op
    slopes: List[float]
    narrow: bool


def _chain(last: Op, made: Dict[str, Op]) -> List[Source]:
    """The convolutions, first to last; none if they are not an ending."""
    if last.output_descs[0].logical_shape[-1] != OUTPUTS or not _fits(last, made):
        return []
    chain = [Source(last, [], False)]
    while True:
        source = _walk(chain[0].op.inputs[0], made)
        op = source.op
        if len(source.slopes) > 1:
            return []
        if op.type == "ConcatV2D":
            return chain if len(chain) > 1 and not source.slopes and _doubles(op, made) else []
        if op.type != "Conv3D" or not _fits(op, made) or op.output_descs[0].logical_shape[-1] % LANES:
            return []
        chain.insert(0, source)


def _walk(tensor: str, made: Dict[str, Op]) -> Source:
    """What computes a tensor, beyond casts between floats and layouts, and LeakyReLU."""
    slopes: List[float] = []
    narrow = False
    while True:
        op = made[tensor]
        if op.type == "LeakyRelu":
            # The slope is an operand of the kernel and has the kernel's type.
            slopes.append(float(np.dtype(op.input_descs[0].dtype).type(op.attrs["negative_slope"])))
        elif op.type == "Cast" and {op.input_descs[0].dtype, op.output_descs[0].dtype} <= {"float16", "float32"}:
            narrow = narrow or bool(slopes and op.output_descs[0].dtype == "float16")
        elif op.type != "TransData":
            return Source(op, slopes, narrow)
        tensor = op.inputs[0]


def _fits(op: Op, made: Dict[str, Op]) -> bool:
    if any(op.attrs.get(key) != value for key, value in _SAME.items()) or op.attrs.get("groups", 1) != 1:
        return False
    if any(made[source].data is None for source in op.inputs[1:]):
        return False
    shape, kernel = op.input_descs[0].logical_shape, op.input_descs[1].logical_shape
    return (
        op.input_descs[0].dtype == op.input_descs[1].dtype == "float16"
        and kernel[:3] == (3, 3, 3)
        and int(np.prod(shape[1:4])) >= LEAST_VOXELS
    )


def _doubles(joined: Op, made: Dict[str, Op]) -> bool:
    """Whether a concatenation joins a doubled volume, of whole vectors of channels, and other channels behind it."""
    sources = [made[source] for source in joined.inputs]
    return (
        joined.attrs["concat_dim"] == len(joined.output_descs[0].logical_shape) - 1
        and len(sources) == 2
        and sources[0].type == "Upsample"
        and sources[0].input_descs[0].logical_shape[-1] % LANES == 0
        and all(desc.dtype in ("float16", "float32") for desc in (sources[0].input_descs[0], joined.input_descs[1]))
    )


def _convolution(source: Source, made: Dict[str, Op]) -> Convolution:
    op = source.op
    weights = unpacked(made[op.inputs[1]]).astype(np.float32)
    bias = made[op.inputs[2]].value if len(op.inputs) > 2 else np.zeros(weights.shape[-1])
    rounds = source.narrow or op.output_descs[0].dtype == "float16"
    return Convolution(weights, np.asarray(bias, np.float32), rounds, source.slopes[0] if source.slopes else 1.0)


def _before(ops: List[Op], tensors: List[str], descs: List[Desc]) -> List[Op]:
    """The graph with these tensors as its only results."""
    return drop_dead(ops, tensors) + [replace(ops[-1], inputs=tensors, input_descs=descs, output_descs=descs)]


def _as_input(last: Op) -> Op:
    desc = last.output_descs[0]
    shape = desc.logical_shape[:1] + desc.logical_shape[-1:] + desc.logical_shape[1:-1]
    return Op(last.name, "Data", [], {"channels_first": True}, [], [Desc(desc.dtype, shape)])


def _behind(ops: List[Op], last: Op, flow: Op) -> List[Op]:
    """The graph with the result of the last convolution as its last input."""
    inputs = [op for op in ops if op.type == "Data"] + [flow]
    rest = [op for op in ops if op.type != "Data" and op is not last]
    return drop_dead(inputs + rest, [f"{ops[-1].name}:0"])
