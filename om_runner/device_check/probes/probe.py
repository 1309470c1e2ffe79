# SPDX-License-Identifier: Apache-2.0
"""A probe: a small graph, its inputs, and the parts of its outputs that each depend on one assumption alone.

So a part that differs names the assumption, and the alternatives say in which way the device differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

import numpy as np

from vxm_convert.formats.tf_graph_writer import GraphWriter

#: ATC's precision modes of the plans fast, balanced and accurate
FAST, BALANCED, ACCURATE = "force_fp16", "allow_fp32_to_fp16", "force_fp32"


@dataclass(frozen=True)
class Part:
    """Some values of an output.

    Parameters
    ----------
    assumption : str — the key of the only assumption that they depend on.
    output : str — node of the output.
    expected : ndarray — its values by NumPy's account.
    where : index into the output; the whole of it by default.
    alternatives : tuple of (words, ndarray) — what other arithmetic would give.
    tolerance : float — largest difference that is none, for fp32 sums in another order.
    """

    assumption: str
    output: str
    expected: np.ndarray
    where: Any = ...
    alternatives: Tuple[Tuple[str, np.ndarray], ...] = ()
    tolerance: float = 0.0


@dataclass(frozen=True)
class Probe:
    """A graph with its inputs.

    Parameters
    ----------
    name : str — of the graph, also of its files.
    mode : str — ATC's precision mode.
    feeds : dict — placeholder → ndarray.
    outputs : dict — node → (shape, dtype), in the order of ``--out_nodes``.
    parts : tuple of Part
    twins : tuple of str — two outputs of one shape whose values tell whether outputs are exchanged.
    """

    name: str
    mode: str
    graph: GraphWriter
    feeds: Dict[str, np.ndarray]
    outputs: Dict[str, Tuple[Tuple[int, ...], str]]
    parts: Tuple[Part, ...]
    twins: Tuple[str, ...] = ()
    #: ATC compiles it in this many seconds or is stopped
    seconds: float = field(default=600.0)
