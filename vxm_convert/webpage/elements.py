# SPDX-License-Identifier: Apache-2.0
"""The small parts of a page, as text that is known to be safe. Owns the escaping; refuses element and attribute names
of others.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Iterable, Optional, Tuple, Union

#: what a browser shows for a character that no page may hold
_REPLACEMENT = "\ufffd"


class Html(str):
    """Markup that is safe to put into a page: made by this package, or constant text of ours. Any other `str` is
    escaped.
    """


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Parameters
    ----------
    content : str or Html — what is shown.
    sort : float or None — what the column is sorted by; None: the text, and a figure that is not there sorts last.
    classes : str — CSS classes.
    """

    content: Union[str, Html]
    sort: Optional[float] = None
    classes: str = ""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    heading : str — what it holds, with its unit.
    kind : str — ``number`` (right-aligned), ``text`` or ``name`` (breaks anywhere, so that no name is too long).
    """

    heading: Union[str, Html]
    kind: str = "number"


def escape(value: Any) -> Html:
    """Any value as text; `Html` passes. Control characters and lone surrogates, which no page may hold, are
    replaced.
    """
    return value if isinstance(value, Html) else Html(html.escape(readable(value), quote=True))


def readable(value: Any) -> str:
    """Any value as text without control characters and lone surrogates, which no page may hold."""
    return "".join(_REPLACEMENT if _forbidden(ord(character)) else character for character in str(value))


def _forbidden(code: int) -> bool:
    return (code < 0x20 and code not in (0x09, 0x0A, 0x0D)) or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """Parts one behind the other, each escaped unless it is `Html`."""
    return Html(separator.join(escape(part) for part in parts))


def element(tag: str, *content: Any, **attributes: Any) -> Html:
    """``<tag attributes>content</tag>``; a trailing underscore is cut from attribute names (`class_`), others become
    hyphens.

    Attributes that are None or False are left out; True gives the bare name.
    """
    given = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        shown = name.rstrip("_").replace("_", "-")
        given.append(f" {shown}" if value is True else f' {shown}="{escape(value)}"')
    return Html(f"<{tag}{''.join(given)}>{join(content)}</{tag}>")


def badge_word(simulated: bool) -> str:
    """SIMULATED where no Ascend device had a part in the figures, else REAL."""
    return "SIMULATED" if simulated else "REAL"


def badge_html(simulated: bool, details: str = "", small: bool = False) -> Html:
    """The badge that says whether an Ascend device had a part in the figures.

    Parameters
    ----------
    simulated : bool
    details : str — versions and the like, shown beside it.
    small : bool — the word alone, for captions.
    """
    kind = "sim" if simulated else "real"
    word = element("strong", badge_word(simulated), class_=f"badge {kind}")
    if small:
        return word
    meaning = (
        "The offline model ran on a CPU stand-in that imitates the arithmetic of an Ascend 910. No Ascend device took "
        "part."
        if simulated
        else "The offline model ran on an Ascend device."
    )
    versions = Html("") if not details else element("span", details, class_="versions")
    return element("p", word, " ", element("span", meaning), " ", versions, class_=f"toolchain {kind}-line")


def verdict_html(passed: Optional[bool], words: Optional[str] = None) -> Html:
    """A verdict as sign and word, never as colour alone; None where nothing was judged."""
    if passed is None:
        return element("span", words or "not judged", class_="unjudged")
    sign = element("span", "\u2713" if passed else "\u2715", aria_hidden="true")
    return element(
        "span", sign, "\u00a0", words or ("passed" if passed else "failed"), class_="passed" if passed else "failed"
    )


def section(title: str, *content: Any, anchor: Optional[str] = None) -> Html:
    """A part of the page under a heading of the second level."""
    return element("section", element("h2", title), *content, id=anchor)


def prose(*content: Any, note: bool = False, class_: Optional[str] = None) -> Html:
    """A paragraph; as a note it is smaller."""
    return element("p", *content, class_="note" if note else class_)


def figure(content: Html, caption: Union[str, Html], classes: str = "chart") -> Html:
    """A picture or a drawing with its caption below."""
    return element("figure", content, element("figcaption", caption), class_=classes)


def definitions(entries: Iterable[Tuple[str, Any]]) -> Html:
    """A list of names and values."""
    pairs = join(join([element("dt", name), element("dd", value)]) for name, value in entries)
    return element("dl", pairs)
