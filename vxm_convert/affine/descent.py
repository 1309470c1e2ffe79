# SPDX-License-Identifier: Apache-2.0
"""Minima of functions of a few parameters by their derivatives (BFGS). Knows nothing of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple

import numpy as np

#: of the parameters: value and derivatives
Function = Callable[[np.ndarray], Tuple[float, np.ndarray]]
_MOST_STEPS, _MOST_HALVINGS = 100, 12
#: Armijo's share of the decrease that the slope promises
_ENOUGH = 1e-4


@dataclass(frozen=True)
class End:
    """Where a descent ended.

    Parameters
    ----------
    inverse : ndarray — its estimate of the inverse Hessian.
    """

    at: np.ndarray
    value: float
    inverse: np.ndarray
    steps: int


def descended(function: Function, start: np.ndarray, longest: float, shortest: float) -> End:
    """The minimum that is downhill from `start`: no step is longer than `longest`, each is halved until it leads down;
    one shorter than `shortest` is the last.
    """
    at = np.array(start, dtype=np.float64)
    value, slope = function(at)
    # Nothing is known of the curvature: half the longest step downhill.
    first = np.eye(len(at)) * (0.5 * longest / max(float(np.linalg.norm(slope)), 1e-12))
    inverse, steps = first, 0
    while steps < _MOST_STEPS:
        steps += 1
        step = _bounded(-inverse @ slope, longest)
        for _ in range(_MOST_HALVINGS):
            reached, there = function(at + step)
            if reached <= value + _ENOUGH * float(step @ slope):
                break
            step = 0.5 * step
        else:
            break
        inverse = _learnt(inverse, step, there - slope)
        at, value, slope = at + step, reached, there
        if np.linalg.norm(step) < shortest:
            break
    return End(at, value, inverse, steps)


def settled(function: Function, end: End, longest: float, shortest: float) -> End:
    """The zero of the derivatives near the end of a descent, whatever the values do; that end itself if none is reached.

    The derivatives of a sampled image are those of a smoother one, so the two do not agree to the last digit.
    """
    at, inverse = end.at, end.inverse
    value, slope = function(at)
    for steps in range(1, _MOST_STEPS):
        step = _bounded(-inverse @ slope, longest)
        at = at + step
        value, there = function(at)
        if np.linalg.norm(step) < shortest:
            return End(at, value, inverse, end.steps + steps)
        inverse, slope = _learnt(inverse, step, there - slope), there
    return end


def _bounded(step: np.ndarray, longest: float) -> np.ndarray:
    return step * min(1.0, longest / max(float(np.linalg.norm(step)), 1e-12))


def _learnt(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The inverse Hessian with what a step showed of it; it stays positive definite."""
    along = float(step @ change)
    if along <= 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / along
    return left @ inverse @ left.T + np.outer(step, step) / along
