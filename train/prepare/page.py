# SPDX-License-Identifier: Apache-2.0
"""prepare.html: one row per scan, the worst first, with pictures of it over the reference. From prepare.json and the
pictures alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from train.prepare.scan import AFTER, BEFORE
from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import Cell, Column, Html, definitions, element, escape, join, prose, section
from vxm_convert.webpage.png import data_uri
from vxm_convert.webpage.tables import NOT_AVAILABLE, table

#: pictures of that many scans stand on the page, the worst; the rest lie beside it
MOST_PICTURES = 200
STYLE = """
header, main { max-width: 92rem; }
td, tbody th { vertical-align: middle; }
th.shots, td.shots, th.words, td.words { text-align: left; }
td.shots { padding-left: 0; }
td.shots img { display: block; height: 6rem; width: auto; background: #000; margin: 1px 0; }
td.words { min-width: 14rem; max-width: 26rem; white-space: normal; overflow-wrap: anywhere; }
td.words ul { margin: 0; padding-left: 1.1rem; }
@media print { td.shots img { height: 1.6cm; } td.words { min-width: 3cm; } }
"""
Record = Mapping[str, Any]


def build_page(document: Mapping[str, Any], pictures: Path) -> str:
    """The page.

    Parameters
    ----------
    document : mapping — as written to prepare.json.
    pictures : Path — the folder with NAME.png and NAME_before.png.
    """
    records, failures = worst_first(document["scans"]), document["failures"]
    reference = document["reference"]
    doubtful = sum(bool(record["warnings"]) for record in records)
    left = document["not_reached"]
    head = [
        element("h1", "Prepared scans"),
        definitions(
            [
                (
                    "scans",
                    f"{len(records)} prepared, {doubtful} of them with warnings; {len(failures)} failed"
                    + (f"; {len(left)} not reached, run the command again" if left else ""),
                ),
                ("reference", f"{reference['source']} ({reference['why']})"),
                ("network grid", _grid_words(reference["network_grid"])),
                ("transform", f"{document['settings']['transform']}, {document['tool']}"),
                ("intensity of the reference", reference["intensity"]),
                ("label set", document["label_set"]),
            ]
        ),
    ]
    if reference["warnings"]:
        head.append(prose("About the reference: ", "; ".join(reference["warnings"]), class_="failed"))
    failed = section(
        "Failed",
        table(
            "Scans that were not prepared; nothing of them lies among the results",
            [Column("scan", "name"), Column("stage", "text"), Column("reason", "words"), Column("file", "name")],
            [[f["subject"], f["stage"], f["reason"], f["file"]] for f in failures],
        ),
    )
    parts = head + ([failed] if failures else []) + [_scans(records, pictures)]
    parts.append(
        prose(
            "Overlap: Dice of the two brains, voxels above 2 % of the brightest. Correlation: of the intensities "
            "where either "
            "has brain. Before: as the headers place the scan. Turn: rotation of the polar decomposition. Shift: at "
            "the middle "
            "of the network grid. Lengths: factors along the directions that shrink and grow most.",
            note=True,
        )
    )
    return page("Prepared scans", None, parts, details=document["tool"], style=STYLE)


def worst_first(records: Sequence[Record]) -> List[Record]:
    """Those with warnings, then the others; within both by correlation after registration, undefined ones first."""

    def rank(record: Record) -> Tuple[bool, float, str]:
        ncc = record[AFTER]["ncc"]
        return not record["warnings"], -1.0 if ncc is None else ncc, str(record["name"])

    return sorted(records, key=rank)


def _scans(records: Sequence[Record], pictures: Path) -> Html:
    shown = len(records) if len(records) <= MOST_PICTURES else MOST_PICTURES
    columns = [
        Column("scan", "name"),
        Column("over the reference: after; below before", "shots"),
        Column("warnings", "words"),
        "overlap: before, after",
        "correlation: before, after",
        "Dice: before, after",
        "turn, degrees",
        "shift, mm",
        "lengths, factors",
        "volume, factor",
        "outside, % of the brain",
        "seconds",
    ]
    rows = []
    for at, record in enumerate(records):
        motion = record["motion"]
        rows.append(
            [
                str(record["name"]),
                _pictures(pictures, str(record["name"]), at < shown),
                _words(record["warnings"]),
                *(_change(record[BEFORE][what], record[AFTER][what]) for what in ("overlap", "ncc", "dice")),
                _number(motion["rotation_degrees"], ".1f"),
                _number(motion["translation_mm"], ".1f"),
                Cell(
                    f"{motion['scale_min']:.3f} to {motion['scale_max']:.3f}", motion["scale_max"] / motion["scale_min"]
                ),
                _number(motion["volume_change"], ".3f"),
                _number(100 * record[AFTER]["outside"], ".2f"),
                _number(record["seconds"], ".0f"),
            ]
        )
    words = prose(
        "The scan is blue, the reference orange; where both have the same intensity the picture is grey. Sagittal: "
        "anterior to "
        "the right; coronal and axial: the subject's left to the right."
        + (
            ""
            if shown == len(records)
            else f" Pictures of the first {shown} scans are here, the others in the folder pictures."
        )
    )
    return section(
        "Scans",
        words,
        table(
            f"Every prepared scan (n = {len(records)}), worst first: those with warnings, then by correlation",
            columns,
            rows,
            empty="no scan was prepared",
        ),
    )


def _pictures(folder: Path, name: str, wanted: bool) -> Cell:
    files = [(folder / f"{name}{ending}.png", side) for ending, side in (("", AFTER), ("_before", BEFORE))]
    if not wanted or not all(path.is_file() for path, _ in files):
        return Cell("", classes="missing")
    return Cell(
        join(
            Html(f'<img src="{data_uri(path.read_bytes())}" alt="{escape(f"{name}, {side}")}">') for path, side in files
        )
    )


def _words(warnings: Sequence[str]) -> Cell:
    return Cell(
        element("ul", *(element("li", warning) for warning in warnings)) if warnings else "none", float(len(warnings))
    )


def _change(before: Optional[float], after: Optional[float]) -> Cell:
    shown = [NOT_AVAILABLE if value is None else f"{value:.3f}" for value in (before, after)]
    return Cell(" \u2192 ".join(shown), after, "missing" if after is None else "")


def _number(value: float, form: str) -> Cell:
    return Cell(format(value, form), value)


def _grid_words(grid: Mapping[str, Any]) -> str:
    return f"{'×'.join(str(n) for n in grid['shape'])}, axes {grid['orientation']}, {grid['spacing_mm'][0]:g} mm"
