# SPDX-License-Identifier: Apache-2.0
"""``--batch auto``: the batch that the estimate of the chip's time and memory recommends, with a record of the choice."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Optional

from export.contracts import build_contract
from export.preflight.check import run_preflight
from export.preflight.estimate.text import advice
from export.preflight.estimate.timing import LABEL, NOTE
from vxm_convert.artifacts.names import FROZEN_PB_NAME
from vxm_convert.errors import ToolchainError
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.model.spec import ModelSpec
from vxm_convert.weights.files import CheckpointFiles

AUTO = "auto"


@dataclass(frozen=True)
class BatchChoice:
    """The batch, the recommendation in words, and its table."""

    batch: int
    why: str
    table: Dict[str, Any]

    def to_dict(self) -> Dict[str, Any]:
        return {"asked": AUTO, "batch": self.batch, "why": f"{LABEL}: {self.why}", **self.table}


def choose_batch(
    spec: ModelSpec, plan: PrecisionPlan, soc_version: str, files: CheckpointFiles, h5_indexing: str
) -> BatchChoice:
    """Freeze the graph with batch 1 in a temporary folder and run the estimate.

    Parameters
    ----------
    spec : ModelSpec — its batch is not read.

    Raises
    ------
    ToolchainError
        If no batch is recommended: nothing fits, or the chip's memory is unknown.
    VxmError
        As raised by reading the weights and by freezing.
    """
    from export import freeze
    from export.preflight.view.shapes import tensorflow_shapes
    from vxm_convert.network import restore

    single = replace(spec, batch=1)
    contract = build_contract(single, plan, soc_version)
    with tempfile.TemporaryDirectory(prefix="vxm-batch-") as folder:
        pb = Path(folder) / FROZEN_PB_NAME
        freeze.write_pb(freeze.freeze(contract, restore.load_weights(files, single, h5_indexing)), pb)
        outputs = [tensor.tensor_name for tensor in contract.outputs]
        estimate = run_preflight(pb, soc_version, plan, outputs, tensorflow_shapes(pb)).time
    chosen: Optional[int] = estimate.recommended
    if chosen is None:
        raise ToolchainError(f"--batch {AUTO}: {advice(estimate)}; or pass a number")
    rows = [
        {"batch": row.batch, "ms_per_scan": row.ms_per_scan, "memory_bytes": row.memory, "fits": row.fits}
        for row in estimate.batches
    ]
    return BatchChoice(chosen, advice(estimate), {"label": NOTE, "soc_version": soc_version, "batches": rows})
