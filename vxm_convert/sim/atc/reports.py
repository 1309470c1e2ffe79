# SPDX-License-Identifier: Apache-2.0
"""Files and texts of ATC about a model: fusion_result.json, check_result.json, the display of a model's attributes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from vxm_convert.artifacts.files import write_text
from vxm_convert.formats.ge_ir import Model
from vxm_convert.formats.om import Overview
from vxm_convert.sim.compiler.compile import BIAS_FUSION
from vxm_convert.sim.refusal import AtcRefusal
from vxm_convert.sim.version import SIM_VERSION

FUSION_RESULT = "fusion_result.json"
CHECK_RESULT = "check_result.json"
#: Refusals of the parser, which concern the model and its operators, not the command line.
PARSE_CODES = ("E10501", "E12", "E13", "E19999")
Node = Tuple[str, str]


def side_file(name: str) -> Path:
    """The path in ``$ASCEND_WORK_PATH`` if that is set, else in the working folder."""
    return Path(os.environ.get("ASCEND_WORK_PATH", "")) / name


def write_fusion_result(model: Model) -> None:
    """Number of matches and effects of each fusion pass."""
    fused = sum(len(op.attrs.get("_datadump_original_op_names", [])) > 1 for op in model.all_ops())
    times = {"effect_times": str(fused), "match_times": str(fused)}
    write_text(
        side_file(FUSION_RESULT),
        json.dumps(
            [
                {
                    "graph_fusion": {BIAS_FUSION: times},
                    "session_and_graph_id": "0_0",
                    "ub_fusion": {},
                    "simulated": SIM_VERSION,
                }
            ],
            indent=2,
        )
        + "\n",
    )


def is_parse_failure(refusal: AtcRefusal) -> bool:
    """Whether the model was refused while it was read, so that a check report is due."""
    return refusal.code.startswith(PARSE_CODES)


def write_check_report(path: str, model: str, nodes: Sequence[Node], refusal: Optional[AtcRefusal]) -> None:
    """Operators with their verdict; `path` is ``--check_report``. The layout of the JSON is ours, not checked against a
    real one.

    A refusal names every operator it is about as ``name (type)``; those fail, the others pass.
    """
    message = refusal.message if refusal else ""
    operators: List[Dict[str, object]] = []
    for name, kind in nodes:
        failed = f"{name} ({kind})" in message
        entry: Dict[str, object] = {"op_name": name, "op_type": kind, "result": "failed" if failed else "success"}
        if failed and refusal:
            entry["cause"] = [{"code": refusal.code, "message": message}]
        operators.append(entry)
    report: Dict[str, object] = {
        "model_name": os.path.basename(model),
        "result": "failed" if refusal else "success",
        "op": operators,
    }
    if refusal:
        report["error"] = {"code": refusal.code, "message": message}
    report["simulated"] = SIM_VERSION
    target = side_file(CHECK_RESULT) if path == CHECK_RESULT else Path(path)
    write_text(target, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def model_info(overview: Overview) -> List[str]:
    """Lines of mode 6 and ``--display_model_info=1``: the fields of the real one; wording and order were not checked
    against it.

    The line about gears is ours.
    """
    attrs, sizes = overview.attrs, overview.sizes
    gears = [f"gear     info: {overview.gears}."] if overview.gears else []
    return [
        "============ Display Model Info start ============",
        f"Original Atc command line: {attrs.get('atc_cmdline', '')}",
        f"system   info: atc_version[{attrs.get('atc_version', '')}], soc_version[{attrs.get('soc_version', '')}], "
        f"framework_type[{attrs.get('framework_type', '')}].",
        f"resource info: memory_size[{attrs.get('memory_size', 0)} B], weight_size[{attrs.get('weight_size', 0)} B], "
        f"stream_num[{attrs.get('stream_num', 0)}], event_num[{attrs.get('event_num', 0)}].",
        f"om       info: modeldef_size[{sizes.get('MODEL_DEF', 0)} B], "
        f"weight_data_size[{sizes.get('WEIGHTS_DATA', 0)} B], "
        f"tbe_kernels_size[{sizes.get('TBE_KERNELS', 0)} B], "
        f"cust_aicpu_kernel_store_size[{sizes.get('CUST_AICPU_KERNELS', 0)} B], "
        f"task_info_size[{sizes.get('TASK_INFO', 0)} B].",
        *gears,
        "============ Display Model Info end   ============",
    ]
