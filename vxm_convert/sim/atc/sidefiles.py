# SPDX-License-Identifier: Apache-2.0
"""Files that ATC's flags name: kept dtypes, mixed-precision lists, precision per operator, fusion switches.

Each reader refuses a missing or malformed file with the code of the real tool, and files larger than `MAX_BYTES`.
"""

from __future__ import annotations

import configparser
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple

from vxm_convert.sim.compiler.node_flags import CustomDtypes
from vxm_convert.sim.refusal import AtcRefusal

MAX_BYTES = 16 << 20
TYPE_PREFIX = "OpType::"
#: value of an --op_precision_mode line → `_op_impl_mode_enum` of the operator; the numbers were not checked against a
#: real model
IMPL_MODES = {
    "high_performance": 2,
    "high_precision": 4,
    "super_performance": 8,
    "support_out_of_bound_index": 16,
    "enable_float_32_execution": 32,
    "enable_hi_float_32_execution": 64,
    "keep_fp16": 128,
}
#: list of --modify_mixlist → type of an operator in mixed precision: True fp16, False fp32, None like its predecessor
_LISTS = {"white-list": True, "black-list": False, "gray-list": None}


#: types that a line of --customize_dtypes may name
CUSTOM_TYPES = ("float16", "float32", "int8", "int32", "int64", "uint8", "bool")
_CUSTOM_LINE = re.compile(
    r"(?:OpType::(?P<type>[^:]+):|(?P<node>[^:]+)::)(?:InputDtype:(?P<into>[A-Za-z0-9, "
    r"]*))?(?:OutputDtype:(?P<out>[A-Za-z0-9, ]*))?$"
)


def read_text(flag: str, path: str) -> str:
    """Text of the file that a flag names; E10001 if it cannot be read."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise AtcRefusal("E10001", f"--{flag} is {path!r}, which has more than {MAX_BYTES} bytes")
        return Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise AtcRefusal("E10001", f"--{flag} is {path!r}, which cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise AtcRefusal("E10001", f"--{flag} is {path!r}, which is not a text file") from exc


def read_keep_dtype(path: str) -> Tuple[FrozenSet[str], FrozenSet[str]]:
    """(node names, operator types) of a ``--keep_dtype`` file: one name, or ``OpType::Type``, per line."""
    lines = [line.strip() for line in read_text("keep_dtype", path).splitlines()] if path else []
    types = frozenset(line[len(TYPE_PREFIX) :] for line in lines if line.startswith(TYPE_PREFIX))
    return frozenset(line for line in lines if line and not line.startswith(TYPE_PREFIX)), types


def read_custom_dtypes(path: str) -> Tuple[CustomDtypes, ...]:
    """Lines of a ``--customize_dtypes`` file.

    ``node::InputDtype:float16,float32,OutputDtype:float32`` or ``OpType::Type:InputDtype:…,OutputDtype:…``; either part
    may be omitted, and so may a type in its list, which leaves that operand unchanged.
    """
    entries: List[CustomDtypes] = []
    for line in read_text("customize_dtypes", path).splitlines() if path else []:
        text = line.strip()
        if not text:
            continue
        found = _CUSTOM_LINE.match(text)
        if found is None or not (found.group("into") or found.group("out")):
            raise AtcRefusal(
                "E10001",
                f"--customize_dtypes is {path!r}; got the line {text!r}, expected "
                "node::InputDtype:type,…,OutputDtype:type,… or OpType::Type:InputDtype:…,OutputDtype:…",
            )
        # The comma before OutputDtype ends the list of inputs.
        into, out = (
            tuple(word.strip().lower() for word in _less_comma(found.group(part)).split(","))
            for part in ("into", "out")
        )
        unknown = [word for words in (into, out) for word in words if word and word not in CUSTOM_TYPES]
        if unknown:
            raise AtcRefusal(
                "E10001", f"--customize_dtypes requests {unknown[0]!r}, expected one of {', '.join(CUSTOM_TYPES)}"
            )
        entries.append(CustomDtypes(found.group("type") or found.group("node"), bool(found.group("type")), into, out))
    return tuple(entries)


def _less_comma(text: Optional[str]) -> str:
    given = (text or "").strip()
    return given[:-1] if given.endswith(",") else given


def read_mixlist(path: str) -> Dict[str, Optional[bool]]:
    """Operator type → new list of a ``--modify_mixlist`` file.

    ``{"black-list": {"to-add": […], "to-remove": […]}, "white-list": {…}}``; a type that is only removed becomes gray.
    """
    if not path:
        return {}
    data = _read_json("modify_mixlist", path)
    if not isinstance(data, dict) or not set(data) <= set(_LISTS):
        raise AtcRefusal("E10001", f"--modify_mixlist is {path!r}; expected an object with {', '.join(_LISTS)}")
    moved: Dict[str, Optional[bool]] = {}
    added: Dict[str, Optional[bool]] = {}
    for name, edits in data.items():
        if not isinstance(edits, dict) or not set(edits) <= {"to-add", "to-remove"}:
            raise AtcRefusal("E10001", f"--modify_mixlist is {path!r}; {name} must hold to-add and to-remove only")
        moved.update((kind, None) for kind in _strings(edits.get("to-remove", []), path))
        for kind in _strings(edits.get("to-add", []), path):
            if kind in added:
                raise AtcRefusal("E10001", f"--modify_mixlist is {path!r}; {kind} is added to two lists")
            added[kind] = _LISTS[name]
    moved.update(added)
    return moved


def _strings(values: object, path: str) -> List[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise AtcRefusal("E10001", f"--modify_mixlist is {path!r}; to-add and to-remove are lists of operator types")
    return values


def read_op_precision(path: str) -> Tuple[Dict[str, int], Dict[str, int]]:
    """(operator type → mode, node → mode) of an ``--op_precision_mode`` file: sections [ByOpType] and [ByNodeName]."""
    if not path:
        return {}, {}
    parser = configparser.RawConfigParser(delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    try:
        parser.read_string(read_text("op_precision_mode", path))
    except configparser.Error as exc:
        raise AtcRefusal(
            "E10001", f"--op_precision_mode is {path!r}, which is not an ini file ({type(exc).__name__})"
        ) from exc
    found: List[Dict[str, int]] = []
    for section in ("ByOpType", "ByNodeName"):
        entries = dict(parser.items(section)) if parser.has_section(section) else {}
        for name, mode in entries.items():
            if mode not in IMPL_MODES:
                raise AtcRefusal(
                    "E10001", f"--op_precision_mode gives {name} {mode!r}, expected one of {', '.join(IMPL_MODES)}"
                )
        found.append({name: IMPL_MODES[mode] for name, mode in entries.items()})
    return found[0], found[1]


def read_disabled_fusions(path: str, passes: Sequence[str]) -> FrozenSet[str]:
    """Which of `passes` a ``--fusion_switch_file`` turns off: ``Pass:off`` lines or the JSON form; the line of a pass
    overrides ALL.
    """
    if not path:
        return frozenset()
    text = read_text("fusion_switch_file", path)
    lines = [line for line in text.splitlines() if line.strip()]
    states = _json_states(path) if text.lstrip().startswith("{") else dict(_line_state(line, path) for line in lines)
    return frozenset(name for name in passes if states.get(name, states.get("ALL")) == "off")


def _json_states(path: str) -> Dict[str, Any]:
    data = _read_json("fusion_switch_file", path)
    groups = data.get("Switch") if isinstance(data, dict) else None
    graph = groups.get("GraphFusion", {}) if isinstance(groups, dict) else None
    if not isinstance(graph, dict) or not set(map(str, graph.values())) <= {"on", "off"}:
        raise AtcRefusal(
            "E10001", f'--fusion_switch_file is {path!r}; expected {{"Switch": {{"GraphFusion": {{pass: on or off}}}}}}'
        )
    return graph


def _line_state(line: str, path: str) -> Tuple[str, str]:
    name, _, state = (part.strip() for part in line.partition(":"))
    if not name or state not in ("on", "off"):
        raise AtcRefusal(
            "E10001", f"--fusion_switch_file is {path!r}; got the line {line!r}, expected Pass:on or Pass:off"
        )
    return name, state


def _read_json(flag: str, path: str) -> Any:
    try:
        return json.loads(read_text(flag, path))
    except (ValueError, RecursionError) as exc:
        raise AtcRefusal("E10032", f"--{flag} is {path!r}, which is not JSON") from exc
