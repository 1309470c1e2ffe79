# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, Keras files and compilers that tests of the export make themselves."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import pytest

from tests.support.checkpoints import SPEC, write_checkpoint
from tests.support.reference import random_weights
from vxm_convert.formats.ge_ir import Desc, Model, Op
from vxm_convert.formats.om import write_om
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS
from vxm_convert.toolchain.find import Toolchain


@pytest.fixture(scope="session")
def weights() -> Dict[str, np.ndarray]:
    """Random weights of vm2."""
    return random_weights(SPEC, seed=7)


@pytest.fixture(scope="session")
def contract() -> GraphContract:
    """Contract of vm2 on a small grid; its plan leaves the weights whole, so that they can be compared bit for bit."""
    from export.contracts import build_contract

    return build_contract(SPEC, PLANS["fast"], "Ascend910A")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: Any, weights: Dict[str, np.ndarray]) -> Path:
    """Prefix of a checkpoint as training on a device leaves it: network, Adam slots, powers inside a cond, counters."""
    values: Dict[str, np.ndarray] = dict(weights)
    for name, value in weights.items():
        values[name + "/Adam"] = np.zeros_like(value)
        values[name + "/Adam_1"] = np.zeros_like(value)
    values.update({"cond/beta1_power": np.float32(0.9), "cond/beta2_power": np.float32(0.999), "Variable": np.int32(5)})
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", values)


class FakeAtc:
    """A compiler that does what the test scripted, in a process of its own; a shell starts in no time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The Python of its operator compiler, with everything.
        said = '{"version": "3.7.5", "prefix": "/usr", "missing": [], "numpy": "1.19.5"}'
        (folder / "python3").write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
        (folder / "python3").chmod(0o755)
        self.script()

    def script(self, lines: Sequence[str] = (), copies: Optional[Dict[str, Path]] = None, exit_code: int = 0) -> None:
        """Print `lines`, copy files (name in the working folder → source), exit."""
        here, copy = shlex.quote(str(self.folder)), shlex.quote(str(shutil.which("cp")))
        program = [
            f"printf '%s\\0' \"$@\" > {here}/argv",
            f'for name in * .[!.]*; do if [ -e "$name" ]; then printf \'%s\\0\' "$name"; fi; done > {here}/files',
            *[f"printf '%s\\n' {shlex.quote(line)}" for line in lines],
            *[f"{copy} {shlex.quote(str(source))} {name}" for name, source in (copies or {}).items()],
            f"exit {exit_code}",
        ]
        (self.folder / "fake_atc.sh").write_text("\n".join(program) + "\n", encoding="utf-8")

    @property
    def ran(self) -> bool:
        return (self.folder / "argv").exists()

    @property
    def seen(self) -> Dict[str, List[str]]:
        """Its arguments, and the files of its working folder."""
        return {name: (self.folder / name).read_text(encoding="utf-8").split("\0")[:-1] for name in ("argv", "files")}

    @property
    def toolchain(self) -> Toolchain:
        environment = dict(os.environ, ASCEND_HOME_PATH="/opt/cann", SECRET_OF_USER="x", PATH=str(self.folder))
        return Toolchain("cann", "0.test", ("/bin/sh", str(self.folder / "fake_atc.sh")), environment)


@pytest.fixture
def fake_atc(tmp_path: Path) -> FakeAtc:
    folder = tmp_path / "fake"
    folder.mkdir()
    return FakeAtc(folder)


@pytest.fixture
def make_om(tmp_path: Path) -> Callable[..., Path]:
    """Writes an offline model with a contract's tensors."""

    def make(contract: GraphContract, soc_version: str = "Ascend910A", shape: Any = None, outputs: Any = None) -> Path:
        descs = [Desc("float32", tuple(shape or t.shape)) for t in contract.inputs]
        ops = [Op(t.node, "Data", [], {"index": i}, [], [d]) for i, (t, d) in enumerate(zip(contract.inputs, descs))]
        ops.append(Op("Node_Output", "NetOutput", [f"{t.node}:0" for t in contract.inputs], {}, descs, descs))
        names = outputs or [t.tensor_name for t in contract.outputs]
        model = Model(
            "vxm", ops, {"soc_version": soc_version, "attr_model_out_nodes_name": names, "atc_version": "test"}
        )
        path = tmp_path / "template.om"
        write_om(path, model, {}, platform_version="test")
        return path

    return make
