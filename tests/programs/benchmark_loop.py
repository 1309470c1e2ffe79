# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A benchmark: warm-up, then events around each execution; device time, wall time and throughput as JSON."""

import json
import sys
import time

import acl
import numpy as np

WARM_UP, LOOPS = 2, 10

model_path, source, target = sys.argv[1:4]
for ret in (acl.init(), acl.rt.set_device(0)):
    assert ret == 0, ret
work_size, weight_size, ret = acl.mdl.query_size(model_path)
assert ret == 0
free_memory, total, ret = acl.rt.get_mem_info(1)
assert ret == 0 and work_size + weight_size < free_memory <= total
model_id, ret = acl.mdl.load_from_file(model_path)
assert ret == 0
stream, ret = acl.rt.create_stream()
desc = acl.mdl.create_desc()
acl.mdl.get_desc(desc, model_id)
datasets, addresses = [], []
for count, size_of in (
    (acl.mdl.get_num_inputs(desc), acl.mdl.get_input_size_by_index),
    (acl.mdl.get_num_outputs(desc), acl.mdl.get_output_size_by_index),
):
    datasets.append(acl.mdl.create_dataset())
    for i in range(count):
        size = size_of(desc, i)
        address, ret = acl.rt.malloc(size, 0)
        assert ret == 0
        addresses.append((address, size))
        acl.mdl.add_dataset_buffer(datasets[-1], acl.create_data_buffer(address, size))
for i in range(acl.mdl.get_num_inputs(desc)):
    array = np.load("%s/input_%d.npy" % (source, i))
    assert acl.rt.memcpy(addresses[i][0], addresses[i][1], array.ctypes.data, array.nbytes, 1) == 0

for _ in range(WARM_UP):
    assert acl.mdl.execute(model_id, datasets[0], datasets[1]) == 0
events = [(acl.rt.create_event()[0], acl.rt.create_event()[0]) for _ in range(LOOPS)]
started = time.time()
for begin, end in events:
    assert acl.rt.record_event(begin, stream) == 0
    assert acl.mdl.execute_async(model_id, datasets[0], datasets[1], stream) == 0
    assert acl.rt.record_event(end, stream) == 0
assert acl.rt.synchronize_stream(stream) == 0
wall = (time.time() - started) * 1000
times = []
for begin, end in events:
    milliseconds, ret = acl.rt.event_elapsed_time(begin, end)
    assert ret == 0
    times.append(milliseconds)
    assert acl.rt.destroy_event(begin) == 0 and acl.rt.destroy_event(end) == 0
print("NPU_compute_time (ms): min = %.3f, max = %.3f, mean = %.3f" % (min(times), max(times), sum(times) / LOOPS))
with open(target + "/times.json", "w") as out:
    json.dump({"times": times, "wall": wall}, out)

address, size = addresses[-1]
result = np.empty(acl.mdl.get_output_dims(desc, 0)[0]["dims"], np.float32)
assert acl.rt.memcpy(result.ctypes.data, result.nbytes, address, size, 2) == 0
np.save(target + "/output_0.npy", result)
for dataset in datasets:
    for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
        acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i))
    acl.mdl.destroy_dataset(dataset)
for address, _ in addresses:
    acl.rt.free(address)
acl.mdl.destroy_desc(desc)
acl.mdl.unload(model_id)
acl.rt.destroy_stream(stream)
acl.rt.reset_device(0)
acl.finalize()
