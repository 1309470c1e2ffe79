# SPDX-License-Identifier: Apache-2.0
"""Pairs to train on, made from a seed and a number: two scans of one anatomy, deformed, with the labels that should meet.

The idea of training on scans synthesised from label maps is that of Hoffmann et al., IEEE TMI 2022 (SynthMorph); shapes,
heads, contrasts and deformations are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

import numpy as np

from vxm_convert.errors import SpecError
from vxm_convert.lazy import LazyModule
from vxm_convert.synthetic.anatomy import head_labels, random_head, random_shapes, relative_of
from vxm_convert.synthetic.appearance import plain_images, random_contrast, random_scale, random_scan, similar_contrast
from vxm_convert.synthetic.fields import grid_of, random_displacement

ndimage = LazyModule("scipy.ndimage")

#: labels of a pair that are scored
SCORED = 12
#: keeps these random numbers apart from those of other parts with the same seed
_STREAM = 11
#: voxels around the volume from which a deformation may take labels
_MARGIN = 8
#: a label with fewer voxels in either map is not scored
_FEWEST_VOXELS = 60
#: knot distance, voxels, and the largest spread of the displacements of either scan, voxels
_DEFORMATION: Sequence[Tuple[float, float]] = ((40.0, 2.6), (20.0, 1.6), (10.0, 0.7))


@dataclass(frozen=True)
class SyntheticSettings:
    """What is made.

    Parameters
    ----------
    shape : (int, int, int) — voxels of 1 mm, even sides.
    seed : int — ≥ 0.
    heads : float — share of heads, the others are shapes.
    same_contrast : float — share of pairs whose scans have the same contrast.
    """

    shape: Tuple[int, int, int]
    seed: int = 0
    heads: float = 0.5
    same_contrast: float = 0.5

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 16 or any(side % 2 for side in self.shape):
            raise SpecError(
                f"synthetic shape: got {self.shape}, expected three even sides of at least 16; pass --shape 64,64,64"
            )
        for name in ("heads", "same_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name}: got {getattr(self, name)}, expected a share from 0 to 1; pass 0.5")


@dataclass(frozen=True)
class TrainingPair:
    """One pair; every array (X, Y, Z).

    Parameters
    ----------
    moving, fixed : float32, 0..1 — the scans.
    moving_labels, fixed_labels : uint8 — 1..`SCORED` for labels to be overlaid, 0 elsewhere.
    moving_plain, fixed_plain : float32, 0..1 — images without noise that share their contrast.
    """

    moving: np.ndarray
    fixed: np.ndarray
    moving_labels: np.ndarray
    fixed_labels: np.ndarray
    moving_plain: np.ndarray
    fixed_plain: np.ndarray

    def swapped(self) -> TrainingPair:
        """The same pair the other way round."""
        return TrainingPair(
            self.fixed, self.moving, self.fixed_labels, self.moving_labels, self.fixed_plain, self.moving_plain
        )


def make_training_pair(settings: SyntheticSettings, number: int) -> TrainingPair:
    """Pair `number` of the endless sequence; the same arguments give the same arrays. An odd one is the one before it the
    other way round, which costs nothing to make.
    """
    if number % 2:
        return make_training_pair(settings, number - 1).swapped()
    rng = np.random.RandomState([settings.seed, _STREAM, number % (1 << 32)])
    kind = "heads" if rng.uniform() < settings.heads else "shapes"
    maps = [_deformed(rng, anatomy, settings.shape) for anatomy in _anatomies(rng, kind, settings.shape)]
    contrast, scale = random_contrast(rng, kind), random_scale(rng)
    if rng.uniform() < settings.same_contrast:
        contrasts, scales, plain = (contrast, similar_contrast(rng, contrast)), (scale, scale.near(rng)), contrast
    else:
        contrasts, scales = (contrast, random_contrast(rng, kind)), (scale, random_scale(rng))
        plain = random_contrast(rng, "shapes")
    scans = [random_scan(rng, *parts) for parts in zip(maps, contrasts, scales)]
    return TrainingPair(*scans, *_scored(rng, maps), *plain_images(maps, plain))


def _anatomies(rng: np.random.RandomState, kind: str, shape: Sequence[int]) -> Sequence[np.ndarray]:
    """Label maps with a margin, of moving and fixed."""
    wide = [side + 2 * _MARGIN for side in shape]
    if kind == "shapes":
        labels = random_shapes(rng, wide)
        return labels, labels
    head = random_head(rng, wide)
    labels = head_labels(head)
    return labels, head_labels(relative_of(rng, head)) if rng.uniform() < 0.6 else labels


def _deformed(rng: np.random.RandomState, labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    parts = [(scale, spread * rng.uniform(0.1, 1.0)) for scale, spread in _DEFORMATION]
    at = grid_of(shape) + random_displacement(rng, shape, parts) + np.float32(_MARGIN)
    return ndimage.map_coordinates(labels, at, order=0, mode="nearest", prefilter=False)


def _scored(rng: np.random.RandomState, maps: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The maps with a random choice of labels that both have, numbered from 1."""
    counts = [np.bincount(labels.ravel(), minlength=256) for labels in maps]
    there = np.flatnonzero(np.minimum(*counts) >= _FEWEST_VOXELS)
    chosen = rng.permutation(there[there > 0])[:SCORED]
    lookup = np.zeros(256, np.uint8)
    lookup[chosen] = 1 + np.arange(len(chosen))
    return [lookup[labels] for labels in maps]
