# SPDX-License-Identifier: Apache-2.0
"""An evaluation for people: the table on the terminal and evaluation.html, both from evaluation.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from vxm_convert.webpage.charts import chart, mark, rows, scale
from vxm_convert.webpage.colours import BLUE, QUIET, VERMILION
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import NOT_AVAILABLE, Html, parts

_TEMPLATE = Path(__file__).with_name("templates") / "evaluation.html"
_ROW, _LEFT, _RIGHT, _TOP = 18, 210, 640, 34


def table_text(document: Mapping[str, Any]) -> str:
    """Dice per structure and over all, mean (std), as plain text."""
    width = max(
        [len(row["name"]) for row in document["structures"]]
        + [len(title) for title in map(_title, document["overall"])]
    )
    lines = [
        f"Dice of {document['n_samples']} scans, label set {document['label_set']}, mean (std)",
        f"{'structure':<{width}}  {'before':>15}  {'after':>15}  scans",
    ]
    for row in document["structures"]:
        lines.append(
            f"{row['name']:<{width}}  {_pair(row['before']):>15}  {_pair(row['after']):>15}  {row['after']['n']:>5}"
        )
    lines.append("")
    for row in document["overall"]:
        lines.append(
            f"{_title(row):<{width}}  {_pair(row['before']):>15}  {_pair(row['after']):>15}  {row['after']['n']:>5}"
        )
    return "\n".join(lines + [f"folding {_folding(document)}, {_seconds(document)} s per scan", ""])


def build_page(document: Mapping[str, Any]) -> str:
    """The page."""
    model = document["model"]
    shape = "×".join(str(n) for n in model["volume_shape"])
    cpu = "TensorFlow on this CPU, the first scan left out where there are several"
    context: Dict[str, Any] = {
        "facts": [
            ("checkpoint", document["checkpoint"]),
            ("network", f"{model['variant']} at {shape}"),
            ("scans", document["n_samples"]),
            ("label set", document["label_set"]),
            ("folding", _folding(document)),
            ("seconds per scan", f"{_seconds(document)} ({cpu})"),
        ],
        "overall": table(
            "Dice, mean (std) before and after; std of the population",
            _columns("over"),
            [_row(_title(row), row) for row in document["overall"]],
            sortable=False,
        ),
        "drawing": _drawing(document["structures"]),
        "structures": table(
            f"Dice per structure of {document['label_set']}, mean (std) over scans; n/a where no scan and its fixed "
            "image both have it",
            _columns("structure"),
            [_row(f"{row['name']} ({row['label']})", row) for row in document["structures"]],
        ),
        "scans": _scans(document["subjects"]),
        "made_from": sorted(document["made_from"].items()),
    }
    return page(_TEMPLATE, f"Evaluation: {document['label_set']}", None, "TensorFlow on the CPU", **context)


def _scans(subjects: Sequence[Mapping[str, Any]]) -> Html:
    columns = ["Dice before", "Dice after", "MSE before", "MSE after", "folded voxels, %", "seconds"]
    figures = ("mean_before", "mean_after", "mse_before", "mse_after")
    return table(
        "Dice: mean over the set's structures that are there, without background",
        [Column("scan", "name"), *columns],
        [[row["name"], *(row[name] for name in figures), 100 * row["folding"], row["seconds"]] for row in subjects],
    )


def _columns(first: str) -> List[Any]:
    return [Column(first, "name"), "before", "after", "change", "n"]


def _row(title: str, row: Mapping[str, Any]) -> List[Any]:
    before, after = row["before"], row["after"]
    change = None if before["mean"] is None or after["mean"] is None else after["mean"] - before["mean"]
    shown = [Cell(_pair(side), side["mean"], "" if side["n"] else "missing") for side in (before, after)]
    return (
        [title]
        + shown
        + [None if change is None else Cell(f"{change:+.4f}".replace("-", "\u2212"), change), after["n"]]
    )


def _title(row: Mapping[str, Any]) -> str:
    return f"over {row['over']}, {'with' if row['background'] else 'without'} background"


def _pair(found: Mapping[str, Any]) -> str:
    return NOT_AVAILABLE if found["mean"] is None else f"{found['mean']:.4f} ({found['std']:.4f})"


def _folding(document: Mapping[str, Any]) -> str:
    values = [row["folding"] for row in document["subjects"]]
    return f"{100 * sum(values) / len(values):.3f} % of the voxels, {100 * max(values):.3f} % at most"


def _seconds(document: Mapping[str, Any]) -> str:
    values = [row["seconds"] for row in document["subjects"]]
    values = values[1:] or values
    return f"{sum(values) / len(values):.2f}"


def _drawing(structures: List[Dict[str, Any]]) -> Optional[Html]:
    """Before and after of every structure that has a Dice, one line each; None where there is none."""
    known = [row for row in structures if row["before"]["mean"] is not None and row["after"]["mean"] is not None]
    if not known:
        return None
    words = "Mean Dice per structure: rings before, dots after registration."
    bottom = _TOP + _ROW * len(known)
    with chart(_RIGHT + 20, bottom + 10) as drawn:
        axes = drawn.axes(_LEFT, _TOP, _RIGHT, bottom)
        scale(axes.xaxis, 0.0, 1.0)
        axes.xaxis.tick_top()
        rows(axes, [row["name"] for row in known])
        for at, row in enumerate(known):
            before, after = row["before"], row["after"]
            axes.plot([before["mean"], after["mean"]], [at, at], color=QUIET, linewidth=1.2)
            mark(axes, "ring", before["mean"], at, VERMILION, 4, f"before {_pair(before)}")
            mark(axes, "dot", after["mean"], at, BLUE, 4, f"after {_pair(after)}")
        return Html(parts().figure(drawn.svg(words), words, "chart tall"))
