# SPDX-License-Identifier: Apache-2.0
"""Records of a run: metrics.jsonl, train.log in the form of earlier logs, TensorBoard's event files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from train.run.resume import cut_metrics
from vxm_convert.artifacts.files import write_text
from vxm_convert.artifacts.names import TRAIN_LOG_NAME, TRAIN_METRICS_NAME
from vxm_convert.network.tf1 import tf
from vxm_convert.webpage.png import plain_png

LOG = logging.getLogger(__name__)

TENSORBOARD_FOLDER = "tensorboard"


def format_step(record: Dict[str, Any], image: str) -> str:
    """One line in the form of logs of earlier Ascend 910 runs, so that the same scripts can compare them."""
    return (
        f"step {record['step']} ---> loss: {record['loss']:.6g}, loss_{image}: {record['loss_' + image]:.6g}, "
        f"loss_flow: {record['loss_flow']:.6g}, time: {record['seconds']:.3f}"
    )


def format_epoch(record: Dict[str, Any], image: str) -> str:
    """The means of an epoch."""
    scale = (
        f", loss scale {record['loss_scale']:g}, {record['skipped']} steps skipped" if "loss_scale" in record else ""
    )
    dice = (
        f", validation dice {record['validation']['dice']:.4f}"
        if (record.get("validation") or {}).get("dice") is not None
        else ""
    )
    return (
        f"epoch {record['epoch'] + 1}: loss {record['loss']:.6g} ({image} {record['loss_' + image]:.6g}, "
        f"flow {record['loss_flow']:.6g}), {record['seconds_per_step']:.2f} s per step, mean of {record['steps']} "
        f"steps{scale}{dice}"
    )


class Records:
    """The three logs of a run; a context manager.

    Parameters
    ----------
    folder : Path — the run's output.
    image : str — name of the similarity loss.
    step, epoch : int — first ones that will be run; later log entries of an interrupted run are dropped.
    tensorboard : bool — write event files.
    """

    def __init__(self, folder: Path, image: str, step: int, epoch: int, tensorboard: bool) -> None:
        self._image = image
        self.kept: List[Dict[str, Any]] = cut_metrics(folder / TRAIN_METRICS_NAME, step, epoch, self._line)
        write_text(folder / TRAIN_LOG_NAME, "".join(line + "\n" for line in map(self._line, self.kept) if line))
        self._metrics = open(str(folder / TRAIN_METRICS_NAME), "a", encoding="utf-8")
        self._log = open(str(folder / TRAIN_LOG_NAME), "a", encoding="utf-8")
        self._events = tf.summary.FileWriter(str(folder / TENSORBOARD_FOLDER)) if tensorboard else None
        if self._events is not None and step:
            # Makes TensorBoard discard what it has from here on.
            self._events.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._log.close()
        if self._events is not None:
            self._events.close()

    def steps_from(self, first: int) -> List[Dict[str, Any]]:
        """Kept records of steps from `first` on: those of an interrupted epoch."""
        return [r for r in self.kept if "event" not in r and r["step"] >= first]

    def write(self, record: Dict[str, Any]) -> None:
        """Write one record immediately, so that it survives if the run is killed."""
        self._metrics.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
        self._metrics.flush()
        line = self._line(record)
        if line:
            self._log.write(line + "\n")
            self._log.flush()
            LOG.log(logging.INFO if "event" in record else logging.DEBUG, "%s", line)

    def scalars(self, step: int, values: Dict[str, float]) -> None:
        """To TensorBoard."""
        if self._events is not None:
            self._events.add_summary(
                tf.Summary(value=[tf.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]), step
            )

    def pictures(self, step: int, pictures: Dict[str, np.ndarray]) -> None:
        """Write pictures to TensorBoard; (height, width) uint8 each."""
        if self._events is None:
            return
        images = {
            name: tf.Summary.Image(height=p.shape[0], width=p.shape[1], colorspace=1, encoded_image_string=plain_png(p))
            for name, p in pictures.items()
        }
        self._events.add_summary(tf.Summary(value=[tf.Summary.Value(tag=k, image=v) for k, v in images.items()]), step)
        self._events.flush()

    def _line(self, record: Dict[str, Any]) -> Optional[str]:
        if "event" not in record:
            return format_step(record, self._image)
        return format_epoch(record, self._image) if record["event"] == "epoch" else None
