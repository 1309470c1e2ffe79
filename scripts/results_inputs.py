# SPDX-License-Identifier: Apache-2.0
"""Writes the small inputs that `scripts.results_tree` runs the commands on, from a synthetic cohort.

Scans of several axes and formats, damaged ones, a BIDS dataset, raw scans to prepare, points. The bytes are the same
each time.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Tuple

import nibabel as nib
import numpy as np

#: axes left, inferior, anterior, 1 mm
_AXES = np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])


def centred_affine(shape: Tuple[int, ...]) -> np.ndarray:
    """Voxel → RAS mm of a grid of 1 mm with axes LIA, its centre at the origin; shape (4, 4), float64."""
    affine = np.eye(4)
    affine[:3, :3] = _AXES
    affine[:3, 3] = -_AXES @ ((np.array(shape) - 1) / 2)
    return affine


def turned_affine(shape: Tuple[int, ...], degrees: float, shift_mm: Tuple[float, float, float]) -> np.ndarray:
    """`centred_affine`, turned about the axis that runs superior and shifted."""
    angle, motion = np.deg2rad(degrees), np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, 3] = shift_mm
    return motion @ centred_affine(shape)


def save_volume(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write an image with nibabel (.nii.gz or .mgz), the gzip header without a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.MGHImage(values, affine) if path.suffix == ".mgz" else nib.Nifti1Image(values, affine)
    with path.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(image.to_bytes())


def _head(path: Path) -> Tuple[np.ndarray, np.ndarray]:
    with np.load(str(path), allow_pickle=False) as arrays:
        return arrays["vol"], arrays["seg"].astype(np.int16)


def _reoriented(values: np.ndarray, affine: np.ndarray, axes: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes)))
    return image.as_reoriented(turn)


def write_mixed(cohort: Path, folder: Path, atlas: Path) -> None:
    """Scans of one space in several formats, and damaged ones; the atlas with its segmentation; an affine, pre.txt."""
    fixed, fixed_seg = _head(cohort / "atlas.npz")
    affine = centred_affine(fixed.shape)
    save_volume(atlas / "brain.nii.gz", fixed, affine)
    save_volume(atlas / "seg.nii.gz", fixed_seg, affine)
    volume, seg = _head(cohort / "scans" / "sub-01.npz")
    save_volume(folder / "plain.nii.gz", volume, affine)
    save_volume(folder / "plain_seg.nii.gz", seg, affine)
    for name, values in (("turned", volume), ("turned_seg", seg)):
        turned = _reoriented(values, affine, "RAS")
        save_volume(folder / f"{name}.nii.gz", np.asarray(turned.dataobj), turned.affine)
    padded, margin = np.pad(volume, 6), np.eye(4)
    margin[:3, 3] = -6
    save_volume(folder / "padded.mgz", padded, affine @ margin)
    save_volume(folder / "padded_aseg.mgz", np.pad(seg, 6), affine @ margin)
    save_volume(folder / "scaled.nii.gz", (volume / 255).astype(np.float32), affine)
    save_volume(folder / "oblique.nii.gz", volume, turned_affine(volume.shape, 5, (1, -2, 1)))
    save_volume(folder / "identity.nii.gz", volume, np.eye(4))
    save_volume(folder / "bad_constant.nii.gz", np.full_like(volume, 7), affine)
    save_volume(folder / "bad_nan.nii.gz", np.where(volume > 100, np.nan, volume).astype(np.float32), affine)
    save_volume(folder / "bad_range.nii.gz", volume.astype(np.int16) * 9 - 400, affine)
    save_volume(folder / "bad_sides.nii.gz", np.stack([volume, volume], -1), affine)
    save_volume(folder / "bad_space.nii.gz", volume, turned_affine(volume.shape, 0, (300, 0, 0)))
    np.savetxt(
        str(folder.parent / "pre.txt"),
        turned_affine((1, 1, 1), 3, (1.5, -1, 0.5)) @ np.linalg.inv(centred_affine((1, 1, 1))),
    )
    (folder / "bad_cut.nii.gz").write_bytes((folder / "plain.nii.gz").read_bytes()[:2000])
    (folder / "bad_text.nii.gz").write_text("no image\n", encoding="utf-8")


def write_bids(cohort: Path, folder: Path) -> None:
    """A dataset: a participant with a segmentation in a derivative, one with two sessions, one with a damaged scan."""
    described = {"Name": "Synthetic heads", "BIDSVersion": "1.9.0", "Authors": ["A. One", "B. Two"], "License": "CC0"}
    derived = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "none"}]}
    texts = {
        "dataset_description.json": json.dumps(described),
        "derivatives/fs/dataset_description.json": json.dumps({**described, **derived}),
        "participants.tsv": "participant_id\tage\tsex\nsub-01\t34\tF\nsub-02\t61\tM\n",
        "participants.json": json.dumps({"age": {"Description": "Age", "Units": "year"}}),
        "sub-02/ses-b/anat/sub-02_ses-b_T1w.json": json.dumps({"SkullStripped": True}),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    names = ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_T1w", "sub-02/ses-b/anat/sub-02_ses-b_T1w")
    for number, name in enumerate(names, start=1):
        volume, seg = _head(cohort / "scans" / f"sub-{number:02d}.npz")
        save_volume(folder / f"{name}.nii.gz", volume, centred_affine(volume.shape))
        if number == 1:
            save_volume(
                folder / "derivatives/fs/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz", seg, centred_affine(volume.shape)
            )
    (folder / "sub-03/anat").mkdir(parents=True)
    (folder / "sub-03/anat/sub-03_T1w.nii.gz").write_bytes(b"no image")


def write_raw(cohort: Path, folder: Path) -> None:
    """Scans with segmentations that lie in different places of space, and one that is damaged."""
    for number, (degrees, shift) in enumerate(
        ((0.0, (0.0, 0.0, 0.0)), (6.0, (3.0, -2.0, 1.0)), (-8.0, (-2.0, 4.0, 2.0))), start=1
    ):
        volume, seg = _head(cohort / "scans" / f"sub-{number:02d}.npz")
        affine = turned_affine(volume.shape, degrees, shift)
        save_volume(folder / f"sub-{number:02d}.nii.gz", volume, affine)
        save_volume(folder / f"sub-{number:02d}_seg.nii.gz", seg, affine)
    (folder / "sub-04.nii.gz").write_bytes(b"no image")


def write_points(folder: Path) -> Path:
    """A table of points in RAS mm near the origin."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "points.csv"
    path.write_text("x,y,z\n0,0,0\n3.5,-4,2\n-5,6,-3.25\n8,2,7\n", encoding="utf-8")
    return path
