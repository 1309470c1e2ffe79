# SPDX-License-Identifier: Apache-2.0
"""Executes a simulated offline model on the CPU, by an engine of `engines`."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from vxm_convert.errors import FormatError, ToolchainError
from vxm_convert.formats.ge_ir import Op
from vxm_convert.formats.om import OmModel
from vxm_convert.sim.engine import backends as engines
from vxm_convert.sim.engine.backends import Places, Runner
from vxm_convert.sim.engine.divided import run_with_ending
from vxm_convert.sim.engine.ending.find import find_ending
from vxm_convert.sim.engine.ending.run import usable
from vxm_convert.sim.engine.lowering.lower import RANDOM, lower
from vxm_convert.sim.engine.rewrites import settings as rewrites
from vxm_convert.sim.refusal import AtcRefusal

log = logging.getLogger(__name__)

#: Models with more bytes of work memory than this are never held in two compiled forms (for running and for dumping) at
#: the same time.
LARGE = 1 << 28


@dataclass(frozen=True)
class TensorDesc:
    """One input or output of the model."""

    name: str
    shape: Tuple[int, ...]
    dtype: np.dtype
    format: str


def edge_of(model: OmModel) -> Tuple[List[TensorDesc], List[TensorDesc]]:
    """Inputs and outputs of a model's first graph, in the model's order."""
    data = sorted((op for op in model.graph if op.type == "Data"), key=lambda op: op.attrs["index"])
    inputs = [TensorDesc(op.name, d.shape, np.dtype(d.dtype), d.layout) for op in data for d in op.output_descs]
    outputs = [
        TensorDesc(str(name), d.shape, np.dtype(d.dtype), d.layout)
        for name, d in zip(model.attrs["attr_model_out_nodes_name"], model.graph[-1].output_descs)
    ]
    return inputs, outputs


class Form:
    """A compiled form of a model; `close` frees its memory, and the next call compiles it again."""

    def __init__(self, compile_it: Callable[[], Runner]) -> None:
        self._compile = compile_it
        self._runner: Optional[Runner] = compile_it()

    def __call__(self, arrays: List[np.ndarray], places: Places) -> List[np.ndarray]:
        if self._runner is None:
            self._runner = self._compile()
        return self._runner(arrays, places)

    def close(self) -> None:
        self._runner = None


class Program:
    """A loaded model, ready to run.

    `inputs` and `outputs` are lists of `TensorDesc` in the model's order; `work_bytes` and `weight_bytes` are the
    memory that the device would need for it.
    """

    def __init__(self, model: OmModel, runner: Runner, form: Form) -> None:
        self.inputs, self.outputs = edge_of(model)
        self.work_bytes = int(model.attrs["memory_size"])
        self.weight_bytes = len(model.weights)
        self.ops = model.graph
        self._run = runner
        self._form = form
        #: names of the tensors in the dumping form of the program, and that form
        self._dumping: Optional[Tuple[List[str], Runner]] = None

    def run(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        """Execute once; arrays have exactly the shapes and dtypes of `inputs`, results those of `outputs`; the caller
        owns the results.
        """
        return [np.array(result) for result in self.lend(arrays)]

    def lend(self, arrays: List[np.ndarray], places: Places = ()) -> List[np.ndarray]:
        """As `run`, but the results may be the engine's own memory, valid until the next call, or one of `places`: memory
        of the caller, shape and dtype of `outputs`, that the engine may write a result into, or None.
        """
        if self.work_bytes >= LARGE:
            self._dumping = None
        results = self._run(self._checked(arrays), places)
        return [np.asarray(result, desc.dtype).reshape(desc.shape) for result, desc in zip(results, self.outputs)]

    def run_with_dumps(self, arrays: List[np.ndarray], tensors: Iterable[str]) -> Iterator[Tuple[str, int, np.ndarray]]:
        """Execute once and yield inner values; the form of the program for this is built at the first call.

        Parameters
        ----------
        arrays : list of ndarray — as for `run`.
        tensors : names ``node:index`` of the graph in the offline model.

        Yields
        ------
        (node, output index, ndarray) — dtype of the node's descriptor; constants in storage shape, others in logical
        shape.
        """
        arrays = self._checked(arrays)
        producers = {f"{op.name}:{index}": (op, index) for op in self.ops for index in range(len(op.output_descs))}
        # The outputs of NetOutput are its inputs.
        source = {f"{self.ops[-1].name}:{index}": name for index, name in enumerate(self.ops[-1].inputs)}
        wanted = sorted(tensors)
        inner = sorted({source.get(name, name) for name in wanted if producers[name][0].data is None})
        if self._dumping is None or self._dumping[0] != inner:
            self._dumping = None
            if self.work_bytes >= LARGE:
                self._form.close()
            self._dumping = (inner, self._compile_for(inner, producers))
        values = dict(zip(inner, self._dumping[1](arrays, ()) if inner else []))
        for name in wanted:
            op, index = producers[name]
            value = op.data if op.data is not None else values[source.get(name, name)]
            # A copy, because the result is the engine's own memory.
            yield op.name, index, np.array(value, op.output_descs[index].dtype)

    def _compile_for(self, tensors: List[str], producers: Dict[str, Tuple[Op, int]]) -> Runner:
        """The program with other outputs; rewrites cannot remove any of them, as each is read."""
        descs = [producers[name][0].output_descs[producers[name][1]] for name in tensors]
        net_output = replace(self.ops[-1], inputs=list(tensors), input_descs=descs, output_descs=descs)
        runner, inputs = _build([copy.copy(op) for op in self.ops[:-1]] + [net_output])
        return _with_random(self.ops, inputs, runner)

    def _checked(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        """The arrays as engines take them."""
        for array, desc in zip(arrays, self.inputs):
            if array.shape != desc.shape or array.dtype != desc.dtype:
                raise ToolchainError(
                    f"input {desc.name}: got {array.dtype} {array.shape}, expected {desc.dtype} {desc.shape}"
                )
        return [engines.finite(array) for array in arrays]


def load_static(model: OmModel) -> Program:
    names: List[str] = []

    def compile_it() -> Runner:
        runner, names[:] = _build([copy.copy(op) for op in model.graph])
        return runner

    try:
        form = Form(compile_it)
        return Program(model, _with_random(model.graph, names, form), form)
    except (AtcRefusal, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as exc:
        # The container was intact, so a failure here is due to the graph; engines raise RuntimeError.
        raise FormatError(
            f"{model.name}: the graph inside the offline model cannot be executed ({exc}); compile it again"
        ) from exc


def _build(ops: List[Op]) -> Tuple[Runner, List[str]]:
    """The compiled graph in executable form, with the settings of the environment, and the names of its inputs."""
    engine = engines.find_engine()
    settings = rewrites.settings(engine.fastest())
    if not settings.rounding:
        log.warning(
            "%s=off: the simulated device does NOT round as a 910 does; its results say nothing about one",
            rewrites.ROUNDING_VARIABLE,
        )
    log.debug("rewrites for this engine: %s", ", ".join(sorted(settings.rewrites)) or "none")
    if "winograd" in settings.rewrites and settings.rounding and usable():
        ending = find_ending(ops)
        if ending is not None:
            return run_with_ending(engine, settings, ending)
    serialized, inputs, outputs = lower(ops, settings)
    return engine.compile(serialized, inputs, outputs), inputs


def _truncated_normal(source: np.random.RandomState, op: Op) -> np.ndarray:
    """Normal numbers within two standard deviations; the others are drawn again."""
    values = source.standard_normal(op.output_descs[0].shape)
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = source.standard_normal(int(outside.sum()))
        outside = np.abs(values) > 2
    return values


#: Random numbers of the simulated AI CPU, by the node's type in the framework's graph.
DRAWS: Dict[str, Callable[[np.random.RandomState, Op], np.ndarray]] = {
    "RandomStandardNormal": lambda source, op: source.standard_normal(op.output_descs[0].shape),
    # fp32 has fewer numbers below 1 than fp64 has: rounding must not give 1 itself.
    "RandomUniform": lambda source, op: np.minimum(source.random_sample(op.output_descs[0].shape), 1 - 2.0**-24),
    "RandomUniformInt": lambda source, op: source.randint(
        op.attrs["minval"], op.attrs["maxval"], op.output_descs[0].shape, np.int64
    ),
    "TruncatedNormal": _truncated_normal,
}


def _with_random(ops: List[Op], inputs: List[str], runner: Runner) -> Runner:
    """Draw the random numbers of AI CPU operators, and feed them after the model's own inputs.

    Uses NumPy's generator, seeded with both seed attributes: the sequence is the same each time a model is loaded and
    continues from run to run, as TensorFlow does for a seed. The numbers differ from TensorFlow's; neither guarantees
    them.
    """
    by_name = {op.name: op for op in ops}
    drawn = [by_name[name[len(RANDOM) :]] for name in inputs if name.startswith(RANDOM)]
    if not drawn:
        return runner
    unknown = [op.name for op in drawn if op.attrs.get("original_type") not in DRAWS]
    if unknown:
        raise AtcRefusal("E19999", f"the simulated AI CPU has no kernel for {', '.join(unknown)}")
    sources = [
        np.random.RandomState([int(op.attrs.get(key) or 0) & 0xFFFFFFFF for key in ("seed", "seed2")]) for op in drawn
    ]

    def run(arrays: List[np.ndarray], places: Places) -> List[np.ndarray]:
        values = [
            DRAWS[op.attrs["original_type"]](source, op).astype(op.output_descs[0].dtype)
            for source, op in zip(sources, drawn)
        ]
        return runner(list(arrays) + values, places)

    return run
