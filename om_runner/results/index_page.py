# SPDX-License-Identifier: Apache-2.0
"""index.html of an output folder: leads to pictures, precision report, tables and logs. Reads what is there and links to
nothing that is missing.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple
from urllib.parse import quote

from om_runner.names import (
    FAILURES_NAME,
    INDEX_NAME,
    LOG_NAME,
    METRICS_NAME,
    PRECISION_FOLDER,
    QC_FOLDER,
    REPORT_CSV,
    REPORT_JSON,
    REPORT_PAGE,
    RUN_NAME,
    STRUCTURES_NAME,
    SUMS_NAME,
)
from vxm_convert.artifacts.files import write_text
from vxm_convert.artifacts.tsv import MISSING
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, fragment

_TEMPLATES = Path(__file__).with_name("templates")
#: more rows make the file large; the table file has all of them
MOST_ROWS = 3000
_MOST_BYTES = 64 << 20
_PAGES = (
    (f"{QC_FOLDER}/index.html", "pictures of every registration, worst first"),
    (f"{PRECISION_FOLDER}/{REPORT_PAGE}", "precision report: the offline model against TensorFlow"),
)
_TABLES = (
    (METRICS_NAME, "one row per registered scan"),
    (STRUCTURES_NAME, "Dice of every structure of every scan"),
    (FAILURES_NAME, "scans that could not be registered, and why"),
    (f"{PRECISION_FOLDER}/{REPORT_CSV}", "the figures of the precision report"),
    (f"{PRECISION_FOLDER}/{REPORT_JSON}", "the same for programs"),
    (RUN_NAME, "command, versions, toolchain, hashes of model, atlas and scans"),
    (SUMS_NAME, "the hash of every file, for sha256sum -c"),
)


def write_index(out: Path) -> List[str]:
    """Write index.html for what an output folder holds; names below `out` of the files written."""
    write_text(Path(out) / INDEX_NAME, build_index(Path(out)))
    return [INDEX_NAME]


def build_index(out: Path) -> str:
    """The page."""
    rows, failures = (_rows(out / name) for name in (METRICS_NAME, FAILURES_NAME))
    kinds = {row.get("toolchain", "") for row in rows}
    shown = rows[:MOST_ROWS]
    context: Dict[str, Any] = {
        "summary": _summary(len(rows), len(failures)),
        "pages": _links(out, _PAGES, "no page here: --outputs qc draws pictures, --compare makes a report"),
        "tables": _links(out, _TABLES, "no table here"),
        "scans": _scans(out, shown),
        "shown": len(shown),
        "not_shown": len(rows) - len(shown),
        "failures": _failures(failures) if failures else None,
    }
    simulated = "simulated" in kinds if kinds else None
    return page(_TEMPLATES / "index.html", "Registration results", simulated, **context)


def _summary(registered: int, failed: int) -> str:
    scans = "1 scan" if registered == 1 else f"{registered} scans"
    return f"{scans} registered, {failed or 'none'} failed."


def _rows(path: Path) -> List[Dict[str, str]]:
    """Rows of a table, missing values empty; none of a table that is missing or no table of ours."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return []
    with open(str(path), encoding="utf-8", errors="replace", newline="") as handle:
        # The csv of Python 3.7 refuses NUL.
        lines = (line.replace("\0", "") for line in handle)
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            {key: "" if value == MISSING else value for key, value in row.items()}
            for row in rows
            if "subject" in row and None not in row and None not in row.values()
        ]


def _links(out: Path, entries: Sequence[Tuple[str, str]], empty: str) -> Html:
    # SHA256SUMS is written after this page, and lists it.
    there = [(name, text) for name, text in entries if (out / name).is_file() or name == SUMS_NAME]
    rows = [[link(name), Cell(text)] for name, text in there]
    return table(
        "files below this folder", [Column("file", "name"), Column("what", "text")], rows, sortable=False, empty=empty
    )


def _scans(out: Path, rows: Sequence[Dict[str, str]]) -> Html:
    heads: List[Any] = [Column("scan", "name"), "Dice before", "Dice after", "folded, %", "longest, voxel", "seconds"]
    heads += [Column("log", "text"), Column("warnings", "words")]
    body = []
    for row in rows:
        log, pictures = f"{row['subject']}/{LOG_NAME}", f"{QC_FOLDER}/{row['subject']}/{INDEX_NAME}"
        body.append(
            [
                link(pictures, row["subject"]) if (out / pictures).is_file() else row["subject"],
                *(_number(row.get(name)) for name in ("dice_before", "dice_after")),
                _number(row.get("folding_fraction"), 100),
                *(_number(row.get(name)) for name in ("flow_max_voxel", "total_seconds")),
                link(log, LOG_NAME) if (out / log).is_file() else "",
                row.get("warnings") or "",
            ]
        )
    return table("Dice needs both segmentations", heads, body, empty="no scan is registered")


def _failures(rows: Sequence[Dict[str, str]]) -> Html:
    heads = [Column("scan", "name"), Column("stage", "text"), Column("reason", "text")]
    body = [[row.get(name, "") for name in ("subject", "stage", "reason")] for row in rows[:MOST_ROWS]]
    return table(f"{FAILURES_NAME} has all of them", heads, body)


def _number(text: Optional[str], factor: float = 1.0) -> Optional[float]:
    try:
        return None if not text else float(f"{factor * float(text):.4g}")
    except ValueError:
        return None


def link(name: str, text: str = "") -> Html:
    """A link to a file below the page's folder."""
    return fragment(_TEMPLATES, "link.html", href=quote(name), text=text or name)
