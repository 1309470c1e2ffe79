# SPDX-License-Identifier: Apache-2.0
"""Signs that a training goes wrong although its loss is finite. Only judges; the loop logs the warnings."""

from __future__ import annotations

from typing import Any, Dict, List

#: mean absolute displacement, voxels: an untrained network starts near 1e-5, a working one is above this after some
#: steps
FLAT_FLOW = 1e-3
_FLAT_AFTER_STEPS = 100
#: share of folded voxels that is worth a warning, and its growth from epoch to epoch
_FOLDED = 0.01
_GROWTH = 1.5
#: share of steps; the published run on a 910 lost 4.5 %
_SKIPPED = 0.1


class Watch:
    """Judges every epoch; `state` goes into checkpoints, so that a resumed run gives the same warnings as an
    uninterrupted one.

    Parameters
    ----------
    state : dict — of an earlier Watch, or empty.
    """

    def __init__(self, state: Dict[str, Any]) -> None:
        self._folded = float(state.get("folded", 0.0))

    @property
    def state(self) -> Dict[str, Any]:
        return {"folded": self._folded}

    def close_epoch(self, steps_done: int, displacement: float, folded: float) -> List[str]:
        """Warnings.

        Parameters
        ----------
        steps_done : int — since the run began.
        displacement : float — mean absolute displacement of the last step, voxels.
        folded : float — share of voxels whose Jacobian is not positive, of the last step's first pair.
        """
        warnings = []
        if steps_done >= _FLAT_AFTER_STEPS and displacement < FLAT_FLOW:
            warnings.append(
                f"the flow stays near zero: {displacement:.2g} voxels on average after {steps_done} steps, expected "
                f"above {FLAT_FLOW:g}; lower --lambda, raise --lr, or check that the scans differ from the atlas"
            )
        if folded > _FOLDED and folded > _GROWTH * self._folded:
            warnings.append(
                f"folding grows: {100 * folded:.1f} % of the voxels, {100 * self._folded:.1f} % an epoch ago; raise "
                "--lambda or lower --lr"
            )
        self._folded = folded
        return warnings


def scaling_warnings(scale: float, skipped: int, steps: int) -> List[str]:
    """Warnings from the loss scaling of an epoch.

    Parameters
    ----------
    scale : float — at the end of the epoch.
    skipped, steps : int — steps whose gradients overflowed, and all of them.
    """
    warnings = []
    if scale <= 1:
        warnings.append(
            "the loss scale has fallen to 1: gradients overflow without scaling; check the scans, or lower --lr"
        )
    if skipped > _SKIPPED * steps:
        advice = "lower --loss-scale-value, or pass --loss-scale exponential"
        warnings.append(f"{skipped} of {steps} steps overflowed and changed nothing; {advice}")
    return warnings
