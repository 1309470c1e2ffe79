# SPDX-License-Identifier: Apache-2.0
"""The origin of a precision report's numbers: the chain of files, the precision plan, the layer analysis."""

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
#: role in the contract's hashes → file name beside the model; the checkpoint is elsewhere
_ROLES = ("checkpoint", *ROLE_FILES)
_SPLIT_REASON = "fp16 weights of the first layer caused more than half of the flow's error (docs/precision.md)"


def provenance(model: OfflineModel) -> List[Dict[str, Optional[str]]]:
    """Role, file name and sha256 of every file of the chain in the contract, in order; an unknown name is None."""
    hashes = model.contract.hashes
    names = dict(ROLE_FILES, om=model.om_path.name)
    return [{"role": role, "file": names.get(role), "sha256": hashes[role]} for role in _ROLES if hashes.get(role)]


def precision_plan(plan: PrecisionPlan) -> Dict[str, Any]:
    """The plan with a reason for each node with special treatment, if it is one of our plans."""
    return {**plan.to_dict(), "reasons": dict.fromkeys(plan.split_weights, _SPLIT_REASON)}


def layers_of(folder: Path, model: OfflineModel) -> Optional[Dict[str, Any]]:
    """The layer analysis in the report's folder, if it belongs to this model."""
    path = folder / LAYERS_JSON
    try:
        if not path.is_file() or path.stat().st_size > _MAX_LAYERS_BYTES:
            return None
        found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        LOG.warning("%s: not read (%s); the report omits it", path, exc)
        return None
    about = found.get("model") if isinstance(found, dict) else None
    if not isinstance(about, dict) or about.get("om_sha256") != model.contract.hashes["om"]:
        LOG.warning("%s: belongs to another model; the report omits it", path)
        return None
    return found
