# SPDX-License-Identifier: Apache-2.0
"""Streams are asynchronous and in order; events, callbacks, threads."""

from __future__ import annotations

import threading
import time

import numpy as np

from tests.support.sim_device import COUNT, dataset, io_spans
from vxm_convert.sim.acl.memory.blocks import MEMORY

H2D, D2H = 1, 2


def gated_execution(sim, acl):
    """An execution on a stream that waits for the returned gate."""
    gate = sim.program.gate = threading.Event()
    stream, _ = acl.rt.create_stream()
    inputs, outputs = io_spans(acl)
    model_id = sim.load_model()
    assert acl.mdl.execute_async(model_id, dataset(acl, inputs), dataset(acl, outputs), stream) == 0
    return gate, stream, inputs, outputs


def test_execute_async_returns_before_the_work_is_done(sim):
    acl = sim.start()
    gate, stream, _, _ = gated_execution(sim, acl)
    assert acl.rt.stream_query(stream) == (1, 0)
    assert acl.rt.synchronize_stream_with_timeout(stream, 20) == 507046
    gate.set()
    assert acl.rt.synchronize_stream(stream) == 0
    assert acl.rt.stream_query(stream) == (0, 0)


def test_a_stream_keeps_the_order_of_copies_and_executions(sim):
    acl = sim.start()
    gate = sim.program.gate = threading.Event()
    stream, _ = acl.rt.create_stream()
    inputs, outputs = io_spans(acl)
    host, _ = acl.rt.malloc_host(COUNT * 4)
    result, _ = acl.rt.malloc_host(COUNT * 4)
    moving = acl.util.ptr_to_numpy(host, (COUNT,), 11)
    moved = acl.util.ptr_to_numpy(result, (COUNT,), 11)
    moving[:] = np.arange(COUNT)
    moved[:] = -1
    assert acl.rt.memset(inputs[0][0], COUNT * 4, 0, COUNT * 4) == 0
    model_id, ret = sim.load_model(), 0
    ret |= acl.rt.memcpy_async(inputs[1][0], COUNT * 4, host, COUNT * 4, H2D, stream)
    ret |= acl.mdl.execute_async(model_id, dataset(acl, inputs), dataset(acl, outputs), stream)
    ret |= acl.rt.memcpy_async(result, COUNT * 4, outputs[1][0], COUNT * 4, D2H, stream)
    ret |= acl.rt.memset_async(inputs[1][0], COUNT * 4, 0, COUNT * 4, stream)
    assert ret == 0
    assert (moved == -1).all()
    gate.set()
    assert acl.rt.synchronize_stream(stream) == 0
    np.testing.assert_array_equal(moved, np.arange(COUNT))


def test_copy_from_pageable_memory_waits(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    device, _ = acl.rt.malloc(64, 0)
    data = np.arange(16, dtype=np.float32)
    assert acl.rt.memcpy_async(device, 64, data.ctypes.data, 64, H2D, stream) == 0
    assert acl.rt.stream_query(stream) == (0, 0)
    assert acl.util.ptr_to_bytes(device, 64) == data.tobytes()
    assert acl.rt.memcpy_async(device, 64, device, 64, 0, stream) == 207000


def test_a_failed_task_is_reported_once_by_synchronize(sim):
    acl = sim.start()

    def fail():
        raise ValueError("core on fire")

    sim.program.fault = fail
    gate, stream, _, _ = gated_execution(sim, acl)
    gate.set()
    assert acl.rt.synchronize_stream(stream) == 507011
    assert "core on fire" in acl.get_recent_err_msg()
    assert acl.rt.synchronize_stream(stream) == 0


def test_events_measure_and_order_streams(sim):
    acl = sim.start()
    sim.program.seconds = 0.05
    start, end = acl.rt.create_event()[0], acl.rt.create_event()[0]
    assert acl.rt.event_elapsed_time(start, end) == (0.0, 107000)
    gate = sim.program.gate = threading.Event()
    stream, other = acl.rt.create_stream()[0], acl.rt.create_stream()[0]
    inputs, outputs = io_spans(acl)
    assert acl.rt.record_event(start, stream) == 0
    assert acl.mdl.execute_async(sim.load_model(), dataset(acl, inputs), dataset(acl, outputs), stream) == 0
    assert acl.rt.record_event(end, stream) == 0
    assert acl.rt.query_event(end) == (1, 0)
    assert acl.rt.stream_wait_event(other, end) == 0
    assert acl.rt.stream_query(other) == (1, 0)
    gate.set()
    assert acl.rt.synchronize_event(end) == 0
    assert acl.rt.synchronize_stream(other) == 0
    milliseconds, ret = acl.rt.event_elapsed_time(start, end)
    assert ret == 0 and 50 <= milliseconds < 5000
    assert acl.rt.destroy_event(start) == 0


def test_callback_pipeline(sim):
    """A report thread takes callbacks in order while the stream goes on, as asynchronous samples do."""
    acl = sim.start()
    context, _ = acl.rt.get_context()
    done, order, stop = threading.Event(), [], threading.Event()

    def report(arguments):
        assert acl.rt.set_context(arguments[0]) == 0
        while not stop.is_set():
            acl.rt.process_report(arguments[1])

    thread_id, ret = acl.util.start_thread(report, [context, 20])
    assert ret == 0
    stream, _ = acl.rt.create_stream()
    assert acl.rt.launch_callback(order.append, 0, 0, stream) == 100034
    assert acl.rt.subscribe_report(thread_id, stream) == 0
    assert acl.rt.subscribe_report(thread_id, stream) == 100033
    inputs, outputs = io_spans(acl)
    model_id, sets = sim.load_model(), (dataset(acl, inputs), dataset(acl, outputs))
    for number in range(3):
        assert acl.mdl.execute_async(model_id, sets[0], sets[1], stream) == 0
        assert acl.rt.launch_callback(order.append, number, number % 2, stream) == 0
    assert acl.rt.launch_callback(lambda _: done.set(), None, 1, stream) == 0
    assert acl.rt.synchronize_stream(stream) == 0
    assert done.is_set() and order == [0, 1, 2]
    assert acl.rt.unsubscribe_report(thread_id, stream) == 0
    assert acl.rt.unsubscribe_report(thread_id, stream) == 100034
    stop.set()
    assert acl.util.stop_thread(thread_id) == 0
    assert acl.util.stop_thread(thread_id) == 100000
    assert acl.rt.process_report(1) == 107012


def test_callback_timeout_and_failing_callback(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    me = threading.get_ident()
    started = time.perf_counter()
    assert acl.rt.process_report(5000) == 107012 and time.perf_counter() - started < 1, "at once"
    assert acl.rt.subscribe_report(me, stream) == 0
    assert acl.rt.process_report(0) == 107000
    assert acl.rt.process_report(5) == 507012
    assert acl.rt.launch_callback(lambda _: 1 / 0, None, 1, stream) == 0
    assert acl.rt.process_report(1000) == 0
    assert acl.rt.synchronize_stream(stream) == 0
    assert acl.rt.unsubscribe_report(me, stream) == 0


def test_one_report_call_runs_every_callback_that_is_there(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    assert acl.rt.subscribe_report(threading.get_ident(), stream) == 0
    ran = []
    for number in range(3):
        assert acl.rt.launch_callback(ran.append, number, 0, stream) == 0
    assert acl.rt.synchronize_stream(stream) == 0 and ran == [], "its own thread is not waited for"
    assert acl.rt.process_report(1000) == 0 and ran == [0, 1, 2]


def test_a_callback_reads_buffers_that_are_freed_after_synchronize(sim):
    """On a device the thread has run by then; public programs rely on it. 50 of 50 times."""
    acl = sim.start()
    context, _ = acl.rt.get_context()
    stop, seen = threading.Event(), []

    def report():
        acl.rt.set_context(context)
        while not stop.is_set():
            acl.rt.process_report(100)

    def read(address):
        time.sleep(0.002)
        seen.append(bytes(acl.util.ptr_to_bytes(address, 64)) if MEMORY.find(address) else None)

    thread_id, _ = acl.util.start_thread(report, None)
    stream, _ = acl.rt.create_stream()
    assert acl.rt.subscribe_report(thread_id, stream) == 0
    for number in range(50):
        address, _ = acl.rt.malloc(64, 0)
        acl.rt.memset_async(address, 64, number, 64, stream)
        assert acl.rt.launch_callback(read, address, 0, stream) == 0
        assert acl.rt.synchronize_stream(stream) == 0
        acl.rt.free(address)
    stop.set()
    assert acl.rt.unsubscribe_report(thread_id, stream) == 0 and acl.util.stop_thread(thread_id) == 0
    assert seen == [bytes([number]) * 64 for number in range(50)]


def test_synchronize_does_not_wait_for_a_thread_that_never_comes(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    assert acl.rt.subscribe_report(12345, stream) == 0
    assert acl.rt.launch_callback(print, None, 0, stream) == 0
    started = time.perf_counter()
    assert acl.rt.synchronize_stream(stream) == 0 and time.perf_counter() - started < 1.5


def test_destroying_a_stream_that_a_callback_holds_does_not_hang(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    assert acl.rt.subscribe_report(threading.get_ident(), stream) == 0
    assert acl.rt.launch_callback(print, None, 1, stream) == 0
    started = time.perf_counter()
    assert acl.rt.destroy_stream(stream) == 0
    assert time.perf_counter() - started < 5


def test_two_threads_with_contexts_of_their_own(sim):
    acl = sim.start()
    results = {}

    def work(number):
        context, ret = acl.rt.create_context(0)
        stream, ret2 = acl.rt.create_stream()
        model_id = sim.load_model()
        inputs, outputs = io_spans(acl)
        host = np.full(COUNT, number, np.float32)
        for address, size in inputs:
            ret |= acl.rt.memcpy(address, size, host.ctypes.data, size, H2D)
        sets = dataset(acl, inputs), dataset(acl, outputs)
        for _ in range(5):
            ret |= acl.mdl.execute_async(model_id, sets[0], sets[1], stream)
        ret |= acl.rt.synchronize_stream(stream)
        ret |= acl.rt.memcpy(host.ctypes.data, host.nbytes, outputs[1][0], host.nbytes, D2H)
        ret |= acl.mdl.unload(model_id) | acl.rt.destroy_stream(stream) | acl.rt.destroy_context(context)
        results[number] = (ret | ret2, float(host.min()), float(host.max()))

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {1: (0, 3.0, 3.0), 2: (0, 6.0, 6.0)}
