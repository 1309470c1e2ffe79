# SPDX-License-Identifier: Apache-2.0
"""Slices of the worst subjects. They are kept while the comparison runs, because arrays are deleted after each subject,
and drawn at the end.

All subjects share the colour scales of their errors, which are known only after the last one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from om_runner.precision.page.colourbars import colour_bars
from om_runner.precision.page.quantities import Row, badness, non_finite, number, with_unit
from vxm_convert.webpage.colours import css_colour
from vxm_convert.webpage.palettes import BAD_COLOUR, grey_png, largest, magnitude_png, signed_png
from vxm_convert.webpage.planes import middle, planes
from vxm_convert.webpage.png import data_uri
from vxm_convert.webpage.templates import Html, fragment

TEMPLATES = Path(__file__).with_name("templates")
#: browsers cannot open a page with hundreds of pictures; the tables stay complete
MOST_SUBJECTS = 8
#: bytes of PNG on one page, which become a third more as base64
MOST_BYTES = 2_000_000
COLUMNS = (
    "fixed",
    "moved by TensorFlow",
    "moved by the offline model",
    "difference, offline \u2212 TensorFlow",
    "flow error",
)
#: the largest intensity of a 0..255-normalised brain would leave the picture dark
_WINDOW_PERCENTILE = 99.8


@dataclass(frozen=True)
class Plane:
    """One slice of one subject: images (H, W) in the order of COLUMNS, and the position of the marked voxel in it (row,
    column).
    """

    title: str
    images: Tuple[np.ndarray, ...]
    at: Tuple[int, int]


@dataclass(frozen=True)
class Slices:
    """The slices of one subject through one voxel."""

    subject: str
    centre: Tuple[int, ...]
    is_worst: bool
    white: float
    planes: Tuple[Plane, ...]


class Gallery:
    """Keeps the slices of the worst subjects seen so far and drops the others.

    Parameters
    ----------
    orientation : str — axis letters of the network grid; for ``LIA``, slices are shown upright.
    limits : sequence — limits of the acceptance profile, which determine the order of the subjects
        (`om_runner.precision.page.quantities.badness`).
    most : int — number of subjects to keep.
    """

    def __init__(self, orientation: str, limits: Sequence[Mapping[str, Any]] = (), most: int = MOST_SUBJECTS) -> None:
        self._orientation = orientation
        self._limits = limits
        self._most = most
        self._heap: List[Tuple[Tuple[float, ...], int, Slices]] = []
        self.n_seen = 0

    def offer(self, row: Row, views: Views) -> None:
        """Add a subject: its row of the report and its arrays, of which only slices are copied."""
        self.n_seen += 1
        key = badness(row, self._limits)
        # Of equal subjects the earlier one is kept: the running number breaks the tie.
        if len(self._heap) == self._most and (key, -self.n_seen) <= self._heap[0][:2]:
            return
        entry = (key, -self.n_seen, cut(row, views, self._orientation))
        (heapq.heappush if len(self._heap) < self._most else heapq.heappushpop)(self._heap, entry)

    @property
    def kept(self) -> Dict[str, Slices]:
        """Subject → slices, worst first."""
        return {
            slices.subject: slices for _, _, slices in sorted(self._heap, reverse=True, key=lambda entry: entry[:2])
        }


def cut(row: Row, views: Views, orientation: str) -> Slices:
    """Slices through the voxel with the largest error of the moved image, or through the first that is NaN or Inf.

    Where the moved images are equal they go through the middle of the bright part of the fixed image.
    """
    centre, is_worst = _where(row, views)
    cuts = []
    for title, take, at in planes(orientation, centre, views.fixed.shape):
        images = [
            np.array(take(a), dtype=np.float64) for a in (views.fixed, views.moved_reference, views.moved_offline)
        ]
        with np.errstate(invalid="ignore"):
            difference = images[2] - images[1]
            steps = [
                np.asarray(take(views.flow_offline[..., c]), np.float64) - take(views.flow_reference[..., c])
                for c in range(views.flow_offline.shape[-1])
            ]
            error = np.sqrt(sum(step * step for step in steps))
        cuts.append(Plane(title, (*images, difference, error), at))
    bright = float(np.percentile(_every_second(views.fixed), _WINDOW_PERCENTILE))
    return Slices(
        str(row.get("subject")), centre, is_worst, bright if np.isfinite(bright) and bright > 0 else 1.0, tuple(cuts)
    )


def _where(row: Row, views: Views) -> Tuple[Tuple[int, ...], bool]:
    shape = views.fixed.shape
    if non_finite(row):
        for array in (views.moved_offline, views.moved_reference, views.flow_offline, views.flow_reference):
            bad = ~np.isfinite(array)
            if bad.any():
                return tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape)[: len(shape)]), True
    found = row["moved"].get("max_index") if isinstance(row.get("moved"), Mapping) else None
    if found is not None and len(found) == len(shape) and number(row, "moved.max_abs"):
        return tuple(int(i) for i in found), True
    return middle(views.fixed), False


def _every_second(image: np.ndarray) -> np.ndarray:
    return image[tuple(slice(None, None, 2) for _ in image.shape)]


def gallery_section(kept: Mapping[str, Slices], rows: Sequence[Row], simulated: bool, orientation: str) -> Html:
    """The section of the page; `rows` are in the order to show, worst first, and may have subjects without slices.

    Empty where no subject has slices.
    """
    listed = [row for row in rows if str(row.get("subject")) in kept]
    if not listed:
        return Html("")
    shown = [plane for slices in kept.values() for plane in slices.planes]
    ends = largest([plane.images[3] for plane in shown]), largest([plane.images[4] for plane in shown])
    articles: List[Dict[str, Any]] = []
    used = 0
    for row in listed:
        slices = kept[str(row.get("subject"))]
        pictures = [_pictures(plane, slices.white, ends) for plane in slices.planes]
        used += sum(len(png) for line in pictures for png in line)
        if articles and used > MOST_BYTES:
            break
        articles.append(_article(row, slices, pictures))
    return fragment(
        TEMPLATES,
        "gallery.html",
        simulated=simulated,
        articles=articles,
        n_compared=len(rows),
        upright=orientation == "LIA",
        bars=colour_bars(*ends),
        bad_colour=css_colour(BAD_COLOUR),
        columns=COLUMNS,
    )


def _pictures(plane: Plane, white: float, ends: Tuple[float, float]) -> List[bytes]:
    fixed, reference, offline, difference, error = plane.images
    return [
        grey_png(fixed, white),
        grey_png(reference, white),
        grey_png(offline, white),
        signed_png(difference, ends[0]),
        magnitude_png(error, ends[1]),
    ]


def _article(row: Row, slices: Slices, pictures: Sequence[Sequence[bytes]]) -> Dict[str, Any]:
    lines = [
        {
            "title": plane.title,
            "slices": [_slice(plane, png, slices.is_worst and at >= 3) for at, png in enumerate(line)],
        }
        for plane, line in zip(slices.planes, pictures)
    ]
    return {
        "subject": slices.subject,
        "passed": row.get("verdict") != "failed",
        "lines": lines,
        "n_bad": non_finite(row),
        "error": with_unit("moved.max_abs", number(row, "moved.max_abs")),
        "end_point_error": with_unit("epe_voxel.max", number(row, "epe_voxel.max")),
        "voxel": ", ".join(str(i) for i in slices.centre),
        "is_worst": slices.is_worst,
    }


def _slice(plane: Plane, png: bytes, ring: bool) -> Dict[str, Any]:
    """A picture with its size, and centre and radius of the ring on it."""
    height, width = plane.images[0].shape
    y, x = plane.at
    radius = round(max(1.5, 0.035 * max(height, width)), 2)
    return {"source": data_uri(png), "size": (width, height), "ring": (x + 0.5, y + 0.5, radius) if ring else None}


@dataclass(frozen=True)
class Views:
    """Arrays of one subject for the pictures, memory-mapped, valid during the callback.

    Images: (X, Y, Z) float32 network intensities; flows: (X, Y, Z, 3) float32 voxels.
    """

    moving: np.ndarray
    fixed: np.ndarray
    moved_reference: np.ndarray
    moved_offline: np.ndarray
    flow_reference: np.ndarray
    flow_offline: np.ndarray
