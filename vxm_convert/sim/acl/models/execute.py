# SPDX-License-Identifier: Apache-2.0
"""Execution of a loaded model on the memory that two datasets name, at once or as a task of a stream."""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from vxm_convert.sim.acl.base.args import CONTEXT, call
from vxm_convert.sim.acl.base.state import SIM, AclFailure, log
from vxm_convert.sim.acl.memory.blocks import ALIGNMENT, Block, allocate_on_device, check_span
from vxm_convert.sim.acl.memory.dataset import DataBuffer, dataset_of
from vxm_convert.sim.acl.memory.tensordesc import describe_outputs
from vxm_convert.sim.acl.models.describe import tensor_bytes
from vxm_convert.sim.acl.models.gears import Setting, gear_of
from vxm_convert.sim.acl.models.loading import Model, gears_of, model_of, tensors_of
from vxm_convert.sim.acl.streams.stream import stream_of
from vxm_convert.sim.engine.op_times import operator_seconds
from vxm_convert.sim.faults import FAULTS

if TYPE_CHECKING:
    from vxm_convert.sim.engine.program import TensorDesc

#: (operator, its type, seconds), in the model's order
OperatorTimes = List[Tuple[str, str, float]]
#: A buffer may be this many bytes smaller than the model's tensor; an execution with a smaller one is refused.
SIZE_SLACK = 64
#: Called with ``(model name, seconds, seconds of each operator)`` after every execution; the last is a function that
#: executes the model once more, for who wants it. The profiler registers here.
OBSERVERS: List[Callable[[str, float, Callable[[], OperatorTimes]], None]] = []


class Span(NamedTuple):
    """``size`` bytes at ``address``; ``block`` keeps the allocation readable until a queued execution has used it."""

    address: int
    size: int
    block: Optional[Block]


def _view(address: int, count: int) -> np.ndarray:
    """The bytes at an address, shape (count,), uint8, not a copy."""
    return np.frombuffer((ctypes.c_char * count).from_address(address), np.uint8)


def _check_size(end: str, index: int, tensor: TensorDesc, buffer: DataBuffer) -> Span:
    """The part of a data buffer that the model uses; raises AclFailure(145000) if the buffer is too small."""
    need = tensor_bytes(tensor)
    if buffer.size + SIZE_SLACK < need:
        raise AclFailure(
            145000,
            f"{end} {index} ({tensor.name}) size:{buffer.size} from user add align:{SIZE_SLACK} < op_size:{need} of "
            "the model",
        )
    if buffer.size > need and end == "input":
        log.info("simulated device: input %d has %d bytes, the model reads the first %d", index, buffer.size, need)
    count = min(need, buffer.size)
    block = check_span(buffer.address, count, f"{end} {index}")
    if block is None:
        SIM.find(f"{end} {index} of a model is in memory that acl.rt.malloc did not allocate", 145000)
    return Span(buffer.address, count, block)


def _check_count(end: str, tensors: Sequence[TensorDesc], buffers: List[DataBuffer]) -> None:
    if len(tensors) != len(buffers):
        raise AclFailure(145000, f"the model has {len(tensors)} {end}s, the dataset {len(buffers)} buffers")


class Bound(NamedTuple):
    """What an execution uses, in model order; `setting` is the gear of a model with gears."""

    sources: List[Span]
    targets: List[Span]
    in_tensors: List[TensorDesc]
    out_tensors: List[TensorDesc]
    setting: Optional[Setting]


def _bind(model: Model, inputs: int, outputs: int, may_allocate: bool) -> Bound:
    """Addresses and sizes, checked against the model; those of a model with gears against the gear that the inputs are
    set to.
    """
    in_tensors, out_tensors = tensors_of(model)
    in_buffers, out_buffers = dataset_of(inputs).buffers(), dataset_of(outputs).buffers()
    _check_count("input", in_tensors, in_buffers)
    _check_count("output", out_tensors, out_buffers)
    setting = gear_of(model, dataset_of(inputs)) if gears_of(model) else None
    if setting is not None:
        in_tensors, out_tensors = model.program.tensors(setting.gear)
    sources = [_check_size("input", i, t, b) for i, (t, b) in enumerate(zip(in_tensors, in_buffers))]
    for index, (tensor, buffer) in enumerate(zip(out_tensors, out_buffers)):
        if buffer.address == 0:
            if not may_allocate:
                raise AclFailure(145000, f"output {index} has no memory, which only acl.mdl.execute can allocate")
            buffer.size = tensor_bytes(tensor)
            buffer.address = allocate_on_device(buffer.size)
    targets = [_check_size("output", i, t, b) for i, (t, b) in enumerate(zip(out_tensors, out_buffers))]
    return Bound(sources, targets, in_tensors, out_tensors, setting)


def _array(span: Span, tensor: TensorDesc) -> np.ndarray:
    """An input for the engine: read-only, shape and dtype of the tensor, without a copy unless bytes are missing."""
    need = tensor_bytes(tensor)
    raw = _view(span.address, span.size)
    if raw.size < need:
        raw = np.concatenate([raw, np.zeros(need - raw.size, np.uint8)])
    array = raw.view(tensor.dtype).reshape(tuple(tensor.shape))
    array.flags.writeable = False
    return array


def _run(model: Model, bound: Bound, stop: Callable[[], bool] = lambda: False) -> None:
    """Execute once; `stop()` returns True when nobody waits for the result any more."""
    if not model.lock.acquire(False):
        SIM.find(
            f"model {model.name} is executed by two threads or streams at the same time; load it twice to do that",
            507011,
        )
        model.lock.acquire()
    try:
        strike = FAULTS.at_execute(model.device_id, stop)
        if strike is not None:
            raise AclFailure(*strike)
        started = time.perf_counter()
        _compute(model, bound)
        seconds = time.perf_counter() - started
        longer = seconds * (FAULTS.slowness() / SIM.speed - 1) + SIM.latency
        if longer > 0:
            time.sleep(longer)
        for observe in list(OBSERVERS):
            observe(model.name, seconds + longer, lambda: _operator_times(model, bound))
    except AclFailure:
        raise
    except Exception as exc:  # a return code for the client, the traceback for us
        log.exception("simulated device: executing %s raised", model.name)
        raise AclFailure(507011, f"{model.name}: {type(exc).__name__}: {exc}") from exc
    finally:
        model.lock.release()


def _operator_times(model: Model, bound: Bound) -> OperatorTimes:
    program = bound.setting.program() if bound.setting else model.program
    arrays = [_array(s, t) for s, t in zip(bound.sources, bound.in_tensors)]
    types = {op.name: op.type for op in program.ops}
    return [(name, types[name], seconds) for name, seconds in operator_seconds(program.ops, arrays).items()]


def _compute(model: Model, bound: Bound) -> None:
    """Read device memory, run the engine, write device memory; dump on request."""
    program = bound.setting.program() if bound.setting else model.program
    arrays = [_array(s, t) for s, t in zip(bound.sources, bound.in_tensors)]
    _give(program.lend(arrays, _places(bound)), bound)
    # Results are now only in device memory; a dump needs the space.
    if model.dumper is not None:
        model.dumper.execution(program, arrays)


def _places(bound: Bound) -> List[Optional[np.ndarray]]:
    """The outputs' device memory, for the engine to write its results into; None where they must be copied: to memory that
    is smaller than the output or shared with another tensor, and where a fault keeps a part of it unwritten.
    """
    spans = [*bound.sources, *bound.targets]
    places: List[Optional[np.ndarray]] = []
    for index, (span, tensor) in enumerate(zip(bound.targets, bound.out_tensors)):
        whole = FAULTS.written(index, span.size) == span.size == tensor_bytes(tensor)
        alone = (
            sum(one.address < span.address + span.size and span.address < one.address + one.size for one in spans) == 1
        )
        fits = whole and alone and span.address % ALIGNMENT == 0
        places.append(_writable(span).view(tensor.dtype).reshape(tuple(tensor.shape)) if fits else None)
    return places


def _give(results: List[np.ndarray], bound: Bound) -> None:
    """Results of the engine → device memory, with the injected faults."""
    for index, (result, span, tensor) in enumerate(zip(results, bound.targets, bound.out_tensors)):
        if tuple(result.shape) != tuple(tensor.shape) or result.dtype != tensor.dtype:
            got, expected = f"{result.dtype}{result.shape}", f"{tensor.dtype}{tensor.shape}"
            raise AclFailure(507011, f"{tensor.name}: the engine returned {got}, expected {expected}")
        count = FAULTS.written(index, span.size)
        if result.ctypes.data == span.address and result.flags.c_contiguous:
            # The engine has written it there.
            continue
        _view(span.address, count)[:] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)[:count]
    FAULTS.spoil([_writable(span) for span in bound.targets])


def _writable(span: Span) -> np.ndarray:
    return np.frombuffer((ctypes.c_ubyte * span.size).from_address(span.address), np.uint8)


def _model_in_context(model_id: int) -> Model:
    model = model_of(model_id)
    if model.context is not SIM.context():
        SIM.find("a model is executed in another context than it was loaded in", 107002)
    return model


@call("mdl.execute", "IKK", needs=CONTEXT)
def execute(model_id: int, inputs: int, outputs: int) -> None:
    """Outputs without memory are allocated here; the client frees them."""
    model = _model_in_context(model_id)
    bound = _bind(model, inputs, outputs, may_allocate=True)
    _run(model, bound)
    describe_outputs(dataset_of(outputs), bound.out_tensors)


@call("mdl.execute_async", "IKKK", needs=CONTEXT)
def execute_async(model_id: int, inputs: int, outputs: int, stream: int) -> None:
    model = _model_in_context(model_id)
    bound = _bind(model, inputs, outputs, may_allocate=False)
    queue = stream_of(stream)
    queue.submit(lambda: _run(model, bound, lambda: queue.closing))
