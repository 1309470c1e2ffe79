# SPDX-License-Identifier: Apache-2.0
"""Precision plans by name, and the ATC flags of each.

docs/precision.md describes the modes on an Ascend 910 (vendor documentation of ``--precision_mode``; the 910's Conv3D
takes only fp16 operands and returns fp16 or fp32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from vxm_convert.errors import ContractError


@dataclass(frozen=True)
class PrecisionPlan:
    """How the compiler chooses dtypes.

    Parameters
    ----------
    name : str — name of the preset.
    mode : str — value of ATC's ``--precision_mode``.
    keep_dtype : tuple of str — node names that keep the graph's fp32 (ATC's ``--keep_dtype`` file, one per line).
    split_weights : tuple of str — layers whose weights are exported in two parts, fp16 and the rest
        (`export.passes.apply`).
    """

    name: str
    mode: str
    keep_dtype: Tuple[str, ...] = ()
    split_weights: Tuple[str, ...] = ()

    def to_dict(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "mode": self.mode,
            "keep_dtype": list(self.keep_dtype),
            "split_weights": list(self.split_weights),
        }

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> PrecisionPlan:
        try:
            if not all(isinstance(data[key], (list, tuple)) for key in ("keep_dtype", "split_weights")):
                raise TypeError("a list of names is no list")
            names = {key: tuple(str(name) for name in data[key]) for key in ("keep_dtype", "split_weights")}
            return cls(str(data["name"]), str(data["mode"]), **names)
        except (KeyError, TypeError) as exc:
            expected = "name, mode, keep_dtype and split_weights"
            raise ContractError(f"precision plan: got {data!r}, expected {expected}; export the model again") from exc


# More than half of the flow's error comes from the fp16 weights of the first layer, which costs 0.3 % of the FLOPs
# (docs/precision.md has the measurement), so it gets exact weights.
_FIRST_LAYER = ("conv3d",)

PLANS: Dict[str, PrecisionPlan] = {
    # Everything that the device can compute in fp16, including the warp.
    "fast": PrecisionPlan("fast", "force_fp16"),
    # Convolutions in fp16; vector operators have fp32 kernels on the 910 and keep it.
    "balanced": PrecisionPlan("balanced", "allow_fp32_to_fp16", split_weights=_FIRST_LAYER),
    # fp16 operands (there is no fp32 Conv3D), fp32 results, fp32 everywhere else.
    "accurate": PrecisionPlan("accurate", "force_fp32", split_weights=_FIRST_LAYER),
}
DEFAULT_PLAN = "balanced"
