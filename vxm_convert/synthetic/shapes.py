# SPDX-License-Identifier: Apache-2.0
"""Pairs of random smooth label maps with a known deformation between them: training data without any anatomy.

A network that learns to register arbitrary shapes with arbitrary contrast learns only registration (the idea of
SynthMorph: Hoffmann et al., IEEE TMI 2022, section III-A; here both images of a pair share their contrast, because the
losses compare intensities). Owns the maps and their contrast; deformations and files are those of
`vxm_convert.synthetic.heads`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Iterable, Tuple

import numpy as np

from vxm_convert.artifacts.files import check_output_folder, write_json, write_text
from vxm_convert.lazy import LazyModule
from vxm_convert.metrics.labels import label_set
from vxm_convert.scans.npz import write_npz
from vxm_convert.synthetic.heads import (
    SCANS_FOLDER,
    TRUTH_FOLDER,
    Phantom,
    PhantomSettings,
    integrate,
    random_velocity,
    smooth_field,
    voxel_grid,
)

ndimage = LazyModule("scipy.ndimage")
PAIRS_FILE = "pairs.csv"
#: makes a pair's random numbers independent of those of the heads with the same seed
_STREAM = 7
#: coarse and fine shapes, as sigma in voxels of the fields; the largest field decides. Gyri are about 3 voxels wide,
#: ventricles 10
_SIGMAS = (2.5, 4.0, 7.0, 12.0)
_MAX_BRIGHTNESS = 150.0
_PARTIAL_VOLUME_SIGMA = 0.7


def write_pairs(
    folder: Path, settings: PhantomSettings, progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Path:
    """Write ``scans/pair-NN_moving.npz``, ``scans/pair-NN_fixed.npz``, ``truth/pair-NN_flow.npz``, ``pairs.csv``,
    ``phantom.json``.

    Returns
    ------- Path — the manifest, for ``--data`` of ``python -m train``.
    """
    folder = check_output_folder(folder)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["moving", "fixed"])
    for index in progress(range(settings.subjects)):
        moving, fixed = make_pair(settings, index)
        name = f"pair-{index + 1:02d}"
        names = [f"{SCANS_FOLDER}/{name}_{role}.npz" for role in ("moving", "fixed")]
        for path, head in zip(names, (moving, fixed)):
            write_npz(folder / path, {"vol": head.vol, "seg": head.seg})
        write_npz(folder / TRUTH_FOLDER / f"{name}_flow.npz", {"flow": moving.flow})
        rows.writerow(names)
    write_json(folder / "phantom.json", {"kind": "random shapes, not a brain", **asdict(settings)})
    write_text(folder / PAIRS_FILE, table.getvalue())
    return folder / PAIRS_FILE


def make_pair(settings: PhantomSettings, index: int) -> Tuple[Phantom, Phantom]:
    """Moving and fixed image of pair `index`; ``fixed(p) = moving(p + flow(p))`` with the moving one's `flow`.

    The moving labels are those of the fixed image at coordinates deformed by exp(v), nearest neighbour, so its true
    flow is exp(-v) - id. Ids are those of `paper30`, so that Dice can be computed; they do not name structures.
    """
    rng = np.random.RandomState([settings.seed, _STREAM, index + 1])
    labels = _random_labels(settings.shape, rng)
    contrast = _random_contrast(rng)
    velocity = random_velocity(settings, rng)
    at = voxel_grid(settings.shape) + integrate(velocity)
    moved_labels = ndimage.map_coordinates(labels, at, order=0, mode="constant", cval=0)
    flow = np.moveaxis(integrate(-velocity), 0, -1).astype(np.float32)
    still = np.zeros_like(flow)
    return Phantom(_image(moved_labels, contrast, settings, rng), moved_labels, flow), Phantom(
        _image(labels, contrast, settings, rng), labels, still
    )


def _random_labels(shape: Tuple[int, ...], rng: np.random.RandomState) -> np.ndarray:
    """int16 (X, Y, Z): at each voxel the label whose smooth random field is largest, 0 outside a lumpy ellipsoid."""
    best = np.full(shape, -np.inf)
    labels = np.zeros(shape, np.int16)
    for label in label_set("paper30"):
        sigma = _SIGMAS[rng.randint(len(_SIGMAS))]
        # Equal spread for all widths; otherwise the fine fields, with the weakest noise after smoothing, would never be
        # the largest.
        field = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
        field /= field.std()
        wins = field > best
        best[wins], labels[wins] = field[wins], label
    centred = [2.0 * axis / (n - 1.0) - 1.0 for axis, n in zip(voxel_grid(shape), shape)]
    outline = sum((axis / 0.88) ** 2 for axis in centred) + 0.25 * smooth_field(shape, rng, 8.0)
    labels[outline > 1.0] = 0
    return labels


def _random_contrast(rng: np.random.RandomState) -> np.ndarray:
    """Grey value 0..255 of every label id; background is black, as in skull-stripped scans."""
    ids = label_set("paper30")
    lookup = np.zeros(max(ids) + 1)
    lookup[list(ids)] = rng.uniform(15.0, _MAX_BRIGHTNESS, len(ids))
    return lookup


def _image(
    labels: np.ndarray, contrast: np.ndarray, settings: PhantomSettings, rng: np.random.RandomState
) -> np.ndarray:
    """uint8 scan of a label map: partial volume, a mild bias field, noise inside."""
    image = ndimage.gaussian_filter(contrast[labels], _PARTIAL_VOLUME_SIGMA)
    image *= 1.0 + 0.05 * smooth_field(settings.shape, rng, 4.0)
    image += rng.normal(0.0, settings.noise, settings.shape) * (labels > 0)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
