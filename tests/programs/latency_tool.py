# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A latency tool: loops, one line per run, averages with and without the first; copies timed by events on a stream."""

import argparse
import sys
import time

import acl
import numpy as np


def ok(ret, what):
    if ret != 0:
        print("[ERROR] %s failed, errorCode is %s, %s" % (what, ret, acl.get_recent_err_msg()), file=sys.stderr)
        sys.exit(1)


def timed_copy(stream, arguments, kind):
    """Milliseconds on the device's clock between two events around a copy."""
    start, ret = acl.rt.create_event()
    ok(ret, "create event")
    end, ret = acl.rt.create_event()
    ok(ret, "create event")
    ok(acl.rt.record_event(start, stream), "record event")
    ok(acl.rt.memcpy_async(*(arguments + (kind, stream))), "memcpy async")
    ok(acl.rt.record_event(end, stream), "record event")
    ok(acl.rt.synchronize_event(end), "synchronize event")
    elapsed, ret = acl.rt.event_elapsed_time(start, end)
    ok(ret, "elapsed time")
    ok(acl.rt.destroy_event(start), "destroy event")
    ok(acl.rt.destroy_event(end), "destroy event")
    return elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--loop", type=int, default=5)
    parser.add_argument("--device", type=int, default=0)
    options = parser.parse_args()
    ok(acl.init(None), "acl init")
    print("[INFO] acl init success")
    count, ret = acl.rt.get_device_count()
    ok(ret if 0 <= options.device < count else 107001, "device id")
    ok(acl.rt.set_device(options.device), "open device")
    stream, ret = acl.rt.create_stream()
    ok(ret, "create stream")
    mode, ret = acl.rt.get_run_mode()
    ok(ret, "get run mode")
    print("[INFO] run mode", "host" if mode == 1 else "device")
    for attribute in (0, 1):
        free, total, ret = acl.rt.get_mem_info(attribute)
        ok(ret, "memory info")
        assert free <= total
    work, weight, ret = acl.mdl.query_size(options.model)
    ok(ret, "query size")
    work_ptr, ret = acl.rt.malloc(max(work, 1), 0)
    ok(ret, "malloc work memory")
    weight_ptr, ret = acl.rt.malloc(max(weight, 1), 0)
    ok(ret, "malloc weight memory")
    model_id, ret = acl.mdl.load_from_file_with_mem(options.model, work_ptr, work, weight_ptr, weight)
    ok(ret, "load model")
    desc = acl.mdl.create_desc()
    ok(acl.mdl.get_desc(desc, model_id), "create description")
    inputs, outputs, held, sizes = acl.mdl.create_dataset(), acl.mdl.create_dataset(), [], []
    h2d = d2h = 0.0
    for i in range(acl.mdl.get_num_inputs(desc)):
        size = acl.mdl.get_input_size_by_index(desc, i)
        array = np.ascontiguousarray(np.load("%s/input_%d.npy" % (options.input, i)))
        if array.nbytes != size:
            ok(145000, "input %d: file size %d, model size %d" % (i, array.nbytes, size))
        pinned, ret = acl.rt.malloc_host(size)
        ok(ret, "malloc host")
        ok(acl.rt.memcpy(pinned, size, array.ctypes.data, size, 0), "fill pinned memory")
        device, ret = acl.rt.malloc(size, 0)
        ok(ret, "malloc device")
        h2d += timed_copy(stream, (device, size, pinned, size), 1)
        ok(acl.rt.free_host(pinned), "free host")
        _, ret = acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(device, size))
        ok(ret, "add input")
        held.append(device)
    for i in range(acl.mdl.get_num_outputs(desc)):
        sizes.append(acl.mdl.get_output_size_by_index(desc, i))
        device, ret = acl.rt.malloc(sizes[-1], 0)
        ok(ret, "malloc output")
        ok(acl.rt.memset_async(device, sizes[-1], 0, sizes[-1], stream), "memset async")
        _, ret = acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(device, sizes[-1]))
        ok(ret, "add output")
        held.append(device)
    ok(acl.rt.synchronize_stream(stream), "synchronize stream")
    times = []
    for _ in range(options.loop):
        start = time.time()
        ok(acl.mdl.execute(model_id, inputs, outputs), "execute")
        times.append((time.time() - start) * 1000)
        print("Inference time: %gms" % times[-1])
    for i, size in enumerate(sizes):
        dims, ret = acl.mdl.get_output_dims(desc, i)
        ok(ret, "output dims")
        pinned, ret = acl.rt.malloc_host(size)
        ok(ret, "malloc host")
        device = acl.get_data_buffer_addr(acl.mdl.get_dataset_buffer(outputs, i))
        assert acl.get_data_buffer_size_v2(acl.mdl.get_dataset_buffer(outputs, i)) == size
        d2h += timed_copy(stream, (pinned, size, device, size), 2)
        np.save("%s/output_%d.npy" % (options.output, i), acl.util.ptr_to_numpy(pinned, tuple(dims["dims"]), 11))
        ok(acl.rt.free_host(pinned), "free host")
    print("Inference average time : %.2f ms" % (sum(times) / len(times)))
    print("Inference average time without first time: %.2f ms" % (sum(times[1:]) / len(times[1:])))
    print("H2D: %.3f ms D2H: %.3f ms" % (h2d, d2h))
    for dataset in (inputs, outputs):
        for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
            ok(acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)), "destroy data buffer")
        ok(acl.mdl.destroy_dataset(dataset), "destroy dataset")
    ok(acl.mdl.unload(model_id), "unload")
    ok(acl.mdl.destroy_desc(desc), "destroy description")
    for device in held + [work_ptr, weight_ptr]:
        ok(acl.rt.free(device), "free")
    ok(acl.rt.destroy_stream(stream), "destroy stream")
    ok(acl.rt.reset_device(options.device), "reset device")
    ok(acl.finalize(), "finalize")


main()
