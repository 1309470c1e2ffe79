# SPDX-License-Identifier: Apache-2.0
"""Offline models with the peculiarities of the real ATC are read, shown and run nowhere; our own rules stay strict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.real_om import FLOAT, RealOm, small_model
from vxm_convert.errors import FormatError
from vxm_convert.formats.om import read_om, read_overview
from vxm_convert.inspection.graphs import describe_om
from vxm_convert.sim.acl.base.state import AclFailure
from vxm_convert.sim.acl.models.loading import _prepare


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small_model().save(tmp_path / "real.om")


def test_a_real_model_is_read_with_its_weights(path: Path) -> None:
    model = read_om(path)
    assert not model.simulated and model.soc_version == "Ascend310"
    by_name = {op.name: op for op in model.graph}
    assert by_name["x"].inputs == [] and by_name["x"].input_descs == []
    conv = by_name["conv"]
    assert conv.inputs == ["trans_TransData_1:0", "dynamic_const_1:0", "dynamic_const_2:0"], "offset_w is absent"
    assert [desc.dtype for desc in conv.input_descs] == ["float16", "float16", "bfloat16"]
    assert np.array_equal(by_name["dynamic_const_1"].value.reshape(-1), np.arange(16, dtype=np.float16))
    assert by_name["dynamic_const_2"].value.nbytes == 8 and by_name["dynamic_const_2"].output_descs[0].nbytes == 8
    assert by_name["trans_TransData_1"].input_descs[0].shape != by_name["trans_Cast_0"].output_descs[0].shape


def test_a_real_model_is_shown(path: Path) -> None:
    description = describe_om(path)
    assert description.kind == "offline model"
    facts = dict(description.facts)
    assert facts["device"] == "Ascend310" and facts["output"].startswith("conv:0 float32 [1, 2, 2, 1, 4]")
    assert ("conv", ("float16", "float16", "bfloat16")) in [(op.name, op.inputs) for op in description.ops]


def test_the_simulated_device_says_that_it_holds_device_code(path: Path) -> None:
    with pytest.raises(AclFailure, match="made by the real ATC for Ascend310; it holds code of the device") as caught:
        _prepare(path.read_bytes(), "real.om")
    assert caught.value.code == 545001, "not the code of a damaged file"


@pytest.mark.parametrize("header", [{"model_num": 0}, {"platform_version": b"1.75.22.0.220"}], ids=["20.2", "version"])
def test_headers_of_other_releases(header: dict, tmp_path: Path) -> None:
    assert read_om(small_model().save(tmp_path / "m.om", header)).graph


def test_unknown_partitions_types_and_texts_do_not_end_the_reading(tmp_path: Path) -> None:
    made = small_model()
    made.op("Strange", "odd", [("x:0", 99, (2,) * 12)], [(99, (-1, 4))])
    made.message.attr.add(key="_binary").value.s = b"\xff\x00"
    path = made.save(tmp_path / "m.om", extra=[(27, b"new"), (13, b"")])
    model = read_om(path)
    odd = next(op for op in model.graph if op.name == "odd")
    assert odd.output_descs[0].dtype == "type 99" and odd.output_descs[0].nbytes == 0
    assert dict(model.partitions)["PARTITION_27"] == 3 and "PARTITION_27" in read_overview(path).sizes


def test_a_broken_real_model_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds 2 models"):
        read_om(small_model().save(tmp_path / "a.om", {"model_num": 2}))
    lost = small_model()
    lost.op("Cast", "c", [("nobody:0", FLOAT, (1,))], [(FLOAT, (1,))])
    with pytest.raises(FormatError, match="'nobody:0' of 'c' is the output of no node"):
        read_om(lost.save(tmp_path / "b.om"))
    short = small_model()
    short.weights = short.weights[:16]
    with pytest.raises(FormatError, match="do not hold float16"):
        read_om(short.save(tmp_path / "c.om"))
    truncated = small_model().save(tmp_path / "d.om")
    truncated.write_bytes(truncated.read_bytes()[:-3])
    with pytest.raises(FormatError, match="truncated"):
        read_om(truncated)


def test_a_simulated_model_may_not_take_these_liberties(tmp_path: Path) -> None:
    """The name of the maker decides, and our own files carry a checksum."""
    made = small_model()
    for entry in made.message.attr:
        if entry.key == "atc_version":
            entry.value.s = b"sim-0.1.0"
    with pytest.raises(FormatError, match="checksum"):
        read_om(made.save(tmp_path / "m.om"))
    assert RealOm().message.attr
