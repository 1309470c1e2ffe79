# SPDX-License-Identifier: Apache-2.0
"""What an archive says about our assumptions: which of them each difference touches, and where to correct it."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

from vxm_convert.device_check.archive import read_archive
from vxm_convert.device_check.assumptions import BY_KEY
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, MEASURED, Point, count, sentence_of


def lines_of(path: Path) -> List[str]:
    """The lines that ``device-check --compare`` prints.

    Raises
    ------
    ArtifactError, FormatError
        See `read_archive`.
    """
    data, rungs = read_archive(path)
    word = "SIMULATED: no Ascend device took part" if data.get("simulated") is not False else "REAL device"
    toolchain = data.get("toolchain")
    version = toolchain.get("version") if isinstance(toolchain, dict) else "?"
    lines = [f"{word}; toolchain {version}, chip {data.get('soc_version', '?')}"]
    lines.append(", ".join(f"{number} {state}" for state, number in count(rungs).items()))
    touched: Dict[str, List[Point]] = {}
    for rung in rungs:
        for point in rung.points:
            if point.state in (DIFFERS, FAILED):
                touched.setdefault(point.assumption if point.assumption in BY_KEY else "", []).append(point)
    for key, points in touched.items():
        lines += [""] + _heading(key) + [f"  - {sentence_of(point)}" for point in points]
    if not touched:
        lines.append("no assumption is touched")
    confirmed = {p.assumption for rung in rungs for p in rung.points if p.state == AS_PREDICTED} - set(touched)
    untested = [key for key in BY_KEY if key not in confirmed and key not in touched]
    if untested:
        lines += ["", f"not tested by this check: {', '.join(untested)}"]
    figures = [point for rung in rungs for point in rung.points if point.state == MEASURED]
    return lines + ([""] + [f"measured: {point.name}: {point.found}" for point in figures] if figures else [])


def _heading(key: str) -> List[str]:
    if not key:
        return ["touches no assumption about the device, but the installation or the run:"]
    entry = BY_KEY[key]
    return [f"assumption {key}: {entry.text} ({entry.basis})", f"  stated in {entry.stated}; correct {entry.corrected}"]
