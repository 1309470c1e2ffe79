# SPDX-License-Identifier: Apache-2.0
"""A tiny cohort, a runtime without a device, and the same arithmetic as a frozen TensorFlow graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import RunResult, Runtime
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec

SHAPE = (16, 16, 32)
DEVICE_SECONDS = 0.5


@dataclass(frozen=True)
class FakeToolchain:
    """What the runner asks of a toolchain."""

    kind: str = "simulator"
    simulated: bool = True

    def sentence(self) -> str:
        return "SIMULATED toolchain sim-test: no Ascend device takes part in these results"

    def describe(self) -> Dict[str, Any]:
        return {"kind": self.kind, "version": "sim-test", "simulated": self.simulated}


def contract(batch: int = 1, **hashes: str) -> GraphContract:
    spec = ModelSpec("vm2", SHAPE, batch)
    return GraphContract(
        model=spec,
        inputs=(TensorSpec("moving", "moving", 0, spec.image_shape), TensorSpec("fixed", "fixed", 0, spec.image_shape)),
        outputs=(
            TensorSpec("moved", "moved", 0, spec.image_shape),
            TensorSpec("flow", "flow_field", 0, spec.flow_shape),
        ),
        precision=PLANS["balanced"],
        soc_version="Ascend910A",
        hashes={"om": "0" * 64, "frozen_pb": "1" * 64, **hashes},
    )


def offline_model(folder: Path, batch: int = 1, pb: Optional[bytes] = None) -> OfflineModel:
    """A model whose files are there as far as the runner reads them; the .om itself is opened by the fake runtime
    only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    if pb is not None:
        (folder / "frozen.pb").write_bytes(pb)
        hashes["frozen_pb"] = sha256_of(folder / "frozen.pb")
    made = contract(batch, **hashes)
    made.save(folder / "contract.json")
    return OfflineModel(folder / "vxm.om", folder / "contract.json", made, FakeToolchain(), True)


def brain(seed: int) -> Tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid (uint8, 0..255) and its labels: 2 left, 41 right, 16 in the middle."""
    rng = np.random.RandomState(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    centre = rng.uniform(-0.1, 0.1, 3)
    inside = sum((a - c) ** 2 for a, c in zip(axes, centre)) < 0.6
    image = np.where(inside, 110 + 30 * np.sin(4 * axes[2]) + rng.uniform(0, 9, SHAPE), 0).astype(np.uint8)
    seg = np.where(inside, np.where(axes[0] < centre[0], 2, 41), 0).astype(np.int16)
    seg[inside & (np.abs(axes[2] - centre[2]) < 0.2)] = 16
    return image, seg


def write_scan(path: Path, seed: int, with_seg: bool = True, **replace: np.ndarray) -> Path:
    image, seg = brain(seed)
    arrays = {"vol": image, **({"seg": seg} if with_seg else {}), **replace}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(str(path), **arrays)
    return path


def arithmetic(moving: np.ndarray, fixed: np.ndarray) -> Dict[str, np.ndarray]:
    """A stand-in for the network: easily written in NumPy and in TensorFlow."""
    difference = moving - fixed
    return {
        "moved": np.float32(0.5) * (moving + fixed),
        "flow": np.concatenate([difference, -difference, 2 * difference], axis=-1),
    }


class FakeRuntime(Runtime):
    """Runs `arithmetic`, then `spoil` on its outputs; remembers what it was fed."""

    def __init__(
        self, made: GraphContract, spoil: Callable[[Dict[str, np.ndarray]], None] = lambda outputs: None
    ) -> None:
        super().__init__(made)
        self.spoil = spoil
        self.fed = []

    def _open(self) -> None:
        self.fed.clear()

    def _run(self, feeds: Dict[str, np.ndarray]) -> RunResult:
        self.fed.append({name: array for name, array in feeds.items()})
        outputs = arithmetic(feeds["moving"], feeds["fixed"])
        self.spoil(outputs)
        return RunResult(outputs, DEVICE_SECONDS)

    def _close(self) -> None:
        pass


def frozen_arithmetic(batch: int = 1) -> bytes:
    """`arithmetic` as a serialised GraphDef with the contract's node names; needs TensorFlow."""
    import tensorflow

    tf = tensorflow.compat.v1
    with tf.Graph().as_default() as graph:
        moving = tf.placeholder(tf.float32, (batch,) + SHAPE + (1,), name="moving")
        fixed = tf.placeholder(tf.float32, (batch,) + SHAPE + (1,), name="fixed")
        difference = moving - fixed
        tf.identity(0.5 * (moving + fixed), name="moved")
        tf.identity(tf.concat([difference, -difference, 2 * difference], axis=-1), name="flow_field")
        return graph.as_graph_def().SerializeToString(deterministic=True)
