# SPDX-License-Identifier: Apache-2.0
"""Hashes of all files that a training or an evaluation reads."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

from train.data.cohort import Cohort
from vxm_convert.scans.scan_file import scan_sha256


def sources_of(cohort: Cohort, atlas: Optional[Path]) -> Dict[str, str]:
    """Role → sha256 of every file a run reads; folders distinguish scans with the same name."""
    files = {
        path: None for s in cohort.subjects for path in (s.moving, s.fixed, s.seg, s.fixed_seg) if path is not None
    }
    names = [path.name for path in files]
    made_from = {"scan " + (p.name if names.count(p.name) == 1 else str(p)): scan_sha256(p) for p in files}
    return {**({"atlas": scan_sha256(atlas)} if atlas is not None else {}), **made_from}
