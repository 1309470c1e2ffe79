# SPDX-License-Identifier: Apache-2.0
"""Shapes of slices, ranges, loops of TensorFlow 1 and their tensor arrays: rules for the walker of `shapes`.

A rule takes the walker and a node and gives the shapes of its outputs; it raises what the walker catches where it does
not know.
"""

from __future__ import annotations

import abc
import math
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import numpy as np

from vxm_convert.formats.tf_graph import TfNode

_Shape = Optional[Tuple[int, ...]]
_MAX_RANGE = 1 << 31


class Walker(abc.ABC):
    """What the rules ask of the walker of `shapes`."""

    def __init__(self) -> None:
        self.values: Dict[str, np.ndarray] = {}
        #: of tensor arrays: handle → length, flow → shape of an element
        self.sizes: Dict[str, int] = {}
        self.elements: Dict[str, Tuple[int, ...]] = {}
        #: loop variables that a step was seen to change the shape of
        self.changing: Set[str] = set()

    @abc.abstractmethod
    def shape(self, node: TfNode, position: int) -> Tuple[int, ...]:
        """Shape of an input; ValueError if unknown."""

    @abc.abstractmethod
    def value(self, node: TfNode, position: int) -> np.ndarray:
        """Value of a constant input; KeyError if it is none."""

    @abc.abstractmethod
    def source(self, node: TfNode, position: int) -> str:
        """Tensor that an input reads; IndexError if there is none."""

    @abc.abstractmethod
    def keep_value(self, node: TfNode, value: object) -> None:
        """Numbers that are known although the graph computes them."""

    @abc.abstractmethod
    def passed_on(self, node: TfNode, position: int, outputs: Tuple[int, ...]) -> _Shape:
        """Shape of an input that comes out as it went in, with what is known of it if it is a tensor array."""


def _slices(walker: Walker, node: TfNode) -> List[_Shape]:
    """StridedSlice: masks are bits by position in begin, end and strides. NumPy does the same on an array without
    memory.
    """
    source = walker.shape(node, 0)
    begin, end, strides = ([int(n) for n in walker.value(node, k).reshape(-1)] for k in (1, 2, 3))
    masks = {
        key: int(node.attrs.get(f"{key}_mask") or 0) for key in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    index: List[Any] = []
    for position, (first, last, step) in enumerate(zip(begin, end, strides)):
        chosen = {key for key, mask in masks.items() if mask >> position & 1}
        if "ellipsis" in chosen:
            index.append(Ellipsis)
        elif "new_axis" in chosen:
            index.append(np.newaxis)
        elif "shrink_axis" in chosen:
            index.append(first)
        else:
            index.append(slice(None if "begin" in chosen else first, None if "end" in chosen else last, step))
    known = walker.values.get(walker.source(node, 0))
    if known is not None:
        walker.keep_value(node, known[tuple(index)])
    if -1 in source:
        raise ValueError("unknown side")
    return [np.broadcast_to(np.zeros(()), source)[tuple(index)].shape]


def _packed(walker: Walker, node: TfNode) -> List[_Shape]:
    """Pack; of known numbers the result is known too, as shapes are often put together so."""
    sources = [walker.source(node, k) for k in range(int(node.attrs.get("N") or len(node.inputs)))]
    part = walker.shape(node, 0)
    if all(source in walker.values for source in sources) and part == ():
        walker.keep_value(node, np.stack([walker.values[source] for source in sources]))
    rank = len(part) + 1
    axis = int(node.attrs.get("axis") or 0)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank:
        raise ValueError("axis")
    return [part[:axis] + (len(sources),) + part[axis:]]


def _shape_of(walker: Walker, node: TfNode) -> List[_Shape]:
    source = walker.shape(node, 0)
    if -1 not in source:
        walker.keep_value(node, np.array(source, np.int64))
    return [(len(source),)]


def _range(walker: Walker, node: TfNode) -> List[_Shape]:
    start, limit, delta = (float(walker.value(node, k).reshape(())) for k in (0, 1, 2))
    many = max(0, math.ceil((limit - start) / delta))
    if many > _MAX_RANGE:
        raise ValueError("range")
    return [(many,)]


def _array(walker: Walker, node: TfNode) -> List[_Shape]:
    """TensorArrayV3: handle and flow."""
    try:
        walker.sizes[node.name + ":0"] = int(walker.value(node, 0).reshape(()))
    except KeyError:
        # Its length may be computed; elements can be known all the same.
        return [(2,), ()]
    return [(2,), ()]


def _size(walker: Walker, node: TfNode) -> List[_Shape]:
    walker.keep_value(node, walker.sizes[walker.source(node, 0)])
    return [()]


def _scatter(walker: Walker, node: TfNode) -> List[_Shape]:
    walker.elements[node.name + ":0"] = walker.shape(node, 2)[1:]
    return [()]


def _write(walker: Walker, node: TfNode) -> List[_Shape]:
    walker.elements[node.name + ":0"] = walker.shape(node, 2)
    return [()]


def _read(walker: Walker, node: TfNode) -> List[_Shape]:
    return [walker.elements[walker.source(node, 2)]]


def _gather(walker: Walker, node: TfNode) -> List[_Shape]:
    (many,) = walker.shape(node, 1)
    return [(many,) + walker.elements[walker.source(node, 2)]]


def _switch(walker: Walker, node: TfNode) -> List[_Shape]:
    shape = walker.passed_on(node, 0, (0, 1))
    return [shape, shape]


def _merge(walker: Walker, node: TfNode) -> List[_Shape]:
    """What enters a loop keeps its shape as long as the end of a step does not say otherwise."""
    first, second = walker.passed_on(node, 0, (0,)), walker.passed_on(node, 1, (0,))
    if None not in (first, second) and first != second:
        walker.changing.add(node.name)
    return [None if node.name in walker.changing else first, ()]


MORE_RULES: Dict[str, Callable[[Walker, TfNode], List[_Shape]]] = {
    "StridedSlice": _slices,
    "Pack": _packed,
    "Shape": _shape_of,
    "Range": _range,
    "Switch": _switch,
    "Merge": _merge,
    "LoopCond": lambda walker, node: [()],
    "TensorArrayV3": _array,
    "TensorArraySizeV3": _size,
    "TensorArrayScatterV3": _scatter,
    "TensorArrayWriteV3": _write,
    "TensorArrayReadV3": _read,
    "TensorArrayGatherV3": _gather,
}
