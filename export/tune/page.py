# SPDX-License-Identifier: Apache-2.0
"""tune.html: what must stay in fp32 and why, for people. All data come from tune.json; nothing is loaded from
elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional

from export.tune.cost import RESULT, SPLIT, words_of
from vxm_convert.webpage.document import page
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, parts

_TEMPLATE = Path(__file__).with_name("templates") / "tune.html"
_MIB = 1 << 20
_SHOWN_CANDIDATES = 500


def build_page(data: Mapping[str, Any]) -> str:
    """The page of one search; `data` as written to tune.json."""
    inputs, toolchain = data["inputs"], data["toolchain"]
    context = {
        "found": data["found"],
        "headline": _headline(data),
        "guarantee": data["guarantee_text"],
        "facts": [
            ("Profile", inputs["profile"]),
            ("Started from", f"{data['start']} ({inputs['mode']})"),
            ("Chip", inputs["soc_version"]),
            ("Scans (n)", data["n_samples"]),
            ("Candidates tried", f"{len(data['candidates'])} of at most {data['max_trials']}"),
            ("Cost", _mib(data["cost_bytes"])),
            ("Closest figure", (data["verdict"] or {}).get("reason") or "\u2014"),
        ],
        "kept": _kept(data),
        "flags": data["atc_flags"] if data["found"] else [],
        "best_try": None if data["found"] else _best_try(data["best_try"]),
        "not_kept": _not_kept(data),
        "candidates": _candidates(data),
        "made_from": [
            ("Frozen graph, sha256", inputs["frozen_pb"]),
            ("Atlas, sha256", inputs["atlas"]),
            ("Profile, sha256", inputs["profile_sha256"]),
        ],
    }
    versions = f"{toolchain.get('kind')} {toolchain.get('version')}"
    return page(_TEMPLATE, "vxm_convert: what must stay in fp32", bool(data["simulated"]), versions, **context)


def _headline(data: Mapping[str, Any]) -> str:
    if not data["found"]:
        return "no set of decisions found that meets the profile"
    many = len(data["kept"])
    return (
        "nothing has to be kept: the mode alone meets the profile"
        if not many
        else f"{many} decision{' meets' if many == 1 else 's meet'} the profile"
    )


def _kept(data: Mapping[str, Any]) -> Html:
    rows = [[Cell(_decisions(entry)), entry["why"], _cost_cell(entry)] for entry in data["kept"]]
    columns = [Column("decision", "name"), Column("why", "text"), Column("cost alone, MiB")]
    caption = f"decisions of the plan, over n = {data['n_samples']} scans"
    return table(caption, columns, rows, empty="nothing is kept")


def _best_try(best: Mapping[str, Any]) -> str:
    return f"{best['reason']}, with {', '.join(best['keep_dtype'] + best['fp32_results'] + best['split_weights']) or 'nothing'} kept"


def _not_kept(data: Mapping[str, Any]) -> Html:
    rows = []
    for entry in data["not_kept"]:
        best = entry["best"]
        words = "never part of a candidate" if best is None else f"best: {best['reason']}"
        rows.append([Cell(_decisions(entry)), entry["tried"], entry["accepted"], _cost_cell(entry), words])
    columns = [
        Column("decision", "name"),
        Column("in candidates"),
        Column("accepted"),
        Column("cost alone, MiB"),
        Column("with it", "text"),
    ]
    return table("decisions that the plan does without", columns, rows)


def _candidates(data: Mapping[str, Any]) -> Html:
    every = data["candidates"]
    rows = []
    for number, entry in enumerate(every[:_SHOWN_CANDIDATES], 1):
        chosen = [
            *entry["keep_dtype"],
            *(words_of(RESULT + name) for name in entry["fp32_results"]),
            *(words_of(SPLIT + name) for name in entry["split_weights"]),
        ]
        word = "invalid" if entry["invalid"] else "accepted" if entry["accepted"] else "rejected"
        kept = Cell(", ".join(chosen) or "nothing")
        rows.append([str(number), parts().verdict(entry["accepted"], word), _cost_cell(entry), entry["reason"], kept])
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
    return table(f"in the order of the search{more}", columns, rows)


def _decisions(entry: Mapping[str, Any]) -> str:
    own = list(entry["decisions"])
    return str(entry["name"]) if own == [entry["name"]] else f"{entry['name']}: {', '.join(own)}"


def _cost_cell(entry: Mapping[str, Any]) -> Cell:
    return Cell(f"{entry['cost_bytes'] / _MIB:.3f}", sort=float(entry["cost_bytes"]))


def _mib(value: Optional[float]) -> str:
    return "\u2014" if value is None else f"{value / _MIB:.3f} MiB per run"
