# SPDX-License-Identifier: Apache-2.0
"""The CPU engines behind the simulated device: OpenVINO, or ONNX Runtime where that is missing; which rewrites are
worthwhile on each.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from vxm_convert.errors import ToolchainError
from vxm_convert.lazy import silence_openvino
from vxm_convert.sim.engine.lowering.onnx_graph import OnnxBuilder

if TYPE_CHECKING:
    import openvino

VARIABLE = "VXM_SIM_ENGINE"
#: Where the results of a run may be written, in their order; None, or nothing at all: in the engine's own memory.
Places = Sequence[Optional[np.ndarray]]
#: Arrays in, arrays out; results may be the engine's own memory and are valid until the next call, because a second
#: copy of inner tensors, or of the largest layers alone, would not fit. An engine writes into a place if it can, and
#: returns an array elsewhere if it cannot.
#: Inputs are `finite`.
Runner = Callable[[List[np.ndarray], Places], List[np.ndarray]]
_INTERLEAVING = [0, 4, 5, 1, 6, 2, 7, 3]
_OPTIONS = {
    # Without the hint, processors with bf16 instructions would compute in bf16.
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
}


class Engine(NamedTuple):
    """How to compile a lowered graph, and the rewrites that make it fastest here."""

    compile: Callable[[bytes, List[str], List[str]], Runner]
    fastest: Callable[[], FrozenSet[str]]


def find_engine() -> Engine:
    """The engine that VXM_SIM_ENGINE names, or the best of the installed ones.

    Raises
    ------
    ToolchainError
        If it is not installed, or no engine is.
    """
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in ("auto", "openvino", "onnxruntime"):
        raise ToolchainError(f"{VARIABLE}: got {choice!r}, expected auto, openvino or onnxruntime")
    if choice in ("auto", "openvino"):
        try:
            silence_openvino()
            import openvino  # noqa: F401

            return Engine(_openvino, _fastest_in_openvino)
        except ImportError:
            if choice == "openvino":
                raise ToolchainError(
                    "VXM_SIM_ENGINE=openvino: OpenVINO is not installed; pip install openvino"
                ) from None
    try:
        import onnxruntime  # noqa: F401

        return Engine(_onnxruntime, _fastest_in_onnxruntime)
    except ImportError:
        raise ToolchainError("the simulated device needs a CPU engine: pip install openvino (or onnxruntime)") from None


def _core() -> openvino.Core:
    silence_openvino()
    try:
        from openvino import Core
    except ImportError:
        from openvino.runtime import Core
    return Core()


def _compiled(serialized: bytes) -> Any:
    return _compiled_with(serialized, _OPTIONS)


def _compiled_with(serialized: bytes, options: Dict[str, Any]) -> Any:
    core = _core()
    model = core.read_model(serialized)
    _interleave_in_blocks(model)
    return core.compile_model(model, "CPU", options)


def kernel_times(
    serialized: bytes, inputs: List[str], arrays: List[np.ndarray], runs: int
) -> List[Tuple[List[str], float]]:
    """(tensors that a kernel computes, seconds, the least of `runs`) of every kernel that OpenVINO executes.

    Raises
    ------
    ToolchainError
        If the engine is another one, which counts no times of kernels.
    """
    if find_engine().compile is not _openvino:
        raise ToolchainError("times of operators on the simulated device need OpenVINO; pip install openvino")
    compiled = _compiled_with(serialized, {**_OPTIONS, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    read = {name for port in compiled.inputs for name in port.get_names()}
    fed = {name: finite(array) for name, array in zip(inputs, arrays) if name in read}
    least: Dict[str, float] = {}
    for _ in range(runs):
        request.infer(fed)
        for entry in request.get_profiling_info():
            seconds = entry.real_time.total_seconds()
            least[entry.node_name] = min(seconds, least.get(entry.node_name, seconds))
    made_of = {node.get_friendly_name(): _originals(node) for node in compiled.get_runtime_model().get_ordered_ops()}
    return [(made_of.get(name) or [name], seconds) for name, seconds in least.items()]


def _originals(node: Any) -> List[str]:
    """The tensors of the model that an executed node stands for."""
    info = node.get_rt_info()
    text = str(info["originalLayersNames"].astype(str)) if "originalLayersNames" in info else ""
    return [name for name in text.split(",") if name]


def _openvino(serialized: bytes, inputs: List[str], outputs: List[str]) -> Runner:
    compiled = _compiled(serialized)
    request = compiled.create_infer_request()
    # The compiled form has no inputs that nothing reads.
    read = {name for port in compiled.inputs for name in port.get_names()}
    place = _placer(compiled, request, outputs)

    def run(arrays: List[np.ndarray], places: Places) -> List[np.ndarray]:
        # `infer` would return copies; inputs are read where they are.
        fed = {name: _lent(array) for name, array in zip(inputs, arrays) if name in read}
        place(places)
        request.start_async(fed, share_inputs=True)
        request.wait()
        return [request.get_tensor(name).data for name in outputs]

    return run


def _placer(compiled: Any, request: Any, outputs: List[str]) -> Callable[[Places], None]:
    """Lets a request write its outputs into the places of the next run, and all others into memory of its own."""
    try:
        from openvino import Tensor
    except ImportError:
        from openvino.runtime import Tensor
    ports = {name: port for port in compiled.outputs for name in port.get_names()}
    placed: Set[str] = set()

    def place(places: Places) -> None:
        for number, name in enumerate(outputs):
            port, wanted = ports[name], places[number] if places else None
            shape, dtype = tuple(port.shape), port.element_type.to_dtype()
            if wanted is not None and wanted.dtype == dtype and wanted.size == int(np.prod(shape, dtype=np.int64)):
                request.set_tensor(name, Tensor(wanted.reshape(shape), shared_memory=True))
                placed.add(name)
            elif name in placed:
                request.set_tensor(name, Tensor(port.element_type, port.shape))
                placed.remove(name)

    return place


def _interleave_in_blocks(model: openvino.Model) -> None:
    """``Reshape → Transpose → Reshape`` that spreads channels over all three axes of a volume becomes OpenVINO's
    DepthToSpace.

    Values and positions stay the same. Its kernel keeps the layout of convolutions (channels in blocks); a Transpose
    would need a reorder before and after. ONNX has the operator only for images, so ONNX cannot express it.
    """
    try:
        from openvino.runtime import opset8
    except ImportError:
        from openvino import opset8
    for turn in model.get_ordered_ops():
        if turn.get_type_name() != "Transpose" or _order(turn) != _INTERLEAVING:
            continue
        before = turn.input_value(0).get_node()
        after = [target.get_node() for target in turn.output(0).get_target_inputs()]
        if before.get_type_name() != "Reshape" or [node.get_type_name() for node in after] != ["Reshape"]:
            continue
        source, split, whole = (
            before.input_value(0),
            list(before.output(0).get_shape()),
            list(after[0].output(0).get_shape()),
        )
        small = list(source.get_shape())
        if (
            split[1:4] == [2, 2, 2]
            and small == [split[0], 8 * split[4]] + split[5:]
            and whole == split[:1] + [split[4]] + [2 * side for side in split[5:]]
        ):
            after[0].output(0).replace(opset8.depth_to_space(source, "blocks_first", 2).output(0))


def _order(turn: openvino.Node) -> List[int]:
    constant = turn.input_value(1).get_node()
    return [int(axis) for axis in constant.data] if constant.get_type_name() == "Constant" else []


@lru_cache(maxsize=None)
def _fastest_in_openvino() -> FrozenSet[str]:
    """Everything, but `phases` only where this version on this processor computes transposed convolutions by matrices.

    OpenVINO 2023.1 does so with AVX2, and has a direct kernel with AVX-512; OpenVINO 2026 has one for both. The engine
    reports its kernel.
    """
    base = frozenset(("upsampling", "transposed", "lanes", "winograd", "channels"))
    return base | {"phases"} if "gemm" in _transposed_kernel() else base


def _transposed_kernel() -> str:
    """Name of OpenVINO's kernel for a transposed convolution as `transposed` makes them; empty if unknown."""
    builder, channels = OnnxBuilder(), 16
    weights = builder.constant(np.ones((channels, channels, 4, 4, 4), np.float32))
    value = builder.one("ConvTranspose", "x", weights, kernel_shape=[4] * 3, strides=[2] * 3, pads=[1] * 6)
    serialized = builder.finish(
        [("x", "float32", (1, channels, 8, 8, 8))], [(value, "y", "float32", (1, channels, 16, 16, 16))]
    )
    core = _core()
    compiled = core.compile_model(core.read_model(serialized), "CPU", _OPTIONS)
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "layerType" in info and info["layerType"].astype(str) in ("Deconvolution", "ConvolutionBackpropData"):
            return str(info["primitiveType"].astype(str))
    return ""


def _fastest_in_onnxruntime() -> FrozenSet[str]:
    """No transposed convolution remains, as all become phases: for volumes it takes longer than the operators it
    replaces.

    Its kernel for volumes goes through a matrix of columns, one for all outputs, so that `lanes` would only add taps.
    """
    return frozenset(("upsampling", "transposed", "phases", "winograd", "channels"))


def _onnxruntime(serialized: bytes, inputs: List[str], outputs: List[str]) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])

    def run(arrays: List[np.ndarray], places: Places) -> List[np.ndarray]:
        # The device's fp16 inputs are fp32 in the lowered graph; this engine, unlike the other, does not convert them.
        wide = [array.astype(np.float32) if array.dtype == np.float16 else array for array in arrays]
        results: List[np.ndarray] = session.run(outputs, dict(zip(inputs, wide)))
        return results

    return run


def _lent(array: np.ndarray) -> np.ndarray:
    """The same memory as an array that may be written: OpenVINO copies the others, and writes to neither."""
    if array.flags.writeable or not (array.flags.c_contiguous and array.size):
        return array
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


def finite(array: np.ndarray) -> Any:
    """NaN and infinity cannot arise inside (everything saturates), so it is enough to handle them in the inputs."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.nan_to_num(array)
    return array
