# SPDX-License-Identifier: Apache-2.0
"""Messages about files that cannot be read are ours: what, where, expected, do this; not what zlib, zipfile, nibabel,
HDF5 or ITK say.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import h5py
import nibabel as nib
import numpy as np
import pytest

from tests.support import fakes
from train.data.scan_list import read_manifest
from vxm_convert.affine import affine_search, simpleitk
from vxm_convert.errors import VxmError
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.scan_file import ScanFile
from vxm_convert.text import read_reason
from vxm_convert.transforms.affines import read_affine
from vxm_convert.transforms.points import read_points
from vxm_convert.transforms.warps import read_warp, write_warp
from vxm_convert.weights.keras_h5 import open_h5

#: words that only a library says
FOREIGN = re.compile(
    r"Error -?\d|Errno|zlib|invalid (?:block|stored|distance|literal|code|bit)|incorrect (?:header|data)|CRC|end-of-stream|"
    r"BadZip|zip file|EOCD|magic number|codec|itk::|ITK ERROR|SimpleITK/|H5F|H5O|errno|<class|object at|0x[0-9a-f]{4}|"
    r"buffer size|reshape|dtype\(|Traceback|hdr|pixdim|sizeof|None"
)
GRID = Grid(fakes.SHAPE, network_affine(fakes.SHAPE))


def _h5(path: Path) -> None:
    with open_h5(path) as found:
        for dataset in found.values():
            np.array(dataset)


def _scan(path: Path) -> None:
    ScanFile(path).image()
    ScanFile(path).labels()


def _make(folder: Path) -> Dict[str, Tuple[bytes, Callable[[Path], Any]]]:
    """Name → the bytes of a good file, and what reads it."""
    image = fakes.brain(1)[0]
    flow = np.random.RandomState(0).uniform(-1, 1, fakes.SHAPE + (3,)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, GRID.affine), str(folder / "a.nii"))
    nib.save(nib.Nifti1Image(image, GRID.affine), str(folder / "a.nii.gz"))
    nib.save(nib.MGHImage(image, GRID.affine), str(folder / "a.mgz"))
    fakes.write_scan(folder / "a.npz", 1)
    write_warp(folder / "w.nii.gz", Warp(flow, GRID, GRID), "itk", {}, {"kind": "none"})
    with h5py.File(str(folder / "m.h5"), "w") as handle:
        handle.create_dataset("model_weights/conv3d/conv3d/kernel:0", data=flow, compression="gzip")
    readers: Dict[str, Callable[[Path], Any]] = dict.fromkeys(("a.nii", "a.nii.gz", "a.mgz", "a.npz"), _scan)
    readers.update({"w.nii.gz": read_warp, "m.h5": _h5})
    return {name: ((folder / name).read_bytes(), read) for name, read in readers.items()}


def _damaged(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data + b"more" * rng.randrange(1, 99)
    if kind == 2:
        return data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :]
    out = bytearray(data)
    for _ in range(rng.choice((1, 8))):
        # Headers more often than voxels
        at = rng.randrange(min(len(out), 400)) if kind == 3 else rng.randrange(len(out))
        out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def test_damaged_files_are_described_in_words_of_ours(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    told: List[str] = []
    for name, (data, read) in _make(good).items():
        for seed in range(40):
            path = bad / name
            path.write_bytes(_damaged(data, random.Random(seed)))
            try:
                read(path)
            except VxmError as exc:
                told.append(str(exc))
                assert str(exc).startswith(str(path)), (name, seed, str(exc))
                assert not FOREIGN.search(str(exc).replace(str(path), "")), (name, seed, str(exc))
    assert len(told) > 100 and len({re.sub(r"\d+", "", text) for text in told}) > 20


@pytest.mark.parametrize(
    "name, read",
    [
        ("points.csv", read_points),
        ("points.fcsv", read_points),
        ("labels.txt", lambda path: load_label_set(str(path))),
        ("scans.csv", read_manifest),
        ("affine.txt", lambda path: read_affine(path, GRID, GRID)),
        ("affine.h5", lambda path: read_affine(path, GRID, GRID)),
        ("warp.h5", read_warp),
        ("affine.lta", lambda path: read_affine(path, GRID, GRID)),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0\x01" * 300, b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_binary_rubbish_in_texts_and_transforms(
    tmp_path: Path, name: str, read: Callable[[Path], Any], content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VxmError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and not FOREIGN.search(said.replace(str(path), "")), said


@pytest.mark.parametrize(
    "moving, words",
    [
        (np.zeros((16, 16, 32)), "one of the two images is empty"),
        (None, "no affine was found, because|ended with brains that overlap"),
    ],
)
def test_an_affine_that_is_not_found(moving: Any, words: str) -> None:
    fixed = fakes.brain(1)[0].astype(np.float32)
    if moving is None:
        moving = np.zeros(fakes.SHAPE)
        moving[0, 0, 0] = 1.0
    with pytest.raises(VxmError, match=words) as caught:
        affine_search.search_affine(affine_search.Target(fixed, GRID), moving.astype(np.float32), GRID)
    assert not FOREIGN.search(str(caught.value))


@pytest.mark.parametrize(
    "said, words",
    [
        ("All samples map outside moving image buffer.", "no longer meet during the search"),
        ("Total Mass of the image was zero. Aborting here to prevent division by zero later on.", "is empty"),
        ("itk::ERROR: RegularStepGradientDescentOptimizerv4(0x55d): Gradient is nan", "-v shows its own message"),
    ],
)
def test_words_for_what_itk_says(said: str, words: str) -> None:
    text = simpleitk._why(RuntimeError(said))
    assert words in text and not FOREIGN.search(text)


def test_the_reason_of_the_system_is_kept() -> None:
    assert read_reason(PermissionError(13, "Permission denied")) == "Permission denied"
    assert read_reason(ValueError("whatever")) == "the bytes are damaged"
