# SPDX-License-Identifier: Apache-2.0
"""The document around the parts: head, style, script and a content security policy that lets nothing in.

Style and script are allowed by their hash; no inline style or handler and no request of any kind is possible.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Iterable, Optional

from vxm_convert.webpage.elements import Html, badge_html, element, escape, join
from vxm_convert.webpage.script import SORT_SCRIPT
from vxm_convert.webpage.style import STYLE, print_style


def page(
    title: str,
    badge: Optional[bool],
    body_parts: Iterable[Any],
    script: Optional[str] = None,
    details: str = "",
    style: str = "",
    picture_files: bool = False,
) -> str:
    """A whole page.

    Parameters
    ----------
    title : str — of the window; the page's own h1 is among the parts.
    badge : bool — True: SIMULATED, False: REAL; the badge stands on top, and again on every printed sheet. None: no
        badge, for pages
        that no offline model has a part in.
    body_parts : iterable of Html — a `str` among them is escaped.
    script : str or None — more script of ours, constant text, beside the one that sorts tables.
    details : str — versions of the toolchain, beside the badge.
    style : str — more rules of ours, constant text, that only this page needs.
    picture_files : bool — pictures may be files beside the page; otherwise only what stands in the page itself is
        shown.

    Raises
    ------
    ValueError
        For a script or style that would end its own element.
    """
    style = STYLE + print_style(badge) + style
    scripts = [text for text in (SORT_SCRIPT, script) if text]
    for text in scripts + [style]:
        if "</" in text or "<!--" in text:
            raise ValueError("a script or style of a page must not hold '</' or '<!--'")
    # What 'self' is for a page opened as a file differs between browsers; a file is no way out of the machine.
    pictures = "img-src data: 'self' file:" if picture_files else "img-src data:"
    policy = "; ".join(
        (
            "default-src 'none'",
            pictures,
            f"style-src {_hash(style)}",
            f"script-src {' '.join(_hash(text) for text in scripts)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    head = join(
        (
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="referrer" content="no-referrer">'),
            element("title", title),
            Html(f"<style>{style}</style>"),
        ),
        "\n",
    )
    top = element(
        "header", element("p", details, class_="toolchain versions") if badge is None else badge_html(badge, details)
    )
    tail = join((Html(f"<script>{text}</script>") for text in scripts), "\n")
    body = join((top, element("main", join(body_parts, "\n")), tail), "\n")
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _hash(text: str) -> str:
    """A source expression of the policy for inline text: browsers hash what stands between the tags, as UTF-8."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
