# SPDX-License-Identifier: Apache-2.0
"""Tables that scroll in a box of their own on a small screen and can be sorted where scripts run. Order without
scripts: as given.
"""

from __future__ import annotations

import math
from typing import Any, Optional, Sequence, Union

from vxm_convert.webpage.elements import Cell, Column, Html, element, escape, join

#: shown where a figure is undefined
NOT_AVAILABLE = "n/a"


def table(
    caption: Union[str, Html],
    columns: Sequence[Union[str, Column]],
    rows: Sequence[Sequence[Any]],
    sortable: bool = True,
    empty: str = "nothing to list",
) -> Html:
    """A table with its caption.

    Parameters
    ----------
    caption : str or Html — what it shows, on how many samples it rests.
    columns : sequence of Column or str — a `str` is the heading of a column of numbers. The first column heads each
        row.
    rows : sequence of rows — one entry per column: `Cell`, `Html`, text, number or None (shown as n/a).
    sortable : bool — headings become buttons where scripts run; the order given here is that without scripts.
    empty : str — what stands in the table when there are no rows.

    Raises
    ------
    ValueError
        For a row that has not one entry per column.
    """
    known = [column if isinstance(column, Column) else Column(column) for column in columns]
    head = join(element("th", c.heading, scope="col", class_=c.kind) for c in known)
    body = [_row(row, known) for row in rows]
    if not body:
        body = [element("tr", element("td", empty, colspan=len(known), class_="text"))]
    parts = [
        element("caption", element("span", caption)),
        element("thead", element("tr", head)),
        element("tbody", join(body)),
    ]
    whole = element("table", *parts, class_="sortable" if sortable and len(rows) > 1 else None)
    # A box that scrolls must be reachable by keyboard.
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label="table, scrolls sideways")


def _row(row: Sequence[Any], columns: Sequence[Column]) -> Html:
    if len(row) != len(columns):
        raise ValueError(f"table row has {len(row)} entries, expected {len(columns)}, one per column")
    cells = []
    for at, (entry, column) in enumerate(zip(row, columns)):
        cell = _cell(entry)
        classes = " ".join(name for name in (column.kind, cell.classes) if name)
        sort = None if cell.sort is None else repr(float(cell.sort))
        cells.append(
            element("td" if at else "th", cell.content, scope=None if at else "row", class_=classes, data_v=sort)
        )
    return element("tr", join(cells))


def _cell(entry: Any) -> Cell:
    if isinstance(entry, Cell):
        return entry
    number = _number(entry)
    if entry is None or (isinstance(entry, float) and number is None):
        return Cell(NOT_AVAILABLE, classes="missing")
    if number is not None:
        return Cell(f"{entry:.6g}" if isinstance(entry, float) else str(entry), sort=number)
    return Cell(escape(entry))


def _number(entry: Any) -> Optional[float]:
    if isinstance(entry, bool) or not isinstance(entry, (int, float)):
        return None
    return float(entry) if math.isfinite(entry) else None
