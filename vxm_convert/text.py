# SPDX-License-Identifier: Apache-2.0
"""Names of files are bytes that somebody chose: text made fit for a terminal and for tables."""

from __future__ import annotations

import unicodedata

#: control characters, format characters such as text direction, and bytes that are no UTF-8
_UNPRINTABLE = ("Cc", "Cf", "Cs")


def printable(text: str) -> str:
    r"""Control characters as ``\x1b`` and the like, so that no file name moves the cursor or hides text; line breaks
    and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNPRINTABLE else _escaped(c) for c in text)


def line_of(text: str) -> str:
    r"""`printable` as one line: a line break in a file's name is written as ``\n``."""
    return printable(text).replace("\n", "\\n")


def one_line(what: object, most: int = 200) -> str:
    """The text of a foreign error without line breaks and runs of blanks, cut at `most` characters."""
    text = " ".join(str(what).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
