# SPDX-License-Identifier: Apache-2.0
"""Names of the files and folders that the runner writes into an output folder. Owns every one of them; writes none."""

from __future__ import annotations

from vxm_convert.artifacts.names import RECORDS_FOLDER

FAILURES_NAME = "failures.tsv"
METRICS_NAME = "metrics.tsv"
MOVED_NAME = "moved.nii.gz"
FLOW_NAME = "flow.nii.gz"
MOVED_SEG_NAME = "moved_seg.nii.gz"
INVERSE_NAME = "inverse.nii.gz"
NATIVE_SEG_NAME = "atlas_seg_in_scan.nii.gz"
JACOBIAN_NAME = "jacobian.nii.gz"
PRECISION_FOLDER = "precision"
REPORT_NAMES = ("report.json", "report.csv", "report.html", "junit.xml")
QC_FOLDER = "qc"
LOG_NAME = "log.txt"
#: what the runner keeps in an output folder for itself: the lock, and a record per finished scan
STATE_FOLDER = RECORDS_FOLDER
LAYERS_NAME = "layers.json"
#: names of files and folders that the runner itself makes in the output folder
RESERVED_SUBJECTS = ("precision", "metrics.tsv", "failures.tsv", "run.json", "audit.json", "sha256sums", "qc")
