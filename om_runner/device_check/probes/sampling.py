# SPDX-License-Identifier: Apache-2.0
"""Probes of the warp alone, in fp32 and fp16, and of GatherV2 on many rows."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from om_runner.device_check.probes import arithmetic as ar
from om_runner.device_check.probes.probe import BALANCED, FAST, Part, Probe
from vxm_convert.formats.tf_graph_writer import GraphWriter

_SEED = 21
_SIDES = (6, 20, 140)
#: fp32 products and sums may be fused in pairs
_SINGLE_TOLERANCE = 2e-6
_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int32)
#: values of the gathered table: whole numbers below 2**16, neighbours far apart
_PRIME, _MODULUS = 7919, 65521
#: rows of a short and of a whole check; fp32 counts exactly to 2**24
SHORT_ROWS, WHOLE_ROWS = 300_000, 20_000_000


def warp_probes() -> List[Probe]:
    """The integer-base warp on a small volume with a side above 128, displacements beyond all borders."""
    return [_warp_probe(BALANCED), _warp_probe(FAST)]


def _warp_probe(mode: str) -> Probe:
    rng = np.random.RandomState(_SEED)
    volume = rng.rand(1, *_SIDES, 1).astype(np.float32)
    flow = rng.normal(0, 4, (1, *_SIDES, 3)).astype(np.float32)
    flow[:, ::2] = np.round(flow[:, ::2] * 4) / 4
    flow[0, 0, 0, :3] = [[-30, 0, 200], [0.5, -0.5, -200], [7, 25, 0]]
    graph = GraphWriter()
    _warp_graph(graph, volume.shape, flow.shape)
    rounding = ar.half if mode == FAST else ar.single
    held = rounding(flow)
    shape = volume.shape
    expected = ar.warp(volume, flow, rounding)
    once = ar.half(ar.warp(ar.half(volume), ar.half(flow), ar.single))
    moved = (
        Part("no_fusion", "moved", expected, ..., (("fused kernels round once, at the end", once),))
        if mode == FAST
        else Part(
            "vector_fp32",
            "moved",
            expected,
            ...,
            (("vector operators work in fp16", ar.warp(volume, flow, ar.half)),),
            _SINGLE_TOLERANCE,
        )
    )
    # The input is fp32 and a Cast takes the dtype that is there, also where other operators work in fp16.
    truncated = np.trunc(flow).astype(np.int32)
    parts = (
        Part("floor", "whole", np.floor(held), ..., (("it truncates", np.trunc(held)),)),
        Part(
            "cast",
            "truncated",
            truncated,
            ...,
            (
                ("it rounds to nearest", np.rint(flow).astype(np.int32)),
                ("it rounds down", np.floor(flow).astype(np.int32)),
                ("its input becomes fp16 first", np.trunc(ar.half(flow)).astype(np.int32)),
            ),
        ),
        moved,
    )
    outputs = {"moved": (shape, "float32"), "whole": (flow.shape, "float32"), "truncated": (flow.shape, "int32")}
    return Probe("warp", mode, graph, {"volume": volume, "flow": flow}, outputs, parts)


class _Nodes:
    """Nodes with names in order, and constants that are shared."""

    def __init__(self, graph: GraphWriter) -> None:
        self._graph = graph
        self._count = 0
        self._constants: Dict[Tuple[str, bytes, Tuple[int, ...]], str] = {}

    def add(self, op: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        self._count += 1
        return self._graph.node(op, name or f"{op.lower()}_{self._count}", *inputs, **attrs)

    def two(self, op: str, first: str, second: str, dtype: np.dtype) -> str:
        return self.add(op, first, second, T=dtype)

    def value(self, value: object, dtype: np.dtype) -> str:
        array = np.array(value, dtype)
        key = (dtype.name, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self._graph.constant(f"value_{len(self._constants)}", array)
        return self._constants[key]

    def clamp(self, node: str, low: float, high: float, dtype: np.dtype) -> str:
        raised = self.two("Maximum", node, self.value(low, dtype), dtype)
        return self.two("Minimum", raised, self.value(high, dtype), dtype)


def _warp_graph(graph: GraphWriter, volume_shape: Tuple[int, ...], flow_shape: Tuple[int, ...]) -> None:
    """The operators of the network's warp; beside the moved image, Floor and Cast of the whole flow."""
    make = _Nodes(graph)
    volume, flow = graph.placeholder("volume", volume_shape), graph.placeholder("flow", flow_shape)
    make.add("Floor", flow, name="whole", T=_FLOAT)
    make.add("Cast", flow, name="truncated", SrcT=_FLOAT, DstT=_INT)
    make.add("Unpack", flow, name="axes", T=_FLOAT, num=3, axis=4)
    sides = volume_shape[1:4]
    low, high, fractions = [], [], []
    for axis, side in enumerate(sides):
        shape = [1, 1, 1, 1]
        shape[axis + 1] = side
        bounded = make.clamp(f"axes:{axis}" if axis else "axes", -side, side, _FLOAT)
        whole = make.add("Floor", bounded, T=_FLOAT)
        base = make.two(
            "AddV2", make.value(np.arange(side).reshape(shape), _INT),
            make.add("Cast", whole, SrcT=_FLOAT, DstT=_INT), _INT,
        )  # fmt: skip
        low.append(make.clamp(base, 0, side - 1, _INT))
        high.append(make.clamp(make.two("AddV2", base, make.value(1, _INT), _INT), 0, side - 1, _INT))
        fractions.append(make.two("Sub", bounded, whole, _FLOAT))
    count = int(np.prod(sides))
    table = make.add("Reshape", volume, make.value([count], _INT), T=_FLOAT, Tshape=_INT)
    corners = [_gather(make, table, row) for row in _rows(make, low, high, sides)]
    for fraction in reversed(fractions):
        corners = [_blend(make, a, b, fraction) for a, b in zip(corners[0::2], corners[1::2])]
    make.add("Reshape", corners[0], make.value(list(volume_shape), _INT), name="moved", T=_FLOAT, Tshape=_INT)


def _rows(make: _Nodes, low: Sequence[str], high: Sequence[str], sides: Tuple[int, ...]) -> List[str]:
    rows = [make.two("Mul", x, make.value(sides[1] * sides[2], _INT), _INT) for x in (low[0], high[0])]
    columns = [make.two("Mul", y, make.value(sides[2], _INT), _INT) for y in (low[1], high[1])]
    planes = [make.two("AddV2", row, column, _INT) for row in rows for column in columns]
    return [make.two("AddV2", plane, z, _INT) for plane in planes for z in (low[2], high[2])]


def _gather(make: _Nodes, table: str, rows: str) -> str:
    axis = make.value(0, _INT)
    return make.add("GatherV2", table, rows, axis, Tparams=_FLOAT, Tindices=_INT, Taxis=_INT, batch_dims=0)


def _blend(make: _Nodes, low: str, high: str, fraction: str) -> str:
    step = make.two("Mul", fraction, make.two("Sub", high, low, _FLOAT), _FLOAT)
    return make.two("AddV2", low, step, _FLOAT)


def gather_probes(rows: int) -> List[Probe]:
    """GatherV2 of `rows` rows of one value, in an order without pattern, the last rows first."""
    graph = GraphWriter()
    table = ((np.arange(rows, dtype=np.int64) * _PRIME) % _MODULUS).astype(np.float32)
    index = np.random.RandomState(_SEED).randint(0, rows, rows).astype(np.int32)
    index[:64] = rows - 1 - np.arange(64)
    graph.placeholder("table", table.shape)
    graph.placeholder("index", index.shape, "int32")
    axis = graph.constant("axis", np.array(0, np.int32))
    graph.node("GatherV2", "gathered", "table", "index", axis, Tparams=_FLOAT, Tindices=_INT, Taxis=_INT, batch_dims=0)
    by_float = np.minimum(index.astype(np.float32).astype(np.int64), rows - 1)
    by_half = np.minimum(ar.half(index).astype(np.int64), rows - 1)
    others = (("indices pass through fp32", table[by_float]), ("indices pass through fp16", table[by_half]))
    parts = (Part("indices", "gathered", table[index], ..., others),)
    feeds = {"table": table, "index": index}
    return [Probe("gather", BALANCED, graph, feeds, {"gathered": ((rows,), "float32")}, parts)]
