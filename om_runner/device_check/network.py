# SPDX-License-Identifier: Apache-2.0
"""The rungs of the whole network: exported, compiled for both plans, run with phantoms."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from om_runner.device_check.climb import Climb
from om_runner.device_check.sides import Compiled, run_atc
from om_runner.device_check.tensorflow import run_graph, why_missing
from om_runner.precision.reference import reference_python
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, MEASURED, NOT_DONE, Point
from vxm_convert.errors import ArtifactError, ToolchainError
from vxm_convert.metrics.registration import end_point_error
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS, PrecisionPlan
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, make_subject
from vxm_convert.toolchain.find import Toolchain
from vxm_convert.toolchain.prediction import Prediction
from vxm_convert.weights.box import WORD, checkpoint_or_box

SMALL_SHAPE = "32,48,48"
_VARIANT = "vm2"
_PLANS = ("balanced", "fast")
_SEED = 7
_EXPORT_SECONDS = 1500.0
_ATC_SECONDS = 1800.0
_ROOT = Path(__file__).resolve().parents[2]
#: the device's error is that of the simulator within this factor, or is below the floor in voxels
_FACTOR, _FLOOR = 2.0, 0.005
#: without TensorFlow, the largest 99.9th percentile of the difference from the simulator, voxels
_DIRECT = 0.05


@dataclass(frozen=True)
class Exported:
    """A frozen graph with its contract, and the inputs of one execution by node."""

    folder: Path
    contract: GraphContract
    feeds: Dict[str, np.ndarray]

    @property
    def pb(self) -> Path:
        return self.folder / FROZEN_PB_NAME


def network(climb: Climb) -> None:
    """At 32×48×48, where an export takes seconds."""
    _whole(climb, "network", SMALL_SHAPE)


def full_size(climb: Climb) -> None:
    """At the size of real scans."""
    _whole(climb, "full_size", climb.request.shape)


def _whole(climb: Climb, rung: str, shape: str) -> None:
    missing = why_no_export(climb, shape)
    if missing:
        climb.emit(Point(f"{rung}: the network at {shape}", NOT_DONE, "", missing))
        return
    made = exported(climb, rung, shape)
    truth = None if why_missing(climb) else _truth(climb, made)
    for name in _PLANS:
        ours, foreseen = both(climb, made, rung, PLANS[name])
        found, seconds = _run(climb, ours, made)
        predicted = _renamed(made.contract, Prediction(foreseen.om_path).outputs(made.feeds))
        climb.emit(_error_point(f"{rung}, {name}", found, predicted, truth))
        text = f"{1e3 * seconds[0]:.1f} ms, later {1e3 * min(seconds[1:]):.1f} ms"
        mark = " (SIMULATED: this machine's CPU)" if climb.simulated else ""
        climb.emit(Point(f"{rung}, {name}: first execution", MEASURED, "", text + mark))


def why_no_export(climb: Climb, shape: str) -> str:
    given = climb.request.exported
    if given is not None:
        wanted = tuple(int(n) for n in shape.split(","))
        there = GraphContract.load(Path(given) / CONTRACT_NAME).model.volume_shape
        return "" if tuple(there) == wanted else f"--exported has the shape {there}, this rung needs {wanted}"
    missing = why_missing(climb)
    return f"an export needs TensorFlow 1.15, or pass --exported: {missing}" if missing else ""


def exported(climb: Climb, rung: str, shape: str) -> Exported:
    folder = climb.folder(rung) / "export"
    if climb.request.exported is not None:
        folder = Path(climb.request.exported)
    elif not (folder / CONTRACT_NAME).is_file():
        _export(climb, folder, shape)
    contract = GraphContract.load(folder / CONTRACT_NAME)
    if not (folder / FROZEN_PB_NAME).is_file():
        raise ArtifactError(f"{folder}: has no {FROZEN_PB_NAME}; pass a folder that `python -m export` wrote")
    return Exported(folder, contract, _feeds(contract))


def _export(climb: Climb, folder: Path, shape: str) -> None:
    """A process of its own: the stages never import each other, and TensorFlow may be in another Python."""
    command = [
        reference_python(climb.request.reference_python), "-m", "export",
        "--checkpoint", str(checkpoint_or_box(Path(WORD), _VARIANT)), "--variant", _VARIANT, "--shape", shape,
        "--precision", "balanced", "--skip-onnx", "--toolchain", "sim", "--out", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(str(folder.parent / "export.log"), "wb") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, timeout=_EXPORT_SECONDS
        )
    if done.returncode:
        said = (folder.parent / "export.log").read_text(encoding="utf-8", errors="replace")
        raise ToolchainError(f"export ended with exit code {done.returncode}: {said[-600:]}")


def _feeds(contract: GraphContract) -> Dict[str, np.ndarray]:
    """A phantom and its atlas, in every place of the batch."""
    settings = PhantomSettings(contract.model.volume_shape, 1, _SEED)
    images = {"moving": make_subject(settings, 0).vol, "fixed": make_atlas(settings).vol}
    feeds = {}
    for spec in contract.inputs:
        image = (images[spec.meaning].astype(np.float32) / contract.intensity.scale)[np.newaxis, ..., np.newaxis]
        feeds[spec.node] = np.ascontiguousarray(np.broadcast_to(image, spec.shape))
    return feeds


def _truth(climb: Climb, made: Exported) -> Dict[str, np.ndarray]:
    names = {spec.tensor_name: spec.meaning for spec in made.contract.outputs}
    found, _ = run_graph(climb, copied(climb, made), made.feeds, list(names))
    return {names[tensor]: value for tensor, value in found.items()}


def copied(climb: Climb, made: Exported) -> Path:
    """The graph in our own folder, where the contract for TensorFlow's process may lie beside it."""
    path = climb.folder("tensorflow") / f"{made.folder.parent.name}.pb"
    shutil.copyfile(str(made.pb), str(path))
    return path


def both(climb: Climb, made: Exported, rung: str, plan: PrecisionPlan) -> Tuple[Compiled, Compiled]:
    """(device's, prediction's); one compilation where both are the same simulator."""
    device = climb.device
    with device.around():
        ours = _compile(made, climb.folder(rung, plan.name), device.toolchain, device.soc_version, plan)
    predictor = climb.predictor
    if device.toolchain == predictor.toolchain and device.soc_version == predictor.soc_version:
        return ours, ours
    folder = climb.folder("predicted", rung, plan.name)
    return ours, _compile(made, folder, predictor.toolchain, predictor.soc_version, plan)


def _compile(made: Exported, folder: Path, toolchain: Toolchain, soc: str, plan: PrecisionPlan) -> Compiled:
    contract = replace(made.contract, precision=plan, soc_version=soc)
    shutil.copyfile(str(made.pb), str(folder / FROZEN_PB_NAME))
    shapes = ";".join(f"{t.node}:{','.join(str(n) for n in t.shape)}" for t in contract.inputs)
    arguments = [
        "--model=" + FROZEN_PB_NAME,
        "--framework=3",
        "--output=network",
        "--soc_version=" + soc,
        "--input_shape=" + shapes,
        "--out_nodes=" + ";".join(t.tensor_name for t in contract.outputs),
        "--precision_mode=" + plan.mode,
    ]
    seconds = run_atc(toolchain, arguments, folder, _ATC_SECONDS)
    models = sorted(folder.glob("network*.om"))
    if len(models) != 1:
        raise ToolchainError(f"ATC left {len(models)} offline models of the network, expected 1")
    return Compiled(models[0], contract, seconds)


def _run(climb: Climb, compiled: Compiled, made: Exported) -> Tuple[Dict[str, np.ndarray], List[float]]:
    feeds = {spec.meaning: made.feeds[spec.node] for spec in made.contract.inputs}
    with climb.device.opened(compiled) as runtime:
        results = [runtime.run(dict(feeds)) for _ in range(3)]
    return dict(results[0].outputs), [result.device_seconds for result in results]


def _renamed(contract: GraphContract, by_node: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {spec.meaning: by_node[spec.node] for spec in contract.outputs}


def _error_point(
    name: str, found: Dict[str, np.ndarray], predicted: Dict[str, np.ndarray], truth: Optional[Dict[str, np.ndarray]]
) -> Point:
    """The error of the flow, and of the simulator's, against TensorFlow; without it, their difference."""
    gap = _errors(found, predicted)
    if truth is None:
        state = AS_PREDICTED if gap[0] <= _DIRECT else DIFFERS
        return Point(
            f"{name}: device against simulator", state, f"p99.9 at most {_DIRECT} voxel", _text(gap), "network_error"
        )
    device, simulator = _errors(found, truth), _errors(predicted, truth)
    good = all(mine <= max(_FACTOR * other, _FLOOR) for mine, other in zip(device, simulator))
    found_text = f"{_text(device)}; device against simulator: {_text(gap)}"
    return Point(
        f"{name}: error against TensorFlow",
        AS_PREDICTED if good else DIFFERS,
        _text(simulator),
        found_text,
        "network_error",
    )


def _errors(one: Dict[str, np.ndarray], other: Dict[str, np.ndarray]) -> Tuple[float, float]:
    """99.9th percentile of the flow's error in voxels, largest error of the moved image."""
    flow = end_point_error(one["flow"][0], other["flow"][0])
    moved = np.abs(one["moved"].astype(np.float64) - other["moved"].astype(np.float64))
    return float(flow.p999), float(moved.max())


def _text(errors: Tuple[float, float]) -> str:
    return f"flow p99.9 {errors[0]:.4f} voxel, moved max {errors[1]:.1e}"
