# SPDX-License-Identifier: Apache-2.0
"""Output of ``python -m vxm_convert profiles``: shipped profiles, one profile's limits, the figures that may be
limited.
"""

from __future__ import annotations

import json
import textwrap
from typing import List, Optional, Sequence

from vxm_convert.profiles.limitable_figures import FIGURES
from vxm_convert.profiles.plausible_figures import PLAUSIBLE_FIGURES
from vxm_convert.profiles.profile import DEFAULT_PROFILE, Limit, load_profile, shipped_profiles
from vxm_convert.profiles.schema import json_schema

ACTIONS = ("list", "show", "figures", "schema")


def lines_for(action: str, name: Optional[str]) -> List[str]:
    """The lines of one action; `name` is the profile of ``show`` (the default one without it). Raises as `load_profile`
    does.
    """
    if action == "show":
        return _show(name or DEFAULT_PROFILE)
    if action == "figures":
        head = ("figure", "limit", "unit", "what it measures")
        compared = _table([head] + [(f.name, f.key, f.unit, f.text) for f in FIGURES.values()])
        outputs = _table([head] + [(f.name, f.key, f.unit, f.text) for f in PLAUSIBLE_FIGURES.values()])
        return compared + ["", "section plausible: outputs of every scan, compared or not"] + outputs
    if action == "schema":
        return [json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False)]
    return _list()


def _list() -> List[str]:
    lines = []
    for name in shipped_profiles():
        profile = load_profile(name)
        lines.append(
            f"{name}{' (default)' if name == DEFAULT_PROFILE else ''}: {len(profile.limits)} limits per scan, "
            f"{len(profile.cohort)} for the cohort, {len(profile.plausible)} for outputs before they are written"
        )
        lines += textwrap.wrap(profile.description, 100, initial_indent="    ", subsequent_indent="    ")
    return lines + ["none: no limits; NaN and Inf fail with every profile", "your own file: see docs/precision.md"]


def _show(name: str) -> List[str]:
    profile = load_profile(name)
    lines = [f"{profile.name}: {profile.description}", f"sha256 {profile.sha256}"]
    sections = (
        ("every compared scan", profile.limits),
        ("mean over the compared scans", profile.cohort),
        ("outputs of every scan, before they are written", profile.plausible),
    )
    for title, limits in sections:
        if limits:
            lines += ["", title] + _table([_row(limit) for limit in limits])
    return lines


def _row(limit: Limit) -> Sequence[str]:
    figure = limit.figure
    return (
        figure.name,
        f"{figure.relation} {limit.value:g}",
        figure.unit,
        figure.text + (" (optional)" if limit.optional else ""),
    )


def _table(rows: Sequence[Sequence[str]]) -> List[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + [row[-1]]) for row in rows]
