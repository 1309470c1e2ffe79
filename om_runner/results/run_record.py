# SPDX-License-Identifier: Apache-2.0
"""The tables of an output folder, run.json and the list of hashes: results of this run and kept ones."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.scans import LoadedScan, Scan
from om_runner.names import FAILURES_NAME, METRICS_NAME, PRECISION_FOLDER, STATE_FOLDER
from om_runner.results.layout import Layout
from om_runner.results.resume import Record
from om_runner.results.tables import CohortResult, FailureRow, write_failures, write_metrics
from vxm_convert import __version__
from vxm_convert.artifacts.files import sha256_of, write_json
from vxm_convert.artifacts.names import RUN_NAME
from vxm_convert.artifacts.sha256sums import files_below, finish_manifest
from vxm_convert.scans.header import nibabel_version

RUN_SCHEMA = 1


class Ledger:
    """Rows of this run and of earlier ones in the order of the scans.

    Parameters
    ----------
    layout : Layout
    scans : all scans of the input, whether considered in this run or not.
    taken_over : subject → record of a result that this run keeps.
    old_failures : rows of scans that this run does not consider.
    """

    def __init__(
        self,
        layout: Layout,
        scans: Sequence[Scan],
        taken_over: Mapping[str, Record],
        old_failures: Sequence[FailureRow] = (),
    ) -> None:
        self._layout = layout
        self._place = {scan.subject: place for place, scan in enumerate(scans)}
        self._scans = {scan.subject: scan for scan in scans}
        self.taken_over = taken_over
        self._old_failures = [
            row for row in old_failures if row.subject in self._place and row.subject not in taken_over
        ]

    def note_taken_over(self) -> None:
        """Pass the rows of earlier runs to the layout."""
        for record in self.taken_over.values():
            self._layout.note(record.row)

    def whole(self, result: CohortResult) -> CohortResult:
        """This run's result with the kept ones, in the order of the scans."""
        rows = result.rows + [record.row for record in self.taken_over.values()]
        inputs = dict(result.inputs)
        for subject, record in self.taken_over.items():
            scan = self._scans[subject]
            inputs[os.path.abspath(str(scan.path))] = record.key["scan"]
            if record.key["seg"] is not None and scan.seg_path is not None:
                inputs[os.path.abspath(str(scan.seg_path))] = record.key["seg"]
        return CohortResult(self._sorted(rows), self._failures(result), inputs, result.n_run)

    def missing(self, result: CohortResult) -> List[str]:
        """Scans of the input that have neither a row of results nor one of failures, in order."""
        whole = self.whole(result)
        known = {row.subject for row in whole.rows} | {row.subject for row in whole.failures}
        return [subject for subject in self._place if subject not in known]

    def write_failures(self, result: CohortResult) -> None:
        """Write failures.tsv alone, so that a killed run leaves it for ``--retry-failed``."""
        write_failures(self._layout.out / FAILURES_NAME, self._failures(result))

    def write_tables(self, result: CohortResult) -> None:
        """Write metrics.tsv and failures.tsv of a whole result."""
        write_metrics(self._layout.out / METRICS_NAME, result.rows)
        write_failures(self._layout.out / FAILURES_NAME, result.failures)

    def list_files(self, result: CohortResult, earlier: Dict[str, str], further: Sequence[str] = ()) -> None:
        """Write the hashes of all files of this run and `earlier` ones, so that `vxm_convert verify` finds any damaged
        file.

        `further`: names below the output folder of other files.
        """
        out, layout = self._layout.out, self._layout
        made = files_below(out, PRECISION_FOLDER, STATE_FOLDER) + layout.files_of([row.subject for row in result.rows])
        made += layout.finish(result.failures)
        finish_manifest(out, made + list(further) + [METRICS_NAME, FAILURES_NAME, RUN_NAME], earlier)

    def _failures(self, result: CohortResult) -> List[FailureRow]:
        return self._sorted(result.failures + self._old_failures)

    def _sorted(self, rows: List[Any]) -> List[Any]:
        return sorted(rows, key=lambda row: self._place[row.subject])


def run_document(model: OfflineModel, atlas: LoadedScan, result: CohortResult, **entries: object) -> Dict[str, Any]:
    """The content of run.json: model, atlas, scans and versions, and the `entries` of the session."""
    return {
        "schema": RUN_SCHEMA,
        "finished": utc(time.time()),
        "toolchain": model.toolchain.describe(),
        "simulated": model.simulated,
        "versions": {
            "vxm_convert": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "nibabel": nibabel_version(),
        },
        "model": {
            "path": os.path.abspath(str(model.om_path)),
            "sha256": model.contract.hashes["om"],
            "contract": os.path.abspath(str(model.contract_path)),
            "contract_sha256": sha256_of(model.contract_path),
        },
        "exported_with": dict(model.contract.tools),
        "export_hashes": dict(model.contract.hashes),
        "atlas": {"path": os.path.abspath(str(atlas.scan.path)), "sha256": atlas.sha256, "intensity": atlas.intensity},
        "inputs": result.inputs,
        "registered": len(result.rows),
        "failed": len(result.failures),
        **entries,
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
