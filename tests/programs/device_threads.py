# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""One thread per device, each with a context, a stream and a model of its own, fed from one queue."""

import queue
import sys
import threading

import acl
import numpy as np

JOBS = 6


def must(ret):
    if ret:
        raise RuntimeError("ret = %d" % ret)


class Worker(threading.Thread):
    def __init__(self, device_id, model_path, jobs, results):
        super(Worker, self).__init__()
        self.device_id, self.model_path, self.jobs, self.results = device_id, model_path, jobs, results
        self.error = None

    def run(self):
        try:
            self.work()
        except Exception as error:
            self.error = error

    def work(self):
        must(acl.rt.set_device(self.device_id))
        context, ret = acl.rt.create_context(self.device_id)
        must(ret)
        stream, ret = acl.rt.create_stream()
        must(ret)
        model_id, ret = acl.mdl.load_from_file(self.model_path)
        must(ret)
        desc = acl.mdl.create_desc()
        must(acl.mdl.get_desc(desc, model_id))
        shape = acl.mdl.get_output_dims(desc, 0)[0]["dims"]
        inputs, input_memory = self.buffers(
            [acl.mdl.get_input_size_by_index(desc, i) for i in range(acl.mdl.get_num_inputs(desc))]
        )
        outputs, output_memory = self.buffers(
            [acl.mdl.get_output_size_by_index(desc, i) for i in range(acl.mdl.get_num_outputs(desc))]
        )
        while True:
            try:
                number, arrays = self.jobs.get_nowait()
            except queue.Empty:
                break
            for (address, size), array in zip(input_memory, arrays):
                must(acl.rt.memcpy(address, size, array.ctypes.data, array.nbytes, 1))
            must(acl.mdl.execute_async(model_id, inputs, outputs, stream))
            must(acl.rt.synchronize_stream(stream))
            result = np.empty(shape, np.float32)
            address, size = output_memory[0]
            must(acl.rt.memcpy(result.ctypes.data, result.nbytes, address, size, 2))
            self.results[number] = (self.device_id, result)
        for dataset, memory in ((inputs, input_memory), (outputs, output_memory)):
            for i in range(len(memory)):
                must(acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)))
                must(acl.rt.free(memory[i][0]))
            must(acl.mdl.destroy_dataset(dataset))
        must(acl.mdl.destroy_desc(desc))
        must(acl.mdl.unload(model_id))
        must(acl.rt.destroy_stream(stream))
        must(acl.rt.destroy_context(context))
        must(acl.rt.reset_device(self.device_id))

    @staticmethod
    def buffers(sizes):
        dataset, memory = acl.mdl.create_dataset(), []
        for size in sizes:
            address, ret = acl.rt.malloc(size, 0)
            must(ret)
            memory.append((address, size))
            must(acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(address, size))[1])
        return dataset, memory


def main():
    model_path, source, target = sys.argv[1:4]
    arrays = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]
    must(acl.init())
    count, ret = acl.rt.get_device_count()
    must(ret)
    jobs, results = queue.Queue(), {}
    for number in range(JOBS):
        jobs.put((number, arrays))
    workers = [Worker(device_id, model_path, jobs, results) for device_id in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.error:
            raise worker.error
    must(acl.finalize())
    assert sorted(results) == list(range(JOBS))
    assert all((result == results[0][1]).all() for _, result in results.values())
    print("devices:", count)
    np.save(target + "/output_0.npy", results[0][1])


if __name__ == "__main__":
    main()
