# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Arrays by numpy_to_ptr and ptr_to_numpy where bytes_to_ptr is missing or unwanted; the feature test of official
samples.
"""

import sys

import acl
import numpy as np

NPY_FLOAT32 = 11
MEMCPY_H2D, MEMCPY_D2H, MEMCPY_H2H = 1, 2, 0

model_path, source, target = sys.argv[1:4]
print("bytes_to_ptr offered:", "bytes_to_ptr" in dir(acl.util))
assert acl.init() == 0 and acl.rt.set_device(0) == 0
stream, ret = acl.rt.create_stream()
assert ret == 0
model_id, ret = acl.mdl.load_from_file(model_path)
assert ret == 0 and model_id
desc = acl.mdl.create_desc()
assert acl.mdl.get_desc(desc, model_id) == 0

inputs, outputs, device_memory = acl.mdl.create_dataset(), acl.mdl.create_dataset(), []
for i in range(acl.mdl.get_num_inputs(desc)):
    array = np.load("%s/input_%d.npy" % (source, i))
    if not array.flags["C_CONTIGUOUS"]:
        array = np.ascontiguousarray(array)
    size = array.size * array.itemsize
    assert size == acl.mdl.get_input_size_by_index(desc, i)
    address, ret = acl.rt.malloc(size, 0)
    assert ret == 0
    device_memory.append(address)
    assert acl.rt.memcpy(address, size, acl.util.numpy_to_ptr(array), size, MEMCPY_H2D) == 0
    _, ret = acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(address, size))
    assert ret == 0
for i in range(acl.mdl.get_num_outputs(desc)):
    size = acl.mdl.get_output_size_by_index(desc, i)
    address, ret = acl.rt.malloc(size, 0)
    assert ret == 0
    device_memory.append(address)
    _, ret = acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(address, size))
    assert ret == 0

assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
assert acl.rt.synchronize_stream(stream) == 0

dims, ret = acl.mdl.get_output_dims(desc, 0)
assert ret == 0
buffer = acl.mdl.get_dataset_buffer(outputs, 0)
size = acl.get_data_buffer_size(buffer)
host, ret = acl.rt.malloc_host(size)
assert ret == 0
assert acl.rt.memcpy(host, size, acl.get_data_buffer_addr(buffer), size, MEMCPY_D2H) == 0
view = acl.util.ptr_to_numpy(host, tuple(dims["dims"]), NPY_FLOAT32)
pointer, contiguous = acl.util.numpy_contiguous_to_ptr(np.zeros(view.shape, np.float32))
assert acl.rt.memcpy(pointer, size, host, size, MEMCPY_H2H) == 0
np.save(target + "/output_0.npy", contiguous)
del view
assert acl.rt.free_host(host) == 0

for dataset in (inputs, outputs):
    for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
        assert acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)) == 0
    assert acl.mdl.destroy_dataset(dataset) == 0
for address in device_memory:
    assert acl.rt.free(address) == 0
assert acl.mdl.destroy_desc(desc) == 0
assert acl.mdl.unload(model_id) == 0
assert acl.rt.destroy_stream(stream) == 0
assert acl.rt.reset_device(0) == 0
assert acl.finalize() == 0
