# SPDX-License-Identifier: Apache-2.0
"""A graph in three parts: the engine, the loops of `ending`, and the engine again, slab by slab where it can be."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np

from vxm_convert.formats.ge_ir import Desc
from vxm_convert.sim.engine.backends import Engine, Places, Runner
from vxm_convert.sim.engine.ending.find import Ending
from vxm_convert.sim.engine.ending.run import PLANES, EndingRunner
from vxm_convert.sim.engine.ending.slabs import Slabs, in_slabs
from vxm_convert.sim.engine.lowering.lower import lower
from vxm_convert.sim.engine.rewrites.settings import Settings


def run_with_ending(engine: Engine, settings: Settings, ending: Ending) -> Tuple[Runner, List[str]]:
    """The graph in executable form, and the names of its inputs."""
    before, inputs, names = lower(ending.before, settings)
    run_before, run_ending = engine.compile(before, inputs, names), EndingRunner(ending)
    slabs = in_slabs(ending.behind, ending.flow, PLANES)
    run_behind = engine.compile(*lower(slabs.ops if slabs else ending.behind, settings))
    outputs = ending.behind[-1].output_descs
    between = [np.empty(shape, np.float32) for shape in (ending.small, ending.beside)]

    def run(arrays: List[np.ndarray], places: Places) -> List[np.ndarray]:
        small, beside = run_before(arrays, between)
        if slabs:
            results = _results(outputs, places)
            for planes, flow in run_ending.flow(small[0], beside[0]):
                _run_slab(run_behind, slabs, arrays, flow, planes, results)
            return results
        flow = np.empty(ending.flow.output_descs[0].shape, np.float32)
        for volume, source, other in zip(flow, small, beside):
            for planes, part in run_ending.flow(source, other):
                volume[:, planes] = part
        return run_behind([*arrays, flow], places)

    return run, inputs


def _results(outputs: Sequence[Desc], places: Places) -> List[np.ndarray]:
    """The places that have an output's type as the engine computes it, and own memory for the others."""
    results = []
    for desc, place in zip(outputs, places or [None] * len(outputs)):
        dtype = np.dtype("float32" if desc.dtype == "float16" else desc.dtype)
        fits = place is not None and place.dtype == dtype and place.shape == desc.logical_shape
        results.append(place if place is not None and fits else np.empty(desc.logical_shape, dtype))
    return results


def _run_slab(
    run: Runner, slabs: Slabs, arrays: List[np.ndarray], flow: np.ndarray, planes: slice, results: List[np.ndarray]
) -> None:
    parts = [result[:, planes] for result in results]
    inputs = [*arrays, flow[None], *(constant[:, planes] for constant in slabs.constants)]
    for part, made in zip(parts, run(inputs, parts)):
        if not np.may_share_memory(part, made):
            part[...] = made.reshape(part.shape)
