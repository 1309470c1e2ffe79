# SPDX-License-Identifier: Apache-2.0
"""The order of the page: verdict first, then what it rests on. Every figure on it stands in report.json."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple

from om_runner.precision.page.charts import dice_section, distributions_section
from om_runner.precision.page.figures import Row, cohort_limits_of, figure, limits_of, number, shown, worst_first
from om_runner.precision.page.gallery import Slices, gallery_section
from om_runner.precision.page.layers import layers_section
from om_runner.precision.page.limits import failure_words, limits_section
from om_runner.precision.page.provenance import plan_section, provenance_section
from om_runner.precision.page.style import REPORT_STYLE
from om_runner.precision.page.tables import cohort_section, details_section
from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import Html, badge_html, badge_word, element, join, prose

#: figure, what counts as worst: the largest (max), the lowest (min), or the largest in size (size)
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
    report : mapping — as written to report.json: undefined figures are None, entries of newer versions may be absent.
    pictures : mapping — subject → slices, as `Gallery.kept` gives them.
    orientation : str — axis letters of the network grid.
    report_sha256 : str — hash of the report.json beside the page.
    """
    simulated = bool(report.get("simulated"))
    rows = list(worst_first(report.get("rows") or (), limits_of(report)))
    noted = f"n = {len(rows)} scan{'' if len(rows) == 1 else 's'} compared with TensorFlow"
    parts: List[Html] = [
        _head(report, rows),
        limits_section(report),
        cohort_section(report, rows, noted),
        distributions_section(report, rows, simulated),
        dice_section(report, rows, simulated),
        layers_section(report, simulated),
        plan_section(report),
        gallery_section(pictures or {}, rows, simulated, orientation),
        details_section(report, rows, noted),
        provenance_section(report, report_sha256),
        _foot(report, simulated),
    ]
    title = f"{badge_word(simulated)}: precision of the offline model, {_state(report)[1]}"
    return page(title, simulated, [part for part in parts if part], details=_versions(report), style=REPORT_STYLE)


def _state(report: Mapping[str, Any]) -> Tuple[Optional[bool], str]:
    if not report.get("rows"):
        return None, "not judged"
    return (False, "failed") if report.get("verdict") == "failed" else (True, "passed")


def _versions(report: Mapping[str, Any]) -> str:
    toolchain = report.get("toolchain") if isinstance(report.get("toolchain"), Mapping) else {}
    reference = report.get("reference") if isinstance(report.get("reference"), Mapping) else {}
    parts = [f"{toolchain.get('kind') or 'toolchain'} {toolchain.get('version') or ''}".strip()]
    if reference.get("tensorflow"):
        parts.append(f"reference: TensorFlow {reference['tensorflow']}")
    return "; ".join(parts) + "."


def _head(report: Mapping[str, Any], rows: List[Row]) -> Html:
    """The verdict with the profile's name, what failed in words, what it rests on, and the few figures to remember."""
    passed, word = _state(report)
    profile = report.get("profile")
    name = profile.get("name") if isinstance(profile, Mapping) else None
    against = f"profile {name}" if name else "NaN and Inf only, no profile applied"
    if name and not limits_of(report) and not cohort_limits_of(report):
        against += ", which judges NaN and Inf only"
    sign = {True: "\u2713", False: "\u2715", None: "\u2013"}[passed]
    heading = element(
        "h1",
        element("span", sign, aria_hidden="true"),
        " ",
        word[:1].upper() + word[1:],
        ": ",
        element("span", against, class_="against"),
        class_=f"verdict {word.split()[-1]}",
    )
    total = report.get("n_run")
    basis = prose(
        element("strong", f"{len(rows)} of {total}"),
        f" scan{'' if total == 1 else 's'} that went through the offline model "
        f"{'was' if len(rows) == 1 else 'were'} compared with TensorFlow (n = {len(rows)}).",
        class_="basis",
    )
    words = failure_words(report)
    failed = (
        element(
            "div",
            element("p", "What failed:"),
            element("ul", *(element("li", sentence) for sentence in words)),
            class_="what-failed",
        )
        if words and passed is False
        else Html("")
    )
    return element("section", heading, failed, basis, _tiles(rows, limits_of(report)) if rows else "", id="verdict")


def _tiles(rows: List[Row], limits: Any) -> Html:
    by_name = {str(entry["figure"]): entry for entry in limits}
    tiles = []
    for name, kind, words in _TILES:
        known = [(number(row, name), str(row.get("subject"))) for row in rows if number(row, name) is not None]
        spec = figure(name)
        if not known:
            tiles.append(_tile(words, shown(None), "", "no scan has it"))
            continue
        value, subject = max(known, key=(lambda pair: abs(pair[0])) if kind == "size" else (lambda pair: pair[0]))
        unit = {"voxel": "voxel", "intensity 0..1": "of 1", "Dice": "", "share of voxels": "of voxels"}.get(
            spec.unit, spec.unit
        )
        entry = by_name.get(name)
        limit = f"; limit {shown(entry['limit'], spec.form.lstrip('+'))}" if entry else ""
        tiles.append(_tile(words, shown(value, spec.form), unit, f"worst of n = {len(known)}: {subject}{limit}"))
    return element("dl", *tiles, class_="tiles")


def _tile(words: str, value: str, unit: str, below: str) -> Html:
    return element(
        "div",
        element("dt", words),
        element("dd", element("strong", value), f" {unit}" if unit else "", class_="value"),
        element("dd", below, class_="note"),
    )


def _foot(report: Mapping[str, Any], simulated: bool) -> Html:
    words = (
        f" Rests on n = {len(report.get('rows') or ())} of {report.get('n_run')} scans that went through the model. "
        "All figures in "
        f"float64; report.json (schema {report.get('schema')}) and report.csv beside this page hold them all."
    )
    return element("p", join([badge_html(simulated, small=True), words]), class_="note foot")
