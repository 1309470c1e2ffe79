# SPDX-License-Identifier: Apache-2.0
"""Reductions, softmax, arg-max, matrix products."""

from __future__ import annotations

from typing import Any, Callable, Dict

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, axis_of, broadcast
from vxm_convert.sim.refusal import AtcRefusal


def _reduce(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axes = sorted({axis_of(node, n, len(source.shape)) for n in importer.ints(node, 1)})
    keep = bool(node.attrs.get("keep_dims"))
    shape = tuple(1 if i in axes else n for i, n in enumerate(source.shape) if keep or i not in axes)
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, shape)], axes=axes, keep_dims=keep)


def _softmax(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, source.shape)], source.layout, axes=[-1])


def _arg(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axis = axis_of(node, int(importer.const(node, 1)), len(source.shape))
    shape = source.shape[:axis] + source.shape[axis + 1 :]
    importer.add(
        node, OPS[node.op].ge_type, node.inputs[:1], [(node.attrs.get("output_type") or "int64", shape)], dimension=axis
    )


def _matmul(importer: Importer, node: TfNode) -> None:
    left, right = importer.desc(node.inputs[0]), importer.desc(node.inputs[1])
    keys = ("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y")
    turned = [bool(node.attrs.get(key)) for key in keys]
    shapes = [d.shape[:-2] + (d.shape[:-3:-1] if turn else d.shape[-2:]) for d, turn in zip((left, right), turned)]
    if min(len(left.shape), len(right.shape)) < 2 or shapes[0][-1] != shapes[1][-2]:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): {left.shape} times {right.shape}, transposed {turned}")
    shape = broadcast(node, shapes[0][:-2], shapes[1][:-2]) + (shapes[0][-2], shapes[1][-1])
    names = ("transpose_x1", "transpose_x2") if node.op == "MatMul" else ("adj_x1", "adj_x2")
    attrs: Dict[str, Any] = dict(zip(names, turned))
    importer.add(node, OPS[node.op].ge_type, node.inputs[:2], [(left.dtype, shape)], **attrs)


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    **{name: _reduce for name in "Mean Sum Max Min Prod All Any".split()},
    **{name: _softmax for name in "Softmax LogSoftmax".split()},
    **{name: _matmul for name in "MatMul BatchMatMul BatchMatMulV2".split()},
    "ArgMax": _arg,
    "ArgMin": _arg,
}
