# SPDX-License-Identifier: Apache-2.0
"""Small untrusted YAML files: a size limit, PyYAML's safe loader, no aliases, and no repeated keys.

Numbers may be written as 1e-3, which YAML 1.1 would read as text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict

from vxm_convert.artifacts.files import read_bounded
from vxm_convert.errors import FormatError
from vxm_convert.lazy import LazyModule
from vxm_convert.text import one_line

if TYPE_CHECKING:
    import yaml
else:
    yaml = LazyModule("yaml")

MAX_BYTES = 64 * 1024


@lru_cache(maxsize=None)
def _loader() -> Any:
    """Defined when a file is read, because PyYAML is imported only then."""

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                # A few nested aliases can expand to billions of values.
                raise self.refusal(self.peek_event(), "aliases are not allowed; write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Dict[str, Any]:
            """Keys are used as written, so that `yes` and `1` are names too."""
            out: Dict[str, Any] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise self.refusal(key, "a key is a list or a mapping, expected a plain name")
                if key.value in out:
                    raise self.refusal(key, f"the key {key.value!r} appears twice; keep one of them")
                out[key.value] = self.construct_object(value, deep=True)
            return out

        @staticmethod
        def refusal(at: Any, text: str) -> FormatError:
            return FormatError(f"line {at.start_mark.line + 1}: {text}")

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]{1,4}$"),
        list("-+.0123456789"),
    )
    return Loader


def read_bytes(path: Path) -> bytes:
    """The bytes of a small file; raises ArtifactError or FormatError."""
    return read_bounded(path, MAX_BYTES, "a profile", "`python -m vxm_convert profiles` lists the shipped ones")


def parse_mapping(data: bytes, where: str) -> Dict[str, Any]:
    """The document as nested dicts; `where` names it in messages. Raises FormatError."""
    try:
        content = yaml.load(data.decode("utf-8"), Loader=_loader())
    except UnicodeDecodeError as exc:
        raise FormatError(
            f"{where}: not UTF-8 text ({exc.reason} at byte {exc.start}), expected a YAML profile"
        ) from exc
    except FormatError as exc:
        raise FormatError(f"{where}: {exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise FormatError(f"{where}: not YAML ({one_line(exc, 300)}); correct the line") from exc
    if not isinstance(content, dict):
        raise FormatError(f"{where}: expected keys such as schema, name and limits at the top; see docs/precision.md")
    return content
