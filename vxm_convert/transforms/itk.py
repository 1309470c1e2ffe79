# SPDX-License-Identifier: Apache-2.0
"""ITK transform files with matrices: Insight text (.txt, .tfm) and the MATLAB 4 binary (.mat) of ANTs. LPS, fixed →
moving.

SimpleITK interprets the parameters. The files are parsed here, because its readers crash if there are too few
parameters, allocate whatever a header claims, and take only the first of several transforms in a text.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from vxm_convert.errors import FormatError
from vxm_convert.lazy import LazyModule

if TYPE_CHECKING:
    import SimpleITK

itk = LazyModule("SimpleITK")

TEXT_START = "#Insight Transform File V1.0"
_MAX_TRANSFORMS = 16
_MAX_VALUES = 64
#: parameters of an affine transform: rows of its matrix, translation
_OF_A_MATRIX = 12


def parse_text(text: str) -> np.ndarray:
    """The product of all transforms of a file, fixed LPS → moving LPS; shape (4, 4).

    Of several transforms (a CompositeTransform) the last is applied first, as in ITK. Several without a
    CompositeTransform are a series over time (fMRIPrep's head motion), of which no one transform is meant.

    Raises
    ------
    FormatError
        For a transform that is not a matrix, or parameters that do not fit it.
    """
    if not text.startswith("#Insight Transform File"):
        raise FormatError(f"starts with {text[:24]!r}, expected {TEXT_START!r}")
    found: List[Tuple[str, Dict[str, List[float]]]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "Transform":
            found.append((value.strip(), {}))
        elif key in ("Parameters", "FixedParameters") and found:
            found[-1][1][key] = _numbers(value, key)
    matrices = [
        matrix_of(name, v.get("Parameters", []), v.get("FixedParameters", []))
        for name, v in found
        if "Composite" not in name
    ]
    if not matrices or len(matrices) > _MAX_TRANSFORMS:
        raise FormatError(f"{len(matrices)} transforms, expected 1 to {_MAX_TRANSFORMS}")
    if len(matrices) > 1 and not any("Composite" in name for name, _ in found):
        raise FormatError(
            f"{len(matrices)} transforms and no CompositeTransform: a series over time, one per volume (head motion)? "
            "Keep the one that is meant, or add a CompositeTransform if they form a chain"
        )
    total = np.eye(4)
    for matrix in matrices:
        total = total @ matrix
    return total


def format_text(matrix: np.ndarray) -> str:
    """Insight text of a matrix, fixed LPS → moving LPS, as an AffineTransform with its centre at the origin."""
    values = list(np.asarray(matrix)[:3, :3].ravel()) + list(np.asarray(matrix)[:3, 3])
    numbers = " ".join(repr(float(v)) for v in values)
    return (
        f"{TEXT_START}\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: "
        f"{numbers}\nFixedParameters: 0 0 0\n"
    )


def parse_binary(data: bytes) -> np.ndarray:
    """The matrix of an ANTs .mat; see `parse_text`."""
    parts: Dict[str, Sequence[float]] = {}
    at = 0
    while at < len(data) and len(parts) < 3:
        name, values, at = _read_matrix(data, at)
        parts[name] = values
    names = [name for name in parts if name != "fixed"]
    if len(names) != 1:
        raise FormatError(f"contains {sorted(parts)}, expected one transform and 'fixed', as written by ANTs")
    return matrix_of(names[0], parts[names[0]], parts.get("fixed", []))


def format_binary(matrix: np.ndarray) -> bytes:
    """ANTs' .mat of a matrix: two column vectors of float64, little endian."""
    values = list(np.asarray(matrix)[:3, :3].ravel()) + list(np.asarray(matrix)[:3, 3])
    out = b""
    for name, column in (("AffineTransform_double_3_3", values), ("fixed", [0.0, 0.0, 0.0])):
        out += struct.pack("<5i", 0, len(column), 1, 0, len(name) + 1) + name.encode("ascii") + b"\0"
        out += struct.pack(f"<{len(column)}d", *column)
    return out


def matrix_of(name: str, parameters: Sequence[float], fixed: Sequence[float]) -> np.ndarray:
    """4×4 matrix of one ITK transform.

    Parameters
    ----------
    name : str — from the file, such as ``AffineTransform_double_3_3``.
    parameters, fixed : sequences of float — its parameters; the fixed ones are the centre, and for Euler angles their
        order. SimpleITK accepts too few of them and reads beyond them in memory, so they are counted here.

    Raises
    ------
    FormatError
        If it is not a matrix in three dimensions, or the parameters do not fit it.
    """
    kind = name.split("_")[0]
    if kind == "IdentityTransform":
        return np.eye(4)
    if kind not in _KINDS:
        raise FormatError(f"transform {name!r}, expected a matrix: {', '.join(sorted(_KINDS))} in three dimensions")
    transform = _KINDS[kind]()
    count, most = len(transform.GetParameters()), len(transform.GetFixedParameters())
    if len(parameters) != count or not np.isfinite(parameters).all():
        raise FormatError(f"{name}: parameters {list(parameters)}, expected {count} finite numbers")
    if not np.isfinite(fixed).all():
        raise FormatError(f"{name}: centre {list(fixed)}, expected finite numbers")
    if "Versor" in kind and np.square(parameters[:3]).sum() > 1:
        raise FormatError(f"{name}: versor {list(parameters[:3])} is longer than 1")
    if len(fixed) >= 3 and most >= 3:
        transform.SetFixedParameters([float(value) for value in fixed[:most]])
    if count == _OF_A_MATRIX and not np.any(fixed):
        # Without a centre the numbers are the matrix, which must be read back digit for digit.
        values = np.asarray(parameters, dtype=float)
        return np.vstack([np.column_stack([values[:9].reshape(3, 3), values[9:]]), (0.0, 0.0, 0.0, 1.0)])
    transform.SetParameters([float(value) for value in parameters])
    return _matrix_from(transform)


def _matrix_from(transform: SimpleITK.Transform) -> np.ndarray:
    """The 4×4 matrix of a linear SimpleITK transform, from its images of the origin and the unit vectors."""
    origin, *ends = (np.array(transform.TransformPoint(point)) for point in np.eye(4, 3, k=-1).tolist())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.stack(ends, axis=-1) - origin[:, np.newaxis], origin
    return matrix


_KINDS: Dict[str, Callable[[], Any]] = {
    "AffineTransform": lambda: itk.AffineTransform(3),
    "MatrixOffsetTransformBase": lambda: itk.AffineTransform(3),
    "Euler3DTransform": lambda: itk.Euler3DTransform(),
    "VersorRigid3DTransform": lambda: itk.VersorRigid3DTransform(),
    "Similarity3DTransform": lambda: itk.Similarity3DTransform(),
    "ScaleVersor3DTransform": lambda: itk.ScaleVersor3DTransform(),
    "TranslationTransform": lambda: itk.TranslationTransform(3),
}


def _numbers(text: str, what: str) -> List[float]:
    words = text.split()
    if len(words) > _MAX_VALUES:
        raise FormatError(f"{what}: {len(words)} numbers, expected at most {_MAX_VALUES}")
    try:
        return [float(word) for word in words]
    except ValueError as exc:
        raise FormatError(f"{what}: {exc}") from exc


def _small(count: int) -> bool:
    return 1 <= count <= _MAX_VALUES


def _read_matrix(data: bytes, at: int) -> Tuple[str, List[float], int]:
    """One matrix of a MATLAB 4 file: five int32 (type, rows, columns, imaginary, length of the name), name, values by
    columns.
    """
    for order in "<>":
        try:
            kind, rows, columns, imaginary, length = struct.unpack_from(order + "5i", data, at)
        except struct.error as exc:
            raise FormatError(f"ends after {len(data)} bytes; copy the file again") from exc
        width = {0: "d", 10: "f", 1000: "d", 1010: "f"}.get(kind)
        if (
            width
            and (kind >= 1000) == (order == ">")
            and not imaginary
            and columns == 1
            and _small(rows)
            and _small(length)
        ):
            break
    else:
        raise FormatError(
            "not a small column of floats, expected a MATLAB 4 matrix; save the transform as Insight text"
        )
    at += 20
    name, count = data[at : at + length].split(b"\0")[0].decode("ascii", "replace"), struct.calcsize(width) * rows
    if at + length + count > len(data):
        raise FormatError(f"matrix {name!r} exceeds the end of the file; copy it again")
    return name, list(struct.unpack_from(f"{order}{rows}{width}", data, at + length)), at + length + count
