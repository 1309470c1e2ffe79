# SPDX-License-Identifier: Apache-2.0
"""The registration stage: drives an offline model through ACL over a cohort of scans; nothing here trains or
exports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vxm_convert.lazy import public_names

if TYPE_CHECKING:
    from om_runner.api.registrar import Registrar as Registrar
    from om_runner.api.result import Failure as Failure
    from om_runner.api.result import Metrics as Metrics
    from om_runner.api.result import Moving as Moving
    from om_runner.api.result import Pair as Pair
    from om_runner.api.result import Registration as Registration

__all__ = ["Failure", "Metrics", "Moving", "Pair", "Registrar", "Registration"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Failure": "om_runner.api.result",
        "Metrics": "om_runner.api.result",
        "Moving": "om_runner.api.result",
        "Pair": "om_runner.api.result",
        "Registrar": "om_runner.api.registrar",
        "Registration": "om_runner.api.result",
    },
)
