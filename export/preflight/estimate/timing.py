# SPDX-License-Identifier: Apache-2.0
"""ESTIMATE of a graph's time on a chip, layer by layer, and of what a batch costs and takes. A model, never a
measurement.

A kernel takes the longest of what its parts take (cube unit, vector units, memory, gathering) and starts once per step;
kernels, conversions and copies over the host link add up. Every figure behind it is in `speeds`. What it is good for:
comparing two graphs, finding layers that are out of proportion, choosing a batch. Absolute milliseconds may be off by
a factor of several until somebody measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from export.preflight.estimate.speeds import (
    BURST,
    CONTROL_LAUNCH,
    CPU_BYTES,
    CPU_ELEMENTS,
    CPU_LAUNCH,
    LAUNCH,
    PART_SECONDS,
    PARTS_PER_KERNEL,
    Device,
    assumptions,
    device_of,
)
from export.preflight.estimate.work import CONTROL, COPY, CPU, Work, list_work
from export.preflight.view.graph import GraphView
from export.preflight.view.memory import MemoryEstimate
from vxm_convert.ascend.chips import chip_of
from vxm_convert.ascend.limits import CHANNEL_BLOCK, COMFORTABLE_SHARE

BATCHES = (1, 2, 4, 8)
#: stands for the fixed image, as every graph of ours names it
RESIDENT = ("fixed",)
#: a smaller batch is preferred to one that gains less than this share per scan: it waits and takes less
WORTH = 0.01
LABEL = "ESTIMATE"
NOTE = "ESTIMATE by a model of the chip, not a measurement; no device took part"


@dataclass(frozen=True)
class LayerTime:
    """One kernel, conversion or copy: seconds of all its steps in one run, and which part of the chip decides."""

    node: str
    op: str
    kind: str
    bound: str
    steps: int
    seconds: float
    flop: int
    nbytes: int


@dataclass(frozen=True)
class BatchEstimate:
    """One batch size: seconds of a run, bytes on the device, and whether they fit with some room (None: memory not
    known).
    """

    batch: int
    seconds: float
    memory: int
    fits: Optional[bool]

    @property
    def ms_per_scan(self) -> float:
        return self.seconds * 1e3 / self.batch


@dataclass(frozen=True)
class TimeEstimate:
    """Layers in execution order at the graph's own batch, the table of batches, and what is not known.

    `recommended`: the batch to take, None where the graph's own batch is unknown or nothing fits. `unknown`: layers
    with an unknown shape, which count too little. `endless`: loops of unknown length, counted as one step.
    """

    device: Device
    batch: Optional[int]
    layers: Tuple[LayerTime, ...]
    batches: Tuple[BatchEstimate, ...]
    recommended: Optional[int]
    unknown: int
    endless: Tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(layer.seconds for layer in self.layers)

    def kinds(self) -> Dict[str, float]:
        """Seconds per kind, longest first."""
        totals: Dict[str, float] = {}
        for layer in self.layers:
            totals[layer.kind] = totals.get(layer.kind, 0.0) + layer.seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def slowest(self, number: int) -> List[LayerTime]:
        return sorted(self.layers, key=lambda layer: -layer.seconds)[:number]

    def to_dict(self) -> Dict[str, Any]:
        return {
            "label": NOTE,
            "soc_version": self.device.soc_version,
            "figures_of": self.device.figures_of,
            "batch": self.batch,
            "seconds": self.seconds,
            "kinds": self.kinds(),
            "unknown_layers": self.unknown,
            "unknown_loops": list(self.endless),
            "batches": [{**vars(row), "ms_per_scan": row.ms_per_scan} for row in self.batches],
            "recommended_batch": self.recommended,
            "layers": [vars(layer) for layer in self.layers],
            "assumptions": [
                {"what": what, "value": value, "source": source} for what, value, source in assumptions(self.device)
            ],
        }


def estimate_time(
    view: GraphView,
    dtypes: Dict[str, Tuple[str, str]],
    soc_version: str,
    memory: MemoryEstimate,
    batches: Sequence[int] = BATCHES,
    resident: Tuple[str, ...] = RESIDENT,
) -> TimeEstimate:
    """Estimate one run of a graph, and of the same graph at other batch sizes.

    Parameters
    ----------
    dtypes : dict — as `float_dtypes` gives them.
    memory : MemoryEstimate — of the same graph.
    batches : sequence of int — sizes for the table; the graph's own is added.
    resident : tuple of str — inputs that are not copied at each run.
    """
    device = device_of(soc_version)
    works, loops = list_work(view, dtypes, memory.batch, resident)
    layers = tuple(_layer(work, device) for work in works)
    rows: Tuple[BatchEstimate, ...] = ()
    if memory.batch is not None and memory.batch > 0:
        chip = chip_of(soc_version)
        rows = tuple(
            _batch(works, device, memory, size, chip.memory if chip else None)
            for size in sorted({*batches, memory.batch})
        )
    # Borrowed speeds say nothing about which batch pays.
    taken = recommend(rows) if device.known else None
    return TimeEstimate(device, memory.batch, layers, rows, taken, sum(work.unknown for work in works), loops.unknown)


def recommend(rows: Sequence[BatchEstimate]) -> Optional[int]:
    """The smallest batch whose time per scan is within `WORTH` of the best of those that fit; None where none is known
    to fit.
    """
    fitting = [row for row in rows if row.fits]
    best = min((row.ms_per_scan for row in fitting), default=0.0)
    return min((row.batch for row in fitting if row.ms_per_scan <= best * (1 + WORTH)), default=None)


def _batch(
    works: Sequence[Work], device: Device, memory: MemoryEstimate, size: int, available: Optional[int]
) -> BatchEstimate:
    scale = size / memory.batch  # type: ignore[operator]
    seconds = sum(_times(work, device, scale)[0] for work in works)
    taken = memory.weights + (memory.edges + memory.peak) * size // memory.batch  # type: ignore[operator]
    fits = None if available is None or memory.unknown else taken <= available * COMFORTABLE_SHARE
    return BatchEstimate(size, seconds, taken, fits)


def _layer(work: Work, device: Device) -> LayerTime:
    seconds, bound = _times(work, device, 1.0)
    nbytes = work.nbytes + work.constant + work.rows * work.row_bytes + work.link
    return LayerTime(
        work.name,
        work.op,
        work.kind,
        bound,
        work.steps,
        seconds,
        2 * work.positions * work.products * work.steps,
        nbytes * work.steps,
    )


def _times(work: Work, device: Device, scale: float) -> Tuple[float, str]:
    """Seconds in one run and what they are spent on, with `scale` times the graph's batch."""
    if work.kind == COPY:
        return work.link * scale / device.link, "host link"
    steps, grow = (work.steps * scale, 1.0) if work.per_pair else (work.steps, scale)
    if work.kind == CONTROL:
        return steps * CONTROL_LAUNCH, "start"
    if work.kind == CPU:
        busy = work.cpu_elements * grow / CPU_ELEMENTS if work.cpu_elements else work.nbytes * grow / CPU_BYTES
        return steps * (CPU_LAUNCH + busy), "AI CPU" if busy > CPU_LAUNCH else "start"
    parts = _parts(work, device, grow)
    kernels = -(-work.parts // PARTS_PER_KERNEL)
    overhead = kernels * LAUNCH + (work.parts * PART_SECONDS if work.parts > 2 else 0.0)
    bound = max(parts, key=lambda name: parts[name])
    return steps * (parts[bound] + overhead), bound if parts[bound] > overhead else "start"


def _parts(work: Work, device: Device, grow: float) -> Dict[str, float]:
    """Seconds of each part of the chip for one step."""
    positions = -(-int(work.positions * grow) // CHANNEL_BLOCK) * CHANNEL_BLOCK
    gathered = work.rows * grow
    nbytes = work.nbytes * grow + work.constant + gathered * max(work.row_bytes, BURST if work.rows else 0)
    return {
        "memory": nbytes / device.memory,
        "cube unit": positions * work.products / device.cube,
        "vector units": work.vector * grow / device.vector,
        "gathering": gathered * work.row_cycles / device.cycles,
    }
