# SPDX-License-Identifier: Apache-2.0
"""The training graph and the loop over its steps. Reads no files but through its pair source; writes checkpoints and metrics.jsonl."""
from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from train.checkpoints import CheckpointFolder
from train.losses import IMAGE_LOSSES, flow_gradient
from train.pairs import Batch, PairSource
from train.settings import TrainSettings
from vxm_convert.errors import TrainingError
from vxm_convert.network import build_unet, warp_linear
from vxm_convert.network.tf1 import tf

LOG = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
#: The default CPU kernels build an im2col buffer of voxels × 27 × channels (25 GB at 160x192x224, measured as an
#: allocation failure); the eigen_tensor ones give the same gradients in a fifth of the memory, a quarter faster.
_CPU_KERNELS = {"Conv3DBackpropFilterV2": "eigen_tensor", "Conv3DBackpropInputV2": "eigen_tensor"}


@dataclass(frozen=True)
class TrainingGraph:
    """Nodes the loop feeds and fetches."""

    graph: Any
    moving: Any
    fixed: Any
    fetches: Dict[str, Any]
    train_op: Any


@dataclass(frozen=True)
class StepRecord:
    """Losses of one step; `image` is the similarity term, `flow` the unweighted smoothness term."""

    step: int
    loss: float
    image: float
    flow: float
    seconds: float


def build_training_graph(settings: TrainSettings) -> TrainingGraph:
    """Network, losses and Adam's update in a graph of its own."""
    graph = tf.Graph()
    with graph.as_default():
        tf.set_random_seed(settings.seed)
        moving = tf.placeholder(tf.float32, settings.spec.image_shape, name="moving")
        fixed = tf.placeholder(tf.float32, settings.spec.image_shape, name="fixed")
        flow = build_unet(moving, fixed, settings.spec)
        image = IMAGE_LOSSES[settings.loss](warp_linear(moving, flow), fixed)
        smoothness = flow_gradient(flow, settings.penalty)
        loss = image + settings.smoothness * smoothness
        train_op = _build_update(loss, graph, settings)
    return TrainingGraph(graph, moving, fixed, {"loss": loss, "image": image, "flow": smoothness}, train_op)


def train(settings: TrainSettings, source: PairSource, made_from: Dict[str, str]) -> Path:
    """Run all epochs; a checkpoint before the first step and after every epoch.

    Returns
    -------
    Path — prefix of the last checkpoint.

    Raises
    ------
    TrainingError
        When a loss is not a finite number: names the step and the scans; the checkpoints written before stay.
    """
    built = build_training_graph(settings)
    steps = settings.steps_per_epoch or source.steps_per_pass
    batches = source.batches()
    with built.graph.as_default(), tf.Session(config=tf.ConfigProto()) as session:
        folder = CheckpointFolder(settings.out, settings.spec, settings.keep, made_from)
        session.run(tf.global_variables_initializer())
        last = folder.save(session, 0)
        with open(str(settings.out / METRICS_NAME), "w", encoding="utf-8") as metrics, logging_redirect_tqdm(), \
                tqdm(total=settings.epochs * steps, unit="step", disable=None) as bar:
            for epoch in range(settings.epochs):
                records = [_checked_step(session, built, source, batch, epoch * steps + i, settings, metrics, last)
                           for i, batch in zip(_ticks(steps, bar), batches)]
                last = folder.save(session, (epoch + 1) * steps)
                _close_epoch(epoch, records, settings, metrics)
    return last


def _build_update(loss: Any, graph: Any, settings: TrainSettings) -> Any:
    """Adam's update operation; the one place that knows optimizer and kernels."""
    optimizer = tf.train.AdamOptimizer(settings.learning_rate)
    with graph._kernel_label_map(_CPU_KERNELS):  # no public name in TensorFlow 1.15
        return optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())


def _checked_step(session: Any, built: TrainingGraph, source: PairSource, batch: Batch, step: int,
                  settings: TrainSettings, metrics: IO[str], last: Path) -> StepRecord:
    start = time.time()
    values = session.run({**built.fetches, "update": built.train_op}, {built.moving: batch.moving, built.fixed: source.fixed})
    record = StepRecord(step, float(values["loss"]), float(values["image"]), float(values["flow"]), time.time() - start)
    if not math.isfinite(record.loss):
        names = ", ".join(p.name for p in batch.paths)
        _write_line(metrics, {"event": "loss not finite", "step": step, "scans": [str(p) for p in batch.paths]})
        raise TrainingError(
            f"step {step}: the loss is {record.loss} on {names}, expected a finite number; look at that scan or lower --lr "
            f"(now {settings.learning_rate:g}); the last good checkpoint is {last}"
        )
    LOG.debug("%s", format_step(record, settings.loss))
    _write_line(metrics, {"step": step, "loss": record.loss, "loss_" + settings.loss: record.image, "loss_flow": record.flow,
                          "seconds": round(record.seconds, 4)})
    return record


def format_step(record: StepRecord, loss: str) -> str:
    """One line in the form that logs of earlier Ascend 910 runs have, so that they can be compared by the same scripts."""
    return (f"step {record.step} ---> loss: {record.loss:.6g}, loss_{loss}: {record.image:.6g}, "
            f"loss_flow: {record.flow:.6g}, time: {record.seconds:.3f}")


def _close_epoch(epoch: int, records: List[StepRecord], settings: TrainSettings, metrics: IO[str]) -> None:
    count = len(records)
    mean = {name: math.fsum(getattr(r, name) for r in records) / count for name in ("loss", "image", "flow", "seconds")}
    LOG.info("epoch %d/%d: loss %.6g (%s %.6g, flow %.6g), %.2f s per step, mean of %d steps",
             epoch + 1, settings.epochs, mean["loss"], settings.loss, mean["image"], mean["flow"], mean["seconds"], count)
    _write_line(metrics, {"event": "epoch", "epoch": epoch, "steps": count, "loss": mean["loss"], "loss_" + settings.loss: mean["image"],
                          "loss_flow": mean["flow"], "seconds_per_step": round(mean["seconds"], 4)})


def _ticks(steps: int, bar: Any) -> Iterator[int]:
    for index in range(steps):
        yield index
        bar.update()


def _write_line(handle: IO[str], data: Dict[str, Any]) -> None:
    handle.write(json.dumps(data, sort_keys=True, allow_nan=False) + "\n")
    handle.flush()
