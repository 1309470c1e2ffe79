# SPDX-License-Identifier: Apache-2.0
"""Results that other tools wrote for golden inputs: found by their names, checked by their size, in the form of the
report.

msame writes ``<folder>/<model>_output_<i>.bin``, a folder per execution; ais_bench ``<stem>_<i>.bin|npy`` in one folder;
msaccucmp's conversion of dumps is not an output of the model and is not read here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

from vxm_convert.artifacts.golden import GOLDEN_FOLDER, End, GoldenIndex, input_folder, output_name
from vxm_convert.errors import ArtifactError, ContractError, FormatError

_MSAME = re.compile(r"^.+_output_(\d+)\.(bin|npy)$")
_AIS_BENCH = re.compile(r"^(?P<stem>.+)_(?P<index>\d+)\.(bin|npy)$")
_TEXT = re.compile(r"^.+_\d+\.txt$")
#: the longest header of an .npy file that NumPy writes for such arrays
_NPY_HEADER = 4096
Found = Dict[Tuple[str, int], Path]


def find_results(folder: Path, index: GoldenIndex) -> Found:
    """(stem of the execution, number of the output) → file.

    Raises
    ------
    ArtifactError
        If there is no result, or one is missing.
    ContractError
        If there are two results for one output, or as many folders of msame as there are no executions.
    """
    if not Path(folder).is_dir():
        raise ArtifactError(f"{folder}: no such folder; pass the output folder of msame or ais_bench with --results")
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    found = _by_folder(folder, files, index) if any(_MSAME.match(p.name) for p in files) else _by_stem(files, index)
    wanted = [(stem, end.index) for stem in index.stems for end in index.outputs]
    missing = [key for key in wanted if key not in found]
    if missing:
        stem, number = missing[0]
        texts = any(_TEXT.match(path.name) for path in files)
        advice = "; text files are not read: let the tool write --outfmt BIN or NPY" if texts else ""
        raise ArtifactError(
            f"{folder}: has {len(found)} of {len(wanted)} results; the first missing one is output {number} of {stem} "
            f"({stem}_{number}.bin or .npy of ais_bench, <model>_output_{number}.bin of msame){advice}"
        )
    return {key: found[key] for key in wanted}


def _by_stem(files: List[Path], index: GoldenIndex) -> Found:
    found: Found = {}
    for path in files:
        match = _AIS_BENCH.match(path.name)
        if match is None or match.group("stem") not in index.stems:
            continue
        key = (match.group("stem"), int(match.group("index")))
        if key in found and found[key].parent != path.parent:
            raise ContractError(
                f"{path}: is a second result for output {key[1]} of {key[0]}, the first is {found[key]}; pass the folder "
                "of one run"
            )
        found[key] = path
    return found


def _by_folder(folder: Path, files: List[Path], index: GoldenIndex) -> Found:
    """msame's folders are named by their time, so their order is that of the executions."""
    groups: Dict[Path, Dict[int, Path]] = {}
    for path in files:
        match = _MSAME.match(path.name)
        if match is not None:
            groups.setdefault(path.parent, {})[int(match.group(1))] = path
    if len(groups) != len(index.stems):
        raise ContractError(
            f"{folder}: has results of {len(groups)} executions of msame, the golden files of {len(index.stems)}; pass a "
            "folder with one run of each, in order"
        )
    return {
        (stem, number): path
        for stem, group in zip(index.stems, sorted(groups, key=_time_of))
        for number, path in groups[group].items()
    }


def _time_of(folder: Path) -> Tuple[List[int], str]:
    """``2026_1_9_8_7_6_123456`` in the order of time, not of letters."""
    return [int(number) for number in re.findall(r"\d+", folder.name)], folder.name


def read_result(path: Path, end: End) -> np.ndarray:
    """A result as float32 of the output's shape.

    Raises
    ------
    FormatError
        If its size is neither that of fp32 nor of fp16 values, or an .npy file has another shape.
    """
    try:
        size = path.stat().st_size
        if path.suffix == ".npy":
            return _read_npy(path, end, size)
        for dtype in (np.float32, np.float16):
            if size == end.count * np.dtype(dtype).itemsize:
                return np.fromfile(str(path), dtype).reshape(end.shape).astype(np.float32)
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    raise FormatError(
        f"{path}: has {size} bytes, output {end.index} ({end.meaning}) has {end.count * 4} in fp32 or {end.count * 2} in "
        "fp16; it is the result of another model"
    )


def _read_npy(path: Path, end: End, size: int) -> np.ndarray:
    if size > end.count * 8 + _NPY_HEADER:
        raise FormatError(f"{path}: has {size} bytes, too many for output {end.index} {end.shape}")
    try:
        # Mapped, so that a header cannot ask for more memory than the file has.
        array = np.load(str(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as exc:
        raise FormatError(f"{path}: is no .npy file of numbers ({exc})") from exc
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.size != end.count:
        got = getattr(array, "shape", "no array")
        raise FormatError(f"{path}: holds {got}, output {end.index} ({end.meaning}) is {end.shape} of floats")
    return np.array(array, np.float32).reshape(end.shape)


def golden_arrays(folder: Path, index: GoldenIndex, stem: str) -> Dict[str, np.ndarray]:
    """Inputs and TensorFlow's outputs of one execution by meaning, float32."""
    arrays = {
        end.meaning: read_result(Path(folder) / input_folder(end, "npy") / f"{stem}.npy", end) for end in index.inputs
    }
    for end in index.outputs:
        arrays[end.meaning] = read_result(Path(folder) / GOLDEN_FOLDER / "npy" / output_name(stem, end, "npy"), end)
    return arrays
