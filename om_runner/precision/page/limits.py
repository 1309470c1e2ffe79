# SPDX-License-Identifier: Apache-2.0
"""The profile's limits beside the worst measured values, and their summary for the top of the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from om_runner.precision.page.quantities import (
    Row,
    cohort_limits_of,
    dig,
    figure,
    limits_of,
    non_finite,
    number,
    share_of_limit,
    shown,
    with_unit,
)
from vxm_convert.webpage.charts import SMALL, chart, mark
from vxm_convert.webpage.colours import FAINT, INK, QUIET, RULE, VERMILION
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, parts

NON_FINITE = "NaN or Inf"
_STRIP_WIDTH, _STRIP_HEIGHT = 250, 22
_STRIP_MARGIN = 8
#: shares of a limit at the ends of a strip, and its ticks
_LOWEST_SHARE, _HIGHEST_SHARE = 0.001, 10.0
_NAMED_SHARES = ((0.001, "0.1\u00a0%"), (0.01, "1\u00a0%"), (0.1, "10\u00a0%"), (1.0, "limit"), (10.0, "10\u00d7"))


@dataclass(frozen=True)
class Judged:
    """One limit over the cohort; `worst` and `subject` are None if no scan has the figure."""

    name: str
    relation: str
    limit: float
    worst: Optional[float]
    subject: Optional[str]
    shares: Tuple[Optional[float], ...]
    n_beyond: int
    n_failed: int
    n_undefined: int

    @property
    def passed(self) -> Optional[bool]:
        """None: no scan has the figure and none failed because of it, so nothing was judged."""
        if self.n_failed == 0 and self.worst is None:
            return None
        return self.n_failed == 0


def judge(report: Mapping[str, Any]) -> List[Judged]:
    """Every limit of the profile over the rows. If rows list their failures, those count; otherwise values beyond the
    limit.
    """
    return [_judge(entry, report.get("rows") or ()) for entry in limits_of(report)]


def _judge(entry: Mapping[str, Any], rows: Sequence[Row]) -> Judged:
    name, relation, limit = str(entry["figure"]), str(entry["relation"]), float(entry["limit"])
    values = [number(row, name) for row in rows]
    known = [(value, str(row.get("subject"))) for value, row in zip(values, rows) if value is not None]
    worst, subject = (max(known) if relation == "<=" else min(known)) if known else (None, None)
    beyond = [value is not None and (value > limit if relation == "<=" else value < limit) for value in values]
    failed = [_fails(row, name, over) for row, over in zip(rows, beyond)]
    shares = tuple(share_of_limit(value, relation, limit, name) for value in values)
    return Judged(name, relation, limit, worst, subject, shares, sum(beyond), sum(failed), len(rows) - len(known))


def _fails(row: Row, name: str, beyond: bool) -> bool:
    listed = row.get("failures")
    return beyond if listed is None else any(dig(failure, "figure") == name for failure in listed)


def failure_words(report: Mapping[str, Any]) -> List[str]:
    """The failures, one sentence per figure, NaN and Inf first; empty if nothing failed."""
    rows = report.get("rows") or ()
    words = []
    bad = [row for row in rows if non_finite(row)]
    if bad:
        outputs = [
            out
            for out in ("moved", "flow")
            if any((number(r, f"{out}.{w}") or 0) for r in bad for w in ("nan_count", "inf_count"))
        ]
        words.append(
            f"{NON_FINITE} in {_scans(len(bad), len(rows))} ({' and '.join(outputs)}), first in "
            f"{bad[0].get('subject')}."
        )
    judged = judge(report)
    words += [_sentence(item, len(rows)) for item in judged if item.n_failed]
    known = {item.name for item in judged}
    others = {
        str(dig(f, "figure")): f
        for row in rows
        for f in row.get("failures") or ()
        if str(dig(f, "figure")) not in known
    }
    for name, failure in others.items():
        n = sum(any(str(dig(f, "figure")) == name for f in row.get("failures") or ()) for row in rows)
        if not (bad and ("nan" in name.lower() or "finite" in name.lower() or "inf" in name.lower().split("_"))):
            words.append(f"{dig(failure, 'text') or figure(name).label}, in {_scans(n, len(rows))}.")
    cohort = dig(report, "cohort.failures") or ()
    return words + [f"Over the cohort: {dig(failure, 'text') or dig(failure, 'figure')}." for failure in cohort]


def _sentence(item: Judged, n: int) -> str:
    label = figure(item.name).label
    limit = with_unit(item.name, item.limit)
    start = label[:1].upper() + label[1:]
    if item.n_beyond:
        side = "above" if item.relation == "<=" else "below"
        missing = item.n_failed - item.n_beyond
        return (
            f"{start}: {with_unit(item.name, item.worst)} in {item.subject}, {side} the limit of {limit}; "
            f"beyond it in {_scans(item.n_beyond, n)}{f', undefined in {missing}' if missing > 0 else ''}."
        )
    return f"{start}: undefined in {_scans(item.n_failed, n)}, which the profile does not allow."


def _scans(n: int, total: int) -> str:
    return f"{n} of {total} scan{'' if total == 1 else 's'}"


def limits_table(report: Mapping[str, Any]) -> Html:
    """Figure, unit, limit, worst value, scan, margin and verdict; one mark per scan on a common scale of shares."""
    rows = report.get("rows") or ()
    judged = judge(report)
    entries = [_non_finite_entry(rows)]
    entries += [_entry(item) for item in judged]
    entries += [_cohort_entry(entry, report) for entry in cohort_limits_of(report)]
    columns = [
        Column("figure", "name"),
        Column("verdict", "text"),
        Column("worst value"),
        Column("limit"),
        Column("unit", "text"),
        Column("margin"),
        Column("worst scan", "name"),
        Column(Html("share of the limit used") + _axis() if judged else "share", "text"),
    ]
    name = dig(report, "profile.name")
    start = f"Limits of profile {name}, worst values" if name else "Limits,"
    return table(f"{start} over n = {len(rows)} scans", columns, entries, sortable=False)


def _non_finite_entry(rows: Sequence[Row]) -> List[Any]:
    bad = [row for row in rows if non_finite(row)]
    n_bad = sum(non_finite(row) for row in rows)
    return [
        f"{NON_FINITE} in moved image or flow",
        parts().verdict(not bad if rows else None),
        Cell(str(n_bad), sort=n_bad),
        "0 allowed",
        "values",
        shown(-n_bad, "+d") if bad else "\u2014",
        str(bad[0].get("subject")) if bad else "\u2014",
        "always fatal, in every profile",
    ]


def _entry(item: Judged) -> List[Any]:
    known = figure(item.name)
    margin = (
        None if item.worst is None else (item.limit - item.worst if item.relation == "<=" else item.worst - item.limit)
    )
    sign = "\u2264" if item.relation == "<=" else "\u2265"
    form = known.form.lstrip("+")
    unit = known.unit or "\u2014"
    label = known.label
    if item.n_undefined:
        label += f" (undefined in {_scans(item.n_undefined, len(item.shares))})"
    words = "not judged" if item.passed is None else None
    return [
        parts().explained(label, item.name),
        parts().verdict(item.passed, words),
        Cell(shown(item.worst, known.form), sort=item.worst),
        f"{sign}\u00a0{shown(item.limit, form)}",
        unit,
        Cell(shown(margin, "+" + form), sort=margin),
        item.subject or "\u2014",
        _strip(item),
    ]


def _cohort_entry(entry: Mapping[str, Any], report: Mapping[str, Any]) -> List[Any]:
    """A limit on the mean over the scans with a defined figure."""
    name, relation, limit = str(entry["figure"]), str(entry["relation"]), float(entry["limit"])
    values = dig(report, "cohort.values")
    value = number({"value": values.get(name)}, "value") if isinstance(values, Mapping) else None
    failed = any(dig(failure, "figure") == name for failure in dig(report, "cohort.failures") or ())
    n = sum(number(row, name) is not None for row in report.get("rows") or ())
    known = figure(name)
    form = known.form.lstrip("+")
    margin = None if value is None else (limit - value if relation == "<=" else value - limit)
    share = share_of_limit(value, relation, limit, name)
    sign = "\u2264" if relation == "<=" else "\u2265"
    return [
        parts().explained(f"mean over n = {n} scans: {known.label}", name),
        parts().verdict(None if value is None and not failed else not failed),
        shown(value, known.form),
        f"{sign}\u00a0{shown(limit, form)}",
        known.unit or "\u2014",
        shown(margin, "+" + form),
        "the cohort",
        "\u2014" if share is None else f"{share:.1%} of the limit",
    ]


def _place(share: float) -> float:
    """Pixel of a share of a limit on its strip; shares beyond the ends are drawn at the ends."""
    held = min(max(share, _LOWEST_SHARE), _HIGHEST_SHARE)
    along = math.log(held / _LOWEST_SHARE) / math.log(_HIGHEST_SHARE / _LOWEST_SHARE)
    return _STRIP_MARGIN + along * (_STRIP_WIDTH - 2 * _STRIP_MARGIN)


def _axis() -> Html:
    with chart(_STRIP_WIDTH, 16) as drawn:
        for share, name in _NAMED_SHARES:
            anchor = {_LOWEST_SHARE: "left", _HIGHEST_SHARE: "right"}.get(share, "center")
            drawn.words(_place(share), 12, name, anchor, SMALL, colour=QUIET)
        return drawn.svg("Scale: 0.1 %, 1 %, 10 %, limit, 10 times the limit")


def _strip(item: Judged) -> Html:
    middle, edge = _STRIP_HEIGHT / 2, _place(1.0)
    known = [share for share in item.shares if share is not None]
    words = "no values" if not known else f"shares of the limit of {len(known)} scans, highest {max(known):.1%}"
    with chart(_STRIP_WIDTH, _STRIP_HEIGHT) as drawn:
        axes = drawn.canvas()
        axes.fill_between([edge, _STRIP_WIDTH], 1, _STRIP_HEIGHT - 1, color=FAINT, linewidth=0)
        axes.vlines([_place(s) for s, _ in _NAMED_SHARES if s != 1.0], 3, _STRIP_HEIGHT - 3, RULE, linewidth=1)
        axes.plot([edge, edge], [0, _STRIP_HEIGHT], color=INK, linewidth=2)
        axes.plot([_STRIP_MARGIN, _STRIP_WIDTH - _STRIP_MARGIN], [middle, middle], color=RULE, linewidth=1)
        # Marks less than a pixel apart look like one: so many scans draw no more than a few hundred.
        for place, beyond in sorted({(round(_place(share)), share > 1) for share in known}):
            mark(axes, "cross" if beyond else "ring", place, middle, VERMILION if beyond else INK, 3.4)
        return drawn.svg(words)
