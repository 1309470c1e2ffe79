# SPDX-License-Identifier: Apache-2.0
"""The graph contract: everything that later stages need to know about an exported model, in one JSON file.

Export writes it; the ATC wrapper, the runtimes and the comparer read it. Node names, shapes and meanings are recorded
only here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Tuple

from vxm_convert.artifacts.files import read_bounded, write_json
from vxm_convert.artifacts.jsontext import parse_json
from vxm_convert.errors import ContractError, FormatError, SpecError
from vxm_convert.model.contract_checks import check_contract
from vxm_convert.model.intensity import IntensityRule
from vxm_convert.model.precision import PrecisionPlan
from vxm_convert.model.spec import ModelSpec

SCHEMA_VERSION = 1
MAX_CONTRACT_BYTES = 4 << 20


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the exported graph.

    Parameters
    ----------
    meaning : str — ``moving``, ``fixed``, ``moved``, ``flow``, or ``velocity`` (of diffeomorphic variants).
    node, index : str, int — producing node in the pb and its output index.
    shape : tuple of int — static, batch first.
    dtype : str — NumPy name of the dtype of the model's input or output.
    layout : str — ``NDHWC``.
    frame, unit : str — e.g. ``fixed voxel grid`` and ``voxel``; for images the unit is ``intensity 0..1``.
    """

    meaning: str
    node: str
    index: int
    shape: Tuple[int, ...]
    dtype: str = "float32"
    layout: str = "NDHWC"
    frame: str = ""
    unit: str = ""

    @property
    def tensor_name(self) -> str:
        """``node:index``, as TensorFlow and ATC write it."""
        return f"{self.node}:{self.index}"


@dataclass(frozen=True)
class NetworkAxes:
    """The network grid: axis directions (FreeSurfer letters) and voxel size in mm."""

    orientation: str = "LIA"
    spacing_mm: Tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class GraphContract:
    """Model, tensors, conventions, precision plan and provenance of one exported model."""

    model: ModelSpec
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    precision: PrecisionPlan
    soc_version: str
    grid: NetworkAxes = NetworkAxes()
    intensity: IntensityRule = IntensityRule()
    #: role → sha256, roles: checkpoint, frozen_pb, onnx, om
    hashes: Dict[str, str] = field(default_factory=dict)
    #: tool → version, for tools that determine the artefacts
    tools: Dict[str, str] = field(default_factory=dict)
    #: further flags of ATC by name (`ascend.atc_flags`); a file is named as it lies beside the model
    atc_flags: Dict[str, str] = field(default_factory=dict)

    def tensor(self, meaning: str) -> TensorSpec:
        """The input or output with that meaning; raises ContractError if there is none."""
        for spec in self.inputs + self.outputs:
            if spec.meaning == meaning:
                return spec
        have = ", ".join(s.meaning for s in self.inputs + self.outputs)
        raise ContractError(f"contract: no tensor with meaning {meaning!r}, only {have}; export the model again")

    def to_dict(self) -> Dict[str, Any]:
        data = asdict(self)
        data["model"] = self.model.to_dict()
        data["precision"] = self.precision.to_dict()
        return {"schema": SCHEMA_VERSION, **data}

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> GraphContract:
        """The inverse of `to_dict`; raises ContractError for another schema, a malformed entry, and entries that
        contradict each other.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
            got = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise ContractError(
                f"contract: schema is {got!r}, expected {SCHEMA_VERSION}; export the model again with this version"
            )
        try:
            x, y, z = data["grid"]["spacing_mm"]
            contract = cls(
                model=ModelSpec.from_dict(data["model"]),
                inputs=tuple(_tensor_from_dict(t) for t in data["inputs"]),
                outputs=tuple(_tensor_from_dict(t) for t in data["outputs"]),
                precision=PrecisionPlan.from_dict(data["precision"]),
                soc_version=str(data["soc_version"]),
                grid=NetworkAxes(str(data["grid"]["orientation"]), (float(x), float(y), float(z))),
                intensity=IntensityRule(**data["intensity"]),
                hashes=dict(data["hashes"]),
                tools=dict(data["tools"]),
                # Contracts of earlier versions have none.
                atc_flags=dict(data.get("atc_flags", {})),
            )
            check_contract(contract)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise ContractError(f"contract: malformed entry ({exc!s:.200}); export the model again") from exc
        return contract

    def save(self, path: Path) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> GraphContract:
        """Read ``contract.json``; raises ArtifactError if it is missing or huge, ContractError if it is malformed."""
        path = Path(path)
        try:
            content = read_bounded(
                path, MAX_CONTRACT_BYTES, "the contract", "expected it beside the model, as export wrote it"
            )
            data = parse_json(content, str(path), "export the model again")
        except FormatError as exc:
            raise ContractError(str(exc)) from exc
        try:
            return cls.from_dict(data)
        except (ContractError, SpecError) as exc:
            raise ContractError(f"{path}: {exc}") from exc


def _tensor_from_dict(data: Dict[str, Any]) -> TensorSpec:
    return TensorSpec(**{**data, "shape": tuple(int(n) for n in data["shape"]), "index": int(data["index"])})
