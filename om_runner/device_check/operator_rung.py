# SPDX-License-Identifier: Apache-2.0
"""The rung of operators: the time of every operator of the small network, by acl.prof and msprof, beside the estimate."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from om_runner.device.profiled import ProfiledRuntime, find_msprof, operator_summaries
from om_runner.device_check.climb import Climb
from om_runner.device_check.network import SMALL_SHAPE, both, exported, why_no_export
from om_runner.layers.op_times import OpTime, estimates_beside, join, read_summaries, write_op_times
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, MEASURED, NOT_DONE, Point
from vxm_convert.formats.om import read_om
from vxm_convert.model.precision import PLANS

_RUNS = 5
#: an estimate may be off by this factor; its own page says so
_FACTOR = 5.0
_SHOWN = 5


def operators(climb: Climb) -> None:
    """A point per type of operator on a device, one for all of them on the simulator."""
    toolchain = climb.device.toolchain
    missing = why_no_export(climb, SMALL_SHAPE)
    if not missing and not toolchain.simulated and find_msprof(toolchain) is None:
        missing = "there is no msprof, which exports the times; it comes with the CANN toolkit"
    if missing:
        climb.emit(Point("time per operator", NOT_DONE, "", missing))
        return
    made = exported(climb, "network", SMALL_SHAPE)
    ours, _ = both(climb, made, "network", PLANS["balanced"])
    feeds = {spec.meaning: made.feeds[spec.node] for spec in made.contract.inputs}
    device, folder = climb.device, climb.folder("operators")
    with device.around():
        with ProfiledRuntime(device.acl, ours.om_path, ours.contract, device.number, folder / "profile") as runtime:
            for _ in range(_RUNS):
                runtime.run(dict(feeds))
    times = read_summaries(operator_summaries(folder / "profile", toolchain))
    joined = join(times, read_om(ours.om_path), estimates_beside(made.folder / Path(ours.om_path).name))
    write_op_times(folder, joined, climb.simulated)
    for point in points_of(joined, climb.simulated):
        climb.emit(point)


def points_of(times: Sequence[OpTime], simulated: bool) -> List[Point]:
    """The slowest types of operator, against the sums of their estimates."""
    if simulated:
        total = 1e3 * sum(entry.seconds for entry in times)
        slowest = ", ".join(f"{entry.operator} {1e3 * entry.seconds:.2f} ms" for entry in times[:3])
        text = f"{len(times)} operators, {total:.1f} ms: {slowest} (SIMULATED: this machine's CPU)"
        return [Point("time per operator", MEASURED, "", text)]
    sums: Dict[str, Tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for entry in times:
        taken, estimate = sums[entry.type]
        sums[entry.type] = (taken + entry.seconds, estimate + (entry.estimate or 0.0))
    ranked = sorted(sums.items(), key=lambda item: -item[1][0])
    return [_type_point(kind, taken, estimate) for kind, (taken, estimate) in ranked[:_SHOWN]]


def _type_point(kind: str, taken: float, estimate: float) -> Point:
    name, found = f"time of {kind}", f"{1e3 * taken:.3f} ms"
    if not estimate:
        return Point(name, MEASURED, "", f"{found}; the export has no estimate for it")
    state = AS_PREDICTED if 1 / _FACTOR <= taken / estimate <= _FACTOR else DIFFERS
    return Point(name, state, f"{1e3 * estimate:.3f} ms (ESTIMATE)", found, "kernel_speed")
