# SPDX-License-Identifier: Apache-2.0
"""What every rung gets: the request, both sides, a folder, and a way to report points."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np

from om_runner.device_check.probes.probe import Probe
from om_runner.device_check.sides import Compiled, Device, Predictor
from vxm_convert.device_check.points import Point
from vxm_convert.errors import ToolchainError

#: how much of a probe's arrays goes into the archive where something differs, bytes before compression
_KEPT_BYTES = 8 << 20


@dataclass(frozen=True)
class Request:
    """What to climb, as the worker process gets it; `work` is its folder."""

    work: str
    toolchain: Optional[str] = None
    device: int = 0
    soc_version: Optional[str] = None
    short: bool = False
    reference_python: Optional[str] = None
    exported: Optional[str] = None
    shape: str = "160,192,224"

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> Request:
        return cls(**{field.name: data[field.name] for field in fields(cls)})


class Climb:
    """The state of one climb in one process.

    Parameters
    ----------
    request : Request
    emit : callable — takes each point as soon as it is known.
    device : Device or None — None with `reason` where there is none to run on.
    predictor : Predictor
    """

    def __init__(
        self,
        request: Request,
        emit: Callable[[Point], None],
        device: Optional[Device],
        predictor: Predictor,
        reason: str = "",
    ) -> None:
        self.request = request
        self.emit = emit
        self._device = device
        self.predictor = predictor
        self.reason = reason
        self.work = Path(request.work)

    @property
    def device(self) -> Device:
        """Raises ToolchainError where there is no device."""
        if self._device is None:
            raise ToolchainError(self.reason)
        return self._device

    @property
    def simulated(self) -> bool:
        return self._device is None or self._device.toolchain.simulated

    def folder(self, *names: str) -> Path:
        """A folder of the work folder, made where it is missing."""
        folder = self.work.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def compiled(self, probe: Probe) -> Compiled:
        """The probe compiled for the device, once per climb."""
        folder = self.folder("probes", f"{probe.name}-{probe.mode}")
        return self.device.compile(probe, folder)

    def predicted(self, probe: Probe, compiled: Compiled) -> Compiled:
        folder = self.work / "predicted" / f"{probe.name}-{probe.mode}"
        return self.predictor.compile(probe, folder, self.device, compiled)

    def keep(self, name: str, **arrays: np.ndarray) -> None:
        """Arrays for the archive: what is needed to correct the simulator."""
        if sum(array.nbytes for array in arrays.values()) <= _KEPT_BYTES:
            np.savez_compressed(str(self.folder("differing") / f"{name}.npz"), **arrays)
