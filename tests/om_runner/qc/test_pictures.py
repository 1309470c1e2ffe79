# SPDX-License-Identifier: Apache-2.0
"""The pictures of a subject against a head whose every side is known; the figures and warnings beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from om_runner.qc.case import by_affine_alone, onto
from om_runner.qc.colours import GREYS, SIGNS, colour_of, mosaic, put_letters
from om_runner.qc.measures import brightness, correlation, warnings_of, white_of
from om_runner.qc.pictures import draw, line_spacing
from om_runner.qc.record import PICTURES, read_record, read_records, write_case
from om_runner.qc.slices import VIEWS, Slices, shown_box
from tests.support.qc_cases import RAS_SHAPE, case, colours, grid_of, head, in_axes
from vxm_convert.errors import ArtifactError, FormatError, VolumeError
from vxm_convert.geometry.fields import Warp

pytestmark = pytest.mark.any_python("pixels of NumPy arrays and text files")

ALL = (0, 0, 0), tuple(n - 1 for n in RAS_SHAPE)


def slices_of(grid, box=ALL, cell=96):
    return Slices(grid, box, cell)


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR", "LPI"])
def test_right_is_left_and_anterior_is_up_whatever_the_axes(codes):
    grid, image = grid_of(codes), in_axes(head(), codes)
    axial, coronal, sagittal = slices_of(grid).middle
    ax = slices_of(grid).smooth(image, axial)
    # 100 lies on the subject's right, 75 in front of the middle.
    assert ax[ax.shape[0] // 2, ax.shape[1] // 5] == pytest.approx(100)
    assert ax[ax.shape[0] // 2, -ax.shape[1] // 5] == pytest.approx(50)
    assert ax[int(ax.shape[0] * 0.17), ax.shape[1] // 2] == pytest.approx(75)
    co = slices_of(grid).smooth(image, coronal)
    assert (
        co[int(co.shape[0] * 0.2), int(co.shape[1] * 0.55)] == pytest.approx(25)
        and co[co.shape[0] // 2, co.shape[1] // 5] == 100
    )
    sa = slices_of(grid).smooth(image, sagittal)
    assert sa[sa.shape[0] // 2, int(sa.shape[1] * 0.17)] == pytest.approx(75)
    assert set(np.unique(slices_of(grid).nearest(image, axial))) == {0, 50, 75, 100}


def test_letters_name_the_sides_that_are_shown():
    assert [(view.name, view.letters) for view in VIEWS] == [
        ("axial", "APRL"),
        ("coronal", "SIRL"),
        ("sagittal", "SIAP"),
    ]
    blank = np.zeros((80, 90), np.uint8)
    shown = put_letters(blank.copy(), "APRL", GREYS)
    assert (shown[:16] == GREYS.ink).any() and (shown[-16:] == GREYS.ink).any()
    left, right = shown[32:48, :12] == GREYS.ink, shown[32:48, -12:] == GREYS.ink
    # R has a bowl at the top right, L has none.
    assert left[:8, 6:].any() and not right[:8, 6:].any()
    assert not put_letters(np.zeros((20, 20), np.uint8), "APRL", GREYS).any()


def test_voxels_of_any_shape_keep_their_proportions():
    grid = grid_of("LIA", (1.0, 2.0, 4.0))
    axial, coronal, _ = slices_of(grid).middle
    # 20 x 48 x 64 mm
    assert axial.size[0] / axial.size[1] == pytest.approx(48 / 20, rel=0.05) and max(coronal.size) == 96
    assert coronal.size[0] / coronal.size[1] == pytest.approx(64 / 20, rel=0.05)


def test_only_the_head_is_shown_with_a_margin():
    grid = grid_of("LIA", (4.0, 4.0, 4.0))
    image = in_axes(head(), "LIA")
    assert shown_box(grid, ((image, 100.0), (None, 1.0))) == ((0, 0, 0), (19, 23, 15))
    small = np.zeros(RAS_SHAPE, np.float32)
    small[8:10, 9:12, 7] = 100
    assert shown_box(grid, ((in_axes(small, "LIA"), 100.0),)) == ((6, 7, 5), (11, 13, 9))
    assert shown_box(grid, ((np.zeros(grid.shape), 1.0),)) == ALL


@pytest.mark.parametrize("codes", ["RAS", "LIA"])
def test_the_pictures_say_what_happened(codes):
    drawn = draw(case(codes))
    assert set(drawn.pictures) == set(PICTURES)
    before, after = (colours(drawn.pictures[f"difference_{name}"].png) for name in ("before", "after"))
    white, ink = np.array([255, 255, 255]), np.array([0, 0, 0])
    plain = (after == white).all(-1) | (after == ink).all(-1)
    assert plain.all(), "fixed and moved are equal, nothing but letters may be coloured"
    assert (~((before == white).all(-1) | (before == ink).all(-1))).mean() > 0.01
    assert np.array_equal(colours(drawn.pictures["after"].png), colours(drawn.pictures["fixed"].png))
    jacobian = colours(drawn.pictures["jacobian"].png)
    assert ((jacobian == white).all(-1) | (jacobian == ink).all(-1)).all(), "a shift changes no volume"
    assert drawn.figures["folded"] == 0 and drawn.figures["jacobian_low"] == 1


def test_signs_of_difference_and_volume():
    made = case()
    brighter = draw(case(moved=made.fixed + 20 * (made.fixed == 50), before=None)).pictures["difference_after"]
    shown = colours(brighter.png).astype(int)
    assert (shown[..., 0] > shown[..., 2] + 60).any(), "brown where the scan is brighter"
    grow = np.zeros(made.grid.shape + (3,), np.float32)
    grow[..., 0] = np.arange(20)[:, None, None]
    shown = colours(draw(case(warp=Warp(grow, made.grid, made.grid))).pictures["jacobian"].png).astype(int)
    assert (shown[..., 0] > shown[..., 2] + 60).mean() > 0.5, "brown where the moving tissue is larger"


def test_folds_are_marked_and_counted():
    made = case()
    u = np.zeros(made.grid.shape + (3,), np.float32)
    u[10, 12, 8] = (3, 0, 0)
    drawn = draw(case(warp=Warp(u, made.grid, made.grid)))
    shown = colours(drawn.pictures["jacobian"].png)
    assert drawn.figures["folded"] == 1
    assert colour_of(SIGNS, SIGNS.bad) == "#ff00c8" and (shown == (255, 0, 200)).all(-1).any()


def test_the_grid_is_bent_where_the_warp_bends_and_straight_elsewhere():
    made = case()
    lines = []
    for size in (0.0, 1.7):
        u = np.zeros(made.grid.shape + (3,), np.float32)
        u[..., 1] = size * np.sin(np.arange(20) / 3)[:, None, None]
        shown = colours(draw(case(warp=Warp(u, made.grid, made.grid))).pictures["grid"].png)
        lines.append((shown == (240, 228, 66)).all(-1))
    # A straight horizontal line fills a whole row of the axial slices, which are the upper third.
    assert lines[0][:300].sum(1).max() > 2 * lines[1][:300].sum(1).max()
    assert [line_spacing(mm) for mm in (170, 20, 0.5)] == [10, 1, pytest.approx(0.02)]


def test_contours_of_both_label_sets_or_of_intensities():
    made = case()
    shifted = np.roll(made.moved_seg, 2, axis=1)
    orange, blue = (230, 159, 0), (86, 180, 233)

    def has(picture, colour):
        return bool((colours(picture.png) == colour).all(-1).any())

    both = draw(case(moved_seg=shifted)).pictures["contours"]
    assert has(both, orange) and has(both, blue)
    same = draw(case()).pictures["contours"]
    assert has(same, orange) and not has(same, blue), "equal labels show one line"
    assert has(draw(case(fixed_seg=None, moved_seg=None)).pictures["contours"], orange)
    assert has(draw(case()).pictures["thumb"], orange)


def test_the_checkerboard_holds_both():
    made = case()
    shown = colours(draw(case(moved=np.full_like(made.fixed, 100.0))).pictures["checker"].png)
    plain = colours(draw(case()).pictures["checker"].png)
    assert 0.2 < (shown != plain).any(-1).mean() < 0.6


def test_equal_arrays_equal_bytes():
    assert {n: p.png for n, p in draw(case()).pictures.items()} == {n: p.png for n, p in draw(case()).pictures.items()}


@pytest.mark.parametrize("shape", [(2, 24, 16), (20, 1, 16), (2, 2, 2), (1, 1, 1), (300, 2, 2)])
def test_thin_volumes_are_drawn(shape):
    grid = grid_of("LIA", shape=shape)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(grid.shape)
    u = np.zeros(grid.shape + (3,), np.float32)
    made = case(
        grid=grid, fixed=image, moved=image, before=image, warp=Warp(u, grid, grid), fixed_seg=None, moved_seg=None
    )
    drawn = draw(made)
    assert ("jacobian" in drawn.pictures) == (min(shape) >= 2)
    assert all(
        min(colours(p.png).shape[:2]) >= 1 and (p.height, p.width) == colours(p.png).shape[:2]
        for p in drawn.pictures.values()
    )


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_constant_images_are_drawn_and_warned_of(tmp_path, value):
    flat = np.full(grid_of("RAS").shape, value, np.float32)
    record = write_case(tmp_path, case(moved=flat, before=flat))
    assert record.figures["ncc_after"] is None
    assert any("undefined" in words for words in record.warnings)
    write_case(tmp_path, case(fixed=flat, moved=flat, before=flat))


def test_nan_is_marked_and_does_not_spread():
    made = case()
    moved = made.moved.copy()
    moved[10, 12, 8] = np.nan
    drawn = draw(case(moved=moved))
    for name in ("after", "difference_after"):
        bad = (colours(drawn.pictures[name].png) == (255, 0, 200)).all(-1)
        assert 0 < bad.mean() < 0.02
    assert np.isfinite(brightness(case(moved=moved)).gain)


def test_without_a_moved_scan_or_a_warp_the_rest_is_drawn(tmp_path):
    record = write_case(tmp_path, case(moved=None, before=None, warp=None, moved_seg=None))
    assert set(record.pictures) == {"fixed", "overview", "structures", "thumb"}
    assert read_record(tmp_path / "a b" / "record.json") == record


def test_similarity_ignores_scale_and_what_is_outside():
    fixed = head()
    white = white_of(fixed)
    assert white == pytest.approx(100)
    outside = np.where(fixed > 0, 3 * fixed + 5, 777)
    assert correlation(fixed, outside, white) == pytest.approx(1)
    assert correlation(fixed, -fixed, white) == pytest.approx(-1)
    inside = fixed > 0
    noisy = fixed + np.random.RandomState(0).normal(0, 30, fixed.shape).astype(np.float32)
    assert correlation(fixed, noisy, white) == pytest.approx(np.corrcoef(fixed[inside], noisy[inside])[0, 1], abs=1e-6)
    assert brightness(case(moved=head() * 4, before=head() * 4)).gain == pytest.approx(0.25)


def test_warnings_by_rule():
    fine = {
        "dice_before": 0.5,
        "dice_after": 0.9,
        "ncc_before": 0.5,
        "ncc_after": 0.9,
        "folding_fraction": 0.001,
        "flow_max_voxel": 5.0,
        "empty_share": 0.0,
    }
    assert warnings_of(fine, True) == []
    worse = {"dice_after": 0.4, "ncc_after": 0.4, "folding_fraction": 0.02, "flow_max_voxel": 0.001, "empty_share": 0.3}
    for name, value in worse.items():
        assert len(warnings_of({**fine, name: value}, True)) == 1, name
    assert len(warnings_of(fine, False)) == 1 and len(warnings_of({**fine, **worse}, False)) == 6
    assert warnings_of({**fine, "dice_before": None, "dice_after": None}, True) == []


def test_before_is_the_scan_by_affine_alone():
    fixed, moving = grid_of("LIA"), grid_of("RAS", (2.0, 2.0, 2.0), (12, 14, 10))
    ras = (
        np.stack(np.meshgrid(*(np.arange(n) for n in moving.shape), indexing="ij"), -1) @ moving.affine[:3, :3].T
        + moving.affine[:3, 3]
    )
    image = ras[..., 0] + 10 * ras[..., 1]
    pull = np.eye(4)
    pull[:3, 3] = (1.0, 2.0, 0.0)
    got = by_affine_alone(image, moving, pull, fixed)
    at = np.array([5, 6, 7])
    where = fixed.affine[:3, :3] @ at + fixed.affine[:3, 3] + pull[:3, 3]
    assert got[tuple(at)] == pytest.approx(where[0] + 10 * where[1], abs=1e-3)
    with pytest.raises(VolumeError, match="another scan"):
        by_affine_alone(image[:-1], moving, pull, fixed)
    assert onto(None, moving, fixed) is None and onto(image, moving, moving) is image


def test_pictures_replace_pictures_only(tmp_path):
    mine = tmp_path / "a b" / "precious.txt"
    mine.parent.mkdir()
    mine.write_text("x")
    with pytest.raises(ArtifactError, match="a b: holds precious.txt and no result of om_runner"):
        write_case(tmp_path, case())
    assert mine.read_text() == "x"


def test_a_record_must_be_one(tmp_path):
    write_case(tmp_path, case())
    path = tmp_path / "a b" / "record.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    for broken in (
        "",
        "[]",
        "{}",
        json.dumps({**good, "subject": "../x"}),
        json.dumps({**good, "schema": 99}),
        json.dumps({**good, "pictures": {"fixed": [0, 1]}}),
        json.dumps({**good, "figures": 3}),
        "[" * 100000,
    ):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(FormatError, match="make the pictures again"):
            read_record(path)
        assert list(read_records(tmp_path)) == []
    odd = {**good, "figures": {"ncc_after": "<b>"}, "pictures": {**good["pictures"], "../../x": [1, 1]}}
    path.write_text(json.dumps(odd), encoding="utf-8")
    assert read_record(path).figures["ncc_after"] is None and set(read_record(path).pictures) == set(PICTURES)


def test_mosaics_centre_their_rows():
    cells = [[np.full((2, 3), 5, np.uint8)], [np.full((4, 9), 6, np.uint8)]]
    made = mosaic(cells, GREYS)
    assert made.shape[1] == 9 and (made[:2, 3:6] == 5).all() and (made[:2, :3] == GREYS.paper).all()
