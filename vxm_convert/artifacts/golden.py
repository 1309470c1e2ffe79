# SPDX-License-Identifier: Apache-2.0
"""The folder of golden files that `export golden` writes and `om_runner compare-files` reads: names, orders, index.

Names follow the tools that take them: ais_bench reads one folder per input of the model, msame a file per input, both in the
model's order; ais_bench names results ``<stem of the first input>_<output>.<suffix>``; msaccucmp takes golden tensors
as ``<node>.<output>.<16 digits>.npy``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.errors import FormatError

INDEX_NAME = "golden.json"
COMMANDS_NAME = "commands.txt"
INPUTS_FOLDER, GOLDEN_FOLDER, DUMPS_FOLDER = "inputs", "golden", "golden_dumps"
#: suffixes of both forms
FORMS = ("bin", "npy")
GOLDEN_SCHEMA = 1
_MAX_INDEX_BYTES = 4 << 20
_STAMP = "0" * 16


@dataclass(frozen=True)
class End:
    """An input or output of the model: its position, meaning, node, shape and dtype."""

    index: int
    meaning: str
    node: str
    shape: Tuple[int, ...]
    dtype: str = "float32"

    @property
    def count(self) -> int:
        """Number of values."""
        total = 1
        for side in self.shape:
            total *= side
        return total


@dataclass(frozen=True)
class GoldenIndex:
    """What the folder holds.

    Parameters
    ----------
    stems : tuple of str — one per execution, in order; the beginning of its files' names.
    subjects : int — subjects per execution, the model's batch.
    inputs, outputs : tuple of End — in the model's order.
    frozen_pb : str — sha256 of the graph that TensorFlow ran.
    spacing_mm : three floats — voxel size of the network grid.
    """

    stems: Tuple[str, ...]
    subjects: int
    inputs: Tuple[End, ...]
    outputs: Tuple[End, ...]
    frozen_pb: str
    spacing_mm: Tuple[float, float, float]

    def save(self, folder: Path) -> None:
        write_json(Path(folder) / INDEX_NAME, {"golden_schema": GOLDEN_SCHEMA, "kind": "golden", **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> GoldenIndex:
        """Read and check; raises ArtifactError or FormatError."""
        path = Path(folder) / INDEX_NAME
        advice = "pass a folder that `python -m export golden` wrote"
        data = parse_json(read_bounded(path, _MAX_INDEX_BYTES, "the index of golden files", advice), str(path), advice)
        if not isinstance(data, dict) or data.get("golden_schema") != GOLDEN_SCHEMA or data.get("kind") != "golden":
            raise FormatError(f"{path}: holds no golden files of schema {GOLDEN_SCHEMA}; {advice}")
        try:
            spacing = [float(size) for size in data["spacing_mm"]]
            if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
                raise ValueError(f"spacing_mm {spacing}")
            return cls(
                tuple(_plain_name(stem) for stem in data["stems"]),
                _whole(data["subjects"]),
                tuple(_end(entry) for entry in data["inputs"]),
                tuple(_end(entry) for entry in data["outputs"]),
                str(data["frozen_pb"]),
                (spacing[0], spacing[1], spacing[2]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise FormatError(f"{path}: malformed entry ({exc!s:.200}); {advice}") from exc


def _end(entry: Dict[str, Any]) -> End:
    shape = tuple(_whole(side) for side in entry["shape"])
    if entry["dtype"] not in ("float32", "float16"):
        raise ValueError(f"dtype {entry['dtype']!r}")
    return End(int(entry["index"]), _plain_name(entry["meaning"]), str(entry["node"]), shape, entry["dtype"])


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 1 << 31:
        raise ValueError(f"got {value!r}, expected a whole number from 1")
    return value


def _plain_name(text: Any) -> str:
    """A name that cannot leave its folder."""
    if not isinstance(text, str) or not text or text.startswith(".") or set(text) & set("/\\\0"):
        raise ValueError(f"name {text!r}")
    return text


def input_folder(end: End, form: str) -> Path:
    """Below the golden folder, for one input of the model."""
    return Path(INPUTS_FOLDER) / form / f"{end.index}_{end.meaning}"


def output_name(stem: str, end: End, form: str) -> str:
    """As ais_bench names a result."""
    return f"{stem}_{end.index}.{form}"


def dump_name(node: str, index: int = 0) -> str:
    """As msaccucmp wants golden tensors named."""
    return f"{node.replace('/', '_').replace('.', '_')}.{index}.{_STAMP}.npy"


def commands(index: GoldenIndex) -> List[str]:
    """Command lines of the tools for this folder, to be called in it."""
    return [
        "# ais_bench (one folder per input, in the model's order)",
        f"python3 -m ais_bench --model vxm.om --input {_joined(index.inputs, 'npy')} --output results --outfmt NPY",
        "# msame",
        f"msame --model vxm.om --input {_joined(index.inputs, 'bin')} --output results --outfmt BIN",
        "# msaccucmp, for the dumps of one execution",
        f"python3 msaccucmp.py compare -m DUMP_DIR -g {DUMPS_FOLDER}/{index.stems[0]} -out results",
        "# judge by a profile",
        "python -m om_runner compare-files --golden . --results results",
    ]


def _joined(ends: Sequence[End], form: str) -> str:
    return ",".join(input_folder(end, form).as_posix() for end in ends)
