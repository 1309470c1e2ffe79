# SPDX-License-Identifier: Apache-2.0
"""Loading, describing and executing models through the simulated acl."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.support.sim_device import COUNT, FLOW_SHAPE, MAGIC, SHAPE, dataset, io_spans, on_device
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.acl.models import loading as model_module
from vxm_convert.sim.faults import injected


def description(sim, acl):
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, sim.load_model()) == 0
    return desc


def test_model_ids_start_at_one_and_unknown_ids_are_refused(sim):
    acl = sim.start()
    assert sim.load_model() == 1 and sim.load_model() == 2
    assert acl.mdl.unload(1) == 0
    assert acl.mdl.unload(1) == 145003
    assert acl.mdl.execute(1, acl.mdl.create_dataset(), acl.mdl.create_dataset()) == 145003


def test_description(sim):
    acl = sim.start()
    desc = description(sim, acl)
    mdl = acl.mdl
    assert (mdl.get_num_inputs(desc), mdl.get_num_outputs(desc)) == (2, 2)
    assert mdl.get_input_index_by_name(desc, "moving") == (1, 0)
    assert mdl.get_input_index_by_name(desc, "no_such") == (0, 100000)
    assert mdl.get_output_index_by_name(desc, "moved:0:moved") == (1, 0)
    assert mdl.get_output_name_by_index(desc, 0) == "flow_field:0:flow"
    assert mdl.get_input_size_by_index(desc, 0) == COUNT * 4
    assert mdl.get_output_size_by_index(desc, 0) == COUNT * 12
    dims = {"name": "flow_field:0:flow", "dimCount": 5, "dims": list(FLOW_SHAPE)}
    assert mdl.get_output_dims(desc, 0) == (dims, 0)
    assert mdl.get_cur_output_dims(desc, 0) == (dims, 0)
    assert mdl.get_input_dims_v2(desc, 1)[0]["dims"] == list(SHAPE)
    assert mdl.get_input_dims(desc, 9) == ({}, 100000)
    assert (mdl.get_input_format(desc, 0), mdl.get_input_data_type(desc, 0)) == (27, 0)
    assert (mdl.get_input_name_by_index(desc, 9), mdl.get_input_size_by_index(desc, 9)) == ("", 0)
    assert mdl.get_dynamic_batch(desc) == ({"batchCount": 0, "batch": []}, 0)
    assert mdl.get_input_dynamic_gear_count(desc, -1) == (0, 0)
    assert mdl.destroy_desc(desc) == 0
    assert mdl.get_num_inputs(desc) == 0


def test_failed_dims_do_not_share_their_dict(sim):
    acl = sim.start()
    desc = description(sim, acl)
    acl.mdl.get_input_dims(desc, 9)[0]["spoiled"] = True
    assert acl.mdl.get_input_dims(desc, 9) == ({}, 100000)


def test_execute_reads_and_writes_device_memory(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    fixed, moving = (acl.util.ptr_to_numpy(address, SHAPE, 11) for address, _ in inputs)
    fixed[...] = 1
    moving[...] = np.arange(COUNT).reshape(SHAPE)
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs)) == 0
    np.testing.assert_array_equal(acl.util.ptr_to_numpy(outputs[1][0], SHAPE, 11), moving + 2)
    np.testing.assert_array_equal(acl.util.ptr_to_numpy(outputs[0][0], FLOW_SHAPE, 11)[..., 2:], moving)


def addresses(places):
    return [None if place is None else place.ctypes.data for place in places]


def test_the_engine_may_write_where_the_outputs_belong(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs)) == 0
    assert [(place.shape, place.dtype.name) for place in sim.program.places] == [
        (FLOW_SHAPE, "float32"),
        (SHAPE, "float32"),
    ]
    assert addresses(sim.program.places) == [address for address, _ in outputs]


def test_the_engine_may_not_write_where_its_inputs_are_or_another_output(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    shared = [outputs[0], inputs[1]]
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, shared)) == 0
    assert addresses(sim.program.places) == [outputs[0][0], None]
    twice = [outputs[0], (outputs[0][0], outputs[1][1])]
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, twice)) == 0
    assert addresses(sim.program.places) == [None, None]


def test_the_engine_may_not_write_what_a_fault_keeps_unwritten(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    with injected("half_output:0"):
        assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs)) == 0
    assert addresses(sim.program.places) == [None, outputs[1][0]]


def test_the_engine_cannot_write_into_inputs(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    original = sim.program.run

    def spoil(arrays):
        arrays[0][...] = 0
        return original(arrays)

    sim.program.run = spoil
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs)) == 507011


@pytest.mark.parametrize("missing,expected", [(64, 0), (65, 145000), (COUNT * 2, 145000)])
def test_too_small_inputs_are_refused_beyond_64_bytes(sim, missing, expected):
    acl = sim.start()
    _, outputs = io_spans(acl)
    inputs = on_device(acl, COUNT * 4, COUNT * 4 - missing)
    ret = acl.mdl.execute(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs))
    assert ret == expected
    if expected:
        assert f"size:{COUNT * 4 - missing} from user add align:64 < op_size:{COUNT * 4}" in acl.get_recent_err_msg()


def test_a_buffer_that_claims_more_than_was_allocated_is_refused(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    short = on_device(acl, 100)
    assert (
        acl.mdl.execute(sim.load_model(), dataset(acl, [inputs[0], (short[0][0], COUNT * 4)]), dataset(acl, outputs))
        == 107000
    )


def test_wrong_number_of_buffers(sim):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    assert acl.mdl.execute(sim.load_model(), dataset(acl, inputs[:1]), dataset(acl, outputs)) == 145000


def test_system_allocates_outputs_given_as_zero(sim):
    acl = sim.start()
    inputs, _ = io_spans(acl)
    outputs = dataset(acl, [(0, 0), (0, 0)])
    model_id = sim.load_model()
    assert acl.mdl.execute_async(model_id, dataset(acl, inputs), outputs, 0) == 145000
    assert acl.mdl.execute(model_id, dataset(acl, inputs), outputs) == 0
    buffer = acl.mdl.get_dataset_buffer(outputs, 0)
    assert acl.get_data_buffer_size(buffer) == COUNT * 12
    assert acl.rt.free(acl.get_data_buffer_addr(buffer)) == 0
    assert acl.update_data_buffer(buffer, 0, 0) == 0


def test_bad_files(sim, tmp_path):
    acl = sim.start()
    assert acl.mdl.load_from_file(str(tmp_path / "absent.om")) == (0, 145002)
    bad = tmp_path / "bad.om"
    bad.write_bytes(b"not a model")
    assert acl.mdl.load_from_file(str(bad)) == (0, 100003)
    assert "expected an offline model" in acl.get_recent_err_msg()
    assert acl.mdl.query_size(str(bad)) == (0, 0, 100003)


def test_the_real_loader_refuses_what_is_no_offline_model(sim, tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    acl = sim.start()
    for content in (b"", b"IMOD", b"IMOD" + bytes(1000), b"\x0a\x05frozen pb"):
        (tmp_path / "x.om").write_bytes(content)
        assert acl.mdl.load_from_file(str(tmp_path / "x.om")) == (0, 100003)
        assert "x.om" in acl.get_recent_err_msg()


def test_model_for_another_chip_is_refused(sim, monkeypatch):
    acl = sim.start()
    sim.om_path.write_bytes(MAGIC + b"Ascend310")
    assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 545001)
    message = acl.get_recent_err_msg()
    assert "Ascend310" in message and "--soc_version=Ascend910A" in message
    sim.om_path.write_bytes(MAGIC + b"Ascend910")
    assert acl.mdl.load_from_file(str(sim.om_path))[1] == 0


def test_a_bug_in_the_loader_becomes_a_code(sim, monkeypatch):
    def broken(data, where):
        raise KeyError("op")

    monkeypatch.setattr(model_module, "PROGRAM_LOADER", broken)
    acl = sim.start()
    assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 545000)


def test_model_memory_is_booked_and_given_back(sim):
    acl = sim.start()
    before = acl.rt.get_mem_info(1)[0]
    assert acl.mdl.query_size(str(sim.om_path)) == (1 << 20, 1 << 16, 0)
    model_id = sim.load_model()
    # Sizing prepared the model already
    assert sim.loads == 1
    assert before - acl.rt.get_mem_info(1)[0] == (1 << 20) + (1 << 16)
    assert acl.mdl.unload(model_id) == 0
    assert acl.rt.get_mem_info(1)[0] == before


def test_model_that_does_not_fit_the_device(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_MEMORY", str(1 << 20))
    acl = sim.start()
    assert acl.mdl.load_from_file(str(sim.om_path)) == (0, 245000)


def test_loading_into_memory_of_the_client(sim):
    acl = sim.start()
    (work, work_size), (weight, weight_size) = on_device(acl, 1 << 20, 1 << 16)
    before = acl.rt.get_mem_info(1)[0]
    path = str(sim.om_path)
    assert acl.mdl.load_from_file_with_mem(path, work, work_size, weight, weight_size) == (1, 0)
    assert acl.rt.get_mem_info(1)[0] == before
    assert acl.mdl.load_from_file_with_mem(path, work, 100, weight, weight_size) == (0, 100000)
    assert acl.mdl.load_from_file_with_mem(path, 0, 0, weight, weight_size) == (2, 0)
    data = sim.om_path.read_bytes()
    pointer = acl.util.bytes_to_ptr(data)
    assert acl.mdl.query_size_from_mem(pointer, len(data)) == (1 << 20, 1 << 16, 0)
    assert acl.mdl.load_from_mem(pointer, len(data)) == (3, 0)
    assert acl.mdl.load_from_mem_with_mem(pointer, len(data), work, work_size, 0, 0) == (4, 0)
    assert acl.mdl.load_from_mem(0, len(data)) == (0, 107000)


def test_loading_by_configuration(sim):
    acl = sim.start()
    config = acl.mdl.create_config_handle()
    assert acl.mdl.load_with_config(config) == (0, 100000)
    assert acl.mdl.set_config_opt(config, 1, 1) == 0
    assert acl.mdl.set_config_opt(config, 2, 5) == 100000
    assert acl.mdl.set_config_opt(config, 2, str(sim.om_path)) == 0
    assert acl.mdl.load_with_config(config) == (1, 0)
    assert acl.mdl.destroy_config_handle(config) == 0


def test_dynamic_setters_refuse_a_static_model(sim):
    acl = sim.start()
    model_id = sim.load_model()
    assert acl.mdl.set_dynamic_batch_size(model_id, 0, 0, 4) == 100019
    assert acl.mdl.set_input_dynamic_dims(model_id, 0, 0, {}) == 100019


def test_one_model_on_two_streams_at_a_time_is_recorded(sim):
    acl = sim.start()
    gate = sim.program.gate = threading.Event()
    sets = [dataset(acl, spans) for spans in io_spans(acl)]
    model_id = sim.load_model()
    streams = [acl.rt.create_stream()[0] for _ in range(2)]
    for stream in streams:
        assert acl.mdl.execute_async(model_id, sets[0], sets[1], stream) == 0
    threading.Timer(0.1, gate.set).start()
    assert [acl.rt.synchronize_stream(s) for s in streams] == [0, 0]
    assert any("load it twice" in finding for finding in SIM.findings)


def test_host_memory_as_model_input_is_recorded_or_refused(sim, monkeypatch):
    acl = sim.start()
    inputs, outputs = io_spans(acl)
    host = np.zeros(COUNT, np.float32)
    sets = dataset(acl, [inputs[0], (host.ctypes.data, host.nbytes)]), dataset(acl, outputs)
    model_id = sim.load_model()
    assert acl.mdl.execute(model_id, sets[0], sets[1]) == 0
    assert SIM.findings
    monkeypatch.setattr(SIM, "strict", True)
    assert acl.mdl.execute(model_id, sets[0], sets[1]) == 145000
