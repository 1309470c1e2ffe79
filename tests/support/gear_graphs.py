# SPDX-License-Identifier: Apache-2.0
"""Small frozen graphs with open sides, for models with gears, and what compiles them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np

from tests.support.graphs import PbBuilder, conv_attrs, image_conv_attrs
from vxm_convert.formats.om import read_om
from vxm_convert.sim.atc.__main__ import main


class Case(NamedTuple):
    """A graph, ATC's flags for its gears, and per gear the shapes of its inputs."""

    build: Any
    flags: Tuple[str, ...]
    outputs: Tuple[str, ...]
    shapes: Tuple[Tuple[Tuple[int, ...], ...], ...]
    inputs: Tuple[str, ...]


def classifier(rng: np.random.RandomState) -> PbBuilder:
    """Convolution, ReLU, mean over the picture, matrix product, softmax; any batch."""
    pb = PbBuilder()
    net = _conv(pb, rng, "conv", pb.placeholder("x", (-1, 12, 12, 3)), 3, 8, stride=2)
    net = pb.node(
        "Mean", "mean", pb.node("Relu", "relu", net), pb.const("axes", np.array([1, 2], np.int32)), keep_dims=False
    )
    weights = pb.const("weights", rng.randn(8, 5).astype(np.float32))
    pb.node("Softmax", "prob", pb.node("MatMul", "fc", net, weights, transpose_a=False, transpose_b=False))
    return pb


def segmenter(rng: np.random.RandomState) -> PbBuilder:
    """Two convolutions over a picture of any size."""
    pb = PbBuilder()
    net = pb.node("Relu", "relu", _conv(pb, rng, "first", pb.placeholder("x", (1, -1, -1, 3)), 3, 6))
    pb.node("Sigmoid", "mask", _conv(pb, rng, "second", net, 6, 2, stride=2))
    return pb


def gated(rng: np.random.RandomState) -> PbBuilder:
    """A sequence (batch, time, 8) times a row per batch, its mean over time; sizes taken from the sequence's own
    shape.
    """
    pb = PbBuilder()
    x, y = pb.placeholder("x", (-1, -1, 8)), pb.placeholder("y", (-1, 8))
    gate = pb.node("Tanh", "gate", pb.node("Reshape", "rows", y, pb.const("form", np.array([-1, 1, 8], np.int32))))
    both = pb.node("Mul", "both", x, gate)
    pb.node("Mean", "mean", both, pb.const("axis", np.array(1, np.int32)), keep_dims=False)
    flat = pb.node("Reshape", "flat", both, pb.const("one", np.array([-1], np.int32)))
    pb.node("Reshape", "again", pb.node("Neg", "minus", flat), pb.node("Shape", "shape", x))
    return pb


def registration(rng: np.random.RandomState) -> PbBuilder:
    """Two volumes, down and up again with a skip, to a flow of three channels; any batch."""
    pb = PbBuilder()
    axis = pb.const("axis", np.array(-1, np.int32))
    moving, fixed = (pb.placeholder(name, (-1, 16, 16, 16, 1)) for name in ("moving", "fixed"))
    both = pb.node("ConcatV2", "both", moving, fixed, axis, N=2)
    down = pb.node("LeakyRelu", "down", _conv(pb, rng, "conv3d", both, 2, 6, stride=2, rank=3), alpha=0.2)
    z = pb.node(
        "Reshape",
        "rz",
        pb.node("ConcatV2", "dz", down, down, axis, N=2),
        pb.const("sz", np.array([-1, 8, 8, 96], np.int32)),
    )
    y = pb.node(
        "Reshape", "ry", pb.node("ConcatV2", "dy", z, z, axis, N=2), pb.const("sy", np.array([-1, 8, 1536], np.int32))
    )
    up = pb.node(
        "Reshape",
        "up",
        pb.node("ConcatV2", "dx", y, y, axis, N=2),
        pb.const("sx", np.array([-1, 16, 16, 16, 6], np.int32)),
    )
    joined = pb.node("ConcatV2", "joined", up, both, axis, N=2)
    pb.node("Identity", "flow_field", _conv(pb, rng, "flow", joined, 8, 3, rank=3))
    return pb


def _conv(
    pb: PbBuilder,
    rng: np.random.RandomState,
    name: str,
    x: str,
    channels: int,
    filters: int,
    stride: int = 1,
    rank: int = 2,
) -> str:
    kernel = pb.const(f"{name}/kernel", (rng.randn(*[3] * rank, channels, filters) * 0.2).astype(np.float32))
    attrs = image_conv_attrs(stride=stride) if rank == 2 else conv_attrs(stride)
    made = pb.node(f"Conv{rank}D", f"{name}/conv", x, kernel, **attrs)
    return pb.node(
        "BiasAdd",
        f"{name}/add",
        made,
        pb.const(f"{name}/bias", rng.randn(filters).astype(np.float32)),
        data_format="NHWC",
    )


VOLUME = (16, 16, 16, 1)
CASES = {
    "batch": Case(
        classifier,
        ("--input_shape=x:-1,12,12,3", "--dynamic_batch_size=1,4,8"),
        ("prob",),
        tuple(((batch, 12, 12, 3),) for batch in (1, 4, 8)),
        ("x",),
    ),
    "hw": Case(
        segmenter,
        ("--input_shape=x:1,-1,-1,3", "--dynamic_image_size=16,16;24,32;20,18"),
        ("mask",),
        (((1, 16, 16, 3),), ((1, 24, 32, 3),), ((1, 20, 18, 3),)),
        ("x",),
    ),
    "dims": Case(
        gated,
        ("--input_shape=x:-1,-1,8;y:-1,8", "--dynamic_dims=1,4,1;2,6,2;3,2,3", "--input_format=ND"),
        ("mean", "again"),
        (((1, 4, 8), (1, 8)), ((2, 6, 8), (2, 8)), ((3, 2, 8), (3, 8))),
        ("x", "y"),
    ),
    "volumes": Case(
        registration,
        ("--input_shape=moving:-1,16,16,16,1;fixed:-1,16,16,16,1", "--dynamic_batch_size=1,2,4"),
        ("flow_field",),
        tuple(((batch,) + VOLUME,) * 2 for batch in (1, 2, 4)),
        ("moving", "fixed"),
    ),
}


def build(name: str, folder: Path) -> Path:
    """The frozen graph of a case; always the same weights."""
    return CASES[name].build(np.random.RandomState(11)).save(folder / f"{name}.pb")


def compile_case(name: str, folder: Path, *more: str) -> Path:
    """The offline model with all gears of a case."""
    return run_atc(build(name, folder), folder / name, CASES[name].outputs, CASES[name].flags + more)


def compile_static(name: str, gear: int, folder: Path, *more: str) -> Path:
    """The offline model of one gear's shape alone."""
    case = CASES[name]
    shapes = ";".join(f"{node}:{','.join(map(str, shape))}" for node, shape in zip(case.inputs, case.shapes[gear]))
    return run_atc(
        build(name, folder), folder / f"{name}_static{gear}", case.outputs, (f"--input_shape={shapes}",) + more
    )


def run_atc(model: Path, target: Path, outputs: Sequence[str], flags: Sequence[str], framework: int = 3) -> Path:
    given = [f"--model={model}", f"--framework={framework}", f"--output={target}", "--soc_version=Ascend910A", *flags]
    if outputs:
        given.append("--out_nodes=" + ";".join(f"{name}:0" for name in outputs))
    assert main(given) == 0
    return target.with_name(target.name + ".om")


def feeds(name: str, gear: int) -> List[np.ndarray]:
    """Inputs of a gear; always the same."""
    rng = np.random.RandomState(gear)
    return [rng.rand(*shape).astype(np.float32) for shape in CASES[name].shapes[gear]]


def static_results(name: str, gear: int, folder: Path, arrays: List[np.ndarray]) -> List[np.ndarray]:
    """What the model of that shape alone gives."""
    from vxm_convert.sim.engine.load import load_program

    return load_program(read_om(compile_static(name, gear, folder))).run(arrays)
