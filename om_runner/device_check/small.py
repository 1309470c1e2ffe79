# SPDX-License-Identifier: Apache-2.0
"""The rungs of the small graphs: compile, run, judge; and TensorFlow's opinion about the same graphs."""

from __future__ import annotations

import logging
import statistics
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from om_runner.device.runtime import RunResult
from om_runner.device_check.climb import Climb
from om_runner.device_check.judge import judge, operator_point, refusal
from om_runner.device_check.probes.convolution import conv_probes, leaky_probes
from om_runner.device_check.probes.probe import Probe
from om_runner.device_check.probes.sampling import SHORT_ROWS, WHOLE_ROWS, gather_probes, warp_probes
from om_runner.device_check.sides import Compiled, compile_probe, next_step
from om_runner.device_check.tensorflow import run_graph, why_missing
from vxm_convert.ascend.chips import chip_of
from vxm_convert.device_check.assumptions import BY_KEY
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, MEASURED, NOT_DONE, Point
from vxm_convert.errors import AtcError, ToolchainError, VxmError
from vxm_convert.formats.om import read_om

LOG = logging.getLogger(__name__)

#: cycles of one core per gathered row, as the estimate assumes
_GATHER_CYCLES = 20
_REPEATS = 3
#: a time is as estimated within this factor
_FACTOR = 2.0
#: parts that TensorFlow's fp32 gives exactly, or within the tolerance of the part
_SAME_IN_FP32 = ("geometry", "floor", "cast", "vector_fp32", "indices")


def conv3d(climb: Climb) -> None:
    for probe in conv_probes():
        climb_probe(climb, probe)


def leaky_relu(climb: Climb) -> None:
    for probe in leaky_probes():
        climb_probe(climb, probe)


def warp(climb: Climb) -> None:
    for probe in warp_probes():
        climb_probe(climb, probe)


def gather(climb: Climb) -> None:
    """Also the time per row, which the estimate of the warp rests on."""
    rows = SHORT_ROWS if climb.request.short else WHOLE_ROWS
    for probe in gather_probes(rows):
        times = climb_probe(climb, probe, _REPEATS)
        if times:
            climb.emit(_gather_point(climb, rows, statistics.median(times)))


def climb_probe(climb: Climb, probe: Probe, repeats: int = 1) -> List[float]:
    """Compile and run a probe on both sides and report; returns the device's seconds, none if it did not run."""
    device = climb.device
    try:
        compiled = climb.compiled(probe)
    except AtcError as exc:
        climb.emit(refusal(probe, str(exc), next_step(exc), _refused_by_prediction(climb, probe)))
        return []
    name = f"{probe.name}, {probe.mode}"
    climb.emit(
        Point(f"{name}: compiled by ATC", AS_PREDICTED, "compiled", f"compiled in {compiled.seconds:.1f} s", "accepted")
    )
    foreseen = climb.predicted(probe, compiled)
    climb.emit(operator_point(probe, read_om(compiled.om_path), read_om(foreseen.om_path)))
    results = _run(climb, compiled, probe, repeats)
    predicted = _predicted(climb, foreseen, probe)
    found = dict(results[0].outputs)
    points = judge(probe, found, predicted)
    for point in points:
        climb.emit(point)
    if any(point.state in (DIFFERS, FAILED) for point in points):
        arrays = {f"found_{node}": value for node, value in found.items()}
        arrays.update({f"predicted_{node}": value for node, value in (predicted or {}).items()})
        arrays.update({f"input_{node}": value for node, value in probe.feeds.items()})
        climb.keep(f"{probe.name}-{probe.mode}", **arrays)
    return [result.device_seconds for result in results] if device else []


def _run(climb: Climb, compiled: Compiled, probe: Probe, repeats: int) -> List[RunResult]:
    with climb.device.opened(compiled) as runtime:
        return [runtime.run(dict(probe.feeds)) for _ in range(repeats)]


def _predicted(climb: Climb, foreseen: Compiled, probe: Probe) -> Optional[Dict[str, np.ndarray]]:
    """None where the simulator has no engine to run on; NumPy's account is left."""
    try:
        return climb.predictor.run(foreseen, probe.feeds)
    except ToolchainError as exc:
        LOG.warning("no prediction: %s", exc)
        return None


def _refused_by_prediction(climb: Climb, probe: Probe) -> str:
    """The simulated ATC's words if it refuses the graph too, else ""."""
    folder = climb.work / "predicted" / f"{probe.name}-{probe.mode}"
    try:
        compile_probe(probe, climb.predictor.toolchain, climb.predictor.soc_version, folder)
    except VxmError as exc:
        return str(exc)
    return ""


def _gather_point(climb: Climb, rows: int, seconds: float) -> Point:
    name = f"gather: time of {rows:,} rows"
    found = f"{1e3 * seconds:.2f} ms"
    chip = chip_of(climb.device.soc_version)
    if climb.simulated or chip is None or chip.speed is None or chip.cores is None:
        whose = "SIMULATED: the time of this machine's CPU" if climb.simulated else "the chip's clock is not known"
        return Point(name, MEASURED, "", f"{found} ({whose})")
    cycles = seconds * chip.cores * chip.speed.ghz * 1e9 / rows
    state = AS_PREDICTED if 1 / _FACTOR <= cycles / _GATHER_CYCLES <= _FACTOR else DIFFERS
    text = f"{_GATHER_CYCLES} cycles of a core per row (an estimate)"
    return Point(name, state, text, f"{found}, {cycles:.1f} cycles of a core per row", "gather_speed")


def tensorflow(climb: Climb) -> None:
    """TensorFlow runs the graphs of the convolution, the warp and the gathering in fp32."""
    missing = why_missing(climb)
    if missing:
        climb.emit(Point("TensorFlow on the small graphs", NOT_DONE, "", missing))
        return
    for probe in [conv_probes()[0], warp_probes()[0]] + gather_probes(SHORT_ROWS):
        wanted = [part for part in probe.parts if part.assumption in _SAME_IN_FP32]
        path = _saved(climb, probe)
        outputs = list(dict.fromkeys(part.output for part in wanted))
        found, version = run_graph(climb, path, probe.feeds, [f"{node}:0" for node in outputs])
        for part in wanted:
            climb.emit(_tensorflow_point(probe, part.assumption, _gap(found, part), part.tolerance, version))


def _saved(climb: Climb, probe: Probe) -> Path:
    return probe.graph.save(climb.folder("tensorflow") / f"{probe.name}.pb")


def _gap(found: Dict[str, np.ndarray], part: object) -> Tuple[float, int]:
    """(largest difference, number of values)."""
    value = found[f"{part.output}:0"][part.where].astype(np.float64)  # type: ignore[attr-defined]
    expected = part.expected  # type: ignore[attr-defined]
    return float(np.abs(value - expected).max()), value.size


def _tensorflow_point(probe: Probe, key: str, gap: Tuple[float, int], tolerance: float, version: str) -> Point:
    name = f"{probe.name}: {key} in TensorFlow {version}"
    text = f"{gap[1]} values, largest difference {gap[0]:.2g}"
    if gap[0] <= tolerance:
        return Point(name, AS_PREDICTED, BY_KEY[key].text, text)
    advice = "NumPy's account is wrong, not the device: report this with the archive"
    return Point(name, FAILED, f"at most {tolerance:g} from NumPy", text, "", advice)
