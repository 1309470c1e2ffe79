# SPDX-License-Identifier: Apache-2.0
"""A small synthetic cohort, and settings of short runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.support.training import SHAPE
from train.settings.run import DataSettings, LossSettings, TrainSettings
from vxm_convert.model.spec import ModelSpec
from vxm_convert.synthetic.heads import PhantomSettings, write_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`atlas.npz` and three scans in `scans`, all with labels."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, PhantomSettings(SHAPE, subjects=3, seed=0, displacement=0.1))
    return folder


@pytest.fixture
def make_settings(cohort: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a short vm1 run; keywords of `LossSettings` and `DataSettings` may be given beside those of
    `TrainSettings`.
    """

    def make(
        variant: str = "vm1", batch: int = 1, integration_steps: Optional[int] = None, **changes: Any
    ) -> TrainSettings:
        parts = {}
        for name, kind in (("loss", LossSettings), ("data", DataSettings)):
            parts[name] = {
                key: changes.pop(key) for key in list(changes) if key in kind.__dataclass_fields__ and key != "source"
            }
        data = DataSettings(cohort / "scans", parts["data"].pop("atlas", cohort / "atlas.npz"), **parts["data"])
        values = {
            "out": tmp_path / "run",
            "learning_rate": 2e-3,
            "epochs": 3,
            "keep": 2,
            "tensorboard": False,
            **changes,
        }
        spec = ModelSpec(variant, SHAPE, batch, integration_steps)
        return TrainSettings(data=data, spec=spec, loss=LossSettings(**parts["loss"]), **values)

    return make


@pytest.fixture
def plain_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training graphs run as they are built: a third of a short run goes into rewriting them, which is TensorFlow's
    part. Tests in processes of their own, such as those of resuming, run the graphs rewritten.
    """
    from train.devices.base import Backend

    configure = Backend.session_config

    def plain(backend: Any) -> Any:
        config = configure(backend)
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        return config

    monkeypatch.setattr(Backend, "session_config", plain)


@pytest.fixture
def no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training graphs without gradients, for tests that make no step: most of the time of building a graph goes into
    them.
    """
    from train.graph import training_graph as model

    monkeypatch.setattr(model, "_build_update", lambda *_: (None, None))
