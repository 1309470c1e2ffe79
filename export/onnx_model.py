# SPDX-License-Identifier: Apache-2.0
"""``frozen.pb`` → ``vxm.onnx`` through tf2onnx, checked and run. The work happens in a separate process:

tf2onnx orders names by hashing, so equal bytes need ``PYTHONHASHSEED=0``, which only a new process can have (and,
because it also hashes objects by address, new names for the constants, see `_name_constants`); and the system gets back
the memory of a full-size run when it ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np

from vxm_convert.artifacts.files import write_bytes
from vxm_convert.artifacts.shares import write_problem
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, ArtifactError, ToolchainError
from vxm_convert.lazy import silence_openvino
from vxm_convert.model.contract import GraphContract

if TYPE_CHECKING:
    import onnx

OPSET = 15
_TAIL_LINES = 8
_PROG = "onnx"
#: prefix of `run_main` for the message of a user-fixable error
_ERROR_MARK = f"{_PROG}: error: "
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def make_onnx(pb: Path, contract: Path, onnx_path: Path, pair: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """Convert, check and run.

    Parameters
    ----------
    pb, contract : Path — the frozen graph and its contract, existing files.
    onnx_path : Path — written.
    pair : dict — ``moving`` and ``fixed``, (B, X, Y, Z, 1), float32.

    Returns
    ------- dict — ``moved`` and ``flow`` of the ONNX model, and ``engine``: the engine that ran it.

    Raises
    ------
    ToolchainError
        If conversion, check or run fails.
    """
    feeds, results = onnx_path.with_name(".onnx_feeds.npz"), onnx_path.with_name(".onnx_results.npz")
    try:
        np.savez(str(feeds), **pair)
        _run_worker(["--pb", pb, "--contract", contract, "--onnx", onnx_path, "--feeds", feeds, "--results", results])
        with np.load(str(results), allow_pickle=False) as data:
            return {"moved": data["moved"], "flow": data["flow"], "engine": str(data["engine"])}
    except OSError as exc:
        raise ArtifactError(f"{onnx_path.parent}: cannot write or read files there: {write_problem(exc)}") from exc
    finally:
        for path in (feeds, results):
            if path.exists():
                path.unlink()


def tool_versions() -> Dict[str, str]:
    """Versions of the tools that determine the ONNX file."""
    import onnx
    import tf2onnx

    return {"onnx": onnx.__version__, "tf2onnx": tf2onnx.__version__}


def _run_worker(arguments: List[Any]) -> None:
    environment = dict(os.environ, PYTHONHASHSEED="0", TF_CPP_MIN_LOG_LEVEL="3")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(_PACKAGE_ROOT)] + [p for p in [os.environ.get("PYTHONPATH", "")] if p]
    )
    command = [sys.executable, "-W", "ignore", "-m", "export.onnx_model"] + [str(a) for a in arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip()
        if _ERROR_MARK in said:
            raise ToolchainError(f"ONNX: {said.split(_ERROR_MARK, 1)[1]}")
        tail = "\n".join(said.splitlines()[-_TAIL_LINES:])
        raise ToolchainError(
            f"ONNX: the conversion ended with code {done.returncode}; --skip-onnx exports without it; its "
            f"output:\n{tail}"
        )


def convert(pb: Path, contract: GraphContract, onnx_path: Path) -> None:
    """Convert with tf2onnx and check the result with onnx.checker; raises ToolchainError for dynamic shapes."""
    import onnx
    import tf2onnx

    from vxm_convert.network.tf1 import tf

    graph_def = tf.GraphDef()
    graph_def.ParseFromString(pb.read_bytes())
    model, _ = tf2onnx.convert.from_graph_def(
        graph_def,
        name="vxm",
        opset=OPSET,
        input_names=[t.tensor_name for t in contract.inputs],
        output_names=[t.tensor_name for t in contract.outputs],
    )
    _name_constants(model.graph)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in list(model.graph.input) + list(model.graph.output)
    }
    for spec in contract.inputs + contract.outputs:
        if shapes.get(spec.tensor_name) != spec.shape:
            raise ToolchainError(
                f"ONNX: {spec.tensor_name} has shape {shapes.get(spec.tensor_name)}, the contract says {spec.shape}"
            )
    write_bytes(onnx_path, model.SerializeToString(deterministic=True))


def _name_constants(graph: onnx.GraphProto) -> None:
    """Name every constant after the first node and input that reads it, and store them in that order.

    tf2onnx merges equal constants by walking sets of objects, whose order follows memory addresses: the surviving name
    changes from run to run, but not the nodes and their order.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: Dict[str, str] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in constants:
                node.input[position] = renamed.setdefault(name, f"{node.name}/input_{position}")
    ordered = []
    for old, new in renamed.items():
        constants[old].name = new
        ordered.append(constants[old])
    del graph.initializer[:]
    graph.initializer.extend(ordered)


def run_onnx(onnx_path: Path, contract: GraphContract, pair: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """Run with OpenVINO, which takes a third of the time, or with ONNX Runtime if that is missing; on all processors."""
    feeds = {t.tensor_name: pair[t.meaning] for t in contract.inputs}
    names = [t.tensor_name for t in contract.outputs]
    try:
        return _run_openvino(onnx_path, contract, feeds)
    except ImportError:
        pass
    try:
        import onnxruntime
    except ImportError as exc:
        raise ToolchainError(
            "ONNX: neither openvino nor onnxruntime is installed to run the model; run `make setup`"
        ) from exc
    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    values = session.run(names, feeds)
    return {
        **{t.meaning: v for t, v in zip(contract.outputs, values)},
        "engine": f"onnxruntime {onnxruntime.__version__}",
    }


def _run_openvino(onnx_path: Path, contract: GraphContract, feeds: Dict[str, np.ndarray]) -> Dict[str, Any]:
    silence_openvino()
    from openvino.runtime import Core, get_version

    threads = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": os.cpu_count() or 1}
    compiled = Core().compile_model(str(onnx_path), "CPU", threads)
    values = compiled(feeds)
    by_name = {name: values[port] for port in compiled.outputs for name in port.get_names()}
    return {**{t.meaning: by_name[t.tensor_name] for t in contract.outputs}, "engine": f"openvino {get_version()}"}


def main(argv: Optional[List[str]] = None) -> int:
    """The worker process; not a command for users."""
    parser = argparse.ArgumentParser(
        prog="export.onnx_model", description="Worker of python -m export: converts, checks and runs."
    )
    for name in ("pb", "contract", "onnx", "feeds", "results"):
        parser.add_argument("--" + name, type=Path, required=True, help="a path (required)")
    args = parser.parse_args(argv)
    return run_main(lambda: _work(args), _PROG)


def _work(args: argparse.Namespace) -> int:
    contract = GraphContract.load(args.contract)
    convert(args.pb, contract, args.onnx)
    with np.load(str(args.feeds), allow_pickle=False) as pair:
        results = run_onnx(args.onnx, contract, {name: pair[name] for name in pair.files})
    np.savez(str(args.results), **results)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
