# SPDX-License-Identifier: Apache-2.0
"""``--dry-run`` foresees what a run refuses by header, intensities and segmentation: the same scans, the same words, the
same exit code.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Callable, Dict

import nibabel as nib
import numpy as np
import pytest

from om_runner.inputs import placement
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.scans.network_grid import network_affine


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch)
    fakes.write_scan(made.inputs / "good.npz", 1)
    return made


def nifti(path: Path, data: np.ndarray, affine: np.ndarray, code: int = 1) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code)
    image.set_qform(None if code else affine, 0)
    nib.save(image, str(path))
    return path


def image() -> np.ndarray:
    return fakes.brain(2)[0]


HOME = network_affine(fakes.SHAPE)


def moved(mm: float) -> np.ndarray:
    affine = HOME.copy()
    affine[:3, 3] += mm
    return affine


def with_nan(folder: Path) -> None:
    data = image().astype(np.float32)
    data[2, 3, 4] = np.nan
    nifti(folder / "bad.nii", data, HOME)


def truncated(folder: Path) -> None:
    path = nifti(folder / "bad.nii.gz", image(), HOME)
    path.write_bytes(path.read_bytes()[:-200])


def elsewhere(folder: Path) -> None:
    nifti(folder / "bad.nii.gz", image()[:-1], moved(300))


def foreign_seg(folder: Path) -> None:
    fakes.write_scan(folder / "bad.npz", 2, with_seg=False)
    np.savez(str(folder / "bad_seg.npz"), seg=np.zeros((4, 4, 4), np.int16))


def fractions(folder: Path) -> None:
    fakes.write_scan(folder / "bad.npz", 2, seg=np.full(fakes.SHAPE, 0.5, np.float32))


def seg_elsewhere(folder: Path) -> None:
    nifti(folder / "bad.nii.gz", image(), HOME)
    nifti(folder / "bad_seg.nii.gz", fakes.brain(2)[1], moved(300))


def metres(folder: Path) -> None:
    affine = HOME.copy()
    affine[:3] *= 1e-3
    nifti(folder / "bad.nii.gz", image(), affine)


#: name → what makes the scan `bad`, and words of the reason
REFUSED: Dict[str, Callable[[Path], object]] = {
    "NaN": with_nan,
    "constant": lambda folder: nifti(folder / "bad.nii", np.full(fakes.SHAPE, 7, np.uint8), HOME),
    "CT": lambda folder: nifti(folder / "bad.nii", (image() * 8.0 - 1000).astype(np.int16), HOME),
    "far too dark": lambda folder: nifti(folder / "bad.nii", (image() * 1e-6).astype(np.float32), HOME),
    "4-D": lambda folder: nifti(folder / "bad.nii.gz", np.stack([image()] * 3, -1), HOME),
    "colour": lambda folder: nifti(folder / "bad.nii", np.zeros(fakes.SHAPE, [(c, "u1") for c in "RGB"]), HOME),
    "truncated": truncated,
    "no gzip": lambda folder: (folder / "bad.nii.gz").write_bytes(b"no scan at all"),
    "empty": lambda folder: (folder / "bad.nii.gz").write_bytes(b""),
    "text in a gzip": lambda folder: (folder / "bad.nii.gz").write_bytes(gzip.compress(b"no scan at all" * 99)),
    "another shape without a header": lambda folder: np.savez(str(folder / "bad.npz"), vol=np.ones((4, 4, 4), "u1")),
    "no orientation": lambda folder: nifti(folder / "bad.nii", image()[:-1], HOME, code=0),
    "in metres": metres,
    "away from the atlas": elsewhere,
    "a segmentation of another shape": foreign_seg,
    "a segmentation of fractions": fractions,
    "a segmentation elsewhere": seg_elsewhere,
    "a broken link": lambda folder: (folder / "bad.nii").symlink_to(folder / "nowhere.nii"),
}


def refusals(text: str) -> Dict[str, str]:
    rows = [line.split(None, 2) for line in text.splitlines()[:-1]]
    return {subject: why for word, subject, why in rows if word == "refuse"}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_dry_run_refuses_what_the_run_refuses(bench: Bench, capsys, case: str) -> None:
    REFUSED[case](bench.inputs)
    code = bench.run("--dry-run")
    out = capsys.readouterr().out
    assert not bench.out.exists() and "1 to register, 0 to skip, 1 would be refused; nothing was written" in out
    assert bench.run() == code == 1
    (row,) = bench.table("failures.tsv")
    assert refusals(out) == {"bad": row["reason"]} and row["stage"] == "read"
    assert [r["subject"] for r in bench.table("metrics.tsv")] == ["good"]
    # Failed before, and still to be refused.
    assert bench.run("--dry-run", "--retry-failed") == 1
    assert refusals(capsys.readouterr().out) == {"bad": row["reason"]}


@pytest.mark.parametrize("intensity", ["match", "percentile", "contrast"])
def test_what_an_option_takes_is_not_refused(bench: Bench, capsys, intensity: str) -> None:
    REFUSED["far too dark"](bench.inputs)
    code = bench.run("--dry-run", "--intensity", intensity)
    assert refusals(capsys.readouterr().out) == {} and code == 0
    assert bench.run("--intensity", intensity) == 0


def test_sheared_grids_are_refused_before_the_device_has_the_scan(bench: Bench, capsys, monkeypatch) -> None:
    affine = HOME.copy()
    affine[0, 1] += 0.2
    nifti(bench.inputs / "bad.nii.gz", image(), affine)
    for options in (("--space", "native"), ("--outputs", "moved,inverse")):
        capsys.readouterr()
        assert bench.run("--dry-run", *options) == 1
        out = capsys.readouterr().out
        bench.runtime.fed.clear()
        assert bench.run("--force", *options) == 1 and len(bench.runtime.fed) == 1
        (row,) = bench.table("failures.tsv")
        assert refusals(out) == {"bad": row["reason"]} and "sheared" in row["reason"]
    assert bench.run("--dry-run") == 0 and bench.run("--dry-run", "--space", "native", "--warp-format", "fsl") == 0


@pytest.mark.parametrize("case", ["CT", "a segmentation elsewhere", "NaN", "no orientation"])
def test_no_affine_is_searched_for_a_scan_that_is_refused(bench: Bench, capsys, monkeypatch, case: str) -> None:
    """In a dry run for none at all."""
    (bench.inputs / "good.npz").unlink()
    REFUSED[case](bench.inputs)
    monkeypatch.setattr(placement, "search_affine", lambda *_: pytest.fail("an affine was searched"))
    assert bench.run("--affine", "auto") == 1
    (row,) = bench.table("failures.tsv")
    assert ("--intensity match" in row["reason"]) == (case == "CT")
    capsys.readouterr()
    fakes.write_scan(bench.inputs / "good.npz", 1)
    assert bench.run("--affine", "auto", "--dry-run") == 1
    out = capsys.readouterr().out
    assert refusals(out) == {"bad": row["reason"]} and "no affine was searched" in out


def test_a_folder_that_is_not_of_ours_is_not_replaced(bench: Bench, capsys) -> None:
    raw = bench.out / "good" / "raw.dcm"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"the only copy")
    for name in ("bad", "other", "empty"):
        fakes.write_scan(bench.inputs / f"{name}.npz", 2)
    (bench.out / "other").write_text("a file", encoding="utf-8")
    (bench.out / "empty").mkdir()
    assert bench.run("--dry-run") == 1
    foreseen = refusals(capsys.readouterr().out)
    assert bench.run() == 1 and raw.read_bytes() == b"the only copy"
    assert (bench.out / "other").read_text(encoding="utf-8") == "a file"
    rows = {row["subject"]: row["reason"] for row in bench.table("failures.tsv")}
    assert rows == foreseen and sorted(rows) == ["good", "other"]
    assert "holds raw.dcm and no result of om_runner" in rows["good"] and "a file where the folder" in rows["other"]
    # Ours are replaced, with whatever was added.
    (bench.out / "bad" / "note.txt").write_text("mine", encoding="utf-8")
    assert bench.run("--force") == 1 and not (bench.out / "bad" / "note.txt").exists()


def test_the_code_of_scans_that_would_be_missing(bench: Bench, capsys) -> None:
    fakes.write_scan(bench.inputs / "other.npz", 3)
    assert bench.run("--dry-run") == 0
    assert bench.run("--limit", "1", "--dry-run") == bench.run("--limit", "1") == 1
    assert bench.run("--dry-run") == bench.run() == 0
    assert bench.run("--limit", "1", "--dry-run") == bench.run("--limit", "1") == 0
