# SPDX-License-Identifier: Apache-2.0
"""Work of the device: dumps of some operators of the model, and runs of the model of single layers."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterator, List, Mapping, Sequence

import numpy as np

from om_runner.device.acl_runtime import AclRuntime
from om_runner.device.offline_model import OfflineModel
from om_runner.layers.golden import GoldenStore, held_as
from om_runner.layers.isolated import CutModel, fresh_folder
from om_runner.layers.matching import Layer
from vxm_convert.artifacts.files import write_text


class Device:
    """A device of this machine through pyACL.

    Parameters
    ----------
    acl : module — the result of ``Toolchain.load_acl()``, initialised.
    model : OfflineModel
    om_name : str — the model's name inside the .om, which dump configurations use.
    feeds : dict — meaning → input of the model.
    work : Path — folder for dump files.
    """

    def __init__(
        self,
        acl: ModuleType,
        model: OfflineModel,
        om_name: str,
        device_id: int,
        feeds: Dict[str, np.ndarray],
        work: Path,
    ) -> None:
        self._acl = acl
        self._model = model
        self._om_name = om_name
        self._device_id = device_id
        self._feeds = feeds
        self._work = work
        self._runs = 0

    def dump(self, operators: Sequence[str]) -> Path:
        """Execute the model once and have it write the outputs of these operators; returns the folder of the files."""
        self._runs += 1
        folder = fresh_folder(self._work, f"dump{self._runs:04d}")
        config = folder / ".dump.json"
        files = folder / "files"
        files.mkdir()
        entry = {"model_name": self._om_name, "layer": list(operators)}
        section = {
            "dump_path": str(files.resolve()),
            "dump_mode": "output",
            "dump_op_switch": "off",
            "dump_list": [entry],
        }
        write_text(config, json.dumps({"dump": section}))
        with AclRuntime(self._acl, self._model.om_path, self._model.contract, self._device_id, config) as runtime:
            runtime.run(self._feeds)
        # The engine of the simulated device is large and part of cycles.
        gc.collect()
        return files

    def run_cut(self, cut: CutModel, golden: GoldenStore) -> Dict[str, np.ndarray]:
        """Golden name of every layer of the group → the device's result for golden inputs."""
        with AclRuntime(self._acl, cut.om_path, cut.contract, self._device_id) as runtime:
            outputs = runtime.run(HeldInputs(cut, golden)).outputs
        gc.collect()
        return outputs


class HeldInputs(Mapping[str, np.ndarray]):
    """Inputs of a cut model in the device's form, made on request and not kept."""

    def __init__(self, cut: CutModel, golden: GoldenStore) -> None:
        self._inputs = {entry.node: entry for entry in cut.inputs}
        self._golden = golden

    def __getitem__(self, node: str) -> np.ndarray:
        entry = self._inputs[node]
        return held_as(self._golden.get(entry.golden), entry.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


def remove(folder: Path) -> None:
    """Remove a folder of ours that is no longer needed."""
    shutil.rmtree(str(folder), ignore_errors=True)


def operators_of(group: Sequence[Layer]) -> List[str]:
    """Operators of a group of layers, each once."""
    return list(dict.fromkeys(layer.op for layer in group))
