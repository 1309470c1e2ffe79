# SPDX-License-Identifier: Apache-2.0
"""No command writes over an input or among the inputs: same folder, a folder inside, by a link, by another spelling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from export import __main__ as export
from om_runner import __main__ as runner
from om_runner.commands import apply, convert_warp, invert, jacobian
from tests.support import fakes
from tests.support.registration_bench import Bench
from train import __main__ as train
from vxm_convert.artifacts.targets import check_apart, check_subject_folders, is_inside
from vxm_convert.errors import ArtifactError
from vxm_convert.scans.nifti import INTENT_VECTOR, write_nifti

#: name → command line of everything that reads a folder of scans and writes a folder
COMMANDS: Dict[str, Callable[[Path, Path, Path], List[Any]]] = {
    "om_runner": lambda i, a, o: [runner.main, "--input", i, "--atlas", a, "--out", o],
    "audit": lambda i, a, o: [runner.main, "audit", "--input", i, "--atlas", a, "--out", o],
    "layers": lambda i, a, o: [runner.main, "layers", "--input", i, "--atlas", a, "--out", o],
    "train": lambda i, a, o: [train.main, "--data", i, "--atlas", a, "--out", o],
    "train evaluate": lambda i, a, o: [
        train.main,
        "evaluate",
        "--checkpoint",
        a,
        "--data",
        i,
        "--atlas",
        a,
        "--out",
        o,
    ],
    "train prepare": lambda i, a, o: [train.main, "prepare", "--data", i, "--out", o],
    "export tune": lambda i, a, o: [export.main, "tune", "--checkpoint", a, "--input", i, "--atlas", a, "--out", o],
}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    fakes.write_scan(tmp_path / "in" / "a.npz", 1)
    return tmp_path / "in"


@pytest.mark.parametrize("inside", ["", "results", "deep/er", "./", "../in"])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_out_among_the_inputs_is_refused(
    tmp_path: Path, scans: Path, monkeypatch, capsys, name: str, inside: str
) -> None:
    bench = Bench(tmp_path / "bench", monkeypatch)
    for module in ("om_runner.audit.run", "om_runner.layers.run", "om_runner.registration.session"):
        monkeypatch.setattr(f"{module}.open_model", lambda *_: bench.model)
    command, *words = COMMANDS[name](scans, bench.atlas, scans / inside)
    assert command([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "the folder of --" in said and "results and scans would mix; choose an output folder outside it" in said
    assert "Traceback" not in said and [p.name for p in scans.iterdir()] == ["a.npz"]


def test_links_and_names_that_only_begin_alike(tmp_path: Path) -> None:
    for name in ("in", "in2"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in ("in", "in/x", "link", "link/y", "in2/../in"):
        assert is_inside(tmp_path / out, tmp_path / "in")
        with pytest.raises(ArtifactError, match="--input"):
            check_apart(tmp_path / out, tmp_path / "in", "--input")
    for out in ("in2", "in2/in", "."):
        check_apart(tmp_path / out, tmp_path / "in", "--input")
    check_apart(tmp_path, tmp_path / "in" / "missing", "--input")


def test_a_result_never_removes_the_folder_of_its_scan(tmp_path: Path, monkeypatch) -> None:
    """data/sub-01/sub-01.npz with --out data: the folder of the results is the folder of the scan."""
    bench = Bench(tmp_path, monkeypatch)
    bench.out = tmp_path / "data"
    for subject in ("sub-01", "sub-02"):
        bench.inputs = bench.out / subject
        fakes.write_scan(bench.inputs / f"{subject}.npz", 1)
        with pytest.raises(ArtifactError, match=f"results would replace the folder .*{subject}, which holds"):
            bench.run()
    for subject in ("sub-01", "sub-02"):
        assert [p.name for p in (bench.out / subject).iterdir()] == [f"{subject}.npz"]


def test_which_folders_hold_inputs(tmp_path: Path) -> None:
    for path in ("out/SUB-1/x.nii", "out/sub-1"):
        with pytest.raises(ArtifactError, match="choose another output folder"):
            check_subject_folders(tmp_path / "out", ["sub-1"], [tmp_path / path])
    check_subject_folders(tmp_path / "out", ["sub-1"], [tmp_path / "sub-1" / "x.nii", tmp_path / "out" / "x.nii"])


def _warp(path: Path) -> Path:
    flow = np.zeros((8, 8, 8, 1, 3), np.float32)
    write_nifti(path, flow, np.diag([2.0, 2, 2, 1]), intent=INTENT_VECTOR)
    return path


@pytest.mark.parametrize("link", [False, True])
def test_a_verb_does_not_write_over_its_input(tmp_path: Path, capsys, link: bool) -> None:
    warp, image = _warp(tmp_path / "w.nii.gz"), tmp_path / "i.nii.gz"
    write_nifti(image, np.random.RandomState(0).rand(8, 8, 8).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    before = {path.name: path.read_bytes() for path in (warp, image)}
    targets = {"w": warp, "i": image}
    if link:
        for name, path in list(targets.items()):
            os.symlink(str(path), str(tmp_path / f"{name}-link.nii.gz"))
            targets[name] = tmp_path / f"{name}-link.nii.gz"
    calls = [
        (apply.main, ["--transform", warp, "--image", image, "--out", targets["i"]]),
        (apply.main, ["--transform", f"inverse:{warp}", "--image", image, "--out", targets["w"]]),
        (invert.main, ["--warp", warp, "--inverse", targets["w"]]),
        (invert.main, ["--warp", warp, "--inverse", tmp_path / "new.nii", "--mask", tmp_path / "new.nii"]),
        (jacobian.main, ["--warp", warp, "--map", targets["w"]]),
        (jacobian.main, ["--warp", warp, "--mask", image, "--log-map", targets["i"]]),
        (convert_warp.main, ["--warp", warp, "--moving", image, "--warp-format", "fsl", "--out", targets["i"]]),
    ]
    for main, words in calls:
        assert main([str(word) for word in words]) == 1
        assert "which it would replace; choose another name" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (warp, image)} == before and not (tmp_path / "new.nii").exists()


def test_other_names_are_written(tmp_path: Path) -> None:
    warp = _warp(tmp_path / "w.nii.gz")
    copy = shutil.copy(str(warp), str(tmp_path / "copy.nii.gz"))
    assert jacobian.main(["--warp", str(warp), "--map", copy]) == 0
    assert Path(copy).read_bytes() != warp.read_bytes()
