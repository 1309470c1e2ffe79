# SPDX-License-Identifier: Apache-2.0
"""Executes a simulated offline model on the CPU: OpenVINO, or ONNX Runtime where that is missing."""
from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

import numpy as np

from vxm_convert.errors import FormatError, ToolchainError
from vxm_convert.formats.om import OmModel
from vxm_convert.sim.lowering import lower
from vxm_convert.sim.refusal import AtcRefusal

log = logging.getLogger(__name__)

Runner = Callable[[List[np.ndarray]], List[np.ndarray]]


@dataclass(frozen=True)
class TensorDesc:
    """One input or output at the model's edge."""

    name: str
    shape: Tuple[int, ...]
    dtype: np.dtype
    format: str


class Program:
    """A loaded model, ready to run.

    `inputs` and `outputs` are lists of `TensorDesc` in the model's order; `work_bytes` and `weight_bytes` are what the
    device would need for it.
    """

    def __init__(self, model: OmModel, runner: Runner) -> None:
        data = sorted((op for op in model.graph if op.type == "Data"), key=lambda op: op.attrs["index"])
        net_output = model.graph[-1]
        names = model.attrs["attr_model_out_nodes_name"]
        self.inputs = [TensorDesc(op.name, d.shape, np.dtype(d.dtype), d.layout) for op in data for d in op.output_descs]
        self.outputs = [
            # pyACL's form of an output name: node:index:top
            TensorDesc(f"{name}:{name.rpartition(':')[0]}", d.shape, np.dtype(d.dtype), d.layout)
            for name, d in zip(names, net_output.output_descs)
        ]
        self.work_bytes = int(model.attrs["memory_size"])
        self.weight_bytes = len(model.weights)
        self._run = runner

    def run(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        """Execute once; arrays have exactly the shapes and dtypes of `inputs`, results those of `outputs`."""
        for array, desc in zip(arrays, self.inputs):
            if array.shape != desc.shape or array.dtype != desc.dtype:
                raise ToolchainError(f"input {desc.name}: got {array.dtype} {array.shape}, expected {desc.dtype} {desc.shape}")
        results = self._run(arrays)
        return [np.asarray(result, desc.dtype).reshape(desc.shape) for result, desc in zip(results, self.outputs)]


def load_program(model: OmModel) -> Program:
    """Prepare a simulated model for execution.

    Raises
    ------
    ToolchainError
        The model is not a simulated one, or no engine is installed.
    FormatError
        Its graph cannot be executed although the container is intact.
    """
    if not model.simulated:
        raise ToolchainError(
            f"{model.name}: compiled by the real ATC ({model.attrs.get('atc_version')}), which the simulated device cannot execute; "
            "run it on an Ascend machine or export again with --toolchain sim"
        )
    try:
        serialized, inputs, outputs = lower(model.graph)
        return Program(model, _engine()(serialized, inputs, outputs))
    except (AtcRefusal, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as exc:
        # The container was intact, so whatever fails here is the graph that it holds; engines report with RuntimeError.
        raise FormatError(f"{model.name}: the graph inside the offline model cannot be executed ({exc}); compile it again") from exc


def _engine() -> Callable[[bytes, List[str], List[str]], Runner]:
    choice = os.environ.get("VXM_SIM_ENGINE", "auto")
    if choice in ("auto", "openvino"):
        try:
            import openvino  # noqa: F401

            return _openvino
        except ImportError:
            if choice == "openvino":
                raise ToolchainError("VXM_SIM_ENGINE=openvino: OpenVINO is not installed; pip install openvino") from None
    try:
        import onnxruntime  # noqa: F401

        return _onnxruntime
    except ImportError:
        raise ToolchainError("the simulated device needs a CPU engine: pip install openvino (or onnxruntime)") from None


def _openvino(serialized: bytes, inputs: List[str], outputs: List[str]) -> Runner:
    try:
        from openvino import Core
    except ImportError:
        from openvino.runtime import Core
    core = Core()
    # Without the hint, processors with bf16 instructions would compute in bf16.
    compiled = core.compile_model(core.read_model(serialized), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()

    def run(arrays: List[np.ndarray]) -> List[np.ndarray]:
        results = request.infer({name: _finite(array) for name, array in zip(inputs, arrays)})
        return [np.array(results[name]) for name in outputs]

    return run


def _onnxruntime(serialized: bytes, inputs: List[str], outputs: List[str]) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])

    def run(arrays: List[np.ndarray]) -> List[np.ndarray]:
        return session.run(outputs, {name: _finite(array) for name, array in zip(inputs, arrays)})

    return run


def _finite(array: np.ndarray) -> Any:
    """NaN and infinity cannot arise inside (everything saturates), so they are dealt with where they could come in."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.nan_to_num(array)
    return array
