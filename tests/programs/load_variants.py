# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""All ways to load a model: file, memory, each with memory of one's own, and by a configuration handle."""

import sys

import acl
import numpy as np

PATH_TYPE, MEMORY_TYPE = 1, 3
LOAD_TYPE, LOAD_PATH, LOAD_ADDRESS, LOAD_SIZE = 1, 2, 3, 4

model_path, source, target = sys.argv[1:4]
feeds = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]


def loaded(result):
    model_id, ret = result
    assert ret == 0 and model_id >= 1, (ret, acl.get_recent_err_msg())
    return model_id


def infer(model_id):
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, model_id) == 0
    inputs, outputs, used = acl.mdl.create_dataset(), acl.mdl.create_dataset(), []
    result = np.zeros(acl.mdl.get_output_dims(desc, 0)[0]["dims"], np.float32)
    for dataset, arrays in ((inputs, feeds), (outputs, [result])):
        for array in arrays:
            address, ret = acl.rt.malloc(array.nbytes, 0)
            assert ret == 0
            used.append((address, array.nbytes))
            assert acl.rt.memcpy(address, array.nbytes, array.ctypes.data, array.nbytes, 1) == 0
            assert acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, array.nbytes))[1] == 0
    assert acl.mdl.execute(model_id, inputs, outputs) == 0
    assert acl.rt.memcpy(result.ctypes.data, result.nbytes, used[-1][0], result.nbytes, 2) == 0
    for dataset in (inputs, outputs):
        for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
            acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i))
        acl.mdl.destroy_dataset(dataset)
    for address, _ in used:
        acl.rt.free(address)
    acl.mdl.destroy_desc(desc)
    assert acl.mdl.unload(model_id) == 0
    return result


assert acl.init() == 0 and acl.rt.set_device(0) == 0
results = [infer(loaded(acl.mdl.load_from_file(model_path)))]

with open(model_path, "rb") as handle:
    content = handle.read()
host, ret = acl.rt.malloc_host(len(content))
assert ret == 0
assert acl.rt.memcpy(host, len(content), acl.util.bytes_to_ptr(content), len(content), 0) == 0
results.append(infer(loaded(acl.mdl.load_from_mem(host, len(content)))))

work_size, weight_size, ret = acl.mdl.query_size_from_mem(host, len(content))
assert ret == 0 and (work_size, weight_size, 0) == acl.mdl.query_size(model_path)
work, weight = acl.rt.malloc(work_size, 0)[0], acl.rt.malloc(weight_size, 0)[0]
results.append(infer(loaded(acl.mdl.load_from_file_with_mem(model_path, work, work_size, weight, weight_size))))
results.append(infer(loaded(acl.mdl.load_from_mem_with_mem(host, len(content), work, work_size, weight, weight_size))))

for options in (
    {LOAD_TYPE: PATH_TYPE, LOAD_PATH: model_path},
    {LOAD_TYPE: MEMORY_TYPE, LOAD_ADDRESS: host, LOAD_SIZE: len(content)},
):
    config = acl.mdl.create_config_handle()
    for option, value in options.items():
        assert acl.mdl.set_config_opt(config, option, value) == 0
    results.append(infer(loaded(acl.mdl.load_with_config(config))))
    assert acl.mdl.destroy_config_handle(config) == 0

assert acl.rt.free(work) == acl.rt.free(weight) == acl.rt.free_host(host) == 0
assert acl.rt.reset_device(0) == 0 and acl.finalize() == 0
assert all((result == results[0]).all() for result in results)
print("ways:", len(results))
np.save(target + "/output_0.npy", results[-1])
