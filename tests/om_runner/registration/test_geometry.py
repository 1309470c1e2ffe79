# SPDX-License-Identifier: Apache-2.0
"""The batch registration with scans and atlases of any grid: what the network gets, what is written, what is
refused.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.inputs.scans import Scan
from tests.support import fakes
from tests.support.nifti import NETWORK, save, write_turned
from tests.support.registration_bench import Bench
from vxm_convert.errors import ToolchainError, VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.grids import Grid, apply_affine
from vxm_convert.scans.conform import oriented
from vxm_convert.scans.grid import Laid, Laying
from vxm_convert.scans.labels import labels_of_scan
from vxm_convert.transforms.affines import write_affine
from vxm_convert.transforms.warps import read_warp


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench without scans; the atlas is an .npz on the network grid."""
    made = Bench(tmp_path, monkeypatch)
    made.inputs.mkdir()
    return made


def side(path: Path) -> dict:
    return json.loads(Path(str(path) + ".json").read_text(encoding="utf-8"))


def test_the_network_gets_the_same_bits_however_the_scan_is_stored(bench):
    fakes.write_scan(bench.inputs / "a.npz", 1)
    for name, orientation, pad in (("b", "RAS", 0), ("c", "PIR", 3), ("d", "RIA", 0)):
        write_turned(bench.inputs, name, orientation, pad=pad)
    assert bench.run() == 0
    first, *rest = (feeds["moving"] for feeds in bench.runtime.fed)
    assert len(rest) == 3 and all(np.array_equal(other, first) for other in rest)
    rows = bench.table("metrics.tsv")
    assert len({row["dice_before"] for row in rows}) == 1, "the labels went the same way"
    moved = [np.asarray(nib.load(str(bench.out / s / "moved.nii.gz")).dataobj) for s in "bcd"]
    assert all(np.array_equal(moved[0], other) for other in moved[1:]) and moved[0].dtype == np.uint8
    placed = side(bench.out / "c" / "moved.nii.gz")
    assert (
        placed["placement"]["conform"] == "voxels copied"
        and placed["edge"] == "zero"
        and placed["interpolation"] == "linear"
    )
    assert placed["placement"]["moving_grid"]["orientation"] == "PIR"


@pytest.mark.parametrize("case", ["other axes", "other origin"])
def test_our_warp_in_simpleitk_gives_our_moved_scan(bench, case):
    itk = pytest.importorskip("SimpleITK")
    if case == "other axes":
        write_turned(bench.inputs, "b", "PIR", pad=2)
    else:
        save(
            bench.inputs / "b.nii.gz",
            fakes.brain(1)[0],
            NETWORK.affine + np.array([[0, 0, 0, 9], [0, 0, 0, -5], [0] * 4, [0] * 4]),
        )
    assert bench.run("--edge", "zero") == 0
    fixed = itk.ReadImage(str(bench.out / "b" / "moved.nii.gz"), itk.sitkFloat32)
    field = itk.ReadImage(str(bench.out / "b" / "flow.nii.gz"), itk.sitkVectorFloat64)
    scan = itk.ReadImage(str(bench.inputs / "b.nii.gz"), itk.sitkFloat32)
    theirs = itk.GetArrayFromImage(
        itk.Resample(scan, fixed, itk.DisplacementFieldTransform(field), itk.sitkLinear, 0.0)
    )
    ours = itk.GetArrayFromImage(fixed)
    inner = (slice(1, -1),) * 3
    assert np.abs(theirs - ours)[inner].max() <= 0.5 + 1e-3 * np.ptp(ours), "ours is rounded to uint8"


def test_a_lying_header_is_explained_and_overridden(bench, caplog):
    image, seg = fakes.brain(1)
    save(bench.inputs / "a.nii.gz", image, np.eye(4))
    with caplog.at_level(logging.WARNING):
        assert bench.run() == 0
    assert "does not give the array's orientation (it has an identity affine)" in caplog.text
    assert "assumed to be on the network grid (LIA)" in caplog.text
    as_it_is = bench.runtime.fed[0]["moving"]
    caplog.clear()
    assert bench.run("--orientation", "LIA", "--force") == 0
    assert (
        np.array_equal(bench.runtime.fed[0]["moving"], as_it_is)
        and "does not give the array's orientation" not in caplog.text
    )
    save(bench.inputs / "a.nii.gz", np.pad(image, 2, mode="constant"), np.eye(4))
    assert bench.run("--force") == 1
    reason = bench.table("failures.tsv")[0]["reason"]
    assert "does not give the array's orientation" in reason and "--orientation" in reason
    assert bench.run("--orientation", "lia") == 0
    assert np.array_equal(bench.runtime.fed[0]["moving"], as_it_is)


def test_an_npz_of_another_shape_needs_its_axes_named(bench):
    image, seg = fakes.brain(1)
    fakes.write_scan(
        bench.inputs / "a.npz", 1, vol=np.pad(image, 2, mode="constant"), seg=np.pad(seg, 2, mode="constant")
    )
    assert bench.run() == 1 and "the network needs 16x16x32" in bench.table("failures.tsv")[0]["reason"]
    assert bench.run("--orientation", "LIA") == 0
    np.testing.assert_allclose(bench.runtime.fed[0]["moving"][0, ..., 0] * 255, image, atol=1e-4)


def big_atlas(bench) -> Grid:
    """The atlas as a larger file with other axes; the network grid is a crop of it."""
    image, seg = fakes.brain(0)
    network = oriented(fakes.SHAPE, "LIA", (1, 1, 1), (4, 7, -2))
    pad = ((6, 5), (3, 9), (2, 4))
    home = Grid(
        tuple(n + sum(p) for n, p in zip(fakes.SHAPE, pad)),
        network.affine @ nib.affines.from_matvec(np.eye(3), [-6, -3, -2]),
    )
    for data, name in ((image, "atlas_brain.nii.gz"), (seg, "atlas_seg.nii.gz")):
        bench.atlas = save(bench.atlas.with_name(name), np.pad(data, pad, mode="constant"), home.affine)
    bench.atlas = bench.atlas.with_name("atlas_brain.nii.gz")
    return home


@pytest.mark.parametrize("space", ["atlas", "network", "native"])
def test_the_space_of_the_results(bench, space):
    home = big_atlas(bench)
    write_turned(bench.inputs, "b", "PIR", seed=1, pad=2)
    scan = nib.load(str(bench.inputs / "b.nii.gz"))
    at = np.array(scan.affine)
    at[:3, 3] += home.centre_ras - NETWORK.centre_ras
    for name in ("b.nii.gz", "b_seg.nii.gz"):
        save(bench.inputs / name, np.asarray(nib.load(str(bench.inputs / name)).dataobj), at)
    assert bench.run("--space", space) == 0
    moved = nib.load(str(bench.out / "b" / "moved.nii.gz"))
    expected = {"atlas": (home.shape, home.affine), "network": (fakes.SHAPE, None), "native": (scan.shape, at)}[space]
    assert moved.shape == expected[0] and (expected[1] is None or np.allclose(moved.affine, expected[1], atol=1e-4))
    for name in ("flow.nii.gz", "moved_seg.nii.gz"):
        assert nib.load(str(bench.out / "b" / name)).shape[:3] == expected[0]
    assert float(bench.table("metrics.tsv")[0]["dice_after"]) > 0.4


def test_inverse_and_jacobian_on_request(bench, caplog):
    write_turned(bench.inputs, "b", "RAS", pad=2)
    with caplog.at_level(logging.INFO):
        assert bench.run("--outputs", "inverse,seg,jacobian,warp") == 0
    folder = bench.out / "b"
    names = sorted(p.name for p in folder.iterdir() if p.suffix != ".json")
    assert names == [
        "atlas_seg_in_scan.nii.gz",
        "flow.nii.gz",
        "inverse.nii.gz",
        "jacobian.nii.gz",
        "log.txt",
        "moved_seg.nii.gz",
    ]
    scan = nib.load(str(bench.inputs / "b.nii.gz"))
    carried = nib.load(str(folder / "atlas_seg_in_scan.nii.gz"))
    assert carried.shape == scan.shape and np.array_equal(carried.affine, scan.affine)
    assert (
        0.3 < side(folder / "atlas_seg_in_scan.nii.gz")["dice_mean"] <= 1 and "in the scan's own space" in caplog.text
    )
    told = side(folder / "inverse.nii.gz")
    assert told["warp_format"] == "itk" and told["consistency"]["moving_mm"]["n"] > 0 and told["made_from"]["moving"]
    forward, inverse = read_warp(folder / "flow.nii.gz"), read_warp(folder / "inverse.nii.gz")
    centre = np.array([8, 8, 16])
    there = apply_affine(forward.moving.affine, centre + forward.u[tuple(centre)])
    index = np.rint(apply_affine(inverse.fixed.inverse, there)).astype(int)
    back = apply_affine(inverse.moving.affine, index + inverse.u[tuple(index)])
    assert np.linalg.norm(back - apply_affine(forward.fixed.affine, centre)) < 2.5
    assert nib.load(str(folder / "jacobian.nii.gz")).get_data_dtype() == np.float32 and "folded" in side(
        folder / "jacobian.nii.gz"
    )


def test_a_scan_on_the_network_grid_has_an_inverse_too_and_can_be_resampled_by_the_host(bench):
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run() == 0
    by_network = {name: (bench.out / "a" / name).read_bytes() for name in ("flow.nii.gz", "moved.nii.gz")}
    told = side(bench.out / "a" / "moved.nii.gz")
    assert (
        told["resampled_by"] == "the network"
        and told["edge"] == "clamp"
        and told["placement"]["conform"].startswith("untouched")
    )
    assert bench.run("--edge", "zero", "--outputs", "moved,warp,inverse", "--space", "native", "--force") == 0
    assert (bench.out / "a" / "flow.nii.gz").read_bytes() == by_network["flow.nii.gz"]
    assert (bench.out / "a" / "moved.nii.gz").read_bytes() != by_network["moved.nii.gz"]
    assert "host" in side(bench.out / "a" / "moved.nii.gz")["resampled_by"]
    assert read_warp(bench.out / "a" / "inverse.nii.gz").fixed == NETWORK


@pytest.mark.parametrize("form", ["fsl", "freesurfer", "l2r", "vxm"])
def test_the_warp_in_other_layouts_is_the_same_warp(bench, form):
    write_turned(bench.inputs, "b", "RAS", pad=2)
    assert bench.run() == 0
    expected = read_warp(bench.out / "b" / "flow.nii.gz").u
    assert bench.run("--warp-format", form, "--force") == 0
    np.testing.assert_allclose(read_warp(bench.out / "b" / "flow.nii.gz").u, expected, atol=2e-5)
    assert side(bench.out / "b" / "flow.nii.gz")["warp_format"] == form


def test_an_affine_file_per_subject(bench):
    pull = np.eye(4)
    pull[:3, 3] = 5, -3, 2
    image, seg = fakes.brain(1)
    save(bench.inputs / "b.nii.gz", image, pull @ NETWORK.affine)
    write_affine(bench.inputs.parent / "pre_b.txt", Affine(pull), "itk")
    assert bench.run("--affine", str(bench.inputs.parent / "pre_{subject}.txt")) == 0
    np.testing.assert_allclose(bench.runtime.fed[0]["moving"][0, ..., 0] * 255, image, atol=1e-3)
    told = side(bench.out / "b" / "moved.nii.gz")
    assert (
        told["placement"]["affine"] == "pre_b.txt" and told["made_from"]["affine"] == told["placement"]["affine_sha256"]
    )
    listed = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))["inputs"]
    assert listed[str(bench.inputs.parent / "pre_b.txt")] == told["made_from"]["affine"], "verify finds it changed"
    assert bench.run("--affine", str(bench.inputs.parent / "none_{subject}.txt")) == 1
    assert "none_b.txt: no such file" in bench.table("failures.tsv")[0]["reason"]


def test_without_simpleitk_one_message_before_the_device_opens(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    write_turned(bench.inputs, "b", "RAS", pad=2)
    write_turned(bench.inputs, "c", "RAS", pad=2)
    with pytest.raises(ToolchainError, match="--affine auto: SimpleITK is not installed; pip install SimpleITK"):
        bench.run("--affine", "auto")
    assert not bench.out.exists() and not bench.runtime.fed


@pytest.mark.parametrize("name, words", [("pre.x5", "nitransforms"), ("pre.xfm", "lta_convert --inmni")])
def test_affines_that_are_not_read_are_named_with_their_converter(bench, capsys, name, words):
    (bench.inputs.parent / name).write_bytes(b"x")
    with pytest.raises(SystemExit) as ended:
        bench.run("--affine", str(bench.inputs.parent / name))
    assert ended.value.code == 2 and words in " ".join(capsys.readouterr().err.split())


def test_zero_and_clamp_at_the_edge(bench):
    scan = np.full(fakes.SHAPE, 100, np.uint8)
    scan[8:] = 90
    save(bench.inputs / "b.nii.gz", scan[:, :, :20], NETWORK.affine)
    zeros = []
    for edge in ("zero", "clamp"):
        assert bench.run("--edge", edge, "--force") == 0
        zeros.append(int(np.count_nonzero(np.asarray(nib.load(str(bench.out / "b" / "moved.nii.gz")).dataobj) == 0)))
    assert zeros[0] >= 16 * 16 * 11 and zeros[1] == 0


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda a: a + np.array([[0, 0, 0, 300], [0] * 4, [0] * 4, [0] * 4]),
            "network's field of view; its header places it away from the atlas",
        ),
        (lambda a: a * np.array([[1, 1, 1, np.nan]]), "expected a finite 4x4 matrix"),
    ],
)
def test_headers_that_are_refused(bench, change, words):
    image, _ = fakes.brain(1)
    path = save(bench.inputs / "b.nii.gz", np.pad(image, 1, mode="constant"), NETWORK.affine)
    header = nib.load(str(path)).header.copy()
    header["qform_code"] = 0
    header["srow_x"], header["srow_y"], header["srow_z"] = change(NETWORK.affine)[:3]
    nib.save(nib.Nifti1Image(np.pad(image, 1, mode="constant"), None, header), str(path))
    assert bench.run() == 1
    assert words in bench.table("failures.tsv")[0]["reason"] and not (bench.out / "b").exists()


def hostile(folder: Path, case: str) -> None:
    image, seg = (np.pad(a, 2, mode="constant") for a in fakes.brain(1))
    scan = save(folder / "b.nii.gz", image, NETWORK.affine)
    content = scan.read_bytes()
    if case == "empty":
        scan.write_bytes(b"")
    elif case == "truncated":
        scan.write_bytes(content[: len(content) // 2])
    elif case == "nan":
        save(scan, np.where(image > 100, np.nan, image).astype(np.float32), NETWORK.affine)
    elif case == "frames":
        save(scan, np.stack([image, image], axis=-1), NETWORK.affine)
    elif case == "constant":
        save(scan, np.full_like(image, 7), NETWORK.affine)
    elif case == "half a label":
        save(folder / "b_seg.nii.gz", (seg + 0.5).astype(np.float32), NETWORK.affine)
    elif case == "labels of another grid":
        save(folder / "b_seg.nii.gz", seg[1:], np.eye(4))


@pytest.mark.parametrize(
    "case, words",
    [
        ("empty", "is empty, expected a gzip stream"),
        ("truncated", "damaged"),
        ("nan", "voxels are NaN"),
        ("frames", "expected one 3-D scan"),
        ("constant", "every voxel is 7"),
        ("half a label", "not whole numbers"),
        ("labels of another grid", "their relative position is unknown, because its header has an identity affine"),
    ],
)
def test_damaged_scans_of_any_grid_are_one_row_each(bench, case, words):
    hostile(bench.inputs, case)
    fakes.write_scan(bench.inputs / "a.npz", 1)
    assert bench.run("--outputs", "moved,warp,seg,inverse,jacobian") == 1
    (failure,) = bench.table("failures.tsv")
    assert failure["subject"] == "b" and words in failure["reason"] and "\n" not in failure["reason"]
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a"] and not (bench.out / "b").exists()


def test_doubts_are_said_and_the_scan_registered(bench, caplog):
    sheared = np.array(NETWORK.affine)
    sheared[0, 1] = 0.05
    save(bench.inputs / "b.nii.gz", np.pad(fakes.brain(1)[0], 1, mode="constant"), sheared)
    with caplog.at_level(logging.WARNING):
        assert bench.run() == 0
    assert "sheared" in caplog.text and "b.nii.gz: " in caplog.text
    caplog.clear()
    write_turned(bench.inputs, "c", "RAS")
    bench.run()
    assert "left/right flip suspected" in caplog.text, "in the phantom the left labels lie on the right"


def test_an_atlas_that_lies_cannot_place_other_scans(bench):
    save(bench.atlas.with_name("flat.nii.gz"), fakes.brain(0)[0], np.eye(4))
    bench.atlas = bench.atlas.with_name("flat.nii.gz")
    fakes.write_scan(bench.inputs / "a.npz", 1)
    write_turned(bench.inputs, "b", "RAS")
    assert bench.run() == 1
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a"]
    assert "flat.nii.gz: its header does not give the atlas's orientation" in bench.table("failures.tsv")[0]["reason"]
    assert bench.run("--orientation", "LIA", "--force") == 0, "axes named: the atlas too is placed"
    save(bench.atlas, np.pad(fakes.brain(0)[0], 2, mode="constant"), np.eye(4))
    with pytest.raises(VolumeError, match="does not give the array's orientation"):
        bench.run()
    assert bench.run("--orientation", "LIA", "--force") == 0 and len(bench.table("metrics.tsv")) == 2


def test_an_atlas_without_place_makes_no_scan_a_flipped_one(bench, caplog):
    """Its identity affine says that the array runs to the right; the network's axes say to the left."""
    right = {2: 41, 41: 2}
    for name, seed in (("atlas", 0), ("a", 1)):
        image, seg = fakes.brain(seed)
        seg = np.vectorize(lambda label: right.get(label, label))(seg).astype(np.int16)
        folder = bench.atlas.parent if name == "atlas" else bench.inputs
        save(folder / f"{name}.nii.gz", image, np.eye(4))
        save(folder / f"{name}_seg.nii.gz", seg, np.eye(4))
    bench.atlas = bench.atlas.with_name("atlas.nii.gz")
    assert bench.run() == 0
    assert "flip suspected" not in caplog.text and "assumed to be on the network grid" in caplog.text
    (row,) = bench.table("metrics.tsv")
    assert row["subject"] == "a" and float(row["dice_after"]) > 0.5
    save(bench.inputs / "a_seg.nii.gz", fakes.brain(1)[1], np.eye(4))
    assert bench.run() == 0 and "flip suspected" in caplog.text, "labels that are flipped are found still"


def turned_labels(case: str):
    """The scan of seed 1 on the network grid, and its labels stored otherwise with a header that says so."""
    _, seg = fakes.brain(1)
    if case == "flipped":
        matrix = np.diag([-1.0, 1, 1, 1])
        matrix[0, 3] = seg.shape[0] - 1
        return seg[::-1], NETWORK.affine @ matrix
    if case == "other order":
        return np.ascontiguousarray(seg.transpose(2, 0, 1)), NETWORK.affine[:, [2, 0, 1, 3]]
    if case == "shifted":
        return seg[:, 3:], NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [0, 3, 0])
    return np.pad(seg, 4, mode="constant"), NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [-4] * 3)


@pytest.mark.parametrize("case", ["flipped", "other order", "shifted", "larger"])
def test_a_segmentation_lies_where_its_own_header_says(bench, case):
    image, seg = fakes.brain(1)
    save(bench.inputs / "a.nii.gz", image, NETWORK.affine)
    save(bench.inputs / "a_seg.nii.gz", seg, NETWORK.affine)
    save(bench.inputs / "b.nii.gz", image, NETWORK.affine)
    save(bench.inputs / "b_seg.nii.gz", *turned_labels(case))
    assert bench.run() == 0
    rows = {row["subject"]: row for row in bench.table("metrics.tsv")}
    assert float(rows["b"]["dice_after"]) == pytest.approx(float(rows["a"]["dice_after"]), abs=0.05)
    moved = [np.asarray(nib.load(str(bench.out / name / "moved_seg.nii.gz")).dataobj) for name in "ab"]
    if case != "shifted":
        assert np.array_equal(*moved)
    save(bench.inputs / "b_seg.nii.gz", turned_labels(case)[0], np.eye(4))
    assert bench.run() == 1
    assert "because its header has an identity affine" in bench.table("failures.tsv")[0]["reason"]


def test_labels_half_a_voxel_off_keep_their_shape(bench):
    """Every voxel takes its neighbour on the same side; rounding half to even would double some and lose others."""
    image, seg = fakes.brain(1)
    save(bench.inputs / "b.nii.gz", image, NETWORK.affine)
    half = NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [0.5, 0, 0])
    save(bench.inputs / "b_seg.nii.gz", seg, half)
    scan = Scan("b", bench.inputs / "b.nii.gz", bench.inputs / "b_seg.nii.gz")
    laid = Laid(NETWORK, Laying.HEADER)
    found, _ = labels_of_scan(scan.file, scan.seg_file, laid)
    assert np.array_equal(found[1:], seg[:-1]) or np.array_equal(found[:-1], seg[1:]) or np.array_equal(found, seg)


def test_labels_far_from_their_scan_are_refused(bench):
    image, seg = fakes.brain(1)
    save(bench.inputs / "b.nii.gz", image, NETWORK.affine)
    save(bench.inputs / "b_seg.nii.gz", seg, NETWORK.affine @ nib.affines.from_matvec(np.eye(3), [0, 200, 0]))
    assert bench.run() == 1
    assert "100 % of its labelled voxels lie outside b.nii.gz" in bench.table("failures.tsv")[0]["reason"]


def test_run_json_names_the_choices(bench):
    write_turned(bench.inputs, "b", "RAS")
    assert bench.run("--space", "network", "--label-interpolation", "label-safe", "--outputs", "seg") == 0
    run = json.loads((bench.out / "run.json").read_text(encoding="utf-8"))
    assert (
        run["geometry"]["space"] == "network"
        and run["geometry"]["affine"] == "none"
        and run["label_interpolation"] == "label-safe"
    )
    assert sorted(p.name for p in (bench.out / "b").iterdir()) == [
        "log.txt",
        "moved_seg.nii.gz",
        "moved_seg.nii.gz.json",
    ]


def test_compression_is_chosen_and_registers_nothing_again(bench):
    write_turned(bench.inputs, "b", "RAS")
    outputs = ("--outputs", "moved,warp,inverse,seg,jacobian")

    def images():
        found = {path.name: path for path in (bench.out / "b").glob("*.nii.gz")}
        return {name: (path.stat().st_size, np.asarray(nib.load(str(path)).dataobj)) for name, path in found.items()}

    assert bench.run(*outputs) == 0
    usual = images()
    assert bench.run(*outputs, "--compress", "none") == 0
    assert all(images()[name][0] == usual[name][0] for name in usual), "finished scans keep what they have"
    assert bench.run(*outputs, "--compress", "none", "--force") == 0
    for name, (size, voxels) in images().items():
        assert size > max(voxels.nbytes, usual[name][0]) and np.array_equal(voxels, usual[name][1]), name
    assert len(usual) == 6


def test_affine_auto_through_the_runner(bench, monkeypatch):
    pytest.importorskip("SimpleITK")
    shifted = NETWORK.affine + np.array([[0, 0, 0, 30], [0, 0, 0, -25], [0, 0, 0, 12], [0] * 4])
    save(bench.inputs / "b.nii.gz", np.pad(fakes.brain(1)[0], 4, mode="constant"), shifted)
    assert bench.run("--affine", "auto") == 0
    told = side(bench.out / "b" / "moved.nii.gz")["placement"]
    assert told["affine"] == "auto" and told["affine_overlap_dice"] > 0.8 and "SimpleITK" in told["affine_tool"]
    assert float(bench.table("metrics.tsv")[0]["affine_overlap"]) == pytest.approx(
        told["affine_overlap_dice"], abs=1e-5
    )
    searched = {name: (bench.out / "b" / name).read_bytes() for name in ("moved.nii.gz", "flow.nii.gz", "affine.txt")}
    first, bench.out = bench.out, bench.out.with_name("again")
    assert bench.run("--affine", str(first)) == 0
    assert searched == {name: (bench.out / "b" / name).read_bytes() for name in searched}


@pytest.mark.parametrize("affine", [NETWORK.affine, np.eye(4), NETWORK.affine + np.diag([0.1, 0, 0, 0])])
def test_any_scale_of_intensities_by_percentile(bench, affine):
    image = fakes.brain(1)[0]
    save(bench.inputs / "b.nii.gz", (image * 20.0).astype(np.int16), affine)
    assert bench.run() == 1 and "intensities 0..2" in bench.table("failures.tsv")[0]["reason"]
    assert bench.run("--intensity", "percentile") == 0
    fed = bench.runtime.fed[0]["moving"]
    assert 0.48 < np.percentile(fed[fed > 0], 99.9) <= 0.51 and fed.max() <= 1
    moved = nib.load(str(bench.out / "b" / "moved.nii.gz"))
    assert moved.get_data_dtype() == np.int16 and np.asarray(moved.dataobj).max() > 1500
    assert "99.9 %" in side(bench.out / "b" / "moved.nii.gz")["placement"]["intensity"]


@pytest.mark.parametrize(
    "option, value",
    [
        ("--affine", "nowhere.lta"),
        ("--orientation", "LLA"),
        ("--outputs", "moved,foo"),
        ("--outputs", ""),
        ("--space", "moon"),
        ("--edge", "wrap"),
        ("--intensity", "any"),
        ("--warp-format", "ants"),
        ("--label-interpolation", "linear"),
        ("--compress", "10"),
        ("--compress", "fast"),
    ],
)
def test_usage_errors(option, value):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--input", "x", "--atlas", "y", option, value])
    assert caught.value.code == 2


def test_an_atlas_without_file_is_one_message(bench):
    bench.atlas = bench.atlas.with_name("none.nii.gz")
    with pytest.raises(VolumeError, match="no such atlas"):
        bench.run()
