# SPDX-License-Identifier: Apache-2.0
"""Tab-separated tables for people and programs: format of a cell (missing values are ``n/a``, as in BIDS)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterable, Sequence

from vxm_convert.artifacts.files import write_text
from vxm_convert.text import printable

MISSING = "n/a"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write the heading and all rows in order, with a heading even without rows, so that a stale table never survives."""
    lines = ["\t".join(columns)] + ["\t".join(cell(value) for value in row) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def cell(value: object) -> str:
    """One value as text without tabs or line breaks; 6 significant decimals for floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(" ".join(str(value).split()))
