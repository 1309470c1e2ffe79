# SPDX-License-Identifier: Apache-2.0
"""tune.html: what must stay in fp32 and why, for people. All data come from tune.json; nothing is loaded from
elsewhere.
"""

from __future__ import annotations

from typing import Any, List, Mapping

from vxm_convert.webpage.document import page
from vxm_convert.webpage.elements import Cell, Column, Html, definitions, element, prose, section, verdict_html
from vxm_convert.webpage.tables import table

_MIB = 1 << 20
_SHOWN_CANDIDATES = 500


def build_page(data: Mapping[str, Any]) -> str:
    """The page of one search; `data` as written to tune.json."""
    inputs, toolchain = data["inputs"], data["toolchain"]
    simulated = bool(data["simulated"])
    parts: List[Any] = [
        element("h1", "What must stay in fp32"),
        prose(verdict_html(data["found"], _headline(data))),
        prose(data["guarantee_text"]),
        definitions(
            [
                ("Profile", inputs["profile"]),
                ("Started from", f"{data['start']} ({inputs['mode']})"),
                ("Chip", inputs["soc_version"]),
                ("Scans (n)", str(data["n_samples"])),
                ("Candidates tried", f"{len(data['candidates'])} of at most {data['max_trials']}"),
                ("Cost", _mib(data["cost_bytes"])),
                ("Closest figure", (data["verdict"] or {}).get("reason") or "\u2014"),
            ]
        ),
        _kept(data),
        _flags(data),
        _not_kept(data),
        _candidates(data),
        section(
            "Made from",
            definitions(
                [
                    ("Frozen graph, sha256", inputs["frozen_pb"]),
                    ("Atlas, sha256", inputs["atlas"]),
                    ("Profile, sha256", inputs["profile_sha256"]),
                ]
            ),
        ),
    ]
    return page(
        "vxm_convert: what must stay in fp32",
        simulated,
        parts,
        details=f"{toolchain.get('kind')} {toolchain.get('version')}",
    )


def _headline(data: Mapping[str, Any]) -> str:
    if not data["found"]:
        return "no set of decisions found that meets the profile"
    many = len(data["kept"])
    return (
        "nothing has to be kept: the mode alone meets the profile"
        if not many
        else f"{many} decision{'s' * (many > 1)} meet the profile"
    )


def _kept(data: Mapping[str, Any]) -> Html:
    rows = [[Cell(_decisions(entry)), entry["why"], _cost_cell(entry)] for entry in data["kept"]]
    columns = [Column("decision", "name"), Column("why", "text"), Column("cost alone, MiB")]
    return section(
        "Kept, and why",
        prose(
            "Each reason was measured: the same set without that decision, on all scans. Cost: bytes moved by casts, "
            "by fp32 instead of fp16 "
            "work, and by second convolutions, estimated from the graph.",
            note=True,
        ),
        table(f"decisions of the plan, over n = {data['n_samples']} scans", columns, rows, empty="nothing is kept"),
    )


def _flags(data: Mapping[str, Any]) -> Html:
    if not data["found"]:
        best = data["best_try"]
        chosen = ", ".join(best["keep_dtype"] + best["split_weights"]) or "nothing"
        return section("Best try", prose(f"{best['reason']}, with {chosen} kept"))
    return section(
        "For the compiler",
        element("pre", "\n".join(data["atc_flags"])),
        prose(
            "keep_dtype.cfg stands beside this page, and plan.json for python -m export --plan, which also splits "
            "weights.",
            note=True,
        ),
    )


def _not_kept(data: Mapping[str, Any]) -> Html:
    rows = []
    for entry in data["not_kept"]:
        best = entry["best"]
        told = "never part of a candidate" if best is None else f"best: {best['reason']}"
        rows.append([Cell(_decisions(entry)), entry["tried"], entry["accepted"], _cost_cell(entry), told])
    columns = [
        Column("decision", "name"),
        Column("in candidates"),
        Column("accepted"),
        Column("cost alone, MiB"),
        Column("with it", "text"),
    ]
    return section("Not needed", table("decisions that the plan does without", columns, rows))


def _candidates(data: Mapping[str, Any]) -> Html:
    every = data["candidates"]
    rows = []
    for number, entry in enumerate(every[:_SHOWN_CANDIDATES], 1):
        chosen = [*entry["keep_dtype"], *(f"split weights of {name}" for name in entry["split_weights"])]
        word = "invalid" if entry["invalid"] else "accepted" if entry["accepted"] else "rejected"
        kept = Cell(", ".join(chosen) or "nothing")
        rows.append([str(number), verdict_html(entry["accepted"], word), _cost_cell(entry), entry["reason"], kept])
    more = (
        f"; the first {_SHOWN_CANDIDATES} of {len(every)}, all are in tune.json"
        if len(every) > _SHOWN_CANDIDATES
        else ""
    )
    columns = [
        Column("no."),
        Column("verdict", "text"),
        Column("cost, MiB"),
        Column("closest or worst figure", "text"),
        Column("kept", "name"),
    ]
    return section("Every candidate", table(f"in the order of the search{more}", columns, rows))


def _decisions(entry: Mapping[str, Any]) -> str:
    own = list(entry["decisions"])
    return entry["name"] if own == [entry["name"]] else f"{entry['name']}: {', '.join(own)}"


def _cost_cell(entry: Mapping[str, Any]) -> Cell:
    return Cell(f"{entry['cost_bytes'] / _MIB:.3f}", sort=float(entry["cost_bytes"]))


def _mib(value: Any) -> str:
    return "\u2014" if value is None else f"{value / _MIB:.3f} MiB per run"
