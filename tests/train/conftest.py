# SPDX-License-Identifier: Apache-2.0
"""A small synthetic cohort, and settings of short runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest

from tests.support.training import SHAPE, run_graphs_as_built
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


@pytest.fixture(scope="module")
def plain_graphs() -> Iterator[None]:
    """Training graphs run as they are built, without TensorFlow's rewriting, and the page of a run has no curves; tests
    of whole stages rewrite graphs and draw curves.
    """
    pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")
    from train.run import report_page

    with pytest.MonkeyPatch.context() as patch:
        run_graphs_as_built(patch.setattr)
        patch.setattr(report_page, "_curves", lambda *_: [])
        yield


@pytest.fixture
def no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training graphs without gradients, for tests that make no step: most of the time of building a graph goes into
    them.
    """
    from train.graph import training_graph as model

    monkeypatch.setattr(model, "_build_update", lambda *_: (None, None))
