# SPDX-License-Identifier: Apache-2.0
"""The displacement field that a registration writes, in ITK's layout. Other layouts and grids: vxm_convert/geometry/.

In memory a flow is in voxels of the fixed grid: fixed index x + u = moving index m (pull). On disk it is the one NIfTI
layout that ITK, ANTs, SimpleITK and Slicer take for a displacement field: 5-D (X, Y, Z, 1, 3), intent 1007 (vector),
float32, millimetres along LPS axes, on the fixed grid: ``(M m − F x) · (−1, −1, 1)``, where F and M are the voxel → RAS
matrices of the fixed and the moving grid. Anything else (4-D, or 5-D without the intent) ANTs silently takes for the
identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from vxm_convert.artifacts.files import write_sidecar
from vxm_convert.geometry.fields import from_frame, to_frame
from vxm_convert.geometry.grids import LPS
from vxm_convert.scans.nifti import INTENT_VECTOR, write_nifti
from vxm_convert.transforms.warps import read_warp


def voxels_to_lps(
    flow_vox: np.ndarray, fixed_affine: np.ndarray, moving_affine: Optional[np.ndarray] = None
) -> np.ndarray:
    """Displacement in LPS mm from displacement in voxels.

    Parameters
    ----------
    flow_vox : ndarray, shape (X, Y, Z, 3) — u, voxels of the fixed grid, axis order as the array.
    fixed_affine, moving_affine : ndarray, shape (4, 4) — F and M, voxel index → RAS mm; M defaults to F (both on the
        network grid).

    Returns
    -------
    ndarray, shape (X, Y, Z, 3), float32 — mm along L, P, S.
    """
    return to_frame(flow_vox, *_lps_pair(fixed_affine, moving_affine), dtype=np.float32)


def lps_to_voxels(
    flow_lps: np.ndarray, fixed_affine: np.ndarray, moving_affine: Optional[np.ndarray] = None
) -> np.ndarray:
    """The inverse of `voxels_to_lps`; same shapes and frames. float32."""
    return from_frame(flow_lps, *_lps_pair(fixed_affine, moving_affine), dtype=np.float32)


def write_flow(
    path: Path,
    flow_vox: np.ndarray,
    fixed_affine: np.ndarray,
    made_from: Optional[Dict[str, str]] = None,
    toolchain: Optional[Dict[str, Any]] = None,
    **details: Any,
) -> None:
    """Write ``flow.nii.gz`` and its side-car ``flow.nii.gz.json``; both grids are the fixed grid.

    Parameters
    ----------
    flow_vox : ndarray, shape (X, Y, Z, 3) — displacement in voxels of the fixed grid.
    made_from, toolchain : dict — as `vxm_convert.artifacts.files.write_sidecar` takes them; default: from nothing, no
        Ascend tool. details — further entries of the side-car.
    """
    lps = voxels_to_lps(flow_vox, fixed_affine)
    write_nifti(
        path, lps[:, :, :, np.newaxis, :], fixed_affine, np.float32, intent=INTENT_VECTOR, intent_name="displacement"
    )
    write_sidecar(path, made_from or {}, toolchain or {"kind": "none"}, **describe_flow(fixed_affine), **details)


def describe_flow(fixed_affine: np.ndarray) -> Dict[str, Any]:
    """What a reader of the file must know, as the side-car says it."""
    return {
        "layout": "NIfTI-1, 5-D (X, Y, Z, 1, 3), intent 1007 (vector), float32",
        "unit": "mm",
        "frame": "components along L, P, S (ITK axes), sampled on the fixed grid",
        "direction": "resamples moving onto fixed: fixed point + displacement = moving point",
        "voxel_form": "u = inverse(A) * (displacement * (-1, -1, 1)), A = upper left 3x3 of fixed_affine; fixed index "
        "+ u = moving index",
        "moving_grid": "the fixed grid: the moving array is taken as lying on it voxel by voxel, whatever its own "
        "header says",
        "readable_by": ["ITK", "SimpleITK", "ANTs", "Slicer"],
        "not_readable_by": "FSL and FreeSurfer, which expect other units and intents",
        "fixed_affine": [[float(v) for v in row] for row in fixed_affine],
    }


def read_flow(path: Path) -> Tuple[np.ndarray, np.ndarray]:
    """A flow file of `write_flow`: displacement in voxels (X, Y, Z, 3) float32, and the fixed grid's affine.

    Raises
    ------
    VolumeError
        When the file is no vector field in that layout.
    """
    warp = read_warp(path, "itk")
    return warp.u.astype(np.float32), np.array(warp.fixed.affine)


def _lps_pair(fixed: np.ndarray, moving: Optional[np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    """Voxel → LPS mm of both grids."""
    return LPS @ np.asarray(fixed, dtype=np.float64), LPS @ np.asarray(
        fixed if moving is None else moving, dtype=np.float64
    )
