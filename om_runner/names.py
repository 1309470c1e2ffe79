# SPDX-License-Identifier: Apache-2.0
"""Names of the files and folders that the runner writes into an output folder. Writes none.

Names of the chain from checkpoint to report are in `vxm_convert.artifacts.names`; this module only passes them on.
"""

from __future__ import annotations

from vxm_convert.artifacts.names import (
    AUDIT_NAME,
    FAILURES_NAME,
    INDEX_NAME,
    LAYERS_CSV,
    LAYERS_JSON,
    METRICS_NAME,
    PRECISION_FOLDER,
    RECORDS_FOLDER,
    REPORT_CSV,
    REPORT_JSON,
    REPORT_JUNIT,
    REPORT_PAGE,
    RUN_NAME,
    STRUCTURES_NAME,
    SUMS_NAME,
)
from vxm_convert.artifacts.names import LOG_NAME as LOG_NAME

MOVED_NAME = "moved.nii.gz"
FLOW_NAME = "flow.nii.gz"
MOVED_SEG_NAME = "moved_seg.nii.gz"
INVERSE_NAME = "inverse.nii.gz"
NATIVE_SEG_NAME = "atlas_seg_in_scan.nii.gz"
JACOBIAN_NAME = "jacobian.nii.gz"
#: the affine between atlas and scan, where one was used
AFFINE_NAME = "affine.txt"
#: in side-cars, the fixed image and the segmentation of a pair's fixed image
FIXED_ROLES = ("atlas", "fixed_seg")
REPORT_NAMES = (REPORT_JSON, REPORT_CSV, REPORT_PAGE, REPORT_JUNIT)
QC_FOLDER = "qc"
#: the runner's private folder in an output folder: the lock, and a record per finished scan
STATE_FOLDER = RECORDS_FOLDER
LAYERS_NAMES = (LAYERS_CSV, LAYERS_JSON)
#: the runner's own files and folders in an output folder: no subject may have such a name, in any case
RESERVED_SUBJECTS = (
    PRECISION_FOLDER,
    METRICS_NAME,
    FAILURES_NAME,
    RUN_NAME,
    AUDIT_NAME,
    SUMS_NAME,
    QC_FOLDER,
    INDEX_NAME,
    STRUCTURES_NAME,
)
