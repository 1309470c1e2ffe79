# SPDX-License-Identifier: Apache-2.0
"""Opening an offline model with its contract and the toolchain that can run it; refuses files that do not belong
together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, OM_NAME
from vxm_convert.errors import ArtifactError, ChecksumError, ContractError, ToolchainError
from vxm_convert.lazy import LazyModule
from vxm_convert.model.contract import GraphContract
from vxm_convert.toolchain.find import Toolchain, find_toolchain

om_format = LazyModule("vxm_convert.formats.om")

#: the output of `make export-om`
DEFAULT_MODEL = Path("build") / "vxm" / OM_NAME


@dataclass(frozen=True)
class OfflineModel:
    """A checked .om, its contract and its toolchain."""

    om_path: Path
    contract_path: Path
    contract: GraphContract
    toolchain: Toolchain
    simulated: bool

    @property
    def pb_path(self) -> Path:
        """The frozen graph from which the .om was compiled, beside it."""
        return self.om_path.with_name(FROZEN_PB_NAME)

    @property
    def badge(self) -> str:
        """SIMULATED or REAL, for log lines and reports."""
        return "SIMULATED" if self.simulated else "REAL"


def open_model(
    om_path: Path, contract_path: Optional[Path] = None, toolchain_choice: Optional[str] = None
) -> OfflineModel:
    """Check the chain .om ↔ contract ↔ toolchain.

    Raises
    ------
    ArtifactError, FormatError, ContractError, ChecksumError, ToolchainError
        For a missing or damaged file, an .om that does not belong to the contract, or a toolchain that cannot run this
        kind of .om.
    """
    om_path = Path(om_path)
    if not om_path.is_file():
        raise ArtifactError(f"{om_path}: no such offline model; make one with `make export-om` or pass --model")
    om = om_format.read_om(om_path)
    contract_path = Path(contract_path) if contract_path else om_path.with_name(CONTRACT_NAME)
    contract = GraphContract.load(contract_path)
    _check_hash(om_path, contract_path, contract)
    return OfflineModel(
        om_path, contract_path, contract, _toolchain_for(om_path, om.simulated, toolchain_choice), om.simulated
    )


def _check_hash(om_path: Path, contract_path: Path, contract: GraphContract) -> None:
    wanted = contract.hashes.get("om")
    if not wanted:
        raise ContractError(
            f"{contract_path}: has no sha256 of {om_path.name}; export the model again, including the .om"
        )
    found = sha256_of(om_path)
    if found != wanted:
        raise ChecksumError(
            f"{om_path}: sha256 {found}, {contract_path} says {wanted}; they are from different exports, or one was "
            "changed; pass the contract of this .om with --contract, or export again"
        )


def _toolchain_for(om_path: Path, simulated: bool, choice: Optional[str]) -> Toolchain:
    asked = choice or os.environ.get("VXM_TOOLCHAIN") or "auto"
    # A simulated .om runs only on the simulator, a real one only on CANN: with auto the file decides.
    toolchain = find_toolchain(("sim" if simulated else "cann") if asked == "auto" else asked)
    if toolchain.simulated != simulated:
        have, need = ("simulated", "sim") if simulated else ("real", "cann")
        raise ToolchainError(
            f"{om_path}: a {have} offline model, the chosen toolchain is {toolchain.kind}; "
            f"run it with --toolchain {need}, or export again with the other toolchain"
        )
    return toolchain
