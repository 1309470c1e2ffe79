# SPDX-License-Identifier: Apache-2.0
"""The rungs of time and repetition: how calls overlap, copies, first and later executions, equal bits, memory."""

from __future__ import annotations

import hashlib
import statistics
import time
from typing import Any, Dict, List, Set

import numpy as np

from om_runner.device.measured import MeasuredRuntime, Split, count_speed
from om_runner.device_check.climb import Climb
from om_runner.device_check.probes.probe import Probe
from om_runner.device_check.probes.sampling import warp_probes
from vxm_convert.ascend.chips import chip_of
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, MEASURED, Point

REPEATS = 20
_COPY_BYTES, _SHORT_COPY_BYTES = 256 << 20, 16 << 20
_SPEED_SECONDS = 0.05
#: a call that returns within this share of the whole is asynchronous; another thread that keeps half of its speed runs
_RETURNED, _OTHERS = 0.5, 0.5
#: rates within this factor of the table are as predicted
_FACTOR = 2.0
_MIB = 1 << 20


def timing(climb: Climb) -> None:
    """Overlap of execute_async with Python, copies, first and later executions, memory of a model."""
    probe = warp_probes()[0]
    compiled = climb.compiled(probe)
    feeds: Dict[str, Any] = dict(probe.feeds)
    started = time.perf_counter()
    with climb.device.opened(compiled) as runtime:
        loaded = time.perf_counter() - started
        first = runtime.run(dict(feeds)).device_seconds
        later = [runtime.run(dict(feeds)).device_seconds for _ in range(REPEATS // 2)]
        splits = _splits(runtime, feeds)
        rates = runtime.copy_rates(_SHORT_COPY_BYTES if climb.request.short else _COPY_BYTES)
        needs, memory = runtime.model_bytes(), runtime.memory()
    text = f"loaded in {1e3 * loaded:.0f} ms, first {1e3 * first:.2f} ms, later {1e3 * statistics.median(later):.2f} ms"
    climb.emit(Point("first and later executions of the warp", MEASURED, "", _marked(climb, text)))
    for point in _overlap_points(climb, splits):
        climb.emit(point)
    for way, rate in rates.items():
        climb.emit(_rate_point(climb, way, rate))
    free = "" if memory is None else f"; {memory['free'] / _MIB:.0f} MiB of the device are free"
    climb.emit(
        Point(
            "memory of the warp's model",
            MEASURED,
            "",
            f"{needs['work'] / _MIB:.1f} MiB to work in, {needs['weights'] / _MIB:.2f} MiB of weights{free}",
        )
    )


def _splits(runtime: MeasuredRuntime, feeds: Dict[str, Any]) -> List[Split]:
    speed = count_speed(_SPEED_SECONDS)
    splits = []
    for _ in range(REPEATS // 2):
        staged: Any = runtime.stage(dict(feeds))
        splits.append(runtime.split(staged, speed))
        runtime.fetch(runtime.collect(staged))
    return splits


def _overlap_points(climb: Climb, splits: List[Split]) -> List[Point]:
    returned = statistics.median(split.returned / split.done for split in splits)
    others = statistics.median(split.others for split in splits)
    words = f"execute_async returned after {100 * returned:.0f} % of the execution"
    kept = f"another Python thread kept {100 * others:.0f} % of its speed meanwhile"
    if climb.simulated:
        # The simulated device uses the same processors and the same interpreter as that thread.
        return [Point("overlap of execution and Python", MEASURED, "", _marked(climb, f"{words}; {kept}"))]
    return [
        Point(
            "execute_async",
            AS_PREDICTED if returned <= _RETURNED else DIFFERS,
            "returns before the work is done",
            words,
            "asynchronous",
        ),
        Point(
            "synchronize_stream and Python's lock",
            AS_PREDICTED if others >= _OTHERS else DIFFERS,
            "lets other Python threads run",
            kept,
            "asynchronous",
        ),
    ]


def _rate_point(climb: Climb, way: str, rate: float) -> Point:
    name = f"copies {way.replace('_', ' ')}"
    found = f"{rate / 1e9:.2f} GB/s"
    chip = chip_of(climb.device.soc_version)
    if climb.simulated or chip is None or chip.speed is None:
        return Point(name, MEASURED, "", _marked(climb, found))
    expected = chip.speed.link_gbs * 1e9
    state = AS_PREDICTED if 1 / _FACTOR <= rate / expected <= _FACTOR else DIFFERS
    return Point(name, state, f"{chip.speed.link_gbs:g} GB/s", found, "copy_speed")


def _marked(climb: Climb, text: str) -> str:
    return f"{text} (SIMULATED: this machine's CPU)" if climb.simulated else text


def steadiness(climb: Climb) -> None:
    """The same inputs many times, in one load and after loading again."""
    for probe in warp_probes()[: 1 if climb.request.short else None]:
        climb.emit(_steady_point(climb, probe))


def _steady_point(climb: Climb, probe: Probe) -> Point:
    compiled = climb.compiled(probe)
    seen: Set[str] = set()
    for repeats in (REPEATS - 1, 1):
        with climb.device.opened(compiled) as runtime:
            for _ in range(repeats):
                seen.add(_digest(runtime.run(dict(probe.feeds)).outputs))
    name = f"{probe.name}, {probe.mode}: {REPEATS} executions, the last after loading again"
    found = "all bits are equal" if len(seen) == 1 else f"{len(seen)} different results"
    return Point(name, AS_PREDICTED if len(seen) == 1 else DIFFERS, "all bits are equal", found, "determinism")


def _digest(outputs: Dict[str, np.ndarray]) -> str:
    sums = hashlib.sha256()
    for name in sorted(outputs):
        sums.update(np.ascontiguousarray(outputs[name]).tobytes())
    return sums.hexdigest()
