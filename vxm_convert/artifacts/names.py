# SPDX-License-Identifier: Apache-2.0
"""Names of the files that the stages write, and the step from checkpoint to report of each. Uses names alone and reads
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Tuple

# A training.
SPEC_NAME = "spec.json"
SPLIT_NAME = "split.json"
BEST_NAME = "best.json"
TRAIN_METRICS_NAME = "metrics.jsonl"
TRAIN_LOG_NAME = "train.log"
TRAIN_REPORT_NAME = "train_report.html"
# An export.
FROZEN_PB_NAME = "frozen.pb"
PREFLIGHT_CSV = "preflight.csv"
PREFLIGHT_JSON = "preflight.json"
PARITY_NAME = "parity.json"
ONNX_NAME = "vxm.onnx"
ATC_LOG_NAME = "atc.log"
ATC_MANIFEST_NAME = "atc_manifest.json"
KEEP_DTYPE_NAME = "keep_dtype.cfg"
CUSTOM_DTYPES_NAME = "customize_dtypes.cfg"
OM_NAME = "vxm.om"
CONTRACT_NAME = "contract.json"
# A run of om_runner.
METRICS_NAME = "metrics.tsv"
FAILURES_NAME = "failures.tsv"
#: Dice of every structure of every scan
STRUCTURES_NAME = "structures.tsv"
LOG_NAME = "log.txt"
#: paths of the model, the atlas and the scans, with their hashes
RUN_NAME = "run.json"
PRECISION_FOLDER = "precision"
REPORT_JSON = "report.json"
REPORT_CSV = "report.csv"
REPORT_PAGE = "report.html"
REPORT_JUNIT = "junit.xml"
#: the page of a whole output folder, and of its pictures
INDEX_NAME = "index.html"
LAYERS_CSV = "layers.csv"
LAYERS_JSON = "layers.json"
AUDIT_NAME = "audit.json"
COMPARED_FILES_NAME = "compared_files.json"
#: folder of om_runner's records of finished subjects, with arbitrary names
RECORDS_FOLDER = ".om_runner"
# Any stage.
SUMS_NAME = "SHA256SUMS"

#: role of a file in a chain → its name
ROLE_FILES = {"frozen_pb": FROZEN_PB_NAME, "onnx": ONNX_NAME, "om": OM_NAME}


def _any_of(*names: str, more: str = "") -> str:
    return "|".join([re.escape(name) for name in names] + ([more] if more else []))


#: In order: name of the step, and the names of its files (without ``.json`` of a side-car).
STEPS: Tuple[Tuple[str, str], ...] = (
    (
        "checkpoint",
        _any_of(
            SPEC_NAME,
            SPLIT_NAME,
            BEST_NAME,
            TRAIN_METRICS_NAME,
            TRAIN_LOG_NAME,
            TRAIN_REPORT_NAME,
            more=r"model-\d+\..+|events\..*|checkpoint",
        ),
    ),
    ("frozen graph", _any_of(FROZEN_PB_NAME)),
    ("preflight", _any_of(PREFLIGHT_CSV, PREFLIGHT_JSON)),
    ("parity", _any_of(PARITY_NAME)),
    ("ONNX", r".+\.onnx"),
    (
        "ATC",
        _any_of(ATC_LOG_NAME, ATC_MANIFEST_NAME, KEEP_DTYPE_NAME, CUSTOM_DTYPES_NAME, more=r"atc_\w+\.(ini|cfg|json)"),
    ),
    ("offline model", r".+\.om"),
    ("contract", _any_of(CONTRACT_NAME)),
    ("input", r"(?!)"),
    ("output", _any_of(LOG_NAME, more=r".+\.nii(\.gz)?|.+\.mg[hz]|.+\.npz")),
    ("table", _any_of(METRICS_NAME, FAILURES_NAME, STRUCTURES_NAME)),
    ("run", _any_of(RUN_NAME)),
    ("report", _any_of(REPORT_JUNIT, INDEX_NAME, more=r"(report|layers|audit)\.(json|csv|html)")),
    ("list", _any_of(SUMS_NAME)),
    ("other", r".*"),
)
INPUT = "input"
_ORDER = {name: position for position, (name, _) in enumerate(STEPS)}


def step_of(path: Path) -> str:
    """The step of a file; a side-car has the step of its file."""
    if RECORDS_FOLDER in Path(path).parts[:-1]:
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
    """Position of a step in the chain."""
    return _ORDER[step]
