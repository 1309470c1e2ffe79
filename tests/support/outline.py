# SPDX-License-Identifier: Apache-2.0
"""A page as a screen reader hears it, from its text alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, Dict, List, Optional, Tuple

_VOID = {"meta", "img", "input", "br", "link", "hr"}


class Outline(HTMLParser):
    """What a reader who cannot see a page has of it.

    Attributes
    ----------
    language : str or None; levels : list of int — of the headings, in order; ids : list of str.
    words : dict — tag → text of each element of it.
    silent : list of str — start tags of what has no words for that reader.
    tables : int — number of tables with data.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.levels: List[int] = []
        self.ids: List[str] = []
        self.words: Dict[str, List[str]] = {"title": [], "button": [], "a": [], "h1": [], "caption": []}
        self.silent: List[str] = []
        self.tables = 0
        self.language: Optional[str] = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag == "html":
            self.language = given.get("lang")
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if "id" in given:
            self.ids.append(given["id"])
        drawing = any(name == "svg" for name, _ in self.open)
        if tag in self.words and not drawing and not self._hidden(given):
            self.words[tag].append("")
        self.tables += tag == "table" and given.get("class") != "slices"
        if not self._heard(tag, given):
            self.silent.append(self.get_starttag_text() or tag)
        if tag not in _VOID:
            self.open.append((tag, given))

    def _heard(self, tag: str, given: Dict[str, Optional[str]]) -> bool:
        hidden = self._hidden(given)
        if tag == "img":
            return bool(given.get("alt")) or hidden
        if tag == "svg":
            return hidden or bool(given.get("aria-label") and given.get("role") == "img")
        if tag in ("input", "select", "textarea"):
            return bool(given.get("aria-label")) or any(name == "label" for name, _ in self.open)
        if "tabindex" in given and tag == "div":
            return bool(given.get("aria-label") and given.get("role"))
        return tag != "th" or "scope" in given

    def _hidden(self, given: Dict[str, Optional[str]]) -> bool:
        return any(attrs.get("aria-hidden") == "true" for attrs in [given, *(attrs for _, attrs in self.open)])

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(tag == "svg" for tag, _ in self.open) or self._hidden({}):
            return
        for tag, _ in self.open:
            if tag in self.words and self.words[tag]:
                self.words[tag][-1] += data.strip()
