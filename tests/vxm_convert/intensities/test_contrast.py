# SPDX-License-Identifier: Apache-2.0
"""The curve to the atlas's contrast turns inverted scans over, and leaves scans like the atlas as they are."""

from __future__ import annotations

from typing import Callable

import numpy as np
import pytest
from scipy import ndimage

from vxm_convert.errors import VolumeError
from vxm_convert.intensities.contrast import fit_contrast

SHAPE = (32, 40, 36)


def brain(shift: int = 0, seed: int = 0) -> np.ndarray:
    """Four tissues in smooth shapes, 0 outside; moved by `shift` voxels along the first axis."""
    field = ndimage.gaussian_filter(np.random.RandomState(1).rand(*SHAPE), 3.0)
    field = np.roll(field, shift, axis=0)
    values = np.array([0.12, 0.25, 0.33, 0.43])[np.searchsorted(np.percentile(field, (15, 40, 70)), field)]
    values = values + np.random.RandomState(seed).normal(0, 0.01, SHAPE)
    outside = sum((axis / side - 0.5) ** 2 for axis, side in zip(np.indices(SHAPE), SHAPE)) > 0.2
    return np.where(outside, 0, np.maximum(values, 0.01)).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: 1000 * image - 300,
        lambda image: 0.5 - image,
        lambda image: (image - 0.28) ** 2 + 0.3 * image,
    ],
    ids=["same", "other scale", "inverted", "bent"],
)
def test_the_atlas_contrast_comes_back(change: Callable[[np.ndarray], np.ndarray]) -> None:
    atlas, scan = brain(seed=2), brain(shift=1, seed=3)
    inside = scan > 0
    fitted = fit_contrast(change(scan), atlas, inside).apply(change(scan), inside)
    assert fitted.dtype == np.float32 and fitted.shape == SHAPE
    assert (fitted[~inside] == 0).all()
    assert np.corrcoef(fitted[inside], scan[inside])[0, 1] > 0.95
    assert fitted[inside].mean() == pytest.approx(atlas[atlas > 0].mean(), abs=0.02)
    assert fitted[inside].std() == pytest.approx(atlas[atlas > 0].std(), rel=0.2)


def test_values_beyond_those_of_the_fit_stay_in_range() -> None:
    atlas, scan = brain(seed=2), brain(seed=3)
    inside = scan > 0
    wild = np.where(np.random.RandomState(4).rand(*SHAPE) < 0.01, 1e6, scan)
    fitted = fit_contrast(scan, atlas, inside).apply(wild, inside)
    assert 0 <= fitted.min() and fitted.max() <= 1


def test_brains_apart_and_masks_are_refused() -> None:
    atlas, scan = brain(), brain()
    with pytest.raises(VolumeError, match="overlap in 0 voxels"):
        fit_contrast(scan, np.zeros_like(atlas), scan > 0)
    with pytest.raises(VolumeError, match="mask"):
        fit_contrast(np.ones_like(scan), atlas, scan > 0)
