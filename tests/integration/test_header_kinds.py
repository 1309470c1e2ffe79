# SPDX-License-Identifier: Apache-2.0
"""One file under each kind of header, through everything that reads headers: the same rule and the same words.

A result counts as right where it is that of the same file under a plain header. `tests.support.header_kinds` has the
kinds and what is expected.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import nibabel as nib
import numpy as np
import pytest

from om_runner.__main__ import main
from om_runner.inputs.placement import BY_HEADERS, load_anywhere, load_atlas_anywhere
from om_runner.inputs.scans import Scan
from tests.support import fakes, header_kinds
from tests.support.grids import points_of
from tests.support.header_kinds import BEGIN, END, ENTRIES, KINDS, REFUSED, RIGHT, SAID, plain
from train.data.checks import check_cohort, labels_for
from train.data.cohort import Cohort
from train.data.scan_list import Subject
from train.prepare.loaded import load_source
from train.prepare.settings import PrepareSettings
from train.prepare.subjects import Source
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.fields import identity_warp
from vxm_convert.geometry.grids import Grid, grid_of_geometry
from vxm_convert.model.spec import ModelSpec
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.transforms.warps import write_warp

SHAPE = (32, 32, 48)
LIA = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
#: all axes are half turns, whose quaternions have no scalar part; MGH files without directions lie on the second
GRIDS = {
    "plain": grid_of_geometry((44, 50, 48), (1.0, 0.9, 1.1), np.diag([-1.0, -1.0, 1.0]), (2, -12, 3)),
    "coronal": grid_of_geometry((44, 50, 48), (1, 1, 1), LIA, (0, 0, 0)),
}
NETWORK = Grid(SHAPE, network_affine(SHAPE))
CONTRACT = replace(fakes.contract(), model=ModelSpec("vm2", SHAPE, 1))


def image_at(grid: Grid) -> np.ndarray:
    x, y, z = np.moveaxis(points_of(grid) - (0, -10, 2), -1, 0)
    inside = (x / 13) ** 2 + (y / 13) ** 2 + (z / 12) ** 2 < 1
    return (inside * (110 + 5 * x + 2 * y - 3 * z)).astype(np.float32).clip(0, 255)


def labels_at(grid: Grid) -> np.ndarray:
    ras = points_of(grid) - (0, -10, 2)
    return np.where(np.linalg.norm(ras, axis=-1) < 9, np.where(ras[..., 0] < 0, 17, 53), 0).astype(np.int16)


class Bench:
    """Runs entries on a file under some header.

    Parameters
    ----------
    grid : Grid — where the file lies in truth.
    write : callable — path without suffix, array, grid → the file.
    """

    def __init__(self, folder: Path, grid: Grid, write: header_kinds.Writer) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.grid, self.write = folder, grid, write

    def file(self, of: Callable[[Grid], np.ndarray] = image_at, grid: Grid = None) -> Path:
        grid = grid or self.grid
        return self.write(self.folder / f"file_{of.__name__}", of(grid), grid)

    def helper(self, of: Callable[[Grid], np.ndarray], grid: Grid) -> Path:
        """A file under a plain header."""
        return plain(self.folder / f"helper_{of.__name__}", of(grid), grid)

    def verb(self, *words: Any) -> None:
        """Run a verb; its message becomes a VolumeError."""
        assert main([str(word) for word in words]) == 0, "refused"

    def warp(self, form: str = "itk") -> Path:
        """The identity from the network grid to where the file lies; FSL's layout needs the moving image."""
        path = self.folder / f"warp_{form}.nii.gz"
        write_warp(path, identity_warp(NETWORK, self.grid), form)
        Path(str(path) + ".json").unlink()
        return path

    def cohort(self) -> Any:
        atlas = load_atlas_anywhere(Scan("atlas", self.helper(image_at, NETWORK)), CONTRACT, BY_HEADERS)
        return load_anywhere(Scan("s", self.file()), CONTRACT, atlas, BY_HEADERS).image

    def atlas(self) -> Any:
        atlas = load_atlas_anywhere(Scan("atlas", self.file()), CONTRACT, BY_HEADERS)
        return np.concatenate([atlas.image.ravel(), atlas.placement.network.affine.ravel()])

    def segmentation(self) -> Any:
        atlas = load_atlas_anywhere(Scan("atlas", self.helper(image_at, NETWORK)), CONTRACT, BY_HEADERS)
        home = grid_of_geometry((40, 40, 44), (1.2, 1.1, 1.3), np.diag([1.0, 1.0, 1.0]), (1, -9, 2))
        scan = Scan("s", plain(self.folder / "scan", image_at(home), home), self.file(labels_at))
        return load_anywhere(scan, CONTRACT, atlas, BY_HEADERS).source.seg

    def apply(self) -> Any:
        out = self.folder / "out.nii.gz"
        self.verb("apply", "--transform", self.warp(), "--image", self.file(), "--out", out)
        return np.asarray(nib.load(str(out)).dataobj)

    def evaluate(self) -> Any:
        out = self.folder / "scores.json"
        fixed = self.helper(labels_at, NETWORK)
        self.verb(
            *("evaluate", "--fixed-seg", fixed, "--moving-seg", self.file(labels_at), "--warp", self.warp()),
            *("--format", "json", "--out", out),
        )
        return json.loads(out.read_text())["overlap"]["dice_mean"]

    def invert(self) -> Any:
        out = self.folder / "inverse.nii.gz"
        self.verb(
            *("invert", "--warp", self.warp(), "--moving", self.file(), "--inverse", out),
            *("--out", self.folder / "report.txt"),
        )
        return nib.load(str(out)).affine

    def jacobian(self) -> Any:
        out = self.folder / "figures.json"
        self.verb(
            *("jacobian", "--warp", self.warp("fsl"), "--from", "fsl", "--moving", self.file()),
            *("--format", "json", "--out", out),
        )
        return json.loads(out.read_text())["mean"]

    def convert_warp(self) -> Any:
        out = self.folder / "converted.nii.gz"
        self.verb(
            *("convert-warp", "--warp", self.warp("fsl"), "--from", "fsl", "--moving", self.file()),
            *("--warp-format", "itk", "--out", out),
        )
        return np.asarray(nib.load(str(out)).dataobj)

    def points(self) -> Any:
        points, out = self.folder / "points.csv", self.folder / "carried.csv"
        points.write_text("x,y,z\n10,11,12\n20,15,30\n")
        self.verb(
            *("apply", "--transform", self.warp(), "--points", points, "--out", out, "--frame", "voxel"),
            *("--fixed", self.helper(image_at, NETWORK), "--moving", self.file()),
        )
        return np.loadtxt(str(out), delimiter=",", skiprows=1)

    def train(self) -> Any:
        # Arrays are taken voxel by voxel here, so the file lies on the network grid.
        here = Grid(SHAPE, network_affine(SHAPE))
        scan, atlas = self.file(grid=here), self.helper(image_at, here)
        seg = plain(self.folder / "labels", labels_at(here), here)
        if scan.suffix == ".mgh" or "plain" not in str(scan):
            seg = self.write(self.folder / "file_labels", labels_at(here), here)
        check_cohort(Cohort((Subject(scan, seg=seg),)), atlas, None, SHAPE, need_labels=False)
        return labels_for(scan, seg, SHAPE)

    def prepare(self) -> Any:
        settings = PrepareSettings(self.folder, self.folder / "prepared", shape=SHAPE)
        loaded = load_source(Source("s", self.file(), self.file(labels_at)), settings, NETWORK)
        return np.concatenate([loaded.image.ravel(), loaded.grid.affine.ravel(), loaded.seg.ravel()])


def outcome_of(bench: Bench, entry: str, caplog: Any, capsys: Any) -> Dict[str, Any]:
    """What became of the file, and everything that was said."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        try:
            found = {"value": getattr(bench, entry.replace("-", "_"))()}
        except (VolumeError, AssertionError) as exc:
            found = {"refusal": str(exc)}
    written = capsys.readouterr()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return {**found, "said": "\n".join([found.get("refusal", ""), written.err, *warnings])}


@pytest.fixture(scope="module")
def references() -> Dict[str, Any]:
    """Results of the plain files, entry and grid → value; filled as tests need them."""
    return {}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_entry_judges_a_header_alike(kind, entry, tmp_path, caplog, capsys, references):
    where = "coronal" if "MGH" in kind else "plain"
    grid = GRIDS[where]
    if (entry, where) not in references:
        found = outcome_of(Bench(tmp_path / "plain", grid, plain), entry, caplog, capsys)
        assert "value" in found, found
        assert "file_" not in found["said"], "a plain header gives no word"
        references[entry, where] = found["value"]
    found = outcome_of(Bench(tmp_path / "kind", grid, KINDS[kind].write), entry, caplog, capsys)
    wanted, words = header_kinds.expected(kind, entry), header_kinds.words(kind, entry)
    if wanted == REFUSED:
        assert "refusal" in found, f"not refused: {found['said']}"
        assert words in found["said"], found["said"]
        return
    assert "value" in found, found["said"]
    np.testing.assert_allclose(found["value"], references[entry, where], rtol=0, atol=2e-3)
    if wanted == SAID:
        assert words in found["said"], found["said"]
    else:
        assert wanted == RIGHT and "file_" not in found["said"], found["said"]


def test_the_table_of_the_document_is_the_tested_one(project_root: Path) -> None:
    document = (project_root / "docs" / "geometry.md").read_text(encoding="utf-8")
    there: List[str] = document.split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert there == header_kinds.table().splitlines(), "run python -m tests.support.header_kinds"
