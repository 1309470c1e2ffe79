# SPDX-License-Identifier: Apache-2.0
"""Verdicts and their bookkeeping: each candidate is asked for once, and only so many. Knows nothing of how a search
chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, Tuple

Atoms = FrozenSet[str]


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate.

    Parameters
    ----------
    accepted : bool — the profile is met on every scan.
    score : float — smallest headroom of all limits, as a share of the limit; negative is outside, −inf for an invalid
        one.
    reason : str — the figure that decided, in words.
    invalid : bool — it could not be judged: the compiler refuses it, the run failed, or its results hold NaN.
    """

    accepted: bool
    score: float
    reason: str = ""
    invalid: bool = False


Oracle = Callable[[Atoms], Verdict]
#: Bytes that a set of decisions costs: never negative, 0 for the empty set.
Cost = Callable[[Atoms], float]


class BudgetSpent(Exception):
    """The next candidate would be one too many; the search ends with what it has."""


class Trials:
    """Memory and budget over an oracle.

    A candidate counts once, wherever its verdict comes from (a journal, too), so that a resumed search walks the same
    way.

    Parameters
    ----------
    oracle : callable — atoms → Verdict.
    cost : callable — atoms → bytes.
    budget : int — candidates that may be judged.

    `reserve` of them are kept back: for the runs that say why each kept group is kept.
    """

    def __init__(self, oracle: Oracle, cost: Cost, budget: int) -> None:
        self._oracle = oracle
        self._cost = cost
        self.budget = budget
        self.reserve = 0
        self.verdicts: Dict[Atoms, Verdict] = {}
        self._costs: Dict[Atoms, float] = {}

    @property
    def left(self) -> int:
        return self.budget - len(self.verdicts)

    def judge(self, atoms: Atoms) -> Verdict:
        """The verdict on a candidate; raises BudgetSpent instead of asking for one more than the budget."""
        if atoms not in self.verdicts:
            if self.left <= self.reserve:
                raise BudgetSpent()
            verdict = self._oracle(atoms)
            if verdict.invalid or math.isnan(verdict.score):
                verdict = Verdict(False, -math.inf, verdict.reason, True)
            self.verdicts[atoms] = verdict
        return self.verdicts[atoms]

    def key(self, atoms: Atoms) -> Tuple[float, int]:
        """Order of candidates: the cheaper, then the smaller set."""
        if atoms not in self._costs:
            self._costs[atoms] = float(self._cost(atoms))
        return self._costs[atoms], len(atoms)
