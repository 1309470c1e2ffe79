# SPDX-License-Identifier: Apache-2.0
"""Gears through the device interface: asking, setting, executing, every refusal, streams, dumps, profiles."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from tests.support import gear_graphs
from tests.support.gear_graphs import CASES, compile_case, feeds, static_results
from tests.support.sim_device import dataset, on_device, sim
from vxm_convert.formats.dump import read_dump
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.acl.models import loading as model_module

__all__ = ["sim"]
SHAPE_DATA = "ascend_mbatch_shape_data"
H2D, D2H = 1, 2


class Device:
    """A model with gears on the device, with buffers for its largest gear."""

    def __init__(self, acl, path):
        self.acl = acl
        self.model_id, ret = acl.mdl.load_from_file(str(path))
        assert ret == 0, acl.get_recent_err_msg()
        self.desc = acl.mdl.create_desc()
        assert acl.mdl.get_desc(self.desc, self.model_id) == 0
        self.inputs, self.sources = self.buffers(acl.mdl.get_num_inputs(self.desc), acl.mdl.get_input_size_by_index)
        self.outputs, self.results = self.buffers(acl.mdl.get_num_outputs(self.desc), acl.mdl.get_output_size_by_index)
        self.index, ret = acl.mdl.get_input_index_by_name(self.desc, SHAPE_DATA)
        assert (self.index, ret) == (len(self.sources) - 1, 0)

    def buffers(self, count, size_of):
        spans = on_device(self.acl, *(size_of(self.desc, i) for i in range(count)))
        return dataset(self.acl, spans), spans

    def put(self, arrays):
        for array, (address, size) in zip(arrays, self.sources):
            assert self.acl.rt.memcpy(address, size, array.ctypes.data, array.nbytes, H2D) == 0

    def get(self, index=0):
        dims, ret = self.acl.mdl.get_cur_output_dims(self.desc, index)
        assert ret == 0
        array = np.empty(dims["dims"], np.float32)
        assert self.acl.rt.memcpy(array.ctypes.data, array.nbytes, self.results[index][0], array.nbytes, D2H) == 0
        return array

    def error(self):
        return self.acl.get_recent_err_msg()


@pytest.fixture
def device(sim, tmp_path, monkeypatch):
    """Function: name of a case → Device."""
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    monkeypatch.chdir(tmp_path)
    return lambda name: Device(sim.start(), compile_case(name, tmp_path))


def test_a_model_with_batch_gears_describes_itself(device):
    made = device("batch")
    mdl = made.acl.mdl
    assert mdl.get_dynamic_batch(made.desc) == ({"batchCount": 3, "batch": [1, 4, 8]}, 0)
    assert mdl.get_dynamic_hw(made.desc, -1) == ({"hwCount": 0, "hw": []}, 0)
    assert mdl.get_input_dynamic_gear_count(made.desc, -1) == (0, 0)
    for call in (mdl.get_input_dims, mdl.get_input_dims_v2):
        assert call(made.desc, 0) == ({"name": "x", "dimCount": 4, "dims": [-1, 12, 12, 3]}, 0)
    assert mdl.get_input_dims(made.desc, 1) == ({"name": SHAPE_DATA, "dimCount": 1, "dims": [1]}, 0)
    assert [mdl.get_input_size_by_index(made.desc, i) for i in range(2)] == [8 * 12 * 12 * 3 * 4, 4]
    assert (mdl.get_input_data_type(made.desc, 1), mdl.get_output_size_by_index(made.desc, 0)) == (3, 8 * 5 * 4)
    assert mdl.get_output_dims(made.desc, 0)[0]["dims"] == [8, 5]


def test_models_with_image_and_dims_gears_list_them(device, sim):
    made = device("dims")
    assert made.acl.mdl.get_input_dynamic_gear_count(made.desc, -1) == (3, 0)
    rows = [[1, 4, 8, 1, 8], [2, 6, 8, 2, 8], [3, 2, 8, 3, 8]]
    assert made.acl.mdl.get_input_dynamic_dims(made.desc, -1, 3) == (
        [{"name": "", "dimCount": 5, "dims": row} for row in rows],
        0,
    )
    assert made.acl.mdl.get_input_dynamic_dims(made.desc, -1, 2) == ([], 100000)
    # the largest of each tensor, whichever gear it is in
    assert [made.acl.mdl.get_input_size_by_index(made.desc, i) for i in range(3)] == [2 * 6 * 8 * 4, 3 * 8 * 4, 12]
    assert [made.acl.mdl.get_output_size_by_index(made.desc, i) for i in range(2)] == [3 * 8 * 4, 2 * 6 * 8 * 4]


def test_a_description_of_a_file_lists_gears_but_has_no_current_one(device, tmp_path):
    made = device("hw")
    desc = made.acl.mdl.create_desc()
    assert made.acl.mdl.get_desc_from_file(desc, str(tmp_path / "hw.om")) == 0
    assert made.acl.mdl.get_dynamic_hw(desc, -1) == ({"hwCount": 3, "hw": [[16, 16], [24, 32], [20, 18]]}, 0)
    assert made.acl.mdl.get_cur_output_dims(desc, 0) == ({}, 500002)
    assert made.acl.mdl.query_size(str(tmp_path / "hw.om"))[2] == 0


@pytest.mark.parametrize(
    "name, setter",
    [
        (
            "batch",
            lambda made, gear: made.acl.mdl.set_dynamic_batch_size(
                made.model_id, made.inputs, made.index, (1, 4, 8)[gear]
            ),
        ),
        (
            "hw",
            lambda made, gear: made.acl.mdl.set_dynamic_hw_size(
                made.model_id, made.inputs, made.index, *CASES["hw"].shapes[gear][0][1:3]
            ),
        ),
        (
            "dims",
            lambda made, gear: made.acl.mdl.set_input_dynamic_dims(
                made.model_id, made.inputs, made.index, made.acl.mdl.get_input_dynamic_dims(made.desc, -1, 3)[0][gear]
            ),
        ),
    ],
)
def test_execution_takes_the_gear_that_was_set_last(name, setter, device, tmp_path):
    made = device(name)
    assert made.acl.mdl.get_cur_output_dims(made.desc, 0) == ({}, 500002)
    for gear in (1, 0, 2, 1):
        arrays = feeds(name, gear)
        made.put(arrays)
        for address, size in made.results:
            assert made.acl.rt.memset(address, size, 0x7B, size) == 0
        assert setter(made, gear) == 0, made.error()
        assert made.acl.mdl.execute(made.model_id, made.inputs, made.outputs) == 0, made.error()
        for index, expected in enumerate(static_results(name, gear, tmp_path, arrays)):
            got = made.get(index)
            assert got.shape == expected.shape and np.array_equal(got, expected)
            # the rest of a buffer for the largest gear is left alone
            address, size = made.results[index]
            assert made.acl.util.ptr_to_bytes(address, size)[got.nbytes :] == b"\x7b" * (size - got.nbytes)
    assert not SIM.findings


def test_what_execution_gave_is_described_anew_for_each_gear(device):
    made = device("batch")
    made.put(feeds("batch", 2))
    for batch in (8, 1, 4):
        assert made.acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, made.index, batch) == 0
        assert made.acl.mdl.execute(made.model_id, made.inputs, made.outputs) == 0
        desc = made.acl.mdl.get_dataset_tensor_desc(made.outputs, 0)
        assert made.acl.get_tensor_desc_dim_v2(desc, 0) == (batch, 0)


def test_buffers_need_no_more_than_the_gear_and_no_less(device):
    made = device("batch")
    acl = made.acl
    spans = on_device(acl, 4 * 12 * 12 * 3 * 4, 4)
    inputs = dataset(acl, spans)
    outputs = dataset(acl, on_device(acl, 4 * 5 * 4))
    assert acl.mdl.set_dynamic_batch_size(made.model_id, inputs, 1, 4) == 0
    assert acl.mdl.execute(made.model_id, inputs, outputs) == 0
    assert acl.mdl.set_dynamic_batch_size(made.model_id, inputs, 1, 8) == 0
    assert acl.mdl.execute(made.model_id, inputs, outputs) == 145000 and "input 0" in made.error()


@pytest.mark.parametrize(
    "code, act",
    [
        (145003, lambda d: d.acl.mdl.set_dynamic_batch_size(99, d.inputs, d.index, 4)),
        (100000, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, 0, d.index, 4)),
        (100000, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, d.outputs, d.index, 4)),
        (100000, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, d.inputs, 0, 4)),
        (100000, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, d.inputs, d.index, 0)),
        (145013, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, d.inputs, d.index, 3)),
        (145013, lambda d: d.acl.mdl.set_dynamic_batch_size(d.model_id, d.inputs, d.index, 1 << 40)),
        (145013, lambda d: d.acl.mdl.set_dynamic_hw_size(d.model_id, d.inputs, d.index, 4, 4)),
        (
            145013,
            lambda d: d.acl.mdl.set_input_dynamic_dims(
                d.model_id, d.inputs, d.index, {"name": "", "dimCount": 4, "dims": [3, 12, 12, 3]}
            ),
        ),
        (
            100000,
            lambda d: d.acl.mdl.set_input_dynamic_dims(
                d.model_id, d.inputs, d.index, {"name": "", "dimCount": 9, "dims": [4]}
            ),
        ),
        (100000, lambda d: d.acl.mdl.set_input_dynamic_dims(d.model_id, d.inputs, d.index, {})),
        (145000, lambda d: d.acl.mdl.execute(d.model_id, d.inputs, d.outputs)),
        (145000, lambda d: d.acl.mdl.execute_async(d.model_id, d.inputs, d.outputs, 0)),
    ],
)
def test_refusals(code, act, device):
    made = device("batch")
    assert act(made) == code
    assert "[SIMULATED]" in made.error()
    # nothing was set by it
    assert made.acl.mdl.get_cur_output_dims(made.desc, 0) == ({}, 500002)


def test_the_buffer_that_picks_the_gear_must_hold_it(device):
    made = device("hw")
    acl = made.acl
    short = dataset(acl, [made.sources[0]] + on_device(acl, 4))
    assert acl.mdl.set_dynamic_hw_size(made.model_id, short, 1, 16, 16) == 145012
    absent = dataset(acl, [made.sources[0], (0, 0)])
    assert acl.mdl.set_dynamic_hw_size(made.model_id, absent, 1, 16, 16) == 145011
    dims = {"name": "", "dimCount": 4, "dims": [1, 16, 16, 3]}
    assert acl.mdl.set_input_dynamic_dims(made.model_id, made.inputs, 1, dims) == 145013


def test_dims_need_all_sides_of_all_inputs(device):
    made = device("dims")
    setter = made.acl.mdl.set_input_dynamic_dims
    assert setter(made.model_id, made.inputs, made.index, {"name": "", "dimCount": 3, "dims": [1, 4, 1]}) == 100000
    assert "all 5 sides" in made.error()
    assert (
        setter(made.model_id, made.inputs, made.index, {"name": "", "dimCount": 5, "dims": [1, 4, 8, 2, 8]}) == 145013
    )


def test_a_gear_that_the_device_has_no_memory_for_is_refused_when_it_is_loaded(device, tmp_path):
    made = device("batch")
    flags = ["--input_shape=x:-1,12,12,3", "--dynamic_batch_size=1,100000000"]
    path = gear_graphs.run_atc(gear_graphs.build("batch", tmp_path), tmp_path / "huge", ["prob"], flags)
    assert made.acl.mdl.load_from_file(str(path)) == (0, 245000)
    work, _, ret = made.acl.mdl.query_size(str(path))
    assert ret == 0 and work > 32 << 30


def test_a_dataset_of_another_model_is_not_taken_for_a_gear(device, tmp_path):
    made = device("batch")
    pb = gear_graphs.build("batch", tmp_path)
    flags = ["--input_shape=x:-1,12,12,3", "--dynamic_batch_size=2,5"]
    other = Device(made.acl, gear_graphs.run_atc(pb, tmp_path / "other", ["prob"], flags))
    assert made.acl.mdl.set_dynamic_batch_size(other.model_id, other.inputs, 1, 5) == 0
    assert made.acl.mdl.execute(made.model_id, other.inputs, made.outputs) == 145013


def test_executions_in_flight_keep_the_gear_that_they_were_queued_with(device, tmp_path):
    made = device("batch")
    acl = made.acl
    stream, ret = acl.rt.create_stream()
    assert ret == 0
    gate = threading.Event()
    queue = SIM.handles[stream]
    queue.submit(gate.wait)
    second, sources = made.buffers(2, acl.mdl.get_input_size_by_index)
    others, results = made.buffers(1, acl.mdl.get_output_size_by_index)
    made.put(feeds("batch", 1))
    late = feeds("batch", 2)[0]
    assert acl.rt.memcpy(sources[0][0], sources[0][1], late.ctypes.data, late.nbytes, H2D) == 0
    assert acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, 1, 4) == 0
    assert acl.mdl.execute_async(made.model_id, made.inputs, made.outputs, stream) == 0
    assert acl.mdl.set_dynamic_batch_size(made.model_id, second, 1, 8) == 0
    assert acl.mdl.execute_async(made.model_id, second, others, stream) == 0
    gate.set()
    assert acl.rt.synchronize_stream(stream) == 0
    for gear, (address, _) in ((1, made.results[0]), (2, results[0])):
        expected = static_results("batch", gear, tmp_path, feeds("batch", gear))[0]
        got = np.frombuffer(acl.util.ptr_to_bytes(address, expected.nbytes), np.float32).reshape(expected.shape)
        assert np.array_equal(got, expected)
    assert not SIM.findings


@pytest.mark.parametrize("strict", [False, True])
def test_a_gear_set_again_before_the_queued_execution_ran_is_found(device, strict):
    made = device("batch")
    acl, SIM.strict = made.acl, strict
    stream, _ = acl.rt.create_stream()
    gate = threading.Event()
    SIM.handles[stream].submit(gate.wait)
    assert acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, 1, 4) == 0
    assert acl.mdl.execute_async(made.model_id, made.inputs, made.outputs, stream) == 0
    assert acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, 1, 8) == 0
    gate.set()
    assert (acl.rt.synchronize_stream(stream) != 0) == strict
    assert any("was overwritten with [8] before it ran" in finding for finding in SIM.findings)


def test_dumps_of_each_gear(sim, device, tmp_path):
    (tmp_path / "dumps").mkdir()
    (tmp_path / "acl.json").write_text(
        json.dumps(
            {
                "dump": {
                    "dump_path": str(tmp_path / "dumps"),
                    "dump_list": [{"model_name": "batch", "layer": ["prob", "Node_Output"]}],
                }
            }
        )
    )
    path = compile_case("batch", tmp_path)
    acl = sim.acl
    assert acl.init(str(tmp_path / "acl.json")) == 0 and acl.rt.set_device(0) == 0
    made = Device(acl, path)
    for gear, batch in enumerate((1, 4, 8)):
        made.put(feeds("batch", gear))
        assert acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, 1, batch) == 0
        assert acl.mdl.execute(made.model_id, made.inputs, made.outputs) == 0
        found = {file.name.split(".")[0]: file for file in (tmp_path / "dumps").glob(f"*/0/batch/1/{gear}/*")}
        assert sorted(found) == ["NetOutput", "SoftmaxV2"]
        assert np.array_equal(read_dump(found["NetOutput"]).outputs[0].data, made.get())
        dump = read_dump(found["SoftmaxV2"])
        assert dump.op_name == f"prob_ascend_mbatch_batch_{gear}" and dump.outputs[0].data.shape == (batch, 5)


def test_executions_of_all_gears_are_profiled(device, tmp_path):
    made = device("batch")
    acl = made.acl
    (tmp_path / "prof").mkdir()
    assert acl.prof.init(str(tmp_path / "prof")) == 0
    config = acl.prof.create_config([0], 0, 0, 1)
    assert acl.prof.start(config) == 0
    for batch in (1, 8):
        assert acl.mdl.set_dynamic_batch_size(made.model_id, made.inputs, 1, batch) == 0
        assert acl.mdl.execute(made.model_id, made.inputs, made.outputs) == 0
    assert acl.prof.stop(config) == 0 and acl.prof.finalize() == 0
    summary = json.loads(next((tmp_path / "prof").glob("*/summary.json")).read_text())
    assert summary["models"]["batch"]["executions"] == 2
