# SPDX-License-Identifier: Apache-2.0
"""What a set of decisions costs, in bytes moved: casts at the borders of the fp32 region, fp32 work, and second
convolutions.

An estimate from the graph alone, by the rules that preflight has for dtypes; a device measures. It orders candidates,
no more.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterator, Optional, Set, Tuple

from export.preflight.view.dtypes import FLOATS, float_dtypes, lacks_single
from export.preflight.view.graph import GraphView
from export.preflight.view.shapes import count, data_inputs
from export.tune.trials import Atoms
from vxm_convert.ascend.operators import OPS
from vxm_convert.formats.tf_graph import TfNode

#: prefix of an atom that splits a layer's weights, and of one that makes a convolution return fp32; every other atom
#: is a node that keeps fp32
SPLIT, RESULT = "split:", "result:"
_HALF_BYTES, _SINGLE_BYTES = 2, 4
#: fp16 FLOP per byte at which a 910's cube unit and its memory are in balance: 256 TFLOP/s (published peak) over 1.2
#: TB/s
_FLOP_PER_BYTE = 213
#: a layer with unknown shape must not look free
_UNKNOWN_BYTES = 1 << 30


def keep_of(atoms: Atoms) -> Tuple[str, ...]:
    """Node names for ``--keep_dtype``, sorted."""
    return tuple(sorted(atom for atom in atoms if not atom.startswith((SPLIT, RESULT))))


def splits_of(atoms: Atoms) -> Tuple[str, ...]:
    """Layers whose weights are split, sorted."""
    return tuple(sorted(atom[len(SPLIT) :] for atom in atoms if atom.startswith(SPLIT)))


def results_of(atoms: Atoms) -> Tuple[str, ...]:
    """Convolutions that return fp32, sorted."""
    return tuple(sorted(atom[len(RESULT) :] for atom in atoms if atom.startswith(RESULT)))


def words_of(decision: str) -> str:
    """A decision for a reader."""
    for prefix, words in ((SPLIT, "split weights of "), (RESULT, "fp32 result of ")):
        if decision.startswith(prefix):
            return words + decision[len(prefix) :]
    return decision


class GraphCost:
    """Callable: atoms → bytes, beyond what the same mode costs without any decision.

    Parameters
    ----------
    view : GraphView — the network without split weights.
    mode : str — ``--precision_mode``.
    single_conv : bool — the chip has fp32 convolutions, which can be kept like any other node.
    """

    def __init__(self, view: GraphView, mode: str, single_conv: bool = False) -> None:
        self._view = view
        self._mode = mode
        self._single_conv = single_conv
        self._nodes = {node.name: node for node in view.nodes}
        self._plain = self._dtypes(frozenset(), frozenset())
        self._casts = self._cast_bytes(self._plain)

    def __call__(self, atoms: Atoms) -> float:
        keep, results = frozenset(keep_of(atoms)), frozenset(results_of(atoms))
        named = keep | results
        chosen = self._dtypes(keep, results) if named else self._plain
        casts = max(0, self._cast_bytes(chosen) - self._casts) if named else 0
        return casts + self._work_bytes(chosen, named) + sum(self._split_bytes(layer) for layer in splits_of(atoms))

    def decision(self, name: str) -> Optional[str]:
        """The atom by which this node gets more fp32: that it keeps its type, or for an operator without an fp32
        kernel its result; None if that changes nothing.
        """
        if name not in self._plain:
            return None
        one = frozenset((name,))
        cube = lacks_single(OPS[self._nodes[name].op]) and not self._single_conv
        chosen = self._dtypes(frozenset(), one) if cube else self._dtypes(one, frozenset())
        return None if chosen[name] == self._plain[name] else RESULT + name if cube else name

    def _dtypes(self, keep: FrozenSet[str], results: FrozenSet[str]) -> Dict[str, Tuple[str, str]]:
        return float_dtypes(self._view, self._mode, keep, results, self._single_conv)

    def _elements(self, tensor: str) -> Optional[int]:
        shape = self._view.shape(tensor)
        return None if shape is None else count(shape)

    def _bytes(self, tensor: str, per_element: int) -> int:
        elements = self._elements(tensor)
        return _UNKNOWN_BYTES if elements is None else elements * per_element

    def _cast_bytes(self, chosen: Dict[str, Tuple[str, str]]) -> int:
        """One cast per tensor and wanted type, read in one type and written in the other; constants are stored as
        wanted.
        """
        casts: Set[Tuple[str, str]] = set()
        for name, (into, _) in chosen.items():
            for tensor in self._float_inputs(self._nodes[name]):
                source = tensor.rpartition(":")[0]
                if source in chosen and chosen[source][1] != into:
                    casts.add((tensor, into))
        for tensor in self._view.outputs:
            source = tensor.rpartition(":")[0]
            if source in chosen and chosen[source][1] == "float16" and self._view.dtypes[source] == "float32":
                casts.add((tensor, "float32"))
        return sum(self._bytes(tensor, _HALF_BYTES + _SINGLE_BYTES) for tensor, _ in casts)

    def _float_inputs(self, node: TfNode) -> Iterator[str]:
        return (tensor for tensor in data_inputs(node) if self._view.dtype_of(tensor) in FLOATS)

    def _work_bytes(self, chosen: Dict[str, Tuple[str, str]], keep: FrozenSet[str]) -> int:
        """Two bytes more for every element that a named operator reads or writes in fp32; a convolution writes only."""
        total = 0
        for name in keep & set(chosen):
            node = self._nodes[name]
            (into, out), (plain_into, plain_out) = chosen[name], self._plain[name]
            # Whatever it is kept for: no kept node is free.
            total += _HALF_BYTES
            if out != plain_out:
                total += self._bytes(name + ":0", _HALF_BYTES)
            if into != plain_into:
                total += sum(self._bytes(tensor, _HALF_BYTES) for tensor in self._float_inputs(node))
        return total

    def _split_bytes(self, layer: str) -> float:
        """A second convolution of the same input: its traffic, its sum with the first, its FLOP at the chip's
        balance.
        """
        conv = self._nodes.get(layer + "/Conv3D")
        if conv is None:
            return _UNKNOWN_BYTES
        source, kernel = data_inputs(conv)[:2]
        shape, out = self._view.shape(kernel), self._elements(conv.name + ":0")
        if shape is None or out is None:
            return _UNKNOWN_BYTES
        flop = 2 * out * count(shape[:-1])
        return self._bytes(source, _HALF_BYTES) + 4 * out * _HALF_BYTES + flop / _FLOP_PER_BYTE
