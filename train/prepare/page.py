# SPDX-License-Identifier: Apache-2.0
"""prepare.html: one row per scan, the worst first, with pictures of it over the reference. From prepare.json and the
pictures alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from train.prepare.scan import AFTER, BEFORE
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import NOT_AVAILABLE, Html, fragment, parts

_TEMPLATES = Path(__file__).with_name("templates")
_STYLE = Path(__file__).with_name("static") / "prepare.css"
Record = Mapping[str, Any]


def build_page(document: Mapping[str, Any], pictures: Path) -> str:
    """The page.

    Parameters
    ----------
    document : mapping — as written to prepare.json.
    pictures : Path — the folder with NAME.png and NAME_before.png, beside the page.
    """
    records, failures = worst_first(document["scans"]), document["failures"]
    reference = document["reference"]
    context = {
        "facts": [
            ("scans", _counts(document)),
            ("reference", f"{reference['source']} ({reference['why']})"),
            ("network grid", _grid_words(reference["network_grid"])),
            ("transform", f"{document['settings']['transform']}, {document['tool']}"),
            ("intensity of the reference", reference["intensity"]),
            ("label set", document["label_set"]),
        ],
        "reference_warnings": reference["warnings"],
        "failures": _failed(failures) if failures else None,
        "scans": _scans(records, pictures),
    }
    return page(
        _TEMPLATES / "prepare.html", "Prepared scans", None, document["tool"], [_STYLE], picture_files=True, **context
    )


def _counts(document: Mapping[str, Any]) -> str:
    doubtful = sum(bool(record["warnings"]) for record in document["scans"])
    left = document["not_reached"]
    counts = f"{len(document['scans'])} prepared, {doubtful} of them with warnings; {len(document['failures'])} failed"
    return counts + (f"; {len(left)} not reached, run the command again" if left else "")


def _failed(failures: Sequence[Record]) -> Html:
    return table(
        "Scans that were not prepared; nothing of them is among the results",
        [Column("scan", "name"), Column("stage", "text"), Column("reason", "words"), Column("file", "name")],
        [[f["subject"], f["stage"], f["reason"], f["file"]] for f in failures],
    )


def worst_first(records: Sequence[Record]) -> List[Record]:
    """Those with warnings, then the others; within both by correlation after registration, undefined ones first."""

    def rank(record: Record) -> Tuple[bool, float, str]:
        ncc = record[AFTER]["ncc"]
        return not record["warnings"], -1.0 if ncc is None else ncc, str(record["name"])

    return sorted(records, key=rank)


def _scans(records: Sequence[Record], pictures: Path) -> Html:
    columns: List[Union[str, Column]] = [
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
    for record in records:
        motion = record["motion"]
        rows.append(
            [
                str(record["name"]),
                _pictures(pictures, str(record["name"])),
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
    caption = f"Every prepared scan (n = {len(records)}), worst first: those with warnings, then by correlation"
    return table(caption, columns, rows, empty="no scan was prepared")


def _pictures(folder: Path, name: str) -> Cell:
    files = [(folder / f"{name}{ending}.png", side) for ending, side in (("", AFTER), ("_before", BEFORE))]
    if not all(path.is_file() for path, _ in files):
        return Cell("", classes="missing")
    shots = [(f"{folder.name}/{quote(path.name)}", f"{name}, {side}") for path, side in files]
    return Cell(fragment(_TEMPLATES, "shots.html", shots=shots))


def _words(warnings: Sequence[str]) -> Cell:
    return Cell(parts().bullets(warnings) if warnings else "none", float(len(warnings)))


def _change(before: Optional[float], after: Optional[float]) -> Cell:
    shown = [NOT_AVAILABLE if value is None else f"{value:.3f}" for value in (before, after)]
    return Cell(" \u2192 ".join(shown), after, "missing" if after is None else "")


def _number(value: float, form: str) -> Cell:
    return Cell(format(value, form), value)


def _grid_words(grid: Mapping[str, Any]) -> str:
    return f"{'×'.join(str(n) for n in grid['shape'])}, axes {grid['orientation']}, {grid['spacing_mm'][0]:g} mm"
