# SPDX-License-Identifier: Apache-2.0
"""Which .om, contract and toolchain belong together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from om_runner.device import offline_model as model
from tests.support import fakes
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import ArtifactError, ChecksumError, ContractError, FormatError, ToolchainError


@pytest.fixture
def om(tmp_path, monkeypatch):
    """A file that passes for an .om, its contract, and a finder that makes any toolchain."""
    path = tmp_path / "vxm.om"
    path.write_bytes(b"model")
    fakes.contract(om=sha256_of(path)).save(tmp_path / "contract.json")
    monkeypatch.delenv("VXM_TOOLCHAIN", raising=False)
    monkeypatch.setattr(model, "om_format", SimpleNamespace(read_om=lambda p: SimpleNamespace(simulated=True)))
    made = {"sim": fakes.FakeToolchain("simulator", True), "cann": fakes.FakeToolchain("cann", False)}
    monkeypatch.setattr(model, "find_toolchain", made.__getitem__)
    return path


@pytest.mark.parametrize("simulated, kind", [(True, "simulator"), (False, "cann")])
@pytest.mark.parametrize("choice", [None, "auto"])
def test_with_auto_the_om_decides(om, monkeypatch, simulated, kind, choice):
    monkeypatch.setattr(model, "om_format", SimpleNamespace(read_om=lambda p: SimpleNamespace(simulated=simulated)))
    opened = model.open_model(om, None, choice)
    assert opened.toolchain.kind == kind
    assert opened.badge == ("SIMULATED" if simulated else "REAL")
    assert opened.pb_path == om.with_name("frozen.pb")


@pytest.mark.parametrize(
    "simulated, choice, remedy", [(True, "cann", "--toolchain sim"), (False, "sim", "--toolchain cann")]
)
def test_a_toolchain_that_cannot_run_it_is_refused(om, monkeypatch, simulated, choice, remedy):
    monkeypatch.setattr(model, "om_format", SimpleNamespace(read_om=lambda p: SimpleNamespace(simulated=simulated)))
    with pytest.raises(ToolchainError, match=remedy):
        model.open_model(om, None, choice)


def test_the_environment_counts_as_a_choice(om, monkeypatch):
    monkeypatch.setenv("VXM_TOOLCHAIN", "cann")
    with pytest.raises(ToolchainError, match="--toolchain sim"):
        model.open_model(om)


def test_an_om_of_another_export(om):
    om.write_bytes(b"another model")
    with pytest.raises(ChecksumError) as caught:
        model.open_model(om)
    assert sha256_of(om) in str(caught.value) and "contract.json says" in str(caught.value)


def test_a_contract_without_om(om, tmp_path):
    fakes.contract(om="").save(tmp_path / "contract.json")
    with pytest.raises(ContractError, match="hashes.om is .., expected a sha256"):
        model.open_model(om)


def test_a_missing_contract(om, tmp_path):
    (tmp_path / "contract.json").unlink()
    with pytest.raises(ArtifactError, match="cannot read the contract"):
        model.open_model(om)


@pytest.mark.parametrize("data", [b"", b"IMOD", b"IMOD" + b"\0" * 300, b"\n\x0c\n\x06moving\x12\x0bPlaceholder" * 40])
def test_what_is_no_om_is_told(tmp_path, data):
    path = tmp_path / "vxm.om"
    path.write_bytes(data)
    fakes.contract(om=sha256_of(path)).save(tmp_path / "contract.json")
    with pytest.raises(FormatError, match="vxm.om"):
        model.open_model(path)
