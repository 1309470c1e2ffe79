# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A small wrapper library as many projects have one: resources registered at a central place, log by app_log, context
managers.
"""

import atexit
import sys

import acl
import numpy as np

ACL_HOST = 1
LOG_ERROR, LOG_INFO = 3, 1
DTYPES = {0: np.float32, 1: np.float16, 2: np.int8, 3: np.int32, 4: np.uint8, 9: np.int64}
FAILED, SUCCESS = 1, 0


def log_info(*texts):
    acl.app_log(LOG_INFO, " ".join(str(text) for text in texts))


class ResourceList(object):
    _instance = None

    def __new__(cls):
        if cls._instance is None:
            cls._instance = super(ResourceList, cls).__new__(cls)
            cls._instance.resources = []
        return cls._instance

    def destroy(self):
        while self.resources:
            self.resources.pop().destroy()


class Resource(object):
    """The device; everything else registers with it and goes first."""

    def __init__(self, device_id=0):
        self.device_id, self.context, self.stream, self.run_mode = device_id, None, None, None

    def __enter__(self):
        for ret in (acl.init(), acl.rt.set_device(self.device_id)):
            assert ret == SUCCESS, acl.get_recent_err_msg()
        self.context, ret = acl.rt.create_context(self.device_id)
        assert ret == SUCCESS
        self.stream, ret = acl.rt.create_stream()
        assert ret == SUCCESS
        self.run_mode, ret = acl.rt.get_run_mode()
        assert ret == SUCCESS and self.run_mode == ACL_HOST
        log_info("device", self.device_id, "is open, API", acl.get_version(), "chip", acl.get_soc_name())
        return self

    def __exit__(self, *_):
        ResourceList().destroy()
        acl.rt.destroy_stream(self.stream)
        acl.rt.destroy_context(self.context)
        acl.rt.reset_device(self.device_id)
        acl.finalize()
        log_info("released")


class Model(object):
    def __init__(self, path):
        self.model_id, ret = acl.mdl.load_from_file(path)
        if ret != SUCCESS:
            raise IOError("cannot load {}: {}".format(path, acl.get_recent_err_msg()))
        self.desc = acl.mdl.create_desc()
        acl.mdl.get_desc(self.desc, self.model_id)
        self.outputs, self.output_set = [], acl.mdl.create_dataset()
        self.inputs, self.input_set = {}, None
        # A model without dynamic gears answers with a code, not with an exception
        _, ret = acl.mdl.get_input_index_by_name(self.desc, "ascend_mbatch_shape_data")
        self.is_dynamic = ret == SUCCESS
        ResourceList().resources.append(self)

    def _prepare_outputs(self):
        if self.outputs:
            return
        for index in range(acl.mdl.get_num_outputs(self.desc)):
            size = acl.mdl.get_output_size_by_index(self.desc, index)
            address, ret = acl.rt.malloc(size, 2)
            assert ret == SUCCESS
            buffer = acl.create_data_buffer(address, size)
            _, ret = acl.mdl.add_dataset_buffer(self.output_set, buffer)
            assert ret == SUCCESS
            self.outputs.append((address, size, buffer))

    def _prepare_inputs(self, arrays):
        fresh = self.input_set is None
        if fresh:
            self.input_set = acl.mdl.create_dataset()
        for index, array in enumerate(arrays):
            array = np.ascontiguousarray(array)
            if index not in self.inputs:
                address, ret = acl.rt.malloc(array.nbytes, 2)
                assert ret == SUCCESS
                buffer = acl.create_data_buffer(address, array.nbytes)
                _, ret = acl.mdl.add_dataset_buffer(self.input_set, buffer)
                assert ret == SUCCESS
                self.inputs[index] = (address, array.nbytes, buffer)
            address, size, _ = self.inputs[index]
            ret = acl.rt.memcpy(address, size, acl.util.bytes_to_ptr(array.tobytes()), array.nbytes, 1)
            assert ret == SUCCESS

    def execute(self, arrays):
        self._prepare_inputs(arrays)
        self._prepare_outputs()
        ret = acl.mdl.execute(self.model_id, self.input_set, self.output_set)
        if ret != SUCCESS:
            acl.app_log(LOG_ERROR, "execute failed {}".format(ret))
            return None
        results = []
        for index, (address, size, _) in enumerate(self.outputs):
            dims, ret = acl.mdl.get_cur_output_dims(self.desc, index)
            assert ret == SUCCESS
            result = np.zeros(dims["dims"], DTYPES[acl.mdl.get_output_data_type(self.desc, index)])
            assert acl.rt.memcpy(int(result.ctypes.data), result.nbytes, address, size, 2) == SUCCESS
            results.append(result)
        return results

    def destroy(self):
        for dataset, entries in ((self.input_set, list(self.inputs.values())), (self.output_set, self.outputs)):
            for address, _, buffer in entries:
                acl.destroy_data_buffer(buffer)
                acl.rt.free(address)
            if dataset:
                acl.mdl.destroy_dataset(dataset)
        if self.model_id:
            acl.mdl.unload(self.model_id)
        acl.mdl.destroy_desc(self.desc)


atexit.register(ResourceList().destroy)

if __name__ == "__main__":
    with Resource():
        net = Model(sys.argv[1])
        feeds = [np.load("{}/input_{}.npy".format(sys.argv[2], i)) for i in range(2)]
        first, second = net.execute(feeds)[0], net.execute(feeds)[0]
    assert not net.is_dynamic and (first == second).all()
    np.save(sys.argv[3] + "/output_0.npy", second)
