# SPDX-License-Identifier: Apache-2.0
"""train_report.html: what stands in it, that it is made of the records alone, and that nothing of others is markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List

import pytest

from train.run.report_page import binned, build_page, write_report
from vxm_convert.artifacts.names import TRAIN_REPORT_NAME

pytestmark = pytest.mark.any_python(
    "what a page says comes from its template; other tests make it on Python 3.7 as well"
)

FACTS = {"network": "vm2 at 16x16x32", "device": "CPU", "loss": "mse <b>"}


def records(epochs: int = 2, steps: int = 4, **more: Any) -> List[Dict[str, Any]]:
    found: List[Dict[str, Any]] = []
    for epoch in range(epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            found.append(
                {
                    "step": step,
                    "loss": 0.1 / (step + 1),
                    "loss_mse": 0.09 / (step + 1),
                    "loss_flow": 1e-9,
                    "seconds": 1.0,
                    "displacement": 0.1,
                }
            )
        found.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "steps": steps,
                "loss": 0.05 / (epoch + 1),
                "loss_mse": 0.04,
                "loss_flow": 0.01,
                "seconds_per_step": 1.5,
                "folding": 0.0,
                "displacement": 0.3,
                "validation": {
                    "image": 0.02,
                    "dice": 0.5 + 0.1 * epoch,
                    "dice_before": 0.4,
                    "folding": 0.0,
                    "pairs": 1,
                },
                **more,
            }
        )
    return found


class Reader(HTMLParser):
    """Counts elements and keeps cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: List[str] = []
        self.cells: List[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th") and self.cells:
            self.cells[-1] += data


def test_curves_epochs_and_provenance() -> None:
    page = build_page(records(), FACTS, {"atlas": "ab" * 32})
    reader = Reader(page)
    # Three losses, validation Dice and image loss, folding, displacement.
    assert reader.tags.count("svg") == 7 and reader.tags.count("b") == 0 and "mse &lt;b&gt;" in page
    assert {"0.05", "0.025", "0.5", "0.6", "1.5"} <= set(reader.cells)
    assert "validation Dice: 0.5 at epoch 1, 0.6 at epoch 2." in page and "ab" * 32 in page and "<p>None.</p>" in page
    assert "SIMULATED" not in page and not re.search(r"(src|href)=", page)


def test_warnings_and_the_scale_are_shown() -> None:
    more = [
        {"event": "warning", "step": 3, "text": "folding <grows>"},
        {"event": "loss not finite", "step": 5, "scans": ["a"]},
    ]
    page = build_page(records(loss_scale=1024.0, skipped=3) + more, FACTS, {})
    assert "step 3: folding &lt;grows&gt;" in page and "step 5: the loss was no finite number" in page
    assert "loss scale: 1024 at epoch 1" in page and "skipped steps" in page
    assert "loss_scale" not in Reader(page).cells


def test_a_run_without_validation_or_without_an_epoch() -> None:
    plain = [{**r, "validation": None} if "validation" in r else r for r in records(1, 1)]
    assert "validation Dice" not in build_page(plain, FACTS, {})
    assert "no epoch was finished" in build_page(records()[:3], FACTS, {})
    assert "no epoch was finished" in build_page([], FACTS, {})


def test_long_runs_are_binned_and_negative_losses_drawn() -> None:
    points = [(float(n), 2.0 * n) for n in range(35000)]
    found = binned(points)
    assert len(found) <= 400 and found[0] == (43.5, 87.0)
    lines = [{**r, "loss": -r["loss"]} for r in records()]
    assert "svg" in build_page(lines, FACTS, {})


def test_it_is_made_from_the_metrics_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records()))
    assert write_report(tmp_path, FACTS, {}).name == TRAIN_REPORT_NAME == "train_report.html"
    assert (tmp_path / TRAIN_REPORT_NAME).read_text() == build_page(records(), FACTS, {})


@pytest.mark.parametrize("value", [0.0, 1e-12, 5.0])
def test_a_curve_of_one_value(value: float) -> None:
    assert (
        "nan"
        not in build_page([{**r, "loss_flow": value} if "loss_flow" in r else r for r in records()], FACTS, {}).lower()
    )
