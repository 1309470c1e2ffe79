# SPDX-License-Identifier: Apache-2.0
"""The order of a chain: which step from checkpoint to report a file belongs to. Goes by names alone and reads
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Tuple

#: In order: name of the step, and the names of its files (without ``.json`` of a side-car).
STEPS: Tuple[Tuple[str, str], ...] = (
    (
        "checkpoint",
        r"model-\d+\..+|spec\.json|split\.json|best\.json|metrics\.jsonl|train\.log|events\..*|checkpoint|train_report\.html",
    ),
    ("frozen graph", r"frozen\.pb"),
    ("preflight", r"preflight\.(csv|json)"),
    ("parity", r"parity\.json"),
    ("ONNX", r".+\.onnx"),
    ("ATC", r"atc\.log|atc_manifest\.json|keep_dtype\.cfg"),
    ("offline model", r".+\.om"),
    ("contract", r"contract\.json"),
    ("input", r"(?!)"),
    ("output", r".+\.nii(\.gz)?|.+\.mg[hz]|.+\.npz|log\.txt"),
    ("table", r"metrics\.tsv|failures\.tsv"),
    ("run", r"run\.json"),
    ("report", r"(report|layers|audit)\.(json|csv|html)|junit\.xml"),
    ("list", r"SHA256SUMS"),
    ("other", r".*"),
)
INPUT = "input"
#: where om_runner keeps its record of every finished subject, whose names are anything
RECORDS_FOLDER = ".om_runner"
_ORDER = {name: position for position, (name, _) in enumerate(STEPS)}


def step_of(path: Path) -> str:
    """The step that a file belongs to; a side-car belongs to that of its file."""
    if Path(path).parent.name == RECORDS_FOLDER:
        return "run"
    name = Path(path).name
    names = [name, name[: -len(".json")]] if name.endswith(".json") else [name]
    return next(
        step
        for step, pattern in STEPS
        for one in names
        if re.fullmatch(pattern, one) and (step != "other" or one == names[-1])
    )


def position_of(step: str) -> int:
    """Where in the chain a step stands."""
    return _ORDER[step]


#: what om_runner writes beside its results: where the model, the atlas and the scans lay, with their hashes
RUN_NAME = "run.json"
