# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Ctrl-C in the middle of asynchronous work: a handler, try/finally, and everything is given back in order."""

import os
import signal
import sys

import acl
import numpy as np

model_path, source, target = sys.argv[1:4]
feeds = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]
signal.signal(signal.SIGINT, signal.default_int_handler)
assert acl.init() == 0 and acl.rt.set_device(0) == 0
stream, ret = acl.rt.create_stream()
model_id, ret = acl.mdl.load_from_file(model_path)
desc = acl.mdl.create_desc()
assert acl.mdl.get_desc(desc, model_id) == 0
size = acl.mdl.get_output_size_by_index(desc, 0)
inputs, outputs, addresses = acl.mdl.create_dataset(), acl.mdl.create_dataset(), []
for dataset, sizes in ((inputs, [feed.nbytes for feed in feeds]), (outputs, [size])):
    for count in sizes:
        address, ret = acl.rt.malloc(count, 0)
        assert ret == 0
        addresses.append(address)
        acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, count))
host, ret = acl.rt.malloc_host(size)
done = 0
try:
    while True:
        for feed, address in zip(feeds, addresses):
            assert acl.rt.memcpy_async(address, feed.nbytes, feed.ctypes.data, feed.nbytes, 1, stream) == 0
        assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)
        assert acl.rt.memcpy_async(host, size, addresses[-1], size, 2, stream) == 0
        assert acl.rt.synchronize_stream(stream) == 0
        done += 1
except KeyboardInterrupt:
    print("interrupted after", done)
finally:
    codes = [acl.rt.synchronize_stream(stream)]
    result = np.frombuffer(acl.util.ptr_to_bytes(host, size), np.float32).reshape(
        acl.mdl.get_output_dims(desc, 0)[0]["dims"]
    )
    for dataset in (inputs, outputs):
        codes += [
            acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i))
            for i in range(acl.mdl.get_dataset_num_buffers(dataset))
        ]
        codes.append(acl.mdl.destroy_dataset(dataset))
    codes += [acl.rt.free(address) for address in addresses] + [acl.rt.free_host(host), acl.rt.destroy_stream(stream)]
    codes += [acl.mdl.destroy_desc(desc), acl.mdl.unload(model_id), acl.rt.reset_device(0), acl.finalize()]
assert done >= 2 and not any(codes), codes
np.save(target + "/output_0.npy", result)
