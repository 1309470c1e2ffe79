# SPDX-License-Identifier: Apache-2.0
"""Nodes that join, split, repeat, pad or rearrange tensors."""

from __future__ import annotations

from typing import Callable, Dict, Sequence

import numpy as np

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, axis_of, broadcast
from vxm_convert.sim.refusal import AtcRefusal


def _concat(importer: Importer, node: TfNode) -> None:
    """ConcatV2 has its axis last, Concat first."""
    names = [name for name in node.inputs if not name.startswith("^")]
    where = 0 if node.op == "Concat" else len(names) - 1
    direction = int(importer.const(node, where))
    names = names[1:] + names[:1] if where == 0 else names
    parts = [importer.desc(name) for name in names[:-1]]
    axis = axis_of(node, direction, len(parts[0].shape))
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    importer.add(
        node,
        OPS[node.op].ge_type,
        names[:-1],
        [(parts[0].dtype, tuple(shape))],
        parts[0].layout,
        concat_dim=axis,
        N=len(parts),
    )


def _reshape(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    shape = importer.ints(node, 1)
    known = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
    _add_reshape(importer, node, [source.count // max(known, 1) if n == -1 else n for n in shape])


def _add_reshape(importer: Importer, node: TfNode, shape: Sequence[int]) -> None:
    source = importer.desc(node.inputs[0])
    if int(np.prod(shape, dtype=np.int64)) != source.count:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): {source.shape} cannot become {tuple(shape)}")
    importer.add(node, "Reshape", node.inputs[:1], [(source.dtype, tuple(shape))], shape=[int(n) for n in shape])


def _squeeze(importer: Importer, node: TfNode) -> None:
    shape = importer.desc(node.inputs[0]).shape
    axes = [axis_of(node, a, len(shape)) for a in node.attrs.get("squeeze_dims") or ()] or [
        i for i, n in enumerate(shape) if n == 1
    ]
    _add_reshape(importer, node, [n for i, n in enumerate(shape) if i not in axes])


def _expand_dims(importer: Importer, node: TfNode) -> None:
    shape = list(importer.desc(node.inputs[0]).shape)
    shape.insert(axis_of(node, int(importer.const(node, 1)), len(shape) + 1), 1)
    _add_reshape(importer, node, shape)


def _transpose(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    perm = importer.ints(node, 1)
    importer.add(node, "TransposeD", node.inputs[:1], [(source.dtype, tuple(source.shape[p] for p in perm))], perm=perm)


def _unpack(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axis, count = axis_of(node, node.attrs.get("axis") or 0, len(source.shape)), int(node.attrs["num"])
    shape = source.shape[:axis] + source.shape[axis + 1 :]
    importer.add(node, "Unpack", node.inputs[:1], [(source.dtype, shape)] * count, axis=axis, num=count)


def _pack(importer: Importer, node: TfNode) -> None:
    names = [name for name in node.inputs if not name.startswith("^")]
    source = importer.desc(names[0])
    axis = axis_of(node, node.attrs.get("axis") or 0, len(source.shape) + 1)
    shape = source.shape[:axis] + (len(names),) + source.shape[axis:]
    importer.add(node, "Pack", names, [(source.dtype, shape)], axis=axis, N=len(names))


def _split(importer: Importer, node: TfNode) -> None:
    """Split(axis, x) into equal parts; SplitV(x, sizes, axis) into parts of given sizes, one of which may be -1."""
    position = 1 if node.op == "Split" else 0
    source = importer.desc(node.inputs[position])
    axis = axis_of(node, int(importer.const(node, 0 if node.op == "Split" else 2)), len(source.shape))
    side = source.shape[axis]
    if node.op == "Split":
        count = int(node.attrs["num_split"])
        sizes = [side // max(count, 1)] * count
    else:
        given = importer.ints(node, 1)
        sizes = [side - sum(n for n in given if n != -1) if n == -1 else n for n in given]
    if sum(sizes) != side:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): parts {sizes} do not add up to side {side}")
    parts = [(source.dtype, source.shape[:axis] + (n,) + source.shape[axis + 1 :]) for n in sizes]
    importer.add(
        node,
        OPS[node.op].ge_type,
        [node.inputs[position]],
        parts,
        source.layout,
        split_dim=axis,
        num_split=len(sizes),
        size_splits=sizes,
    )


def _tile(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    multiples = importer.ints(node, 1)
    importer.add(
        node,
        "TileD",
        node.inputs[:1],
        [(source.dtype, tuple(n * m for n, m in zip(source.shape, multiples)))],
        multiples=multiples,
    )


def _broadcast_to(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    shape = tuple(importer.ints(node, 1))
    if broadcast(node, source.shape, shape) != shape:
        raise AtcRefusal("E20001", f"{node.name}: {source.shape} does not broadcast to {shape}")
    importer.add(node, "BroadcastToD", node.inputs[:1], [(source.dtype, shape)], shape=list(shape))


def _pad(importer: Importer, node: TfNode) -> None:
    """Pad, PadV2 (with a value) and MirrorPad (REFLECT without the edge, SYMMETRIC with it)."""
    source = importer.desc(node.inputs[0])
    widths = importer.const(node, 1).reshape(-1, 2).astype(np.int64)
    if len(widths) != len(source.shape) or (widths < 0).any():
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): paddings {widths.tolist()} do not fit shape {source.shape}"
        )
    shape = tuple(n + int(a) + int(b) for n, (a, b) in zip(source.shape, widths))
    attrs: Dict[str, object] = {"paddings": [int(n) for n in widths.reshape(-1)]}
    if node.op == "PadV2":
        attrs["constant_values"] = float(importer.const(node, 2, ours=True))
    if node.op == "MirrorPad":
        attrs["mode"] = node.attrs.get("mode", "REFLECT")
        if any(max(a, b) > n - (attrs["mode"] == "REFLECT") for n, (a, b) in zip(source.shape, widths)):
            raise AtcRefusal("E20001", f"{node.name}: mirrored paddings {widths.tolist()} exceed shape {source.shape}")
    importer.add(node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, shape)], source.layout, **attrs)


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    "ConcatV2": _concat,
    "Concat": _concat,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "Transpose": _transpose,
    "Unpack": _unpack,
    "Pack": _pack,
    "Split": _split,
    "SplitV": _split,
    "Tile": _tile,
    "BroadcastTo": _broadcast_to,
    "Pad": _pad,
    "PadV2": _pad,
    "MirrorPad": _pad,
}
