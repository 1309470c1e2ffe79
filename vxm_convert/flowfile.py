# SPDX-License-Identifier: Apache-2.0
"""The displacement field on disk, and voxel ↔ LPS-millimetre conversion.

In memory a flow is in voxels of the fixed grid: fixed index x + u = moving index m (pull). On disk it is the one NIfTI layout
that ITK, ANTs, SimpleITK and Slicer take for a displacement field: 5-D (X, Y, Z, 1, 3), intent 1007 (vector), float32, millimetres
along LPS axes, on the fixed grid: ``(M m − F x) · (−1, −1, 1)``, where F and M are the voxel → RAS matrices of the fixed and the
moving grid. Anything else (4-D, or 5-D without the intent) ANTs silently takes for the identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import nibabel as nib
import numpy as np

from vxm_convert.artifacts import write_sidecar
from vxm_convert.errors import VolumeError
from vxm_convert.nifti import INTENT_VECTOR, write_nifti

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_INTENT_CODE_VECTOR = 1007
_SLAB = 16


def voxels_to_lps(flow_vox: np.ndarray, fixed_affine: np.ndarray, moving_affine: Optional[np.ndarray] = None) -> np.ndarray:
    """Displacement in LPS mm from displacement in voxels.

    Parameters
    ----------
    flow_vox : ndarray, shape (X, Y, Z, 3) — u, voxels of the fixed grid, axis order as the array.
    fixed_affine, moving_affine : ndarray, shape (4, 4) — F and M, voxel index → RAS mm; M defaults to F (both on the network grid).

    Returns
    -------
    ndarray, shape (X, Y, Z, 3), float32 — mm along L, P, S.
    """
    fixed, moving = _pair(fixed_affine, moving_affine)
    out = np.empty(flow_vox.shape, dtype=np.float32)
    to_lps = moving[:3, :3].T * _RAS_TO_LPS
    for part, offset in _slabs_with_offset(flow_vox.shape[:3], moving - fixed):
        # M (x + u) − F x = M u + (M − F) x: for equal grids the large coordinates cancel exactly.
        out[part] = flow_vox[part].astype(np.float64) @ to_lps + offset * _RAS_TO_LPS
    return out


def lps_to_voxels(flow_lps: np.ndarray, fixed_affine: np.ndarray, moving_affine: Optional[np.ndarray] = None) -> np.ndarray:
    """The inverse of `voxels_to_lps`; same shapes and frames. float32."""
    fixed, moving = _pair(fixed_affine, moving_affine)
    to_voxels = np.linalg.inv(moving[:3, :3]).T
    out = np.empty(flow_lps.shape, dtype=np.float32)
    for part, offset in _slabs_with_offset(flow_lps.shape[:3], moving - fixed):
        out[part] = (flow_lps[part].astype(np.float64) * _RAS_TO_LPS - offset) @ to_voxels
    return out


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
    made_from, toolchain : dict — as `vxm_convert.artifacts.write_sidecar` takes them; default: from nothing, no Ascend tool.
    details — further entries of the side-car.
    """
    lps = voxels_to_lps(flow_vox, fixed_affine)
    write_nifti(path, lps[:, :, :, np.newaxis, :], fixed_affine, np.float32, intent=INTENT_VECTOR, intent_name="displacement")
    write_sidecar(path, made_from or {}, toolchain or {"kind": "none"}, **describe_flow(fixed_affine), **details)


def describe_flow(fixed_affine: np.ndarray) -> Dict[str, Any]:
    """What a reader of the file must know, as the side-car says it."""
    return {
        "layout": "NIfTI-1, 5-D (X, Y, Z, 1, 3), intent 1007 (vector), float32",
        "unit": "mm",
        "frame": "components along L, P, S (ITK axes), sampled on the fixed grid",
        "direction": "resamples moving onto fixed: fixed point + displacement = moving point",
        "voxel_form": "u = inverse(A) * (displacement * (-1, -1, 1)), A = upper left 3x3 of fixed_affine; fixed index + u = moving index",
        "moving_grid": "the fixed grid: the moving array is taken as lying on it voxel by voxel, whatever its own header says",
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
    try:
        image = nib.load(str(path))
        shape, intent = image.shape, int(image.header["intent_code"])
    except (nib.filebasedimages.ImageFileError, OSError, KeyError, ValueError) as exc:
        raise VolumeError(f"{path}: not a readable NIfTI flow ({exc})") from exc
    if len(shape) != 5 or shape[3:] != (1, 3) or intent != _INTENT_CODE_VECTOR:
        raise VolumeError(
            f"{path}: shape {shape} and intent {intent}, expected (X, Y, Z, 1, 3) and intent {_INTENT_CODE_VECTOR}; convert the warp first"
        )
    lps = np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0, :]
    return lps_to_voxels(lps, image.affine), np.asarray(image.affine, dtype=float)


def _pair(fixed: np.ndarray, moving: Optional[np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    fixed = np.asarray(fixed, dtype=np.float64)
    return fixed, fixed if moving is None else np.asarray(moving, dtype=np.float64)


def _slabs_with_offset(shape: Tuple[int, int, int], difference: np.ndarray) -> Iterator[Tuple[slice, np.ndarray]]:
    """Slabs along the first axis, and (M − F) x for the voxels in them (n, Y, Z, 3) in mm; one zero vector where the grids agree."""
    plane = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij"), axis=-1)
    for start in range(0, shape[0], _SLAB):
        part = slice(start, min(start + _SLAB, shape[0]))
        if not difference.any():
            yield part, np.zeros(3)
            continue
        index = np.empty((part.stop - start,) + plane.shape[:2] + (3,))
        index[..., 0] = np.arange(start, part.stop)[:, np.newaxis, np.newaxis]
        index[..., 1:] = plane
        yield part, index @ difference[:3, :3].T + difference[:3, 3]
