# SPDX-License-Identifier: Apache-2.0
"""run.json: model, atlas, inputs and versions of the results in an output folder, and what the processes did."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.scans import LoadedScan
from om_runner.results.collect import View
from om_runner.results.layout import Layout
from vxm_convert import __version__
from vxm_convert.artifacts.files import sha256_of, write_json
from vxm_convert.artifacts.names import RUN_NAME
from vxm_convert.scans.header import nibabel_version

RUN_SCHEMA = 1


def run_head(model: OfflineModel, atlas: Optional[LoadedScan], dataset: Optional[Path] = None) -> Dict[str, Any]:
    """The entries of run.json that are the same for all processes of a run: toolchain, model, atlas (None for pairs,
    whose fixed images are among the inputs); and the input, if given.
    """
    head: Dict[str, Any] = {
        "toolchain": model.toolchain.describe(),
        "simulated": model.simulated,
        "model": {
            "path": os.path.abspath(str(model.om_path)),
            "sha256": model.contract.hashes["om"],
            "contract": os.path.abspath(str(model.contract_path)),
            "contract_sha256": sha256_of(model.contract_path),
        },
        "exported_with": dict(model.contract.tools),
        "export_hashes": dict(model.contract.hashes),
        "atlas": None,
    }
    if atlas is not None:
        path = os.path.abspath(str(atlas.scan.path))
        head["atlas"] = {"path": path, "sha256": atlas.sha256, "intensity": atlas.intensity}
    return head if dataset is None else {**head, "input": os.path.abspath(str(dataset))}


def run_document(head: Mapping[str, Any], view: View, inputs: Mapping[str, str], **entries: object) -> Dict[str, Any]:
    """The content of run.json: what all processes have in common, scans and versions, and the `entries` of one."""
    return {
        "schema": RUN_SCHEMA,
        "finished": utc(time.time()),
        **head,
        "versions": {
            "vxm_convert": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "nibabel": nibabel_version(),
        },
        "inputs": dict(inputs),
        "registered": len(view.rows),
        "failed": len(view.failures),
        **entries,
    }


def collected(
    earlier: Mapping[str, Any], view: View, processes: Sequence[Mapping[str, Any]], finished: float
) -> Dict[str, Any]:
    """run.json as `collect` leaves it: an `earlier` one, or the common entries, with what the records say now."""
    inputs = {**dict(earlier.get("inputs") or {}), **view.inputs}
    return {
        "schema": RUN_SCHEMA,
        **earlier,
        "finished": utc(finished),
        "inputs": inputs,
        "registered": len(view.rows),
        "failed": len(view.failures),
        "processes": list(processes),
    }


def write_run(layout: Layout, document: Mapping[str, Any]) -> None:
    """run.json."""
    write_json(layout.out / RUN_NAME, document)


def precision_entry(python: Optional[str], report: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The entry of run.json for the comparison."""
    entry = {
        "reference_python": python,
        "compared": 0 if report is None else report["n_samples"],
        "verdict": None if report is None else report["verdict"],
        "profile": None if report is None else {key: report["profile"][key] for key in ("name", "sha256")},
    }
    return entry if report is None else {**entry, "tensorflow": report["reference"]["tensorflow"]}


def utc(seconds: float) -> str:
    """Seconds since 1970 as a UTC date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
