# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Inference in the style of the first samples for pyACL: a class per model, check_ret everywhere, bytes in and bytes
out.
"""

import sys

import acl
import numpy as np

ACL_SUCCESS = 0
ACL_MEM_MALLOC_NORMAL_ONLY = 2
ACL_MEMCPY_HOST_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST = 1, 2
NUMPY_TYPES = {0: np.float32, 1: np.float16, 3: np.int32}


def check_ret(message, ret):
    if ret != ACL_SUCCESS:
        raise Exception("{} failed ret={}".format(message, ret))


class Net(object):
    def __init__(self, device_id, model_path):
        self.device_id, self.model_path = device_id, model_path
        self.model_id = self.context = None
        self.input_data, self.output_data = [], []
        check_ret("acl.init", acl.init())
        check_ret("acl.rt.set_device", acl.rt.set_device(self.device_id))
        self.context, ret = acl.rt.create_context(self.device_id)
        check_ret("acl.rt.create_context", ret)
        self.model_id, ret = acl.mdl.load_from_file(self.model_path)
        check_ret("acl.mdl.load_from_file", ret)
        self.model_desc = acl.mdl.create_desc()
        check_ret("acl.mdl.get_desc", acl.mdl.get_desc(self.model_desc, self.model_id))
        self._buffers(acl.mdl.get_num_inputs(self.model_desc), acl.mdl.get_input_size_by_index, self.input_data)
        self._buffers(acl.mdl.get_num_outputs(self.model_desc), acl.mdl.get_output_size_by_index, self.output_data)
        print("init resource success")

    def _buffers(self, count, size_of, target):
        for index in range(count):
            size = size_of(self.model_desc, index)
            buffer, ret = acl.rt.malloc(size, ACL_MEM_MALLOC_NORMAL_ONLY)
            check_ret("acl.rt.malloc", ret)
            target.append({"buffer": buffer, "size": size})

    def _dataset(self, items):
        dataset = acl.mdl.create_dataset()
        for item in items:
            data = acl.create_data_buffer(item["buffer"], item["size"])
            _, ret = acl.mdl.add_dataset_buffer(dataset, data)
            if ret:
                acl.destroy_data_buffer(data)
                check_ret("acl.mdl.add_dataset_buffer", ret)
        return dataset

    @staticmethod
    def _drop(dataset):
        for index in range(acl.mdl.get_dataset_num_buffers(dataset)):
            check_ret("acl.destroy_data_buffer", acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, index)))
        check_ret("acl.mdl.destroy_dataset", acl.mdl.destroy_dataset(dataset))

    def run(self, images):
        for item, image in zip(self.input_data, images):
            data = image.tobytes()
            ret = acl.rt.memcpy(
                item["buffer"], item["size"], acl.util.bytes_to_ptr(data), len(data), ACL_MEMCPY_HOST_TO_DEVICE
            )
            check_ret("acl.rt.memcpy", ret)
        inputs, outputs = self._dataset(self.input_data), self._dataset(self.output_data)
        check_ret("acl.mdl.execute", acl.mdl.execute(self.model_id, inputs, outputs))
        results = []
        for index, item in enumerate(self.output_data):
            host, ret = acl.rt.malloc_host(item["size"])
            check_ret("acl.rt.malloc_host", ret)
            ret = acl.rt.memcpy(host, item["size"], item["buffer"], item["size"], ACL_MEMCPY_DEVICE_TO_HOST)
            check_ret("acl.rt.memcpy", ret)
            dims, ret = acl.mdl.get_cur_output_dims(self.model_desc, index)
            check_ret("acl.mdl.get_cur_output_dims", ret)
            dtype = NUMPY_TYPES[acl.mdl.get_output_data_type(self.model_desc, index)]
            raw = acl.util.ptr_to_bytes(host, item["size"])
            results.append(np.frombuffer(raw, dtype=dtype).reshape(tuple(dims["dims"])))
            check_ret("acl.rt.free_host", acl.rt.free_host(host))
        self._drop(inputs)
        self._drop(outputs)
        return results

    def release_resource(self):
        for item in self.input_data + self.output_data:
            check_ret("acl.rt.free", acl.rt.free(item["buffer"]))
        check_ret("acl.mdl.unload", acl.mdl.unload(self.model_id))
        check_ret("acl.mdl.destroy_desc", acl.mdl.destroy_desc(self.model_desc))
        check_ret("acl.rt.destroy_context", acl.rt.destroy_context(self.context))
        check_ret("acl.rt.reset_device", acl.rt.reset_device(self.device_id))
        check_ret("acl.finalize", acl.finalize())


if __name__ == "__main__":
    model, source, target = sys.argv[1:4]
    net = Net(0, model)
    outputs = net.run([np.load("{}/input_{}.npy".format(source, i)) for i in range(len(net.input_data))])
    net.release_resource()
    np.save(target + "/output_0.npy", outputs[0])
