# SPDX-License-Identifier: Apache-2.0
"""The cohort's page, worst subject first, and beside it one page per subject. Made from the records alone, so memory
stays small.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from om_runner.qc.record import SUBJECT_PAGE, Record, read_records
from om_runner.qc.script import INDEX_SCRIPT
from om_runner.qc.slices import CONVENTION
from om_runner.qc.style import QC_STYLE
from om_runner.qc.subject_page import link_to, shown, subject_page
from vxm_convert.artifacts.files import write_text
from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import Cell, Column, Html, badge_word, element, escape, join, prose, section
from vxm_convert.webpage.tables import NOT_AVAILABLE, table

LOG = logging.getLogger(__name__)

#: (subject, reason)
Failure = Tuple[str, str]
_CHOICES = (
    ("all", "all"),
    ("warned", "with warnings"),
    ("unrated", "not rated"),
    ("accept", "accept"),
    ("doubt", "doubt"),
    ("reject", "reject"),
)


def write_pages(folder: Path, failures: Sequence[Failure] = ()) -> Optional[Path]:
    """Write every page of a folder of pictures; returns the cohort's, None where nothing was drawn and nothing
    failed.
    """
    folder = Path(folder)
    records = worst_first(list(read_records(folder)))
    if not records and not failures:
        return None
    for at, record in enumerate(records):
        before = records[at - 1] if at else None
        after = records[at + 1] if at + 1 < len(records) else None
        write_text(folder / record.subject / SUBJECT_PAGE, subject_page(record, before, after))
    write_text(folder / SUBJECT_PAGE, cohort_page(records, failures))
    LOG.info("pictures of %d subjects: %s", len(records), folder / SUBJECT_PAGE)
    return folder / SUBJECT_PAGE


def worst_first(records: Sequence[Record]) -> List[Record]:
    """Those with warnings first, then the lowest Dice after the warp; the lowest similarity where no subject has a
    Dice.
    """
    figure = _judged_by(records)

    def key(record: Record) -> Tuple[int, float, str]:
        value = record.figures.get(figure)
        return -len(record.warnings), -1.0 if value is None else value, record.subject

    return sorted(records, key=key)


def _judged_by(records: Sequence[Record]) -> str:
    return "dice_after" if any(record.figures.get("dice_after") is not None for record in records) else "ncc_after"


def cohort_page(records: Sequence[Record], failures: Sequence[Failure]) -> str:
    """The page with the table; `records` in the order to show."""
    badge = _simulated(records)
    n, warned = len(records), sum(bool(record.warnings) for record in records)
    by = "Dice" if _judged_by(records) == "dice_after" else "similarity"
    parts: List[Html] = [
        element("h1", "Registration pictures"),
        prose(
            f"{_count(n, 'subject')}, {warned} with warnings, {len(failures)} not registered. Worst first: most "
            "warnings, then lowest "
            f"{by} after the warp. A name opens that subject's pictures."
        ),
        _controls() if records else Html(""),
        element("div", _table(records), id="cohort", data_cohort=_cohort(records)) if records else Html(""),
        _failed(failures),
        _how_to_read(records),
    ]
    title = "registration pictures" if badge is None else f"{badge_word(badge)}: registration pictures"
    return page(title, badge, [part for part in parts if part], INDEX_SCRIPT, style=QC_STYLE, picture_files=True)


def _simulated(records: Sequence[Record]) -> Optional[bool]:
    """SIMULATED as soon as one subject is."""
    known = [record.simulated for record in records if record.simulated is not None]
    return any(known) if known else None


def _cohort(records: Sequence[Record]) -> str:
    """What ratings are kept under: the models and atlases of the subjects."""
    return hashlib.sha256("\n".join(sorted({record.origin for record in records})).encode()).hexdigest()[:16]


def _controls() -> Html:
    choices = [element("option", words, value=value) for value, words in _CHOICES]
    return join(
        [
            element(
                "div",
                element(
                    "label",
                    "name ",
                    element("input", type="search", id="filter", autocomplete="off", placeholder="part of a name"),
                ),
                element("label", "show ", element("select", *choices, id="only", class_="do")),
                element("span", id="count", role="status"),
                element("button", "export ratings (TSV)", type="button", class_="do", id="export"),
                class_="controls scripted",
            ),
            element("p", "", id="said", role="alert", class_="scripted failed"),
        ]
    )


def _table(records: Sequence[Record]) -> Html:
    labels = sorted({record.label_set for record in records if record.label_set})
    named = f" ({labels[0]})" if len(labels) == 1 else ""
    columns = [
        Column("subject", "name"),
        Column("moved scan, fixed outline", "text"),
        f"Dice{named} before",
        "Dice after",
        "NCC before",
        "NCC after",
        "folds, %",
        "longest, voxel",
        Column("warnings", "text"),
        Column("rating", "text"),
    ]
    caption = f"n = {_count(len(records), 'subject')}. Ratings stay in this browser until they are exported."
    return table(caption, columns, [_row(record) for record in records])


def _row(record: Record) -> List[Cell]:
    f = record.figures.get
    folds = f("folding_fraction")
    warnings = element("ul", *(element("li", words) for words in record.warnings)) if record.warnings else "none"
    figures = [
        (f("dice_before"), ".3f"),
        (f("dice_after"), ".3f"),
        (f("ncc_before"), ".3f"),
        (f("ncc_after"), ".3f"),
        (None if folds is None else 100 * folds, ".3f"),
        (f("flow_max_voxel"), ".2f"),
    ]
    return [
        Cell(element("a", record.subject, href=link_to(record.subject))),
        Cell(_thumb(record), classes="thumb"),
        *(
            Cell(shown(value, form), sort=value, classes="" if value is not None else "missing")
            for value, form in figures
        ),
        Cell(warnings, sort=len(record.warnings), classes="warned"),
        Cell("\u2013", classes="rating"),
    ]


def _thumb(record: Record) -> Html:
    if "thumb" not in record.pictures:
        return escape(NOT_AVAILABLE)
    width, height = record.pictures["thumb"]
    address = link_to(record.subject)[: -len(SUBJECT_PAGE)] + "thumb.png"
    image = Html(
        f'<img src="{escape(address)}" width="{width}" height="{height}" loading="lazy" decoding="async" alt="">'
    )
    return element("a", image, href=link_to(record.subject), tabindex="-1", aria_hidden="true")


def _failed(failures: Sequence[Failure]) -> Html:
    if not failures:
        return Html("")
    rows = [(Cell(escape(subject)), Cell(escape(reason))) for subject, reason in failures]
    columns = [Column("subject", "name"), Column("reason", "text")]
    return section("Not shown", table(_count(len(rows), "scan"), columns, rows), anchor="failed")


def _how_to_read(records: Sequence[Record]) -> Html:
    sides = (
        "" if all(record.letters for record in records) else " Subjects whose header does not say it carry no letters."
    )
    return section(
        "How to read it",
        prose(f"Pictures are {CONVENTION}; letters in them say the same.{sides}"),
        prose(
            "NCC: Pearson correlation of scan and fixed image where the fixed image is above 10 % of its white. Folds: "
            "voxels of the flow with a Jacobian determinant of at most 0. Before: placed by header and affine alone; "
            "after: with the "
            "network's warp. A subject's page flicks between them."
        ),
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
