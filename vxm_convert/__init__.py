# SPDX-License-Identifier: Apache-2.0
"""What every stage must agree on: the model spec, the graph contract, file formats, metrics and the toolchain seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vxm_convert.lazy import public_names

if TYPE_CHECKING:
    from vxm_convert import warps as warps
    from vxm_convert.errors import ArtifactError as ArtifactError
    from vxm_convert.errors import ImplausibleError as ImplausibleError
    from vxm_convert.errors import PrecisionError as PrecisionError
    from vxm_convert.errors import ToolchainError as ToolchainError
    from vxm_convert.errors import VolumeError as VolumeError
    from vxm_convert.errors import VxmError as VxmError
    from vxm_convert.geometry.affines import Affine as Affine
    from vxm_convert.geometry.grids import Grid as Grid
    from vxm_convert.warps import Warp as Warp

__version__ = "0.2.0"
__all__ = [
    "Affine",
    "ArtifactError",
    "Grid",
    "ImplausibleError",
    "PrecisionError",
    "ToolchainError",
    "VolumeError",
    "VxmError",
    "Warp",
    "warps",
]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Affine": "vxm_convert.geometry.affines",
        "ArtifactError": "vxm_convert.errors",
        "Grid": "vxm_convert.geometry.grids",
        "ImplausibleError": "vxm_convert.errors",
        "PrecisionError": "vxm_convert.errors",
        "ToolchainError": "vxm_convert.errors",
        "VolumeError": "vxm_convert.errors",
        "VxmError": "vxm_convert.errors",
        "Warp": "vxm_convert.warps",
    },
    modules=("warps",),
)
