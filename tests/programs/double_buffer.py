# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Copies and executions overlap: two sets of buffers, a stream for copying and one for executing, events between
them.
"""

import ctypes
import sys

import acl
import numpy as np

SETS, ITEMS = 2, 5
H2D, D2H = 1, 2


def call(function, *args):
    result = function(*args)
    ret = result[-1] if isinstance(result, tuple) else result
    if ret:
        raise RuntimeError("%s returned %d" % (function.__name__, ret))
    return result[0] if isinstance(result, tuple) else None


class Slot(object):
    """Host and device memory of one image in flight."""

    def __init__(self, desc):
        self.input_set, self.inputs = self.make(desc, "input")
        self.output_set, self.outputs = self.make(desc, "output")
        self.copied, self.executed, self.fetched = (call(acl.rt.create_event) for _ in range(3))

    @staticmethod
    def make(desc, end):
        dataset, entries = acl.mdl.create_dataset(), []
        for i in range(getattr(acl.mdl, "get_num_%ss" % end)(desc)):
            size = getattr(acl.mdl, "get_%s_size_by_index" % end)(desc, i)
            host, device = call(acl.rt.malloc_host, size), call(acl.rt.malloc, size, 0)
            call(acl.mdl.add_dataset_buffer, dataset, acl.create_data_buffer(device, size))
            entries.append((host, device, size))
        return dataset, entries

    def view(self, entry):
        host, _, size = entry
        return np.frombuffer((ctypes.c_char * size).from_address(host), np.float32)

    def release(self):
        for dataset, entries in ((self.input_set, self.inputs), (self.output_set, self.outputs)):
            for i, (host, device, _) in enumerate(entries):
                call(acl.destroy_data_buffer, acl.mdl.get_dataset_buffer(dataset, i))
                call(acl.rt.free_host, host)
                call(acl.rt.free, device)
            call(acl.mdl.destroy_dataset, dataset)
        for event in (self.copied, self.executed, self.fetched):
            call(acl.rt.destroy_event, event)


model_path, source, target = sys.argv[1:4]
feeds = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]
call(acl.init)
call(acl.rt.set_device, 0)
copying, executing = call(acl.rt.create_stream), call(acl.rt.create_stream)
model = call(acl.mdl.load_from_file, model_path)
desc = acl.mdl.create_desc()
call(acl.mdl.get_desc, desc, model)
shape = call(acl.mdl.get_output_dims, desc, 0)["dims"]
slots = [Slot(desc) for _ in range(SETS)]
results = []


def fetch(slot):
    call(acl.rt.synchronize_event, slot.fetched)
    results.append(slot.view(slot.outputs[0]).copy())


for number in range(ITEMS):
    slot = slots[number % SETS]
    if number >= SETS:
        fetch(slot)
    for entry, feed in zip(slot.inputs, feeds):
        slot.view(entry)[:] = feed.reshape(-1) + number
        call(acl.rt.memcpy_async, entry[1], entry[2], entry[0], entry[2], H2D, copying)
    call(acl.rt.record_event, slot.copied, copying)
    call(acl.rt.stream_wait_event, executing, slot.copied)
    call(acl.mdl.execute_async, model, slot.input_set, slot.output_set, executing)
    call(acl.rt.record_event, slot.executed, executing)
    call(acl.rt.stream_wait_event, copying, slot.executed)
    host, device, size = slot.outputs[0]
    call(acl.rt.memcpy_async, host, size, device, size, D2H, copying)
    call(acl.rt.record_event, slot.fetched, copying)
for number in range(ITEMS - SETS, ITEMS):
    fetch(slots[number % SETS])
call(acl.rt.synchronize_device)
for slot in slots:
    slot.release()
call(acl.mdl.destroy_desc, desc)
call(acl.mdl.unload, model)
call(acl.rt.destroy_stream, copying)
call(acl.rt.destroy_stream, executing)
call(acl.rt.reset_device, 0)
call(acl.finalize)
assert len(results) == ITEMS and not (results[0] == results[1]).all()
print("items:", len(results))
np.save(target + "/output_0.npy", results[0].reshape(shape))
