# SPDX-License-Identifier: Apache-2.0
"""Scans of label maps with random contrast: the values of the labels, texture, bias, blur, thick slices, noise, lesions, gamma.

What the values mean is drawn at random, so that a network trained on such scans cannot rely on intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from vxm_convert.lazy import LazyModule
from vxm_convert.synthetic.anatomy import SULCUS
from vxm_convert.synthetic.fields import smooth_noise
from vxm_convert.synthetic.heads import CORTEX_AND_WHITE, STRUCTURES

ndimage = LazyModule("scipy.ndimage")

_LABELS = 256
_T1_FLUID = 30.0
_BRIGHTEST = 110.0
#: structures that most scanners show alike: white matter, grey matter, nuclei, fluid
_TISSUES = (
    (2, 41, 7, 46),
    (3, 42, 8, 47),
    (10, 49, 11, 50, 12, 51, 17, 53, 18, 54, 28, 60),
    (13, 52),
    (16,),
    (4, 43, 14, 15, 24, 31, 63, SULCUS),
)


def random_contrast(rng: np.random.RandomState, kind: str) -> np.ndarray:
    """Value of every label, background 0.

    Parameters
    ----------
    kind : str — ``shapes``: any value for any label; ``heads``: as a T1-weighted scan, the same turned upside down or bent,
        a value for each tissue, or any value for any label.

    Returns
    -------
    ndarray, shape (256,), float32, 0..1.
    """
    draw = rng.uniform()
    if kind == "shapes" or draw < 0.1:
        values = rng.uniform(0.0, 1.0, _LABELS)
    elif draw < 0.65:
        values = _t1_like() * (1.0 + rng.normal(0.0, 0.05, _LABELS))
    elif draw < 0.85:
        # Bent by a random curve through 5 points: T2-like, FLAIR-like, and what no scanner shows.
        values = np.interp(_t1_like(), np.linspace(0.0, 1.05, 5), rng.uniform(0.0, 1.0, 5)) + rng.normal(
            0.0, 0.03, _LABELS
        )
    else:
        values = rng.uniform(0.0, 1.0, _LABELS)
        for tissue in _TISSUES:
            values[list(tissue)] = rng.uniform(0.0, 1.0) + rng.normal(0.0, 0.04, len(tissue))
    values[0] = 0.0 if rng.uniform() < 0.8 else rng.uniform(0.0, 0.6)
    return np.clip(values, 0.0, 1.0).astype(np.float32)


def similar_contrast(rng: np.random.RandomState, values: np.ndarray) -> np.ndarray:
    """The values of another scan of the same kind."""
    other = np.clip(values + rng.normal(0.0, 0.025, _LABELS), 0.0, 1.0).astype(np.float32)
    other[0] = values[0]
    return other


@dataclass(frozen=True)
class Scale:
    """Intensities become ``gain · value ^ gamma``."""

    gain: float
    gamma: float

    def near(self, rng: np.random.RandomState) -> Scale:
        """That of another scan after the same normalisation."""
        return Scale(self.gain * np.exp(rng.normal(0.0, 0.04)), self.gamma * np.exp(rng.normal(0.0, 0.05)))


def random_scale(rng: np.random.RandomState) -> Scale:
    """White matter of a normalised scan lies at 0.43, so the brightest voxels lie anywhere between 0.4 and 1."""
    return Scale(np.exp(rng.uniform(np.log(0.4), 0.0)), np.exp(rng.normal(0.0, 0.15)))


def random_scan(rng: np.random.RandomState, labels: np.ndarray, values: np.ndarray, scale: Scale) -> np.ndarray:
    """A scan of a label map.

    Returns
    -------
    ndarray, shape of `labels`, float32, 0..1.
    """
    shape = labels.shape
    image = values[labels]
    if rng.uniform() < 0.1:
        lesions = smooth_noise(rng, shape, rng.uniform(5.0, 12.0)) > rng.uniform(2.0, 2.6)
        image[lesions & (labels > 0)] = rng.uniform(0.0, 1.0)
    image = image + rng.uniform(0.0, 0.05) * smooth_noise(rng, shape, rng.uniform(1.5, 5.0)) * (labels > 0)
    narrow = rng.uniform() < 0.7
    image = ndimage.gaussian_filter(image, rng.uniform(0.4, 1.0) if narrow else rng.uniform(1.0, 1.8), truncate=2.5)
    if rng.uniform() < 0.15:
        image = _thick_slices(image, rng.randint(3), rng.randint(2, 5))
    image *= np.exp(rng.uniform(0.0, 0.12) * smooth_noise(rng, shape, 0.5 * min(shape)))
    noise = rng.uniform(0.0, 0.04) * rng.standard_normal(shape).astype(np.float32)
    image += noise if values[0] > 0 else noise * (labels > 0)
    return np.clip(scale.gain * np.clip(image, 0.0, 1.0) ** scale.gamma, 0.0, 1.0).astype(np.float32)


def plain_images(maps: Sequence[np.ndarray], values: np.ndarray) -> Sequence[np.ndarray]:
    """The label maps with one value for each label, slightly blurred: images that agree where the labels do; float32."""
    return [ndimage.gaussian_filter(values[labels], 1.0, truncate=2.5) for labels in maps]


def _thick_slices(image: np.ndarray, axis: int, thickness: int) -> np.ndarray:
    """Means over slices, interpolated back."""
    mean = ndimage.uniform_filter1d(image, thickness, axis=axis, mode="nearest")
    side = image.shape[axis]
    position = np.minimum(np.arange(side) / thickness, (side - 1) // thickness)
    low = np.floor(position).astype(int)
    share = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    high = np.minimum((low + 1) * thickness, side - 1)
    return np.take(mean, low * thickness, axis) * (1.0 - share) + np.take(mean, high, axis) * share


def _t1_like() -> np.ndarray:
    """Values of a FreeSurfer-normalised scan, white matter 1."""
    values = np.full(_LABELS, 0.5)
    for one in STRUCTURES:
        values[[one.left, one.right]] = one.intensity / _BRIGHTEST
    for label, value in CORTEX_AND_WHITE.items():
        values[label] = value / _BRIGHTEST
    values[SULCUS] = _T1_FLUID / _BRIGHTEST
    return values
