# SPDX-License-Identifier: Apache-2.0
"""A folder as tools leave it: what is a scan, what is left out with a count, and what cannot be read; for every command
that lists a folder.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import pytest

from om_runner.inputs.scans import discover
from train.data.cohort import find_scans
from train.prepare.subjects import find_sources
from vxm_convert.errors import VolumeError
from vxm_convert.scans.checks import kind_doubt
from vxm_convert.scans.discovery import scan_files
from vxm_convert.scans.kinds import no_scan

#: names that are scans, whatever they look like
SCANS = (
    "mask01 masked_01 sub-mask_T1w sub-01_T1w_brain sub-01_T1w sub-01_acq-mask_T1w sub-01_desc-preproc_T1w "
    "sub-aseg_run-1_T1w prob_01 Prob01 label-1 flow2 warpaint seg01 brainmask orig_nu brain.finalsurfs rawavg "
    "nu norm T1 sub-01_brainmask moved_01 blue_ribbon_01 wm01 c101 w1 gm sub_JAC sub-01_Warped sub-01_moved "
    "aseg_scan aparc_aseg_scan roi lesion01 antsdn.brain BrainExtractionBrain segmented inverse_01"
)
#: no scan, by its name alone
NONE: Dict[str, str] = {
    "mask": "mask sub-01_mask sub-01_T1_brain_mask X.mask sub-01_desc-brain_mask X_MASK antsBrainExtractionMask",
    "segmentation": "aseg aparc+aseg wmparc aparc.a2009s+aseg aparc.DKTatlas+aseg.deep sub-01_synthseg synthseg.rca "
    "lh.ribbon ribbon wm filled aseg.presurf.hypos aseg.auto_noCCseg sub-01_aparc+aseg_in_T1 sub-01_dseg "
    "sub-01_desc-aparcaseg_dseg sub-01_pveseg s_all_fast_firstseg moved_seg atlas_seg_in_scan sub-01-label "
    "lh.hippoAmygLabels-T1.v21 ThalamicNuclei.v13.T1 sub-01_desc-moved_dseg Segmentation wm.seg gtmseg",
    "probability map": "sub-01_T1_brain_pve_1 sub-01_label-GM_probseg X_pve0 BrainSegmentationPosteriors2 X_posteriors",
    "warp or map of a warp": "flow warp sub-01_1Warp sub-011InverseWarp sub-01_flow X_warpcoef inverse jacobian "
    "X_jacobian X_displacement_field sub-01Warp X_xfm X_logJacobian X_deformation",
    "moved scan": "moved sub-01_space-atlas_desc-moved_T1w",
}
#: file, the one that it was made of → what it is beside it, and a scan without it
BESIDE: Tuple[Tuple[str, str, str], ...] = (
    ("sub-01_Warped.nii.gz", "sub-01.nii.gz", "1 moved scan"),
    ("sub-01_moved.nii", "sub-01.nii.gz", "1 moved scan"),
    ("wsub-01.nii", "sub-01.nii", "1 moved scan"),
    ("sub-01_seg_1.nii.gz", "sub-01.nii.gz", "1 segmentation"),
    ("sub-01_prob_0.nii.gz", "sub-01.nii.gz", "1 probability map"),
    ("c1sub-01.nii", "sub-01.nii", "1 probability map"),
    ("mwp1sub-01.nii", "sub-01.nii", "1 probability map"),
    ("y_sub-01.nii", "sub-01.nii", "1 warp or map of a warp"),
    ("sub-01_brainmask.nii.gz", "sub-01.nii.gz", "1 mask"),
    ("sub-01_lesion.nii.gz", "sub-01.nii.gz", "1 mask"),
    ("sub-01_bias.nii.gz", "sub-01.nii.gz", "1 map made from another file"),
)


def fill(folder: Path, names: List[str]) -> Path:
    """A folder of files with these names; discovery opens none of them."""
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def told(caplog: pytest.LogCaptureFixture, folder: Path) -> List[str]:
    start = f"{folder}: "
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return [text[len(start) :] for text in found if text.startswith(start)]


@pytest.mark.parametrize("stem", SCANS.split())
def test_these_are_scans(tmp_path: Path, caplog, stem: str) -> None:
    folder = fill(tmp_path / "in", [f"{stem}.mgz", "other.nii"])
    assert no_scan(stem) is None
    assert [p.name for p in scan_files(folder, tmp_path)] == sorted([f"{stem}.mgz", "other.nii"])
    assert told(caplog, folder) == []


@pytest.mark.parametrize("kind, stem", [(kind, stem) for kind, stems in NONE.items() for stem in stems.split()])
def test_these_are_left_out_and_counted(tmp_path: Path, caplog, kind: str, stem: str) -> None:
    folder = fill(tmp_path / "in", [f"{stem}.nii.gz", "other.nii"])
    assert [p.name for p in scan_files(folder, tmp_path)] == ["other.nii"]
    expected = f"left out 1 file that by its name is no scan: 1 {kind} ({stem}.nii.gz); rename one that is a scan"
    assert told(caplog, folder) == [expected]


@pytest.mark.parametrize("name, source, said", BESIDE)
def test_beside_the_file_that_they_were_made_of(tmp_path: Path, caplog, name: str, source: str, said: str) -> None:
    alone = fill(tmp_path / "alone", [name])
    assert [p.name for p in scan_files(alone, tmp_path)] == [name] and told(caplog, alone) == []
    folder = fill(tmp_path / "in", [name, source])
    assert [p.name for p in scan_files(folder, tmp_path)] == [source]
    assert f"{said} ({name})" in told(caplog, folder)[0]


def test_a_brain_mask_of_freesurfer_is_a_scan(tmp_path: Path, caplog) -> None:
    folder = fill(tmp_path / "in", ["sub-01.mgz", "sub-01_brainmask.mgz"])
    assert len(scan_files(folder, tmp_path)) == 2 and told(caplog, folder) == []


def test_other_subjects_with_names_that_look_like_prefixes(tmp_path: Path, caplog) -> None:
    names = ["01.nii", "c101.nii", "ab.nii", "wab.nii", "101.nii", "w101.nii"]
    assert [p.name for p in scan_files(fill(tmp_path / "in", names), tmp_path)] == sorted(names)
    assert not caplog.records


#: a folder as BET, FAST, SynthSeg, FreeSurfer and a scanner leave it
MESSY = (
    ["sub-01_T1.nii.gz", "sub-01_T1_seg.nii.gz", "sub-02_T1.Nii.GZ", "SUB-03.NII", "sub-04.MGZ", "sub-04_aseg.mgz"]
    + ["sub-01_T1_mask.nii.gz", "sub-01_T1_pve_0.nii.gz", "sub-01_T1_pve_1.nii.gz", "sub-09_seg.nii.gz"]
    + [f"sub-0{n}_mask.nii.gz" for n in range(2, 8)]
    + ["c.img", "d.IMG", "b.gipl", "IM0001.dcm", "IM0002.DCM", "e.par", "e.rec", "f.nii.bz2", "g.vtk"]
    + ["._sub-01_T1.nii.gz", "Thumbs.db", "notes.txt", "sub-01_T1.json", "participants.tsv", ".DS_Store"]
)
MESSY_SCANS = ["SUB-03.NII", "sub-01_T1.nii.gz", "sub-02_T1.Nii.GZ", "sub-04.MGZ"]
MESSY_LEFT_OUT = (
    "left out 10 files that by their names are no scans: 7 masks (sub-01_T1_mask.nii.gz, sub-02_mask.nii.gz, "
    "sub-03_mask.nii.gz, sub-04_mask.nii.gz, …), 2 probability maps (sub-01_T1_pve_0.nii.gz, "
    "sub-01_T1_pve_1.nii.gz), 1 segmentation (sub-09_seg.nii.gz); rename one that is a scan"
)


@pytest.mark.parametrize(
    "listing",
    [
        lambda folder: scan_files(folder, folder.parent),
        lambda folder: [scan.path for scan in discover(folder, folder.parent)],
        lambda folder: find_scans(folder, None),
        lambda folder: [source.path for source in find_sources(folder, folder.parent / "out")],
    ],
    ids=["scan_files", "om_runner", "train", "prepare"],
)
def test_a_messy_folder(tmp_path: Path, caplog, listing) -> None:
    folder = fill(tmp_path / "in", MESSY)
    (folder / "1.2.840.113619.2").write_bytes(b"\0" * 128 + b"DICM")
    assert sorted(p.name for p in listing(folder)) == MESSY_SCANS
    left_out, unread = told(caplog, folder)
    assert left_out == MESSY_LEFT_OUT
    counted = "3 .dcm (1.2.840.113619.2, IM0001.dcm, IM0002.DCM), 1 .gipl (b.gipl), 2 .img (c.img, d.IMG), "
    counted += "1 .nii.bz2 (f.nii.bz2), 1 .par (e.par), 1 .vtk (g.vtk)"
    ways = ".gipl and .vtk by SimpleITK or 3D Slicer, .dcm and .par by dcm2niix, .img by mri_convert, "
    ways += ".nii.bz2 by unpacking"
    assert unread == f"9 files of kinds that are not read: {counted}; convert to .nii.gz: {ways}"


def test_a_folder_without_scans_says_what_it_has(tmp_path: Path, caplog) -> None:
    folder = fill(tmp_path / "in", ["a_mask.nii.gz", "IM1.dcm"])
    (folder / "sub-01").mkdir()
    with pytest.raises(VolumeError, match="no scan to register"):
        discover(folder, tmp_path)
    masks, unread, folders = told(caplog, folder)
    assert "1 mask (a_mask.nii.gz)" in masks and ".dcm by dcm2niix" in unread
    assert folders.startswith("subfolders are not searched (sub-01); pass")


def test_names_that_would_draw_on_a_terminal(tmp_path: Path, caplog) -> None:
    folder = fill(tmp_path / "in", ["a\nb_mask.nii", "a\x1b[2J.mnc", "b.nii"])
    scan_files(folder, tmp_path)
    masks, unread = told(caplog, folder)
    assert "(a\\nb_mask.nii)" in masks and "(a\\x1b[2J.mnc)" in unread


def _brain(shape: Tuple[int, int, int] = (32, 40, 36)) -> np.ndarray:
    """A bright ellipsoid with texture, 0..200."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    texture = np.random.RandomState(0).uniform(0, 60, shape) + 110
    return np.where(sum(a**2 for a in axes) < 0.6, texture + 30 * np.sin(4 * axes[2]), 0)


def _tissue(levels: int) -> np.ndarray:
    """Blocks with one of `levels` numbers in the inside of the ellipsoid."""
    blocks = sum(k * (index // 9) for k, index in zip((1, 3, 5), np.indices((32, 40, 36))))
    return np.where(_brain() > 0, 1 + blocks % levels, 0)


IDS = np.array([0, 2, 3, 4, 7, 8, 10, 11, 12, 41, 42], dtype=np.int32)
#: what an image called like a scan holds → words of the doubt; none for a scan
CONTENT = {
    "a scan": (_brain().astype(np.uint8), None),
    "a scan of 0..1": ((_brain() / 255).astype(np.float32), None),
    "a dark scan of few whole numbers": ((_brain() / 20).astype(np.uint8), None),
    "a z-score": (((_brain() - 90) / 50).astype(np.float32), None),
    "a CT": (np.where(_brain() > 0, _brain() * 2, -1024).astype(np.int16), None),
    "a few saturated voxels": (np.minimum(_brain(), 188).astype(np.uint8), None),
    "a segmentation": (IDS[_tissue(10).astype(int)].astype(np.int16), "looks like a segmentation.*FreeSurfer's ids"),
    "tissue classes": (
        _tissue(3).astype(np.uint8),
        "looks like a segmentation.*4 whole numbers .0, 1, 2, 3. such as a",
    ),
    "labels as floats": (IDS[_tissue(10).astype(int)].astype(np.float32), "looks like a segmentation"),
    "a mask": ((_brain() > 0).astype(np.uint8), "looks like a mask, not a scan: every voxel is 0 or 1"),
    "a mask of 255": ((_brain() > 0).astype(np.uint8) * 255, "looks like a segmentation|looks like a mask"),
    "a map of tissue": (np.clip(_brain() / 130, 0, 1).astype(np.float32), "a map of probabilities"),
    "a clipped scan": (np.minimum(_brain(), 140).astype(np.uint8), "a scan that was clipped"),
}


@pytest.mark.parametrize("case", sorted(CONTENT))
def test_an_image_that_is_called_a_scan_and_is_none_is_doubted(case: str) -> None:
    data, words = CONTENT[case]
    doubt = kind_doubt(data.astype(np.float32))
    assert (doubt is None) if words is None else re.search(words, doubt or ""), doubt
