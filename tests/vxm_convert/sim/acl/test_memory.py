# SPDX-License-Identifier: Apache-2.0
"""Memory is real process memory with bounds; the idioms by which published samples move data in and out."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.acl.memory import blocks as memory

H2H, H2D, D2H, D2D = range(4)


def test_memory_is_aligned_and_readable_by_ctypes(sim):
    acl = sim.start()
    for size in (1, 33, 1000):
        address, ret = acl.rt.malloc(size, 0)
        assert ret == 0 and address % 64 == 0
        assert acl.rt.memset(address, size, 7, size) == 0
        assert ctypes.string_at(address, size) == b"\x07" * size


def test_bytes_idiom(sim):
    """bytes_to_ptr in, ptr_to_bytes out, as samples for CANN 6 and newer do."""
    acl = sim.start()
    data = np.arange(100, dtype=np.float32).tobytes()
    device, _ = acl.rt.malloc(len(data), 2)
    assert acl.rt.memcpy(device, len(data), acl.util.bytes_to_ptr(data), len(data), H2D) == 0
    host, _ = acl.rt.malloc_host(len(data))
    assert acl.rt.memcpy(host, len(data), device, len(data), D2H) == 0
    assert acl.util.ptr_to_bytes(host, len(data)) == data
    result = bytes(len(data))
    assert acl.rt.memcpy(acl.util.bytes_to_ptr(result), len(data), device, len(data), D2H) == 0
    assert result == data


def test_numpy_idiom_is_a_view(sim):
    acl = sim.start()
    source = np.random.RandomState(0).rand(4, 5).astype(np.float32)
    host, _ = acl.rt.malloc_host(source.nbytes)
    view = acl.util.ptr_to_numpy(host, (4, 5), 11)
    assert acl.rt.memcpy(host, source.nbytes, acl.util.numpy_to_ptr(source), source.nbytes, H2H) == 0
    np.testing.assert_array_equal(view, source)
    view[0, 0] = 42
    assert ctypes.c_float.from_address(host).value == 42
    pointer, array = acl.util.numpy_contiguous_to_ptr(source.T)
    assert pointer == array.ctypes.data and array.flags["C_CONTIGUOUS"]


def test_plain_addresses_need_no_util(sim):
    acl = sim.start()
    source = np.arange(64, dtype=np.int32)
    target = np.zeros_like(source)
    device, _ = acl.rt.malloc(source.nbytes, 0)
    assert acl.rt.memcpy(device, source.nbytes, source.ctypes.data, source.nbytes, H2D) == 0
    assert acl.rt.memcpy(target.ctypes.data, target.nbytes, device, target.nbytes, D2H) == 0
    np.testing.assert_array_equal(target, source)


def test_copies_stay_inside_their_buffers(sim):
    acl = sim.start()
    (small, _), (large, _) = acl.rt.malloc(64, 0), acl.rt.malloc(256, 0)
    assert acl.rt.memcpy(small, 64, large, 65, D2D) == 107000
    assert "declared with 64" in acl.get_recent_err_msg()
    # The stated limit lies; the table of allocations does not
    assert acl.rt.memcpy(small, 256, large, 256, D2D) == 107000
    assert acl.rt.memcpy(large, 256, small, 256, D2D) == 107000
    assert acl.rt.memcpy(large + 200, 56, small, 56, D2D) == 0
    assert acl.rt.memcpy(large + 200, 57, small, 57, D2D) == 107000
    assert acl.rt.memset(small, 64, 0, 65) == 107000


@pytest.mark.parametrize("pointer", [0, 8, 0x00A5000000000000])
def test_impossible_pointers_are_refused_not_followed(sim, pointer):
    acl = sim.start()
    device, _ = acl.rt.malloc(64, 0)
    assert acl.rt.memcpy(device, 64, pointer, 64, H2D) == 107000
    assert acl.rt.memset(pointer, 64, 0, 64) == 107000
    with pytest.raises(ValueError):
        acl.util.ptr_to_bytes(0, 4)


def test_free_takes_only_what_was_allocated(sim):
    acl = sim.start()
    device, _ = acl.rt.malloc(64, 0)
    host, _ = acl.rt.malloc_host(64)
    assert acl.rt.free(device + 8) == 107000
    assert acl.rt.free(host) == 107000
    assert acl.rt.free_host(device) == 107000
    assert acl.rt.free(0) == 100000
    assert acl.rt.free(device) == 0
    assert acl.rt.free(device) == 107000
    assert acl.rt.free_host(host) == 0
    assert memory.MEMORY.live() == []


def test_the_device_has_a_size(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_MEMORY", str(1 << 20))
    acl = sim.start()
    free, total, ret = acl.rt.get_mem_info(0)
    assert (free, total, ret) == acl.rt.get_mem_info(1) == (1 << 20, 1 << 20, 0)
    # A request of 1 byte books 32, and 32 more
    first, _ = acl.rt.malloc(1, 0)
    assert acl.rt.get_mem_info(1)[0] == (1 << 20) - 64
    assert acl.rt.malloc((1 << 20) - 64, 0) == (0, 207001)
    assert acl.rt.malloc((1 << 20) - 96, 0)[1] == 0
    assert acl.rt.free(first) == 0
    assert acl.rt.get_mem_info(1)[0] == 64
    assert acl.rt.malloc(0, 0) == (0, 100000)
    assert acl.rt.malloc(64, 99) == (0, 100000)
    assert acl.rt.get_mem_info(6) == (0, 0, 100000)


def test_default_size_is_that_of_a_910(sim):
    acl = sim.start()
    assert acl.rt.get_mem_info(1)[1] == 32 << 30
    assert acl.rt.malloc((32 << 30) + 1, 0) == (0, 207001)


def test_wrong_copy_kind_is_recorded_and_refused_only_when_strict(sim, monkeypatch):
    acl = sim.start()
    data = np.zeros(16, np.float32)
    device, _ = acl.rt.malloc(64, 0)
    assert acl.rt.memcpy(device, 64, data.ctypes.data, 64, D2H) == 0
    assert any("host source" in finding for finding in SIM.findings)
    monkeypatch.setattr(SIM, "strict", True)
    assert acl.rt.memcpy(device, 64, data.ctypes.data, 64, D2H) == 107000
    assert acl.rt.memcpy(device, 64, data.ctypes.data, 64, H2D) == 0
    assert acl.rt.memcpy(device, 64, data.ctypes.data, 64, 9) == 107000


def test_util_refuses_wrong_objects(sim):
    util = sim.acl.util
    with pytest.raises(ValueError):
        util.bytes_to_ptr(bytearray(b"abc"))
    with pytest.raises(TypeError, match="acl.util.numpy_to_ptr args parse failed"):
        util.numpy_to_ptr([1, 2])
    with pytest.raises(ValueError):
        util.ptr_to_numpy(4096, (2,), 99)
    with pytest.raises(ValueError):
        util.ptr_to_numpy(4096, (-2,), 11)


def test_non_contiguous_array_is_warned_of(sim, caplog):
    array = np.zeros((4, 4), np.float32)
    assert sim.acl.util.numpy_to_ptr(array.T) == array.ctypes.data
    assert "not contiguous" in caplog.text


def test_data_buffers_and_datasets(sim):
    acl = sim.start()
    buffer = acl.create_data_buffer(4096, (5 << 30) + 7)
    assert acl.get_data_buffer_addr(buffer) == 4096
    assert acl.get_data_buffer_size(buffer) == (1 << 30) + 7
    assert acl.get_data_buffer_size_v2(buffer) == (5 << 30) + 7
    assert acl.update_data_buffer(buffer, 8192, 64) == 0
    assert acl.get_data_buffer_addr(buffer) == 8192
    assert acl.create_data_buffer(0, 64) == 0
    made = acl.mdl.create_dataset()
    assert acl.mdl.add_dataset_buffer(made, buffer) == (made, 0)
    assert acl.mdl.add_dataset_buffer(made, 123) == (0, 100000)
    assert acl.mdl.get_dataset_num_buffers(made) == 1
    assert acl.mdl.get_dataset_buffer(made, 0) == buffer
    assert acl.mdl.get_dataset_buffer(made, 1) == 0
    assert acl.mdl.destroy_dataset(made) == 0
    assert acl.mdl.destroy_dataset(made) == 100000
    assert acl.destroy_data_buffer(buffer) == 0
