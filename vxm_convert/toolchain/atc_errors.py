# SPDX-License-Identifier: Apache-2.0
"""Explains a failure of ATC: cause and next step, from its codes, output and exit code.

Works on text only.

Codes and their meaning follow the open sources of ATC (ge: api/atc, error_manager; nn_engine); the words are ours.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

_TAIL_LINES = 12
# `[PID: 1] 2025-01-01 … Title(E10001): text` since CANN 7, `E10001: text` before; EZ3003 and the like name an engine.
_CODE = re.compile(r"(?:^|[\s(])(E[A-Z0-9]\d{4})\)?\s*:\s*(.*)")
# E19999, EZ9999, EH9999 …: "inner error" of one component or another; whatever else is said tells more.
# TBE raises its limits as a Python dictionary: ({'errCode': 'E60038', …},).
_RAISED = re.compile(r"errCode'?\s*:\s*'(E[69]\d{4})'(.*)")
_INNER_CODE = re.compile(r"E[0-9A-Z]9999")
_FIRST_SIGNAL = 128
_ATC_FAILED = 255
# The two wordings in which compilers of all ages name an operator: `Op [x, optype [T]]` and `for [x], optype [T]`.
# Newer ones write `Op [x]. (optype: [T])`, and with the path of the kernel's source before the type.
_OPERATORS = re.compile(
    r"\[([\w./:-]+)\s*,\s*optype\s*\[([\w.:]+)\]\]|\[([\w./:-]+)\],\s*optype\s*\[([\w.:]+)\]"
    r"|\bOp\s*\[([\w./:-]+)[^\n]{0,2000}?optype:?\s*\[([\w.:]+)\]",
    re.IGNORECASE,
)
_MAX_NAMED = 5


class Explanation(NamedTuple):
    """Cause and next step of a family of errors."""

    cause: str
    next_step: str


_VALUE = Explanation(
    "an argument has a value that this ATC does not accept", "compare the value with `atc --help` of the installed CANN"
)
_SHAPE = Explanation(
    "the input shapes on the command line are malformed",
    "check --shape and --batch; every dimension must be a positive whole number",
)
_PATH = Explanation(
    "ATC cannot use the output path", "choose a shorter --out made of letters, digits, '.', '-' and '_'"
)
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
_FILE = Explanation(
    "ATC cannot read or understand a file", "export again; check free space and permissions of the output folder"
)
_MEMORY = Explanation(
    "the host ran out of memory, or the model is larger than its format allows",
    "free memory, set TE_PARALLEL_COMPILER=1, or use a smaller --batch",
)
_LIMIT = Explanation("an operator is outside the limits of the chip", "use a smaller --shape or --batch")
_DYNAMIC = Explanation(
    "options for dynamic shapes contradict each other", "this tool exports only static shapes: omit such options"
)
_REQUIRED = Explanation("ATC lacks a required argument", "report it as a bug: vxm_convert built this command line")
_MODEL = Explanation(
    "the graph file is damaged, not frozen, or not accepted by ATC's parser",
    "export again; for your own graph, `python -m export preflight --pb FILE` shows what is wrong",
)
_ENVIRONMENT = Explanation(
    "an environment variable that CANN needs is missing or wrong",
    "source CANN's set_env.sh, or check with `python -m vxm_convert doctor` whether this tool finds CANN",
)
_DRIVER = Explanation(
    "CANN cannot use the driver, the device or its licence",
    "check `npu-smi info`, that driver and CANN versions belong together, and that your user is in the group "
    "HwHiAiUser",
)
_LIBRARY = Explanation(
    "a library of CANN or of the driver cannot be loaded",
    "check the installation: `python -m vxm_convert doctor`; a host without a device needs the driver's stubs "
    "(<arch>-linux/devlib)",
)
_DISK = Explanation(
    "the disk is full or the folder is not writable",
    "free space, or choose another --out; kernels are cached in ~/atc_data",
)
_KILLED = Explanation(
    "the operating system ended the compiler, most likely because memory ran out",
    "free memory (`dmesg` names the victim), set TE_PARALLEL_COMPILER=1, or use a smaller --batch; compile on a "
    "larger host",
)
_CRASHED = Explanation(
    "the compiler crashed",
    "check ~/ascend/log, clear ~/atc_data and try again; if it fails again, use another CANN version",
)
_STOPPED = Explanation(
    "the compiler was stopped by a signal", "run again; a batch system's time limit sends such signals"
)
_CONFIGURATION = Explanation(
    "a configuration file of CANN, or one that a flag names, is wrong or cannot be read",
    "check the files of --atc-flag and the installation: `python -m vxm_convert doctor`",
)
_AICPU = Explanation(
    "an operator of the AI CPU could not be prepared",
    "check that CANN's AI CPU package is installed; `python -m export preflight` names such operators",
)
_TBE = Explanation(
    "the operator compiler (TBE) failed",
    "read atc-failed and ~/ascend/log; check ATC's Python with `python -m vxm_convert doctor`, clear ~/atc_data and try "
    "again, or use another CANN version",
)
_COMPONENT = Explanation(
    "a component of CANN reports an error that this tool has no text for",
    "look the code up in conf/error_manager/error_code.json of the installed CANN, and read ~/ascend/log",
)
_UNKNOWN = Explanation(
    "ATC reports no cause",
    "read the log; set ASCEND_SLOG_PRINT_TO_STDOUT=1 and run again for the compiler's own messages",
)

_BY_CODE = {
    "E10001": _VALUE,
    "E10002": _SHAPE,
    "E10003": _VALUE,
    "E10004": _VALUE,
    "E10005": _VALUE,
    "E10006": _VALUE,
    "E10007": _REQUIRED,
    "E10008": _REQUIRED,
    "E10009": _DYNAMIC,
    "E10010": _VALUE,
    "E10011": _SHAPE,
    "E10012": _DYNAMIC,
    "E10013": _VALUE,
    "E10014": _VALUE,
    "E10016": _NODE,
    "E10017": _NODE,
    "E10018": _DYNAMIC,
    "E10019": _DYNAMIC,
    "E10020": _DYNAMIC,
    "E10021": _PATH,
    "E10022": _PATH,
    "E10032": _FILE,
    "E10041": _MODEL,
    "E10047": _VALUE,
    "E10054": _REQUIRED,
    "E10055": _VALUE,
    "E10056": _VALUE,
    "E10501": _OPERATOR,
    "E13010": _OPERATOR,
    "E19010": _OPERATOR,
    "E13022": _MEMORY,
    "E13023": _MEMORY,
    "E19022": _MEMORY,
    "E19023": _MEMORY,
    "E13009": _MODEL,
    "E19009": _MODEL,
    "E13015": _MEMORY,
    "E19015": _MEMORY,
    "E13026": _MODEL,
    "E19026": _MODEL,
    "E12009": _NODE,
    "E12013": _MODEL,
    "E12029": _MODEL,
    "E14001": _COMPILE,
    "E20003": _CONFIGURATION,
    "E21001": _CONFIGURATION,
    "E21002": _CONFIGURATION,
    "E20101": _SOC,
    "E20103": _SOC,
    "E40001": _ENVIRONMENT,
    "E40020": _PYTHON,
    "E40021": _COMPILE,
    "EZ3002": _OPERATOR,
    "EZ3003": _OPERATOR,
    "EZ9010": _OPERATOR,
    "EZ0501": _OPERATOR,
}
#: Families whose codes say enough: limits of kernels.
_CLEAR = ("E5", "E6", "E9")
#: Codes behind which a missing Python, or a package of it, may hide.
_MAYBE_PYTHON = ("E40001", "E40021")
# For codes that are not in the table; the first matching prefix counts.
_BY_PREFIX = (
    ("E1003", _DYNAMIC),
    ("E1004", _DYNAMIC),
    ("E10", _VALUE),
    ("E12", _FILE),
    ("E13", _FILE),
    ("E19", _FILE),
    ("E14", _COMPILE),
    ("E2", _COMPILE),
    ("E3", _AICPU),
    ("E4", _PYTHON),
    ("E5", _LIMIT),
    ("E6", _LIMIT),
    ("E7", _COMPONENT),
    ("E8", _COMPONENT),
    ("E9", _LIMIT),
    ("EA", _TBE),
    ("EB", _TBE),
    ("EC", _COMPONENT),
    ("EO", _COMPONENT),
    ("EP", _COMPONENT),
    ("EZ", _OPERATOR),
    ("EL", _DRIVER),
    ("EE", _DRIVER),
    ("EH", _DRIVER),
    ("EI", _DRIVER),
    ("EJ", _DRIVER),
    ("EK", _DRIVER),
)
# For output without a code, with only an inner error, or with a code of which only the family is known; the first match
# counts.
_NO_PYTHON = r"ModuleNotFoundError|ImportError|No module named|SyntaxError: |unsupported python|libpython"
_BY_TEXT = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"no space left on device|disk quota exceeded|read-only file system", _DISK),
        (r"MemoryError|std::bad_alloc|cannot allocate memory|out of memory", _MEMORY),
        (r"error while loading shared libraries|cannot open shared object file|undefined symbol", _LIBRARY),
        (r"libascend_hal|drv(Device|Get)\w*|dcmi|driver version|licen[cs]e|/dev/davinci", _DRIVER),
        (_NO_PYTHON, _PYTHON),
        (r"tbe|te_fusion|Traceback \(most recent call last\):\s*\n\s*File ", _COMPILE),
        (r"unknown command line flag|is missing its argument|Non-option parameter", _VALUE),
    )
)
_KILL, _CRASHES = (9,), (4, 6, 7, 8, 11)


class Diagnosis(NamedTuple):
    """A failure: code or None, its message, cause and next step, operators it names."""

    code: Optional[str]
    message: str
    explanation: Explanation
    operators: Tuple[str, ...]


def diagnose(log: str, exit_code: int) -> Diagnosis:
    """Cause and next step of a failed run.

    Parameters
    ----------
    log : str — everything that ATC printed.
    exit_code : int — as `subprocess` gives it: negative for a signal; a shell's 128 + signal is understood too.
    """
    code, message = find_code(log)
    found = [[part for part in parts if part] for parts in _OPERATORS.findall(log)]
    operators = tuple(dict.fromkeys(f"{name} ({kind})" for name, kind in found))
    if code in _MAYBE_PYTHON and re.search(_NO_PYTHON, log):
        return Diagnosis(code, message, _PYTHON, operators)
    if code is not None and not _INNER_CODE.fullmatch(code) and (code in _BY_CODE or code.startswith(_CLEAR)):
        return Diagnosis(code, message, explain(code), operators)
    by_text = next((text for pattern, text in _BY_TEXT if pattern.search(log)), None)
    if by_text is _COMPILE and explain(code) is not _UNKNOWN:
        # The words of the operator compiler say no more than the family of the code.
        by_text = None
    return Diagnosis(code, message, by_text or _by_signal(log, exit_code) or explain(code), operators)


def _by_signal(log: str, exit_code: int) -> Optional[Explanation]:
    number = (
        -exit_code if exit_code < 0 else exit_code - _FIRST_SIGNAL if _FIRST_SIGNAL < exit_code < _ATC_FAILED else 0
    )
    if number in _KILL or re.search(r"^Killed\b", log, re.MULTILINE):
        return _KILLED
    if number in _CRASHES or "Segmentation fault" in log or "core dumped" in log:
        return _CRASHED
    return _STOPPED if number else None


def explain(code: Optional[str]) -> Explanation:
    """Cause and next step for a code; for no code or an inner error, that ATC reports no cause."""
    if code is None or _INNER_CODE.fullmatch(code):
        return _UNKNOWN
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((text for prefix, text in _BY_PREFIX if code.startswith(prefix)), _UNKNOWN)


def find_code(log: str) -> Tuple[Optional[str], str]:
    """The most informative code and its message, else (None, "").

    A limit from an operator's own code comes first, then the first code that is not an inner error, then the first.
    """
    raised = _RAISED.search(log)
    if raised:
        return raised.group(1), raised.group(0).strip(" })(,\n")
    found: List[Tuple[str, str]] = [(m.group(1), m.group(2).strip()) for m in map(_CODE.search, log.splitlines()) if m]
    if not found:
        return None, ""
    return next((entry for entry in found if not _INNER_CODE.fullmatch(entry[0])), found[0])


def name_operators(operators: Tuple[str, ...]) -> str:
    """The first few, for a message."""
    more = len(operators) - _MAX_NAMED
    return ", ".join(operators[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def tail(log: str) -> str:
    """The last non-empty lines of a log."""
    return "\n".join([line for line in log.splitlines() if line.strip()][-_TAIL_LINES:])
