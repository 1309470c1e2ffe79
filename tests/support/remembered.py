# SPDX-License-Identifier: Apache-2.0
"""What tests do over and over is done once per process, and what only takes time is left out.

Not as fixtures: pytest ends one of a session once for every test that had it, which took a tenth of the time.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import sys
import types
from typing import Any, Callable, Dict

import pytest
from _pytest import runner

#: longer values are not set side by side in words; it takes pytest 50 minutes for two files of 200 kB
SHOWN_LENGTH = 20000
#: bytes of a graph that is small; networks of tests are below it
_SMALL_GRAPH = 1 << 21


def install() -> None:
    """For the rest of the process."""
    _programs()
    _texts()
    _drawings()
    _nodes()
    _comparisons()
    _reports()


def _programs() -> None:
    """OpenVINO compiles equal small graphs once; requests and their tensors are new for every load."""
    from vxm_convert.sim.engine import backends

    compile_one = backends._compiled
    remembered = functools.lru_cache(maxsize=200)(compile_one)
    backends._compiled = lambda content: (remembered if len(content) < _SMALL_GRAPH else compile_one)(content)


def _texts() -> None:
    """The texts of a message whose bytes were checked before are not checked again; models are read over and over."""
    from vxm_convert.formats import protobuf

    check, checked = protobuf._check_texts, set()

    def check_once(kind: Any, data: bytes, what: str) -> None:
        key = (kind, hashlib.sha1(data).digest())
        if key not in checked:
            check(kind, data, what)
            checked.add(key)

    protobuf._check_texts = check_once


def _drawings() -> None:
    """A drawing of a page that was made from the same values before is not made again: one takes 50 ms, a page has 30."""
    from om_runner.precision.page import charts, colourbars, layers, limits, structures
    from om_runner.qc import record

    def remembering(draw: Callable[..., Any]) -> Callable[..., Any]:
        made: Dict[bytes, Any] = {}

        @functools.wraps(draw)
        def drawn(*values: Any) -> Any:
            key = hashlib.sha1(pickle.dumps(values)).digest()
            if key not in made:
                made[key] = draw(*values)
            return made[key]

        return drawn

    for module, names in (
        (charts, ("_error_chart", "_jacobian_chart")),
        (structures, ("_dice_chart",)),
        (colourbars, ("_signed_bar", "_magnitude_bar")),
        (layers, ("_chart",)),
        (limits, ("_axis", "_strip")),
    ):
        for name in names:
            setattr(module, name, remembering(getattr(module, name)))
    draw = remembering(record.draw)
    nothing: Dict[str, Any] = {"subject": "", "made_from": {}, "figures": {}, "notes": (), "warnings": ()}
    record.draw = lambda case: draw(dataclasses.replace(case, **nothing))


def _nodes() -> None:
    """For its own messages TensorFlow keeps the Python stack of every node: a tenth of the time of building a graph."""
    if "tensorflow" not in sys.modules:
        return
    from tensorflow.python.framework import ops

    ops.tf_stack = types.SimpleNamespace(extract_stack=lambda: [], convert_stack=ops.tf_stack.convert_stack)


def _comparisons() -> None:
    """Large values that differ are told apart by their hashes."""
    from _pytest.assertion import util

    compare = util.assertrepr_compare

    def short(*values: Any, **named: Any) -> Any:
        sides = [value for name, value in named.items() if name in ("left", "right")] or list(values[2:4])
        if any(map(_is_large, sides)):
            return [
                "large values differ: " + ", ".join(hashlib.sha1(repr(side).encode()).hexdigest() for side in sides)
            ]
        return compare(*values, **named)

    util.assertrepr_compare = short


def _reports() -> None:
    """That a test was set up and taken down again is not told to the process that waits for it, unless something needs it:
    two thirds of all messages.
    """
    call_and_report = runner.call_and_report

    def told(item: pytest.Item, when: str, log: bool = True, **more: Any) -> Any:
        needed = when == "call" or any(item.config.getoption(name, None) for name in ("durations", "xmlpath"))
        report = call_and_report(item, when, log and needed, **more)  # type: ignore[arg-type]
        if log and not needed and not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
        return report

    runner.call_and_report = told  # type: ignore[assignment]


def _is_large(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_large, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_large, value))
    return isinstance(value, (bytes, bytearray, str)) and len(value) > SHOWN_LENGTH
