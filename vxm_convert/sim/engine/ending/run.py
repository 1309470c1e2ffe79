# SPDX-License-Identifier: Apache-2.0
"""Runs the convolutions of full size: a few planes of each, as soon as the one before has those that it reads.

No result but the flow is ever whole in memory, and what a voxel is made from does not depend on threads or planes.
"""

from __future__ import annotations

import logging
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np

from vxm_convert.sim.engine.ending.find import Ending
from vxm_convert.sim.engine.ending.sizes import OUTPUTS
from vxm_convert.sim.engine.ending.spaces import span

LOG = logging.getLogger(__name__)

#: planes of the flow that are made at a time
PLANES = 16
#: rows of tiles, and lines of voxels, that a thread makes at a time
_TILES, _LINES = 4, 12


@lru_cache(maxsize=None)
def usable() -> bool:
    """Whether the loops can be compiled here and are faster than an engine: with numba and AVX-512."""
    try:
        import numba  # noqa: F401
        from llvmlite.binding import get_host_cpu_features
    except ImportError as exc:
        LOG.debug("the engine computes the last convolutions: %s", exc)
        return False
    wide = platform.machine() == "x86_64" and bool(get_host_cpu_features().get("avx512f"))
    if not wide:
        LOG.debug("the engine computes the last convolutions: this processor has no AVX-512")
    return wide


def loops() -> List[Callable[[], Any]]:
    """What compiles or loads each loop, in the order in which a network needs them."""
    from vxm_convert.sim.engine.ending import flow, plain, upsampled

    return [upsampled.compiled, plain.compiled, flow.compiled]


class EndingRunner:
    """An `Ending` whose loops are compiled and whose filters are in the form that these read."""

    def __init__(self, ending: Ending) -> None:
        from vxm_convert.sim.engine.ending.flow import FlowLayer
        from vxm_convert.sim.engine.ending.plain import PlainLayer
        from vxm_convert.sim.engine.ending.upsampled import DoubledLayer

        first, *rest, last = ending.convolutions
        _, depth, height, width, _ = self._shape = ending.beside
        self._layers: List[Any] = [DoubledLayer(first, ending.small[-1], width)]
        self._layers += [PlainLayer(layer, depth, width) for layer in rest]
        self._layers += [FlowLayer(last, depth, width)]
        # Each layer reads one plane more on either side, so the first is that many planes ahead of the last.
        planes = min(PLANES + len(self._layers) + 1, depth)
        self._kept = [((planes, height, width, len(layer.bias)), np.uint16) for layer in ending.convolutions[:-1]]
        self._kept.append(((OUTPUTS, PLANES, height, width), np.float32))

    def flow(self, small: np.ndarray, beside: np.ndarray) -> Iterator[Tuple[slice, np.ndarray]]:
        """The flow of one volume, `PLANES` planes at a time.

        Parameters
        ----------
        small : ndarray, shape (D / 2, H / 2, W / 2, C), float32, in C order.
        beside : ndarray, shape (D, H, W, S), the same.

        Yields
        ------
        (planes, ndarray, shape (3, planes, H, W), float32) — valid until the next.
        """
        _, depth, height, _, _ = self._shape
        results = [np.empty(shape, dtype) for shape, dtype in self._kept]
        steps = list(zip(self._layers, [(small, beside), *results], results))
        ready = [0] * len(steps)
        with ThreadPoolExecutor(_processors()) as pool:
            for start in range(0, depth, PLANES):
                for number, (layer, source, result) in enumerate(steps):
                    until = min(start + PLANES + len(steps) - 1 - number, depth)
                    planes, ready[number] = span(ready[number], until), until
                    count, unit = (height, _LINES) if layer is self._layers[-1] else (height // 2, _TILES)
                    parts = [span(at, min(at + unit, count)) for at in range(0, count, unit)]
                    list(pool.map(lambda part: layer.make(source, planes, part, result), parts))  # noqa: B023
                stop = min(start + PLANES, depth)
                yield slice(start, stop), results[-1][:, : stop - start]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
