# SPDX-License-Identifier: Apache-2.0
"""ITK transform files with matrices: Insight text (.txt, .tfm) and the MATLAB 4 binary (.mat) of ANTs. LPS, fixed →
moving.

Source of the parameter orders: ITK's transform classes. The binary is parsed here, not by a general MATLAB reader,
because only two small real matrices may stand in it.
"""

from __future__ import annotations

import math
import struct
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from vxm_convert.errors import FormatError

TEXT_START = "#Insight Transform File V1.0"
_MAX_TRANSFORMS = 16
_MAX_VALUES = 64


def parse_text(text: str) -> np.ndarray:
    """The one matrix, fixed LPS → moving LPS, that all transforms of a file make together; shape (4, 4).

    Of several transforms (a CompositeTransform) the last is applied first, as ITK does.

    Raises
    ------
    FormatError
        For a transform that is no matrix, or parameters that do not fit it.
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
    parts, at = {}, 0
    while at < len(data) and len(parts) < 3:
        name, values, at = _read_matrix(data, at)
        parts[name] = values
    names = [name for name in parts if name != "fixed"]
    if len(names) != 1:
        raise FormatError(f"holds {sorted(parts)}, expected one transform and 'fixed', as ANTs writes them")
    return matrix_of(names[0], parts[names[0]], parts.get("fixed", []))


def format_binary(matrix: np.ndarray) -> bytes:
    """ANTs' .mat of a matrix: two column vectors of float64, little endian."""
    values = list(np.asarray(matrix)[:3, :3].ravel()) + list(np.asarray(matrix)[:3, 3])
    out = b""
    for name, column in (("AffineTransform_double_3_3", values), ("fixed", [0.0, 0.0, 0.0])):
        out += struct.pack("<5i", 0, len(column), 1, 0, len(name) + 1) + name.encode("ascii") + b"\0"
        out += struct.pack(f"<{len(column)}d", *column)
    return out


def matrix_of(name: str, parameters: Sequence[float], centre: Sequence[float]) -> np.ndarray:
    """4×4 matrix of one ITK transform: y = M (x − c) + c + t."""
    kind = name.split("_")[0]
    if kind == "IdentityTransform":
        return np.eye(4)
    if kind not in _KINDS:
        raise FormatError(f"transform {name!r}, expected a matrix: {', '.join(sorted(_KINDS))} in three dimensions")
    count, linear = _KINDS[kind]
    values = np.asarray(parameters, dtype=np.float64)
    if len(values) != count or not np.isfinite(values).all():
        raise FormatError(f"{name}: parameters {list(parameters)}, expected {count} finite numbers")
    c = np.asarray(list(centre)[:3] if kind != "TranslationTransform" and len(centre) >= 3 else [0.0, 0.0, 0.0])
    if kind == "Euler3DTransform" and len(centre) == 4 and centre[3] != 0:
        linear = _euler_zyx
    if not np.isfinite(c).all():
        raise FormatError(f"{name}: centre {list(centre)}, expected finite numbers")
    matrix = np.eye(4)
    matrix[:3, :3] = linear(values)
    matrix[:3, 3] = _translation(kind, values) + c - matrix[:3, :3] @ c
    return matrix


def _translation(kind: str, values: np.ndarray) -> np.ndarray:
    return values[3:6] if kind == "Similarity3DTransform" else values[-3:]


def _matrix(values: np.ndarray) -> np.ndarray:
    return values[:9].reshape(3, 3)


def _axis_turns(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(values[:3]), np.sin(values[:3])
    return (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]),
        np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]),
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]),
    )


def _euler(values: np.ndarray) -> np.ndarray:
    """ITK's default order: Z X Y."""
    x, y, z = _axis_turns(values)
    return z @ x @ y


def _euler_zyx(values: np.ndarray) -> np.ndarray:
    x, y, z = _axis_turns(values)
    return z @ y @ x


def _versor(values: np.ndarray) -> np.ndarray:
    x, y, z = values[:3]
    squared = float(x * x + y * y + z * z)
    if squared > 1:
        raise FormatError(f"versor ({x:g}, {y:g}, {z:g}) is longer than 1")
    w = math.sqrt(1 - squared)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


_KINDS: Dict[str, Tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "AffineTransform": (12, _matrix),
    "MatrixOffsetTransformBase": (12, _matrix),
    "Euler3DTransform": (6, _euler),
    "VersorRigid3DTransform": (6, _versor),
    "Similarity3DTransform": (7, lambda v: v[6] * _versor(v)),
    "TranslationTransform": (3, lambda v: np.eye(3)),
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
            "no small column of floats where a MATLAB 4 matrix was expected; save the transform as Insight text"
        )
    at += 20
    name, count = data[at : at + length].split(b"\0")[0].decode("ascii", "replace"), struct.calcsize(width) * rows
    if at + length + count > len(data):
        raise FormatError(f"matrix {name!r} runs over the end of the file; copy it again")
    return name, list(struct.unpack_from(f"{order}{rows}{width}", data, at + length)), at + length + count
