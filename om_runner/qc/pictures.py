# SPDX-License-Identifier: Apache-2.0
"""The pictures of one subject as PNG. Pictures of the same size show the same slices, so that a page can flicker
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from om_runner.qc.case import Case
from om_runner.qc.colours import GREYS, SIGNS, Palette, edges, greys, mosaic, put_letters, signs, thicken
from om_runner.qc.measures import Brightness, brightness, correlation, empty_share, white_of
from om_runner.qc.slices import CELL, Cut, Slices, interpolate, nearest, shown_box
from om_runner.qc.structures import structures
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import apply_affine
from vxm_convert.geometry.jacobian import determinant_plane, determinant_range
from vxm_convert.webpage.png import coloured_png

#: end of the scale of differences, as a share of the fixed image's white
DIFFERENCE_END = 0.5
#: end of the scale of the Jacobian: a quarter and four times the volume
LOG2_END = 2.0
#: outlines that replace labels, as shares of white
OUTLINES = (0.1, 0.4, 0.7)
#: squares along the longest side
_CHECKS = 8
_GRID_LINES = 16
_THUMB_CELL = 84
#: thin lines need larger slices, so fewer fit
_LARGE_CELL, _LARGE_PER_PLANE = 340, 3
_FAINT = 0.55


class Picture(NamedTuple):
    """A PNG with its size in pixels."""

    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Drawn:
    """Pictures by name, and figures for them: folded voxels, range of the Jacobian, spacing of the grid's lines in mm, how
    much the images are alike.

    `labels`: of the structures in the picture ``structures``; the first one has the value 1 there.
    """

    pictures: Dict[str, Picture]
    figures: Dict[str, Optional[float]]
    labels: Tuple[int, ...] = ()


def draw(case: Case) -> Drawn:
    """All pictures for which a case has arrays."""
    bright = brightness(case)
    box = shown_box(case.grid, ((case.fixed, bright.fixed), (case.moved, bright.moved)))
    pen, large = (
        _Pen(case, bright, Slices(case.grid, box)),
        _Pen(case, bright, Slices(case.grid, box, _LARGE_CELL, _LARGE_PER_PLANE)),
    )
    pictures = {"fixed": pen.grey(case.fixed, bright.fixed)}
    for name, image in (("before", case.before), ("after", case.moved)):
        if image is not None:
            pictures[name] = pen.grey(image, bright.moved)
            pictures[f"difference_{name}"] = pen.difference(image)
    pictures["overview"] = large.overview()
    pictures["thumb"] = _Pen(case, bright, Slices(case.grid, box, _THUMB_CELL, 1)).thumb()
    figures: Dict[str, Optional[float]] = {}
    if case.moved is not None:
        pictures["checker"] = pen.checker()
        pictures["contours"] = large.contours()
    labels, rims = structures(case, pen.slices)
    if rims is not None:
        pictures["structures"] = Picture(coloured_png(rims), rims.shape[1], rims.shape[0])
    if case.warp is not None:
        spacing = line_spacing(pen.slices.longest_mm)
        pictures["grid"] = large.deformed_grid(case.warp, spacing)
        figures["grid_mm"] = spacing
        if min(case.grid.shape) >= 2:
            pictures["jacobian"] = pen.jacobian(case.warp)
            extent = determinant_range(case.warp)
            figures.update(folded=extent.folded, jacobian_low=extent.lowest, jacobian_high=extent.highest)
    white = white_of(case.fixed)
    figures.update(
        ncc_before=correlation(case.fixed, case.before, white),
        ncc_after=correlation(case.fixed, case.moved, white),
        empty_share=empty_share(case.fixed, case.moved, white),
    )
    return Drawn(pictures, figures, labels)


def line_spacing(longest_mm: float) -> float:
    """Distance of the grid's lines: 1, 2 or 5 times a power of ten, about sixteen lines to the longest side."""
    rough = longest_mm / _GRID_LINES
    power = 10.0 ** np.floor(np.log10(rough))
    return float(min((1 * power, 2 * power, 5 * power, 10 * power), key=lambda step: abs(np.log(step / rough))))


class _Pen:
    """Draws with one selection of slices."""

    def __init__(self, case: Case, bright: Brightness, slices: Slices) -> None:
        self.case, self.bright, self.slices = case, bright, slices

    def grey(self, image: np.ndarray, white: float) -> Picture:
        return self._rows(
            [[greys(self.slices.smooth(image, cut), white) for cut in row] for row in self.slices.cuts], GREYS
        )

    def overview(self) -> Picture:
        """Moving, fixed, moved: one slice per plane, one column per image; a missing image is black."""
        columns = (
            (self.case.before, self.bright.moved),
            (self.case.fixed, self.bright.fixed),
            (self.case.moved, self.bright.moved),
        )
        rows = []
        for cut in self.slices.middle:
            row = [
                np.zeros(cut.size, np.uint8) if i is None else greys(self.slices.smooth(i, cut), white)
                for i, white in columns
            ]
            rows.append([self._lettered(cell, cut, GREYS) for cell in row])
        # Columns have the same width, so that headings can be placed above them.
        width = max(cell.shape[1] for row in rows for cell in row)
        return _picture(mosaic([[_widened(cell, width) for cell in row] for row in rows], GREYS), GREYS)

    def thumb(self) -> Picture:
        """The middle slices of the moved scan with the outline of the fixed image."""
        image, white = (
            (self.case.fixed, self.bright.fixed) if self.case.moved is None else (self.case.moved, self.bright.moved)
        )
        row = []
        for cut in self.slices.middle:
            cell = greys(self.slices.smooth(image, cut), white)
            outline = edges(self.slices.smooth(self.case.fixed, cut) > OUTLINES[0] * self.bright.fixed)
            cell[outline] = GREYS.extra("fixed")
            row.append(cell)
        return _picture(mosaic([row], GREYS), GREYS)

    def difference(self, image: np.ndarray) -> Picture:
        """Scan, scaled to the fixed image, minus the fixed image, as shares of its white."""

        def cell(cut: Cut) -> np.ndarray:
            gap = self.slices.smooth(image, cut) * self.bright.gain - self.slices.smooth(self.case.fixed, cut)
            return signs(gap / self.bright.fixed, DIFFERENCE_END)

        return self._rows([[cell(cut) for cut in row] for row in self.slices.cuts], SIGNS)

    def checker(self) -> Picture:
        """Fixed and moved in alternating squares."""
        side = CELL // _CHECKS

        def cell(cut: Cut) -> np.ndarray:
            fixed = greys(self.slices.smooth(self.case.fixed, cut), self.bright.fixed)
            moved = greys(self.slices.smooth(self.case.moved, cut), self.bright.moved)
            y, x = np.indices(fixed.shape)
            return np.where((y // side + x // side) % 2 == 0, fixed, moved)

        return self._rows([[cell(cut) for cut in row] for row in self.slices.cuts], GREYS)

    def contours(self) -> Picture:
        """Borders of the fixed labels over those of the moved ones, on the moved scan; without labels, outlines of the
        fixed image.
        """

        def cell(cut: Cut) -> np.ndarray:
            out = greys(self.slices.smooth(self.case.moved, cut), self.bright.moved)
            fixed, moved = self._borders(cut)
            if moved is not None:
                out[moved] = GREYS.extra("moved")
            out[fixed] = GREYS.extra("fixed")
            return out

        return self._rows([[cell(cut) for cut in row] for row in self.slices.cuts], GREYS)

    def _borders(self, cut: Cut) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        if self.case.fixed_seg is None:
            levels = np.digitize(self.slices.smooth(self.case.fixed, cut) / self.bright.fixed, OUTLINES)
            return edges(levels), None
        moved = None if self.case.moved_seg is None else edges(self.slices.nearest(self.case.moved_seg, cut))
        return edges(self.slices.nearest(self.case.fixed_seg, cut)), moved

    def deformed_grid(self, warp: Warp, spacing_mm: float) -> Picture:
        """A regular grid of the moving space, carried by the warp, on the darkened fixed image; movement out of the
        slice is invisible.
        """

        def cell(cut: Cut) -> np.ndarray:
            out = greys(self.slices.smooth(self.case.fixed, cut), self.bright.fixed / _FAINT)
            at = interpolate(self._targets_mm(warp, cut), cut)
            out[edges(np.floor(at[..., 0] / spacing_mm)) | edges(np.floor(at[..., 1] / spacing_mm))] = GREYS.extra(
                "grid"
            )
            return out

        return self._rows([[cell(cut) for cut in row] for row in self.slices.cuts], GREYS)

    def _targets_mm(self, warp: Warp, cut: Cut) -> np.ndarray:
        """Positions in the moving space from which the voxels of a slice are read, in mm along its rows and columns:
        (rows, columns, 2).
        """
        there = self.slices.indices(cut) + self.slices.plane(warp.u, cut)
        at = apply_affine(self.case.grid.inverse, apply_affine(warp.moving.affine, there))
        axes = [self.slices.axes[ras] for ras in (cut.view.rows, cut.view.columns)]
        return np.stack([at[..., axis] * self.case.grid.spacing_mm[axis] for axis in axes], axis=-1)

    def jacobian(self, warp: Warp) -> Picture:
        """Logarithm of the volume ratio; folds in the colour of undefined values, one pixel wider than they are."""

        def cell(cut: Cut) -> np.ndarray:
            axis = self.slices.axes[cut.view.axis]
            values = determinant_plane(warp, axis, int(self.slices.indices(cut)[0, 0, axis]))
            plane = self.slices.plane(np.broadcast_to(values, warp.fixed.shape), cut)
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.where(plane > 0, np.log2(np.maximum(plane, 2.0**-LOG2_END)), 0.0)
            out = signs(interpolate(logs, cut), LOG2_END)
            out[thicken(nearest(~(plane > 0), cut))] = SIGNS.bad
            return out

        return self._rows([[cell(cut) for cut in row] for row in self.slices.cuts], SIGNS)

    def _rows(self, cells: List[List[np.ndarray]], palette: Palette) -> Picture:
        """A mosaic with letters on the first slice of each plane."""
        for row, cuts in zip(cells, self.slices.cuts):
            row[0] = self._lettered(row[0], cuts[0], palette)
        return _picture(mosaic(cells, palette), palette)

    def _lettered(self, cell: np.ndarray, cut: Cut, palette: Palette) -> np.ndarray:
        return put_letters(cell, cut.view.letters, palette) if self.case.letters else cell


def _widened(cell: np.ndarray, width: int) -> np.ndarray:
    extra = width - cell.shape[1]
    return np.pad(cell, ((0, 0), (extra // 2, extra - extra // 2)))


def _picture(index: np.ndarray, palette: Palette) -> Picture:
    return Picture(palette.png(index), index.shape[1], index.shape[0])
