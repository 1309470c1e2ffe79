# SPDX-License-Identifier: Apache-2.0
"""Simulated chips that differ from our assumptions in one thing each: what the device check must name.

``python -m tests.support.planted_chips NAME …`` is a simulated ATC with the difference of that name.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from unittest import mock

import numpy as np

from om_runner.device_check.probes.probe import Probe
from om_runner.device_check.sides import Compiled, Device, contract_of
from vxm_convert.ascend import operators
from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.sim.compiler import dtypes
from vxm_convert.sim.engine import backends, program
from vxm_convert.sim.engine.lowering import cube, lower
from vxm_convert.sim.engine.lowering.onnx_graph import OnnxBuilder
from vxm_convert.sim.engine.lowering.state import Value

_ROUND = OnnxBuilder.round_half
Patch = Callable[[], Any]


def _toward_zero(builder: OnnxBuilder, value: str) -> str:
    """Where rounding went up, one number further in: 1.25 halves of fp16's relative step, rounded again."""
    made = _ROUND(builder, value)
    less = _ROUND(builder, builder.one("Mul", made, builder.scalar(1 - 1.25 * 2.0**-11)))
    up = builder.one("Greater", builder.one("Abs", made), builder.one("Abs", value))
    return builder.one("Where", up, less, made)


def _infinite(builder: OnnxBuilder, value: str) -> str:
    made = _ROUND(builder, value)
    sign = builder.one("Clip", builder.one("Mul", value, builder.scalar(1e30)), builder.scalar(-1), builder.scalar(1))
    beyond = builder.one("Greater", builder.one("Abs", value), builder.scalar(HALF_MAX + 15.9))
    huge = builder.one("Mul", sign, builder.scalar(float("inf")))
    return builder.one("Where", beyond, huge, made)


def _flushed(builder: OnnxBuilder, value: str) -> str:
    made = _ROUND(builder, value)
    tiny = builder.one("Less", builder.one("Abs", made), builder.scalar(2.0**-14))
    return builder.one("Where", tiny, builder.scalar(0.0), made)


def _with_nan(builder: OnnxBuilder, value: str) -> str:
    wrong = builder.one("IsNaN", value)
    return builder.one("Where", wrong, builder.scalar(float("nan")), _ROUND(builder, value))


_CONVOLVE = cube._convolve


def _half_sums(state: Any, op: Any, kernel: np.ndarray, groups: int) -> Value:
    """The first half of the channels, rounded, and then the other half with the bias."""
    channels = kernel.shape[1]
    if channels < 2:
        return _CONVOLVE(state, op, kernel, groups)
    first, second = kernel.copy(), kernel.copy()
    first[:, channels // 2 :] = 0
    second[:, : channels // 2] = 0
    bare = replace(op, inputs=list(op.inputs[:2]))
    partial = state.builder.round_half(_CONVOLVE(state, bare, first, groups).name)
    rest = _CONVOLVE(state, op, second, groups)
    return Value(state.builder.one("Add", partial, rest.name), rest.channels_first)


def _half_result(state: Any, op: Any, kernel: np.ndarray, groups: int) -> Value:
    made = _CONVOLVE(state, op, kernel, groups)
    return Value(state.builder.round_half(made.name), made.channels_first)


def _late_bias(state: Any, op: Any, kernel: np.ndarray, groups: int) -> Value:
    made = _CONVOLVE(state, replace(op, inputs=list(op.inputs[:2])), kernel, groups)
    rounded = state.builder.round_half(made.name)
    for source in op.inputs[2:]:
        bias = state.builder.constant(state.consts[source].data.reshape(1, -1, 1, 1, 1))
        rounded = state.builder.one("Add", rounded, bias)
    return Value(rounded, made.channels_first)


def _flipped(state: Any, op: Any, kernel: np.ndarray, groups: int) -> Value:
    return _CONVOLVE(state, op, kernel[:, :, ::-1, ::-1, ::-1], groups)


_LEND = program.Program.lend


def _swapped(self: program.Program, arrays: List[np.ndarray], places: backends.Places) -> List[np.ndarray]:
    results = _LEND(self, arrays)  # into no place: they are swapped first
    if len(results) > 1 and results[0].shape == results[1].shape:
        results[0], results[1] = results[1], results[0]
    return results


def _single_slope(state: Any, op: Any) -> List[Value]:
    first = state.is_first(op.inputs[0])
    name = state.builder.one("LeakyRelu", state.get(op.inputs[0], first), alpha=float(op.attrs["negative_slope"]))
    return [Value(name, first)]


def _truncating_floor(state: Any, op: Any) -> List[Value]:
    x = state.get(op.inputs[0], False)
    up = state.builder.one("Neg", state.builder.one("Floor", state.builder.one("Neg", x)))
    negative = state.builder.one("Less", x, state.builder.scalar(0.0))
    return [Value(state.builder.one("Where", negative, up, state.builder.one("Floor", x)), False)]


_CAST, _GATHER = lower.LOWERINGS["Cast"], lower.LOWERINGS["GatherV2D"]


def _rounding_cast(state: Any, op: Any) -> List[Value]:
    if op.output_descs[0].dtype != "int32":
        return _CAST(state, op)
    rounded = state.builder.one("Round", state.get(op.inputs[0], False))
    return [Value(state.builder.one("Cast", rounded, to=6), False)]


def _half_index(state: Any, op: Any) -> List[Value]:
    index = state.builder.one("Cast", state.get(op.inputs[1], False), to=1)
    whole = state.builder.one("Cast", state.builder.round_half(index), to=6)
    return [Value(state.builder.one("Gather", state.get(op.inputs[0], False), whole, axis=0), False)]


def _lowering(kind: str, instead: Callable[[Any, Any], List[Value]]) -> Patch:
    return lambda: mock.patch.dict(lower.LOWERINGS, {kind: instead})


@contextmanager
def _keeping_nan() -> Iterator[None]:
    """In the engine's inputs and in every conversion."""
    with mock.patch.object(backends, "finite", lambda array: array):
        with mock.patch.multiple(OnnxBuilder, round_half=_with_nan, clear_nan=lambda self, value: value):
            yield


#: name → patch of the engine
RUNNING: Dict[str, Patch] = {
    "rounds_toward_zero": lambda: mock.patch.object(OnnxBuilder, "round_half", _toward_zero),
    "gives_infinity": lambda: mock.patch.object(OnnxBuilder, "round_half", _infinite),
    "keeps_nan": _keeping_nan,
    "flushes_subnormals": lambda: mock.patch.object(OnnxBuilder, "round_half", _flushed),
    "adds_in_half": lambda: mock.patch.object(cube, "_convolve", _half_sums),
    "half_results": lambda: mock.patch.object(cube, "_convolve", _half_result),
    "late_bias": lambda: mock.patch.object(cube, "_convolve", _late_bias),
    "flipped_kernel": lambda: mock.patch.object(cube, "_convolve", _flipped),
    "swapped_outputs": lambda: mock.patch.object(program.Program, "lend", _swapped),
    "fused_leaky_relu": lambda: mock.patch.object(lower, "EXACT", lower.EXACT | {"Conv3D"}),
    "single_slope": _lowering("LeakyRelu", _single_slope),
    "truncating_floor": _lowering("Floor", _truncating_floor),
    "rounding_cast": _lowering("Cast", _rounding_cast),
    "half_index": _lowering("GatherV2D", _half_index),
}


def _cut_weights(values: np.ndarray) -> np.ndarray:
    nearest = np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)
    return np.where(np.abs(nearest) > np.abs(values), np.nextafter(nearest, np.float16(0)), nearest)


def _row(ge_type: str, row: Optional[operators.OpSupport]) -> Any:
    changed = {key: value for key, value in operators._BY_GE_TYPE.items() if key != ge_type}
    if row is not None:
        changed[ge_type] = row
    return mock.patch.object(operators, "_BY_GE_TYPE", changed)


#: name → patch of the compiler
COMPILING: Dict[str, Patch] = {
    "cut_weights": lambda: mock.patch.object(dtypes, "to_half", _cut_weights),
    "no_half_leaky_relu": lambda: _row(
        "LeakyRelu", replace(operators._BY_GE_TYPE["LeakyRelu"], floats=operators.SINGLE)
    ),
    "no_leaky_relu": lambda: _row("LeakyRelu", None),
}


#: folder of a compiled probe by its name and mode; compiling is the same for every chip that only runs differently
_COMPILED: Dict[Tuple[str, str], bytes] = {}


class CompiledOnce(Device):
    """A device whose probes are compiled once per process."""

    def compile(self, probe: Probe, folder: Path) -> Compiled:
        key = (probe.name, probe.mode)
        if key not in _COMPILED:
            made = super().compile(probe, folder)
            _COMPILED[key] = made.om_path.read_bytes()
            return made
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "graph.om").write_bytes(_COMPILED[key])
        return Compiled(folder / "graph.om", contract_of(probe, self.soc_version), 0.0)


def planted(name: str) -> Callable[..., Device]:
    """What `climb_all` takes as ``open_device``: a device that differs in one thing."""

    def open_device(toolchain: Any, number: int, soc_version: str, acl: Any) -> Device:
        if name in COMPILING:
            command = (sys.executable, "-m", "tests.support.planted_chips", name)
            return Device(replace(toolchain, atc_command=command), number, soc_version, acl)

        @contextmanager
        def around() -> Iterator[None]:
            with RUNNING[name]():
                yield

        return CompiledOnce(toolchain, number, soc_version, acl, around)

    return open_device


if __name__ == "__main__":
    from vxm_convert.sim.atc.__main__ import main

    with COMPILING[sys.argv[1]]():
        sys.exit(main(sys.argv[2:]))
