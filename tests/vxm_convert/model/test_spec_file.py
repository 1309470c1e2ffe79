# SPDX-License-Identifier: Apache-2.0
"""``spec.json``: the network and the intensity rule of its weights, there and back and into the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.contracts import build_contract
from vxm_convert.artifacts.names import SPEC_NAME
from vxm_convert.errors import ArtifactError, ContractError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.spec_file import SpecFile, read_spec, write_spec
from vxm_convert.weights.files import CheckpointFiles

SPEC = ModelSpec("miccai2018", (16, 32, 48), integration_steps=5)


@pytest.mark.parametrize("rule", ["convention", "contrast"])
def test_there_and_back(tmp_path: Path, rule: str) -> None:
    assert read_spec(tmp_path) is None
    write_spec(tmp_path, SPEC, rule)
    assert read_spec(tmp_path) == SpecFile(SPEC, rule)
    assert ("intensity" in json.loads((tmp_path / SPEC_NAME).read_text())) == (rule != "convention")


@pytest.mark.parametrize("rule", ["convention", "contrast"])
def test_the_contract_has_the_rule(tmp_path: Path, rule: str) -> None:
    write_spec(tmp_path, SPEC, rule)
    files = CheckpointFiles("tensorflow", tmp_path / "model", ())
    contract = build_contract(SPEC, PLANS["fast"], "Ascend910A", files)
    assert contract.intensity.rule == rule and GraphContract.from_dict(contract.to_dict()) == contract
    with pytest.raises(ContractError, match="intensity.rule is 'guess', expected one of convention, match"):
        GraphContract.from_dict({**contract.to_dict(), "intensity": {"rule": "guess"}})


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "JSON"),
        ("[1]", "missing entries"),
        (
            '{"variant": "vm2", "volume_shape": [16, 16, 16], "intensity": "loud"}',
            "intensity is 'loud', expected one of",
        ),
        ('{"variant": "vm9", "volume_shape": [16, 16, 16]}', "vm9"),
    ],
)
def test_a_damaged_spec_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / SPEC_NAME).write_text(content)
    with pytest.raises(ArtifactError, match=words):
        read_spec(tmp_path)
