# SPDX-License-Identifier: Apache-2.0
"""train_report.html: curves, epochs, warnings and provenance of a run, from the records in metrics.jsonl. No
TensorFlow.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from vxm_convert.artifacts.files import write_text
from vxm_convert.artifacts.names import TRAIN_METRICS_NAME, TRAIN_REPORT_NAME
from vxm_convert.webpage.charts import WIDTH, chart, legend, mark, scale, titles
from vxm_convert.webpage.colours import BLUE, GREEN, ORANGE, SKY, VERMILION
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Column, table
from vxm_convert.webpage.templates import Html, parts

_TEMPLATE = Path(__file__).with_name("templates") / "train_report.html"
_HEIGHT = 260
_BOX = (64, 34, 446, 206)
#: points of a curve; longer runs show means of as many bins
_MOST_POINTS = 400
#: a series with more points than that has no marks
_MOST_MARKS = 60
#: a range wider than this is drawn with a logarithmic axis
_LOGARITHMIC = 20.0
Point = Tuple[float, float]
Record = Mapping[str, Any]


def write_report(out: Path, facts: Mapping[str, Any], made_from: Mapping[str, str]) -> Path:
    """Write the page of the run in `out`.

    Parameters
    ----------
    facts : mapping — name → value of what stands on top: network, loss, device, checkpoints.
    made_from : mapping — role → sha256 of everything that was read.
    """
    records = [json.loads(record) for record in (out / TRAIN_METRICS_NAME).read_text(encoding="utf-8").splitlines()]
    target = out / TRAIN_REPORT_NAME
    write_text(target, build_page(records, facts, made_from))
    return target


def build_page(records: Sequence[Record], facts: Mapping[str, Any], made_from: Mapping[str, str]) -> str:
    """The page of a run's records."""
    steps = [r for r in records if "event" not in r]
    epochs = [r for r in records if r.get("event") == "epoch"]
    warnings = [r for r in records if r.get("event") in ("warning", "loss not finite")]
    context: Dict[str, Any] = {
        "facts": list(facts.items()),
        "warnings": [f"step {r['step']}: {r.get('text', 'the loss was no finite number')}" for r in warnings],
        "curves": _curves(steps, epochs),
        "epochs": _epoch_table(epochs),
        "made_from": sorted(made_from.items()),
    }
    details = f"{facts.get('network', '')}, {facts.get('device', '')}"
    return page(_TEMPLATE, "Training", None, details, **context)


def _curves(steps: Sequence[Record], epochs: Sequence[Record]) -> List[Html]:
    ends = [float(r["epoch"] + 1) for r in epochs]
    per_epoch = (steps[-1]["step"] + 1) / len(epochs) if steps and epochs else 1.0
    drawn = []
    for name in [n for n in (steps[0] if steps else {}) if n.startswith("loss")]:
        points = [((r["step"] + 1) / per_epoch, r[name]) for r in steps if name in r]
        means = [(x, r[name]) for x, r in zip(ends, epochs) if name in r]
        drawn.append(_chart(name, [("steps", binned(points), SKY, False), ("epoch mean", means, BLUE, True)]))
    drawn.append(
        _chart(
            "validation Dice",
            [
                ("before", _of(ends, epochs, "dice_before"), ORANGE, True),
                ("after", _of(ends, epochs, "dice"), BLUE, True),
            ],
        )
    )
    drawn.append(_chart("validation image loss", [("validation", _of(ends, epochs, "image"), GREEN, True)]))
    for name in ("folding", "displacement", "loss_scale"):
        points = [(x, float(r[name])) for x, r in zip(ends, epochs) if name in r]
        drawn.append(
            _chart(
                {"folding": "share of folded voxels", "displacement": "mean displacement, voxels"}.get(
                    name, "loss scale"
                ),
                [(name, points, VERMILION, True)],
            )
        )
    return [chart for chart in drawn if chart is not None]


def _of(ends: Sequence[float], epochs: Sequence[Record], name: str) -> List[Point]:
    found = [(x, (r.get("validation") or {}).get(name)) for x, r in zip(ends, epochs)]
    return [(x, float(value)) for x, value in found if value is not None]


def binned(points: Sequence[Point]) -> List[Point]:
    """At most `_MOST_POINTS` points, each the mean of those in its bin."""
    size = max(1, math.ceil(len(points) / _MOST_POINTS))
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(math.fsum(p[0] for p in g) / len(g), math.fsum(p[1] for p in g) / len(g)) for g in groups]


def _chart(title: str, series: Sequence[Tuple[str, List[Point], str, bool]]) -> Optional[Html]:
    """Series over epochs: (name, points, colour, with marks); None where no series has a point."""
    series = [entry for entry in series if entry[1]]
    values = [y for _, points, _, _ in series for _, y in points]
    if not values:
        return None
    first, last = series[-1][1][0], series[-1][1][-1]
    words = f"{title}: {first[1]:.6g} at epoch {first[0]:g}, {last[1]:.6g} at epoch {last[0]:g}."
    with chart(WIDTH, _HEIGHT) as drawn:
        axes = drawn.axes(*_BOX)
        scale(axes.xaxis, 0.0, max(p[0] for _, points, _, _ in series for p in points))
        scale(axes.yaxis, *_vertical(values))
        titles(axes, "epoch", title)
        for name, points, colour, marked in series:
            axes.plot(*zip(*points), color=colour, linewidth=1.8 if marked else 0.9, label=name)
            if (marked and len(points) <= _MOST_MARKS) or len(points) == 1:
                for x, y in points:
                    mark(axes, "dot", x, y, colour, 2.2, f"{name}, epoch {x:g}: {y:.6g}")
        if len(series) > 1:
            legend(axes)
        return Html(parts().figure(drawn.svg(words), words))


def _vertical(values: Sequence[float]) -> Tuple[float, float, bool]:
    """Lowest and highest place of the axis; logarithmic where the values are positive and far apart."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOGARITHMIC:
        return low, high, True
    if low == high == 0:
        return 0.0, 1.0, False
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.5 * high else low - margin), high + margin, False


def _epoch_table(epochs: Sequence[Record]) -> Html:
    losses = [name for name in (epochs[0] if epochs else {}) if name.startswith("loss") and name != "loss_scale"]
    checks = ("image", "dice_before", "dice", "folding")
    used = [name for name in checks if any((r.get("validation") or {}).get(name) is not None for r in epochs)]
    scaled = {"loss_scale": "loss scale", "skipped": "skipped steps"} if any("skipped" in r for r in epochs) else {}
    columns: List[Any] = [Column("epoch")] + [name.replace("_", " ") for name in losses] + ["s per step"]
    columns += [f"validation {name.replace('_', ' ')}" for name in used] + list(scaled.values())
    rows = [
        [r["epoch"] + 1]
        + [r.get(name) for name in losses]
        + [r.get("seconds_per_step")]
        + [(r.get("validation") or {}).get(name) for name in used]
        + [r.get(name) for name in scaled]
        for r in epochs
    ]
    return table(
        "Means over the steps of each epoch; validation at its end", columns, rows, empty="no epoch was finished"
    )
