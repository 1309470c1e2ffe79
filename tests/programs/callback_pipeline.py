# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Asynchronous inference: a pool of memory, a callback after each execution, and a thread that processes reports."""

import sys
import threading

import acl
import numpy as np

POOL = 2
ROUNDS = 6
INTERVAL = 2
ACL_CALLBACK_BLOCK = 1


def check_ret(message, ret):
    if ret != 0:
        raise Exception("{} failed ret={}".format(message, ret))


class Sample(object):
    def __init__(self, model_path, images):
        self.images = images
        self.results, self.exiting = [], threading.Event()
        check_ret("init", acl.init())
        check_ret("set_device", acl.rt.set_device(0))
        self.context, ret = acl.rt.create_context(0)
        check_ret("create_context", ret)
        self.stream, ret = acl.rt.create_stream()
        check_ret("create_stream", ret)
        self.model_id, ret = acl.mdl.load_from_file(model_path)
        check_ret("load_from_file", ret)
        self.desc = acl.mdl.create_desc()
        check_ret("get_desc", acl.mdl.get_desc(self.desc, self.model_id))
        self.pool = [self._slot() for _ in range(POOL)]

    def _slot(self):
        sets, memory = [], []
        sizes = (
            [acl.mdl.get_input_size_by_index(self.desc, i) for i in range(acl.mdl.get_num_inputs(self.desc))],
            [acl.mdl.get_output_size_by_index(self.desc, i) for i in range(acl.mdl.get_num_outputs(self.desc))],
        )
        for group in sizes:
            dataset = acl.mdl.create_dataset()
            for size in group:
                address, ret = acl.rt.malloc(size, 2)
                check_ret("malloc", ret)
                memory.append((address, size))
                _, ret = acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, size))
                check_ret("add_dataset_buffer", ret)
            sets.append(dataset)
        for (address, size), image in zip(memory, self.images):
            data = image.tobytes()
            check_ret("memcpy", acl.rt.memcpy(address, size, acl.util.bytes_to_ptr(data), len(data), 1))
        return sets, memory

    def _process_report(self, args_list):
        context, timeout = args_list
        check_ret("set_context", acl.rt.set_context(context))
        while not self.exiting.is_set():
            acl.rt.process_report(timeout)

    def _callback(self, group):
        """Called by the report thread with the slots whose executions are done."""
        for _, memory in group:
            address, size = memory[-1]
            host = bytes(size)
            check_ret("memcpy", acl.rt.memcpy(acl.util.bytes_to_ptr(host), size, address, size, 2))
            self.results.append(np.frombuffer(host, np.float32))

    def forward(self):
        tid, ret = acl.util.start_thread(self._process_report, [self.context, 100])
        check_ret("start_thread", ret)
        check_ret("subscribe_report", acl.rt.subscribe_report(tid, self.stream))
        group = []
        for number in range(ROUNDS):
            (inputs, outputs), memory = self.pool[number % POOL]
            check_ret("execute_async", acl.mdl.execute_async(self.model_id, inputs, outputs, self.stream))
            group.append(((inputs, outputs), memory))
            if len(group) == INTERVAL:
                check_ret(
                    "launch_callback", acl.rt.launch_callback(self._callback, group, ACL_CALLBACK_BLOCK, self.stream)
                )
                group = []
        check_ret("synchronize_stream", acl.rt.synchronize_stream(self.stream))
        check_ret("unsubscribe_report", acl.rt.unsubscribe_report(tid, self.stream))
        self.exiting.set()
        check_ret("stop_thread", acl.util.stop_thread(tid))

    def release(self):
        for sets, memory in self.pool:
            for dataset in sets:
                for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
                    check_ret("destroy_data_buffer", acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)))
                check_ret("destroy_dataset", acl.mdl.destroy_dataset(dataset))
            for address, _ in memory:
                check_ret("free", acl.rt.free(address))
        check_ret("unload", acl.mdl.unload(self.model_id))
        check_ret("destroy_desc", acl.mdl.destroy_desc(self.desc))
        check_ret("destroy_stream", acl.rt.destroy_stream(self.stream))
        check_ret("destroy_context", acl.rt.destroy_context(self.context))
        check_ret("reset_device", acl.rt.reset_device(0))
        check_ret("finalize", acl.finalize())


if __name__ == "__main__":
    sample = Sample(sys.argv[1], [np.load("{}/input_{}.npy".format(sys.argv[2], i)) for i in range(2)])
    shape = tuple(acl.mdl.get_output_dims(sample.desc, 0)[0]["dims"])
    sample.forward()
    sample.release()
    assert len(sample.results) == ROUNDS and all((r == sample.results[0]).all() for r in sample.results)
    print("results:", len(sample.results))
    np.save(sys.argv[3] + "/output_0.npy", sample.results[-1].reshape(shape))
