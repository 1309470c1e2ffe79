# SPDX-License-Identifier: Apache-2.0
"""Vectors of sixteen float32 numbers, as LLVM code that numba puts into a loop.

numba has no vectors, and LLVM does not find by itself the block of sums that stays in registers. Addresses are plain
integers: nothing here checks a bound, so the loops that call it do.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Callable, List, Sequence

import numba
from llvmlite import ir
from numba.extending import intrinsic

from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.sim.engine.ending.sizes import LANES

#: bytes of a vector of float32, and of fp16
WIDE, NARROW = 4 * LANES, 2 * LANES

FLOAT, INDEX = ir.FloatType(), ir.IntType(64)
VECTOR, _HALVES = ir.VectorType(FLOAT, LANES), ir.VectorType(ir.HalfType(), LANES)
_POSITION = ir.IntType(32)
#: lets the processor multiply and add in one instruction, which rounds once
_CONTRACT = ("contract",)


def emitted(emit: Callable[..., None]) -> Any:
    """A function ``emit(builder, *integers)`` that appends LLVM code, as one that loops of numba can call."""

    # numba reads the names of the arguments from the function, the first for its own context.
    @wraps(emit)
    def typed(_context: Any, *integers: Any) -> Any:
        def code(context: Any, builder: Any, _signature: Any, values: Sequence[Any]) -> Any:
            emit(builder, *values)
            return context.get_dummy_value()

        return numba.types.void(*[numba.types.intp] * len(integers)), code

    return intrinsic(typed)


def number(value: int) -> Any:
    return ir.Constant(INDEX, value)


def filled(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)


ZERO = filled(0.0)


def load(builder: Any, address: Any, kind: Any = VECTOR) -> Any:
    """What is at an address; a single number of a vector's kind need not be aligned."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=8 if kind is INDEX else 4)


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=2)


def plus(builder: Any, address: Any, *factors: Any) -> Any:
    """An address plus the product of numbers, Python's or LLVM's."""
    offset = number(1)
    for factor in factors:
        offset = builder.mul(offset, number(factor) if isinstance(factor, int) else factor)
    return builder.add(address, offset)


def spread(builder: Any, value: Any) -> Any:
    """One float32 in all lanes."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_POSITION, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_POSITION, LANES), [0] * LANES))


def multiply_add(builder: Any, one: Any, other: Any, total: Any) -> Any:
    return builder.fadd(builder.fmul(one, other, flags=_CONTRACT), total, flags=_CONTRACT)


def narrowed(builder: Any, value: Any) -> Any:
    """float32 → fp16 as the 910 does it: to nearest even, subnormals kept, saturation instead of infinity."""
    for limit, outside in ((HALF_MAX, ">"), (-HALF_MAX, "<")):
        value = builder.select(builder.fcmp_ordered(outside, value, filled(limit)), filled(limit), value)
    return builder.fptrunc(value, _HALVES)


def widened(builder: Any, halves: Any) -> Any:
    return builder.fpext(halves, VECTOR)


def load_halves(builder: Any, address: Any) -> Any:
    """Sixteen fp16 numbers in memory, as float32."""
    return widened(builder, builder.load(builder.inttoptr(address, _HALVES.as_pointer()), align=2))


def leaked(builder: Any, value: Any, slope: Any) -> Any:
    """LeakyReLU."""
    return builder.select(builder.fcmp_ordered(">", value, ZERO), value, builder.fmul(value, slope))


def lane_sums(builder: Any, vectors: Sequence[Any]) -> Any:
    """The sum over the lanes of each of eight vectors, as one vector of eight."""
    width, rest = LANES, list(vectors)
    while len(rest) > 1:
        rest = [_folded(builder, one, other, width) for one, other in zip(rest[::2], rest[1::2])]
        width //= 2
    pairs = rest[0]
    return builder.fadd(*(_picked(builder, pairs, pairs, list(range(odd, LANES, 2))) for odd in (0, 1)))


def _folded(builder: Any, one: Any, other: Any, width: int) -> Any:
    """Each piece of `width` lanes becomes one of half the lanes: its first half plus its second."""
    starts = [piece + lane for piece in range(0, LANES, width) for lane in range(width // 2)]
    first = starts + [LANES + lane for lane in starts]
    return builder.fadd(
        _picked(builder, one, other, first), _picked(builder, one, other, [lane + width // 2 for lane in first])
    )


def _picked(builder: Any, one: Any, other: Any, lanes: List[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_POSITION, len(lanes)), lanes))


class Loop:
    """``for index in range(count)`` with vectors that each turn hands on; `count` is at least 1.

    Inside the ``with``, `values` are those of this turn, and `hand_on` gives those of the next; after it, `result` are
    those of the last.
    """

    def __init__(self, builder: Any, count: Any, first: Sequence[Any] = ()) -> None:
        self._builder, self._count, self._first = builder, count, first
        self.result: Sequence[Any] = ()

    def __enter__(self) -> Loop:
        builder, before = self._builder, self._builder.block
        self._body, self._end = builder.append_basic_block("turn"), builder.append_basic_block("end")
        builder.branch(self._body)
        builder.position_at_end(self._body)
        self.index = builder.phi(INDEX)
        self.index.add_incoming(number(0), before)
        self.values = [builder.phi(value.type) for value in self._first]
        for phi, value in zip(self.values, self._first):
            phi.add_incoming(value, before)
        return self

    def hand_on(self, values: Sequence[Any]) -> None:
        self.result = values

    def __exit__(self, *_error: object) -> None:
        builder = self._builder
        following = builder.add(self.index, number(1))
        self.index.add_incoming(following, builder.block)
        for phi, value in zip(self.values, self.result):
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, self._count), self._body, self._end)
        builder.position_at_end(self._end)


@emitted
def round_all(builder: Any, address: Any, vectors: Any) -> None:
    """Round to fp16, in place."""
    with Loop(builder, vectors) as turn:
        vector = plus(builder, address, turn.index, WIDE)
        store(builder, widened(builder, narrowed(builder, load(builder, vector))), vector)
