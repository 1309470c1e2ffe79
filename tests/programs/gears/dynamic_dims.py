# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Several inputs and outputs of changing shapes, queued on a stream; arrays by numpy_to_ptr."""

import sys

import acl
import numpy as np

MEMCPY_H2D, MEMCPY_D2H = 1, 2


def shaped_like(dims, arrays):
    """Whether a gear is the one of these arrays: it lists the sides of all inputs in one row."""
    return dims["dims"][: dims["dimCount"]] == [side for array in arrays for side in array.shape]


model_path, source, target = sys.argv[1:4]
assert acl.init() == 0 and acl.rt.set_device(0) == 0
stream, ret = acl.rt.create_stream()
assert ret == 0
model_id, ret = acl.mdl.load_from_file(model_path)
assert ret == 0
desc = acl.mdl.create_desc()
assert acl.mdl.get_desc(desc, model_id) == 0
count, ret = acl.mdl.get_input_dynamic_gear_count(desc, -1)
assert ret == 0 and count == 3
gears, ret = acl.mdl.get_input_dynamic_dims(desc, -1, count)
assert ret == 0 and len(gears) == count
index, ret = acl.mdl.get_input_index_by_name(desc, "ascend_mbatch_shape_data")
assert ret == 0


def buffers(number, size_of):
    dataset, addresses = acl.mdl.create_dataset(), []
    for i in range(number):
        size = size_of(desc, i)
        address, ret = acl.rt.malloc(size, 0)
        assert ret == 0
        addresses.append((address, size))
        _, ret = acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, size))
        assert ret == 0
    return dataset, addresses


# A pair of datasets per request in flight: the gear belongs to the inputs.
requests = []
for number in range(count):
    arrays = [np.load("%s/input_%d_%d.npy" % (source, number, i)) for i in range(index)]
    inputs, sources = buffers(acl.mdl.get_num_inputs(desc), acl.mdl.get_input_size_by_index)
    outputs, results = buffers(acl.mdl.get_num_outputs(desc), acl.mdl.get_output_size_by_index)
    for array, (address, size) in zip(arrays, sources):
        assert array.nbytes <= size
        assert acl.rt.memcpy(address, size, acl.util.numpy_to_ptr(array), array.nbytes, MEMCPY_H2D) == 0
    gear = [dims for dims in gears if shaped_like(dims, arrays)][0]
    assert acl.mdl.set_input_dynamic_dims(model_id, inputs, index, gear) == 0
    shapes = [acl.mdl.get_cur_output_dims(desc, i) for i in range(len(results))]
    assert all(ret == 0 for _, ret in shapes)
    assert acl.mdl.execute_async(model_id, inputs, outputs, stream) == 0
    requests.append((inputs, outputs, sources, results, [dims["dims"] for dims, _ in shapes]))
assert acl.rt.synchronize_stream(stream) == 0

for number, (inputs, outputs, sources, results, shapes) in enumerate(requests):
    for i, ((address, _), shape) in enumerate(zip(results, shapes)):
        array = np.zeros(shape, np.float32)
        assert acl.rt.memcpy(acl.util.numpy_to_ptr(array), array.nbytes, address, array.nbytes, MEMCPY_D2H) == 0
        np.save("%s/output_%d_%d.npy" % (target, number, i), array)
    print(number, shapes)
    for dataset in (inputs, outputs):
        for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
            assert acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)) == 0
        assert acl.mdl.destroy_dataset(dataset) == 0
    for address, _ in sources + results:
        assert acl.rt.free(address) == 0
assert acl.mdl.destroy_desc(desc) == 0 and acl.mdl.unload(model_id) == 0
assert acl.rt.destroy_stream(stream) == 0
assert acl.rt.reset_device(0) == 0 and acl.finalize() == 0
