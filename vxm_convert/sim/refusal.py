# SPDX-License-Identifier: Apache-2.0
"""Refusals of the simulated ATC: the E-code of the real one, and our own words for cause and remedy."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

#: code → title of its message; codes and their use as in the open ATC sources, wording ours
TITLES: Dict[str, str] = {
    "E10001": "Value outside the legal set",
    "E10002": "Malformed --input_shape",
    "E10003": "Wrong type of value",
    "E10004": "Empty value",
    "E10005": "Not a boolean",
    "E10006": "Not 0 or 1",
    "E10007": "Framework missing",
    "E10008": "Weights missing",
    "E10009": "Dynamic flags exclude each other",
    "E10010": "Illegal log level",
    "E10011": "Dimension not positive",
    "E10013": "Number out of range",
    "E10014": "Not a number",
    "E10016": "Node not in graph",
    "E10017": "Node is not an input",
    "E10018": "Dynamic batch at the wrong axis",
    "E10019": "Dynamic image size at the wrong axes",
    "E10020": "Malformed image size",
    "E10021": "Output path too long",
    "E10022": "Output path without file name",
    "E10032": "Malformed JSON",
    "E10035": "Too few profiles",
    "E10036": "Too many profiles",
    "E10037": "Profile not positive",
    "E10039": "Profile repeated",
    "E10040": "No dynamic side",
    "E10041": "Model cannot be loaded",
    "E10045": "Profile of the wrong length",
    "E10054": "Required flag missing",
    "E10055": "Unsupported combination",
    "E10056": "Flags exclude each other",
    "E10501": "Operator not supported",
    "E12013": "Function not found",
    "E13005": "File cannot be parsed",
    "E13010": "Operator without parser",
    "E13026": "Unexpected graph",
    "E20001": "Operator cannot be compiled",
    "E20101": "Unknown soc_version",
    "E20103": "Too many AI cores",
    "E19999": "Inner error",
    "EZ3003": "No engine supports the operator",
}


class AtcRefusal(Exception):
    """The compiler stops. `code` is an E-code of the real ATC.

    Parameters
    ----------
    code : str — key of `TITLES`.
    message : str — the error, with the names and values involved.
    cause, solution : str — further lines of the error block; empty ones are omitted.
    operators : list of (name, type) — the model's operators, if it was refused before they became nodes.
    """

    def __init__(
        self, code: str, message: str, cause: str = "", solution: str = "", operators: Sequence[Tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.solution = solution
        self.operators = list(operators)
