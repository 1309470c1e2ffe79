# SPDX-License-Identifier: Apache-2.0
"""Tables that scroll in their own box on a small screen. If scripts run they can be sorted, and long ones show a page of
rows at a time; otherwise every row is there in the given order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple, Union

from vxm_convert.webpage.templates import NOT_AVAILABLE, Html, parts

Text = Union[str, Html]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Parameters
    ----------
    content : str or Html — displayed content.
    sort : float or None — sort key; None: the text; missing figures sort last.
    classes : str — CSS classes.
    """

    content: Text
    sort: Optional[float] = None
    classes: str = ""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    heading : str or Html — content and unit.
    kind : str — ``number`` (right-aligned), ``text``, ``words`` (sentences) or ``name`` (breaks anywhere, so that no name is
        too long).
    """

    heading: Text
    kind: str = "number"


@dataclass(frozen=True)
class Table:
    """A table; create it with `table`."""

    caption: Text
    columns: Tuple[Column, ...]
    rows: Tuple[Tuple[Cell, ...], ...]
    sortable: bool
    empty: str


def table(
    caption: Text,
    columns: Sequence[Union[str, Column]],
    rows: Sequence[Sequence[Any]],
    sortable: bool = True,
    empty: str = "nothing to list",
) -> Html:
    """A table with its caption.

    Parameters
    ----------
    caption : str or Html — content and number of samples.
    columns : sequence of Column or str — a `str` is the heading of a column of numbers. The first column heads each
        row.
    rows : sequence of rows — one entry per column: `Cell`, `Html`, text, number or None (shown as n/a).
    sortable : bool — headings become buttons if scripts run; otherwise the given order stays.
    empty : str — text of a table without rows.

    Raises
    ------
    ValueError
        For a row without one entry per column.
    """
    known = tuple(column if isinstance(column, Column) else Column(column) for column in columns)
    body = tuple(_row(row, known) for row in rows)
    shown: Html = parts().table(Table(caption, known, body, sortable and bool(body), empty))
    return shown


def _row(row: Sequence[Any], columns: Sequence[Column]) -> Tuple[Cell, ...]:
    if len(row) != len(columns):
        raise ValueError(f"table row has {len(row)} entries, expected {len(columns)}, one per column")
    return tuple(_of_column(_cell(entry), column) for entry, column in zip(row, columns))


def _of_column(cell: Cell, column: Column) -> Cell:
    sort = None if cell.sort is None else float(cell.sort)
    # Most cells are numbers: without a class the pages of a large cohort are a sixth smaller.
    kind = "" if column.kind == "number" else column.kind
    return Cell(cell.content, sort, f"{kind} {cell.classes}".strip())


def _cell(entry: object) -> Cell:
    if isinstance(entry, Cell):
        return entry
    number = _number(entry)
    if entry is None or (isinstance(entry, float) and number is None):
        return Cell(NOT_AVAILABLE, classes="missing")
    if number is not None:
        return Cell(f"{entry:.6g}" if isinstance(entry, float) else str(entry), sort=number)
    return Cell(entry if isinstance(entry, str) else str(entry))


def _number(entry: object) -> Optional[float]:
    if isinstance(entry, bool) or not isinstance(entry, (int, float)):
        return None
    return float(entry) if math.isfinite(entry) else None
