# SPDX-License-Identifier: Apache-2.0
"""Templates and their values: every value is escaped unless it is `Html`, which only templates and charts produce.

A template may extend ``page.html`` and import ``parts.html``, beside this module.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vxm_convert.lazy import LazyModule

if TYPE_CHECKING:
    import jinja2
else:
    jinja2 = LazyModule("jinja2")

#: Markup that is safe to put into a page; any other `str` is escaped.
Html = Markup
#: shown where a figure is undefined
NOT_AVAILABLE = "n/a"
_SHARED = Path(__file__).with_name("templates")
#: what a browser shows for a character that no page may hold: control characters and lone surrogates
_REPLACEMENT = "\ufffd"
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def readable(value: object) -> str:
    """Any value as text without the characters that no page may hold."""
    return _FORBIDDEN.sub(_REPLACEMENT, str(value))


def badge_word(simulated: bool) -> str:
    """SIMULATED where no Ascend device had a part in the figures, else REAL."""
    return "SIMULATED" if simulated else "REAL"


def fragment(folder: Path, name: str, **context: object) -> Html:
    """A template filled in.

    Parameters
    ----------
    folder : Path — of the template; the shared ones are found from every folder.
    name : str — file name of the template.
    context : names that the template uses; one that is missing is an error.
    """
    return Html(_environment(Path(folder)).get_template(name).render(**context))


def parts() -> Any:
    """The macros of ``parts.html``, for cells of tables that hold more than text."""
    return _environment(_SHARED).get_template("parts.html").module


@lru_cache(maxsize=None)
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder), str(_SHARED)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(badge_word=badge_word, not_available=NOT_AVAILABLE)
    return environment


def _finalized(value: object) -> Any:
    return value if isinstance(value, Markup) else readable(value)
