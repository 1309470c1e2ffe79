# SPDX-License-Identifier: Apache-2.0
"""Why the simulated ATC refuses: the E-code of the real one, and our own words for cause and remedy."""
from __future__ import annotations

from typing import Dict

#: code → title of its message; codes and their occasions as the open ATC sources use them, wording ours
TITLES: Dict[str, str] = {
    "E10001": "Value outside the legal set",
    "E10002": "Malformed --input_shape",
    "E10003": "Wrong type of value",
    "E10004": "Empty value",
    "E10005": "Not a boolean",
    "E10006": "Not 0 or 1",
    "E10007": "Framework missing",
    "E10010": "Illegal log level",
    "E10011": "Dimension not positive",
    "E10016": "Node not in graph",
    "E10017": "Node is not an input",
    "E10021": "Output path too long",
    "E10022": "Output path without file name",
    "E10055": "Unsupported combination",
    "E10054": "Required flag missing",
    "E10056": "Flags exclude each other",
    "E10501": "Operator not supported",
    "E13005": "File cannot be parsed",
    "E13010": "Operator without parser",
    "E13026": "Unexpected graph",
    "E20001": "Operator cannot be compiled",
    "E20101": "Unknown soc_version",
    "E19999": "Inner error",
}


class AtcRefusal(Exception):
    """The compiler stops. `code` is an E-code of the real ATC.

    Parameters
    ----------
    code : str — key of `TITLES`.
    message : str — what is wrong, with the offending names and values.
    cause, solution : str — further lines of the error block; empty ones are left out.
    """

    def __init__(self, code: str, message: str, cause: str = "", solution: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.solution = solution
