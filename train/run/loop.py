# SPDX-License-Identifier: Apache-2.0
"""The run: steps, epochs, validation, checkpoints. Reads scans only through the pipeline; writes through checkpoint
folder and records.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from train.data.cohort import Cohort, segmentation_of
from train.data.dataset import Pipeline, build_pipeline
from train.data.loading import Loader
from train.data.pairs import Pair, PairOrder
from train.data.synthetic import SyntheticLoader, synthetic_orders
from train.devices.base import Backend
from train.devices.open import open_backend
from train.graph.initial import load_initial
from train.graph.training_graph import TrainingGraph, build_training_graph
from train.run.checkpoints import CheckpointFolder
from train.run.pictures import pair_pictures
from train.run.records import TENSORBOARD_FOLDER, Records
from train.run.report_page import write_report
from train.run.resume import check_same_run, fingerprint
from train.run.summary import facts_of
from train.run.validation import score_of, validate
from train.run.watch import Watch, scaling_warnings
from train.settings.run import TrainSettings
from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.artifacts.names import SPLIT_NAME, TRAIN_LOG_NAME, TRAIN_METRICS_NAME, TRAIN_REPORT_NAME
from vxm_convert.artifacts.sha256sums import begin_manifest, files_below, finish_manifest
from vxm_convert.cliargs import stop_if_asked
from vxm_convert.errors import TrainingError, VxmError
from vxm_convert.metrics.jacobian import folding
from vxm_convert.model.intensity import CONTRAST, CONVENTION
from vxm_convert.network.tf1 import tf
from vxm_convert.weights.files import find_checkpoint

LOG = logging.getLogger(__name__)

#: errors of a step when another process is gone
_UNANSWERED = (tf.errors.UnavailableError, tf.errors.CancelledError, tf.errors.AbortedError)


@dataclass(frozen=True)
class Trained:
    """Prefixes of the last checkpoint and of the best one in validation (None without validation)."""

    last: Path
    best: Optional[Path]


def train(settings: TrainSettings, cohort: Cohort, made_from: Dict[str, str]) -> Trained:
    """Run all epochs; a checkpoint before the first step, after every epoch, and every `save_every` steps.

    Parameters
    ----------
    made_from : dict — role → sha256 of atlas and scans.

    Raises
    ------
    TrainingError
        If a loss is not finite (names step and scans; earlier checkpoints stay), or if a run cannot be resumed.
    """
    backend = open_backend(settings)
    with tf.Graph().as_default() as graph, tf.device(backend.device_scope):
        tf.set_random_seed(settings.seed)
        run = _Run(settings, cohort, made_from, backend)
        with tf.Session(backend.target, graph=graph, config=backend.session_config()) as session:
            return run.execute(session)


class _Run:
    """One run in one graph."""

    def __init__(self, settings: TrainSettings, cohort: Cohort, made_from: Dict[str, str], backend: Backend) -> None:
        self._settings, self._cohort, self._backend, self._made_from = settings, cohort, backend, made_from
        # Other processes of a run write separate logs and leave validation and checkpoints to the first.
        self._out = settings.out / f"worker-{backend.rank}" if backend.rank else settings.out
        self._order, validation, self._loader = _source(settings, cohort)
        self._validation = validation.each_once() if not backend.rank else []
        self._steps = settings.steps_per_epoch or self._order.steps_per_pass(settings.spec.batch * backend.ranks)
        self._last_step = settings.epochs * self._steps
        _check_calls(backend.steps_per_call, self._steps, settings.save_every)
        self._pipeline: Pipeline = build_pipeline(
            self._order, self._loader, self._last_step, backend.rank, backend.ranks
        )
        self._built: TrainingGraph = build_training_graph(settings, self._pipeline.inputs, backend)
        self._fingerprint = fingerprint(settings, self._steps, backend.ranks, made_from)
        self._init = (
            {}
            if settings.init is None
            else {f"init {k}": v for k, v in find_checkpoint(settings.init).hashes().items()}
        )
        self._folder = CheckpointFolder(
            settings.out,
            settings.spec,
            settings.keep,
            {**made_from, **self._init},
            settings.resume,
            not backend.rank,
            # Made pairs have any contrast, and both images of most of them the same one.
            CONVENTION if settings.data.synthetic is None else CONTRAST,
        )
        check_output_folder(self._out)
        self._best: Optional[Dict[str, Any]] = None
        self._skipped = 0
        self._watch = Watch({})
        self._last = self._folder.prefix(0)

    def execute(self, session: tf.Session) -> Trained:
        first = self._begin(session)
        self._backend.begin(session)
        # A resumed run lists everything again at its end, because the logs have grown.
        begin_manifest(self._out)
        epoch, call = first // self._steps, self._backend.steps_per_call
        write_json(self._out / SPLIT_NAME, self._cohort.to_dict())
        with Records(
            self._out, self._settings.loss.image, first, epoch, self._settings.tensorboard
        ) as records, logging_redirect_tqdm(), tqdm(
            total=self._last_step, initial=first, unit="step", disable=None
        ) as bar:
            self._pipeline.start(session, first)
            train_op = self._backend.train_op(session, self._built.train_op)
            done = records.steps_from(epoch * self._steps)
            for after in range(first + call, self._last_step + 1, call):
                stop_if_asked()
                closes = after % self._steps == 0
                record, images = self._step(session, train_op, records, after - 1, closes)
                done.append(record)
                bar.update(call)
                if closes:
                    self._close_epoch(session, records, done, images)
                    done = []
                if closes or (self._settings.save_every and after % self._settings.save_every == 0):
                    self._last = self._folder.save(session, after, self._state())
        out = self._out
        facts = facts_of(self._settings, self._cohort, self._steps, self._last.name, self._best)
        write_report(out, facts, {**self._made_from, **self._init})
        ours = self._folder.files() + files_below(out, TENSORBOARD_FOLDER)
        finish_manifest(out, ours + [SPLIT_NAME, TRAIN_METRICS_NAME, TRAIN_LOG_NAME, TRAIN_REPORT_NAME], {})
        self._backend.finish(session)
        return Trained(self._last, self._folder.prefix(self._best["step"]) if self._best else None)

    def _begin(self, session: tf.Session) -> int:
        """Initial or restored variables; the first step to run."""
        if not self._settings.resume:
            session.run(tf.global_variables_initializer())
            if self._settings.init is not None:
                load_initial(session, self._settings.init, self._settings.spec, self._settings.h5_indexing)
            self._last = self._folder.save(session, 0, self._state())
            return 0
        state = self._folder.newest()
        step = int(state["step"])
        self._last = self._folder.prefix(step)
        check_same_run(state["fingerprint"], self._fingerprint, self._last)
        self._folder.restore(session, step)
        self._best, self._watch, self._init = state["best"], Watch(state["watch"]), state["init"]
        self._skipped = state.get("skipped", 0)
        self._folder.made_from(self._init)
        LOG.info("resuming %s: %d of %d steps are done", self._last, step, self._last_step)
        return step

    def _step(
        self, session: tf.Session, train_op: tf.Operation, records: Records, step: int, with_images: bool
    ) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
        """Record of one step, the last one of the call, and figures of the last step of an epoch."""
        fetches = {"scalars": self._built.scalars, "update": train_op}
        if with_images and not self._backend.pictures_apart:
            fetches["images"] = {
                **self._built.images,
                "moving": self._built.inputs["moving"],
                "fixed": self._built.inputs["fixed"],
            }
        start = time.time()
        try:
            with self._backend.waiting(f"step {step}"):
                values = session.run(fetches, options=self._backend.run_options)
        except tf.errors.OpError as exc:
            raise self._failure(step, exc) from exc
        numbers = {name: float(value) for name, value in values["scalars"].items()}
        if not all(math.isfinite(n) for n in numbers.values()):
            raise self._not_finite(records, step, numbers["loss"])
        image = self._settings.loss.image
        record = {
            "step": step,
            "loss": numbers["loss"],
            "loss_" + image: numbers["image"],
            "loss_flow": numbers["flow"],
            "displacement": numbers["displacement"],
            "seconds": round((time.time() - start) / self._backend.steps_per_call, 4),
        }
        if "dice" in numbers:
            record["loss_dice"] = numbers["dice"]
        records.write(record)
        shown = {k: v for k, v in record.items() if k.startswith("loss")}
        records.scalars(
            step, {**shown, "learning_rate": numbers["learning_rate"], "displacement": record["displacement"]}
        )
        if with_images and self._backend.pictures_apart:
            return record, self._pictures(session, step)
        return record, values.get("images")

    def _pictures(self, session: tf.Session, step: int) -> Dict[str, np.ndarray]:
        """Images of a step's batch by the weights after it, from the network alone."""
        batch = self._settings.spec.batch
        first = (step * self._backend.ranks + self._backend.rank) * batch
        samples = [self._loader.arrays(pair, first + place) for place, pair in enumerate(self._pairs(step))]
        arrays = {name: np.stack([sample[name] for sample in samples]) for name in self._built.inputs}
        feeds = {self._built.inputs[name]: array for name, array in arrays.items()}
        images: Dict[str, np.ndarray] = session.run(self._built.images, feeds)
        return {**images, "moving": arrays["moving"], "fixed": arrays["fixed"]}

    def _close_epoch(
        self, session: tf.Session, records: Records, done: List[Dict[str, Any]], images: Dict[str, np.ndarray]
    ) -> None:
        """Means, validation, warnings."""
        last, count = done[-1]["step"], len(done)
        means = {name: math.fsum(r[name] for r in done) / count for name in done[0] if name.startswith("loss")}
        seconds = math.fsum(r["seconds"] for r in done) / count
        folded = folding(images["flow"][0]).fraction
        result = (
            validate(session, self._built, self._validation, self._loader, self._settings.loss.labels)
            if self._validation
            else None
        )
        if result is not None:
            self._rank(result, last + 1)
            records.scalars(last, {f"validation_{k}": v for k, v in result.items() if v is not None and k != "pairs"})
        scaling = self._scaling(session, records, last)
        records.write(
            {
                "event": "epoch",
                "epoch": last // self._steps,
                "steps": count,
                **means,
                "seconds_per_step": round(seconds, 4),
                "folding": folded,
                "displacement": done[-1]["displacement"],
                "validation": result,
                **scaling,
            }
        )
        records.pictures(
            last,
            pair_pictures(
                images["moving"][0, ..., 0], images["fixed"][0, ..., 0], images["moved"][0, ..., 0], images["flow"][0]
            ),
        )
        warnings = self._watch.close_epoch(last + 1, done[-1]["displacement"], folded)
        warnings += scaling_warnings(scaling["loss_scale"], scaling["skipped"], self._steps) if scaling else []
        for warning in warnings:
            LOG.warning("step %d: %s", last, warning)
            records.write({"event": "warning", "step": last, "text": warning})

    def _scaling(self, session: tf.Session, records: Records, last: int) -> Dict[str, Any]:
        """The scale of the loss, and the number of the epoch's steps that overflowed and changed nothing; empty without
        scaling.
        """
        if self._built.scale is None:
            return {}
        scale, updates = session.run([self._built.scale, self._built.step])
        before, self._skipped = self._skipped, last + 1 - int(updates)
        records.scalars(last, {"loss_scale": scale, "skipped_steps": self._skipped - before})
        return {"loss_scale": float(scale), "skipped": self._skipped - before}

    def _rank(self, result: Dict[str, Any], step: int) -> None:
        figure, score = score_of(result)
        if math.isfinite(score) and (self._best is None or score > self._best["score"]):
            self._best = {"step": step, "figure": figure, "score": score}

    def _state(self) -> Dict[str, Any]:
        return {
            "best": self._best,
            "watch": self._watch.state,
            "fingerprint": self._fingerprint,
            "init": self._init,
            "skipped": self._skipped,
        }

    def _names(self, step: int) -> str:
        return ", ".join(pair.name for pair in self._pairs(step))

    def _pairs(self, step: int) -> List[Pair]:
        pairs: List[Pair] = self._order.pairs_of_step(
            step * self._backend.ranks + self._backend.rank, self._settings.spec.batch
        )
        return pairs

    def _not_finite(self, records: Records, step: int, loss: float) -> TrainingError:
        pairs = self._pairs(step)
        records.write({"event": "loss not finite", "step": step, "scans": [str(p.moving) for p in pairs]})
        return TrainingError(
            f"step {step}: the loss is {loss} on {self._names(step)}, expected a finite number; check that scan or "
            f"lower --lr (now {self._settings.learning_rate:g}); the last good checkpoint is {self._last}"
        )

    def _failure(self, step: int, exc: Exception) -> Exception:
        """A reader's own exception, or TensorFlow's, in one message."""
        reason: Optional[Exception] = self._loader.error
        if isinstance(reason, VxmError):
            return TrainingError(
                f"step {step}: {reason}; the last good checkpoint is {self._last}, --resume continues from it"
            )
        if isinstance(exc, tf.errors.ResourceExhaustedError):
            return TrainingError(f"step {step}: out of memory ({str(exc).splitlines()[0]}); lower --batch")
        if self._backend.ranks > 1 and isinstance(exc, _UNANSWERED):
            return TrainingError(
                f"step {step}: another worker does not answer ({str(exc).splitlines()[0]}); stop all of them and "
                "start them again with --resume"
            )
        return reason if reason is not None else exc


def _source(settings: TrainSettings, cohort: Cohort) -> Tuple[Any, Any, Any]:
    """Order of the pairs, pairs of the validation, and what makes samples of them."""
    data, seed = settings.data, settings.seed
    if data.synthetic is not None:
        train, validation = synthetic_orders(data.synthetic, settings.spec, seed)
        return train, validation, SyntheticLoader(settings.spec, data.synthetic.processes, seed)
    atlas_seg = segmentation_of(data.atlas) if data.atlas is not None else None
    with_labels = settings.loss.dice_weight > 0
    loader = Loader(settings.spec, data.atlas, atlas_seg, with_labels, data.augment, data.cache, seed)
    return PairOrder(cohort.train, data.pairing, seed), PairOrder(cohort.validation, data.pairing, seed), loader


def _check_calls(steps_per_call: int, steps: int, save_every: int) -> None:
    """Check that epochs and checkpoints end at the end of a session call."""
    for name, value in (("steps-per-epoch", steps), ("save-every", save_every)):
        if value % steps_per_call:
            raise TrainingError(
                f"{name}: {value} steps are not a multiple of the {steps_per_call} steps of one call; choose another "
                f"--{name} or --iterations-per-loop"
            )
