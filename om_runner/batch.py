# SPDX-License-Identifier: Apache-2.0
"""The cohort loop: reads ahead, fills the model's static batch, runs it, writes each subject. A bad scan is a row, not the end."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from om_runner.outputs import Provenance
from om_runner.products import OutputOptions, Registered, Writer, register
from om_runner.scans import LoadedScan, OrientationWarner, Scan
from om_runner.store import CompareStore
from om_runner.tables import FailureRow, MetricsRow
from vxm_convert.contract import GraphContract
from vxm_convert.errors import ToolchainError, VolumeError, VxmError
from vxm_convert.labels import label_set
from vxm_convert.metrics import dice, folding

LOG = logging.getLogger(__name__)

#: a longest displacement below this is no registration: untrained weights, or the wrong input
_IDLE_FLOW_VOXEL = 0.05


@dataclass(frozen=True)
class CohortPlan:
    """What stays the same for every subject.

    Parameters
    ----------
    atlas : LoadedScan — the fixed image, network intensities.
    out : Path — output folder.
    label_set : str — name of the Dice label set.
    toolchain_badge : str — ``simulated`` or ``real``, a column of the table.
    provenance : Provenance — model, atlas and toolchain, for the side-cars.
    load : callable — Scan → LoadedScan with a placement.
    outputs : OutputOptions — what is written for each subject, in which space.
    """

    contract: GraphContract
    atlas: LoadedScan
    out: Path
    label_set: str
    toolchain_badge: str
    provenance: Provenance
    load: Callable[[Scan], LoadedScan]
    outputs: OutputOptions = OutputOptions()


@dataclass
class CohortResult:
    """Rows as they come in; complete up to the moment in which an error ended the loop."""

    rows: List[MetricsRow] = field(default_factory=list)
    failures: List[FailureRow] = field(default_factory=list)
    #: absolute path → sha256 of every file read, segmentations included
    inputs: Dict[str, str] = field(default_factory=dict)
    #: scans that went through the model, whatever became of their outputs
    n_run: int = 0


@dataclass(frozen=True)
class _Ready:
    loaded: LoadedScan
    read_seconds: float


class Cohort:
    """Registers scans one batch at a time; `result` is filled while it runs.

    Parameters
    ----------
    plan : CohortPlan
    store : CompareStore — takes arrays of the subjects to compare.
    progress : callable — called with 1 after every scan, done or failed.
    """

    def __init__(self, plan: CohortPlan, store: CompareStore, progress: Callable[[int], Any] = lambda n: None) -> None:
        self.plan = plan
        self.result = CohortResult()
        self._store = store
        self._progress = progress
        self._labels = label_set(plan.label_set)
        self._orientation = OrientationWarner(plan.contract)
        self._writer = Writer(plan.outputs, plan.atlas, plan.label_set)
        batch = plan.contract.model.batch
        # One array object for the whole run, so that the runtime leaves it on the device.
        self._fixed = np.repeat(plan.atlas.image[np.newaxis, ..., np.newaxis], batch, axis=0)

    def run(self, scans: Sequence[Scan], runtime: Any) -> None:
        """Register all scans with an open Runtime; raises ToolchainError when the device itself fails."""
        batch: List[_Ready] = []
        for scan, future in read_ahead(scans, self._timed_load, self.plan.contract.model.batch):
            ready = self._take(scan, future)
            if ready is not None:
                batch.append(ready)
            if len(batch) == self.plan.contract.model.batch:
                self._run_batch(batch, runtime)
                batch = []
        if batch:
            self._run_batch(batch, runtime)

    def _timed_load(self, scan: Scan) -> _Ready:
        start = time.perf_counter()
        return _Ready(self.plan.load(scan), time.perf_counter() - start)

    def _take(self, scan: Scan, future: Future[_Ready]) -> Optional[_Ready]:
        try:
            ready = future.result()
        except VxmError as exc:
            self._fail(scan, "read", exc)
            return None
        if ready.loaded.source is None:
            self._orientation.look(ready.loaded)
        self.result.inputs[os.path.abspath(str(scan.path))] = ready.loaded.sha256
        if ready.loaded.seg_sha256 is not None:
            self.result.inputs[os.path.abspath(str(scan.seg_path))] = ready.loaded.seg_sha256
        return ready

    def _fail(self, scan: Scan, stage: str, reason: Exception) -> None:
        LOG.error("%s: %s failed: %s", scan.subject, stage, reason)
        self.result.failures.append(FailureRow(scan.subject, str(scan.path), stage, str(reason)))
        self._progress(1)

    def _run_batch(self, batch: List[_Ready], runtime: Any) -> None:
        start = time.perf_counter()
        try:
            outcome = runtime.run({"moving": self._moving(batch), "fixed": self._fixed})
        except ToolchainError as exc:
            for ready in batch:
                self._fail(ready.loaded.scan, "run", exc)
            raise
        share = (time.perf_counter() - start) / len(batch)
        self.result.n_run += len(batch)
        device = outcome.device_seconds / len(batch)
        for position, ready in enumerate(batch):
            moved = outcome.outputs["moved"][position, ..., 0]
            flow = outcome.outputs["flow"][position]
            try:
                self.result.rows.append(self._finish(ready, moved, flow, device, share))
            except VxmError as exc:
                self._fail(ready.loaded.scan, "write", exc)
                continue
            self._progress(1)

    def _moving(self, batch: List[_Ready]) -> np.ndarray:
        """(B, X, Y, Z, 1) float32; the places left over repeat the last scan and are cut from the result."""
        moving = np.empty(self.plan.contract.model.image_shape, dtype=np.float32)
        for position in range(moving.shape[0]):
            moving[position, ..., 0] = batch[min(position, len(batch) - 1)].loaded.image
        return moving

    def _finish(self, ready: _Ready, moved: np.ndarray, flow: np.ndarray, device: float, share: float) -> MetricsRow:
        start = time.perf_counter()
        loaded, plan = ready.loaded, self.plan
        subject = loaded.scan.subject
        if self._store.wants_more:
            self._store.put(subject, loaded.image, loaded.seg, moved, flow)
        bad = int(moved.size - np.isfinite(moved).sum() + flow.size - np.isfinite(flow).sum())
        if bad:
            raise VolumeError(
                f"{loaded.scan.path}: the model returned {bad} NaN or infinite values, expected none; nothing is written for this scan, "
                "export again with --precision accurate"
            )
        done = register(loaded, plan.atlas, moved, flow, plan.outputs)
        before, after, count = self._dice(done)
        folds = folding(flow)
        longest = float(np.sqrt(np.max(np.einsum("...i,...i", flow, flow))))
        if longest < _IDLE_FLOW_VOXEL:
            LOG.warning("%s: the longest displacement is %.3g voxel; are the weights trained, is the scan the atlas?", subject, longest)
        agrees = bool(np.allclose(loaded.affine, plan.atlas.affine, atol=1e-3))
        provenance = plan.provenance.of({"moving": loaded.sha256}, subject=subject, moving_header_agrees=agrees)
        self._writer.write(plan.out / subject, loaded, done, flow, provenance)
        total = ready.read_seconds + share + time.perf_counter() - start
        row = MetricsRow(
            subject=subject,
            dice_before=before,
            dice_after=after,
            n_labels=count,
            label_set=plan.label_set,
            folding_fraction=folds.fraction,
            jacobian_min=folds.minimum,
            flow_max_voxel=longest,
            device_seconds=device,
            total_seconds=total,
            intensity=loaded.intensity,
            toolchain=plan.toolchain_badge,
            source=loaded.scan.path.name,
        )
        LOG.info("%s", describe(row))
        return row

    def _dice(self, done: Registered) -> Tuple[Optional[float], Optional[float], Optional[int]]:
        if done.moved_seg is None or done.fixed_seg is None:
            return None, None, None
        after = dice(done.moved_seg, done.fixed_seg, self._labels)
        return dice(done.seg_before, done.fixed_seg, self._labels).mean, after.mean, after.n_labels


def read_ahead(scans: Sequence[Scan], load: Callable[[Scan], Any], ahead: int) -> Iterator[Tuple[Scan, Future[Any]]]:
    """Scans in order with their loading, `ahead` of which are read or being read by one thread beyond the one in hand."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        todo = iter(scans)
        waiting = deque((scan, pool.submit(load, scan)) for scan in islice(todo, ahead))
        try:
            while waiting:
                scan, future = waiting.popleft()
                following = next(todo, None)
                if following is not None:
                    waiting.append((following, pool.submit(load, following)))
                yield scan, future
        finally:
            for _, future in waiting:
                future.cancel()


def describe(row: MetricsRow) -> str:
    """One line for the log."""
    known = row.dice_before is not None and row.dice_after is not None
    score = (
        f"Dice ({row.label_set}, {row.n_labels} labels) {row.dice_before:.3f} -> {row.dice_after:.3f}"
        if known
        else "no Dice (a segmentation is missing)"
    )
    return (
        f"{row.subject}: {score}, folding {100 * row.folding_fraction:.3f} %, longest displacement {row.flow_max_voxel:.2f} voxel, "
        f"device {row.device_seconds:.2f} s, total {row.total_seconds:.2f} s ({row.toolchain})"
    )
