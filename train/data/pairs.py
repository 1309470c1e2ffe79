# SPDX-License-Identifier: Apache-2.0
"""Pair number n of a run is a pure function of the seed and n, so that a resumed run continues exactly where it was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np

from train.data.scan_list import Subject

_ORDER_STREAM, _PARTNER_STREAM = 2, 3


@dataclass(frozen=True)
class Pair:
    """Files of one sample; `fixed` None means the atlas."""

    moving: Path
    fixed: Optional[Path] = None
    seg: Optional[Path] = None
    fixed_seg: Optional[Path] = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.moving.name if self.fixed is None else f"{self.moving.name} to {self.fixed.name}"


class PairOrder:
    """Endless seeded pairs; every subject once as moving before any again.

    Parameters
    ----------
    subjects : sequence of Subject
    pairing : str — ``atlas``, or ``scans``: a subject without its own fixed scan gets that of another subject at
        random.
    seed : int
    """

    def __init__(self, subjects: Sequence[Subject], pairing: str, seed: int) -> None:
        self.subjects: Tuple[Subject, ...] = tuple(subjects)
        self._scan_to_scan = pairing == "scans"
        self._seed = seed
        self._permutation = lru_cache(maxsize=4)(self._shuffled)

    def steps_per_pass(self, batch: int) -> int:
        """Number of batches that contain every subject at least once."""
        return -(-len(self.subjects) // batch)

    def pair(self, sample: int) -> Pair:
        """Pair number `sample`, from 0."""
        turn, place = divmod(sample, len(self.subjects))
        return self._pair_of(self._permutation(turn)[place], sample)

    def pairs_of_step(self, step: int, batch: int) -> List[Pair]:
        """The batch of a step, from 0."""
        return [self.pair(step * batch + i) for i in range(batch)]

    def each_once(self) -> List[Pair]:
        """Every subject in order, with a partner that does not change; for validation."""
        return [self._pair_of(index, index) for index in range(len(self.subjects))]

    def _shuffled(self, turn: int) -> np.ndarray:
        return np.random.RandomState([self._seed, _ORDER_STREAM, turn]).permutation(len(self.subjects))

    def _pair_of(self, index: int, sample: int) -> Pair:
        subject = self.subjects[index]
        if subject.fixed is not None or not self._scan_to_scan:
            return Pair(subject.moving, subject.fixed, subject.seg, subject.fixed_seg)
        draw = np.random.RandomState([self._seed, _PARTNER_STREAM, sample % (1 << 32)]).randint(len(self.subjects) - 1)
        other = self.subjects[draw + (draw >= index)]
        return Pair(subject.moving, other.moving, subject.seg, other.seg)
