# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A classification sample's shape: copies in and out as dictionaries, the feature test for bytes_to_ptr, release in
__del__.
"""

import sys

import acl
import numpy as np

ACL_MEM_MALLOC_HUGE_FIRST = 0
ACL_MEMCPY_HOST_TO_DEVICE = 1
ACL_MEMCPY_DEVICE_TO_HOST = 2
NPY_UBYTE = 2
buffer_method = {"in": acl.mdl.get_input_size_by_index, "out": acl.mdl.get_output_size_by_index}


def check_ret(message, ret):
    if ret != 0:
        raise Exception("{} failed ret={}".format(message, ret))


class Net(object):
    def __init__(self, device_id, model_path):
        self.device_id = device_id
        self.model_path = model_path
        self.model_id = None
        self.context = None
        self.input_data = []
        self.output_data = []
        self.model_desc = None
        self.load_input_dataset = None
        self.load_output_dataset = None
        self.init_resource()

    def __del__(self):
        print("Releasing resources stage:")
        ret = acl.mdl.unload(self.model_id)
        check_ret("acl.mdl.unload", ret)
        if self.model_desc:
            acl.mdl.destroy_desc(self.model_desc)
            self.model_desc = None
        while self.input_data:
            item = self.input_data.pop()
            check_ret("acl.rt.free", acl.rt.free(item["buffer"]))
        while self.output_data:
            item = self.output_data.pop()
            check_ret("acl.rt.free", acl.rt.free(item["buffer"]))
        if self.context:
            check_ret("acl.rt.destroy_context", acl.rt.destroy_context(self.context))
            self.context = None
        check_ret("acl.rt.reset_device", acl.rt.reset_device(self.device_id))
        check_ret("acl.finalize", acl.finalize())
        print("Resources released successfully.")

    def init_resource(self):
        print("init resource stage:")
        check_ret("acl.init", acl.init())
        check_ret("acl.rt.set_device", acl.rt.set_device(self.device_id))
        self.context, ret = acl.rt.create_context(self.device_id)
        check_ret("acl.rt.create_context", ret)
        self.model_id, ret = acl.mdl.load_from_file(self.model_path)
        check_ret("acl.mdl.load_from_file", ret)
        print("model_id:{}".format(self.model_id))
        self.model_desc = acl.mdl.create_desc()
        self._get_model_info()
        print("init resource success")

    def _get_model_info(self):
        check_ret("acl.mdl.get_desc", acl.mdl.get_desc(self.model_desc, self.model_id))
        input_size = acl.mdl.get_num_inputs(self.model_desc)
        output_size = acl.mdl.get_num_outputs(self.model_desc)
        self._gen_data_buffer(input_size, des="in")
        self._gen_data_buffer(output_size, des="out")

    def _gen_data_buffer(self, size, des):
        func = buffer_method[des]
        for i in range(size):
            temp_buffer_size = func(self.model_desc, i)
            temp_buffer, ret = acl.rt.malloc(temp_buffer_size, ACL_MEM_MALLOC_HUGE_FIRST)
            check_ret("acl.rt.malloc", ret)
            (self.input_data if des == "in" else self.output_data).append(
                {"buffer": temp_buffer, "size": temp_buffer_size}
            )

    def _data_interaction(self, dataset, policy):
        temp_data_buffer = self.input_data if policy == ACL_MEMCPY_HOST_TO_DEVICE else self.output_data
        if len(dataset) == 0 and policy == ACL_MEMCPY_DEVICE_TO_HOST:
            for item in self.output_data:
                temp, ret = acl.rt.malloc_host(item["size"])
                if ret != 0:
                    raise Exception("can't malloc_host ret={}".format(ret))
                dataset.append({"size": item["size"], "buffer": temp})
        for i, item in enumerate(temp_data_buffer):
            if policy == ACL_MEMCPY_HOST_TO_DEVICE:
                if "bytes_to_ptr" in dir(acl.util):
                    bytes_data = dataset[i].tobytes()
                    ptr = acl.util.bytes_to_ptr(bytes_data)
                else:
                    ptr = acl.util.numpy_to_ptr(dataset[i])
                ret = acl.rt.memcpy(item["buffer"], item["size"], ptr, item["size"], policy)
            else:
                ret = acl.rt.memcpy(dataset[i]["buffer"], dataset[i]["size"], item["buffer"], item["size"], policy)
            check_ret("acl.rt.memcpy", ret)

    def _gen_dataset(self, type_str="input"):
        dataset = acl.mdl.create_dataset()
        if type_str == "in":
            self.load_input_dataset, items = dataset, self.input_data
        else:
            self.load_output_dataset, items = dataset, self.output_data
        for item in items:
            data = acl.create_data_buffer(item["buffer"], item["size"])
            _, ret = acl.mdl.add_dataset_buffer(dataset, data)
            if ret != 0:
                check_ret("acl.destroy_data_buffer", acl.destroy_data_buffer(data))

    def run(self, images):
        self._data_interaction(images, ACL_MEMCPY_HOST_TO_DEVICE)
        self._gen_dataset("in")
        self._gen_dataset("out")
        check_ret("acl.mdl.execute", acl.mdl.execute(self.model_id, self.load_input_dataset, self.load_output_dataset))
        self._destroy_databuffer()
        res = []
        self._data_interaction(res, ACL_MEMCPY_DEVICE_TO_HOST)
        result = self.get_result(res)
        for item in res:
            check_ret("acl.rt.free_host", acl.rt.free_host(item["buffer"]))
        return result

    def get_result(self, output_data):
        dataset = []
        for i, temp in enumerate(output_data):
            size = temp["size"]
            ptr = temp["buffer"]
            if "ptr_to_bytes" in dir(acl.util):
                data = np.frombuffer(bytearray(acl.util.ptr_to_bytes(ptr, size)), dtype=np.float32)
            else:
                data = acl.util.ptr_to_numpy(ptr, (size,), NPY_UBYTE).view(np.float32).copy()
            dims, ret = acl.mdl.get_output_dims(self.model_desc, i)
            check_ret("acl.mdl.get_output_dims", ret)
            dataset.append(data.reshape(dims["dims"]))
        return dataset

    def _destroy_databuffer(self):
        for dataset in [self.load_input_dataset, self.load_output_dataset]:
            if not dataset:
                continue
            num = acl.mdl.get_dataset_num_buffers(dataset)
            for i in range(num):
                data_buf = acl.mdl.get_dataset_buffer(dataset, i)
                if data_buf:
                    check_ret("acl.destroy_data_buffer", acl.destroy_data_buffer(data_buf))
            check_ret("acl.mdl.destroy_dataset", acl.mdl.destroy_dataset(dataset))


if __name__ == "__main__":
    om, source, target = sys.argv[1:4]
    net = Net(0, om)
    outputs = net.run([np.load("{}/input_{}.npy".format(source, i)) for i in range(2)])
    print("*****run finish******")
    np.save("{}/output_0.npy".format(target), outputs[0])
    del net
