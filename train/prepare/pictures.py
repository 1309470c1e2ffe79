# SPDX-License-Identifier: Apache-2.0
"""A scan over the reference in three planes, in one small picture: where they agree it is grey, where they do not it
has colours.
"""

from __future__ import annotations

from typing import List

import numpy as np

from train.prepare.settings import AXES
from vxm_convert.webpage.planes import middle, planes
from vxm_convert.webpage.png import indexed_png

#: levels of each image; every pair of levels is one of the 256 colours
_LEVELS = 16
#: reference and scan; they add up to white, and people who do not see red or green tell them apart
REFERENCE_COLOUR, SCAN_COLOUR = (255, 140, 0), (0, 115, 255)
#: longer sides are halved until they fit
_LONGEST = 128
_WINDOW_PERCENTILE = 99.8


def overlay(scan: np.ndarray, reference: np.ndarray) -> bytes:
    """PNG of sagittal, coronal and axial slices through the middle of the reference's brain, side by side.

    Parameters
    ----------
    scan, reference : ndarray, shape of the network grid — each is shown from 0 to its own 99.8th percentile.
    """
    index = _levels(reference)
    index = index.astype(np.uint8) * _LEVELS + _levels(scan).astype(np.uint8)
    cuts = [take(index) for _, take, _ in planes(AXES.orientation, middle(reference), reference.shape)]
    step = 1
    while max(max(cut.shape) for cut in cuts) > step * _LONGEST:
        step *= 2
    return indexed_png(_beside([cut[::step, ::step] for cut in cuts]), _palette())


def _levels(image: np.ndarray) -> np.ndarray:
    bright = image[image > 0]
    white = float(np.percentile(bright, _WINDOW_PERCENTILE)) if bright.size else 1.0
    return np.rint(np.clip(image / white, 0.0, 1.0) * (_LEVELS - 1))


def _palette() -> np.ndarray:
    share = np.arange(_LEVELS)[:, np.newaxis] / (_LEVELS - 1)
    first, second = share * np.array(REFERENCE_COLOUR), share * np.array(SCAN_COLOUR)
    return np.rint(first[:, np.newaxis] + second[np.newaxis]).clip(0, 255).astype(np.uint8).reshape(-1, 3)


def _beside(cuts: List[np.ndarray]) -> np.ndarray:
    height = max(cut.shape[0] for cut in cuts)
    return np.concatenate([np.pad(cut, ((0, height - cut.shape[0]), (0, 2)), mode="constant") for cut in cuts], axis=1)
