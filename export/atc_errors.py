# SPDX-License-Identifier: Apache-2.0
"""What ATC's error codes mean for a user of this tool: cause and next step. Pure text work, runs nothing.

Codes and their occasions follow the open sources of ATC (ge: api/atc, error_manager; nn_engine); the words are ours.
"""
from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

_TAIL_LINES = 12
# `[PID: 1] 2025-01-01 … Title(E10001): text` since CANN 7, `E10001: text` before; EZ3003 and the like name an engine.
_CODE = re.compile(r"(?:^|[\s(])(E[A-Z0-9]\d{4})\)?\s*:\s*(.*)")
_INNER = "E19999"


class Explanation(NamedTuple):
    """Cause and next step of a family of errors."""

    cause: str
    next_step: str


_VALUE = Explanation("an argument has a value that this ATC does not accept", "compare the value with `atc --help` of the installed CANN")
_SHAPE = Explanation(
    "the input shapes on the command line are malformed",
    "check --shape and --batch; every dimension must be a positive whole number",
)
_PATH = Explanation("ATC cannot use the output path", "choose a shorter --out made of letters, digits, '.', '-' and '_'")
_NODE = Explanation(
    "a node of the command line is not in the graph",
    "export again: contract.json and frozen.pb are not of the same export",
)
_OPERATOR = Explanation(
    "the graph holds an operator that this CANN does not support",
    "use a newer CANN, or keep the graph to what this tool exports",
)
_SOC = Explanation(
    "this CANN has no platform file for the requested chip",
    "pass the --soc-version that `npu-smi info` shows, e.g. Ascend910A",
)
_COMPILE = Explanation(
    "an operator could not be compiled for this chip and precision",
    "try --precision balanced; must_keep_origin_dtype cannot work on an Ascend 910, which has no fp32 Conv3D",
)
_PYTHON = Explanation(
    "ATC cannot start its operator compiler, which is a Python package of CANN",
    "use the Python version this CANN supports and install the packages its manual names (numpy, decorator, sympy, …)",
)
_FILE = Explanation("ATC cannot read or understand a file", "export again; check free space and permissions of the output folder")
_MEMORY = Explanation(
    "the host ran out of memory, or the model is larger than its format allows",
    "free memory, set TE_PARALLEL_COMPILER=1, or use a smaller --batch",
)
_LIMIT = Explanation("an operator is outside the limits of the chip", "use a smaller --shape or --batch")
_DYNAMIC = Explanation("options for dynamic shapes contradict each other", "this tool exports static shapes only: leave such options out")
_REQUIRED = Explanation("ATC misses an argument it needs", "report it: this command line was built by vxm_convert")
_UNKNOWN = Explanation(
    "ATC reports no cause of its own",
    "read the log; set ASCEND_SLOG_PRINT_TO_STDOUT=1 and run again for the compiler's own messages",
)

_BY_CODE = {
    "E10001": _VALUE, "E10002": _SHAPE, "E10003": _VALUE, "E10004": _VALUE, "E10005": _VALUE, "E10006": _VALUE, "E10007": _REQUIRED,
    "E10008": _REQUIRED, "E10009": _DYNAMIC, "E10010": _VALUE, "E10011": _SHAPE, "E10012": _DYNAMIC, "E10013": _VALUE, "E10014": _VALUE,
    "E10016": _NODE, "E10017": _NODE, "E10018": _DYNAMIC, "E10019": _DYNAMIC, "E10020": _DYNAMIC, "E10021": _PATH, "E10022": _PATH,
    "E10032": _FILE, "E10041": _FILE, "E10047": _VALUE, "E10054": _REQUIRED, "E10055": _VALUE, "E10056": _VALUE, "E10501": _OPERATOR,
    "E13010": _OPERATOR, "E19010": _OPERATOR, "E13022": _MEMORY, "E13023": _MEMORY, "E19022": _MEMORY, "E19023": _MEMORY,
    "E12009": _NODE, "E12013": _OPERATOR, "E12029": _OPERATOR, "E14001": _COMPILE, "E20101": _SOC, "E20103": _SOC,
    "E40001": _PYTHON, "E40020": _PYTHON, "E40021": _PYTHON, "EZ3002": _OPERATOR, "EZ3003": _OPERATOR, "EZ9010": _OPERATOR,
    "EZ0501": _OPERATOR, _INNER: _UNKNOWN,
}
# For what the table does not name; the first prefix that fits counts.
_BY_PREFIX = (
    ("E1003", _DYNAMIC), ("E1004", _DYNAMIC), ("E10", _VALUE), ("E12", _FILE), ("E13", _FILE), ("E19", _FILE), ("E14", _COMPILE),
    ("E2", _COMPILE), ("E4", _PYTHON), ("E6", _LIMIT), ("E9", _LIMIT), ("EZ", _OPERATOR),
)


def explain(code: Optional[str]) -> Explanation:
    """Cause and next step for a code; `_UNKNOWN` for none."""
    if code is None:
        return _UNKNOWN
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((text for prefix, text in _BY_PREFIX if code.startswith(prefix)), _UNKNOWN)


def find_code(log: str) -> Tuple[Optional[str], str]:
    """The code that tells most and its message: the first one that is no inner error, else the first, else (None, "")."""
    found: List[Tuple[str, str]] = [(m.group(1), m.group(2).strip()) for m in map(_CODE.search, log.splitlines()) if m]
    if not found:
        return None, ""
    return next((entry for entry in found if entry[0] != _INNER), found[0])


def tail(log: str) -> str:
    """The last lines of a log that say something."""
    return "\n".join([line for line in log.splitlines() if line.strip()][-_TAIL_LINES:])
