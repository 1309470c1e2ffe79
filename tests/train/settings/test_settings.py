# SPDX-License-Identifier: Apache-2.0
"""Settings of a run and how a command line becomes them."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from train.__main__ import main
from train.options import build_parser, settings_from
from vxm_convert.errors import SpecError, TrainingError, VolumeError
from vxm_convert.model.spec import ModelSpec


@pytest.mark.parametrize("loss, expected", [("mse", 0.01), ("ncc", 1.0)])
def test_smoothness_follows_the_loss(make_settings: Callable, loss: str, expected: float) -> None:
    assert make_settings(image=loss).loss.smoothness == expected
    assert make_settings(image=loss, smoothness=0.0).loss.smoothness == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "mae"},
        {"penalty": "l3"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"smoothness": -1.0},
        {"epochs": 0},
        {"steps_per_epoch": 0},
        {"keep": 0},
        {"seed": -1},
        {"pairing": "all"},
        {"augment": ("rotate",)},
        {"split": (0.5, 0.2, 0.2)},
        {"split": (0.0, 1.0, 0.0)},
        {"image_sigma": 0.0},
        {"prior_lambda": -1.0},
        {"dice_weight": float("nan")},
        {"labels": "mine"},
        {"save_every": -1},
        {"threads": -1},
        {"bidirectional": True},
        {"variant": "miccai2018", "image": "ncc"},
        {"resume": True, "init": Path("x")},
    ],
)
def test_impossible_settings_are_refused(make_settings: Callable, changes: dict) -> None:
    with pytest.raises(SpecError):
        make_settings(**changes)


def test_the_defaults_are_the_usual_ones(cohort: Path) -> None:
    got, found = settings_from(
        build_parser().parse_args(["--data", str(cohort / "scans"), "--atlas", str(cohort / "atlas.npz")])
    )
    assert (got.spec, got.learning_rate, got.epochs) == (ModelSpec("vm2", (16, 16, 32)), 1e-4, 50)
    assert (got.loss.image, got.loss.smoothness, got.loss.penalty, got.data.pairing) == ("mse", 0.01, "l2", "atlas")
    assert (got.loss.prior_lambda, got.loss.image_sigma, got.loss.bidirectional, got.data.augment) == (
        10.0,
        0.02,
        False,
        (),
    )
    assert (len(found.train), found.validation, found.test) == (3, (), ())


def test_options_become_settings(cohort: Path) -> None:
    argv = [
        "--data",
        str(cohort / "scans"),
        "--pairs",
        "scans",
        "--variant",
        "miccai2018",
        "--batch",
        "2",
        "--integration-steps",
        "5",
        "--bidir",
        "--split",
        "0.67,0.33,0",
        "--augment",
        "flip, intensity",
        "--no-tensorboard",
    ]
    with pytest.raises(TrainingError, match="single scan"):
        settings_from(build_parser().parse_args(argv))
    argv[argv.index("0.67,0.33,0")] = "1,0,0"
    got, _ = settings_from(build_parser().parse_args(argv))
    assert got.spec == ModelSpec("miccai2018", (16, 16, 32), 2, 5)
    assert (
        got.data.augment == ("flip", "intensity")
        and got.data.atlas is None
        and not got.tensorboard
        and got.loss.bidirectional
    )


def test_a_shape_that_is_not_the_atlas_s_is_refused(cohort: Path) -> None:
    args = build_parser().parse_args(
        ["--data", str(cohort / "scans"), "--atlas", str(cohort / "atlas.npz"), "--shape", "16,32,32"]
    )
    with pytest.raises(VolumeError, match="16,16,32.*16,32,32"):
        settings_from(args)


def test_an_atlas_is_needed_for_pairs_with_the_atlas(cohort: Path) -> None:
    with pytest.raises(TrainingError, match="--atlas FILE"):
        settings_from(build_parser().parse_args(["--data", str(cohort / "scans")]))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--split", "a,b"], "three shares"),
        (["--augment", "warp"], "expected one of flip"),
        (["--integration-steps", "7"], "no velocity"),
        (["--variant", "miccai2018", "--loss", "ncc"], "--loss mse"),
        (["--bidir"], "--variant miccai2018"),
    ],
)
def test_wrong_options_are_one_message(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list, message: str
) -> None:
    base = ["--data", str(cohort / "scans"), "--atlas", str(cohort / "atlas.npz"), "--out", str(tmp_path / "o")]
    assert main(base + options) == 1
    text = capsys.readouterr().err
    assert text.startswith("train: error: ") and message in text and "Traceback" not in text
    assert not (tmp_path / "o").exists()


def test_a_missing_atlas_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "scans").mkdir()
    np.savez(str(tmp_path / "scans" / "s.npz"), vol=np.arange(16**3, dtype=np.uint8).reshape(16, 16, 16))
    words = ["--data", str(tmp_path / "scans"), "--atlas", str(tmp_path / "none.npz"), "--out", str(tmp_path / "o")]
    assert main(words) == 1
    message = capsys.readouterr().err
    assert message.startswith("train: error: ") and "none.npz" in message and "Traceback" not in message
    assert not (tmp_path / "o").exists()
