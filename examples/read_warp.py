# SPDX-License-Identifier: Apache-2.0
"""Reads one warp as other programs do, and shows that the same points of the atlas land at the same places in the scan.

ANTs and 3D Slicer read a displacement field through ITK, here SimpleITK. fslpy reads FSL's. FreeSurfer's field is a
displacement in RAS mm per voxel of the atlas, which nibabel gives as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Optional

import nibabel
import numpy as np
import SimpleITK

from vxm_convert import warps

LPS = np.array([-1.0, -1.0, 1.0])


def by_itk(path: Path, points: np.ndarray) -> np.ndarray:
    """Fixed RAS points → moving RAS points, with the transform that ANTs and 3D Slicer would use."""
    field = SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64)
    transform = SimpleITK.DisplacementFieldTransform(field)
    return np.array([transform.TransformPoint([float(v) for v in point]) for point in points * LPS]) * LPS


def by_fsl(path: Path, atlas: Path, scan: Path, points: np.ndarray) -> np.ndarray:
    """With fslpy's reading of a FNIRT field."""
    from fsl.data.image import Image
    from fsl.transform import fnirt

    field = fnirt.readFnirt(str(path), src=Image(str(scan)), ref=Image(str(atlas)))
    return np.asarray(field.transform(points, "world", "world"))


def by_freesurfer(path: Path, points: np.ndarray) -> np.ndarray:
    """The displacement in RAS mm of the voxel under each point."""
    image = nibabel.load(str(path))
    index = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), points)).astype(int)
    return points + np.asarray(image.dataobj).squeeze()[tuple(index.T)]


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warp", required=True, type=Path, help="flow.nii.gz of a registration")
    parser.add_argument("--atlas", required=True, type=Path, help="its fixed image, as NIfTI")
    parser.add_argument("--scan", required=True, type=Path, help="its moving image, as NIfTI")
    parser.add_argument("--out", required=True, type=Path, help="folder for the warp in the other formats")
    args = parser.parse_args(argv)

    args.out.mkdir(parents=True, exist_ok=True)
    warp = warps.read(args.warp, moving=args.scan)
    written = {form: warp.save(args.out / f"warp_{form}.nii.gz", form) for form in ("itk", "fsl", "freesurfer")}
    # Voxel centres in the middle of the atlas: there no program interpolates.
    middle = np.array(warp.fixed.shape) // 2
    index = middle + np.array([[0, 0, 0], [2, 0, 0], [0, -2, 0], [0, 0, 3], [-2, 1, -1]])
    points = nibabel.affines.apply_affine(warp.fixed.affine, index)
    ours = nibabel.affines.apply_affine(warp.moving.affine, index + warp.u[tuple(index.T)])
    found = {
        "SimpleITK (ANTs, Slicer)": by_itk(written["itk"], points),
        "nibabel (FreeSurfer)": by_freesurfer(written["freesurfer"], points),
    }
    try:
        found["fslpy (FSL)"] = by_fsl(written["fsl"], args.atlas, args.scan, points)
    except ImportError:
        print("fslpy is not installed: FSL's reading is left out")
    worst = 0.0
    for name, landed in found.items():
        off = float(np.linalg.norm(landed - ours, axis=1).max())
        worst = max(worst, off)
        print(f"{name}: {len(points)} points land within {off:.2g} mm of ours")
    return 0 if worst < 0.01 else 1


if __name__ == "__main__":
    raise SystemExit(main())
