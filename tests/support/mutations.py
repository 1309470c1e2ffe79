# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of files: what disks, networks, editors and people do to them. Each comes from a seed."""

from __future__ import annotations

import json
import random
import re
from typing import Callable, List

#: what a JSON value may be changed into
_ODD = (
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**40,
    "",
    "\x1b[2J",
    "\ud800",
    [],
    {},
    [1, 2],
    ["a"],
    {"a": 1},
    "0" * 64,
)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 16))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _nul(data: bytes, rng: random.Random) -> bytes:
    """As after a power cut: blocks that were never written."""
    start = rng.randrange(len(data) + 1)
    size = rng.choice((1, 16, 512, len(data)))
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\0", b"\n", b"\t", b"\xff\xfe", b'"', b"[" * 3000, b"\x1b[2J", b",")) + data[at:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + 64] * rng.choice((2, 50)) + data[at + 64 :]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    return bytes(len(data))


def _deep(data: bytes, rng: random.Random) -> bytes:
    """JSON within JSON, below and beyond what a parser's stack takes."""
    depth = rng.choice((90, 400, 5000, 200000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + (data or b"1") + closing * depth


def _number(data: bytes, rng: random.Random) -> bytes:
    """One number of a text becomes another."""
    found = list(re.finditer(rb"\d+(\.\d+)?", data[:100000]))
    if not found:
        return _flip(data, rng)
    at = rng.choice(found)
    odd = rng.choice(
        (b"-1", b"0", b"nan", b"NaN", b"Infinity", b"1e400", b"9" * 40, b"9" * 5000, b"2147483648", b"null")
    )
    return data[: at.start()] + odd + data[at.end() :]


def _value(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON document becomes one of another kind, or goes."""
    try:
        document = json.loads(data.decode("utf-8"))
        if json.dumps(document).count("[") + json.dumps(document).count("{") > 500:
            return _number(data, rng)
    except (ValueError, RecursionError):
        return _number(data, rng)
    places: List[Callable[[], None]] = []

    def offer(holder: object, key: object) -> None:
        places.append(lambda: holder.__setitem__(key, rng.choice(_ODD)))  # type: ignore[attr-defined]
        places.append(lambda: holder.__delitem__(key))  # type: ignore[attr-defined]

    def walk(value: object) -> None:
        if isinstance(value, (dict, list)):
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                offer(value, key)
                walk(value[key])

    walk(document)
    if not places:
        return json.dumps(rng.choice(_ODD)).encode()
    rng.choice(places)()
    return json.dumps(document).encode("utf-8", "surrogatepass")


MUTATIONS = (_cut, _flip, _flip, _nul, _insert, _repeat, _zeros, _deep, _number, _number, _value, _value, _value)


def mutated(data: bytes, seed: int) -> bytes:
    """The damaged copy of a seed; equal seeds give equal copies."""
    rng = random.Random(seed)
    out = rng.choice(MUTATIONS)(data, rng)
    return rng.choice(MUTATIONS)(out, rng) if rng.random() < 0.15 else out
