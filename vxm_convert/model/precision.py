# SPDX-License-Identifier: Apache-2.0
"""Precision plans by name, and the ATC flags of each.

docs/precision.md describes the modes on an Ascend 910 (vendor documentation of ``--precision_mode``; the 910's Conv3D
takes only fp16 operands and returns fp16 or fp32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Tuple

from vxm_convert.ascend.chips import family_of
from vxm_convert.errors import ContractError


@dataclass(frozen=True)
class PrecisionPlan:
    """How the compiler chooses dtypes.

    Parameters
    ----------
    name : str — name of the preset.
    mode : str — value of ATC's ``--precision_mode``.
    keep_dtype : tuple of str — node names that keep the graph's fp32 (ATC's ``--keep_dtype`` file, one per line); no
        convolutions, which have no fp32 kernel.
    split_weights : tuple of str — layers whose weights are exported in two parts, fp16 and the rest
        (`export.passes.apply`).
    fp32_results : tuple of str — convolutions that return fp32 from fp16 operands (ATC's ``--customize_dtypes`` file).
    """

    name: str
    mode: str
    keep_dtype: Tuple[str, ...] = ()
    split_weights: Tuple[str, ...] = ()
    fp32_results: Tuple[str, ...] = ()

    @property
    def custom_dtypes(self) -> Tuple[str, ...]:
        """Lines of ATC's ``--customize_dtypes`` file: image and filter in fp16, the result in fp32."""
        return tuple(f"{name}::InputDtype:float16,float16,OutputDtype:float32" for name in self.fp32_results)

    def to_dict(self) -> Dict[str, Any]:
        """For the contract and for files of plans."""
        return {
            "name": self.name,
            "mode": self.mode,
            "keep_dtype": list(self.keep_dtype),
            "split_weights": list(self.split_weights),
            "fp32_results": list(self.fp32_results),
        }

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> PrecisionPlan:
        try:
            # Contracts of earlier versions have no fp32_results.
            lists = {"keep_dtype": data["keep_dtype"], "split_weights": data["split_weights"]}
            lists["fp32_results"] = data.get("fp32_results", [])
            if not all(isinstance(names, (list, tuple)) for names in lists.values()):
                raise TypeError("a list of names is no list")
            names = {key: tuple(str(name) for name in listed) for key, listed in lists.items()}
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


def plan_for(name: str, soc_version: str) -> PrecisionPlan:
    """The preset as it suits a chip: one whose convolutions are fp32 in `accurate` gains nothing from split weights."""
    plan, family = PLANS[name], family_of(soc_version)
    if family is not None and family.single_conv and plan.mode == "force_fp32":
        return replace(plan, split_weights=())
    return plan
