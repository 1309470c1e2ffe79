# SPDX-License-Identifier: Apache-2.0
"""Pairs that are made while a run goes on: what `train.data.pairs` and `train.data.loading` do for scans, without any file. No TensorFlow.

Pairs are made in processes of their own, ahead of the steps; what a pair holds depends on the seed and its number alone.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from train.settings.run import SyntheticData
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.training_pairs import SCORED, SyntheticSettings, TrainingPair, make_training_pair

_NOISE_STREAM = 5
#: Validation pairs are the same in every run, whatever its seed, so that runs can be compared; no training run may use this seed.
VALIDATION_SEED = 2**31 - 1
_PARENT_CHECK_SECONDS = 2.0
_TWINS = 8
#: several threads in each of several processes are slower than one
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class SyntheticPair:
    """Pair `number` of the sequence of `settings`."""

    settings: SyntheticSettings
    number: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"synthetic pair {self.number} of seed {self.settings.seed}"

    #: where a pair of scans has the moving one's file
    moving = name


class SyntheticOrder:
    """Endless pairs in the order of their numbers; as `train.data.pairs.PairOrder`."""

    def __init__(self, settings: SyntheticSettings, pairs: int = 0) -> None:
        self._settings, self._pairs = settings, pairs

    def pair(self, sample: int) -> SyntheticPair:
        """Pair number `sample`, from 0."""
        return SyntheticPair(self._settings, sample)

    def pairs_of_step(self, step: int, batch: int) -> List[SyntheticPair]:
        """The batch of a step, from 0."""
        return [self.pair(step * batch + i) for i in range(batch)]

    def each_once(self) -> List[SyntheticPair]:
        """The first pairs; for validation."""
        return [self.pair(number) for number in range(self._pairs)]


class SyntheticLoader:
    """Makes samples; may be used from several threads; as `train.data.loading.Loader`.

    Parameters
    ----------
    spec : ModelSpec — shapes, and whether samples include noise.
    processes : int — that make pairs; 0 makes them in the caller's thread.
    seed : int — of the noise.
    """

    synthetic = True
    with_labels = True

    def __init__(self, spec: ModelSpec, processes: int, seed: int) -> None:
        self.spec = spec
        self.error: Optional[Exception] = None
        self._seed = seed
        self._kept: Dict[SyntheticPair, TrainingPair] = {}
        #: the last few pairs; each is used twice, see `make_training_pair`
        self._twins: Dict[Tuple[SyntheticSettings, int], Future[TrainingPair]] = {}
        self._lock = threading.Lock()
        self._pool = _open_pool(processes) if processes else None

    def arrays(self, pair: SyntheticPair, sample: int) -> Dict[str, np.ndarray]:
        """One sample.

        Returns
        -------
        dict — ``moving``, ``fixed``, ``moving_plain``, ``fixed_plain`` (X, Y, Z, 1) float32, 0..1; ``moving_seg``, ``fixed_seg``
        (X, Y, Z) uint8; for diffeomorphic variants ``noise`` (X/2, Y/2, Z/2, 3) float32, standard normal.
        """
        try:
            found = _sample_of(self._made(pair))
            if self.spec.diffeomorphic:
                random = np.random.RandomState([self._seed, _NOISE_STREAM, sample % (1 << 32)])
                found["noise"] = random.standard_normal(self.spec.velocity_shape[1:]).astype(np.float32)
            return found
        except Exception as exc:
            # TensorFlow turns exceptions of its reader threads into text; the loop wants the original.
            self.error = exc
            raise

    def plain(self, pair: SyntheticPair) -> Dict[str, np.ndarray]:
        """As `arrays`, without noise; kept in memory, for the few pairs of the validation."""
        return _sample_of(self._remembered(pair))

    def labels_of(self, pair: SyntheticPair) -> Tuple[np.ndarray, np.ndarray]:
        """Labels of moving and fixed."""
        made = self._remembered(pair)
        return made.moving_labels, made.fixed_labels

    def label_ids(self, name: str) -> Tuple[int, ...]:
        """Labels that are scored; those of synthetic pairs have no names."""
        return tuple(range(1, 1 + SCORED))

    def _remembered(self, pair: SyntheticPair) -> TrainingPair:
        if pair not in self._kept:
            self._kept[pair] = self._made(pair)
        return self._kept[pair]

    def _made(self, pair: SyntheticPair) -> TrainingPair:
        if self._pool is None:
            return make_training_pair(pair.settings, pair.number)
        first = pair.number - pair.number % 2
        key = (pair.settings, first)
        with self._lock:
            if key not in self._twins:
                self._twins[key] = self._pool.submit(make_training_pair, pair.settings, first)
                if len(self._twins) > _TWINS:
                    del self._twins[next(iter(self._twins))]
            twin = self._twins[key]
        made: TrainingPair = twin.result()
        return made.swapped() if pair.number % 2 else made


def synthetic_orders(data: SyntheticData, spec: ModelSpec, seed: int) -> Tuple[SyntheticOrder, SyntheticOrder]:
    """Pairs to train on, and pairs to validate with: of the same kinds, from a seed of their own."""
    settings = SyntheticSettings(spec.volume_shape, seed, data.heads, data.same_contrast)
    return SyntheticOrder(settings), SyntheticOrder(replace(settings, seed=VALIDATION_SEED), data.validation)


def _sample_of(made: TrainingPair) -> Dict[str, np.ndarray]:
    images = {name: getattr(made, name)[..., np.newaxis] for name in ("moving", "fixed", "moving_plain", "fixed_plain")}
    return {**images, "moving_seg": made.moving_labels, "fixed_seg": made.fixed_labels}


def _open_pool(processes: int) -> ProcessPoolExecutor:
    """Processes start from scratch: a copy of one that runs TensorFlow's threads may hang."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update({name: "1" for name in _THREAD_VARIABLES})
    try:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),))
        # The processes take over the environment of this moment, so all of them start now.
        for started in [pool.submit(time.sleep, 0.1) for _ in range(processes)]:
            started.result()
        return pool
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent(parent: int) -> None:
    """A killed run leaves no process behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
