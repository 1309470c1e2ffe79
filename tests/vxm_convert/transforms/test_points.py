# SPDX-License-Identifier: Apache-2.0
"""Point lists in every layout, and their frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.grids import PAIRS, SOME
from vxm_convert.errors import VolumeError
from vxm_convert.transforms.points import from_ras, read_points, to_ras, write_points


def test_point_lists(tmp_path):
    (tmp_path / "p.csv").write_text("name,z,y,x\nac,3,2,1\n", encoding="utf-8")
    points = read_points(tmp_path / "p.csv")
    assert points.xyz.tolist() == [[1, 2, 3]]
    write_points(tmp_path / "q.csv", points, points.xyz * 2)
    assert (tmp_path / "q.csv").read_text(encoding="utf-8") == "name,z,y,x\nac,6.000000,4.000000,2.000000\n"
    grid = PAIRS["oblique"][0]
    for frame in ("ras", "lps", "voxel"):
        np.testing.assert_allclose(from_ras(to_ras(SOME, frame, grid), frame, grid), SOME, atol=1e-9)
    assert to_ras(SOME, "lps", None)[0].tolist() == [-3, 4, 5]
    bad = {"": "no points", "x,y\n1,2\n": "expected x, y and z", "1,2\n": "expected numbers", "1,2,nan\n": "finite"}
    for text, message in bad.items():
        (tmp_path / "p.csv").write_text(text, encoding="utf-8")
        with pytest.raises(VolumeError, match=message):
            read_points(tmp_path / "p.csv")


FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {frame}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,-3.0,4.0,5.0,0,0,0,1,1,1,0,"AC, front",,
2,7.0,-2.0,1.0,0,0,0,1,1,1,0,PC,,
"""


@pytest.mark.parametrize("said, frame", [("LPS", "lps"), ("1", "lps"), ("RAS", "ras"), ("0", "ras")])
def test_slicers_fiducials(tmp_path, said, frame):
    """A file of Slicer 4 (numbers) and 5 (names) says in which frame it is; everything but the positions stays."""
    path = tmp_path / "p.fcsv"
    path.write_text(FCSV.format(frame=said), encoding="utf-8")
    points = read_points(path)
    assert points.frame_or(None, path) == frame and points.xyz.tolist() == [[-3, 4, 5], [7, -2, 1]]
    write_points(tmp_path / "q.fcsv", points, points.xyz + 0.5)
    changed = FCSV.format(frame=said).replace("-3.0,4.0,5.0", "-2.500000,4.500000,5.500000")
    changed = changed.replace("7.0,-2.0,1.0", "7.500000,-1.500000,1.500000")
    assert (tmp_path / "q.fcsv").read_text(encoding="utf-8") == changed
    other = "ras" if frame == "lps" else "lps"
    with pytest.raises(VolumeError, match=f"its header says {frame.upper()}, --frame says {other}"):
        points.frame_or(other, path)


def markups(**changes) -> str:
    point = {"id": "1", "label": "AC", "position": [-3.0, 4, 5], "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": [point],
        "measurements": [],
    }
    return json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [{**markup, **changes}]})


def test_slicers_markups(tmp_path):
    path = tmp_path / "p.mrk.json"
    path.write_text(markups(), encoding="utf-8")
    points = read_points(path)
    assert points.frame == "lps" and points.xyz.tolist() == [[-3, 4, 5]]
    write_points(tmp_path / "q.mrk.json", points, points.xyz * 2)
    (point,) = json.loads((tmp_path / "q.mrk.json").read_text(encoding="utf-8"))["markups"][0]["controlPoints"]
    assert point == {"id": "1", "label": "AC", "position": [-6, 8, 10]}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.fcsv", "1,2,3,4\n", "no coordinate system, expected RAS or LPS"),
        ("a.fcsv", FCSV.format(frame="IJK"), "coordinate system 'IJK'"),
        ("a.fcsv", FCSV.format(frame="2"), "coordinate system '2'"),
        ("a.fcsv", FCSV.format(frame="LPS").replace("7.0", "nan"), "point 2: .*three finite"),
        ("a.fcsv", "# CoordinateSystem = LPS\n", "no points"),
        ("a.fcsv", "# CoordinateSystem = LPS\n1,2\n", "point 1"),
        ("a.mrk.json", "{}", "expected Slicer markups"),
        ("a.mrk.json", "[" * 5000, "expected Slicer markups"),
        ("a.json", "5", "expected Slicer markups"),
        ("a.mrk.json", markups(coordinateSystem=None), "no coordinate system"),
        ("a.mrk.json", markups(coordinateUnits="um"), "in um"),
        ("a.mrk.json", markups(controlPoints=[{"position": ["x", 1, 2]}]), "point 1"),
        ("a.mrk.json", markups(controlPoints=[]), "no points"),
    ],
)
def test_slicer_files_that_say_too_little(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(VolumeError, match=message) as caught:
        read_points(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name)) and len(str(caught.value)) < 500


def test_points_are_written_as_they_were_read(tmp_path):
    (tmp_path / "p.csv").write_text("1,2,3\n", encoding="utf-8")
    (tmp_path / "p.fcsv").write_text(FCSV.format(frame="LPS"), encoding="utf-8")
    for source, target in (
        ("p.csv", "q.fcsv"),
        ("p.csv", "q.mrk.json"),
        ("p.fcsv", "q.csv"),
        ("p.fcsv", "q.json"),
        ("p.csv", "q.nii.gz"),
    ):
        points = read_points(tmp_path / source)
        with pytest.raises(VolumeError, match="change the name"):
            write_points(tmp_path / target, points, points.xyz)
        assert not (tmp_path / target).exists()
    write_points(tmp_path / "q.tsv", read_points(tmp_path / "p.csv"), np.ones((1, 3)))
    assert (tmp_path / "q.tsv").read_text(encoding="utf-8") == "1.000000\t1.000000\t1.000000\n"
