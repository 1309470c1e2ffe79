# SPDX-License-Identifier: Apache-2.0
"""Slices of the worst subjects. Kept while the comparison runs, because the arrays go after each subject; drawn at the
end.

All subjects share the colour scales of their errors, which is only known when the last one has been seen.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from om_runner.precision.page.colourbars import colour_bars
from om_runner.precision.page.figures import Row, badness, non_finite, number, with_unit
from vxm_convert.webpage.elements import Html, badge_html, element, escape, figure, join, prose, section, verdict_html
from vxm_convert.webpage.palettes import grey_png, largest, magnitude_png, signed_png
from vxm_convert.webpage.planes import middle, planes
from vxm_convert.webpage.png import data_uri

#: a page with hundreds of pictures opens nowhere; the tables stay complete
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
#: brighter than any tissue of a 0..255-normalised brain would leave the picture dark
_WINDOW_PERCENTILE = 99.8


@dataclass(frozen=True)
class Plane:
    """One slice of one subject: images (H, W) in the order of COLUMNS, and where the marked voxel is in it (row,
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
    orientation : str — axis letters of the network grid; for ``LIA`` slices are shown upright.
    limits : sequence — limits of the acceptance profile, which order the subjects
        (`om_runner.precision.page.figures.badness`).
    most : int — subjects to keep.
    """

    def __init__(self, orientation: str, limits: Sequence[Mapping[str, Any]] = (), most: int = MOST_SUBJECTS) -> None:
        self._orientation = orientation
        self._limits = limits
        self._most = most
        self._heap: List[Tuple[Tuple[float, ...], int, Slices]] = []
        self.n_seen = 0

    def offer(self, row: Row, views: Views) -> None:
        """See one subject: its row of the report, and its arrays, of which only slices are copied."""
        self.n_seen += 1
        key = badness(row, self._limits)
        # Of equal subjects the earlier one stays: the running number breaks the tie.
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
    """The section of the page; `rows` are in the order to show, worst first, and may have subjects without slices."""
    listed = [row for row in rows if str(row.get("subject")) in kept]
    if not listed:
        return Html("")
    shown = [plane for slices in kept.values() for plane in slices.planes]
    ends = largest([plane.images[3] for plane in shown]), largest([plane.images[4] for plane in shown])
    articles, used = [], 0
    for row in listed:
        slices = kept[str(row.get("subject"))]
        pictures = [_pictures(plane, slices.white, ends) for plane in slices.planes]
        used += sum(len(png) for line in pictures for png in line)
        if articles and used > MOST_BYTES:
            break
        articles.append(_article(row, slices, pictures, simulated))
    n, total = len(articles), len(rows)
    scans = "1 scan" if n == 1 else f"{n} scans"
    reason = (
        "every compared scan"
        if n == total
        else f"the {scans} of {total} with the largest errors; the tables above hold all {total}"
    )
    views = (
        "Sagittal: anterior to the right; coronal and axial: the subject's left to the right."
        if orientation == "LIA"
        else ""
    )
    intro = prose(
        f"Shown: {reason}, worst first. The slices go through the voxel with the largest error of the moved image, "
        "ringed in the two "
        f"right-hand columns. Colours mean the same in every picture of this page. {views}"
    )
    return section("Pictures of the worst scans", intro, colour_bars(*ends), *articles, anchor="pictures")


def _pictures(plane: Plane, white: float, ends: Tuple[float, float]) -> List[bytes]:
    fixed, reference, offline, difference, error = plane.images
    return [
        grey_png(fixed, white),
        grey_png(reference, white),
        grey_png(offline, white),
        signed_png(difference, ends[0]),
        magnitude_png(error, ends[1]),
    ]


def _article(row: Row, slices: Slices, pictures: Sequence[Sequence[bytes]], simulated: bool) -> Html:
    head = join([element("th", "slice", scope="col")] + [element("th", title, scope="col") for title in COLUMNS])
    lines = []
    for plane, line in zip(slices.planes, pictures):
        cells = [_slice(slices, plane, png, COLUMNS[at], ring=at >= 3) for at, png in enumerate(line)]
        lines.append(element("tr", element("th", plane.title, scope="row"), *cells))
    table = element("table", element("thead", element("tr", head)), element("tbody", join(lines)), class_="slices")
    box = element("div", table, class_="scroll", tabindex="0", role="region", aria_label=f"slices of {slices.subject}")
    bad = non_finite(row)
    found = f"{bad} values are NaN or Inf. " if bad else ""
    at = ", ".join(str(i) for i in slices.centre)
    place = (
        f"ring at voxel ({at})"
        if slices.is_worst
        else f"the moved images are equal; slices through the middle, voxel ({at})"
    )
    words = (
        f" {slices.subject}: {found}moved image, largest error "
        f"{with_unit('moved.max_abs', number(row, 'moved.max_abs'))}; "
        f"end-point error, largest {with_unit('epe_voxel.max', number(row, 'epe_voxel.max'))}; {place}. n = 1 scan."
    )
    verdict = verdict_html(row.get("verdict") != "failed")
    title = element("h3", slices.subject, " ", verdict)
    return join([title, figure(box, join([badge_html(simulated, small=True), words]), classes="gallery")])


def _slice(slices: Slices, plane: Plane, png: bytes, column: str, ring: bool) -> Html:
    height, width = plane.images[0].shape
    source = data_uri(png)
    image = Html(
        f'<img src="{source}" width="{width}" height="{height}" '
        f'alt="{escape(f"{slices.subject}, {plane.title}: {column}")}">'
    )
    marked: Optional[Html] = None
    if ring and slices.is_worst:
        y, x = plane.at
        circle = element("circle", cx=x + 0.5, cy=y + 0.5, r=round(max(1.5, 0.035 * max(height, width)), 2))
        marked = element("svg", circle, viewBox=f"0 0 {width} {height}", aria_hidden="true")
    return element("td", element("div", image, marked or "", class_="slice"))


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
