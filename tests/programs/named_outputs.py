# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Inference as wrappers write it that hand results out by name: a dictionary from the model's own keys to arrays."""

import sys

import acl
import numpy as np

DTYPES = {0: np.float32, 1: np.float16, 3: np.int32, 9: np.int64}


def check(ret, what):
    if ret != 0:
        raise RuntimeError("%s: error %d" % (what, ret))


class Net(object):
    def __init__(self, path):
        check(acl.init(), "init")
        check(acl.rt.set_device(0), "set_device")
        self.model, ret = acl.mdl.load_from_file(path)
        check(ret, "load")
        self.desc = acl.mdl.create_desc()
        check(acl.mdl.get_desc(self.desc, self.model), "get_desc")
        self.keys = [acl.mdl.get_output_name_by_index(self.desc, i) for i in range(acl.mdl.get_num_outputs(self.desc))]

    def _dataset(self, sizes):
        dataset = acl.mdl.create_dataset()
        for size in sizes:
            address, ret = acl.rt.malloc(size, 2)
            check(ret, "malloc")
            _, ret = acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, size))
            check(ret, "add_dataset_buffer")
        return dataset

    @staticmethod
    def _block(dataset, i):
        buffer = acl.mdl.get_dataset_buffer(dataset, i)
        return acl.get_data_buffer_addr(buffer), acl.get_data_buffer_size(buffer)

    def __call__(self, arrays):
        fed = self._dataset([acl.mdl.get_input_size_by_index(self.desc, i) for i in range(len(arrays))])
        made = self._dataset([acl.mdl.get_output_size_by_index(self.desc, i) for i in range(len(self.keys))])
        for i, array in enumerate(arrays):
            assert DTYPES[acl.mdl.get_input_data_type(self.desc, i)] == array.dtype
            data = array.tobytes()
            address, size = self._block(fed, i)
            check(acl.rt.memcpy(address, size, acl.util.bytes_to_ptr(data), len(data), 1), "memcpy")
        check(acl.mdl.execute(self.model, fed, made), "execute")
        results = {}
        for key in self.keys:
            i, ret = acl.mdl.get_output_index_by_name(self.desc, key)
            check(ret, "get_output_index_by_name " + key)
            address, size = self._block(made, i)
            host = bytes(size)
            check(acl.rt.memcpy(acl.util.bytes_to_ptr(host), size, address, size, 2), "memcpy")
            dims, ret = acl.mdl.get_output_dims(self.desc, i)
            check(ret, "get_output_dims")
            results[key] = np.frombuffer(host, DTYPES[acl.mdl.get_output_data_type(self.desc, i)]).reshape(dims["dims"])
        for dataset in (fed, made):
            for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
                check(acl.rt.free(self._block(dataset, i)[0]), "free")
                check(acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)), "destroy_data_buffer")
            check(acl.mdl.destroy_dataset(dataset), "destroy_dataset")
        return results

    def close(self):
        check(acl.mdl.unload(self.model), "unload")
        check(acl.mdl.destroy_desc(self.desc), "destroy_desc")
        check(acl.rt.reset_device(0), "reset_device")
        check(acl.finalize(), "finalize")


net = Net(sys.argv[1])
count = acl.mdl.get_num_inputs(net.desc)
results = net([np.load("%s/input_%d.npy" % (sys.argv[2], i)) for i in range(count)])
net.close()
print("keys:", " ".join(net.keys))
for i, key in enumerate(net.keys):
    np.save("%s/output_%d.npy" % (sys.argv[3], i), results[key])
