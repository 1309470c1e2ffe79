# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Threads of one process on one device: some share the main thread's context and a model behind a lock, some bring
their own.
"""

import sys
import threading

import acl
import numpy as np

model_path, source, target = sys.argv[1:4]
feeds = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]
guard = threading.Lock()
found, failed = {}, []


def need(value):
    """The value of a call that returns (value, ret), or nothing of one that returns ret."""
    value, ret = value if isinstance(value, tuple) else (None, value)
    assert ret == 0, (ret, acl.get_recent_err_msg())
    return value


class Slots(object):
    """Device memory and datasets of one model, filled again for every run."""

    def __init__(self, model_id):
        self.model_id, self.desc = model_id, acl.mdl.create_desc()
        need(acl.mdl.get_desc(self.desc, model_id))
        self.inputs = self._make(acl.mdl.get_num_inputs(self.desc), acl.mdl.get_input_size_by_index)
        self.outputs = self._make(acl.mdl.get_num_outputs(self.desc), acl.mdl.get_output_size_by_index)

    def _make(self, count, size_of):
        dataset = acl.mdl.create_dataset()
        for i in range(count):
            size = size_of(self.desc, i)
            need(acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(need(acl.rt.malloc(size, 2)), size)))
        return dataset

    def run(self, stream=0):
        for i, feed in enumerate(feeds):
            buffer = acl.mdl.get_dataset_buffer(self.inputs, i)
            need(acl.rt.memcpy(acl.get_data_buffer_addr(buffer), feed.nbytes, feed.ctypes.data, feed.nbytes, 1))
        if stream:
            need(acl.mdl.execute_async(self.model_id, self.inputs, self.outputs, stream))
            need(acl.rt.synchronize_stream(stream))
        else:
            need(acl.mdl.execute(self.model_id, self.inputs, self.outputs))
        buffer = acl.mdl.get_dataset_buffer(self.outputs, 0)
        result = np.empty(need(acl.mdl.get_cur_output_dims(self.desc, 0))["dims"], np.float32)
        need(acl.rt.memcpy(result.ctypes.data, result.nbytes, acl.get_data_buffer_addr(buffer), result.nbytes, 2))
        return result

    def close(self):
        for dataset in (self.inputs, self.outputs):
            for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
                buffer = acl.mdl.get_dataset_buffer(dataset, i)
                need(acl.rt.free(acl.get_data_buffer_addr(buffer)))
                need(acl.destroy_data_buffer(buffer))
            need(acl.mdl.destroy_dataset(dataset))
        need(acl.mdl.destroy_desc(self.desc))
        need(acl.mdl.unload(self.model_id))


def borrow(name, context, slots):
    # A thread that has set neither device nor context has none.
    assert acl.rt.get_context()[1] != 0 and acl.rt.create_stream()[1] == 107002
    need(acl.rt.set_context(context))
    assert need(acl.rt.get_context()) == context and need(acl.rt.get_device()) == 0
    for _ in range(3):
        with guard:
            found[name] = slots.run()


def own(name):
    context = need(acl.rt.create_context(0))
    stream = need(acl.rt.create_stream())
    slots = Slots(need(acl.mdl.load_from_file(model_path)))
    for _ in range(3):
        found[name] = slots.run(stream)
    slots.close()
    need(acl.rt.destroy_stream(stream))
    need(acl.rt.destroy_context(context))


def guarded(function, *arguments):
    try:
        function(*arguments)
    except BaseException as exc:
        failed.append(exc)
        raise


need(acl.init())
need(acl.rt.set_device(0))
context = need(acl.rt.create_context(0))
shared = Slots(need(acl.mdl.load_from_file(model_path)))
threads = [threading.Thread(target=guarded, args=(borrow, "borrow %d" % i, context, shared)) for i in range(2)]
threads += [threading.Thread(target=guarded, args=(own, "own %d" % i)) for i in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
shared.close()
need(acl.rt.destroy_context(context))
need(acl.rt.reset_device(0))
need(acl.finalize())
assert not failed and len(found) == 4
assert all(np.array_equal(result, found["own 0"]) for result in found.values())
np.save(target + "/output_0.npy", found["borrow 1"])
