# SPDX-License-Identifier: Apache-2.0
"""The rungs in order, with the question that each answers and the seconds that it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Sequence, Tuple

from om_runner.device_check import clock, layer_rung, machine, network, operator_rung, small
from om_runner.device_check.climb import Climb
from vxm_convert.device_check.points import Rung
from vxm_convert.errors import ToolchainError


@dataclass(frozen=True)
class Step:
    """One rung: `share` times the seconds that a small rung may take; `short`: whether a short check climbs it."""

    name: str
    question: str
    climb: Callable[[Climb], None]
    short: bool = True
    share: float = 1.0


STEPS: Tuple[Step, ...] = (
    Step("facts", "What is installed, which chip is it, and does pyACL reach it?", machine.facts),
    Step("conv3d", "Does one convolution compute as predicted?", small.conv3d),
    Step("leaky_relu", "Does a convolution with bias and LeakyRelu round as predicted?", small.leaky_relu),
    Step("warp", "Does the warp alone sample as predicted, in fp32 and in fp16?", small.warp),
    Step("gather", "Are gathered rows right beyond what floats can count, and how fast?", small.gather),
    Step("tensorflow", "Does TensorFlow agree with NumPy about the small graphs?", small.tensorflow, False),
    Step("timing", "Do calls overlap, and how fast are copies and executions?", clock.timing),
    Step("steadiness", "Do equal inputs give equal bits?", clock.steadiness),
    Step("network", "Is the error of the whole network that of the simulator?", network.network, False, 4.0),
    Step("layers", "Which layer, if any, differs from the simulator?", layer_rung.layers, False, 4.0),
    Step("operators", "How long does each operator take, beside the estimate?", operator_rung.operators, False, 4.0),
    Step("full_size", "And at the size of real scans?", network.full_size, False, 12.0),
)
BY_NAME: Dict[str, Step] = {step.name: step for step in STEPS}


def chosen(short: bool, only: Sequence[str]) -> List[Step]:
    """The rungs of a check, in order.

    Raises
    ------
    ToolchainError
        For an unknown name in `only`.
    """
    unknown = [name for name in only if name not in BY_NAME]
    if unknown:
        raise ToolchainError(
            f"device-check: no rung {', '.join(unknown)}, there are {', '.join(BY_NAME)}; correct --only"
        )
    if only:
        return [step for step in STEPS if step.name in only]
    return [step for step in STEPS if step.short or not short]


def rung_of(step: Step) -> Rung:
    """The empty record of a rung."""
    return Rung(step.name, step.question)
