# SPDX-License-Identifier: Apache-2.0
"""Colours of the pictures, their letters, lines and mosaics: everything that works on palette indices of pixels.

Okabe and Ito's colours; no two things differ only by red and green. Letters are part of the picture, so that a copied
picture still shows its sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from vxm_convert.webpage.colours import css_colour
from vxm_convert.webpage.palettes import BAD_COLOUR, GREY, SIGNED, STEPS, grey_index
from vxm_convert.webpage.png import indexed_png

#: appended to a palette: fixed labels, moved labels, lines of the grid, black
_EXTRA = ((230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 0, 0))
EXTRA_NAMES = ("fixed", "moved", "grid", "black")
GAP = 10
_SCALE = 2
#: rows of 5 pixels, highest bit left
_GLYPHS = {
    "A": (0x04, 0x0A, 0x11, 0x11, 0x1F, 0x11, 0x11),
    "I": (0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E),
    "L": (0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F),
    "P": (0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10),
    "R": (0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11),
    "S": (0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E),
}


@dataclass(frozen=True)
class Palette:
    """Colours of one kind of picture, with the indices of appended ones.

    Parameters
    ----------
    colours : ndarray, shape (n, 3), uint8.
    base : int — number of colours of the scale itself; the last one marks NaN, Inf and folds.
    paper, ink, halo : int — colours between the slices, of letters, and around letters.
    """

    colours: np.ndarray
    base: int
    paper: int
    ink: int
    halo: int

    @property
    def bad(self) -> int:
        return self.base - 1

    def extra(self, name: str) -> int:
        """Index of an appended colour."""
        return self.base + EXTRA_NAMES.index(name)

    def png(self, index: np.ndarray) -> bytes:
        return indexed_png(index, self.colours)


def _extended(colours: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, np.array(_EXTRA, np.uint8)])


GREYS = Palette(_extended(GREY), len(GREY), 0, len(GREY) - 2, 0)
#: blue below, white in the middle, brown above
SIGNS = Palette(_extended(SIGNED), len(SIGNED), STEPS, len(SIGNED) + EXTRA_NAMES.index("black"), STEPS)


def greys(image: np.ndarray, white: float) -> np.ndarray:
    """0 (black) to `white` as indices of `GREYS`; NaN and Inf are marked."""
    return grey_index(image, white)


def signs(image: np.ndarray, end: float) -> np.ndarray:
    """−`end` to `end`, linear, as indices of `SIGNS`; NaN and Inf are marked."""
    values = np.where(np.isfinite(image), image, 0.0)
    index = STEPS + np.rint(np.clip(values / end, -1, 1) * STEPS)
    return np.where(np.isfinite(image), index, SIGNS.bad).astype(np.uint8)


def edges(image: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another value; bool."""
    found = np.zeros(image.shape, dtype=bool)
    found[:, :-1] |= image[:, 1:] != image[:, :-1]
    found[:-1, :] |= image[1:, :] != image[:-1, :]
    return found


def borders(labels: np.ndarray) -> np.ndarray:
    """The labels at the rim of each region, inside it, and 0 elsewhere: the rims of neighbours do not overlap."""
    rim = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        differ = np.diff(labels, axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        rim[tuple(before)] |= differ
        rim[tuple(after)] |= differ
    return np.where(rim, labels, 0)


def thicken(mask: np.ndarray) -> np.ndarray:
    """The mask and its four neighbours, so that a single pixel is visible."""
    out = mask.copy()
    out[1:, :] |= mask[:-1, :]
    out[:-1, :] |= mask[1:, :]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out


def put_letters(index: np.ndarray, letters: str, palette: Palette) -> np.ndarray:
    """Letters at top, bottom, left and right of a slice that is large enough for them."""
    height, width = index.shape
    h, w = 7 * _SCALE + 2, 5 * _SCALE + 2
    if height < 4 * h or width < 4 * w:
        return index
    places = (
        (0, (width - w) // 2),
        (height - h, (width - w) // 2),
        ((height - h) // 2, 0),
        ((height - h) // 2, width - w),
    )
    for letter, (y, x) in zip(letters, places):
        glyph = np.array([[bool(row >> (4 - bit) & 1) for bit in range(5)] for row in _GLYPHS[letter]])
        ink = np.pad(np.kron(glyph, np.ones((_SCALE, _SCALE), bool)), 1)
        target = index[y : y + h, x : x + w]
        target[thicken(ink)] = palette.halo
        target[ink] = palette.ink
    return index


def mosaic(rows: Sequence[Sequence[np.ndarray]], palette: Palette) -> np.ndarray:
    """Slices in rows, each row centred, gaps in the colour of the paper; uint8."""
    widths = [sum(cell.shape[1] for cell in row) + GAP * (len(row) - 1) for row in rows]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    out = np.full((sum(heights) + GAP * (len(rows) - 1), max(widths)), palette.paper, np.uint8)
    top = 0
    for row, width, height in zip(rows, widths, heights):
        left = (out.shape[1] - width) // 2
        for cell in row:
            out[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            left += cell.shape[1] + GAP
        top += height + GAP
    return out


def colour_of(palette: Palette, index: int) -> str:
    """As style sheets write it."""
    return css_colour(palette.colours[index])


__all__ = [
    "BAD_COLOUR",
    "EXTRA_NAMES",
    "GREYS",
    "SIGNS",
    "Palette",
    "borders",
    "colour_of",
    "edges",
    "greys",
    "mosaic",
    "put_letters",
    "signs",
    "thicken",
]
