# SPDX-License-Identifier: Apache-2.0
"""Graph passes of the export: an ordered list. Each takes the frozen GraphDef and the contract and changes it in
place.
"""

from __future__ import annotations

from export.passes.split_weights import split_weights
from vxm_convert.model.contract import GraphContract
from vxm_convert.network.tf1 import tf

#: order matters only where the comment says so
PASSES = (split_weights,)


def apply_passes(graph_def: tf.GraphDef, contract: GraphContract) -> None:
    """Run all passes; raises ContractError if a plan names a layer that is not in the graph."""
    for run in PASSES:
        run(graph_def, contract)
