# SPDX-License-Identifier: Apache-2.0
"""Results that are of no use are no success: images that do not meet, labels that interpolation makes up, NaN that grows,
landmarks of other names, structures under other numbers.
"""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from om_runner.__main__ import main
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.transforms.warps import write_warp

SHAPE = (16, 18, 17)
GRID = Grid(SHAPE, np.array([[2.0, 0, 0, -16], [0, 2, 0, -18], [0, 0, 2, -17], [0, 0, 0, 1]]))


def save(path, data, affine=GRID.affine):
    nib.save(nib.Nifti1Image(data, affine), str(path))
    return path


def get(path):
    return np.asarray(nib.load(str(path)).dataobj)


@pytest.fixture
def warp(tmp_path):
    """Half a voxel along x, a third along y."""
    u = np.zeros(SHAPE + (3,))
    u[...] = (0.5, 1 / 3.0, 0)
    write_warp(tmp_path / "w.nii.gz", Warp(u, GRID, GRID))
    return tmp_path / "w.nii.gz"


@pytest.fixture
def aseg(tmp_path):
    data = np.zeros(SHAPE, np.int16)
    data[3:8, 3:15, 3:14], data[8:13, 3:15, 3:14] = 17, 53
    return save(tmp_path / "aseg.nii.gz", data)


def run(*words):
    return main([str(word) for word in words])


def apply(warp, image, *more):
    out = warp.with_name("o.nii.gz")
    return run("apply", "--transform", warp, "--image", image, "--out", out, *more), out


def test_a_segmentation_is_not_interpolated_unasked(warp, aseg, caplog):
    code, out = apply(warp, aseg)
    assert code == 0 and set(np.unique(get(out))) == {0, 17, 53}
    assert "looks like a segmentation" in caplog.text
    assert json.loads(out.with_name("o.nii.gz.json").read_text(encoding="utf-8"))["interpolation"] == "nearest"


def test_linear_that_is_asked_for_is_obeyed_and_its_new_ids_said(warp, aseg, caplog):
    code, out = apply(warp, aseg, "--interpolation", "linear")
    assert code == 0 and len(np.unique(get(out))) > 3
    assert "values that it does not have" in caplog.text


@pytest.mark.parametrize("kind", ["noisy scan", "mask", "smooth scan"])
def test_what_is_no_segmentation_is_interpolated(warp, tmp_path, kind, caplog):
    rng, x = np.random.RandomState(0), np.arange(SHAPE[0])[:, np.newaxis, np.newaxis]
    data = {
        "noisy scan": np.clip(110 + 8 * rng.randn(*SHAPE), 0, 255).astype(np.uint8),
        "mask": (np.broadcast_to(x, SHAPE) > 7).astype(np.uint8),
        "smooth scan": np.broadcast_to(5 * x + 1, SHAPE).astype(np.float32),
    }[kind]
    code, out = apply(warp, save(tmp_path / "i.nii.gz", data))
    assert code == 0 and "looks like a segmentation" not in caplog.text
    side = json.loads(out.with_name("o.nii.gz.json").read_text(encoding="utf-8"))
    assert side["interpolation"] == "linear"
    if kind == "smooth scan":
        np.testing.assert_allclose(get(out)[2:-2], (data + 2.5)[2:-2], atol=1e-4)


def test_nan_does_not_grow_over_voxels_that_do_not_count(tmp_path, caplog):
    write_warp(tmp_path / "w.nii.gz", Warp(np.zeros(SHAPE + (3,)), GRID, GRID))
    data = np.random.RandomState(1).rand(*SHAPE).astype(np.float32)
    data[5, 6, 7] = np.nan
    code, out = apply(tmp_path / "w.nii.gz", save(tmp_path / "i.nii.gz", data))
    assert code == 0 and np.array_equal(np.isnan(get(out)), np.isnan(data))
    assert "1 of 4896 voxels are NaN" in caplog.text
    u = np.zeros(SHAPE + (3,))
    u[..., 0] = 0.25
    write_warp(tmp_path / "w.nii.gz", Warp(u, GRID, GRID))
    _, out = apply(tmp_path / "w.nii.gz", tmp_path / "i.nii.gz")
    assert np.argwhere(np.isnan(get(out))).tolist() == [[4, 6, 7], [5, 6, 7]]


def far(offset):
    moved = GRID.affine.copy()
    moved[0, 3] += offset
    return moved


def test_images_that_do_not_meet_are_no_success(warp, tmp_path, aseg, capsys):
    data = np.random.RandomState(1).rand(*SHAPE).astype(np.float32)
    save(tmp_path / "far.nii.gz", data, far(300))
    code, out = apply(warp, tmp_path / "far.nii.gz")
    assert code == 1 and not out.exists() and "0 of 4896 voxels" in capsys.readouterr().err
    save(tmp_path / "fixed.nii.gz", data, far(300))
    code, out = apply(warp, tmp_path / "far.nii.gz", "--fixed", tmp_path / "fixed.nii.gz")
    assert code == 1 and "no voxel of the fixed grid" in capsys.readouterr().err
    far_seg = save(tmp_path / "far_seg.nii.gz", get(aseg), far(300))
    words = ("evaluate", "--fixed-seg", aseg, "--moving-seg", far_seg, "--warp", warp)
    assert run(*words) == 1 and "0 of 4896 voxels" in capsys.readouterr().err
    for verb in (("jacobian",), ("invert", "--inverse", tmp_path / "v.nii.gz")):
        assert run(*verb, "--warp", warp, "--moving", tmp_path / "far.nii.gz") == 1
    words = ("convert-warp", "--warp-format", "vxm", "--out", tmp_path / "v.nii.gz", "--warp", warp)
    assert run(*words, "--moving", tmp_path / "far.nii.gz") == 1 and not (tmp_path / "v.nii.gz").exists()


def test_a_result_of_background_only_is_no_success(tmp_path, warp, capsys):
    data = np.zeros(SHAPE, np.float32)
    data[:3] = np.random.RandomState(1).rand(3, *SHAPE[1:])
    code, out = apply(warp, save(tmp_path / "i.nii.gz", data, far(-10)))
    assert code == 1 and not out.exists() and "the result is 0 everywhere" in capsys.readouterr().err


def test_part_of_a_warp_is_said(tmp_path, warp, caplog):
    data = np.random.RandomState(1).rand(*SHAPE).astype(np.float32)
    save(tmp_path / "fixed.nii.gz", data, far(22))
    code, _ = apply(warp, save(tmp_path / "i.nii.gz", data, far(10)), "--fixed", tmp_path / "fixed.nii.gz")
    assert code == 0 and "its grid covers 3" in caplog.text


def test_half_a_grid_without_its_voxel_size(tmp_path, capsys):
    half = Grid(tuple(n // 2 for n in SHAPE), GRID.affine)
    write_warp(tmp_path / "h.nii.gz", Warp(np.zeros(half.shape + (3,)), half, half))
    data = np.random.RandomState(1).rand(*SHAPE).astype(np.float32)
    code, _ = apply(tmp_path / "h.nii.gz", save(tmp_path / "i.nii.gz", data), "--fixed", tmp_path / "i.nii.gz")
    assert code == 1 and "half resolution with the voxel size of full" in capsys.readouterr().err


def test_displacements_of_the_wrong_sign_are_doubted(tmp_path, caplog):
    """RAS numbers in an LPS file: as they are, hardly a point lands in the image, negated nearly all do."""
    save(tmp_path / "i.nii.gz", np.random.RandomState(1).rand(*SHAPE).astype(np.float32), far(24))
    field = np.zeros(SHAPE + (1, 3), np.float32)
    field[..., 0] = 24
    image = nib.Nifti1Image(field, GRID.affine)
    image.header.set_intent(1007)
    nib.save(image, str(tmp_path / "w.nii.gz"))
    code, _ = apply(tmp_path / "w.nii.gz", tmp_path / "i.nii.gz")
    assert code == 1
    image.header.set_intent(1007)
    image.dataobj[..., 0] = 12
    nib.save(image, str(tmp_path / "w.nii.gz"))
    save(tmp_path / "j.nii.gz", np.random.RandomState(1).rand(*SHAPE).astype(np.float32), far(14))
    code, _ = apply(tmp_path / "w.nii.gz", tmp_path / "j.nii.gz")
    assert code == 0 and "with x and y negated" in caplog.text


def test_a_fully_folded_field_has_no_figures(tmp_path, capsys):
    field = np.zeros(SHAPE + (1, 3), np.float32)
    field[..., 0, 0] = (2.5 * 2 * np.arange(SHAPE[0]))[:, np.newaxis, np.newaxis] * -1
    image = nib.Nifti1Image(-field, GRID.affine)
    image.header.set_intent(1006)
    image = nib.Nifti1Image(field, GRID.affine, image.header)
    nib.save(image, str(tmp_path / "w.nii.gz"))
    for words in (
        ("jacobian", "--warp"),
        ("evaluate", "--warp"),
        ("invert", "--inverse", tmp_path / "o.nii.gz", "--warp"),
        ("convert-warp", "--warp-format", "itk", "--out", tmp_path / "o.nii.gz", "--warp"),
    ):
        assert run(*words, tmp_path / "w.nii.gz") == 1
        said = capsys.readouterr()
        assert "folded" in said.err and not said.out and not (tmp_path / "o.nii.gz").exists()
    save(tmp_path / "i.nii.gz", np.random.RandomState(1).rand(*SHAPE).astype(np.float32))
    assert apply(tmp_path / "w.nii.gz", tmp_path / "i.nii.gz")[0] == 1


HEAD = "# CoordinateSystem = LPS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
POINTS = {"AC": (1, 2, 3), "PC": (1, -14, 3), "LV": (10, 5, 9)}


def fcsv(path, names):
    rows = ["{},{},{},{},0,0,0,1,1,1,0,{},,\n".format(n, *POINTS[name], name) for n, name in enumerate(names, 1)]
    path.write_text(HEAD + "".join(rows), encoding="utf-8")
    return path


def landmarks(capsys, warp, fixed, moving, code=0):
    words = ("evaluate", "--warp", warp, "--format", "json", "--fixed-points", fixed, "--moving-points", moving)
    assert run(*words) == code
    said = capsys.readouterr()
    return json.loads(said.out)["landmarks"] if code == 0 else said.err


def test_landmarks_pair_by_label(warp, tmp_path, capsys):
    fixed = fcsv(tmp_path / "f.fcsv", ("AC", "PC", "LV"))
    found = landmarks(capsys, warp, fixed, fcsv(tmp_path / "m.fcsv", ("PC", "AC", "LV")))
    assert found["tre_mm_before"]["max"] == 0 and found["n"] == 3 and found["n_unpaired"] == 0
    found = landmarks(capsys, warp, fixed, fcsv(tmp_path / "m.fcsv", ("LV", "AC")))
    assert found["tre_mm_before"]["max"] == 0 and found["n"] == 2 and found["n_unpaired"] == 1
    assert "more than once" in landmarks(capsys, warp, fixed, fcsv(tmp_path / "m.fcsv", ("AC", "AC", "LV")), 1)
    (tmp_path / "m.csv").write_text("label,x,y,z\nq,1,2,3\nr,1,2,3\ns,1,2,3\n", encoding="utf-8")
    assert "no label in both" in landmarks(capsys, warp, fixed, tmp_path / "m.csv", 1)
    (tmp_path / "m.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    assert "without labels" in landmarks(capsys, warp, fixed, tmp_path / "m.csv", 1)


def test_points_that_were_never_placed(warp, tmp_path, capsys, caplog):
    def write(name, old):
        points = [
            {"label": "A", "position": [10.0, 5, 3], "positionStatus": "defined"},
            {"label": "B", "position": old, "positionStatus": "undefined"},
            {"label": "C", "position": [-4.0, 5, 3]},
        ]
        markup = {"coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
        (tmp_path / name).write_text(json.dumps({"markups": [markup]}), encoding="utf-8")
        return tmp_path / name

    found = landmarks(capsys, warp, write("f.mrk.json", [0, 0, 0]), write("m.mrk.json", [12, -9, 8]))
    assert found["tre_mm_before"]["max"] == 0 and found["n"] == 2
    out = tmp_path / "o.mrk.json"
    assert run("apply", "--transform", warp, "--points", tmp_path / "f.mrk.json", "--out", out) == 0
    assert "1 points were never placed and are left out: B" in caplog.text
    carried = json.loads(out.read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    assert [point["label"] for point in carried] == ["A", "C"] and carried[0]["position"] != [10, 5, 3]


def test_points_beyond_the_warp(warp, tmp_path, capsys, caplog):
    (tmp_path / "p.csv").write_text("x,y,z\n500,0,0\n", encoding="utf-8")
    words = ("apply", "--transform", warp, "--points", tmp_path / "p.csv", "--out", tmp_path / "q.csv")
    assert run(*words) == 1 and not (tmp_path / "q.csv").exists() and "none of 1 points" in capsys.readouterr().err
    (tmp_path / "p.csv").write_text("x,y,z\n500,0,0\n1,2,3\n", encoding="utf-8")
    assert run(*words) == 0 and "1 of 2 points lie beyond" in caplog.text


def numbered(path, ids):
    data = np.zeros(SHAPE, np.int16)
    for n, label in enumerate(ids):
        data.reshape(-1)[n * 60 : n * 60 + 60] = label
    return save(path, data)


def test_structures_under_other_numbers(tmp_path, capsys):
    oasis = numbered(tmp_path / "oasis.nii.gz", range(1, 36))
    words = ("evaluate", "--fixed-seg", oasis, "--moved-seg", oasis, "--format", "json")
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert "1 to 35 are not FreeSurfer's, 17 of 35" in error and "--labels oasis35 would fit" in error
    assert run(*words, "--labels", "oasis35") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["overlap"]["dice_mean"] == 1 and document["structures"][13]["structure"] == "Left-Hippocampus"
    aseg = numbered(tmp_path / "aseg.nii.gz", [2, 3, 4, 5, 7, 8, 10, 11, 17, 18, 24, 26, 41, 42, 53, 77])
    words = ("evaluate", "--fixed-seg", aseg, "--moved-seg", aseg, "--format", "json")
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out)["overlap"]["ids_not_in_set"] == 3
    assert run(*words, "--labels", "oasis35") == 1 and "not those of oasis35" in capsys.readouterr().err


def test_segmentations_that_do_not_meet(tmp_path, aseg, capsys):
    other = save(
        tmp_path / "b.nii.gz", np.where(get(aseg) == 17, 53, np.where(get(aseg) == 53, 17, 0)).astype(np.int16)
    )
    assert run("evaluate", "--fixed-seg", aseg, "--moved-seg", other) == 1
    assert "none of the 2 structures" in capsys.readouterr().err
    other = save(tmp_path / "b.nii.gz", np.where(get(aseg) > 0, 10, 0).astype(np.int16))
    assert run("evaluate", "--fixed-seg", aseg, "--moved-seg", other) == 1
    assert "no structure of the set is in both" in capsys.readouterr().err


def test_a_list_with_0_does_not_score_the_background(tmp_path, aseg, capsys):
    (tmp_path / "lut.txt").write_text("0 Unknown\n17 hippo\n53 hippo-r\n", encoding="utf-8")
    words = ("evaluate", "--fixed-seg", aseg, "--moved-seg", aseg, "--labels", tmp_path / "lut.txt", "--format", "json")
    assert run(*words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in document["structures"]] == [17, 53] and not document["overlap"]["includes_background"]


def test_labels_that_are_whole_but_for_rounding(tmp_path, aseg, capsys, caplog):
    near = save(tmp_path / "n.nii.gz", (get(aseg) * 0.999999 + 1e-5).astype(np.float32))
    assert run("evaluate", "--fixed-seg", aseg, "--moved-seg", near, "--format", "json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["overlap"]["dice_mean"] == 1 and "whole numbers but for rounding" in caplog.text
    half = save(tmp_path / "h.nii.gz", (get(aseg) * 0.5).astype(np.float32))
    assert (
        run("evaluate", "--fixed-seg", aseg, "--moved-seg", half) == 1
        and "not whole numbers" in capsys.readouterr().err
    )
