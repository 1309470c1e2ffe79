# SPDX-License-Identifier: Apache-2.0
"""``make box-table``: the contrasts it makes, the weights it takes, the tables it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from scripts.box_table import CONTRASTS, Measured, Network, markdown, network_from
from vxm_convert.metrics.labels import LabelSet

pytestmark = pytest.mark.python37("scripts run in the environment of Python 3.7")


@pytest.mark.parametrize("name", sorted(CONTRASTS))
def test_a_contrast_changes_the_brain_alone(name: str) -> None:
    values = np.linspace(0.05, 0.6, 1000).reshape(10, 10, 10)
    values[:2] = 0
    changed = CONTRASTS[name](values)
    assert (changed[:2] == 0).all() and 0 < changed[2:].min() and changed.max() <= 255
    order = np.corrcoef(changed[2:].ravel(), values[2:].ravel())[0, 1]
    assert order < -0.9 if name in ("inverted", "T2-like") else order > 0.9


def test_weights_are_named() -> None:
    assert network_from("box=models/vm2") == Network("box", Path("models/vm2"), "vm2")
    assert network_from("a=b.h5:miccai2018") == Network("a", Path("b.h5"), "miccai2018")
    for text in ("models/vm2", "=x", "a=", "a=b:vm9"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FILE"):
            network_from(text)


def test_tables() -> None:
    def measured(after: float) -> Measured:
        row = {
            "subject": "s1",
            "dice_before": "0.5",
            "dice_after": str(after),
            "folding_fraction": "0.002",
            "toolchain": "simulated",
        }
        return Measured([row, {**row, "subject": "s2", "dice_before": "0.7"}], {2: (0.6, after)})

    found = {
        name: {"as they are": measured(0.8), "inverted": measured(0.8 - loss)}
        for name, loss in (("a", 0.01), ("b", 0.3))
    }
    lines = markdown(found, LabelSet("one", (2,), {2: "White"})).splitlines()
    assert (
        "| s1 | 0.500 | 0.800 | 0.200 | 0.800 | 0.200 |" in lines
        and "| mean | 0.6000 | 0.8000 | 0.200 | 0.8000 | 0.200 |" in lines
    )
    assert "| inverted | 0.7900 | 0.5000 |" in lines and "| White | 0.600 | 0.800 | 0.800 |" in lines
    found["b"]["inverted"] = Measured(measured(0.5).rows[:1], {})
    assert "| inverted | 0.7900 | 0.5000 (1 of 2 refused) |" in markdown(found, LabelSet("one", (2,), {2: "White"}))
    found["b"]["inverted"] = Measured([], {})
    assert "| inverted | 0.7900 | 2 of 2 refused |" in markdown(found, LabelSet("one", (2,), {2: "White"}))
    found["b"]["as they are"] = Measured(measured(0.8).rows[1:], {2: (0.6, 0.8)})
    assert "| s1 | 0.500 | 0.800 | 0.200 | refused | – |" in markdown(found, LabelSet("one", (2,), {2: "White"}))
    assert lines[-1] == "Dice over paper30, n = 2 scans; toolchain: simulated."
