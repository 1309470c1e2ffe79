# SPDX-License-Identifier: Apache-2.0
"""Verdicts as JUnit XML, the format that Jenkins, GitLab and others display: one test case per subject and figure."""

from __future__ import annotations

import re
from typing import Mapping, Sequence, Tuple
from xml.etree import ElementTree

from om_runner.precision.acceptance import Check, Judgement

#: characters that XML 1.0 cannot represent
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COHORT = "cohort"


def junit_xml(
    suite: str, judged: Sequence[Tuple[str, Judgement, float]], cohort: Judgement, properties: Mapping[str, str]
) -> bytes:
    """The file's bytes.

    Parameters
    ----------
    suite : str — its name.
    judged : sequence of (subject, judgement, seconds) — one class of cases each.
    cohort : Judgement — a separate class, omitted without checks.
    properties : mapping — shown with the suite.
    """
    classes = [(f"subject.{subject}", judgement, seconds) for subject, judgement, seconds in judged]
    if cohort.checks:
        classes.append((COHORT, cohort, 0.0))
    checks = [check for _, judgement, _ in classes for check in judgement.checks]
    counts = {
        "tests": str(len(checks)),
        "failures": str(sum(check.failure is not None for check in checks)),
        "errors": "0",
        "skipped": str(sum(bool(check.skipped) for check in checks)),
        "time": f"{sum(seconds for _, _, seconds in classes):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": printable(suite), **counts})
    node = ElementTree.SubElement(root, "testsuite", {"name": printable(suite), **counts})
    listed = ElementTree.SubElement(node, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(listed, "property", {"name": printable(name), "value": printable(value)})
    for class_name, judgement, seconds in classes:
        for at, check in enumerate(judgement.checks):
            _case(node, class_name, check, seconds if at == 0 else 0.0)
    return bytes(
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        + ElementTree.tostring(root, encoding="utf-8").split(b"?>\n", 1)[-1]
        + b"\n"
    )


def printable(text: str) -> str:
    r"""Text for XML: control characters, lone surrogates and similar become ``\x01``, ``\ud800``."""
    return _ILLEGAL.sub(lambda found: _escaped(ord(found.group())), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _case(node: ElementTree.Element, class_name: str, check: Check, seconds: float) -> None:
    attributes = {"classname": printable(class_name), "name": check.figure, "time": f"{seconds:.3f}"}
    case = ElementTree.SubElement(node, "testcase", attributes)
    if check.failure is not None:
        text = printable(check.failure.text)
        ElementTree.SubElement(case, "failure", {"message": text, "type": "PrecisionError"}).text = text
    elif check.skipped:
        ElementTree.SubElement(case, "skipped", {"message": printable(check.skipped)})
