# SPDX-License-Identifier: Apache-2.0
"""Charts: equal bytes for equal figures in every process, nothing that a page's policy forbids, names of others as
they are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from tests.support.example_chart import drawn
from vxm_convert.webpage.charts import chart, colour_bar, log_ticks, mark, power, rows

NASTY = '$\\frac{a}{b}$ "><script>alert(1)</script>\n\x00&'
SHOWN = '$\\frac{a}{b}$ "><script>alert(1)</script> \ufffd&'


def test_equal_bytes_in_this_process_and_in_others(project_root: Path, tmp_path: Path) -> None:
    code = "from tests.support.example_chart import drawn\nprint(drawn(), end='')"
    fonts = str(Path(matplotlib.get_cachedir()).parent)
    others = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=str(project_root),
            env={"PYTHONHASHSEED": seed, "HOME": str(tmp_path), "XDG_CACHE_HOME": fonts, "MPLBACKEND": "agg"},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        for seed in ("1", "2")
    ]
    assert others == [drawn()] * 2 and "name" in others[0]


def test_settings_of_the_user_have_no_effect_and_are_kept() -> None:
    expected = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path", "svg.hashsalt": None}):
        assert drawn() == expected and matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("alone", [False, True])
def test_nothing_that_the_policy_forbids_and_no_ids_that_could_collide(alone: bool) -> None:
    root = ElementTree.fromstring(drawn(alone=alone))
    names = {name for node in root.iter() for name in node.attrib}
    assert not names & {"style", "id", "href", "{http://www.w3.org/1999/xlink}href", "clip-path", "onload"}
    tags = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert tags == {"svg", "path", "text", "g", "title"}
    assert root.get("aria-label") == "name" and root.get("viewBox") == "0 0 460 200"


def test_names_of_others_are_words() -> None:
    root = ElementTree.fromstring(drawn(NASTY))
    words = [node.text for node in root.iter() if node.tag == "text"]
    assert words.count(SHOWN) == 4, "both titles, the legend and the heading"
    assert [node.text for node in root.iter() if node.tag == "title"] == [SHOWN]
    assert "alert(1)</script>" not in drawn(NASTY)


def test_a_chart_wider_than_a_phone_scrolls() -> None:
    assert drawn(width=500).startswith("<svg") and 'class="drawing"' in drawn(width=500)
    wide = drawn(width=501)
    assert wide.startswith('<div class="scroll"') and 'class="drawing wide"' in wide


def test_rows_from_the_top() -> None:
    with chart(400, 100) as made:
        axes = made.axes(100, 10, 390, 90)
        rows(axes, ["first", "second"])
        root = ElementTree.fromstring(made.svg("rows"))
    places = {node.text: float(node.get("y")) for node in root.iter() if node.tag == "text"}
    assert places["first"] < places["second"]


def test_marks_lie_where_the_values_are() -> None:
    with chart(400, 100) as made:
        mark(made.canvas(), "ring", 120.0, 30.0, "#0072b2")
        root = ElementTree.fromstring(made.svg("a mark"))
    (path,) = root.iter("path")
    assert path.get("transform") == "translate(120 30)" and path.get("stroke") == "var(--blue)"


def test_a_colour_bar_has_every_colour_and_tick() -> None:
    root = ElementTree.fromstring(colour_bar("title", ["#00ff00", "#ff0000"], [(0.0, "low"), (1.0, "high")], "words"))
    fills = [node.get("fill") for node in root.iter("path")]
    assert "#00ff00" in fills and "#ff0000" in fills
    assert [node.text for node in root.iter("text")] == ["title", "low", "high"]


def test_logarithmic_ticks_are_few_and_round() -> None:
    assert [name for _, name in log_ticks(1e-3, 1e3)] == [power(e) for e in range(-3, 4)]
    assert [name for _, name in log_ticks(1.0, 10.0)] == ["1", "2", "5", "10"]
    assert len(log_ticks(1e-30, 1e30)) <= 8 and power(-3) == "10\u207b\u00b3"
