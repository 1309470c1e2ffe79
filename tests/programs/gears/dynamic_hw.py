# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Pictures of several sizes through a model with image gears; outputs that the system allocates."""

import sys

import acl
import numpy as np

MEMCPY_H2D, MEMCPY_D2H = 1, 2

model_path, source, target = sys.argv[1:4]
assert acl.init() == 0 and acl.rt.set_device(0) == 0
model_id, ret = acl.mdl.load_from_file(model_path)
assert ret == 0 and model_id
desc = acl.mdl.create_desc()
assert acl.mdl.get_desc(desc, model_id) == 0
sizes, ret = acl.mdl.get_dynamic_hw(desc, -1)
assert ret == 0 and sizes["hwCount"] == len(sizes["hw"]) == 3
batches, ret = acl.mdl.get_dynamic_batch(desc)
assert ret == 0 and batches["batchCount"] == 0
index, ret = acl.mdl.get_input_index_by_name(desc, "ascend_mbatch_shape_data")
assert ret == 0 and index == acl.mdl.get_num_inputs(desc) - 1
room = acl.mdl.get_input_size_by_index(desc, 0)
picture_memory, ret = acl.rt.malloc(room, 0)
assert ret == 0
picks = acl.mdl.get_input_size_by_index(desc, index)
pick_memory, ret = acl.rt.malloc(picks, 0)
assert ret == 0
inputs = acl.mdl.create_dataset()
for address, size in ((picture_memory, room), (pick_memory, picks)):
    _, ret = acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(address, size))
    assert ret == 0

for number, (height, width) in enumerate(sizes["hw"]):
    picture = np.load("%s/input_%d_0.npy" % (source, number))
    assert picture.shape[1:3] == (height, width)
    raw = picture.tobytes()
    assert acl.rt.memcpy(picture_memory, room, acl.util.bytes_to_ptr(raw), len(raw), MEMCPY_H2D) == 0
    assert acl.mdl.set_dynamic_hw_size(model_id, inputs, index, height, width) == 0
    outputs = acl.mdl.create_dataset()
    _, ret = acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(0, 0))
    assert ret == 0
    assert acl.mdl.execute(model_id, inputs, outputs) == 0
    described = acl.mdl.get_dataset_tensor_desc(outputs, 0)
    dims = []
    for axis in range(acl.get_tensor_desc_num_dims(described)):
        side, ret = acl.get_tensor_desc_dim_v2(described, axis)
        assert ret == 0
        dims.append(side)
    current, ret = acl.mdl.get_cur_output_dims(desc, 0)
    assert ret == 0 and current["dims"] == dims, (current, dims)
    buffer = acl.mdl.get_dataset_buffer(outputs, 0)
    address, size = acl.get_data_buffer_addr(buffer), acl.get_data_buffer_size(buffer)
    result = np.empty(dims, np.float32)
    assert acl.rt.memcpy(result.ctypes.data, result.nbytes, address, result.nbytes, MEMCPY_D2H) == 0
    print(height, width, "->", dims, size)
    np.save("%s/output_%d_0.npy" % (target, number), result)
    assert acl.rt.free(address) == 0
    assert acl.update_data_buffer(buffer, 0, 0) == 0
    assert acl.destroy_data_buffer(buffer) == 0 and acl.mdl.destroy_dataset(outputs) == 0

for i in range(acl.mdl.get_dataset_num_buffers(inputs)):
    assert acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(inputs, i)) == 0
assert acl.mdl.destroy_dataset(inputs) == 0
assert acl.rt.free(picture_memory) == 0 and acl.rt.free(pick_memory) == 0
assert acl.mdl.destroy_desc(desc) == 0 and acl.mdl.unload(model_id) == 0
assert acl.rt.reset_device(0) == 0 and acl.finalize() == 0
