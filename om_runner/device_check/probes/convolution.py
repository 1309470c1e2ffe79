# SPDX-License-Identifier: Apache-2.0
"""Probes of one Conv3D and of Conv3D with BiasAdd and LeakyRelu: conversion to fp16, sums, weights, bias, geometry."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

from om_runner.device_check.probes import arithmetic as ar
from om_runner.device_check.probes.probe import ACCURATE, FAST, Part, Probe
from vxm_convert.formats.tf_graph_writer import GraphWriter

_SLOPE = 0.2
_SEED = 20
_STEP = 2.0**-10
#: below half of fp16's step at 1, so that it is lost in fp16
_LOST = 2.0**-12


def conv_probes() -> List[Probe]:
    """One Conv3D: the conversion of special values, sums, and geometry; in fp16 and with fp32 results."""
    return [_conv_probe(FAST), _conv_probe(ACCURATE)]


def _conv_probe(mode: str) -> Probe:
    graph = GraphWriter()
    feeds: Dict[str, np.ndarray] = {}
    outputs: Dict[str, Tuple[Tuple[int, ...], str]] = {}
    parts: List[Part] = []
    for add in (_values, _sums, _geometry):
        add(graph, mode, feeds, outputs, parts)
    return Probe("conv3d", mode, graph, feeds, outputs, tuple(parts), ("values", "negated"))


def conv_attrs(stride: int = 1) -> Dict[str, Any]:
    """Attributes of a SAME convolution with channels last."""
    strides = [1, stride, stride, stride, 1]
    kind = np.dtype(np.float32)
    return {"T": kind, "strides": strides, "padding": "SAME", "data_format": "NDHWC", "dilations": [1] * 5}


def _values(graph: GraphWriter, mode: str, feeds: Any, outputs: Any, parts: List[Part]) -> None:
    """A convolution by 1, so that its result is the input as fp16, and by −1 beside it."""
    groups = _special_values()
    flat = np.concatenate(list(groups.values())).astype(np.float32)
    flat = np.concatenate([flat, np.zeros(-flat.size % 16, np.float32)]).reshape(1, 1, 1, -1, 1)
    x = graph.placeholder("x", flat.shape)
    feeds["x"] = flat
    for name, weight in (("values", 1.0), ("negated", -1.0)):
        kernel = graph.constant(f"{name}_kernel", np.full((1, 1, 1, 1, 1), weight, np.float32))
        graph.node("Conv3D", name, x, kernel, **conv_attrs())
        outputs[name] = (flat.shape, "float32")
    others = {
        "rounding": (
            ("it rounds toward zero", ar.half_toward_zero),
            ("it rounds to odd", ar.half_odd),
            ("ties go away from zero", ar.half_ties_away),
            ("fp32 is kept", ar.single),
        ),
        "saturation": (("it gives infinity", ar.half_infinite),),
        "nan": (("NaN stays NaN", ar.half_infinite),),
        "subnormals": (("they become 0", ar.half_flushed),),
    }
    start = 0
    for assumption, values in groups.items():
        where = (0, 0, 0, slice(start, start + values.size), 0)
        start += values.size
        found = tuple((words, change(values)) for words, change in others[assumption])
        parts.append(Part(assumption, "values", ar.half(values), where, found))
        parts.append(Part(assumption, "negated", -ar.half(values), where, tuple((w, -v) for w, v in found)))


def _special_values() -> Dict[str, np.ndarray]:
    """Assumption → fp32 values whose conversion to fp16 depends on it."""
    rng = np.random.RandomState(_SEED)
    grid = np.concatenate([rng.uniform(0.001, 2, 24), rng.uniform(2, 60000, 24)]).astype(np.float16)
    ties = (grid.astype(np.float64) + np.nextafter(grid, np.float16(np.inf)).astype(np.float64)) / 2
    close = ties.astype(np.float32)
    beside = np.concatenate([close, np.nextafter(close, np.float32(0)), np.nextafter(close, np.float32(np.inf))])
    ordinary = np.concatenate([beside, -beside, rng.uniform(-100, 100, 64).astype(np.float32)])
    tiny = np.array([1, 2, 3, 5, 100, 513, 1023], np.float64) * 2.0**-24
    return {
        "rounding": ordinary.astype(np.float32),
        "saturation": np.array([65520, -65520, 65536, 1e6, -1e6, 3e38, np.inf, -np.inf], np.float32),
        "nan": np.array([np.nan, -np.nan], np.float32),
        "subnormals": np.concatenate([tiny, -tiny]).astype(np.float32),
    }


def _sums(graph: GraphWriter, mode: str, feeds: Any, outputs: Any, parts: List[Part]) -> None:
    """64 channels in one voxel: each result depends on one thing that a sum can do in different ways."""
    x = np.ones((1, 1, 1, 16, 64), np.float32)
    x[..., 0] = x[..., 62] = 2048
    x[..., 61] = 1 + _STEP
    x[..., 63] = 1 + _LOST
    single = mode == ACCURATE
    tail = 2049.0 if single else 2048.0
    # (assumption, channel → weight, bias, expected, alternatives)
    rows: List[Tuple[str, Dict[int, float], float, float, Tuple[Tuple[str, float], ...]]] = [
        ("accumulation", {0: 1, 62: -1, **{c: 1 for c in range(1, 61)}}, 0, 60, ()),
        ("accumulation", {61: 1 + _STEP, 1: -(1 + 2 * _STEP)}, 0, _STEP**2, (("products are rounded to fp16", 0.0),)),
        ("weights", {1: 1 + _LOST, 2: -1}, 0, 0, (("weights are not rounded to fp16", _LOST),)),
        ("weights", {1: 1 + 3 * _LOST, 2: -1}, 0, _STEP, (("weights are rounded toward zero", 0.0),)),
        ("weights", {63: 1, 1: -1}, 0, 0, (("the input of the convolution is not rounded to fp16", _LOST),)),
        ("fp32_results", {0: 1, 1: 1}, 0, tail, (("the other dtype of the result", 4097.0 - tail),)),
        ("bias", {0: 1, 1: 1}, 1, 2050, (("the sum is rounded before the bias is added", tail),)),
        ("bias", {1: -1}, 1 + _LOST, 0, (("the bias is fp32", _LOST),)),
    ]
    weights = np.zeros((1, 1, 1, 64, len(rows)), np.float32)
    bias = np.array([row[2] for row in rows], np.float32)
    for number, row in enumerate(rows):
        for channel, weight in row[1].items():
            weights[0, 0, 0, channel, number] = weight
    name = _conv_with_bias(graph, "sums", x, weights, bias, feeds)
    outputs[name] = (x.shape[:4] + (len(rows),), "float32")
    for number, (assumption, _, _, expected, others) in enumerate(rows):
        part = np.full(16, expected, np.float32)
        changed = tuple((words, np.full(16, value, np.float32)) for words, value in others)
        parts.append(Part(assumption, name, part, (0, 0, 0, slice(None), number), changed))


def _conv_with_bias(
    graph: GraphWriter, name: str, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, feeds: Dict[str, np.ndarray]
) -> str:
    source = graph.placeholder(f"{name}_x", x.shape)
    feeds[source] = x
    conv = graph.node("Conv3D", f"{name}_conv", source, graph.constant(f"{name}_kernel", weights), **conv_attrs())
    added = graph.constant(f"{name}_bias", bias)
    return graph.node("BiasAdd", name, conv, added, T=np.dtype(np.float32), data_format="NHWC")


def _geometry(graph: GraphWriter, mode: str, feeds: Any, outputs: Any, parts: List[Part]) -> None:
    """Small whole numbers, exact in every arithmetic: strides 1 and 2, even and odd sides."""
    rng = np.random.RandomState(_SEED)
    kernel = rng.randint(-3, 4, (3, 3, 3, 2, 3)).astype(np.float32)
    for stride, sides in ((1, (5, 6, 7)), (2, (6, 7, 8))):
        name = f"stride{stride}"
        x = rng.randint(-4, 5, (1, *sides, 2)).astype(np.float32)
        source = graph.placeholder(f"{name}_x", x.shape)
        feeds[source] = x
        weights = graph.constant(f"{name}_kernel", kernel)
        graph.node("Conv3D", name, source, weights, **conv_attrs(stride))
        expected = ar.convolve(x, kernel, stride).astype(np.float32)
        flipped = ar.convolve(x, kernel[::-1, ::-1, ::-1], stride).astype(np.float32)
        outputs[name] = (expected.shape, "float32")
        parts.append(Part("geometry", name, expected, ..., (("the kernel is flipped", flipped),)))


def leaky_probes() -> List[Probe]:
    """Conv3D, BiasAdd and LeakyRelu in fp16: how often a value is rounded, and the slope."""
    whole = np.arange(1, 129, dtype=np.float32)
    x = np.zeros((1, 1, 1, 256, 2), np.float32)
    # The first half are sums that fp16 holds, so only the slope counts; the others are not.
    x[0, 0, 0, :128, 0] = -whole / 8
    x[0, 0, 0, 128:, 0], x[0, 0, 0, 128:, 1] = -2048 - 2 * whole, -1
    graph, feeds = GraphWriter(), {}  # type: Tuple[GraphWriter, Dict[str, np.ndarray]]
    sums = _conv_with_bias(graph, "biased", x, np.ones((1, 1, 1, 2, 1), np.float32), np.zeros(1, np.float32), feeds)
    graph.node("LeakyRelu", "leaky", sums, T=np.dtype(np.float32), alpha=_SLOPE)
    exact = x.sum(axis=-1)[0, 0, 0].astype(np.float64)
    slope = float(np.float16(_SLOPE))
    small, large = exact[:128], exact[128:]
    parts = (
        Part(
            "slope",
            "leaky",
            ar.leaky(small, slope, ar.half),
            (0, 0, 0, slice(0, 128), 0),
            (("the slope is fp32", ar.leaky(small, _SLOPE, ar.half)),),
        ),
        Part(
            "no_fusion",
            "leaky",
            ar.leaky(ar.half(large), slope, ar.half),
            (0, 0, 0, slice(128, 256), 0),
            (
                ("the sum is not rounded before LeakyRelu: one fused kernel", ar.leaky(large, slope, ar.half)),
                ("one fused kernel with an fp32 slope", ar.leaky(large, _SLOPE, ar.half)),
            ),
        ),
    )
    return [Probe("leaky_relu", FAST, graph, feeds, {"leaky": (x.shape[:4] + (1,), "float32")}, parts)]
