# SPDX-License-Identifier: Apache-2.0
"""Differences between two versions of one file of results, by what its name says that it holds.

Owns what counts as the same content. Not compared: entries and columns of TIMES and VERSIONS, the interpreter and the
module of a recorded command, headers of gzip, times in zip, the encoding of PNG, and the numbers that tf2onnx gives to
nodes that it adds, which differ from run to run of the same code.
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import json
import re
import zipfile
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np
import onnx
from PIL import Image

#: entries of JSON and columns of tables, by pattern of their name
TIMES = ("seconds", "*_seconds", "seconds_per_*", "started", "finished", "timing", "date", "time")
VERSIONS = ("versions", "tools", "exported_with", "reference_python")
#: records that hold a hash of themselves, times included
_SELF_HASH = "*/.om_runner/*.json"
_TEXTS = (".txt", ".xml", ".cfg", ".lta", ".md", ".bidsignore", "checkpoint", "SHA256SUMS", "LICENSE")
_NUMBERED = re.compile(r"__\d+(?=$|[:/])")
_NOTHING = "(nothing)"
_LONGEST = 150


def differences(
    name: str, one: bytes, other: bytes, neutral: Tuple[Callable[[str], str], Callable[[str], str]]
) -> Iterator[str]:
    """Each place where two files of one name differ, in words.

    Parameters
    ----------
    name : str — path in the tree; its end says what the file holds.
    one, other : bytes — content before and after.
    neutral : two functions that take places and hashes of their tree out of a text.

    Raises
    ------
    ValueError, OSError, EOFError, zipfile.BadZipFile, google.protobuf.message.DecodeError
        When a file is not what its name says.
    """
    if one == other:
        return
    if name.endswith((".gz", ".mgz")):
        yield from _bytes(*(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in (one, other)))
    elif name.endswith(".npz"):
        yield from _archives(one, other)
    elif name.endswith(".png"):
        pictures = [Image.open(io.BytesIO(data)) for data in (one, other)]
        yield from _items(pictures[0].size, pictures[1].size, "size")
        yield from _bytes(*(picture.convert("RGBA").tobytes() for picture in pictures))
    elif name.endswith(".onnx"):
        yield from _bytes(_renumbered(one), _renumbered(other))
    else:
        reader = _reader(name)
        if reader is None:
            yield from _bytes(one, other)
        else:
            values = [reader(clean(data.decode("utf-8"))) for clean, data in zip(neutral, (one, other))]
            yield from _items(values[0], values[1], "")


def _renumbered(data: bytes) -> bytes:
    """An ONNX model whose numbered names, such as Transpose__299:0, are numbered in the order of the nodes."""
    model = onnx.load_model_from_string(data)
    numbers: Dict[str, str] = {}

    def rename(name: str) -> str:
        return _NUMBERED.sub(lambda found: numbers.setdefault(found.group(), f"__{len(numbers)}"), name)

    for node in model.graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for tensor in [*model.graph.initializer, *model.graph.value_info]:
        tensor.name = rename(tensor.name)
    return bytes(model.SerializeToString(deterministic=True))


def _reader(name: str) -> Optional[Callable[[str], Any]]:
    """What makes comparable values of a text file; None for bytes."""
    if name.endswith(".json"):
        return lambda text: _timeless(json.loads(text), fnmatch.fnmatch(name, _SELF_HASH))
    if name.endswith(".jsonl"):
        return lambda text: [_timeless(json.loads(line)) for line in text.splitlines()]
    if name.endswith((".csv", ".tsv")):
        return lambda text: _table(text, "\t" if name.endswith(".tsv") else ",")
    if name.endswith("SHA256SUMS"):
        return lambda text: [line for line in text.splitlines() if not line.startswith("#")]
    if name.endswith(_TEXTS):
        return lambda text: re.sub(r' time="[\d.]+"', "", text).splitlines()
    return None


def _table(text: str, mark: str) -> Any:
    """Columns in their order, and rows; without those of times."""
    rows = list(csv.reader(io.StringIO(text), delimiter=mark))
    names = [_timeless({name: number}) for number, name in enumerate(rows[0] if rows else [])]
    kept = [number for name in names for number in name.values()]
    return [[row[number] if number < len(row) else _NOTHING for number in kept] for row in rows]


def _timeless(value: Any, without_own_hash: bool = False) -> Any:
    """`value` without times and versions; of a command only what follows the interpreter and the module."""
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    left_out = TIMES + VERSIONS + (("sha256",) if without_own_hash else ())
    kept: Dict[Any, Any] = {}
    for key, item in value.items():
        if not any(fnmatch.fnmatch(str(key), pattern) for pattern in left_out):
            kept[key] = item[3:] if key == "command" and isinstance(item, list) else _timeless(item)
    return kept


def _items(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({**one, **other}, key=str):
            place = f"{where}.{key}" if where else str(key)
            yield from _items(one.get(key, _NOTHING), other.get(key, _NOTHING), place)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other)):
            yield from _items(pair[0], pair[1], f"{where}[{number}]")
    elif repr(one) != repr(other):
        yield f"{where or 'content'}: {str(one)[:_LONGEST]} -> {str(other)[:_LONGEST]}"


def _bytes(one: bytes, other: bytes) -> Iterator[str]:
    if len(one) != len(other):
        yield f"{len(one)} -> {len(other)} bytes"
    elif one != other:
        places = np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))
        yield f"{len(places)} of {len(one)} bytes differ, the first at {places[0]}"


def _archives(one: bytes, other: bytes) -> Iterator[str]:
    members = []
    for data in (one, other):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members.append({name: archive.read(name) for name in archive.namelist()})
    for name in sorted({**members[0], **members[1]}):
        yield from (f"{name}: {text}" for text in _bytes(members[0].get(name, b""), members[1].get(name, b"")))
