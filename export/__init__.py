# SPDX-License-Identifier: Apache-2.0
"""The export stage: a checkpoint becomes a frozen graph, an ONNX file, an offline model and a contract; nothing here
trains or registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vxm_convert.lazy import public_names

if TYPE_CHECKING:
    from export.api import Exported as Exported
    from export.api import export_model as export_model
    from export.plans import load_plan as load_plan
    from vxm_convert.model.precision import PrecisionPlan as PrecisionPlan

__all__ = ["Exported", "PrecisionPlan", "export_model", "load_plan"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Exported": "export.api",
        "PrecisionPlan": "vxm_convert.model.precision",
        "export_model": "export.api",
        "load_plan": "export.plans",
    },
)
