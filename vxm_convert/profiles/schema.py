# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of profiles, made from the table of figures; ``profile.schema.json`` beside it is its output, for
editors.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping

from vxm_convert.profiles.limitable_figures import FIGURES, Figure
from vxm_convert.profiles.plausible_figures import PLAUSIBLE_FIGURES
from vxm_convert.profiles.profile import MAX_TEXT, PROFILE_SCHEMA


def json_schema() -> Dict[str, Any]:
    """Draft-07, which old and new editors and validators understand."""
    section = {"$ref": "#/definitions/figures"}
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
            "limits": {**section, "description": "limits for every compared scan"},
            "cohort": {**section, "description": "limits for the mean of a figure over the compared scans"},
            "plausible": {
                "$ref": "#/definitions/outputs",
                "description": "limits that the outputs of every scan must keep before they are written",
            },
        },
        "definitions": {
            "figures": _section(FIGURES),
            "outputs": _section(PLAUSIBLE_FIGURES),
            **{_kind(figure): _limit(figure) for figure in [*FIGURES.values(), *PLAUSIBLE_FIGURES.values()]},
        },
    }


def _section(figures: Mapping[str, Figure]) -> Dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            # Validators ignore entries beside a reference, editors show them.
            name: {"$ref": f"#/definitions/{_kind(figure)}", "description": f"{figure.text} ({figure.unit})"}
            for name, figure in figures.items()
        },
    }


def _kind(figure: Figure) -> str:
    """Name of the definition that the figure's limit shares with others: its key and range."""
    return f"{figure.key}_{figure.low:g}_{figure.high:g}"


def _limit(figure: Figure) -> Dict[str, Any]:
    number: Dict[str, Any] = {"type": "number"}
    if math.isfinite(figure.low):
        number["minimum"] = figure.low
    if math.isfinite(figure.high):
        number["maximum"] = figure.high
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [figure.key],
        "properties": {
            figure.key: number,
            "optional": {"type": "boolean", "description": "true: a scan without this figure passes"},
        },
    }
