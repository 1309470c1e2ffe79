# SPDX-License-Identifier: Apache-2.0
"""A synthetic cohort: an atlas and subjects that are known smooth deformations of it. For demos and tests, never for
science.

Owns the shapes of the phantom and the random fields. NumPy and SciPy only; the same seed gives the same files. Axes are
those of the network grid: index 0 increases to the left, index 1 to inferior, index 2 to anterior.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Tuple

import numpy as np

from vxm_convert.artifacts.files import check_output_folder, write_json
from vxm_convert.errors import SpecError
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.npz import write_npz

ndimage = LazyModule("scipy.ndimage")
ATLAS_FILE = "atlas.npz"
SCANS_FOLDER = "scans"
TRUTH_FOLDER = "truth"
MAX_SUBJECTS = 1000
_INTEGRATION_STEPS = 7

Vector = Tuple[float, float, float]


@dataclass(frozen=True)
class Structure:
    """An ellipsoid (or a pair, mirrored) in head coordinates, each axis -1..1.

    Parameters
    ----------
    left, right : int — FreeSurfer ids; equal for a structure on the midline.
    intensity : float — typical value in a FreeSurfer-normalised scan, 0..255.
    centre, radii : 3 floats — of the left one.
    """

    left: int
    right: int
    intensity: float
    centre: Vector
    radii: Vector


_WHITE_CENTRE: Vector = (0.0, -0.12, 0.0)
_CORTEX_RADII: Vector = (0.80, 0.66, 0.88)
_GYRUS_DEPTH = 0.07
_GYRUS_FREQUENCY = 11.0

#: Painted in this order, later ones over earlier ones; with cortex and white matter these are the 30 labels of the
#: VoxelMorph paper.
STRUCTURES: Tuple[Structure, ...] = (
    Structure(8, 47, 72.0, (0.26, 0.48, -0.46), (0.30, 0.24, 0.30)),  # cerebellum cortex
    Structure(7, 46, 104.0, (0.24, 0.48, -0.44), (0.17, 0.13, 0.17)),  # cerebellum white matter
    Structure(16, 16, 98.0, (0.0, 0.50, -0.08), (0.14, 0.36, 0.15)),  # brain-stem
    Structure(28, 60, 96.0, (0.13, 0.22, 0.02), (0.10, 0.09, 0.13)),  # ventral diencephalon
    Structure(10, 49, 92.0, (0.14, 0.06, -0.08), (0.11, 0.11, 0.16)),  # thalamus
    Structure(11, 50, 80.0, (0.20, -0.08, 0.24), (0.08, 0.14, 0.16)),  # caudate
    Structure(12, 51, 84.0, (0.38, 0.06, 0.12), (0.09, 0.16, 0.22)),  # putamen
    Structure(13, 52, 100.0, (0.28, 0.09, 0.06), (0.07, 0.10, 0.13)),  # pallidum
    Structure(17, 53, 72.0, (0.38, 0.30, -0.14), (0.10, 0.09, 0.24)),  # hippocampus
    Structure(18, 54, 70.0, (0.38, 0.30, 0.20), (0.11, 0.10, 0.11)),  # amygdala
    Structure(4, 43, 28.0, (0.13, -0.14, -0.02), (0.08, 0.11, 0.38)),  # lateral ventricle
    Structure(31, 63, 50.0, (0.14, -0.12, -0.18), (0.045, 0.06, 0.12)),  # choroid plexus
    Structure(14, 14, 30.0, (0.0, 0.06, 0.02), (0.045, 0.13, 0.18)),  # third ventricle
    Structure(15, 15, 30.0, (0.0, 0.46, -0.28), (0.08, 0.13, 0.07)),  # fourth ventricle
    Structure(24, 24, 26.0, (0.0, 0.36, 0.28), (0.10, 0.08, 0.10)),  # CSF
)
CORTEX_AND_WHITE = {3: 74.0, 42: 74.0, 2: 110.0, 41: 110.0}


@dataclass(frozen=True)
class PhantomSettings:
    """Settings of a cohort.

    Parameters
    ----------
    shape : (int, int, int) — voxels, each side ≥ 16.
    subjects : int — 1..1000.
    seed : int — ≥ 0; the same seed gives the same cohort.
    displacement : float — typical largest displacement as a fraction of each side.
    noise : float — standard deviation of the noise, grey values of 255.
    """

    shape: Tuple[int, int, int]
    subjects: int = 4
    seed: int = 0
    displacement: float = 0.10
    noise: float = 1.5

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 16 or max(self.shape) > 512:
            raise SpecError(
                f"phantom shape: got {self.shape}, expected three sides of 16 to 512 voxels; pass --shape 48,64,64"
            )
        if not 1 <= self.subjects <= MAX_SUBJECTS:
            raise SpecError(f"phantom subjects: got {self.subjects}, expected 1 to {MAX_SUBJECTS}; pass --subjects 4")
        if not 0 <= self.seed < 2**31:
            raise SpecError(f"phantom seed: got {self.seed}, expected 0 to {2**31 - 1}; pass --seed 0")


@dataclass(frozen=True)
class Phantom:
    """One head.

    Parameters
    ----------
    vol : ndarray, shape (X, Y, Z), uint8 — intensity 0..255.
    seg : ndarray, shape (X, Y, Z), int16 — FreeSurfer ids.
    flow : ndarray, shape (X, Y, Z, 3), float32 — displacement in voxels of the atlas grid that pulls this head onto the
        atlas:
        ``atlas(p) = head(p + flow(p))``; zero for the atlas.
    """

    vol: np.ndarray
    seg: np.ndarray
    flow: np.ndarray


def write_cohort(
    folder: Path, settings: PhantomSettings, progress: Callable[[Iterable[int]], Iterable[int]] = iter
) -> List[Path]:
    """Write ``atlas.npz``, ``scans/sub-NN.npz``, ``truth/sub-NN_flow.npz`` and ``phantom.json``.

    The true flows are in a separate folder, so that ``scans`` can be registered directly.

    Returns
    -------
    list of Path — the scans.
    """
    folder = check_output_folder(folder)
    write_npz(folder / ATLAS_FILE, _volumes(make_atlas(settings)))
    scans = []
    for index in progress(range(settings.subjects)):
        name = f"sub-{index + 1:02d}"
        head = make_subject(settings, index)
        write_npz(folder / TRUTH_FOLDER / f"{name}_flow.npz", {"flow": head.flow})
        write_npz(folder / SCANS_FOLDER / f"{name}.npz", _volumes(head))
        scans.append(folder / SCANS_FOLDER / f"{name}.npz")
    write_json(folder / "phantom.json", {"kind": "synthetic phantom, not a brain", **asdict(settings)})
    return scans


def make_atlas(settings: PhantomSettings) -> Phantom:
    """The undeformed head, with its own noise."""
    rng = np.random.RandomState(settings.seed)
    grid = voxel_grid(settings.shape)
    seg = _label_map(grid)
    return Phantom(_scan(seg, settings, rng), seg, np.zeros(settings.shape + (3,), np.float32))


def make_subject(settings: PhantomSettings, index: int) -> Phantom:
    """The head deformed by a diffeomorphism exp(v); its true flow is exp(-v) - id.

    Labels are evaluated at the deformed coordinates, not resampled, so the segmentation is exact.
    """
    rng = np.random.RandomState([settings.seed, index + 1])
    velocity = random_velocity(settings, rng)
    grid = voxel_grid(settings.shape)
    seg = _label_map(grid + integrate(velocity))
    return Phantom(_scan(seg, settings, rng), seg, np.moveaxis(integrate(-velocity), 0, -1).astype(np.float32))


def integrate(velocity: np.ndarray, steps: int = _INTEGRATION_STEPS) -> np.ndarray:
    """Displacement of the flow of a stationary velocity, by scaling and squaring.

    Parameters
    ----------
    velocity : ndarray, shape (3, X, Y, Z), float — voxels per unit time.

    Returns
    -------
    ndarray, shape (3, X, Y, Z), float64 — ``exp(v)(p) - p`` in voxels.
    """
    grid = voxel_grid(velocity.shape[1:])
    displacement = velocity / 2.0**steps
    for _ in range(steps):
        at = grid + displacement
        displacement = displacement + np.stack(
            [ndimage.map_coordinates(c, at, order=1, mode="nearest") for c in displacement]
        )
    return displacement


def _volumes(head: Phantom) -> Dict[str, np.ndarray]:
    return {"vol": head.vol, "seg": head.seg}


def voxel_grid(shape: Tuple[int, ...]) -> np.ndarray:
    """(3, X, Y, Z) float64 voxel indices."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"))


def _label_map(coordinates: np.ndarray) -> np.ndarray:
    """Labels of the undeformed head at voxel coordinates (3, X, Y, Z); int16 (X, Y, Z)."""
    sides = np.array(coordinates.shape[1:], dtype=np.float64).reshape(3, 1, 1, 1)
    head = 2.0 * coordinates / (sides - 1.0) - 1.0
    is_left = head[0] >= 0
    labels = np.zeros(coordinates.shape[1:], np.int16)
    depth = _ellipsoid(head, _WHITE_CENTRE, _CORTEX_RADII)
    # Folds: the boundary of the white matter oscillates about the inner side of the cortex.
    folds = (
        _GYRUS_DEPTH
        * np.sin(_GYRUS_FREQUENCY * head[0])
        * np.sin(_GYRUS_FREQUENCY * head[1])
        * np.sin(_GYRUS_FREQUENCY * head[2])
    )
    for inside, left, right in ((depth < 1.0, 3, 42), (depth + folds < 0.80, 2, 41)):
        labels[inside & is_left] = left
        labels[inside & ~is_left] = right
    for one in STRUCTURES:
        labels[_ellipsoid(head, one.centre, one.radii) < 1.0] = one.left
        if one.right != one.left:
            labels[_ellipsoid(head, (-one.centre[0],) + one.centre[1:], one.radii) < 1.0] = one.right
    return labels


def _ellipsoid(head: np.ndarray, centre: Vector, radii: Vector) -> np.ndarray:
    """Normalised distance from the centre: below 1 is inside."""
    return np.sqrt(sum(((head[d] - centre[d]) / radii[d]) ** 2 for d in range(3)))


def _scan(seg: np.ndarray, settings: PhantomSettings, rng: np.random.RandomState) -> np.ndarray:
    """uint8 scan of a label map: tissue values, partial volume, a mild bias field, noise; zero outside the head."""
    lookup = np.zeros(int(seg.max()) + 1)
    table = dict(CORTEX_AND_WHITE)
    for one in STRUCTURES:
        table[one.left] = table[one.right] = one.intensity
    for label, value in table.items():
        if label < len(lookup):
            lookup[label] = value
    image = ndimage.gaussian_filter(lookup[seg], 0.6)
    bias = 1.0 + 0.05 * smooth_field(settings.shape, rng, 4.0)
    image = image * bias + rng.normal(0.0, settings.noise, settings.shape)
    image[seg == 0] = 0.0
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def random_velocity(settings: PhantomSettings, rng: np.random.RandomState) -> np.ndarray:
    """(3, X, Y, Z) smooth velocity in voxels, at most `displacement` of each side."""
    return np.stack([settings.displacement * n * smooth_field(settings.shape, rng, 8.0) for n in settings.shape])


def smooth_field(shape: Tuple[int, ...], rng: np.random.RandomState, waves: float) -> np.ndarray:
    """Gaussian-filtered noise, scaled to a largest magnitude of 1; `waves` is the side divided by the filter's sigma."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), [n / waves for n in shape], mode="reflect")
    return field / np.abs(field).max()
