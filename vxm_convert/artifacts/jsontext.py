# SPDX-License-Identifier: Apache-2.0
"""JSON that anybody may have written: parsed with a limit on its depth, so that no later walk through it runs out of
stack.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Tuple

from vxm_convert.errors import FormatError

#: nesting of anything that this project writes is below 20
MAX_DEPTH = 100


def parse_json(data: bytes, where: str, advice: str = "make it again") -> Any:
    """The content of a JSON file.

    Parameters
    ----------
    where : str — names the file in the message.

    Raises
    ------
    FormatError
        It is no UTF-8, no JSON, or nested deeper than `MAX_DEPTH`.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except RecursionError as exc:
        raise FormatError(_too_deep(where, advice)) from exc
    except ValueError as exc:
        raise FormatError(f"{where}: not JSON ({exc!s:.200}); {advice}") from exc
    # Level by level, as a walk by calls would need the stack that is to be spared.
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _items(value)]
        if not level:
            return content
    raise FormatError(_too_deep(where, advice))


def _items(value: Any) -> Iterator[Any]:
    parts: Tuple[Any, ...] = ()
    if isinstance(value, dict):
        parts = tuple(value.values())
    elif isinstance(value, list):
        parts = tuple(value)
    return (part for part in parts if isinstance(part, (dict, list)))


def _too_deep(where: str, advice: str) -> str:
    return f"{where}: JSON nested deeper than {MAX_DEPTH} levels, expected a file of ours; {advice}"
