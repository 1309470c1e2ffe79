# SPDX-License-Identifier: Apache-2.0
"""Families of Ascend chips: what their convolutions compute in, what overflow gives, which kernels are missing, and what
is not known. Data only; each entry with its source.

Nothing here was tried on a device. The table of operators (`ascend.operators`) and the simulated arithmetic are those of
the first-generation 910; a family says where another chip is known to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

HALF_TO_BOTH = (("float16", "float16"), ("float16", "float32"))
_TABLE = "operator information of CANN 8.1.RC1"


@dataclass(frozen=True)
class Family:
    """One family.

    Parameters
    ----------
    name : str — key of `FAMILIES`.
    products : str — names that people know.
    conv3d : tuple of (str, str) — (operands, result) of Conv3D's float kernels; empty: unknown.
    conv3d_source : str
    saturates : bool or None — an fp16 overflow gives ±65504 (True) or ±infinity (False); None: unknown.
    saturates_source : str
    missing : tuple of (str, str) — TensorFlow operator, what its AI Core kernel lacks.
    least_sigmoid : float or None — smallest result of an fp16 sigmoid where one was seen; None: exact zeros are assumed.
    unknown : tuple of str — what a user of this chip should not take for granted.
    """

    name: str
    products: str
    conv3d: Tuple[Tuple[str, str], ...] = ()
    conv3d_source: str = ""
    saturates: Optional[bool] = None
    saturates_source: str = ""
    missing: Tuple[Tuple[str, str], ...] = ()
    least_sigmoid: Optional[float] = None
    unknown: Tuple[str, ...] = ()

    @property
    def single_conv(self) -> bool:
        """Whether its Conv3D is known to take fp32 operands."""
        return ("float32", "float32") in self.conv3d

    @property
    def widening_conv(self) -> Optional[bool]:
        """Whether its Conv3D returns fp32 from fp16 operands; None: unknown."""
        return ("float16", "float32") in self.conv3d if self.conv3d else None


_BORROWED = "operators, limits and speeds were taken from the first-generation 910"
FAMILIES: Dict[str, Family] = {
    "910": Family(
        "910",
        "Ascend 910, first generation (Atlas training series)",
        HALF_TO_BOTH,
        _TABLE + ": Conv3D takes fp16 or int8, returns fp16 or fp32",
        True,
        "documentation of aclrtSetDeviceSatMode: the Atlas training series has only the saturation mode",
    ),
    "910B": Family(
        "910B",
        "Atlas A2 (Ascend910B1 to B4)",
        (("float16", "float16"), ("float32", "float32")),
        _TABLE + ": fp32 to fp32, no fp16 to fp32; fe.ini lists Conv3D under fp16",
        False,
        "documentation of aclrtSetDeviceSatMode: infinity and NaN by default",
        unknown=(
            _BORROWED,
            "the simulated device rounds and saturates as a first-generation 910; this chip makes infinities",
            "the block size of fp32 convolutions",
        ),
    ),
    "910_93": Family(
        "910_93",
        "Atlas A3 (Ascend910_9362 to 9392)",
        (("float16", "float16"), ("float32", "float32")),
        "assumed: as the Atlas A2",
        False,
        "assumed: as the Atlas A2",
        unknown=(_BORROWED, "the number of AI cores", "whether its kernels are those of the Atlas A2"),
    ),
    "310P": Family(
        "310P",
        "Ascend 310P (Atlas 300I Pro, 300V, 300I Duo)",
        unknown=(
            _BORROWED + "; 8.1's table has the types that our operators need",
            "whether a convolution returns fp32",
            "what an overflow gives",
        ),
    ),
    "310": Family(
        "310",
        "Ascend 310 (Atlas 200, 300I)",
        # Output file of a real 310, CANN 5.0.4 (public, ModelZoo): no pixel below 2^-16, half of them exactly there.
        least_sigmoid=2.0**-16,
        missing=(("Cast", "float to int32 (it would run on the AI CPU; the warp needs three of them)"),),
        unknown=(_BORROWED, "whether a convolution returns fp32", "what an overflow gives"),
    ),
}
