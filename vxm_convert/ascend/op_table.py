# SPDX-License-Identifier: Apache-2.0
"""The operator table under the name the simulator's passes use; the rows are in `vxm_convert.ascend.operators`."""

from vxm_convert.ascend.operators import AICORE, AICPU, LOCAL, OPS, OpSupport, support_of

__all__ = ["AICORE", "AICPU", "LOCAL", "OPS", "OpSupport", "support_of"]
