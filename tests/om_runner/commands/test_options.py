# SPDX-License-Identifier: Apache-2.0
"""Every option of the verbs that work on warps, images and points changes what the verb writes; where it would change
nothing, it is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Tuple

import numpy as np
import pytest

from om_runner.__main__ import main
from tests.support.grids import PAIRS, displacement, known_warp, points_of
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.affines import write_affine
from vxm_convert.transforms.warps import write_warp

FIXED, MOVING = PAIRS["LIA from anisotropic LPS"]
#: the fixed grid and two voxels more on every side
_SHIFT = np.eye(4)
_SHIFT[:3, 3] = -2
WIDE = Grid(tuple(side + 4 for side in FIXED.shape), FIXED.affine @ _SHIFT)
#: the moving image's voxels halved, which changes indices in it
FINE = Grid(tuple(2 * side for side in MOVING.shape), MOVING.affine @ np.diag([0.5, 0.5, 0.5, 1.0]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Warps, images, segmentations, points; small."""
    home = tmp_path_factory.mktemp("files")
    warp = known_warp(FIXED, MOVING)
    write_warp(home / "warp.nii.gz", warp, "itk")
    bent = warp.u.copy()
    bent[8:10, 8:10, 8:10, 0] += 4 * np.indices((2, 2, 2))[0] - 2
    write_warp(home / "folds.nii.gz", Warp(bent, FIXED, MOVING), "itk")
    write_warp(home / "voxels.nii.gz", warp, "vxm")
    write_warp(home / "voxels.npz", warp, "l2r")
    for name in ("voxels.nii.gz.json", "voxels.npz.json"):
        (home / name).unlink()
    thin = Grid(FIXED.shape, FIXED.affine @ np.diag([0.9, 1.0, 1.0, 1.0]))
    write_nifti(home / "thin.nii.gz", np.ones(thin.shape, np.float32), thin.affine)
    ras, fixed_ras = points_of(MOVING), points_of(FIXED)
    wave = (100 + 50 * np.sin(ras[..., 0] / 6) * np.cos(ras[..., 2] / 5)).astype(np.float32)
    write_nifti(home / "moving.nii.gz", wave, MOVING.affine)
    write_nifti(home / "fixed.nii.gz", np.ones(FIXED.shape, np.float32), FIXED.affine)
    write_nifti(home / "wide.nii.gz", np.ones(WIDE.shape, np.float32), WIDE.affine)
    write_nifti(home / "fine.nii.gz", np.ones(FINE.shape, np.float32), FINE.affine)
    write_nifti(home / "half.nii.gz", (np.indices(FIXED.shape)[0] < 9).astype(np.uint8), FIXED.affine)
    write_nifti(home / "seg.nii.gz", _labels(ras), MOVING.affine)
    write_nifti(home / "fixed_seg.nii.gz", _labels(fixed_ras + displacement(fixed_ras)), FIXED.affine)
    write_nifti(home / "fixed_seg_2.nii.gz", _labels(fixed_ras + 1), FIXED.affine)
    write_affine(
        home / "shift.txt", Affine(np.array([[1.0, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])), "itk"
    )
    for name, points in (
        ("p", [[0, -10, 4], [3, -12, 1]]),
        ("q", [[1, -9, 4], [3, -11, 2]]),
        ("far", [[0, -10, 4], [200, 0, 0]]),
        ("v", [[9, 11, 8]]),
    ):
        np.savetxt(str(home / f"{name}.csv"), np.array(points, float), delimiter=",")
    (home / "mine.txt").write_text("17 hippo\n", encoding="utf-8")
    return home


def _labels(ras: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(ras - MOVING.centre_ras, axis=-1)
    return np.where(distance < 5, np.where(ras[..., 0] < MOVING.centre_ras[0], 17, 53), 0).astype(np.int16)


def outcome(line: str, files: Path, out: Path, capsys: pytest.CaptureFixture) -> Tuple[int, str, Dict[str, bytes]]:
    """Exit code of a command line, what it prints, and the bytes of what it writes besides side-cars."""
    out.mkdir()
    code = main([word.replace("@", f"{files}/").replace("OUT", str(out)) for word in line.split()])
    written = {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix != ".json"}
    return code, capsys.readouterr().out, written


_IMAGE = "apply --image @moving.nii.gz --transform @warp.nii.gz --out OUT/o.nii"
_LABELS = _IMAGE.replace("@moving", "@seg")
_WIDE = "apply --image @moving.nii.gz --transform @warp.nii.gz --fixed @wide.nii.gz --out OUT/o.nii"
_POINTS = "apply --points @p.csv --transform @warp.nii.gz --out OUT/o.csv"
_VOXEL = f"{_POINTS.replace('@p', '@v')} --frame voxel --fixed @fixed.nii.gz"
_CONVERT = "convert-warp --warp @warp.nii.gz --moving @moving.nii.gz"
_SCORE = "evaluate --fixed-seg @fixed_seg.nii.gz"
_CARRIED = f"{_SCORE} --moving-seg @seg.nii.gz --warp @warp.nii.gz"
_TRE = "evaluate --fixed-points @p.csv --moving-points @q.csv"
_INVERT = "invert --warp @warp.nii.gz --moving @moving.nii.gz --inverse OUT/i.nii"
_JACOBIAN = "jacobian --warp @folds.nii.gz"
_VOXELS = "--warp @voxels.nii.gz --moving @moving.nii.gz"
#: has no grid of its own
_NPZ = "--warp @voxels.npz --from l2r --fixed @fixed.nii.gz --moving @moving.nii.gz"
#: two command lines that differ in one option
PAIRS_OF_LINES = [
    (
        _IMAGE,
        "apply --image @moving.nii.gz --transform @shift.txt --fixed @fixed.nii.gz --out OUT/o.nii",
        "--transform",
    ),
    (_IMAGE, _LABELS, "--image"),
    (_IMAGE, _IMAGE.replace("o.nii", "o.nii.gz"), "--out"),
    (_IMAGE, _WIDE, "--fixed"),
    (_LABELS + " --interpolation nearest", _LABELS + " --interpolation labels", "--interpolation"),
    (_WIDE, _WIDE + " --edge clamp", "--edge"),
    (_WIDE, _WIDE + " --beyond zero", "--beyond"),
    (
        "apply --image @moving.nii.gz --transform @voxels.nii.gz --from vxm --out OUT/o.nii",
        "apply --image @moving.nii.gz --transform @voxels.nii.gz --from freesurfer --out OUT/o.nii",
        "--from",
    ),
    (_POINTS, _POINTS.replace("@p.csv", "@q.csv"), "--points"),
    (_POINTS, _POINTS + " --points-are moving", "--points-are"),
    (_POINTS, _POINTS + " --frame lps", "--frame"),
    (_POINTS.replace("@p.", "@far."), _POINTS.replace("@p.", "@far.") + " --beyond zero", "--beyond"),
    (_VOXEL + " --moving @moving.nii.gz", _VOXEL + " --moving @fine.nii.gz", "--moving"),
    (_CONVERT + " --warp-format vxm --out OUT/o.nii", _CONVERT + " --warp-format fsl --out OUT/o.nii", "--warp-format"),
    (_CONVERT + " --warp-format vxm --out OUT/o.nii", _CONVERT + " --warp-format vxm --out OUT/o.nii.gz", "--out"),
    (
        _CONVERT + " --warp-format vxm --out OUT/o.nii",
        _CONVERT.replace("@warp", "@folds") + " --warp-format vxm --out OUT/o.nii",
        "--warp",
    ),
    (
        _CONVERT + " --warp-format vxm --out OUT/o.nii",
        "convert-warp --warp @warp.nii.gz --moving @fine.nii.gz --warp-format vxm --out OUT/o.nii",
        "--moving",
    ),
    (
        f"convert-warp {_VOXELS} --from vxm --warp-format itk --out OUT/o.nii",
        f"convert-warp {_VOXELS} --from freesurfer --warp-format itk --out OUT/o.nii",
        "--from",
    ),
    (
        _CONVERT + " --warp-format l2r --out OUT/o.npz",
        _CONVERT + " --warp-format l2r --out OUT/o.npz --dtype float16",
        "--dtype",
    ),
    (_SCORE + " --moved-seg @fixed_seg.nii.gz", _SCORE + " --moved-seg @fixed_seg_2.nii.gz", "--moved-seg"),
    (
        "evaluate --moved-seg @fixed_seg.nii.gz --fixed-seg @fixed_seg.nii.gz",
        "evaluate --moved-seg @fixed_seg.nii.gz --fixed-seg @fixed_seg_2.nii.gz",
        "--fixed-seg",
    ),
    (_SCORE + " --moved-seg @fixed_seg.nii.gz --warp @warp.nii.gz", _CARRIED, "--moving-seg"),
    (_CARRIED, _CARRIED + " --labels @mine.txt", "--labels"),
    (_CARRIED, _CARRIED + " --interpolation labels", "--interpolation"),
    (_CARRIED, _CARRIED.replace("@warp", "@folds"), "--warp"),
    (_CARRIED, _CARRIED + " --l2r-compat", "--l2r-compat"),
    (_CARRIED, _CARRIED + " --format csv", "--format"),
    (_CARRIED, _CARRIED + " --out OUT/table.txt", "--out"),
    (f"evaluate {_VOXELS} --from vxm", f"evaluate {_VOXELS} --from freesurfer", "--from"),
    (f"evaluate {_VOXELS} --from vxm", f"evaluate {_VOXELS.replace('@moving', '@fine')} --from vxm", "--moving"),
    (_TRE, _TRE.replace("@p.csv", "@q.csv"), "--fixed-points"),
    (_TRE, _TRE.replace("--moving-points @q", "--moving-points @p"), "--moving-points"),
    (
        _TRE + " --frame voxel --fixed @fixed.nii.gz --moving @moving.nii.gz",
        _TRE + " --frame voxel --fixed @moving.nii.gz --moving @moving.nii.gz",
        "--fixed",
    ),
    (_TRE + " --warp @warp.nii.gz", _TRE + " --warp @warp.nii.gz --frame lps", "--frame"),
    (_INVERT, _INVERT.replace("@warp", "@folds"), "--warp"),
    (_INVERT, _INVERT.replace("i.nii", "j.nii"), "--inverse"),
    (_INVERT, _INVERT.replace("@moving", "@fine"), "--moving"),
    (
        f"invert {_VOXELS} --from vxm --inverse OUT/i.nii",
        f"invert {_VOXELS} --from freesurfer --inverse OUT/i.nii",
        "--from",
    ),
    (_INVERT, _INVERT + " --warp-format vxm", "--warp-format"),
    (_INVERT, _INVERT + " --mask OUT/m.nii", "--mask"),
    (_INVERT, _INVERT + " --tolerance 1", "--tolerance"),
    (_INVERT, _INVERT + " --format json", "--format"),
    (_INVERT, _INVERT + " --out OUT/table.txt", "--out"),
    (_JACOBIAN, _JACOBIAN.replace("@folds", "@warp"), "--warp"),
    (_JACOBIAN, _JACOBIAN + " --map OUT/j.nii", "--map"),
    (_JACOBIAN, _JACOBIAN + " --log-map OUT/j.nii", "--log-map"),
    (_JACOBIAN, _JACOBIAN + " --mask @half.nii.gz", "--mask"),
    (_JACOBIAN, _JACOBIAN + " --l2r-compat", "--l2r-compat"),
    (_JACOBIAN, _JACOBIAN + " --format csv", "--format"),
    (_JACOBIAN, _JACOBIAN + " --out OUT/table.txt", "--out"),
    (f"jacobian {_VOXELS} --from vxm", f"jacobian {_VOXELS} --from freesurfer", "--from"),
    (f"jacobian {_NPZ}", f"jacobian {_NPZ.replace('@fixed', '@thin')}", "--fixed"),
    (f"invert {_NPZ} --inverse OUT/i.nii", f"invert {_NPZ.replace('@fixed', '@thin')} --inverse OUT/i.nii", "--fixed"),
    (
        f"convert-warp {_NPZ} --warp-format itk --out OUT/o.nii",
        f"convert-warp {_NPZ.replace('@fixed', '@thin')} --warp-format itk --out OUT/o.nii",
        "--fixed",
    ),
    (f"jacobian {_VOXELS} --from vxm", f"jacobian {_VOXELS.replace('@moving', '@fine')} --from vxm", "--moving"),
]


@pytest.mark.parametrize(
    "one, other", [lines[:2] for lines in PAIRS_OF_LINES], ids=[f"{x[0].split()[0]} {x[2]}" for x in PAIRS_OF_LINES]
)
def test_an_option_changes_the_result(one, other, files, tmp_path, capsys):
    first, second = outcome(one, files, tmp_path / "1", capsys), outcome(other, files, tmp_path / "2", capsys)
    assert first[0] == 0 and first != second


#: a command line in which the last option has no effect
REFUSED = [
    f"{_POINTS} --interpolation nearest",
    f"{_POINTS} --edge zero",
    f"{_IMAGE} --points-are fixed",
    f"{_IMAGE} --frame ras",
    "apply --points @p.csv --transform @shift.txt --out OUT/o.csv --from itk",
    f"{_SCORE} --moved-seg @fixed_seg.nii.gz --interpolation nearest",
    f"{_SCORE} --moved-seg @fixed_seg.nii.gz --frame ras",
    f"{_SCORE} --moved-seg @fixed_seg.nii.gz --fixed @fixed.nii.gz",
    f"{_SCORE} --moved-seg @fixed_seg.nii.gz --from itk",
    f"{_TRE} --labels paper30",
    f"{_TRE} --moving @moving.nii.gz",
    f"{_TRE} --l2r-compat",
    f"{_JACOBIAN} -q --verbose",
]


@pytest.mark.parametrize("line", REFUSED, ids=[f"{line.split()[0]} {line.split(' -')[-1]}" for line in REFUSED])
def test_an_option_without_effect_is_refused(line, files, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([word.replace("@", f"{files}/").replace("OUT", str(tmp_path)) for word in line.split()])
    option = next(word for word in reversed(line.split()) if word.startswith("--"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and option in said.splitlines()[-1]
    assert "has no effect here" in said or "not allowed with" in said
    assert not list(tmp_path.iterdir())
