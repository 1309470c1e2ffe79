# SPDX-License-Identifier: Apache-2.0
"""Precision plans in files: ``export tune`` writes them and ``export --plan`` takes them. Refuses unknown entries."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from vxm_convert.artifacts.files import write_json
from vxm_convert.errors import ArtifactError, FormatError
from vxm_convert.given import unless
from vxm_convert.model.precision import PrecisionPlan

SCHEMA = 1
#: `--precision_mode` values of ATC that a 910 has and that this program can assess
MODES = (
    "force_fp16",
    "allow_mix_precision",
    "allow_fp32_to_fp16",
    "force_fp32",
    "cube_fp16in_fp32out",
    "must_keep_origin_dtype",
)
_KEYS = ("schema", "name", "mode", "keep_dtype", "split_weights", "fp32_results", "reasons")
_NEEDED = ("schema", "name", "mode")
_MAX_BYTES = 4 << 20
_PLAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
#: the form that TensorFlow allows; each name becomes a line of a file
_NODE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{0,1023}")


def save_plan(path: Path, plan: PrecisionPlan, reasons: Optional[Mapping[str, str]] = None) -> None:
    """Write a plan; `reasons` gives the reason for each decision."""
    write_json(path, {"schema": SCHEMA, **plan.to_dict(), "reasons": dict(reasons or {})})


def load_plan(path: Path) -> PrecisionPlan:
    """Read a plan.

    Raises
    ------
    ArtifactError
        If the file cannot be read.
    FormatError
        If it is not a plan: not JSON, unknown or missing entries, unknown mode, names that no node can have, repeated
        names.
    """
    path = Path(path)
    data = _read(path)
    for key in data:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(_KEYS)}"
            raise FormatError(f"{path}: unknown entry {key!r}{hint}")
    missing = [key for key in _NEEDED if key not in data]
    if missing:
        raise FormatError(f"{path}: has no {', '.join(missing)}; a plan has {', '.join(_NEEDED)}, and lists of names")
    if data["schema"] != SCHEMA or isinstance(data["schema"], bool):
        raise FormatError(f"{path}: schema is {data['schema']!r}, expected {SCHEMA}; write the plan with this version")
    name, mode = data["name"], data["mode"]
    if not isinstance(name, str) or not _PLAN_NAME.fullmatch(name):
        raise FormatError(f"{path}: name is {name!r}, expected up to 64 letters, digits, blanks and . _ + -")
    if mode not in MODES:
        close = difflib.get_close_matches(str(mode), MODES, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise FormatError(f"{path}: mode is {mode!r}, expected one of {', '.join(MODES)}{hint}")
    lists = {key: _names(path, data, key) for key in ("keep_dtype", "split_weights", "fp32_results")}
    return PrecisionPlan(name, mode, **lists)


def plan_rules(args: argparse.Namespace) -> Dict[str, str]:
    """The rule of `vxm_convert.given.refuse_unused` for ``--plan`` beside ``--precision``."""
    return unless(args.plan is None, "--plan takes its place; leave one of them out", "--precision")


def _read(path: Path) -> Dict[str, Any]:
    try:
        with open(str(path), "rb") as handle:
            raw = handle.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot read the plan ({exc.strerror}); pass a file that `python -m export tune` wrote"
        ) from exc
    if len(raw) > _MAX_BYTES:
        raise FormatError(f"{path}: more than {_MAX_BYTES} bytes; this is not a plan")
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise FormatError(f"{path}: not JSON ({exc}); pass a file that `python -m export tune` wrote") from exc
    if not isinstance(data, dict):
        raise FormatError(f"{path}: holds a {type(data).__name__}, expected an object with {', '.join(_NEEDED)}")
    return data


def _names(path: Path, data: Mapping[str, Any], key: str) -> Tuple[str, ...]:
    names = data.get(key, [])
    if not isinstance(names, list):
        raise FormatError(f"{path}: {key} is a {type(names).__name__}, expected a list of names")
    for name in names:
        if not isinstance(name, str) or not _NODE_NAME.fullmatch(name):
            raise FormatError(
                f"{path}: {key} contains {name!r}, which is not a node name; use names as `inspect` shows them"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FormatError(f"{path}: {key} names {', '.join(twice)} more than once; list each name once")
    return tuple(names)
