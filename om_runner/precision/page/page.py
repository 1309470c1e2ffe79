# SPDX-License-Identifier: Apache-2.0
"""The order of the page: verdict first, then its basis. Every figure on it is in report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from om_runner.precision.page import provenance
from om_runner.precision.page.charts import Drawing, distribution_charts
from om_runner.precision.page.gallery import TEMPLATES, Slices, gallery_section
from om_runner.precision.page.layers import layers_chart, sources_table
from om_runner.precision.page.limits import failure_words, judge, limits_table
from om_runner.precision.page.quantities import (
    Row,
    cohort_limits_of,
    dig,
    figure,
    limits_of,
    mapping_at,
    number,
    shown,
    worst_first,
)
from om_runner.precision.page.scan_tables import cohort_table, details_tables
from om_runner.precision.page.structures import dice_chart, largest_change_words
from vxm_convert.webpage.document import page
from vxm_convert.webpage.templates import badge_word

_STYLE = Path(__file__).with_name("static") / "report.css"
#: figure, worst value: the largest (max), the lowest (min), or the largest magnitude (size)
_TILES: Tuple[Tuple[str, str, str], ...] = (
    ("moved.max_abs", "max", "largest error of the moved image"),
    ("epe_voxel.p999", "max", "end-point error of the flow, p99.9"),
    ("dice.change", "size", "change of the mean Dice"),
    ("folding.change", "size", "change of folding"),
)


def build_page(
    report: Mapping[str, Any],
    pictures: Optional[Mapping[str, Slices]] = None,
    orientation: str = "LIA",
    report_sha256: Optional[str] = None,
) -> str:
    """The page of a report.

    Parameters
    ----------
    report : mapping — as written to report.json: undefined figures are None, entries of newer versions may be missing.
    pictures : mapping — subject → slices, from `Gallery.kept`.
    orientation : str — axis letters of the network grid.
    report_sha256 : str — hash of the report.json beside the page.
    """
    simulated = bool(report.get("simulated"))
    rows = list(worst_first(report.get("rows") or (), limits_of(report)))
    noted = f"n = {len(rows)} scan{'' if len(rows) == 1 else 's'} compared with TensorFlow"
    passed, word = _state(report)
    dice = dice_chart(report, rows)
    context: Dict[str, Any] = {
        "n": len(rows),
        "n_run": report.get("n_run"),
        "passed": passed,
        "word": word,
        "against": _against(report),
        "failures": failure_words(report) if passed is False else [],
        "tiles": _tiles(rows, limits_of(report)) if rows else [],
        "has_limits": bool(judge(report)),
        "profile_name": dig(report, "profile.name"),
        "profile_description": dig(report, "profile.description"),
        "criterion": report.get("criterion") or "",
        "schema": report.get("schema"),
        "limits": limits_table(report),
        "cohort": cohort_table(report, rows, noted),
        "distributions": distribution_charts(report, rows),
        "dice": dice if isinstance(dice, Drawing) else None,
        "no_dice": dice,
        "largest_change": largest_change_words(rows),
        "layers": layers_chart(report),
        "sources": sources_table(report),
        "plan": provenance.plan(report),
        "gallery": gallery_section(pictures or {}, rows, simulated, orientation),
        "details_tables": details_tables(report, rows, noted),
        "chain": provenance.chain(report, report_sha256),
        "facts": provenance.facts(report),
    }
    title = f"{badge_word(simulated)}: precision of the offline model, {word}"
    return page(TEMPLATES / "report.html", title, simulated, _versions(report), [_STYLE], **context)


def _state(report: Mapping[str, Any]) -> Tuple[Optional[bool], str]:
    if not report.get("rows"):
        return None, "not judged"
    return (False, "failed") if report.get("verdict") == "failed" else (True, "passed")


def _against(report: Mapping[str, Any]) -> str:
    """The criterion of the verdict."""
    profile = report.get("profile")
    name = profile.get("name") if isinstance(profile, Mapping) else None
    if not name:
        return "only NaN and Inf, no profile applied"
    only = "" if limits_of(report) or cohort_limits_of(report) else ", which judges only NaN and Inf"
    return f"profile {name}{only}"


def _versions(report: Mapping[str, Any]) -> str:
    toolchain = mapping_at(report, "toolchain")
    reference = mapping_at(report, "reference")
    parts = [f"{toolchain.get('kind') or 'toolchain'} {toolchain.get('version') or ''}".strip()]
    if reference.get("tensorflow"):
        parts.append(f"reference: TensorFlow {reference['tensorflow']}")
    return "; ".join(parts) + "."


def _tiles(rows: List[Row], limits: Sequence[Mapping[str, Any]]) -> List[Dict[str, str]]:
    """The key figures: name, value, unit, and basis."""
    by_name = {str(entry["figure"]): entry for entry in limits}
    tiles = []
    for name, kind, words in _TILES:
        given = [(number(row, name), str(row.get("subject"))) for row in rows]
        known = [(value, subject) for value, subject in given if value is not None]
        if not known:
            tiles.append({"words": words, "value": shown(None), "unit": "", "below": "no scan has it"})
            continue
        spec = figure(name)
        value, subject = max(known, key=lambda pair: abs(pair[0]) if kind == "size" else pair[0])
        unit = {"intensity 0..1": "of 1", "Dice": "", "share of voxels": "of voxels"}.get(spec.unit, spec.unit)
        entry = by_name.get(name)
        limit = f"; limit {shown(entry['limit'], spec.form.lstrip('+'))}" if entry else ""
        below = f"worst of n = {len(known)}: {subject}{limit}"
        tiles.append({"words": words, "value": shown(value, spec.form), "unit": unit, "below": below})
    return tiles
