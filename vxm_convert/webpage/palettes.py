# SPDX-License-Identifier: Apache-2.0
"""Slices as small indexed PNGs, and the colour scales they use. Equal arrays give equal bytes; without a drawing
library.

Errors are shown on logarithmic scales over three decades, so that one scale serves the worst and the best subject.
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np

from vxm_convert.webpage.png import indexed_png

#: decades between the end of an error scale and its zero
DECADES = 3.0
_GREYS = 64
#: steps of an error scale on each side of zero
STEPS = 24
#: colour of NaN and Inf in every picture
BAD_COLOUR = (255, 0, 200)
_LOSS = ((255, 255, 255), (156, 200, 232), (58, 133, 196), (17, 64, 128), (4, 20, 60))
_GAIN = ((255, 255, 255), (253, 206, 140), (232, 133, 28), (158, 69, 4), (76, 28, 2))
_HEAT = ((255, 255, 255), (254, 225, 150), (247, 150, 60), (205, 60, 80), (115, 25, 110), (30, 8, 50))


def _ramp(anchors: Sequence[Tuple[int, int, int]], steps: int) -> np.ndarray:
    at = np.linspace(0, len(anchors) - 1, steps + 1)
    return (
        np.stack([np.interp(at, np.arange(len(anchors)), [a[c] for a in anchors]) for c in range(3)], axis=1)
        .round()
        .astype(np.uint8)
    )


def _with_bad(colours: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, np.array([BAD_COLOUR], np.uint8)])


GREY = _with_bad(np.repeat(np.linspace(0, 255, _GREYS).round().astype(np.uint8)[:, np.newaxis], 3, axis=1))
#: negative differences blue, positive ones brown, zero white in the middle
SIGNED = _with_bad(np.concatenate([_ramp(_LOSS, STEPS)[:0:-1], _ramp(_GAIN, STEPS)]))
MAGNITUDE = _with_bad(_ramp(_HEAT, STEPS))


def grey_index(image: np.ndarray, white: float) -> np.ndarray:
    """An image (H, W) from 0 (black) to `white` as indices of `GREY`; uint8."""
    level = np.clip(_finite(image) / (white or 1.0), 0.0, 1.0) * (_GREYS - 1)
    return _mark_bad(image, level.round(), GREY)


def grey_png(image: np.ndarray, white: float) -> bytes:
    """An image (H, W) from 0 (black) to `white`."""
    return indexed_png(grey_index(image, white), GREY)


def signed_png(image: np.ndarray, end: float) -> bytes:
    """A difference (H, W) on the logarithmic scale of both signs that ends at ±`end`."""
    values = _finite(image)
    return indexed_png(_mark_bad(image, STEPS + np.sign(values) * _step(np.abs(values), end), SIGNED), SIGNED)


def magnitude_png(image: np.ndarray, end: float) -> bytes:
    """A size of error (H, W) on the logarithmic scale that ends at `end`."""
    return indexed_png(_mark_bad(image, _step(_finite(image), end), MAGNITUDE), MAGNITUDE)


def _step(size: np.ndarray, end: float) -> np.ndarray:
    """0 (zero) to STEPS (the end of the scale)."""
    if end <= 0:
        return np.zeros(size.shape)
    with np.errstate(divide="ignore"):
        share = 1.0 + np.log10(size / end) / DECADES
    return np.ceil(np.clip(share, 0.0, 1.0) * STEPS)


def _finite(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, dtype=np.float64)
    return np.where(np.isfinite(image), image, 0.0)


def _mark_bad(image: np.ndarray, index: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(image), index, len(palette) - 1).astype(np.uint8)


def largest(images: Sequence[np.ndarray]) -> float:
    """The largest finite absolute value in any of the arrays; 0 if there is none."""
    best: Optional[float] = None
    for image in images:
        values = np.abs(_finite(image))
        if values.size:
            best = max(best or 0.0, float(values.max()))
    return best or 0.0
