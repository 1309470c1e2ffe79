# SPDX-License-Identifier: Apache-2.0
"""Nodes that move blocks of an image, reverse axes, sort, or add along an axis."""

from __future__ import annotations

from typing import Callable, Dict

from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode
from vxm_convert.sim.frontends.tensorflow.import_state import Importer, axis_of
from vxm_convert.sim.refusal import AtcRefusal


def _space_batch(importer: Importer, node: TfNode) -> None:
    """SpaceToBatchND and BatchToSpaceND, which TensorFlow writes around a convolution with dilation; and their 2-D
    predecessors.
    """
    source = importer.desc(node.inputs[0])
    if node.op in ("SpaceToBatch", "BatchToSpace"):
        block, edges = [int(node.attrs["block_size"])] * 2, importer.ints_of(node, 1)
    else:
        block, edges = importer.ints(node, 1), importer.ints_of(node, 2)
    count, sides = 1, list(source.shape)
    if (
        len(block) >= len(sides)
        or len(edges) != 2 * len(block)
        or any(n < 1 for n in block)
        or any(n < 0 for n in edges)
    ):
        raise AtcRefusal(
            "E20001", f"{node.name} ({node.op}): blocks {block} and edges {edges} for shape {source.shape}"
        )
    for axis, side in enumerate(block, 1):
        count *= side
        before, after = edges[2 * axis - 2], edges[2 * axis - 1]
        if node.op.startswith("Space"):
            if (sides[axis] + before + after) % side:
                raise AtcRefusal(
                    "E20001",
                    f"{node.name} ({node.op}): axis {axis} of {source.shape} with its edges: not a multiple of {side}",
                )
            sides[axis] = (sides[axis] + before + after) // side
        else:
            sides[axis] = sides[axis] * side - before - after
    if node.op.startswith("Batch") and sides[0] % count:
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): a batch of {sides[0]} is not a multiple of {count}")
    sides[0] = sides[0] * count if node.op.startswith("Space") else sides[0] // count
    importer.add(
        node, OPS[node.op].ge_type, node.inputs[:1], [(source.dtype, tuple(sides))], block_shape=block, edges=edges
    )


def _depth_space(importer: Importer, node: TfNode) -> None:
    source, block = importer.desc(node.inputs[0]), int(node.attrs["block_size"])
    if len(source.shape) != 4 or (node.attrs.get("data_format") or "NHWC") != "NHWC" or block < 1:
        raise AtcRefusal(
            "E20001",
            f"{node.name} ({node.op}): takes NHWC images, got {source.shape} in {node.attrs.get('data_format')}",
        )
    n, height, width, channels = source.shape
    deep = node.op == "SpaceToDepth"
    if (height % block or width % block) if deep else channels % (block * block):
        raise AtcRefusal("E20001", f"{node.name} ({node.op}): blocks of {block} do not fit {source.shape}")
    shape = (n, height * block, width * block, channels // block**2)
    if deep:
        shape = (n, height // block, width // block, channels * block**2)
    importer.add(node, node.op, node.inputs[:1], [(source.dtype, shape)], block_size=block)


def _reverse(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axes = sorted({axis_of(node, axis, len(source.shape)) for axis in importer.ints(node, 1)})
    importer.add(node, "ReverseV2D", node.inputs[:1], [(source.dtype, source.shape)], source.layout, axis=axes)


def _top(importer: Importer, node: TfNode) -> None:
    """Largest values of the last axis, largest first, and their indices; the first of equal ones."""
    source, count = importer.desc(node.inputs[0]), int(importer.const(node, 1))
    if not source.shape or not 0 < count <= source.shape[-1]:
        raise AtcRefusal("E20001", f"{node.name}: the {count} largest of shape {source.shape}")
    shape = source.shape[:-1] + (count,)
    importer.add(node, "TopKV2D", node.inputs[:1], [(source.dtype, shape), ("int32", shape)], k=count)


def _cumsum(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    axis = axis_of(node, int(importer.const(node, 1)), len(source.shape))
    exclusive, reverse = bool(node.attrs.get("exclusive")), bool(node.attrs.get("reverse"))
    importer.add(
        node,
        "CumsumD",
        node.inputs[:1],
        [(source.dtype, source.shape)],
        axis=axis,
        exclusive=exclusive,
        reverse=reverse,
    )


def _local_response(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    if len(source.shape) != 4:
        raise AtcRefusal("E20001", f"{node.name} (LRN): takes NHWC images, got {source.shape}")
    # An attribute with its default value may be missing in the file.
    given = {"depth_radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5}
    given.update({key: node.attrs[key] for key in given if node.attrs.get(key) is not None})
    importer.add(node, "LRN", node.inputs[:1], [(source.dtype, source.shape)], source.layout, **given)


def _half_square(importer: Importer, node: TfNode) -> None:
    source = importer.desc(node.inputs[0])
    importer.add(node, "L2Loss", node.inputs[:1], [(source.dtype, ())], "ND")


HANDLERS: Dict[str, Callable[[Importer, TfNode], None]] = {
    **{name: _space_batch for name in "SpaceToBatchND BatchToSpaceND SpaceToBatch BatchToSpace".split()},
    "DepthToSpace": _depth_space,
    "SpaceToDepth": _depth_space,
    "ReverseV2": _reverse,
    "TopKV2": _top,
    "Cumsum": _cumsum,
    "LRN": _local_response,
    "L2Loss": _half_square,
}
