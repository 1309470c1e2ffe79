# SPDX-License-Identifier: Apache-2.0
"""One PNG per compared subject: three orthogonal slices of moving, fixed, moved by TensorFlow, moved by the offline model, difference.

matplotlib's Agg canvas through the object interface: no display, no global state, no font download.
"""

from __future__ import annotations

import io
from typing import Callable, List, Sequence, Tuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from om_runner.compare import Views

COLUMNS = ("moving", "fixed", "moved by TensorFlow", "moved by the offline model", "offline − TensorFlow")
_DPI = 80
_WIDTH_INCHES = 14.0
#: brighter than any tissue of a 0..255-normalised brain would leave the picture dark
_WINDOW_PERCENTILE = 99.8


def overview_png(views: Views, orientation: str) -> Tuple[bytes, float]:
    """The picture, and the end of its symmetric difference scale (network intensity units).

    Slices go through the centre of the fixed image's bright voxels. For LIA axes they are shown upright:
    sagittal with anterior to the right, coronal and axial with the subject's left to the right.
    """
    centre = _centre(views.fixed)
    white = float(np.percentile(views.fixed[::2, ::2, ::2], _WINDOW_PERCENTILE)) or 1.0
    scale = float(np.abs(np.asarray(views.moved_offline, dtype=np.float64) - views.moved_reference).max())
    rows = _cuts(orientation, centre)
    heights = [_shape(cut(views.fixed))[0] / _shape(cut(views.fixed))[1] for _, cut in rows]
    figure = Figure(figsize=(_WIDTH_INCHES, 0.9 + sum(heights) * _WIDTH_INCHES / 5.6), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(COLUMNS), gridspec_kw={"height_ratios": heights, "wspace": 0.03, "hspace": 0.05}, squeeze=False)
    figure.subplots_adjust(left=0.03, right=0.905, top=0.94, bottom=0.02)
    shown = None
    for (title, cut), line in zip(rows, axes):
        images = [cut(a) for a in (views.moving, views.fixed, views.moved_reference, views.moved_offline)]
        for axis, image in zip(line, images):
            axis.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
        difference = np.asarray(images[3], dtype=np.float64) - images[2]
        shown = line[4].imshow(difference, cmap="RdBu_r", vmin=-(scale or 1.0), vmax=scale or 1.0, interpolation="nearest")
        line[0].set_ylabel(title, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, title in zip(axes[0], COLUMNS):
        axis.set_title(title, fontsize=10)
    bar = figure.colorbar(shown, cax=figure.add_axes([0.918, 0.1, 0.012, 0.75]))
    bar.set_label(f"intensity difference, ±{scale:.2e} of full scale 1", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    buffer = io.BytesIO()
    # No version or time in the file: equal arrays give equal bytes for one matplotlib.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue(), scale


def _cuts(orientation: str, centre: Sequence[int]) -> List[Tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    x, y, z = centre
    if orientation == "LIA":
        return [
            (f"sagittal, x = {x}", lambda a: a[x, :, :]),
            (f"coronal, z = {z}", lambda a: a[:, :, z].T),
            (f"axial, y = {y}", lambda a: a[:, y, :].T[::-1]),
        ]
    return [
        (f"first axis = {x}", lambda a: a[x, :, :]),
        (f"second axis = {y}", lambda a: a[:, y, :]),
        (f"third axis = {z}", lambda a: a[:, :, z]),
    ]


def _centre(image: np.ndarray) -> Tuple[int, ...]:
    bright = np.asarray(image) > 0.1 * float(np.max(image))
    if not bright.any():
        return tuple(side // 2 for side in image.shape)
    return tuple(int(np.median(where)) for where in np.nonzero(bright))


def _shape(image: np.ndarray) -> Tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])
