# SPDX-License-Identifier: Apache-2.0
"""The verbs apply, invert, convert-warp, jacobian and evaluate, called as a user calls them."""

from __future__ import annotations

import csv
import io
import json

import nibabel as nib
import numpy as np
import pytest

from om_runner.__main__ import VERBS, main
from tests.support.grids import PAIRS, displacement, known_warp, points_of
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import apply_affine
from vxm_convert.scans.nifti import write_nifti
from vxm_convert.transforms.affines import write_affine
from vxm_convert.transforms.warps import read_warp, write_warp

FIXED, MOVING = PAIRS["LIA from anisotropic LPS"]
OURS = ("apply", "convert-warp", "evaluate", "invert", "jacobian")


@pytest.fixture
def bench(tmp_path):
    """warp.nii.gz (ITK), moving.nii.gz (uint8), seg.nii.gz, fixed.nii.gz: everything on the two grids."""
    warp = known_warp(FIXED, MOVING)
    write_warp(tmp_path / "warp.nii.gz", warp, "itk")
    ras = points_of(MOVING)
    image = (100 + 50 * np.sin(ras[..., 0] / 6) * np.cos(ras[..., 2] / 5)).astype(np.uint8)
    write_nifti(tmp_path / "moving.nii.gz", image, MOVING.affine)
    write_nifti(tmp_path / "seg.nii.gz", labels_at(ras), MOVING.affine)
    write_nifti(tmp_path / "fixed.nii.gz", np.zeros(FIXED.shape, np.float32), FIXED.affine)
    fixed_ras = points_of(FIXED)
    write_nifti(tmp_path / "fixed_seg.nii.gz", labels_at(fixed_ras + displacement(fixed_ras)), FIXED.affine)
    return tmp_path


def labels_at(ras):
    """Two structures in the moving space: 17 and 53."""
    distance = np.linalg.norm(ras - MOVING.centre_ras, axis=-1)
    return np.where(distance < 5, np.where(ras[..., 0] < MOVING.centre_ras[0], 17, 53), 0).astype(np.int16)


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("verb", OURS)
def test_help_has_units_and_exit_codes(verb, capsys):
    assert verb in VERBS
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        ended.value.code == 0 and "exit codes: 0 done 1 something to fix; one message says what 2 wrong usage" in text
    )
    assert text.count("(default:") + text.count("(required)") >= 4
    with pytest.raises(SystemExit) as ended:
        main([verb, "--no-such-option"])
    assert ended.value.code == 2


def test_apply_resamples_once_and_keeps_the_dtype(bench):
    assert (
        run(
            "apply",
            "--transform",
            bench / "warp.nii.gz",
            "--image",
            bench / "moving.nii.gz",
            "--out",
            bench / "moved.nii.gz",
        )
        == 0
    )
    image = nib.load(str(bench / "moved.nii.gz"))
    assert image.get_data_dtype() == np.uint8 and image.shape == FIXED.shape
    np.testing.assert_allclose(image.affine, FIXED.affine, atol=1e-5)
    ras = points_of(FIXED)
    there = ras + displacement(ras)
    expected = 100 + 50 * np.sin(there[..., 0] / 6) * np.cos(there[..., 2] / 5)
    at = apply_affine(MOVING.inverse, there)
    inside = np.all((at >= 0) & (at <= np.array(MOVING.shape) - 1), axis=-1)
    got = np.asarray(image.dataobj)
    assert inside.mean() > 0.3 and np.abs(got - expected)[inside].max() < 3
    assert (got[~MOVING.contains(at)] == 0).all()
    side = json.loads((bench / "moved.nii.gz.json").read_text(encoding="utf-8"))
    assert set(side["made_from"]) == {"moving", "transform_1"} and side["interpolation"] == "linear"


@pytest.mark.parametrize("how", ["nearest", "labels"])
def test_apply_to_a_segmentation(bench, how):
    assert (
        run(
            "apply",
            "--transform",
            bench / "warp.nii.gz",
            "--image",
            bench / "seg.nii.gz",
            "--interpolation",
            how,
            "--out",
            bench / "s.nii",
        )
        == 0
    )
    moved = nib.load(str(bench / "s.nii"))
    truth = np.asarray(nib.load(str(bench / "fixed_seg.nii.gz")).dataobj)
    got = np.asarray(moved.dataobj)
    assert moved.get_data_dtype() == np.int16 and set(np.unique(got)) == {0, 17, 53} and (got == truth).mean() > 0.97


def test_apply_chains_in_the_order_a_fixed_point_meets(bench):
    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    write_affine(bench / "a.txt", Affine(shift), "itk")
    (bench / "p.csv").write_text("x,y,z\n0,-10,4\n", encoding="utf-8")
    p = np.array([0.0, -10, 4])
    chains = {
        ("a.txt", "warp.nii.gz"): p + (1, 2, 3) + displacement(p + (1, 2, 3)),
        ("warp.nii.gz", "a.txt"): p + displacement(p) + (1, 2, 3),
        ("inverse:a.txt",): p - (1, 2, 3),
    }
    for chain, expected in chains.items():
        words = [
            w
            for name in chain
            for w in ("--transform", name.replace(name.split(":")[-1], str(bench / name.split(":")[-1])))
        ]
        assert run("apply", *words, "--points", bench / "p.csv", "--out", bench / "q.csv") == 0
        got = np.loadtxt(str(bench / "q.csv"), delimiter=",", skiprows=1)
        assert np.linalg.norm(got - expected) < 0.02


def test_apply_points_there_and_back(bench):
    (bench / "p.csv").write_text("9,11,8\n6,9,12\n", encoding="utf-8")
    common = (
        "--transform",
        bench / "warp.nii.gz",
        "--fixed",
        bench / "fixed.nii.gz",
        "--moving",
        bench / "moving.nii.gz",
        "--frame",
        "voxel",
    )
    assert run("apply", *common, "--points", bench / "p.csv", "--out", bench / "q.csv") == 0
    assert run("apply", *common, "--points", bench / "q.csv", "--points-are", "moving", "--out", bench / "r.csv") == 0
    np.testing.assert_allclose(np.loadtxt(str(bench / "r.csv"), delimiter=","), [[9, 11, 8], [6, 9, 12]], atol=2e-3)
    x = np.array([9.0, 11, 8])
    ras = apply_affine(FIXED.affine, x)
    np.testing.assert_allclose(
        np.loadtxt(str(bench / "q.csv"), delimiter=",")[0],
        apply_affine(MOVING.inverse, ras + displacement(ras)),
        atol=1e-3,
    )


@pytest.mark.parametrize("form", ["fsl", "freesurfer", "l2r", "vxm", "itk"])
def test_convert_warp_and_back(bench, form):
    out = bench / "converted.nii.gz"
    assert (
        run(
            "convert-warp",
            "--warp",
            bench / "warp.nii.gz",
            "--moving",
            bench / "moving.nii.gz",
            "--warp-format",
            form,
            "--out",
            out,
        )
        == 0
    )
    assert run("convert-warp", "--warp", out, "--warp-format", "itk", "--out", bench / "again.nii.gz") == 0
    first, again = (np.asarray(nib.load(str(bench / name)).dataobj) for name in ("warp.nii.gz", "again.nii.gz"))
    assert np.abs(first - again).max() < 1e-5


def test_invert_reports_millimetres(bench, capsys):
    words = (
        "--warp",
        bench / "warp.nii.gz",
        "--moving",
        bench / "moving.nii.gz",
        "--inverse",
        bench / "inv.nii.gz",
        "--mask",
        bench / "mask.nii.gz",
    )
    assert run("invert", *words, "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["moving_mm"]["max"] <= 1e-3 and report["fixed_mm"]["p95"] < 0.2 and report["folded"] == 0
    inverse = read_warp(bench / "inv.nii.gz")
    assert inverse.fixed.shape == MOVING.shape and inverse.moving.shape == FIXED.shape
    mask = nib.load(str(bench / "mask.nii.gz"))
    assert mask.shape == MOVING.shape and mask.get_data_dtype() == np.uint8
    assert np.count_nonzero(np.asarray(mask.dataobj) & 4) == report["outside"] > 0


def test_jacobian_map_and_figures(bench, capsys):
    assert (
        run("jacobian", "--warp", bench / "warp.nii.gz", "--map", bench / "j.nii.gz", "--log-map", bench / "l.nii.gz")
        == 0
    )
    assert "sdlogj_formula" in capsys.readouterr().out
    j, logarithm = (np.asarray(nib.load(str(bench / name)).dataobj) for name in ("j.nii.gz", "l.nii.gz"))
    assert j.shape == FIXED.shape and j.min() > 0.5 and np.abs(np.log(j) - logarithm).max() < 1e-6
    write_nifti(bench / "mask.nii", (j > 1).astype(np.uint8), FIXED.affine)
    assert (
        run(
            "jacobian",
            "--warp",
            bench / "warp.nii.gz",
            "--mask",
            bench / "mask.nii",
            "--format",
            "json",
            "--out",
            bench / "f.json",
        )
        == 0
    )
    figures = json.loads((bench / "f.json").read_text(encoding="utf-8"))
    assert figures["n_voxels"] == np.count_nonzero(j > 1) and figures["min"] > 1


def test_evaluate_tables(bench, capsys):
    run(
        "apply",
        "--transform",
        bench / "warp.nii.gz",
        "--image",
        bench / "seg.nii.gz",
        "--interpolation",
        "nearest",
        "--out",
        bench / "m.nii.gz",
    )
    common = ("evaluate", "--fixed-seg", bench / "fixed_seg.nii.gz", "--moved-seg", bench / "m.nii.gz")
    assert run(*common, "--warp", bench / "warp.nii.gz", "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["id"]: row for row in document["structures"]}
    assert (
        len(rows) == 30
        and rows[17]["structure"] == "Left-Hippocampus"
        and rows[17]["dice"] > 0.85
        and rows[17]["hd95_mm"] <= 1.5
    )
    assert rows[2]["dice"] is None and rows[2]["hd95_mm"] is None
    assert document["overlap"]["structures_in_both"] == 2 and document["overlap"]["label_set"] == "paper30"
    assert document["overlap"]["dice_mean"] == pytest.approx((rows[17]["dice"] + rows[53]["dice"]) / 2)
    assert document["jacobian"]["folded"] == 0
    (bench / "mine.txt").write_text("17 hippo\n", encoding="utf-8")
    assert run(*common, "--labels", bench / "mine.txt", "--format", "csv") == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["structure"] for row in table] == ["hippo"] and float(table[0]["dice"]) == rows[17]["dice"]
    assert run(*common, "--labels", "seed30", "--l2r-compat") == 0
    text = capsys.readouterr().out
    assert "hd95_voxel" in text and "includes_background" in text and "n/a" in text and "Left-Hippocampus" in text


def test_evaluate_moving_segmentation_and_landmarks(bench, capsys):
    p = np.array([[0.0, -10, 4], [3, -12, 1]])
    np.savetxt(str(bench / "f.csv"), p, delimiter=",")
    np.savetxt(str(bench / "m.csv"), p + displacement(p), delimiter=",")
    words = (
        "evaluate",
        "--warp",
        bench / "warp.nii.gz",
        "--fixed-seg",
        bench / "fixed_seg.nii.gz",
        "--moving-seg",
        bench / "seg.nii.gz",
    )
    assert run(*words, "--fixed-points", bench / "f.csv", "--moving-points", bench / "m.csv", "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["overlap"]["dice_mean"] > 0.85 and document["overlap"]["interpolation"] == "nearest"
    landmarks = document["landmarks"]
    assert landmarks["tre_mm_before"]["mean"] == pytest.approx(np.linalg.norm(displacement(p), axis=1).mean())
    assert landmarks["tre_mm_after"]["max"] < 0.02


def test_slicers_points_keep_their_own_frame(bench, capsys):
    """The same landmark as RAS table and LPS fiducial; the file's frame decides, in and out."""
    p = np.array([[3.0, -10, 4]])
    fcsv = "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,{:.6f},{:.6f},{:.6f},AC\n"
    (bench / "f.fcsv").write_text(fcsv.format(-3, 10, 4), encoding="utf-8")
    q = (p + displacement(p))[0]
    assert (
        run("apply", "--transform", bench / "warp.nii.gz", "--points", bench / "f.fcsv", "--out", bench / "m.fcsv") == 0
    )
    carried = [float(cell) for cell in (bench / "m.fcsv").read_text(encoding="utf-8").splitlines()[2].split(",")[1:4]]
    assert carried == pytest.approx([-q[0], -q[1], q[2]], abs=0.02)
    assert json.loads((bench / "m.fcsv.json").read_text(encoding="utf-8"))["frame"] == "lps"
    words = (
        "evaluate",
        "--fixed-points",
        bench / "f.fcsv",
        "--moving-points",
        bench / "m.fcsv",
        "--warp",
        bench / "warp.nii.gz",
    )
    assert run(*words, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["landmarks"]["tre_mm_after"]["max"] < 1e-5
    assert run(*words, "--frame", "ras") == 1 and "its header says LPS, --frame says ras" in capsys.readouterr().err


def test_evaluate_takes_segmentations_of_other_grids_where_they_lie(bench, capsys, caplog):
    """Flipped, permuted, cropped and coarser: the scores are those of the same labels on the fixed grid."""
    common = (
        "apply",
        "--transform",
        bench / "warp.nii.gz",
        "--image",
        bench / "seg.nii.gz",
        "--interpolation",
        "nearest",
    )
    assert run(*common, "--out", bench / "m.nii.gz") == 0
    score = ("evaluate", "--format", "json", "--labels", "paper30", "--moved-seg", bench / "m.nii.gz", "--fixed-seg")
    carry = (
        "evaluate",
        "--format",
        "json",
        "--moving-seg",
        bench / "seg.nii.gz",
        "--warp",
        bench / "warp.nii.gz",
        "--fixed-seg",
    )

    def dice_of(*words):
        assert run(*words) == 0
        return json.loads(capsys.readouterr().out)["overlap"]["dice_mean"]

    expected = dice_of(*score, bench / "fixed_seg.nii.gz")
    assert dice_of(*carry, bench / "fixed_seg.nii.gz") == pytest.approx(expected) and "another grid" not in caplog.text
    seg = nib.load(str(bench / "fixed_seg.nii.gz"))
    turned = nib.Nifti1Image(np.asarray(seg.dataobj), seg.affine).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    cropped = seg.slicer[2:-1, 1:-2, 1:-1]
    for name, image in (("turned", turned), ("cropped", cropped)):
        nib.save(image, str(bench / f"{name}.nii.gz"))
        caplog.clear()
        assert dice_of(*score, bench / f"{name}.nii.gz") == pytest.approx(expected, abs=0.01)
        assert "resampled onto it by its header" in caplog.text
        caplog.clear()
        assert dice_of(*carry, bench / f"{name}.nii.gz") == pytest.approx(expected, abs=0.02)
        assert "where the warp is interpolated" in caplog.text
    far = nib.Nifti1Image(np.asarray(seg.dataobj), seg.affine + np.array([[0, 0, 0, 500.0]] + [[0] * 4] * 3))
    nib.save(far, str(bench / "far.nii.gz"))
    for words in (score, carry):
        assert run(*words, bench / "far.nii.gz") == 1
        assert "error:" in capsys.readouterr().err
    lost = nib.Nifti1Image(np.asarray(seg.dataobj)[:9], None)
    nib.save(lost, str(bench / "lost.nii.gz"))
    assert run("evaluate", "--fixed-seg", bench / "fixed_seg.nii.gz", "--moved-seg", bench / "lost.nii.gz") == 1
    assert "orientation" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (("apply", "--transform", "warp.nii.gz", "--image", "none.nii", "--out", "o.nii"), "no such file"),
        (("apply", "--transform", "warp.nii.gz", "--image", "moving.nii.gz", "--out", "o.mgz"), "change the name"),
        (
            ("apply", "--transform", "inverse:warp.nii.gz", "--image", "moving.nii.gz", "--out", "o.nii"),
            "om_runner invert",
        ),
        (
            ("apply", "--transform", "moving.nii.gz", "--image", "moving.nii.gz", "--out", "o.nii"),
            "three components per voxel",
        ),
        (
            ("convert-warp", "--warp", "moving.nii.gz", "--warp-format", "fsl", "--out", "o.nii"),
            "three components per voxel",
        ),
        (("invert", "--warp", "warp.nii.gz", "--inverse", "o.mgz"), "change the name"),
        (("apply", "--transform", "w.m3z", "--image", "moving.nii.gz", "--out", "o.nii"), "mri_warp_convert --inm3z"),
        (("apply", "--transform", "w.h5", "--image", "moving.nii.gz", "--out", "o.nii"), "ITK transform in HDF5"),
        (("convert-warp", "--warp", "w.xfm", "--warp-format", "itk", "--out", "o.nii"), "lta_convert"),
        (("evaluate",), "nothing to score"),
        (("evaluate", "--fixed-seg", "fixed_seg.nii.gz"), "goes together"),
        (("evaluate", "--fixed-seg", "fixed_seg.nii.gz", "--moving-seg", "seg.nii.gz"), "give --warp"),
        (
            (
                "evaluate",
                "--warp",
                "warp.nii.gz",
                "--fixed-seg",
                "fixed_seg.nii.gz",
                "--moved-seg",
                "fixed_seg.nii.gz",
                "--labels",
                "all",
            ),
            "label set",
        ),
        (("jacobian", "--warp", "warp.nii.gz", "--mask", "moving.nii.gz"), "shape"),
        (("jacobian", "--warp", "warp.nii.gz", "--mask", "unknown.nii"), "1 of 7920 voxels are NaN"),
        (("jacobian", "--warp", "warp.nii.gz", "--mask", "elsewhere.nii"), "20.0 mm apart"),
    ],
)
def test_one_message_exit_1_nothing_half_written(bench, words, message, capsys, monkeypatch):
    monkeypatch.chdir(bench)
    known = np.ones(FIXED.shape, np.float32)
    known[3, 4, 5] = np.nan
    write_nifti(bench / "unknown.nii", known, FIXED.affine)
    shift = np.eye(4)
    shift[0, 3] = 20
    write_nifti(bench / "elsewhere.nii", np.ones(FIXED.shape, np.float32), shift @ FIXED.affine)
    before = set(bench.iterdir())
    assert main(list(words)) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("error:") == 1 and "Traceback" not in error
    assert set(bench.iterdir()) == before
