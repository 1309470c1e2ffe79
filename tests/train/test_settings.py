# SPDX-License-Identifier: Apache-2.0
"""Settings of a run and how a command line becomes them."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from train.__main__ import build_parser, main, settings_from
from train.settings import TrainSettings
from vxm_convert.errors import SpecError, VolumeError
from vxm_convert.spec import ModelSpec

SPEC = ModelSpec("vm1", (16, 16, 32))


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(Path("d"), Path("a"), Path("o"), SPEC, **changes)


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    path = tmp_path / "atlas.npz"
    np.savez(str(path), vol=np.arange(16 * 16 * 32, dtype=np.uint8).reshape(16, 16, 32))
    return path


@pytest.mark.parametrize("loss, expected", [("mse", 0.01), ("ncc", 1.0)])
def test_smoothness_follows_the_loss(loss: str, expected: float) -> None:
    assert settings(loss=loss).smoothness == expected
    assert settings(loss=loss, smoothness=0.0).smoothness == 0.0


@pytest.mark.parametrize("changes", [
    {"loss": "mae"}, {"penalty": "l3"}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"smoothness": -1.0}, {"epochs": 0},
    {"steps_per_epoch": 0}, {"keep": 0}, {"seed": -1},
])
def test_impossible_settings_are_refused(changes: dict) -> None:
    with pytest.raises(SpecError):
        settings(**changes)


def test_shape_comes_from_the_atlas(atlas: Path) -> None:
    argv = ["--data", "d", "--atlas", str(atlas), "--out", "o", "--variant", "vm1", "--batch", "2", "--loss", "ncc"]
    args = build_parser().parse_args(argv)
    got = settings_from(args)
    assert got.spec == ModelSpec("vm1", (16, 16, 32), 2)
    assert (got.loss, got.smoothness, got.steps_per_epoch) == ("ncc", 1.0, None)


def test_a_shape_that_is_not_the_atlas_s_is_refused(atlas: Path) -> None:
    args = build_parser().parse_args(["--data", "d", "--atlas", str(atlas), "--shape", "16,32,32"])
    with pytest.raises(VolumeError, match="16,16,32.*16,32,32"):
        settings_from(args)


def test_a_missing_atlas_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--data", str(tmp_path), "--atlas", str(tmp_path / "none.npz"), "--out", str(tmp_path / "o")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("train: error: ") and "none.npz" in message and "Traceback" not in message
    assert not (tmp_path / "o").exists()
