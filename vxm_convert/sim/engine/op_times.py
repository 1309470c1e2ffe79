# SPDX-License-Identifier: Apache-2.0
"""Seconds of every operator of a compiled model on this machine's CPU, from the engine's own counters.

They are times of the stand-in: they say how the simulator spends its time, and nothing about a device.
"""

from __future__ import annotations

import copy
from typing import Dict, List, Sequence

import numpy as np

from vxm_convert.formats.ge_ir import Op
from vxm_convert.sim.engine import backends
from vxm_convert.sim.engine.lowering.lower import RANDOM, lower
from vxm_convert.sim.engine.rewrites import settings as rewrites

_RUNS = 2


def operator_seconds(ops: Sequence[Op], arrays: List[np.ndarray]) -> Dict[str, float]:
    """Operator of the device → seconds, in the model's order; operators that the engine fused away have no entry.

    Parameters
    ----------
    ops : operators of the compiled model.
    arrays : list of ndarray — the model's inputs.

    Raises
    ------
    ToolchainError
        If the engine counts no times, or the model draws random numbers.
    """
    owners: Dict[str, str] = {}
    settings = rewrites.settings(backends.find_engine().fastest())
    serialized, inputs, _ = lower([copy.copy(op) for op in ops], settings, owners)
    given = [name for name in inputs if not name.startswith(RANDOM)]
    names = sorted((op.name for op in ops if op.data is None), key=len, reverse=True)
    seconds: Dict[str, float] = {}
    for tensors, taken in backends.kernel_times(serialized, given, arrays, _RUNS):
        found = [_operator(owners.get(tensor, ""), names) for tensor in tensors]
        # A fused kernel belongs to its first operator, as the vendor's profiler shows it.
        owner = next((name for name in found if name), "")
        if owner and taken > 0:
            seconds[owner] = seconds.get(owner, 0.0) + taken
    return {op.name: seconds[op.name] for op in ops if op.name in seconds}


def _operator(name: str, names: Sequence[str]) -> str:
    """The operator of the model that a rewritten one (``conv/phase_up``) was made from."""
    return next((known for known in names if name == known or name.startswith(known + "/")), "")
