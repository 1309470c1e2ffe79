# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A classification sample over a model with batch gears: any number of pictures, padded to the next gear (bytes_to_ptr
idiom).
"""

import sys

import acl
import numpy as np

ACL_MEM_MALLOC_HUGE_FIRST = 0
ACL_MEMCPY_HOST_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST = 1, 2
DYNAMIC_NAME = "ascend_mbatch_shape_data"


def check(ret, what):
    if ret != 0:
        raise Exception("%s failed ret=%d" % (what, ret))


class Classifier(object):
    def __init__(self, model_path, device_id=0):
        self.device_id = device_id
        check(acl.init(), "acl.init")
        check(acl.rt.set_device(device_id), "acl.rt.set_device")
        self.context, ret = acl.rt.create_context(device_id)
        check(ret, "acl.rt.create_context")
        self.model_id, ret = acl.mdl.load_from_file(model_path)
        check(ret, "acl.mdl.load_from_file")
        self.desc = acl.mdl.create_desc()
        check(acl.mdl.get_desc(self.desc, self.model_id), "acl.mdl.get_desc")
        batches, ret = acl.mdl.get_dynamic_batch(self.desc)
        check(ret, "acl.mdl.get_dynamic_batch")
        self.gears = sorted(batches["batch"])
        print("gears: %d %s" % (batches["batchCount"], self.gears))
        self.dynamic_index, ret = acl.mdl.get_input_index_by_name(self.desc, DYNAMIC_NAME)
        check(ret, "acl.mdl.get_input_index_by_name")
        # Buffers for the largest gear, once for all requests
        self.inputs = self._dataset(acl.mdl.get_num_inputs(self.desc), acl.mdl.get_input_size_by_index)
        self.outputs = self._dataset(acl.mdl.get_num_outputs(self.desc), acl.mdl.get_output_size_by_index)

    def _dataset(self, count, size_of):
        dataset = acl.mdl.create_dataset()
        for i in range(count):
            size = size_of(self.desc, i)
            address, ret = acl.rt.malloc(size, ACL_MEM_MALLOC_HUGE_FIRST)
            check(ret, "acl.rt.malloc")
            _, ret = acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, size))
            check(ret, "acl.mdl.add_dataset_buffer")
        return dataset

    def run(self, pictures):
        gear = min(batch for batch in self.gears if batch >= len(pictures))
        padding = np.zeros((gear - len(pictures),) + pictures.shape[1:], pictures.dtype)
        content = np.concatenate([pictures, padding]).tobytes()
        dims, ret = acl.mdl.get_input_dims(self.desc, 0)
        check(ret, "acl.mdl.get_input_dims")
        assert dims["dims"] == [-1] + list(pictures.shape[1:]), dims
        buffer = acl.mdl.get_dataset_buffer(self.inputs, 0)
        address, room = acl.get_data_buffer_addr(buffer), acl.get_data_buffer_size(buffer)
        pointer = acl.util.bytes_to_ptr(content)
        check(acl.rt.memcpy(address, room, pointer, len(content), ACL_MEMCPY_HOST_TO_DEVICE), "acl.rt.memcpy")
        check(
            acl.mdl.set_dynamic_batch_size(self.model_id, self.inputs, self.dynamic_index, gear),
            "acl.mdl.set_dynamic_batch_size",
        )
        check(acl.mdl.execute(self.model_id, self.inputs, self.outputs), "acl.mdl.execute")
        dims, ret = acl.mdl.get_cur_output_dims(self.desc, 0)
        check(ret, "acl.mdl.get_cur_output_dims")
        buffer = acl.mdl.get_dataset_buffer(self.outputs, 0)
        count = int(np.prod(dims["dims"])) * 4
        host, ret = acl.rt.malloc_host(count)
        check(ret, "acl.rt.malloc_host")
        check(
            acl.rt.memcpy(host, count, acl.get_data_buffer_addr(buffer), count, ACL_MEMCPY_DEVICE_TO_HOST),
            "acl.rt.memcpy",
        )
        result = np.frombuffer(acl.util.ptr_to_bytes(host, count), np.float32).reshape(dims["dims"])
        check(acl.rt.free_host(host), "acl.rt.free_host")
        print("%d pictures in gear %d: %s" % (len(pictures), gear, dims["dims"]))
        return result[: len(pictures)]

    def close(self):
        for dataset in (self.inputs, self.outputs):
            for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
                buffer = acl.mdl.get_dataset_buffer(dataset, i)
                check(acl.rt.free(acl.get_data_buffer_addr(buffer)), "acl.rt.free")
                check(acl.destroy_data_buffer(buffer), "acl.destroy_data_buffer")
            check(acl.mdl.destroy_dataset(dataset), "acl.mdl.destroy_dataset")
        check(acl.mdl.destroy_desc(self.desc), "acl.mdl.destroy_desc")
        check(acl.mdl.unload(self.model_id), "acl.mdl.unload")
        check(acl.rt.destroy_context(self.context), "acl.rt.destroy_context")
        check(acl.rt.reset_device(self.device_id), "acl.rt.reset_device")
        check(acl.finalize(), "acl.finalize")


if __name__ == "__main__":
    model_path, source, target = sys.argv[1:4]
    classifier = Classifier(model_path)
    for count in (1, 3, 8):
        pictures = np.load("%s/input_%d_0.npy" % (source, count))
        np.save("%s/output_%d_0.npy" % (target, count), classifier.run(pictures))
    classifier.close()
