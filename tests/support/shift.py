# SPDX-License-Identifier: Apache-2.0
"""A model without a device whose answer is a plausible registration: a smooth known flow, and the scan warped by it."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np

from om_runner.device.offline_model import OfflineModel
from om_runner.device.runtime import RunResult, Runtime
from tests.support import fakes
from vxm_convert.errors import AclError
from vxm_convert.geometry.reference_warp import warp_linear


def flow_of(shape: tuple) -> np.ndarray:
    """A smooth flow of at most one voxel."""
    axes = np.meshgrid(*(np.linspace(0, np.pi, n) for n in shape), indexing="ij")
    bump = np.sin(axes[0]) * np.sin(axes[1]) * np.sin(axes[2])
    return np.stack([bump, -0.5 * bump, 0.25 * bump], axis=-1).astype(np.float32)


class ShiftRuntime(Runtime):
    """Counts what it was fed and which sets of buffers are in use; `broken` makes the next run fail."""

    def __init__(self, model: OfflineModel, device: int = 0, sets: int = 2) -> None:
        super().__init__(model.contract)
        self.fed: List[Dict[str, np.ndarray]] = []
        self.sets = self.free = sets
        self.opened = 0
        self.broken = False

    def reserve(self, sets: int) -> int:
        return self.sets

    def stage(self, feeds: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        assert self.free > 0, "no set of buffers is free"
        self.free -= 1
        return self._complete(feeds)

    def execute(self, staged: Dict[str, np.ndarray]) -> RunResult:
        if self.broken:
            self.free += 1
            raise AclError("the device is lost", "acl.mdl.execute_async", 507899)
        return self._run(staged)

    def fetch(self, collected: RunResult) -> RunResult:
        self.free += 1
        return collected

    def _open(self) -> None:
        self.opened += 1

    def _run(self, feeds: Dict[str, np.ndarray]) -> RunResult:
        self.fed.append(dict(feeds))
        moving = feeds["moving"]
        flow = np.repeat(flow_of(moving.shape[1:4])[np.newaxis], len(moving), axis=0)
        moved = np.stack([warp_linear(image[..., 0], part) for image, part in zip(moving, flow)])
        return RunResult({"moved": moved[..., np.newaxis].astype(np.float32), "flow": flow}, fakes.DEVICE_SECONDS)

    def _close(self) -> None:
        self.opened -= 1


class ShiftBench:
    """The registrar's model and device replaced; `runtimes` are the devices that were opened."""

    def __init__(self, folder: Path, monkeypatch: object, batch: int = 1, sets: int = 2) -> None:
        from om_runner.api import registrar

        self.model = fakes.offline_model(folder / "model", batch)
        self.runtimes: List[ShiftRuntime] = []
        monkeypatch.setattr(registrar, "open_model", lambda *args: self.model)
        monkeypatch.setattr(registrar, "open_runtime", lambda model, device: self._open(model, device, sets))

    def _open(self, model: OfflineModel, device: int, sets: int) -> ShiftRuntime:
        self.runtimes.append(ShiftRuntime(model, device, sets))
        return self.runtimes[-1]
