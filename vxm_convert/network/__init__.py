# SPDX-License-Identifier: Apache-2.0
"""The network as TensorFlow 1.15 graph builders. Owns graph construction; trains nothing, reads no files.

Names resolve on first use, so that `vxm_convert.network.names` can be read where TensorFlow is missing.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "build_unet": "unet",
    "build_velocity_posterior": "unet",
    "build_displacement": "model",
    "double_flow": "integrate",
    "make_variables": "unet",
    "integrate_velocity": "integrate",
    "upsample_nearest": "unet",
    "warp_linear": "warp",
    "warp_nearest": "warp",
    "build_inference_graph": "model",
}
__all__ = [
    "build_displacement", "build_inference_graph", "build_unet", "build_velocity_posterior", "double_flow", "integrate_velocity",
    "make_variables", "upsample_nearest", "warp_linear", "warp_nearest",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
