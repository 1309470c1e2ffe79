# SPDX-License-Identifier: Apache-2.0
"""How much device memory a graph will take: weights, edges of the model, and the peak of what lives at the same time.

An estimate from shapes alone. Convolutions keep their tensors in blocks of 16 channels (NDC1HWC0, NC1HWC0), so a volume
of 160×192×224 voxels takes 210 MiB per block in fp16 whether one channel of the block is used or all; where a reader
wants the plain layout, a converted copy lives beside it. Fusions of the real compiler save some of this, workspaces and
alignment add to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import numpy as np

from export.preflight.view.graph import GraphView, is_local
from export.preflight.view.shapes import count, data_inputs
from vxm_convert.ascend.limits import CHANNEL_BLOCK, COMFORTABLE_SHARE
from vxm_convert.formats.tf_graph import TfNode

_LAYOUT_KEEPERS = frozenset(
    "LeakyRelu Relu Elu Sigmoid Tanh Square Sqrt Rsqrt Neg Abs Exp Floor Round Cast BiasAdd".split()
)
_CONVOLUTIONS = ("Conv3D", "Conv2D")
_BLOCKED_RANKS = (4, 5)
_HALF = 2
#: bytes beyond which a tensor of a damaged graph is not counted
LARGEST = 1 << 80

#: (tensor, in blocks?, dtype)
Buffer = Tuple[str, bool, str]


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device.

    Parameters
    ----------
    weights, edges, peak : int — constants; inputs and outputs; intermediate tensors at the worst moment.
    peak_node : str — the operator that runs at that moment.
    batch : int or None — first dimension of the inputs.
    unknown : int — tensors whose size is unknown: the estimate is a lower bound by these.
    """

    weights: int
    edges: int
    peak: int
    peak_node: str
    batch: Optional[int]
    unknown: int

    @property
    def total(self) -> int:
        return self.weights + self.edges + self.peak

    def largest_batch(self, memory: int) -> Optional[int]:
        """The largest batch that should fit comfortably, None where sizes are unknown; 0 if not even one does."""
        if not self.batch or self.unknown or not self.edges + self.peak:
            return None
        per_pair = -(-(self.edges + self.peak) // self.batch)
        return max(int(memory * COMFORTABLE_SHARE) - self.weights, 0) // per_pair


def estimate_memory(view: GraphView, dtypes: Dict[str, Tuple[str, str]]) -> MemoryEstimate:
    """Walk the nodes in execution order; `dtypes` as `float_dtypes` gives them."""
    plan = lay_out(view, dtypes)
    peak, where = plan.peak()
    inputs = [node.name + ":0" for node in view.nodes if node.op == "Placeholder"]
    edges = sum(min(view.nbytes(name) or 0, LARGEST) for name in inputs + list(view.outputs))
    firsts = {shape[0] for shape in (view.shape(name) for name in inputs) if shape}
    return MemoryEstimate(
        _weights(view, dtypes), edges, peak, where, firsts.pop() if len(firsts) == 1 else None, plan.unknown
    )


def blocked_bytes(shape: Tuple[int, ...], itemsize: int) -> int:
    """Bytes of a volume (…, C) in 16-channel blocks."""
    return count(shape[:-1]) * -(-shape[-1] // CHANNEL_BLOCK) * CHANNEL_BLOCK * itemsize


def _weights(view: GraphView, dtypes: Dict[str, Tuple[str, str]]) -> int:
    """Constants that operators read at run time; filters as the cube unit stores them: fp16, channels in full
    blocks.
    """
    total = 0
    seen = set()
    for node in view.nodes:
        for position, tensor in enumerate(data_inputs(node) if node.name not in view.folded else ()):
            source = tensor.rpartition(":")[0]
            if source not in view.folded or tensor in seen:
                continue
            seen.add(tensor)
            shape = view.shape(tensor)
            if node.op in _CONVOLUTIONS and position == 1 and shape and len(shape) in _BLOCKED_RANKS:
                padded = [-(-n // CHANNEL_BLOCK) * CHANNEL_BLOCK for n in shape[-2:]]
                total += count(list(shape[:-2]) + padded) * _HALF
            else:
                total += view.nbytes(tensor) or 0
    return total


def lay_out(view: GraphView, dtypes: Dict[str, Tuple[str, str]]) -> Buffers:
    """Every buffer of the graph, in execution order."""
    plan = Buffers(view, dtypes)
    for step, node in enumerate(view.nodes):
        plan.run(step, node)
    return plan


class Buffers:
    """Buffers with their first and last step, which node reads and makes them, and the copies between layouts and
    dtypes.
    """

    def __init__(self, view: GraphView, dtypes: Dict[str, Tuple[str, str]]) -> None:
        self.view, self.dtypes = view, dtypes
        self.alias: Dict[str, str] = {}
        self.sizes: Dict[Buffer, int] = {}
        self.life: Dict[Buffer, List[int]] = {}
        #: how the producer of a tensor left it
        self.made: Dict[str, Buffer] = {}
        #: step → buffers that its node reads; (step that needs it, buffer, converted copy of it)
        self.reads: Dict[int, List[Buffer]] = {}
        self.conversions: List[Tuple[int, Buffer, Buffer]] = []
        self.unknown = 0
        self.used = {tensor for node in view.nodes for tensor in data_inputs(node)} | set(view.outputs)

    def run(self, step: int, node: TfNode) -> None:
        if node.name in self.view.folded:
            return
        if node.op == "Placeholder":
            # Inputs are buffers of the caller; only converted copies of them are ours.
            self.made[node.name + ":0"] = (node.name + ":0", False, self.view.dtypes[node.name])
            return
        sources = [
            self.alias.get(name, name) for name in data_inputs(node) if name.rpartition(":")[0] not in self.view.folded
        ]
        wants = self._wants_blocks(node, sources)
        if is_local(node) and sources and node.op not in ("Merge", "Switch"):
            self._read(sources[0], (wants, self._made_dtype(sources[0])), step)
            self.alias[node.name + ":0"] = sources[0]
            return
        for source in sources:
            is_float = self._made_dtype(source).startswith("float") and node.name in self.dtypes
            self._read(source, (wants, self.dtypes[node.name][0] if is_float else self._made_dtype(source)), step)
        for index in range(self._count(node)):
            tensor = f"{node.name}:{index}"
            self.made[tensor] = (tensor, wants, self._dtype(node.name))
            self._use(self.made[tensor], step)

    def peak(self) -> Tuple[int, str]:
        """(bytes, node) of the worst step."""
        change: Dict[int, int] = {}
        for key, (first, last) in self.life.items():
            change[first] = change.get(first, 0) + self.sizes[key]
            change[last + 1] = change.get(last + 1, 0) - self.sizes[key]
        live, best, where = 0, 0, ""
        for step in sorted(change):
            live += change[step]
            if live > best:
                best, where = live, self.view.nodes[step].name
        return best, where

    def _count(self, node: TfNode) -> int:
        index = 1
        while f"{node.name}:{index}" in self.view.shapes:
            index += 1
        return index

    def _dtype(self, node: str) -> str:
        own = self.view.dtypes[node]
        return self.dtypes[node][1] if own.startswith("float") and node in self.dtypes else own

    def _made_dtype(self, tensor: str) -> str:
        return self.made[tensor][2] if tensor in self.made else self.view.dtype_of(tensor)

    def _wants_blocks(self, node: TfNode, sources: List[str]) -> bool:
        in_blocks = [source in self.made and self.made[source][1] for source in sources]
        if node.op in _CONVOLUTIONS:
            return True
        if node.op in _LAYOUT_KEEPERS:
            return bool(in_blocks) and in_blocks[0]
        if node.op == "ConcatV2" and any(in_blocks):
            found, out = [self.view.shape(source) for source in sources], self.view.shape(node.name + ":0")
            shapes = [shape for shape in found if shape is not None and len(shape) in _BLOCKED_RANKS]
            if out is None or len(shapes) < len(found):
                return False
            # Joining whole blocks is a plain copy; anything else goes through the plain layout.
            channels = [shape[-1] for shape in shapes]
            return out[-1] == sum(channels) and all(count % CHANNEL_BLOCK == 0 for count in channels)
        return False

    def _read(self, source: str, wanted: Tuple[bool, str], step: int) -> None:
        """The buffer lives until `step`; a reader that wants another layout or dtype has a converted copy made."""
        held = self.made.get(source)
        if held is None:
            return
        if held in self.life:
            self.life[held][1] = step
        shape = self.view.shape(source)
        copy = (source, wanted[0] and shape is not None and len(shape) in _BLOCKED_RANKS, wanted[1])
        self.reads.setdefault(step, []).append(copy)
        if copy != held:
            if copy not in self.life:
                self.conversions.append((step, held, copy))
            self._use(copy, step)

    def _use(self, buffer: Buffer, step: int) -> None:
        if buffer in self.life:
            self.life[buffer][1] = step
            return
        size = self.size(buffer)
        if size is None:
            self.unknown += buffer[0] in self.used
            return
        self.sizes[buffer] = size
        self.life[buffer] = [step, step]

    def size(self, buffer: Buffer) -> Optional[int]:
        """Bytes, None for an unknown shape."""
        tensor, in_blocks, dtype = buffer
        shape = self.view.shape(tensor)
        if shape is None:
            return None
        size = (
            blocked_bytes(shape, itemsize_of(dtype))
            if in_blocks and len(shape) in _BLOCKED_RANKS
            else count(shape) * itemsize_of(dtype)
        )
        return min(size, LARGEST)


def itemsize_of(dtype: str) -> int:
    """Bytes of an element; 4 for a type that NumPy does not know."""
    try:
        return int(np.dtype(dtype).itemsize)
    except TypeError:
        return 4
