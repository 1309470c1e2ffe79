# SPDX-License-Identifier: Apache-2.0
"""Charts of pages, drawn by Matplotlib: one style, equal bytes for equal figures; independent of results.

Positions are pixels from the upper left corner of the page. No state of `pyplot` is used, and settings of the user's
`matplotlibrc` have no effect.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, List, Sequence, Tuple

from vxm_convert.lazy import LazyModule
from vxm_convert.webpage.colours import INK, PAPER, QUIET, RULE
from vxm_convert.webpage.svg import TIP, cleaned
from vxm_convert.webpage.templates import Html, parts, readable

if TYPE_CHECKING:
    import matplotlib
    from matplotlib.axes import Axes
else:
    matplotlib = LazyModule("matplotlib")
figures = LazyModule("matplotlib.figure")
backend = LazyModule("matplotlib.backends.backend_svg")
ticker = LazyModule("matplotlib.ticker")

SMALL, NORMAL = 11, 12
#: width of a chart beside another one
WIDTH = 460
#: charts up to this width are still readable when they shrink to a phone
_PHONE = 500
_POINTS_PER_INCH = 72.0
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
#: a logarithmic axis shorter than this many decades also names 2 and 5
_FEW_DECADES = 2.2
_MOST_TICKS = 7
_RULES = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vxm_convert",
    "font.family": ["DejaVu Sans"],
    "font.size": NORMAL,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.linewidth": 1.2,
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.dash_joinstyle": "round",
    "lines.solid_capstyle": "butt",
    "lines.scale_dashes": False,
}
# Settings belong to the process, so only one chart at a time.
_LOCK = threading.RLock()


class Chart:
    """One chart; make it with `chart`, add axes and words, then take its SVG.

    Parameters
    ----------
    width, height : float — in pixels.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        size = (width / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
        self.figure = figures.Figure(figsize=size, dpi=_POINTS_PER_INCH)
        backend.FigureCanvasSVG(self.figure)

    def axes(self, left: float, top: float, right: float, bottom: float) -> Any:
        """Matplotlib axes between those pixels; the caller sets the limits and keeps the data within them."""
        width, height = self.width, self.height
        return self.figure.add_axes(
            [left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height]
        )

    def canvas(self) -> Any:
        """Axes over the whole chart with pixel coordinates, without any decoration."""
        axes = self.axes(0, 0, self.width, self.height)
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.set_axis_off()
        return axes

    def words(
        self,
        x: float,
        y: float,
        text: object,
        anchor: str = "left",
        size: float = NORMAL,
        bold: bool = False,
        colour: str = INK,
    ) -> None:
        """Text whose base line starts (or ends, or is centred) at a pixel."""
        place = {"ha": anchor, "va": "baseline", "fontsize": size, "color": colour}
        weight = {"fontweight": "bold"} if bold else {}
        self.figure.text(x / self.width, 1 - y / self.height, literal(text), **place, **weight)

    def svg(self, description: str, white_is_data: bool = False) -> Html:
        """The chart for a page; one that is wider than a phone scrolls there in its own box."""
        wide = self.width > _PHONE
        classes = "drawing wide" if wide else "drawing"
        drawn = Html(cleaned(self._source(), readable(description), classes, white_is_data))
        return Html(parts().scrolling(drawn, "chart, scrolls sideways")) if wide else drawn

    def file(self, description: str) -> str:
        """The chart as a separate SVG file."""
        return cleaned(self._source(), readable(description)) + "\n"

    def _source(self) -> str:
        target = io.BytesIO()
        self.figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
        return target.getvalue().decode("utf-8")


@contextmanager
def chart(width: float, height: float) -> Iterator[Chart]:
    """A chart to draw on; take its SVG before the block ends."""
    with _LOCK, warnings.catch_warnings(), matplotlib.rc_context():
        # The reader's own fonts draw letters that the font lacks.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RULES)
        yield Chart(width, height)


def literal(text: object) -> str:
    """Plain text: no formulas, line breaks, or characters that XML forbids in foreign names."""
    return " ".join(readable(text).split()).replace("$", r"\$")


def tip(artists: Sequence[matplotlib.artist.Artist], words: object) -> None:
    """Set the tooltip of the artists."""
    for artist in artists:
        artist.set_gid(TIP + " ".join(readable(words).split()))


def mark(axes: Axes, kind: str, x: float, y: float, colour: str, size: float = 4.0, words: object = None) -> None:
    """A mark: ``dot``, ``ring``, ``diamond``, ``cross`` or ``triangle``, with a tooltip."""
    shape = {"dot": "o", "ring": "o", "diamond": "D", "cross": "x", "triangle": "^"}[kind]
    fill = PAPER if kind in ("ring", "diamond") else colour
    scale = {"diamond": 1.7, "triangle": 2.2}.get(kind, 2.0)
    width = 2.2 if kind == "cross" else 1.6
    style = {"markersize": scale * size, "markerfacecolor": fill, "markeredgecolor": colour, "markeredgewidth": width}
    drawn = axes.plot([x], [y], shape, zorder=3, **style)
    if words is not None:
        tip(drawn, words)


def power(exponent: int) -> str:
    """10 to that power, as text."""
    return {0: "1", 1: "10"}.get(exponent) or "10" + str(exponent).translate(_SUPERSCRIPT)


def scale(axis: matplotlib.axis.Axis, low: float, high: float, logarithmic: bool = False) -> None:
    """Limits and ticks of an axis (``axes.xaxis`` or ``axes.yaxis``): round values with readable names."""
    name = axis.axis_name
    if logarithmic:
        getattr(axis.axes, f"set_{name}scale")("log")
        places = log_ticks(low, high)
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_ticks([place for place, _ in places])
        axis.set_ticklabels([words for _, words in places])
    else:
        axis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        shown = ticker.ScalarFormatter(useOffset=False)
        shown.set_scientific(False)
        axis.set_major_formatter(shown)
    getattr(axis.axes, f"set_{name}lim")(low, high)


def log_ticks(low: float, high: float) -> List[Tuple[float, str]]:
    """Round values of a logarithmic axis and their names: powers of ten, with 2 and 5 if there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    slack = 1.0 + 1e-9
    if math.log10(high / low) < _FEW_DECADES:
        values = [factor * 10.0**exponent for exponent in range(first, last + 1) for factor in (1, 2, 5)]
        names = [f"{value:g}".replace("e-0", "e-").replace("-", "\u2212") for value in values]
        return [(v, name) for v, name in zip(values, names) if low / slack <= v <= high * slack]
    step = max(1, math.ceil((last - first) / _MOST_TICKS))
    exponents = [e for e in range(first, last + 1) if e % step == 0 and low / slack <= 10.0**e <= high * slack]
    return [(10.0**exponent, power(exponent)) for exponent in exponents]


def titles(axes: Axes, x_title: str, y_title: str) -> None:
    """The title of the horizontal axis below, that of the vertical one above its end, without rotation."""
    axes.set_xlabel(literal(x_title), labelpad=6)
    axes.annotate(
        literal(y_title), (0, 1), (0, 9), xycoords="axes fraction", textcoords="offset points", ha="left", va="baseline"
    )


def legend(axes: Axes, **style: object) -> None:
    """Legend of the labelled lines, above the right end of the axes."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    made = axes.legend(ncol=2, frameon=False, **place, **style)
    for line in made.get_lines():
        line.set_linewidth(max(line.get_linewidth(), 2.0))
    for text in made.get_texts():
        text.set_text(literal(text.get_text()))


def rows(axes: Axes, names: Sequence[str]) -> None:
    """A vertical axis with one named row per entry, the first on top, without grid lines."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines["bottom"].set_visible(False)
    axes.yaxis.grid(False)
    axes.set_yticks(list(range(len(names))))
    axes.set_yticklabels([literal(name) for name in names], fontsize=NORMAL, color=INK)


def colour_bar(title: str, colours: Sequence[str], ticks: Sequence[Tuple[float, str]], description: str) -> Html:
    """A horizontal colour bar with its title above.

    Parameters
    ----------
    colours : sequence of str — from left to right, of equal width.
    ticks : sequence of (position, label) — positions from 0 (left) to 1 (right).
    """
    left, right, top, thick = 16, WIDTH - 16, 24, 16
    with chart(WIDTH, 62) as drawn:
        drawn.words(left, 14, title)
        axes = drawn.canvas()
        step = (right - left) / len(colours)
        # A little wider, so that no gap shows between two of them.
        widths = [step + (0.4 if at + 1 < len(colours) else 0.0) for at in range(len(colours))]
        places = [left + at * step for at in range(len(colours))]
        axes.bar(places, thick, widths, top, align="edge", color=colours, linewidth=0)
        for place, words in ticks:
            tick = left + place * (right - left)
            axes.plot([tick, tick], [top + thick, top + thick + 4], color=INK, linewidth=1.0)
            drawn.words(tick, top + thick + 17, words, "center", SMALL)
        return drawn.svg(description, white_is_data=True)
