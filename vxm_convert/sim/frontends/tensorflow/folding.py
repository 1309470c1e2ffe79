# SPDX-License-Identifier: Apache-2.0
"""Constant folding: nodes with a result known at compile time become constants, computed in the graph's own types.

The real compiler folds the same kinds of nodes on the host. Folding makes shapes, ranges and loop counters known.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer
from vxm_convert.sim.frontends.tensorflow.selection import plan_slice
from vxm_convert.sim.refusal import AtcRefusal

Folder = Callable[..., Any]
#: The result depends on the operand's shape; its values need not be known.
SHAPE_ONLY = frozenset("Shape ShapeN Size Rank ZerosLike OnesLike".split())
#: Largest number of elements of a folded constant; a larger one would not fit into a frozen graph either.
MAX_FOLDED = 1 << 28


def fold(importer: Importer, node: TfNode) -> Optional[List[np.ndarray]]:
    """Values of the node's outputs, or None if they depend on the model's inputs."""
    names = [name for name in node.inputs if not name.startswith("^")]
    if node.op in SHAPE_ONLY:
        return [_from_shape(importer, node, name) for name in names]
    if node.op not in FOLDERS or not names:
        return None
    arrays = [importer.constant(name) for name in names]
    if any(array is None for array in arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            result = FOLDERS[node.op](node, *arrays)
    except (ValueError, LookupError, TypeError, ZeroDivisionError, AttributeError) as exc:
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): its constant operands or attributes do not fit together ({exc!r})"
        ) from exc
    return [np.asarray(part) for part in result] if isinstance(result, list) else [np.asarray(result)]


def _from_shape(importer: Importer, node: TfNode, name: str) -> np.ndarray:
    desc = importer.desc(name)
    integer = np.dtype(node.attrs.get("out_type") or "int32")
    if node.op in ("Shape", "ShapeN"):
        return np.array(desc.shape, integer)
    if node.op in ("Size", "Rank"):
        return np.array(desc.count if node.op == "Size" else len(desc.shape), integer)
    _check_count(node, desc.count)
    return np.full(desc.shape, node.op == "OnesLike", desc.dtype)


def _check_count(node: TfNode, count: int) -> None:
    if not 0 <= count <= MAX_FOLDED:
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): a constant of {count} elements, expected at most {MAX_FOLDED}"
        )


def _count(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= int(side)
    return total


def _same(function: Folder) -> Folder:
    """The result has the first operand's type."""

    def folded(node: TfNode, *arrays: np.ndarray) -> np.ndarray:
        _check_count(node, np.broadcast(*arrays).size)
        return np.asarray(function(*arrays)).astype(arrays[0].dtype)

    return folded


def _compare(function: Folder) -> Folder:
    def folded(node: TfNode, *arrays: np.ndarray) -> np.ndarray:
        _check_count(node, np.broadcast(*arrays).size)
        return np.asarray(function(*arrays), np.bool_)

    return folded


def _reduce(function: Folder) -> Folder:
    def folded(node: TfNode, array: np.ndarray, axes: np.ndarray) -> np.ndarray:
        where = tuple(int(n) for n in np.atleast_1d(axes))
        return np.asarray(function(array, axis=where, keepdims=bool(node.attrs.get("keep_dims")))).astype(array.dtype)

    return folded


def _fill(node: TfNode, shape: np.ndarray, value: np.ndarray) -> np.ndarray:
    _check_count(node, _count(shape))
    return np.full(tuple(int(n) for n in shape), value, value.dtype)


def _range(node: TfNode, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    if not delta:
        raise ValueError("a step of 0")
    _check_count(node, int(max(0, np.ceil((float(limit) - float(start)) / float(delta)))))
    return np.arange(start, limit, delta).astype(start.dtype)


def _lin_space(node: TfNode, start: np.ndarray, stop: np.ndarray, num: np.ndarray) -> np.ndarray:
    _check_count(node, int(num))
    return np.linspace(start, stop, int(num)).astype(start.dtype)


def _tile(node: TfNode, array: np.ndarray, multiples: np.ndarray) -> np.ndarray:
    _check_count(node, array.size * _count(multiples))
    return np.tile(array, tuple(int(n) for n in multiples))


def _broadcast_to(node: TfNode, array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    _check_count(node, _count(shape))
    return np.broadcast_to(array, tuple(int(n) for n in shape)).copy()


def _squeeze(node: TfNode, array: np.ndarray) -> np.ndarray:
    return np.squeeze(array, tuple(int(n) for n in node.attrs.get("squeeze_dims") or ()) or None)


def _strided_slice(
    node: TfNode, array: np.ndarray, begin: np.ndarray, end: np.ndarray, strides: np.ndarray
) -> np.ndarray:
    plan = plan_slice(node, array.shape, *([int(n) for n in part] for part in (begin, end, strides)))
    picked = (
        array[np.ix_(*(range(o, o + n * s, s) for o, n, s in zip(plan.offsets, plan.sizes, plan.steps)))]
        if array.ndim
        else array
    )
    return picked.reshape(plan.shape)


def _slice(node: TfNode, array: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    return array[tuple(slice(int(b), None if n == -1 else int(b) + int(n)) for b, n in zip(begin, size))]


def _gather(node: TfNode, array: np.ndarray, indices: np.ndarray, axis: int = 0) -> np.ndarray:
    _check_count(node, indices.size * max(array.size, 1))
    return np.take(array, indices, int(axis))


def _divide(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.dtype.kind == "f":
        return left / right
    if not np.all(right):
        raise ZeroDivisionError("integer division by zero")
    return np.trunc(left / right)


def _floor_divide(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.dtype.kind != "f" and not np.all(right):
        raise ZeroDivisionError("integer division by zero")
    return np.floor_divide(left, right)


def _concat_first(node: TfNode, axis: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays, int(axis))


def _split(node: TfNode, *operands: np.ndarray) -> List[np.ndarray]:
    if node.op == "Split":
        return list(np.split(operands[1], int(node.attrs["num_split"]), int(operands[0])))
    array, sizes, axis = operands
    rest = array.shape[int(axis)] - int(sizes[sizes != -1].sum())
    given = np.where(sizes == -1, rest, sizes)
    if (given < 0).any() or given.sum() != array.shape[int(axis)]:
        raise ValueError(f"parts {sizes.tolist()} of shape {array.shape}")
    return list(np.split(array, np.cumsum(given)[:-1].astype(int), int(axis)))


def _select(node: TfNode, condition: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows = node.op == "Select" and condition.ndim == 1 and left.ndim > 1
    return np.where(condition.reshape((-1,) + (1,) * (left.ndim - 1)) if rows else condition, left, right).astype(
        left.dtype
    )


def _diagonal(node: TfNode, array: np.ndarray) -> np.ndarray:
    _check_count(node, array.size * array.shape[-1])
    return array[..., None] * np.eye(array.shape[-1], dtype=array.dtype)


def _matrix_product(node: TfNode, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = (
        part.T if node.attrs.get(key) else part for part, key in ((left, "transpose_a"), (right, "transpose_b"))
    )
    return left @ right


FOLDERS: Dict[str, Folder] = {
    **{
        name: _same(function)
        for name, function in {
            "Add": np.add,
            "AddV2": np.add,
            "Sub": np.subtract,
            "Mul": np.multiply,
            "RealDiv": _divide,
            "Div": _divide,
            "FloorDiv": _floor_divide,
            "FloorMod": lambda x, y: x - _floor_divide(x, y) * y,
            "Maximum": np.maximum,
            "Minimum": np.minimum,
            "Neg": np.negative,
            "Abs": np.abs,
            "Square": np.square,
            "Sqrt": np.sqrt,
            "Floor": np.floor,
            "Ceil": np.ceil,
            "Rsqrt": lambda x: 1 / np.sqrt(x),
            "Exp": np.exp,
            "Log": np.log,
            "ClipByValue": lambda x, low, high: np.minimum(np.maximum(x, low), high),
            "Sign": np.sign,
            "Round": np.round,
            "Rint": np.rint,
            "Pow": np.power,
            "SquaredDifference": lambda x, y: np.square(x - y),
            "Reciprocal": lambda x: 1 / x,
            "Tanh": np.tanh,
            "LogicalAnd": np.logical_and,
            "LogicalOr": np.logical_or,
            "LogicalNot": np.logical_not,
        }.items()
    },
    **{
        name: _compare(function)
        for name, function in {
            "Less": np.less,
            "LessEqual": np.less_equal,
            "Greater": np.greater,
            "GreaterEqual": np.greater_equal,
            "Equal": np.equal,
            "NotEqual": np.not_equal,
        }.items()
    },
    **{
        name: _reduce(function)
        for name, function in {
            "Mean": np.mean,
            "Sum": np.sum,
            "Max": np.max,
            "Min": np.min,
            "Prod": np.prod,
            "All": np.all,
            "Any": np.any,
        }.items()
    },
    "Cast": lambda node, array: array.astype(node.attrs["DstT"]),
    "Fill": _fill,
    "Range": _range,
    "LinSpace": _lin_space,
    "Tile": _tile,
    "BroadcastTo": _broadcast_to,
    "Squeeze": _squeeze,
    "Reshape": lambda node, array, shape: array.reshape(tuple(int(n) for n in shape)),
    "ExpandDims": lambda node, array, axis: np.expand_dims(array, int(axis)),
    "Transpose": lambda node, array, perm: np.ascontiguousarray(array.transpose(tuple(int(n) for n in perm))),
    "Pack": lambda node, *arrays: np.stack(arrays, int(node.attrs.get("axis") or 0)),
    "Unpack": lambda node, array: list(np.moveaxis(array, int(node.attrs.get("axis") or 0), 0)),
    "ConcatV2": lambda node, *arrays: np.concatenate(arrays[:-1], int(arrays[-1])),
    "Concat": _concat_first,
    "Split": _split,
    "SplitV": _split,
    "Select": _select,
    "SelectV2": _select,
    "MatrixDiag": _diagonal,
    "MatMul": _matrix_product,
    "InvertPermutation": lambda node, array: np.argsort(array).astype(array.dtype),
    "BroadcastArgs": lambda node, a, b: np.array(
        np.broadcast(np.empty(tuple(a), np.bool_), np.empty(tuple(b), np.bool_)).shape, a.dtype
    ),
    "ReverseV2": lambda node, array, axes: np.ascontiguousarray(np.flip(array, tuple(int(n) for n in axes))),
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "GatherV2": _gather,
    "Gather": _gather,
}
