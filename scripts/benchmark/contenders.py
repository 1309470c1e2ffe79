# SPDX-License-Identifier: Apache-2.0
"""The engines that `inference` compares, each run in a process of its own: one warm-up, then one measured run.

Owns how a contender is loaded and run; knows no other contender and compares nothing. Seconds and CPU-seconds are those
of the run alone (for the simulated device with its copies to and from device memory), memory is the peak of the whole
process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np

from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, ONNX_NAME
from vxm_convert.cliargs import run_main
from vxm_convert.errors import EXIT_OK, ToolchainError
from vxm_convert.model.contract import GraphContract

if TYPE_CHECKING:
    from vxm_convert.network.tf1 import tf

Arrays = Dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
#: Behind every line of the worker's own; whatever engines print is not meant.
RESULT_MARK = "contender: "
_OUTPUTS = ("moved", "flow")


class Contender(NamedTuple):
    """What the table calls it, the package and the file beside the .om that it needs, how it is loaded, its
    environment.
    """

    title: str
    package: str
    file: str
    load: Callable[[Path, GraphContract], Run]
    environment: Dict[str, str]


def _tensors(contract: GraphContract) -> Dict[str, str]:
    return {
        tensor.meaning: f"{tensor.node}:{tensor.index}" for tensor in tuple(contract.inputs) + tuple(contract.outputs)
    }


def _in_tensorflow(graph_def: tf.GraphDef, names: Dict[str, str]) -> Run:
    from vxm_convert.network.tf1 import tf

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    session = tf.Session(graph=graph, config=tf.ConfigProto(intra_op_parallelism_threads=os.cpu_count() or 1))

    def run(pair: Arrays) -> Arrays:
        found = session.run([names[key] for key in _OUTPUTS], {names[key]: value for key, value in pair.items()})
        return dict(zip(_OUTPUTS, found))

    return run


def _recipe(model: Path, contract: GraphContract) -> Run:
    """The graph of the existing recipe, with the weights that stand in frozen.pb; a split kernel is put together
    again.
    """
    from scripts.benchmark import recipe
    from vxm_convert.formats.tf_graph import read_graph
    from vxm_convert.model.variables import expected_variables

    constants = {
        node.name: node.attrs["value"] for node in read_graph(model.with_name(FROZEN_PB_NAME)) if node.op == "Const"
    }
    weights = {
        name: constants[name] + constants.get(name + "_rest", np.float32(0))
        for name in expected_variables(contract.model)
    }
    graph_def, feeds, fetches = recipe.inference_graph(contract.model, weights)
    return _in_tensorflow(graph_def, {**feeds, **fetches})


def _frozen(model: Path, contract: GraphContract) -> Run:
    from vxm_convert.network.tf1 import tf

    graph_def = tf.GraphDef()
    graph_def.ParseFromString(model.with_name(FROZEN_PB_NAME).read_bytes())
    return _in_tensorflow(graph_def, _tensors(contract))


def _device(model: Path, contract: GraphContract) -> Run:
    from om_runner.device.acl_runtime import AclRuntime
    from vxm_convert.toolchain.find import find_toolchain

    runtime = AclRuntime(find_toolchain("sim").load_acl(), model, contract)
    runtime.__enter__()  # the process ends with it
    return lambda pair: runtime.run(pair).outputs


def _onnxruntime(model: Path, contract: GraphContract) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model.with_name(ONNX_NAME)), options, providers=["CPUExecutionProvider"])
    names = _tensors(contract)

    def run(pair: Arrays) -> Arrays:
        return dict(
            zip(
                _OUTPUTS,
                session.run([names[key] for key in _OUTPUTS], {names[key]: value for key, value in pair.items()}),
            )
        )

    return run


def _torch(model: Path, contract: GraphContract) -> Run:
    import onnx

    from scripts.benchmark.torch_graph import TorchGraph

    graph, names = TorchGraph(onnx.load(str(model.with_name(ONNX_NAME)))), _tensors(contract)

    def run(pair: Arrays) -> Arrays:
        found = graph.run({names[key]: value for key, value in pair.items()})
        return {key: found[names[key]] for key in _OUTPUTS}

    return run


CONTENDERS: Dict[str, Contender] = {
    "recipe": Contender("existing recipe's graph, TensorFlow", "tensorflow", FROZEN_PB_NAME, _recipe, {}),
    "frozen": Contender("frozen.pb, TensorFlow", "tensorflow", FROZEN_PB_NAME, _frozen, {}),
    "device": Contender("SIMULATED device", "onnx", CONTRACT_NAME, _device, {}),
    "unrounded": Contender(
        "SIMULATED, rounding and winograd off", "onnx", CONTRACT_NAME, _device, {"VXM_SIM_ROUNDING": "off"}
    ),
    "onnxruntime": Contender("vxm.onnx, ONNX Runtime", "onnxruntime", ONNX_NAME, _onnxruntime, {}),
    "torch": Contender("vxm.onnx, node by node in PyTorch", "torch", ONNX_NAME, _torch, {}),
}


def obstacle(name: str, model: Path) -> str:
    """Why a contender cannot take part here; empty if it can."""
    contender = CONTENDERS[name]
    if importlib.util.find_spec(contender.package) is None:
        return f"{contender.package} is not installed"
    return "" if model.with_name(contender.file).is_file() else f"{contender.file} is not beside the model"


def measure(run: Run, pair: Arrays) -> Dict[str, Any]:
    """Figures of the second of two runs, and its results under ``outputs``."""
    run(pair)
    wall, cpu = time.perf_counter(), time.process_time()
    outputs = run(pair)
    figures = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {**figures, "peak_bytes": peak, "outputs": outputs}


def build_parser() -> argparse.ArgumentParser:
    """Options of one contender's process."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark.contenders",
        description="Run one contender once; started by scripts.benchmark.inference.",
        epilog="exit codes: 0 done, 1 something to fix, 2 usage",
    )
    parser.add_argument("name", choices=list(CONTENDERS), help="which one")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FILE", help="the .om, everything else beside it (no default)"
    )
    parser.add_argument(
        "--pair", type=Path, required=True, metavar="FILE", help=".npz with moving and fixed (no default)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npz for moved and flow (no default)")
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code; the figures are the marked line on stdout."""
    args = build_parser().parse_args(argv)
    return run_main(lambda: _work(args), "contender")


def _work(args: argparse.Namespace) -> int:
    contender = CONTENDERS[args.name]
    contract = GraphContract.load(args.model.with_name(CONTRACT_NAME))
    try:
        version = _version(contender)
        run = contender.load(args.model, contract)
    except ImportError as exc:
        advice = f"pip install {contender.package}, or leave it out with --only"
        raise ToolchainError(f"{args.name}: cannot be loaded ({exc}); {advice}") from exc
    with np.load(str(args.pair), allow_pickle=False) as stored:
        pair = {key: stored[key] for key in ("moving", "fixed")}
    found = measure(run, pair)
    np.savez(str(args.out), **found.pop("outputs"))
    print(RESULT_MARK + json.dumps({**found, "version": version}), flush=True)
    return EXIT_OK


def _version(contender: Contender) -> str:
    if contender.load is _device:
        from scripts.numerics import versions

        return versions()["engine"]
    return f"{contender.package} {getattr(importlib.import_module(contender.package), '__version__', '')}".strip()


if __name__ == "__main__":
    sys.exit(main())
