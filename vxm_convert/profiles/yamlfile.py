# SPDX-License-Identifier: Apache-2.0
"""A small, strict reader of YAML from strangers: plain mappings, texts, numbers and booleans, and nothing else.

Refuses what a profile never needs and an attacker might: large files, deep nesting, anchors and aliases, tags, several
documents, duplicate and merged keys. Numbers may be written as 1e-3, which YAML 1.1 would read as text.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable

from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.lazy import LazyModule

yaml = LazyModule("yaml")

MAX_BYTES = 64 * 1024
MAX_DEPTH = 6
MAX_NODES = 4000


@lru_cache(maxsize=None)
def _loader() -> Any:
    """SafeLoader that knows YAML 1.2's floats; made when a file is read, because PyYAML is not imported before."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]{1,4}$"),
        list("-+.0123456789"),
    )
    return Loader


def read_bytes(path: Path) -> bytes:
    """The bytes of a small regular file; raises ArtifactError or FormatError."""
    try:
        if not path.is_file():
            raise ArtifactError(
                f"{path}: no such profile file; `python -m vxm_convert profiles` lists the shipped ones"
            )
        with open(str(path), "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot read the profile ({exc.strerror})") from exc
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"{path}: more than {MAX_BYTES} bytes, expected a profile of a few lines; is it the right file?"
        )
    return data


def parse_mapping(data: bytes, where: str) -> Dict[str, Any]:
    """The document as nested dicts; `where` names it in messages. Raises FormatError."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError(
            f"{where}: not UTF-8 text ({exc.reason} at byte {exc.start}), expected a YAML profile"
        ) from exc
    try:
        _check_events(text, where)
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise FormatError(
                    f"{where}: expected keys such as schema, name and limits at the top; see docs/precision.md"
                )
            return _plain(loader, node, where, "")
        finally:
            loader.dispose()
    except yaml.YAMLError as exc:
        raise FormatError(f"{where}: not YAML ({_one_line(exc)}); correct the line") from exc


def _check_events(text: str, where: str) -> None:
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_loader()):
        mark = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FormatError(f"{where}: {mark}: anchors and aliases are not allowed in a profile; write the value out")
        if getattr(event, "tag", None) is not None:
            raise FormatError(
                f"{where}: {mark}: tags ({event.tag}) are not allowed in a profile; write the plain value"
            )
        documents += isinstance(event, yaml.DocumentStartEvent)
        nodes += isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise FormatError(
                f"{where}: {mark}: deeper than {MAX_DEPTH} levels or more than {MAX_NODES} entries, expected a small "
                "profile"
            )
        if documents > 1:
            raise FormatError(f"{where}: {mark}: a second document, expected one profile per file")


def _plain(loader: Any, node: Any, where: str, path: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        out: Dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key is None or key_node.tag == "tag:yaml.org,2002:merge":
                raise FormatError(
                    f"{where}: line {line}: got a {key_node.tag.split(':')[-1]} key, expected a plain name"
                )
            if key in out:
                raise FormatError(f"{where}: line {line}: key {path + key!r} stands twice; keep one of them")
            out[key] = _plain(loader, value_node, where, f"{path}{key}.")
        return out
    if isinstance(node, yaml.SequenceNode):
        raise FormatError(
            f"{where}: line {node.start_mark.line + 1}: {path[:-1]!r} is a list, expected keys with values or one value"
        )
    try:
        return loader.construct_object(node)
    except ValueError as exc:
        raise FormatError(
            f"{where}: line {node.start_mark.line + 1}: {path[:-1]!r} has a value that is none ({exc})"
        ) from exc


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _one_line(exc: yaml.YAMLError) -> str:
    return " ".join(str(exc).split())[:300]
