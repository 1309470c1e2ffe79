# SPDX-License-Identifier: Apache-2.0
"""ITK transforms in HDF5 (.h5): matrices and displacement fields, one after the other, as written by antsRegistration.

SimpleITK reads them in a separate process, ``python -m vxm_convert.transforms.itk_composite FILE FOLDER``: its HDF5
library crashes on some damaged files, and would allocate whatever a file claims.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Union

import numpy as np

from vxm_convert.artifacts.files import read_json, write_json
from vxm_convert.errors import FormatError, VolumeError
from vxm_convert.geometry.affines import Affine, from_lps
from vxm_convert.geometry.fields import Warp, check_finite, warp_from_frame
from vxm_convert.geometry.grids import LPS, Grid
from vxm_convert.geometry.maps import compose
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.raw_header import require_file
from vxm_convert.text import one_line, read_reason
from vxm_convert.transforms.itk import matrix_of
from vxm_convert.transforms.landing import check_folds
from vxm_convert.transforms.nifti_field import MAX_FIELD_VOXELS

if TYPE_CHECKING:
    import SimpleITK

itk = LazyModule("SimpleITK")

COMPOSITE_SUFFIXES = (".h5", ".hdf5")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: two fields of the largest allowed size, in float64
_MAX_BYTES = 2 * MAX_FIELD_VOXELS * 3 * 8
#: of the reading process
_MAX_MEMORY, _SECONDS = 12 << 30, 600
_MAX_STEPS = 16
_STEPS = "steps.json"


def is_composite(path: Path) -> bool:
    """Whether the suffix is one of ITK's transforms in HDF5."""
    return Path(path).suffix.lower() in COMPOSITE_SUFFIXES


def read_composite(path: Path, fixed: Optional[Grid] = None, moving: Optional[Grid] = None) -> Union[Warp, Affine]:
    """The composition of all transforms of a file: an affine if all are matrices, else one warp.

    Parameters
    ----------
    fixed : Grid — of the warp; default: that of the displacement field which is applied first.
    moving : Grid — of the moving image; default: the fixed grid.

    Raises
    ------
    VolumeError
        For a missing, damaged or too large file, and for transforms of another kind.
    """
    path = Path(path)
    _check_file(path)
    with tempfile.TemporaryDirectory() as folder:
        steps = [_step(entry, Path(folder), path) for entry in _read(path, Path(folder))]
    first = next((step for step in steps if isinstance(step, Warp)), None)
    if first is not None:
        return compose(steps, fixed or first.fixed, moving or fixed or first.fixed)
    pull = np.eye(4)
    for affine in (step for step in steps if isinstance(step, Affine)):
        pull = affine.pull @ pull
    return Affine(pull)


def _check_file(path: Path) -> None:
    require_file(path, "an ITK transform in HDF5")
    size = path.stat().st_size
    if not len(_SIGNATURE) < size <= _MAX_BYTES:
        raise VolumeError(f"{path}: {size} bytes, expected an ITK transform of at most {_MAX_BYTES} bytes")
    with open(str(path), "rb") as handle:
        start = handle.read(len(_SIGNATURE))
    if start != _SIGNATURE:
        raise VolumeError(f"{path}: starts with {start!r}, expected {_SIGNATURE!r}; this is not an HDF5 file")


def _read(path: Path, folder: Path) -> List[Dict[str, Any]]:
    """The steps in order of application, read by the separate process."""
    command = [sys.executable, "-m", __name__, str(path.resolve()), str(folder)]
    home = str(Path(__file__).resolve().parents[2])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        why = f"reading took more than {_SECONDS} s" if isinstance(exc, subprocess.TimeoutExpired) else read_reason(exc)
        raise VolumeError(f"{path}: SimpleITK cannot read it ({why}); write it again, or copy it again") from exc
    if done.returncode or not (folder / _STEPS).is_file():
        said = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        why = said[-1] if said and done.returncode == 1 else f"SimpleITK ended with code {done.returncode}"
        raise VolumeError(f"{path}: not a readable ITK transform: {one_line(why)}; write it again, or copy it again")
    steps: List[Dict[str, Any]] = read_json(folder / _STEPS)
    return steps


def _step(entry: Dict[str, Any], folder: Path, path: Path) -> Union[Warp, Affine]:
    try:
        if "matrix" in entry:
            return from_lps(np.array(entry["matrix"]))
        data = np.load(str(folder / entry["field"]), allow_pickle=False)
        grid = Grid(data.shape[:3], entry["affine"])
        check_finite(data, str(path))
        warp = warp_from_frame(data, "lps", grid, grid)
    except VolumeError as exc:
        raise exc if str(exc).startswith(str(path)) else VolumeError(f"{path}: {exc}") from exc
    check_folds(path, warp)
    return warp


# The separate process.


def _main(source: str, folder: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        steps = [
            _described(part, number, Path(folder)) for number, part in enumerate(_parts(itk.ReadTransform(source)))
        ]
        write_json(Path(folder) / _STEPS, steps)
    except (RuntimeError, MemoryError, ValueError, FormatError) as exc:
        sys.stdout.write("\n" + one_line(_why(exc)) + "\n")
        return 1
    return 0


def _why(exc: BaseException) -> str:
    """Our words for what SimpleITK says of a file."""
    if isinstance(exc, FormatError):
        return str(exc)
    if isinstance(exc, MemoryError):
        return f"it needs more than {_MAX_MEMORY >> 30} GiB"
    unknown = re.search(r'instance of "?(\w+)|transform type,? "?(\w+)', str(exc))
    if unknown:
        return f"SimpleITK does not know its transform {unknown.group(1) or unknown.group(2)}"
    return "it is damaged, or holds no transform"


def _parts(transform: SimpleITK.Transform) -> List[SimpleITK.Transform]:
    """The transforms of a composite in the order of their application: ITK applies the last one first."""
    if transform.GetTransformEnum() != itk.sitkComposite:
        return [transform]
    composite = itk.CompositeTransform(transform)
    composite.FlattenTransform()
    count = composite.GetNumberOfTransforms()
    if not 0 < count <= _MAX_STEPS:
        raise FormatError(f"{count} transforms, expected 1 to {_MAX_STEPS}")
    return [composite.GetNthTransform(number) for number in reversed(range(count))]


def _described(transform: SimpleITK.Transform, number: int, folder: Path) -> Dict[str, Any]:
    """A matrix unchanged, a field as a separate file: displacements in LPS mm (X, Y, Z, 3), voxel → RAS mm."""
    if transform.GetDimension() != 3:
        raise FormatError(f"{transform.GetName()} in {transform.GetDimension()} dimensions, expected 3")
    if transform.IsLinear():
        matrix = matrix_of(transform.GetName(), transform.GetParameters(), transform.GetFixedParameters())
        return {"matrix": matrix.tolist()}
    if transform.GetTransformEnum() != itk.sitkDisplacementField:
        raise FormatError(f"{transform.GetName()}, expected matrices and displacement fields")
    image = itk.DisplacementFieldTransform(transform).GetDisplacementField()
    if np.prod(image.GetSize(), dtype=float) > MAX_FIELD_VOXELS:
        raise FormatError(f"a field of {image.GetSize()} voxels, expected at most {MAX_FIELD_VOXELS}")
    name = f"field-{number}.npy"
    np.save(str(folder / name), itk.GetArrayViewFromImage(image).transpose(2, 1, 0, 3))
    return {"field": name, "affine": _ras_affine(image).tolist()}


def _ras_affine(image: SimpleITK.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
