# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Outputs of unknown size: empty data buffers, which the system fills; the shape comes from the dataset's tensor
description.
"""

import sys

import acl
import numpy as np

model_path, source, target = sys.argv[1:4]
assert acl.init() == 0
assert acl.rt.set_device(0) == 0
model_id, ret = acl.mdl.load_from_file(model_path)
assert ret == 0
desc = acl.mdl.create_desc()
assert acl.mdl.get_desc(desc, model_id) == 0

inputs, memory = acl.mdl.create_dataset(), []
for i in range(acl.mdl.get_num_inputs(desc)):
    array = np.load("%s/input_%d.npy" % (source, i))
    address, ret = acl.rt.malloc(array.nbytes, 0)
    assert ret == 0
    memory.append(address)
    data = array.tobytes()
    assert acl.rt.memcpy(address, array.nbytes, acl.util.bytes_to_ptr(data), len(data), 1) == 0
    assert acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(address, array.nbytes))[1] == 0
    shape = acl.create_tensor_desc(0, list(array.shape), 2)
    assert acl.mdl.set_dataset_tensor_desc(inputs, shape, i) == (inputs, 0)
    acl.destroy_tensor_desc(shape)

outputs = acl.mdl.create_dataset()
for _ in range(acl.mdl.get_num_outputs(desc)):
    assert acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(0, 0))[1] == 0

for _ in range(2):
    assert acl.mdl.execute(model_id, inputs, outputs) == 0
    buffer = acl.mdl.get_dataset_buffer(outputs, 0)
    address, size = acl.get_data_buffer_addr(buffer), acl.get_data_buffer_size_v2(buffer)
    described = acl.mdl.get_dataset_tensor_desc(outputs, 0)
    dims = []
    for i in range(acl.get_tensor_desc_num_dims(described)):
        side, ret = acl.get_tensor_desc_dim_v2(described, i)
        assert ret == 0
        dims.append(side)
    host = bytes(size)
    assert acl.rt.memcpy(acl.util.bytes_to_ptr(host), size, address, size, 2) == 0
    result = np.frombuffer(host, np.float32).reshape(dims)
    assert acl.rt.free(address) == 0
    assert acl.update_data_buffer(buffer, 0, 0) == 0
np.save(target + "/output_0.npy", result)

for dataset in (inputs, outputs):
    for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
        assert acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)) == 0
    assert acl.mdl.destroy_dataset(dataset) == 0
for address in memory:
    assert acl.rt.free(address) == 0
assert acl.mdl.destroy_desc(desc) == 0
assert acl.mdl.unload(model_id) == 0
assert acl.rt.reset_device(0) == 0
assert acl.finalize() == 0
