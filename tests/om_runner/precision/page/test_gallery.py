# SPDX-License-Identifier: Apache-2.0
"""Pictures of the worst subjects: which are kept, through which voxel they are cut, and that colours mean the same
everywhere.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from om_runner.precision.page import gallery as gallery_module
from om_runner.precision.page.gallery import COLUMNS, Gallery, Views, cut, gallery_section
from tests.support.cohort import cohort
from vxm_convert.webpage.palettes import BAD_COLOUR, MAGNITUDE, SIGNED, STEPS, grey_png, magnitude_png, signed_png

SHAPE = (6, 7, 8)


def views(error=0.0, at=(2, 3, 4)):
    fixed = np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    moved, flow = fixed.copy(), np.zeros(SHAPE + (3,), np.float32)
    moved[at] += np.float32(error)
    flow[at] = (3 * error, 4 * error, 0)
    return Views(fixed, fixed, fixed, moved, np.zeros_like(flow), flow)


def row(name, error, at=(2, 3, 4), nan=0):
    return {
        "subject": name,
        "verdict": "ok",
        "moved": {"max_abs": error, "max_index": list(at), "nan_count": nan, "inf_count": 0},
        "flow": {"nan_count": 0, "inf_count": 0},
        "epe_voxel": {"max": 5 * error},
    }


def pixels(png):
    return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(int)


def test_the_worst_are_kept_whatever_the_order():
    errors = {"a": 0.1, "b": 0.5, "c": 0.0, "d": 0.3, "e": 0.2}
    for names in ("abcde", "edcba", "cabed"):
        gallery = Gallery("LIA", most=3)
        for name in names:
            gallery.offer(row(name, errors[name]), views(errors[name]))
        assert list(gallery.kept) == ["b", "d", "e"] and gallery.n_seen == 5
    gallery.offer(row("n", 0.0, nan=1), views())
    assert list(gallery.kept) == ["n", "b", "d"], "NaN is worse than any error"


def test_a_subject_that_is_not_among_the_worst_is_not_cut(monkeypatch):
    gallery = Gallery("LIA", most=1)
    gallery.offer(row("a", 0.5), views(0.5))
    monkeypatch.setattr(gallery_module, "cut", lambda *_: pytest.fail("it must not be cut"))
    gallery.offer(row("b", 0.1), views(0.1))
    gallery.offer(row("c", 0.5), views(0.5))
    assert list(gallery.kept) == ["a"], "of equal ones the first stays"


@pytest.mark.parametrize(
    "orientation, titles",
    [
        ("LIA", ["sagittal, x = 2", "coronal, z = 4", "axial, y = 3"]),
        ("RAS", ["first axis = 2", "second axis = 3", "third axis = 4"]),
    ],
)
def test_slices_go_through_the_worst_voxel(orientation, titles):
    slices = cut(row("s", 0.25), views(0.25), orientation)
    assert [plane.title for plane in slices.planes] == titles and slices.is_worst
    for plane in slices.planes:
        assert len(plane.images) == len(COLUMNS)
        for image, worst in zip(plane.images[3:], (0.25, 1.25)):
            assert np.abs(image).max() == pytest.approx(worst, rel=1e-5)
            assert np.unravel_index(np.abs(image).argmax(), image.shape) == plane.at, "the ring is on the error"


def test_nan_is_where_the_slices_go_through():
    spoilt = views(0.25)
    spoilt.moved_offline[1, 1, 1] = np.nan
    slices = cut(row("s", 0.25, nan=1), spoilt, "LIA")
    assert slices.centre == (1, 1, 1)
    flowing = views(0.25)
    flowing.flow_offline[4, 5, 6, 2] = np.inf
    assert cut(row("s", 0.25, nan=1), flowing, "LIA").centre == (4, 5, 6)


def test_equal_images_are_cut_through_the_middle_and_get_no_ring():
    slices = cut(row("s", 0.0, at=(0, 0, 0)), views(0.0), "LIA")
    assert not slices.is_worst and min(slices.centre) > 0
    dark = views()
    dark.fixed[:] = 0
    assert cut(row("s", 0.0), dark, "LIA").centre == (3, 3, 4)


def test_a_flat_image_has_one_plane():
    flat = np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6)
    seen = Views(
        flat, flat, flat, flat + np.float32(0.5), np.zeros((5, 6, 2), np.float32), np.ones((5, 6, 2), np.float32)
    )
    slices = cut(
        {**row("s", 0.5), "moved": {"max_abs": 0.5, "max_index": [2, 3], "nan_count": 0, "inf_count": 0}}, seen, "LIA"
    )
    assert len(slices.planes) == 1 and slices.planes[0].images[4].max() == pytest.approx(2**0.5)


def test_pngs_decode_to_the_colours_of_the_scale():
    end = 0.5
    image = np.array([[-end, 0.0, end], [end * 1e-4, np.nan, end / 1000**0.5]])
    shown = pixels(signed_png(image, end))
    assert shown[0].tolist() == [SIGNED[0].tolist(), [255, 255, 255], SIGNED[2 * STEPS].tolist()]
    assert shown[1].tolist() == [[255, 255, 255], list(BAD_COLOUR), SIGNED[STEPS + STEPS // 2].tolist()]
    assert pixels(magnitude_png(np.abs(image), end))[0].tolist() == [
        MAGNITUDE[STEPS].tolist(),
        [255, 255, 255],
        MAGNITUDE[STEPS].tolist(),
    ]
    grey = pixels(grey_png(np.array([[0.0, 0.5, 1.0, 2.0, np.inf]]), 1.0))[0]
    assert grey[:, 0].tolist()[0] == 0 and abs(grey[1, 0] - 127) < 4 and grey[2:4].tolist() == [[255] * 3] * 2
    assert grey[4].tolist() == list(BAD_COLOUR)
    assert (pixels(signed_png(np.zeros((2, 2)), 0.0)) == 255).all()


def test_one_scale_serves_all_subjects():
    gallery = Gallery("LIA")
    rows = [row("worst", 0.4), row("better", 0.004)]
    for entry in rows:
        gallery.offer(entry, views(entry["moved"]["max_abs"]))
    page = gallery_section(gallery.kept, rows, True, "LIA")
    assert page.count("it ends at 4.00e-01") == 1 and page.count("it ends at 2.00e+00") == 1
    assert page.count("<img ") == 2 * 3 * 5 and page.count("<circle ") >= 2 * 3 * 2
    assert "every compared scan" in page and "worst, sagittal, x = 2: flow error" in page


def test_a_gallery_that_is_not_complete_says_so(monkeypatch):
    report, gallery = cohort(n=4, most=3)
    page = gallery_section(gallery.kept, report["rows"], True, "LIA")
    assert "the 3 scans of 4 with the largest errors" in page and page.count("<h3>") == 3
    monkeypatch.setattr(gallery_module, "MOST_BYTES", 1)
    page = gallery_section(gallery.kept, report["rows"], True, "LIA")
    assert "the 1 scan of 4" in page and page.count("<h3>") == 1
    assert gallery_section({}, report["rows"], True, "LIA") == ""
