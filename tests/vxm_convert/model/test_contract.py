# SPDX-License-Identifier: Apache-2.0
"""A contract that contradicts itself is refused by the entry's name; nothing in it is a traceback."""

from __future__ import annotations

import json
import math

import pytest

from tests.support import fakes
from vxm_convert.errors import ContractError, VxmError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.spec import ModelSpec


def changed(tmp_path, change):
    data = json.loads(json.dumps(fakes.contract(1).to_dict()))
    change(data)
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_what_export_writes_is_read_back(tmp_path):
    made = fakes.contract(2)
    made.save(tmp_path / "contract.json")
    assert GraphContract.load(tmp_path / "contract.json") == made


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c["outputs"][1].update(unit="mm"), "unit of flow"),
        (lambda c: c["inputs"][0].update(unit="HU"), "unit of moving"),
        (lambda c: c["intensity"].update(scale=math.nan), "intensity.scale"),
        (lambda c: c["intensity"].update(scale=-1), "intensity.scale"),
        (lambda c: c["intensity"].update(scale="255"), "intensity.scale"),
        (lambda c: c["intensity"].update(low=1, high=0), "intensity.low"),
        (lambda c: c["intensity"].update(high=math.inf), "intensity.low"),
        (lambda c: c["grid"].update(spacing_mm=[1, -1, 1]), "grid.spacing_mm"),
        (lambda c: c["grid"].update(spacing_mm=[1, math.inf, 1]), "grid.spacing_mm"),
        (lambda c: c["grid"].update(spacing_mm=[1, 1]), "malformed entry"),
        (lambda c: c["grid"].update(orientation="LLA"), "grid.orientation"),
        (lambda c: c["model"].update(variant="miccai2018", integration_steps=7), "meaning of the outputs"),
        (lambda c: c["model"].update(volume_shape=[32, 16, 32]), "shape of moving"),
        (lambda c: c["model"].update(variant=["vm2"]), "variant"),
        (lambda c: c["outputs"].reverse() or c["outputs"].pop(), "meaning of the outputs"),
        (lambda c: c["outputs"][0].update(dtype="int8"), "dtype of moved"),
        (lambda c: c["outputs"][0].update(layout="NCDHW"), "layout of moved"),
        (lambda c: c["outputs"][0].update(index=-1), "index of moved"),
        (lambda c: c["outputs"][0].update(index=1e400), "malformed entry"),
        (lambda c: c["outputs"][0].update(node=None), "node and frame of moved"),
        (lambda c: c["hashes"].update(om=5), "hashes.om"),
        (lambda c: c["tools"].update(x=None), "tools.x"),
        (lambda c: c["precision"].update(keep_dtype="abc"), "precision plan"),
        (lambda c: c.update(inputs="text"), "malformed entry"),
        (lambda c: c.update(grid=None), "malformed entry"),
        (lambda c: c.update(hashes=None), "malformed entry"),
    ],
)
def test_a_contradiction_is_named(tmp_path, change, said):
    with pytest.raises(ContractError, match="contract.json") as caught:
        GraphContract.load(changed(tmp_path, change))
    assert said in str(caught.value)


def test_a_deep_or_binary_contract_is_refused(tmp_path):
    for content in (b"[" * 100000, bytes(200), b'{"a":' * 150 + b"1" + b"}" * 150):
        (tmp_path / "contract.json").write_bytes(content)
        with pytest.raises(ContractError):
            GraphContract.load(tmp_path / "contract.json")


def test_a_spec_of_odd_types_is_refused():
    for entries in ({"variant": ["vm2"]}, {"variant": {}}, {"volume_shape": [True, 16, 16]}):
        with pytest.raises(VxmError):
            ModelSpec.from_dict({"variant": "vm2", "volume_shape": [16, 16, 16], **entries})
