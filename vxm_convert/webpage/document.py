# SPDX-License-Identifier: Apache-2.0
"""The document around a page: style and scripts from files, and a content security policy that admits nothing else.

Style and scripts are allowed by their hash; inline styles, handlers and requests are impossible.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Optional, Sequence

from vxm_convert.webpage.colours import css_properties
from vxm_convert.webpage.templates import Html, badge_word, fragment

_STATIC = Path(__file__).with_name("static")
_TEMPLATES = Path(__file__).with_name("templates")


def page(
    template: Path,
    title: str,
    simulated: Optional[bool],
    details: str = "",
    styles: Sequence[Path] = (),
    scripts: Sequence[Path] = (),
    picture_files: bool = False,
    **context: object,
) -> str:
    """A whole page.

    Parameters
    ----------
    template : Path — extends ``page.html`` and fills its block ``main``.
    title : str — of the window; the page's own h1 is in the template.
    simulated : bool or None — True: badge SIMULATED, False: REAL, on top and on every printed sheet. None: no badge,
        for pages without an offline model.
    details : str — versions of the toolchain, beside the badge.
    styles, scripts : sequence of Path — our files that only this page needs, embedded in it.
    picture_files : bool — pictures may be files beside the page; otherwise only those in the page itself are shown.
    context : values for the template.

    Raises
    ------
    ValueError
        For a script or style that contains the end of its own element.
    """
    style = css_properties() + "".join(map(_text, (_STATIC / "page.css", *styles)))
    if simulated is not None:
        style += str(fragment(_TEMPLATES, "badge.css", word=badge_word(simulated)))
    codes = [_text(path) for path in (_STATIC / "tables.js", *scripts)]
    for text in (style, *codes):
        if "</" in text or "<!--" in text:
            raise ValueError("a script or style of a page must not hold '</' or '<!--'")
    head = {"title": title, "simulated": simulated, "details": details, "policy": _policy(style, codes, picture_files)}
    inline = {"style": Html(style), "scripts": [Html(code) for code in codes]}
    return str(fragment(template.parent, template.name, **head, **inline, **context))


def _policy(style: str, scripts: Sequence[str], picture_files: bool) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            # The meaning of 'self' for a page opened as a file differs between browsers; files do not leave the
            # machine.
            "img-src data: 'self' file:" if picture_files else "img-src data:",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A source expression of the policy for inline text: browsers hash the UTF-8 text between the tags."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
