# SPDX-License-Identifier: Apache-2.0
"""The diffeomorphic variant through export: mean velocity only, the flow at full resolution, and the offline model's
answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow 1.15 is not installed")

from export.__main__ import main  # noqa: E402
from tests.support import reference  # noqa: E402
from tests.support.checkpoints import write_checkpoint  # noqa: E402
from vxm_convert.formats.om import read_om  # noqa: E402
from vxm_convert.formats.tf_graph import read_graph  # noqa: E402
from vxm_convert.model.contract import GraphContract  # noqa: E402
from vxm_convert.model.spec import ModelSpec  # noqa: E402
from vxm_convert.sim.engine.load import load_program

pytestmark = pytest.mark.tf

SPEC = ModelSpec("miccai2018", (16, 16, 32))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miccai")
    write_checkpoint(folder / "model-1", reference.random_weights(SPEC, 5))
    argv = [
        "--checkpoint",
        str(folder / "model-1"),
        "--variant",
        SPEC.variant,
        "--shape",
        "16,16,32",
        "--out",
        str(folder / "vxm"),
        "--toolchain",
        "sim",
        "--skip-onnx",
        "--quiet",
    ]
    assert main(argv) == 0
    return folder / "vxm"


def test_the_graph_samples_nothing_and_knows_no_variance(exported: Path) -> None:
    nodes = read_graph(exported / "frozen.pb")
    assert not [n.name for n in nodes if "Random" in n.op or n.name.startswith("log_sigma")]
    contract = GraphContract.load(exported / "contract.json")
    assert contract.model == SPEC and contract.model.integration_steps == 7
    assert contract.tensor("flow").shape == (1, 16, 16, 32, 3) and contract.tensor("flow").unit == "voxel"


def test_the_offline_model_registers_as_numpy_does(exported: Path) -> None:
    program = load_program(read_om(exported / "vxm.om"))
    images = [reference.smooth_noise(SPEC.volume_shape, seed, 1.5, 0.5) + 0.5 for seed in (0, 1)]
    moving, fixed = (image[None, ..., None].astype(np.float32) for image in images)
    by_name = {"moving": moving, "fixed": fixed}
    outputs = dict(zip((d.name for d in program.outputs), program.run([by_name[d.name] for d in program.inputs])))
    flow, moved = (next(v for name, v in outputs.items() if name.startswith(node)) for node in ("flow_field", "moved"))
    expected = reference.displacement(moving, fixed, reference.random_weights(SPEC, 5))
    assert np.abs(expected).max() > 1
    # fp16 convolutions, fp32 integration.
    assert np.abs(flow - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(moved - reference.warp_linear(moving, flow)).max() < 1e-5
