# SPDX-License-Identifier: Apache-2.0
"""The cohort's page, worst subject first, and one page per subject. Made from the records alone, so memory stays small."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

from om_runner.qc.record import SUBJECT_PAGE, Record, read_records
from om_runner.qc.slices import CONVENTION
from om_runner.qc.subject_page import COHORT_SCRIPTS, QC_STYLE, TEMPLATES, link_to, shown, subject_page
from vxm_convert.artifacts.files import write_text
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import NOT_AVAILABLE, Html, badge_word, fragment, parts

LOG = logging.getLogger(__name__)

#: (subject, reason)
Failure = Tuple[str, str]


def write_pages(folder: Path, failures: Sequence[Failure] = ()) -> Optional[Path]:
    """Write every page of a folder of pictures; returns that of the cohort, or None if nothing was drawn and nothing
    failed.
    """
    folder = Path(folder)
    records = worst_first(list(read_records(folder)))
    if not records and not failures:
        return None
    cohort = _cohort(records)
    for at, record in enumerate(records):
        before = records[at - 1] if at else None
        after = records[at + 1] if at + 1 < len(records) else None
        write_text(folder / record.subject / SUBJECT_PAGE, subject_page(record, before, after, cohort))
    write_text(folder / SUBJECT_PAGE, cohort_page(records, failures))
    LOG.info("pictures of %d subjects: %s", len(records), folder / SUBJECT_PAGE)
    return folder / SUBJECT_PAGE


def worst_first(records: Sequence[Record]) -> List[Record]:
    """Sort key: warnings first, then the lowest Dice after the warp, or the lowest similarity if no subject has a Dice."""
    figure = _judged_by(records)

    def key(record: Record) -> Tuple[int, float, str]:
        value = record.figures.get(figure)
        return -len(record.warnings), -1.0 if value is None else value, record.subject

    return sorted(records, key=key)


def _judged_by(records: Sequence[Record]) -> str:
    return "dice_after" if any(record.figures.get("dice_after") is not None for record in records) else "ncc_after"


def cohort_page(records: Sequence[Record], failures: Sequence[Failure]) -> str:
    """The page with the table; `records` in display order."""
    badge = _simulated(records)
    failed = [(Cell(subject), Cell(reason)) for subject, reason in failures]
    failed_columns = [Column("subject", "name"), Column("reason", "text")]
    context = {
        "count": _count(len(records), "subject"),
        "n_warned": sum(bool(record.warnings) for record in records),
        "n_failed": len(failed),
        "order": "Dice" if _judged_by(records) == "dice_after" else "similarity",
        "cohort": _cohort(records),
        "table": _table(records) if records else "",
        "failures": table(_count(len(failed), "scan"), failed_columns, failed) if failed else "",
        "convention": CONVENTION,
        "all_lettered": all(record.letters for record in records),
    }
    title = "registration pictures" if badge is None else f"{badge_word(badge)}: registration pictures"
    return page(TEMPLATES / "cohort.html", title, badge, "", [QC_STYLE], COHORT_SCRIPTS, picture_files=True, **context)


def _simulated(records: Sequence[Record]) -> Optional[bool]:
    """SIMULATED as soon as one subject is."""
    known = [record.simulated for record in records if record.simulated is not None]
    return any(known) if known else None


def _cohort(records: Sequence[Record]) -> str:
    """The key of ratings: the models and atlases of the subjects."""
    return hashlib.sha256("\n".join(sorted({record.origin for record in records})).encode()).hexdigest()[:16]


def _table(records: Sequence[Record]) -> Html:
    labels = sorted({record.label_set for record in records if record.label_set})
    named = f" ({labels[0]})" if len(labels) == 1 else ""
    columns: List[Union[str, Column]] = [
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
    warnings = parts().bullets(record.warnings) if record.warnings else "none"
    figures = [
        (f("dice_before"), ".3f"),
        (f("dice_after"), ".3f"),
        (f("ncc_before"), ".3f"),
        (f("ncc_after"), ".3f"),
        (None if folds is None else 100 * folds, ".3f"),
        (f("flow_max_voxel"), ".2f"),
    ]
    return [
        Cell(_piece("link.html", href=link_to(record.subject), words=record.subject)),
        Cell(_thumb(record), classes="thumb"),
        *(
            Cell(shown(value, form), sort=value, classes="" if value is not None else "missing")
            for value, form in figures
        ),
        Cell(warnings, sort=len(record.warnings), classes="warned"),
        Cell("\u2013", classes="rating"),
    ]


def _thumb(record: Record) -> str:
    if "thumb" not in record.pictures:
        return NOT_AVAILABLE
    source = link_to(record.subject)[: -len(SUBJECT_PAGE)] + "thumb.png"
    return _piece("thumb.html", href=link_to(record.subject), source=source, size=record.pictures["thumb"])


def _piece(name: str, **context: object) -> Html:
    return fragment(TEMPLATES, name, **context)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
