# SPDX-License-Identifier: Apache-2.0
"""What a search leaves behind: keep_dtype.cfg, customize_dtypes.cfg, atc_flags.txt, plan.json, and tune.json with the
reason of every decision.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from export.atc import build_arguments
from export.plans import save_plan
from export.tune.cost import RESULT, SPLIT, keep_of, results_of, splits_of
from export.tune.oracle import plan_of
from export.tune.search import Group, Guarantee, SearchResult
from export.tune.trials import Atoms, Trials, Verdict
from vxm_convert.artifacts.files import remove_earlier, write_text
from vxm_convert.artifacts.names import CUSTOM_DTYPES_NAME, KEEP_DTYPE_NAME
from vxm_convert.model.contract import GraphContract

FLAGS_NAME = "atc_flags.txt"
PLAN_FILE = "plan.json"
JSON_NAME = "tune.json"
PAGE_NAME = "tune.html"
SCHEMA = 1

GUARANTEES = {
    Guarantee.EXACT: "Every cheaper set of the decisions was tried and rejected: by the cost model there is no better "
    "one.",
    Guarantee.EXACT_AMONG: "Every cheaper set of the examined decisions was tried and rejected. A cheaper set that "
    "takes a decision which "
    "was not examined was not ruled out, except for the neighbours of this one.",
    Guarantee.MINIMAL: "1-minimal: every cheaper set that differs by one decision, by an exchange, or by two "
    "decisions less was rejected. "
    "A very different cheaper set was not ruled out.",
    Guarantee.UNFINISHED: "The profile is met, but the trials ended before the set was shown to be minimal: give more "
    "with --max-trials.",
    Guarantee.IMPOSSIBLE: "Every set of the decisions was tried, and none meets the profile.",
    Guarantee.NONE: "No set that was tried meets the profile; the trials ended, or nothing improved it any more.",
}


def clear_old(out: Path) -> None:
    """Remove what an earlier search left, except its journal: a plan must never outlive the search that it came
    from.
    """
    names = (KEEP_DTYPE_NAME, CUSTOM_DTYPES_NAME, FLAGS_NAME, PLAN_FILE, JSON_NAME, PAGE_NAME)
    remove_earlier(out, names, "result of an earlier search")


def write_plan(out: Path, contract: GraphContract, result: SearchResult, reasons: Mapping[str, str]) -> List[str]:
    """The files that a compiler or an export takes; returns ATC's flags."""
    plan = plan_of(result.atoms, contract.precision.mode)
    flags = [
        flag
        for flag in build_arguments(replace(contract, precision=plan))
        if flag.startswith(("--precision_mode", "--keep_dtype", "--customize_dtypes"))
    ]
    write_text(out / KEEP_DTYPE_NAME, "".join(name + "\n" for name in plan.keep_dtype))
    if plan.fp32_results:
        write_text(out / CUSTOM_DTYPES_NAME, "".join(line + "\n" for line in plan.custom_dtypes))
    write_text(out / FLAGS_NAME, "\n".join(flags) + "\n")
    save_plan(out / PLAN_FILE, plan, reasons)
    return flags


def reason_of(without: Verdict, alone: Verdict) -> str:
    """Why a decision is there, in words: what happens without it."""
    if without.invalid:
        return f"without it the candidate cannot be judged: {without.reason}"
    if without.accepted:
        return f"without it the profile is met too, but casts at the borders cost more: {without.reason}"
    return f"without it: {without.reason}" + (f"; with it: {alone.reason}" if alone.reason else "")


def summary(groups: Sequence[Group], result: SearchResult, trials: Trials) -> Dict[str, Any]:
    """The search as data: kept decisions with their reasons, the others with how often they were tried, all
    candidates.
    """
    measured = dict(result.without)
    final = trials.verdicts.get(result.atoms)
    kept = []
    for group in result.kept or ():
        without = measured.get(group.name)
        reason = "not measured: the trials ended" if without is None or final is None else reason_of(without, final)
        alone = trials.key(frozenset(group.atoms))[0]
        kept.append(
            {
                "name": group.name,
                "decisions": list(group.atoms),
                "why": reason,
                "cost_bytes": alone,
                "without": None if without is None else _plain(without),
            }
        )
    return {
        "found": result.kept is not None,
        "guarantee": result.guarantee,
        "guarantee_text": GUARANTEES[result.guarantee],
        "examined": list(result.examined),
        "cost_bytes": trials.key(result.atoms)[0] if result.kept is not None else None,
        "verdict": None if final is None or result.kept is None else _plain(final),
        "kept": kept,
        "not_kept": [_tried(group, trials) for group in groups if not set(group.atoms) & result.atoms],
        "best_try": None if result.kept is not None else _candidate(result.best, trials),
        "candidates": [_candidate(atoms, trials) for atoms in trials.verdicts],
    }


def reasons(data: Mapping[str, Any]) -> Dict[str, str]:
    """Decision → why, for the plan's file."""
    return {
        name.replace(SPLIT, "").replace(RESULT, ""): entry["why"]
        for entry in data["kept"]
        for name in entry["decisions"]
    }


def _tried(group: Group, trials: Trials) -> Dict[str, Any]:
    """How often it was among the kept ones, and what became of those candidates."""
    with_it = [verdict for atoms, verdict in trials.verdicts.items() if set(group.atoms) & atoms]
    best = max(with_it, key=lambda verdict: verdict.score, default=None)
    return {
        "name": group.name,
        "decisions": list(group.atoms),
        "tried": len(with_it),
        "accepted": sum(v.accepted for v in with_it),
        "cost_bytes": trials.key(frozenset(group.atoms))[0],
        "best": None if best is None else _plain(best),
    }


def _candidate(atoms: Atoms, trials: Trials) -> Dict[str, Any]:
    return {
        "keep_dtype": list(keep_of(atoms)),
        "split_weights": list(splits_of(atoms)),
        "fp32_results": list(results_of(atoms)),
        "cost_bytes": trials.key(atoms)[0],
        **_plain(trials.verdicts[atoms]),
    }


def _plain(verdict: Verdict) -> Dict[str, Any]:
    score = verdict.score if math.isfinite(verdict.score) else None
    return {"accepted": verdict.accepted, "score": score, "reason": verdict.reason, "invalid": verdict.invalid}
