# SPDX-License-Identifier: Apache-2.0
"""What VXM_SIM_STRICT=1 refuses and reports, and that a clean program hears nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.support.sim_device import COUNT, dataset, io_spans
from vxm_convert.sim.acl.base.state import SIM

H2D, D2H = 1, 2


@pytest.fixture
def strict(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_STRICT", "1")
    return sim.start()


def heard(*words):
    return any(all(word in finding for word in words) for finding in SIM.findings)


def test_a_clean_program_hears_nothing(sim, strict):
    acl = strict
    context, _ = acl.rt.create_context(0)
    stream, event = acl.rt.create_stream()[0], acl.rt.create_event()[0]
    spans = sum(io_spans(acl), [])
    model_id = sim.load_model()
    buffers = [acl.create_data_buffer(address, size) for address, size in spans]
    sets = [acl.mdl.create_dataset(), acl.mdl.create_dataset()]
    for number, buffer in enumerate(buffers):
        acl.mdl.add_dataset_buffer(sets[number // 2], buffer)
    assert acl.mdl.execute(model_id, *sets) == 0
    assert acl.mdl.execute_async(model_id, sets[0], sets[1], stream) == acl.rt.synchronize_stream(stream) == 0
    codes = [acl.mdl.unload(model_id)] + [acl.mdl.destroy_dataset(made) for made in sets]
    codes += [acl.destroy_data_buffer(buffer) for buffer in buffers] + [acl.rt.free(address) for address, _ in spans]
    codes += [
        acl.rt.destroy_event(event),
        acl.rt.destroy_stream(stream),
        acl.rt.destroy_context(context),
        acl.rt.reset_device(0),
    ]
    assert codes + [acl.finalize()] == [0] * (len(codes) + 1)
    assert SIM.findings == []


@pytest.mark.parametrize(
    "acquire, said",
    [
        (lambda acl: acl.rt.malloc(64, 0), "1 blocks of device memory"),
        (lambda acl: acl.rt.malloc_host(64), "1 blocks of host memory, 64 bytes"),
        (lambda acl: acl.rt.create_stream(), "1 streams"),
        (lambda acl: acl.rt.create_event(), "1 events"),
        (lambda acl: acl.rt.create_context(0), "a context on device 0"),
        (lambda acl: acl.mdl.create_dataset(), "1 datasets"),
        (lambda acl: acl.mdl.create_desc(), "1 model descriptions"),
        (lambda acl: acl.create_data_buffer(4096, 64), "1 data buffers"),
        (lambda acl: acl.mdl.create_config_handle(), "1 load configurations"),
    ],
)
@pytest.mark.parametrize("with_reset", [True, False])
def test_leaks_are_reported_at_finalize_which_succeeds(sim, strict, caplog, acquire, said, with_reset):
    acquire(strict)
    if with_reset:
        assert strict.rt.reset_device(0) == 0
    assert strict.finalize() == 0
    assert heard("not released before acl.finalize", said), SIM.findings
    assert said in caplog.text


def test_a_leaked_model_is_named(sim, strict):
    sim.load_model()
    assert strict.rt.reset_device(0) == 0
    assert strict.finalize() == 0
    assert heard("model vxm (id 1)")


def test_without_the_switch_leaks_are_no_finding(sim):
    acl = sim.start()
    acl.rt.malloc(64, 0)
    assert acl.finalize() == 0
    assert SIM.findings == []


def test_use_after_free(sim, strict):
    acl = strict
    address, _ = acl.rt.malloc(256, 0)
    data = np.zeros(256, np.uint8)
    assert acl.rt.free(address) == 0
    assert acl.rt.memcpy(address, 256, data.ctypes.data, 256, H2D) == 107000
    assert "use after free" in acl.get_recent_err_msg()
    assert acl.rt.memset(address + 128, 64, 0, 64) == 107000
    assert heard("was freed")


def test_executing_on_freed_memory(sim, strict):
    acl = strict
    inputs, outputs = io_spans(acl)
    sets = dataset(acl, inputs), dataset(acl, outputs)
    assert acl.rt.free(inputs[0][0]) == 0
    assert acl.mdl.execute(sim.load_model(), *sets) == 107000


def test_double_free_of_memory_and_of_handles(sim, strict):
    acl = strict
    address, _ = acl.rt.malloc(64, 0)
    assert [acl.rt.free(address), acl.rt.free(address)] == [0, 107000]
    assert "double free" in acl.get_recent_err_msg()
    stream, _ = acl.rt.create_stream()
    assert [acl.rt.destroy_stream(stream), acl.rt.destroy_stream(stream)] == [0, 107017]
    assert "was destroyed" in acl.get_recent_err_msg()
    assert heard("freed twice") and heard("used after it was destroyed")


def test_freed_addresses_stay_reserved_within_a_bound(sim, strict, monkeypatch):
    from vxm_convert.sim.acl.memory import blocks as memory

    monkeypatch.setattr(memory, "_QUARANTINE_BYTES", 1000)
    addresses = [strict.rt.malloc(400, 0)[0] for _ in range(3)]
    for address in addresses:
        assert strict.rt.free(address) == 0
    assert [memory.MEMORY.freed_around(a) is not None for a in addresses] == [False, True, True]


def test_wrong_copy_kind(sim, strict):
    device, host = strict.rt.malloc(64, 0)[0], strict.rt.malloc_host(64)[0]
    assert strict.rt.memcpy(device, 64, host, 64, D2H) == 107000
    assert heard("kind 2", "host source")


def test_one_model_on_two_streams(sim, strict):
    acl = strict
    gate = sim.program.gate = threading.Event()
    sets = [dataset(acl, spans) for spans in io_spans(acl)]
    model_id = sim.load_model()
    streams = [acl.rt.create_stream()[0] for _ in range(2)]
    for stream in streams:
        assert acl.mdl.execute_async(model_id, sets[0], sets[1], stream) == 0
    # One of the two is refused; which one is a race, as on a device
    refused = [
        code for code in (acl.rt.synchronize_stream_with_timeout(stream, 300) for stream in streams) if code == 507011
    ]
    assert len(refused) == 1
    gate.set()
    assert [acl.rt.synchronize_stream(s) for s in streams] == [0, 0]
    assert heard("load it twice")


def test_execution_and_unloading_in_a_foreign_context(sim, strict):
    acl = strict
    sets = [dataset(acl, spans) for spans in io_spans(acl)]
    model_id = sim.load_model()
    context, _ = acl.rt.create_context(0)
    assert acl.mdl.execute(model_id, *sets) == 107002
    assert heard("another context")
    assert acl.mdl.unload(model_id) == 107002
    assert acl.rt.destroy_context(context) == 0
    assert sim.program.seen == []


def test_host_memory_as_output_is_refused(sim, strict):
    acl = strict
    inputs, outputs = io_spans(acl)
    host = np.zeros(COUNT, np.float32)
    ret = acl.mdl.execute(
        sim.load_model(), dataset(acl, inputs), dataset(acl, [outputs[0], (host.ctypes.data, host.nbytes)])
    )
    assert ret == 145000
