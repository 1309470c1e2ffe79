# SPDX-License-Identifier: Apache-2.0
"""Finds the cheapest set of decisions that an oracle accepts. A set search: no order of the nodes is assumed, and
neither is monotony.

Four steps, each of which only ever replaces an accepted set by a cheaper accepted one:

1. a first accepted set: nothing at all, the seed, the ranked list in doubling steps, everything; then hill climbing by
  score;
2. delta debugging (Zeller and Hildebrandt, *Simplifying and isolating failure-inducing input*, IEEE TSE 28, 2002):
  halves,
   quarters, … and their complements, down to single groups;
3. every cheaper neighbour: one group less or more, one exchanged for another, two less; repeated until none is
  accepted;
4. where few groups are left, every cheaper set in order of cost.

Adding a decision may make a verdict worse, and a set may be accepted although a larger one is not; nothing above relies
on the contrary. `Guarantee` says what the result is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Callable, Dict, FrozenSet, Iterable, Iterator, List, Optional, Sequence, Tuple

from export.tune.trials import Atoms, BudgetSpent, Trials, Verdict

EXACT_GROUPS = 12
_Names = FrozenSet[str]


class Guarantee:
    """What is known about the result."""

    EXACT = "exact"  #: every cheaper set of all groups was rejected
    EXACT_AMONG = "exact among the examined groups"  #: every cheaper set of the examined groups was rejected
    MINIMAL = (
        "1-minimal"  #: each cheaper set that differs by one group, by an exchange or by two groups less was rejected
    )
    UNFINISHED = "unfinished"  #: accepted, but the budget ended before it was 1-minimal
    NONE = "none found"  #: no accepted set among those that were tried
    IMPOSSIBLE = "no set of these decisions is accepted"  #: every one was tried


@dataclass(frozen=True)
class Group:
    """Decisions that are taken together: a name for people and the atoms (decisions) behind it."""

    name: str
    atoms: Tuple[str, ...]


@dataclass(frozen=True)
class SearchResult:
    """The cheapest accepted set that was found.

    Parameters
    ----------
    kept : tuple of Group — None if no set was accepted.
    guarantee : str — one of `Guarantee`.
    examined : tuple of str — groups whose sets were enumerated in step 4.
    without : dict — kept group → verdict on the set without it (absent where the budget had ended).
    best : frozenset — if none was accepted: the atoms with the best score.
    """

    kept: Optional[Tuple[Group, ...]]
    guarantee: str
    examined: Tuple[str, ...] = ()
    without: Tuple[Tuple[str, Verdict], ...] = ()
    best: Atoms = frozenset()

    @property
    def atoms(self) -> Atoms:
        return frozenset(atom for group in self.kept or () for atom in group.atoms)


def search(
    groups: Sequence[Group],
    trials: Trials,
    ranked: Sequence[str] = (),
    seed: Iterable[str] = (),
    exact_groups: int = EXACT_GROUPS,
    thorough: bool = True,
) -> SearchResult:
    """Search over `groups`.

    Parameters
    ----------
    groups : sequence of Group — in graph order: neighbours are tried together.
    trials : Trials — the oracle with its budget.
    ranked : sequence of str — groups by suspicion, the most suspicious first; the others follow in graph order.
    seed : iterable of str — groups to try as the first set.
    exact_groups : int — enumerate all sets if there are at most so many groups, else those of so many of them.
    thorough : bool — False leaves out additions, exchanges and enumeration, for groups that will be split; the result
        is unfinished.
    """
    run = _Run(groups, trials, ranked)
    guarantee = Guarantee.NONE
    examined: Tuple[str, ...] = ()
    try:
        run.find_first(frozenset(seed) & run.all)
        if run.best is not None:
            guarantee = Guarantee.UNFINISHED
            run.minimise()
            run.improve(thorough)
            guarantee = Guarantee.MINIMAL if thorough else guarantee
        chosen = run.examined(exact_groups if thorough else 0)
        if run.enumerate_cheaper(chosen):
            examined = chosen
            # Nothing is cheaper than nothing, however many groups there are.
            whole = len(examined) == len(run.all) or run.best == frozenset()
            guarantee = Guarantee.EXACT if whole else Guarantee.EXACT_AMONG
    except BudgetSpent:
        pass  # what was found stands, with the guarantee that was reached
    if run.best is None:
        scored = max(trials.verdicts, key=lambda atoms: trials.verdicts[atoms].score, default=frozenset())
        return SearchResult(
            None, Guarantee.IMPOSSIBLE if guarantee == Guarantee.EXACT else Guarantee.NONE, examined, best=scored
        )
    return SearchResult(run.ordered(run.best), guarantee, examined, tuple(run.drop_one(run.best)))


def search_levels(
    groups: Sequence[Group],
    trials: Trials,
    split: Callable[[Group], Sequence[Group]],
    ranked: Sequence[str] = (),
    seed: Iterable[str] = (),
    exact_groups: int = EXACT_GROUPS,
) -> SearchResult:
    """`search`, then again with every kept group split into its parts, until nothing can be split; enumeration comes
    last.

    Parameters
    ----------
    split : callable — Group → its parts, in graph order; the group alone where it has none.
    """
    current = list(groups)
    level = search(current, trials, ranked, seed, thorough=False)
    while level.kept:
        kept = frozenset(group.name for group in level.kept)
        parts = [piece for group in current for piece in (split(group) if group.name in kept else [group])]
        start = [piece.name for group in level.kept for piece in split(group)]
        finest = len(parts) == len(current)
        finer = search(parts, trials, start, start, exact_groups, thorough=finest)
        if finer.kept is None:
            return level
        current, level = parts, finer
        if finest:
            return level
    # Nothing was found: the last word belongs to the enumeration.
    return search(current, trials, ranked, seed, exact_groups)


class _Run:
    """State of one search: the groups and the cheapest accepted set so far."""

    def __init__(self, groups: Sequence[Group], trials: Trials, ranked: Sequence[str]) -> None:
        self._groups: Dict[str, Group] = {group.name: group for group in groups}
        self._order = {name: position for position, name in enumerate(self._groups)}
        self._trials = trials
        self.all: _Names = frozenset(self._groups)
        known = [name for name in dict.fromkeys(ranked) if name in self.all]
        self._ranked = known + [name for name in self._groups if name not in known]
        self.best: Optional[_Names] = None

    def ordered(self, names: _Names) -> Tuple[Group, ...]:
        return tuple(self._groups[name] for name in sorted(names, key=self._order.__getitem__))

    def _atoms(self, names: Iterable[str]) -> Atoms:
        return frozenset(atom for name in names for atom in self._groups[name].atoms)

    def _key(self, names: _Names) -> Tuple[float, int, Tuple[int, ...]]:
        """A total order, so that equal inputs give equal searches."""
        return self._trials.key(self._atoms(names)) + (tuple(sorted(self._order[name] for name in names)),)

    def _cheaper(self, names: _Names, than: _Names) -> bool:
        return self._trials.key(self._atoms(names)) < self._trials.key(self._atoms(than))

    def _judge(self, names: _Names) -> Verdict:
        """Ask; an accepted set that is the cheapest so far is remembered."""
        verdict = self._trials.judge(self._atoms(names))
        if verdict.accepted and (self.best is None or self._cheaper(names, self.best)):
            self.best = names
        if self.best is not None:
            unknown = [name for name in self.best if self._atoms(self.best - {name}) not in self._trials.verdicts]
            self._trials.reserve = len(unknown)
        return verdict

    def find_first(self, seed: _Names) -> None:
        """Any accepted set, cheap guesses first."""
        guesses: List[_Names] = [frozenset(), seed]
        size = 1
        while size < len(self._ranked):
            guesses.append(frozenset(self._ranked[:size]))
            size *= 2
        guesses.append(self.all)
        for guess in guesses:
            if self._judge(guess).accepted:
                return
        self._climb(max(guesses, key=lambda names: self._judge(names).score))

    def _climb(self, names: _Names) -> None:
        """Add or take away whatever improves the score most, until a set is accepted or nothing improves it."""
        while True:
            score = self._judge(names).score
            step, step_score = None, score
            for name in self._ranked:
                toggled = names ^ {name}
                verdict = self._judge(toggled)
                if verdict.accepted:
                    return
                if verdict.score > step_score:
                    step, step_score = toggled, verdict.score
            if step is None:
                return
            names = step

    def minimise(self) -> None:
        """Delta debugging from the best set."""
        parts = 2
        names = self.best or frozenset()
        while len(names) >= 2:
            chunks = self._chunks(names, min(parts, len(names)))
            cheaper = (chosen for chosen in self._reductions(names, chunks) if self._cheaper(chosen, names))
            smaller = next((chosen for chosen in cheaper if self._judge(chosen).accepted), None)
            if smaller is not None:
                parts = 2 if len(smaller) <= len(names) // 2 else max(parts - 1, 2)
                names = smaller
            elif parts >= len(names):
                return
            else:
                parts *= 2

    def _reductions(self, names: _Names, chunks: List[_Names]) -> Iterator[_Names]:
        """Each chunk alone, then each complement, the one that saves most first."""
        yield from chunks
        if len(chunks) > 2:
            yield from sorted((names - chunk for chunk in chunks), key=self._key)

    def _chunks(self, names: _Names, count: int) -> List[_Names]:
        listed = sorted(names, key=self._order.__getitem__)
        bounds = [len(listed) * part // count for part in range(count + 1)]
        return [frozenset(listed[a:b]) for a, b in zip(bounds, bounds[1:])]

    def improve(self, thorough: bool) -> None:
        """Take the first accepted cheaper neighbour until there is none."""
        while True:
            best = self.best or frozenset()
            cheaper = [names for names in self._neighbours(best, thorough) if self._cheaper(names, best)]
            for near in sorted(cheaper, key=self._nearest(best)):
                if self._judge(near).accepted:
                    break
            else:
                return

    def _nearest(self, best: _Names) -> Callable[[_Names], Tuple[int, Tuple[float, int, Tuple[int, ...]]]]:
        """Single drops first: they say why a group is kept, whatever the budget still allows."""
        return lambda names: (len(best - names) + 2 * len(names - best), self._key(names))

    def _neighbours(self, best: _Names, thorough: bool) -> Iterator[_Names]:
        """One or two groups less; if thorough also one more, or one exchanged."""
        others = self.all - best if thorough else frozenset()
        for name in best | others:
            yield best ^ {name}
        for name in best:
            for other in others:
                yield best - {name} | {other}
        for pair in combinations(sorted(best), 2):
            yield best - frozenset(pair)

    def examined(self, limit: int) -> Tuple[str, ...]:
        """Groups worth enumerating: all, or those of the best set and then the most suspicious ones."""
        if len(self.all) <= limit:
            return tuple(self._order)
        first = sorted(self.best or (), key=self._ranked.index)
        return tuple((first + [name for name in self._ranked if name not in first])[:limit])

    def enumerate_cheaper(self, examined: Sequence[str]) -> bool:
        """Judge all sets of `examined` that are cheaper than the best one, in order of cost; False where that proves
        nothing.
        """
        if not set(self.best or ()) <= set(examined):
            return False
        sets = [frozenset(chosen) for size in range(len(examined) + 1) for chosen in combinations(examined, size)]
        for names in sorted(sets, key=self._key):
            if self.best is not None and not self._cheaper(names, self.best):
                break
            self._judge(names)
        return True

    def drop_one(self, names: _Names) -> Iterator[Tuple[str, Verdict]]:
        self._trials.reserve = 0
        for group in self.ordered(names):
            try:
                yield group.name, self._trials.judge(self._atoms(names - {group.name}))
            except BudgetSpent:
                continue
