# SPDX-License-Identifier: Apache-2.0
"""What each kernel of a graph has to do: products, bytes, gathered rows, parts, elements on the AI CPU. Counts, no
seconds.

Counts of what belongs to the batch grow with it, weights and other constants do not: `scale` is the batch in question
over that of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

from export.preflight.estimate.kernel_counts import (
    BACKWARD,
    FORWARD,
    GATHERS,
    PARTED,
    PRODUCTS,
    cube_counts,
    gather_counts,
    results,
    wasted_bytes,
)
from export.preflight.estimate.loops import Loops, find_loops
from export.preflight.view.graph import GraphView, is_local
from export.preflight.view.memory import LARGEST, Buffer, Buffers, lay_out
from export.preflight.view.shapes import count, data_inputs
from vxm_convert.ascend.operators import AICPU, OPS
from vxm_convert.formats.tf_graph import TfNode

CONVOLUTION, MATRIX, VECTOR, LAYOUT, CAST, GATHER, MOVE, CPU, CONTROL, COPY = (
    "convolution",
    "matrix product",
    "vector",
    "layout",
    "cast",
    "gather",
    "move",
    "AI CPU",
    "control flow",
    "host copy",
)
_MOVES = PARTED | frozenset(
    "Transpose Tile StridedSlice Slice Pad PadV2 BroadcastTo ReverseV2 SpaceToBatchND BatchToSpaceND "
    "SpaceToBatch BatchToSpace DepthToSpace SpaceToDepth Fill".split()
)
_CALLS = frozenset(
    "While StatelessWhile If StatelessIf Case StatelessCase PartitionedCall StatefulPartitionedCall".split()
)
_LOOP_OPS = frozenset(
    "Enter RefEnter Exit RefExit NextIteration RefNextIteration LoopCond Merge RefMerge Switch RefSwitch".split()
)


@dataclass(frozen=True)
class Work:
    """One kernel.

    Parameters
    ----------
    name, op, kind : str — node it belongs to, its type, and one of the kinds above.
    positions, products : int, int — output positions of a cube operator, and padded products per position.
    nbytes, constant : int — bytes read and written that grow with the batch; bytes of constants.
    vector : int — bytes that the vector units take.
    rows, row_bytes, row_cycles : int — gathered rows, bytes of each, cycles for each.
    parts : int — pieces of a Split, ConcatV2, Pack or Unpack.
    cpu_elements : int — elements that the AI CPU computes; 0 where it copies.
    link : int — bytes over the host link.
    steps : int — how often it runs; `per_pair`: because the loop is over the batch, so that the steps grow and not the
        work.
    unknown : bool — a shape is not known: the counts are a lower bound.
    """

    name: str
    op: str
    kind: str
    positions: int = 0
    products: int = 0
    nbytes: int = 0
    constant: int = 0
    vector: int = 0
    rows: int = 0
    row_bytes: int = 0
    row_cycles: int = 0
    parts: int = 1
    cpu_elements: int = 0
    link: int = 0
    steps: int = 1
    per_pair: bool = False
    unknown: bool = False


def list_work(
    view: GraphView, dtypes: Dict[str, Tuple[str, str]], batch: Optional[int], resident: Tuple[str, ...]
) -> Tuple[List[Work], Loops]:
    """Every kernel, conversion and host copy of one run, in execution order.

    Parameters
    ----------
    dtypes : dict — as `float_dtypes` gives them.
    batch : int or None — first side of the inputs; a loop of as many steps is one over the batch.
    resident : tuple of str — inputs that stay on the device between runs.
    """
    listing = _Listing(view, dtypes, batch)
    return [*listing.inputs(resident), *listing.kernels(), *listing.outputs()], listing.loops


class _Listing:
    def __init__(self, view: GraphView, dtypes: Dict[str, Tuple[str, str]], batch: Optional[int]) -> None:
        self.view, self.dtypes, self.batch = view, dtypes, batch
        self.loops = find_loops(view)
        self.buffers: Buffers = lay_out(view, dtypes)
        self.readers: Dict[str, int] = {}
        for tensor in [name for node in view.nodes for name in data_inputs(node)] + list(view.outputs):
            self.readers[tensor] = self.readers.get(tensor, 0) + 1
        self.nodes = {node.name: node for node in view.nodes}

    def inputs(self, resident: Tuple[str, ...]) -> Iterator[Work]:
        for node in self.view.nodes:
            if node.op == "Placeholder" and node.name not in resident:
                size = self.view.nbytes(node.name + ":0")
                yield Work(node.name, "copy to the device", COPY, link=min(size or 0, LARGEST), unknown=size is None)

    def outputs(self) -> Iterator[Work]:
        for tensor in self.view.outputs:
            size, source = self.view.nbytes(tensor), self.buffers.alias.get(tensor, tensor)
            node, held = self.nodes.get(tensor.rpartition(":")[0]), self.buffers.made.get(source)
            edge = (source, False, self.view.dtype_of(tensor))
            if (
                node is not None
                and held is not None
                and edge not in self.buffers.life
                and source.rpartition(":")[0] in self.dtypes
            ):
                yield from self._conversion(node, held, edge)
            yield Work(
                tensor.rpartition(":")[0], "copy to the host", COPY, link=min(size or 0, LARGEST), unknown=size is None
            )

    def kernels(self) -> Iterator[Work]:
        waiting: Dict[int, List[Tuple[Buffer, Buffer]]] = {}
        for step, held, copy in self.buffers.conversions:
            waiting.setdefault(step, []).append((held, copy))
        for step, node in enumerate(self.view.nodes):
            for held, copy in waiting.get(step, ()):
                yield from self._conversion(node, held, copy)
            if node.name not in self.view.folded and node.op != "Placeholder":
                work = self._kernel(step, node)
                if work is not None:
                    yield work

    def _conversion(self, node: TfNode, held: Buffer, copy: Buffer) -> Iterator[Work]:
        """As the compiler inserts them: a cast in the layout that is there, then the layout."""
        between = (held[0], held[1], copy[2])
        for name, kind, source, target in (("Cast", CAST, held, between), ("TransData", LAYOUT, between, copy)):
            if source != target:
                sizes = [self.buffers.size(source), self.buffers.size(target)]
                yield self._placed(
                    node,
                    f"{name} of {held[0]}",
                    kind,
                    nbytes=sum(size or 0 for size in sizes),
                    unknown=None in sizes,
                    vector=max(size or 0 for size in sizes),
                )

    def _kernel(self, step: int, node: TfNode) -> Optional[Work]:
        if node.op in _LOOP_OPS:
            return self._placed(node, node.op, CONTROL)
        if node.op in _CALLS:
            # What the function does is not looked into.
            return self._placed(node, node.op, CONTROL, unknown=True)
        row = OPS.get(node.op)
        if is_local(node) or self._is_fused_bias(node):
            return None
        sizes = [self.buffers.size(buffer) for buffer in self.buffers.reads.get(step, [])]
        made = [
            self.buffers.size(self.buffers.made[name]) for name in results(self.view, node) if name in self.buffers.made
        ]
        unknown = None in sizes or None in made or not made
        moved = sum(size or 0 for size in sizes + made)
        constant = sum(
            self.view.nbytes(name) or 0 for name in data_inputs(node) if name.rpartition(":")[0] in self.view.folded
        )
        common = dict(nbytes=moved, constant=constant, unknown=unknown)
        if row is not None and row.engine == AICPU:
            copies = node.op.startswith("TensorArray")
            return self._placed(node, node.op, CPU, cpu_elements=0 if copies else self._elements(node), **common)
        if row is not None and row.cube:
            counts = cube_counts(self.view, node)
            common["unknown"] = unknown or not counts["products"]
            return self._placed(node, node.op, MATRIX if node.op in PRODUCTS else CONVOLUTION, **counts, **common)
        if node.op in GATHERS:
            return self._placed(node, node.op, GATHER, **gather_counts(self.view, node, sizes, common))
        if node.op in _MOVES:
            held = self.buffers.made.get(node.name + ":0")
            waste = 0 if held is None or held[1] else wasted_bytes(self.view, self.nodes, node, held[2])
            parts = max(len(data_inputs(node)), len(results(self.view, node))) if node.op in PARTED else 1
            return self._placed(node, node.op, MOVE, parts=parts, vector=moved, **{**common, "nbytes": moved + waste})
        return self._placed(node, node.op, CAST if node.op == "Cast" else VECTOR, vector=moved, **common)

    def _placed(self, node: TfNode, op: str, kind: str, **counts: float) -> Work:
        steps = self.loops.steps.get(node.name, 1)
        per_pair = node.name in self.loops.steps and steps == self.batch
        # Absurd shapes of damaged graphs must not become numbers that no float holds.
        sane: Dict[str, Any] = {
            key: value if isinstance(value, bool) else min(max(0, int(value)), LARGEST) for key, value in counts.items()
        }
        return Work(node.name, op, kind, steps=steps, per_pair=per_pair, **sane)

    def _is_fused_bias(self, node: TfNode) -> bool:
        """A bias on the only use of a convolution's result."""
        names = data_inputs(node)
        source = self.nodes.get(names[0].rpartition(":")[0]) if names else None
        return (
            node.op == "BiasAdd"
            and source is not None
            and source.op in FORWARD | BACKWARD
            and self.readers[names[0]] == 1
        )

    def _elements(self, node: TfNode) -> int:
        shapes = [self.view.shape(name) for name in data_inputs(node) + results(self.view, node)]
        return max((count(shape) for shape in shapes if shape is not None), default=0)
