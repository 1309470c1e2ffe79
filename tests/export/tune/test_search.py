# SPDX-License-Identifier: Apache-2.0
"""The set search against brute force: graphs with planted faults on the simulated device, random tables of verdicts,
small budgets.
"""

from __future__ import annotations

import importlib.util
import math
from itertools import combinations
from pathlib import Path
from typing import Callable, Dict, FrozenSet, List

import numpy as np
import pytest

from export.tune.search import Group, Guarantee, search, search_levels
from export.tune.trials import Trials, Verdict
from tests.support.planted import Planted, two_islands, worse_with_more


@pytest.fixture(autouse=True)
def quick_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that starts faster, where it is there: every candidate is compiled and loaded anew."""
    if importlib.util.find_spec("onnxruntime"):
        monkeypatch.setenv("VXM_SIM_ENGINE", "onnxruntime")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Planted]], Planted]:
    """The case that a function of tests/support/planted.py plants; what it was asked once, it knows."""
    made: Dict[Callable[[Path], Planted], Planted] = {}

    def of(make: Callable[[Path], Planted]) -> Planted:
        if make not in made:
            made[make] = make(tmp_path_factory.mktemp("planted"))
        return made[make]

    return of


def names_of(groups: object) -> List[str]:
    return [group.name for group in groups or ()]


@pytest.mark.any_python("the device that answers has tests on both; what is asked of it are sets of names")
@pytest.mark.parametrize(
    "make, answer",
    [
        (two_islands, {"first_up", "first_down", "second_up", "second_down"}),
        (worse_with_more, {"lift_up", "lift_down"}),
    ],
)
def test_the_search_finds_what_brute_force_finds(
    make: Callable[[Path], Planted], answer: FrozenSet[str], planted: Callable[..., Planted]
) -> None:
    case = planted(make)
    best, verdicts = case.brute_force()
    assert best == answer, "the planted fault is not what it should be"
    trials = Trials(case.oracle, case.cost, 200)
    result = search(case.groups, trials)
    assert result.atoms == best and result.guarantee == Guarantee.EXACT
    assert len(trials.verdicts) < len(verdicts)
    assert {name for name, verdict in result.without if not verdict.accepted} == answer
    # Without enumeration, by improvement alone.
    alone = search(case.groups, Trials(case.oracle, case.cost, 200), exact_groups=0)
    assert alone.atoms == best and alone.guarantee == Guarantee.MINIMAL


def test_the_planted_case_is_not_monotone(planted: Callable[..., Planted]) -> None:
    verdicts = planted(worse_with_more).brute_force()[1]
    assert not verdicts[frozenset().union(*verdicts)].accepted
    good = [atoms for atoms in verdicts if verdicts[atoms].accepted]
    assert any(a < b and len(b) == len(a) + 1 and not verdicts[b].accepted for a in good for b in verdicts)


def test_the_answer_is_no_prefix_of_the_graph(planted: Callable[..., Planted]) -> None:
    case = planted(two_islands)
    order = [group.name for group in case.groups]
    result = search(case.groups, Trials(case.oracle, case.cost, 200))
    kept = [order.index(name) for name in names_of(result.kept)]
    assert kept == [1, 2, 4, 5]


@pytest.mark.parametrize("seed", range(25))
def test_any_table_of_verdicts_is_solved_exactly(seed: int) -> None:
    """Verdicts drawn by lot obey no order at all; costs are not additive."""
    rng = np.random.RandomState(seed)
    groups = [Group(f"g{k}", (f"a{k}", f"b{k}")) for k in range(6)]
    every = [
        frozenset(a for g in picked for a in g.atoms) for size in range(7) for picked in combinations(groups, size)
    ]
    accepted = {atoms: bool(rng.rand() < 0.15) for atoms in every}
    costs = {atoms: float(len(atoms) + rng.randint(0, 3)) if atoms else 0.0 for atoms in every}
    trials = Trials(lambda atoms: Verdict(accepted[atoms], float(rng.randn())), costs.__getitem__, 64)
    result = search(groups, trials, ranked=["g3", "gone"], seed=["g5"])
    good = [atoms for atoms in every if accepted[atoms]]
    if not good:
        assert result.kept is None and result.guarantee == Guarantee.IMPOSSIBLE
        return
    best = min((costs[atoms], len(atoms)) for atoms in good)
    assert (costs[result.atoms], len(result.atoms)) == best and result.guarantee == Guarantee.EXACT


def monotone(needed: FrozenSet[str], calls: List[FrozenSet[str]]) -> Callable[[FrozenSet[str]], Verdict]:
    def oracle(atoms: FrozenSet[str]) -> Verdict:
        calls.append(atoms)
        return Verdict(needed <= atoms, float(len(needed & atoms) - len(needed)))

    return oracle


def test_forty_groups_take_few_trials_and_end_one_minimal() -> None:
    calls: List[FrozenSet[str]] = []
    groups = [Group(f"n{k}", (f"n{k}",)) for k in range(40)]
    needed = frozenset(("n7", "n31"))
    result = search(groups, Trials(monotone(needed, calls), len, 300))
    assert result.atoms == needed and result.guarantee == Guarantee.EXACT_AMONG and len(result.examined) == 12
    assert len(calls) == len(set(calls)) < 150


def test_a_good_ranking_is_cheap() -> None:
    calls: List[FrozenSet[str]] = []
    groups = [Group(f"n{k}", (f"n{k}",)) for k in range(40)]
    result = search(groups, Trials(monotone(frozenset(("n31",)), calls), len, 10), ranked=["n31"], seed=["n31"])
    assert result.atoms == {"n31"} and len(calls) == 2


def test_nothing_to_keep_is_one_trial_and_exact() -> None:
    calls: List[FrozenSet[str]] = []
    result = search([Group(f"n{k}", (f"n{k}",)) for k in range(30)], Trials(monotone(frozenset(), calls), len, 100))
    assert result.kept == () and result.guarantee == Guarantee.EXACT and len(calls) == 1


def test_the_budget_is_kept_and_said() -> None:
    groups = [Group(f"n{k}", (f"n{k}",)) for k in range(20)]
    for budget in (1, 2, 5, 8, 13):
        calls: List[FrozenSet[str]] = []
        result = search(groups, Trials(monotone(frozenset(("n4", "n11")), calls), len, budget))
        assert len(calls) <= budget
        assert result.guarantee in (Guarantee.NONE, Guarantee.UNFINISHED)
        assert result.kept is None or result.atoms >= {"n4", "n11"}


def test_an_invalid_candidate_is_a_verdict() -> None:
    """Whatever holds `poison` cannot be judged; NaN counts as invalid even where an oracle forgets to say so."""

    def oracle(atoms: FrozenSet[str]) -> Verdict:
        if "poison" in atoms:
            return Verdict("odd" in atoms, math.nan, "NaN")
        return Verdict("need" in atoms, 0.0)

    groups = [Group(name, (name,)) for name in ("poison", "odd", "need", "rest")]
    trials = Trials(oracle, len, 50)
    result = search(groups, trials)
    assert result.atoms == {"need"} and result.guarantee == Guarantee.EXACT
    assert all(
        not v.accepted and v.invalid and v.score == -math.inf
        for atoms, v in trials.verdicts.items()
        if "poison" in atoms
    )


def test_no_solution_names_the_best_try() -> None:
    groups = [Group(name, (name,)) for name in "abc"]
    result = search(groups, Trials(lambda atoms: Verdict(False, -abs(len(atoms) - 2.0) - ("c" in atoms)), len, 50))
    assert result.kept is None and result.guarantee == Guarantee.IMPOSSIBLE and result.best == {"a", "b"}


def test_levels_split_what_was_kept() -> None:
    calls: List[FrozenSet[str]] = []
    groups = [Group(f"s{k}/*", tuple(f"s{k}/n{j}" for j in range(4))) for k in range(4)]

    def split(group: Group) -> List[Group]:
        return [Group(atom, (atom,)) for atom in group.atoms]

    needed = frozenset(("s1/n2", "s3/n0"))
    result = search_levels(groups, Trials(monotone(needed, calls), len, 200), split)
    assert result.atoms == needed and names_of(result.kept) == ["s1/n2", "s3/n0"]
    assert len(calls) == len(set(calls))


def test_equal_inputs_give_equal_searches() -> None:
    first: List[FrozenSet[str]] = []
    second: List[FrozenSet[str]] = []
    for calls in (first, second):
        search(
            [Group(f"n{k}", (f"n{k}",)) for k in range(15)],
            Trials(monotone(frozenset(("n2", "n9", "n12")), calls), len, 60),
        )
    assert first == second


@pytest.mark.parametrize("budget", [8, 12, 20])
def test_trials_are_kept_back_for_the_reasons(budget: int) -> None:
    """However early the budget ends, each kept group has been left out once."""
    calls: List[FrozenSet[str]] = []
    groups = [Group(f"n{i}", (f"n{i}",)) for i in range(16)]
    needed = frozenset(("n2", "n5", "n11"))
    result = search(groups, Trials(monotone(needed, calls), len, budget), ["n2", "n5", "n11", "n4"])
    assert len(calls) <= budget
    assert {name for name, _ in result.without} == set(names_of(result.kept)) >= needed
