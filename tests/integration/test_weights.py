# SPDX-License-Identifier: Apache-2.0
"""The weights in the exported offline model are the checkpoint's, rounded to fp16 once: compared bit for bit, layer by
layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from tests.support.checkpoints import write_checkpoint
from tests.support.reference import random_weights
from tests.support.stages import run_stage
from vxm_convert.formats import fractal
from vxm_convert.formats.om import OmModel, read_om
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import expected_variables

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

SPEC = ModelSpec("vm2", (16, 16, 32))
FP16_MAX = 65504
#: fp16 subnormals, a half of the smallest one (to even: 0), signed zero, a tie
AWKWARD = (6e-8, -6e-8, 2.9802322e-8, 1e-7, -3.05e-5, 6.1e-5, -0.0, 1.00048828125)
#: The last that fp16 rounds to its maximum, and what the device saturates
BEYOND = (65519.0, 65520.0, 1e6, -1e6)


def as_half(weights: np.ndarray) -> np.ndarray:
    """float32 → float16 to nearest even, saturated as the device does."""
    return np.clip(weights, -FP16_MAX, FP16_MAX).astype(np.float16)


def stored_weights(model: OmModel) -> Dict[str, np.ndarray]:
    """What the inputs of each convolution hold, by the name of the variable, unpacked and in the dtype of storage."""
    constants = {f"{op.name}:0": op for op in model.graph if op.data is not None}
    found = {}
    for conv in (op for op in model.graph if op.type == "Conv3D"):
        layer, _, kind = conv.name.partition("/Conv3D")
        kernel = constants[conv.inputs[1]]
        assert kernel.output_descs[0].layout == "FRACTAL_Z_3D"
        found[f"{layer}/kernel{kind}"] = fractal.unpack_fractal_z_3d(kernel.data, kernel.output_descs[0].origin_shape)
        if len(conv.inputs) > 2:
            found[f"{layer}/bias"] = constants[conv.inputs[2]].data
    return found


def read_checkpoint(prefix: Path) -> Dict[str, np.ndarray]:
    """Variables of the network, read by TensorFlow itself and not by our loader."""
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in expected_variables(SPEC)}


def export(folder: Path, prefix: Path, plan: str) -> Dict[str, np.ndarray]:
    shape = ",".join(str(n) for n in SPEC.volume_shape)
    options = ["--shape", shape, "--precision", plan, "--skip-onnx", "--toolchain", "sim", "--preflight", "report"]
    done = run_stage(folder, "export", "--checkpoint", prefix, "--out", folder / "vxm", *options)
    assert done.returncode == 0, done.stderr
    return stored_weights(read_om(folder / "vxm" / "vxm.om"))


def check(stored: Dict[str, np.ndarray], variables: Dict[str, np.ndarray], plan: str) -> None:
    """Every variable is there, and is the fp16 of the checkpoint's; a split kernel has the fp16 of the rest besides."""
    split = {f"{layer}/kernel_rest": f"{layer}/kernel" for layer in PLANS[plan].split_weights}
    assert set(stored) == set(variables) | set(split)
    for name, weights in variables.items():
        expected = as_half(weights)
        assert stored[name].dtype == np.float16 and stored[name].shape == weights.shape, name
        assert np.array_equal(stored[name].view(np.uint16), expected.view(np.uint16)), name
    for name, origin in split.items():
        rest = as_half(variables[origin] - as_half(variables[origin]).astype(np.float32))
        assert np.array_equal(stored[name].view(np.uint16), rest.view(np.uint16)), name


@pytest.fixture(scope="module")
def awkward_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, a tenth of them so small that fp16 holds them as subnormals, and the awkward values in every
    layer.
    """
    rng = np.random.RandomState(4)
    values = random_weights(SPEC, seed=4)
    for name, weights in values.items():
        small = rng.uniform(size=weights.shape) < 0.1
        weights[small] *= np.float32(1e-4)
        if name.endswith("/kernel"):
            weights.reshape(-1)[: len(AWKWARD)] = AWKWARD
    # Into a channel that the next layer ignores: an export whose flow explodes would rightly fail its parity check.
    values["conv3d_10/kernel"][1, 1, 1, : len(BEYOND), -1] = BEYOND
    values["flow/kernel"][..., -1, :] = 0
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", values)


@pytest.mark.parametrize("plan", ["balanced", "fast"])
def test_weights_of_a_checkpoint_with_awkward_values(plan, awkward_checkpoint, tmp_path):
    variables = read_checkpoint(awkward_checkpoint)
    halves = np.concatenate([as_half(weights).ravel() for weights in variables.values()])
    assert np.count_nonzero((halves != 0) & (np.abs(halves) < 6.1e-5)) > 100, "hardly a subnormal in the test"
    assert np.count_nonzero(np.abs(halves) == FP16_MAX) >= 4, "nothing saturates in the test"
    check(export(tmp_path, awkward_checkpoint, plan), variables, plan)


@pytest.mark.real_data
@pytest.mark.parametrize("plan", ["balanced", "fast"])
def test_weights_of_the_checkpoint_of_a_real_910(plan, shared_data, tmp_path):
    prefix = shared_data / "weights" / "vm2_mse_ascend910" / "model"
    check(export(tmp_path, prefix, plan), read_checkpoint(prefix), plan)
