# SPDX-License-Identifier: Apache-2.0
"""Pages for people: one file each, nothing loaded from elsewhere, every string that is not ours escaped.

`page` makes the document with its style and its content security policy; `badge_html`, `table`, `section`, `figure`,
`definitions` and `prose` make its parts. Parts are `Html`; a plain `str` given to any of them is text and gets escaped.
"""
from __future__ import annotations

from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import (
    Cell,
    Column,
    Html,
    badge_html,
    badge_word,
    definitions,
    element,
    escape,
    figure,
    join,
    prose,
    section,
    verdict_html,
)
from vxm_convert.webpage.tables import NOT_AVAILABLE, table

__all__ = [
    "Cell", "Column", "Html", "NOT_AVAILABLE", "badge_html", "badge_word", "definitions", "element", "escape", "figure", "join", "page",
    "prose", "section", "table", "verdict_html",
]
