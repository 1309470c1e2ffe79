# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of profiles, made from the table of figures; ``profile.schema.json`` beside it is its output, for
editors.
"""

from __future__ import annotations

import math
from typing import Any, Dict

from vxm_convert.profiles.figures import FIGURES, Figure
from vxm_convert.profiles.profile import MAX_TEXT, PROFILE_SCHEMA


def json_schema() -> Dict[str, Any]:
    """Draft-07, which editors and validators of every age understand."""
    figures = {name: _limit(figure) for name, figure in FIGURES.items()}
    section = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"$ref": f"#/definitions/{name}"} for name in FIGURES},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Acceptance profile of a precision report",
        "type": "object",
        "additionalProperties": False,
        "required": ["schema", "name", "limits"],
        "properties": {
            "schema": {"const": PROFILE_SCHEMA, "description": "version of this format"},
            "name": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": "\\S"},
            "description": {"type": "string", "maxLength": MAX_TEXT},
            "limits": {**section, "description": "limits that every compared scan must keep"},
            "cohort": {**section, "description": "limits for the mean of a figure over the compared scans"},
        },
        "definitions": figures,
    }


def _limit(figure: Figure) -> Dict[str, Any]:
    number: Dict[str, Any] = {"type": "number", "description": f"unit: {figure.unit}"}
    if math.isfinite(figure.low):
        number["minimum"] = figure.low
    if math.isfinite(figure.high):
        number["maximum"] = figure.high
    return {
        "description": figure.text,
        "type": "object",
        "additionalProperties": False,
        "required": [figure.key],
        "properties": {
            figure.key: number,
            "optional": {"type": "boolean", "description": "true: a scan without this figure passes"},
        },
    }
