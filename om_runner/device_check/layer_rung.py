# SPDX-License-Identifier: Apache-2.0
"""The rung of layers: every tensor of the small network dumped by the device, beside the simulator's and TensorFlow's."""

from __future__ import annotations

import csv
import io
import os
import shutil
from typing import Any, Dict, Optional, Sequence

import numpy as np

from om_runner.device_check.climb import Climb
from om_runner.device_check.network import SMALL_SHAPE, Exported, both, copied, exported, why_no_export
from om_runner.device_check.sides import Compiled
from om_runner.device_check.tensorflow import run_graph, why_missing
from om_runner.layers.device import Device as DumpingDevice
from om_runner.layers.dumpfiles import dumped_tensor, index_dumps
from om_runner.layers.judge import DEFAULT_LAYER_LIMIT
from om_runner.layers.matching import NET_OUTPUT, GoldenGraph, Layer, layers_of
from vxm_convert.artifacts.files import write_text
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, NOT_DONE, Point
from vxm_convert.formats.dump import read_dump
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_graph import read_graph
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS
from vxm_convert.toolchain.prediction import Prediction

CSV_NAME = "layers.csv"


def layers(climb: Climb) -> None:
    """Every tensor of the small network on the device, against the simulator's and TensorFlow's."""
    missing = why_no_export(climb, SMALL_SHAPE)
    if missing:
        climb.emit(Point("layers of the network", NOT_DONE, "", missing))
        return
    made = exported(climb, "network", SMALL_SHAPE)
    ours, foreseen = both(climb, made, "network", PLANS["balanced"])
    graph = GoldenGraph(read_graph(made.pb))
    mine = _layers(ours, made.contract, graph)
    found = _dumped(climb, ours, made, list(mine.values()))
    theirs = _layers(foreseen, made.contract, graph)
    wanted = {f"{layer.op}:{layer.output}": name for name, layer in theirs.items() if name in found}
    predicted = {
        wanted[tensor]: value for tensor, value in Prediction(foreseen.om_path).tensors(made.feeds, list(wanted))
    }
    truth: Dict[str, np.ndarray] = {}
    if not why_missing(climb):
        names = [name for name in found if name in predicted]
        truth, _ = run_graph(climb, copied(climb, made), made.feeds, names)
    rows = [
        _row(name, mine[name], found[name], predicted[name], truth.get(name)) for name in found if name in predicted
    ]
    write_text(climb.folder("layers") / CSV_NAME, _csv(rows))
    climb.emit(_layers_point(rows, len(mine)))


def _layers(compiled: Compiled, contract: GraphContract, graph: GoldenGraph) -> Dict[str, Layer]:
    """Tensor of the frozen graph → the operator that computes it, in execution order."""
    om = read_om(compiled.om_path)
    named = [layer for layer in layers_of(om.graph, om.attrs, contract, graph) if layer.type != NET_OUTPUT]
    return {layer.golden: layer for layer in named if layer.golden is not None}


def _dumped(climb: Climb, ours: Compiled, made: Exported, wanted: Sequence[Layer]) -> Dict[str, np.ndarray]:
    feeds = {spec.meaning: made.feeds[spec.node] for spec in made.contract.inputs}
    device, om = climb.device, read_om(ours.om_path)
    work = climb.folder("layers", f"dump-{os.getpid()}")
    with device.around():
        dumping = DumpingDevice(device.acl, _Model(ours), om.name, device.number, feeds, work)  # type: ignore[arg-type]
        folder = dumping.dump(list(dict.fromkeys(layer.op for layer in wanted)))
    files = index_dumps(folder, wanted)
    result = {}
    for layer in wanted:
        if layer.op in files:
            data = dumped_tensor(read_dump(files[layer.op]), layer, str(files[layer.op]))
            result[str(layer.golden)] = np.array(data)
    shutil.rmtree(str(work), ignore_errors=True)
    return result


class _Model:
    """What the dumping device needs of an offline model."""

    def __init__(self, compiled: Compiled) -> None:
        self.om_path = compiled.om_path
        self.contract = compiled.contract


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Relative Euclidean distance, in float64."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    size = float(np.sqrt((b**2).sum()))
    return float(np.sqrt(((a - b) ** 2).sum())) / size if size else float(np.abs(a).max(initial=0.0))


def _row(
    name: str, layer: Layer, found: np.ndarray, predicted: np.ndarray, truth: Optional[np.ndarray]
) -> Dict[str, Any]:
    same = found.shape == predicted.shape
    equal = float(np.mean(found == predicted)) if same else 0.0
    return {
        "tensor": name,
        "operator": layer.op,
        "type": layer.type,
        "dtype": layer.desc.dtype,
        "equal_share": equal,
        "from_simulator": _distance(found, predicted) if same else float("inf"),
        "from_tensorflow": None if truth is None else _distance(found, truth),
        "simulator_from_tensorflow": None if truth is None else _distance(predicted, truth),
        "jumps": layer.jumps,
    }


def _csv(rows: Sequence[Dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _layers_point(rows: Sequence[Dict[str, Any]], total: int) -> Point:
    name = "layers of the network at 32×48×48, balanced"
    # A step function may flip where its input differs by a rounding.
    beyond = [row for row in rows if row["from_simulator"] > DEFAULT_LAYER_LIMIT and not row["jumps"]]
    worst = max((row["from_simulator"] for row in rows), default=0.0)
    equal = sum(row["equal_share"] == 1.0 for row in rows)
    predicted = f"every relative Euclidean distance from the simulator at most {DEFAULT_LAYER_LIMIT:g}"
    if not rows:
        return Point(name, DIFFERS, predicted, "the device dumped no tensor of a known operator", "layers")
    summary = f"{len(rows)} of {total} tensors dumped, {equal} equal to the bit, largest distance {worst:.2g}"
    if beyond:
        first = beyond[0]
        summary += (
            f"; the first beyond it is {first['tensor']} ({first['type']} {first['operator']}, {first['dtype']}): "
        )
        summary += f"{first['from_simulator']:.2g}"
    return Point(name, DIFFERS if beyond else AS_PREDICTED, predicted, summary, "layers")
