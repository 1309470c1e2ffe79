# SPDX-License-Identifier: Apache-2.0
"""What a precision report says about where its numbers come from: the chain of files, the precision plan, the layer
analysis.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional

from om_runner.device.offline_model import OfflineModel
from om_runner.names import LAYERS_JSON
from vxm_convert.artifacts.names import ROLE_FILES
from vxm_convert.model.precision import PrecisionPlan

LOG = logging.getLogger(__name__)
_MAX_LAYERS_BYTES = 32 << 20
#: role in the contract's hashes → file name beside the model; the checkpoint lies elsewhere
_ROLES = ("checkpoint", *ROLE_FILES)
_SPLIT_REASON = "fp16 weights of the first layer made more than half of the flow's error (docs/precision.md)"


def provenance(model: OfflineModel) -> List[Dict[str, Optional[str]]]:
    """Role, file name and sha256 of every file of the chain that the contract names, in order; a name is None where it
    is not known.
    """
    hashes = model.contract.hashes
    names = dict(ROLE_FILES, om=model.om_path.name)
    return [{"role": role, "file": names.get(role), "sha256": hashes[role]} for role in _ROLES if hashes.get(role)]


def precision_plan(plan: PrecisionPlan) -> Dict[str, Any]:
    """The plan with a reason for each node that is treated on its own, as far as the plan is one of ours."""
    return {**plan.to_dict(), "reasons": dict.fromkeys(plan.split_weights, _SPLIT_REASON)}


def layers_of(folder: Path, model: OfflineModel) -> Optional[Dict[str, Any]]:
    """The analysis layer by layer that stands in the report's folder, if it is one of this very model."""
    path = folder / LAYERS_JSON
    try:
        if not path.is_file() or path.stat().st_size > _MAX_LAYERS_BYTES:
            return None
        found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        LOG.warning("%s: not read (%s); the report does without it", path, exc)
        return None
    about = found.get("model") if isinstance(found, dict) else None
    if not isinstance(about, dict) or about.get("om_sha256") != model.contract.hashes["om"]:
        LOG.warning("%s: belongs to another model; the report does without it", path)
        return None
    return found
