# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""Inference as samples with pictures write it: memory from acl.media, outputs asked for by the name ``node:0``, and a
callback that copies the result while the main thread goes on to free everything.
"""

import sys
import threading

import acl
import numpy as np

ACL_CALLBACK_NO_BLOCK = 0


def check_ret(message, ret):
    if ret != 0:
        raise Exception("{} failed ret={}".format(message, ret))


model_path, folder, out = sys.argv[1:4]
check_ret("init", acl.init())
check_ret("set_device", acl.rt.set_device(0))
context, ret = acl.rt.create_context(0)
check_ret("create_context", ret)
stream, ret = acl.rt.create_stream()
check_ret("create_stream", ret)
model_id, ret = acl.mdl.load_from_file(model_path)
check_ret("load_from_file", ret)
desc = acl.mdl.create_desc()
check_ret("get_desc", acl.mdl.get_desc(desc, model_id))
index, ret = acl.mdl.get_output_index_by_name(desc, "y:0")
check_ret("get_output_index_by_name", ret)
assert acl.mdl.get_output_name_by_index(desc, index) == "y:0"

exiting, results = threading.Event(), []


def report(args):
    check_ret("set_context", acl.rt.set_context(args[0]))
    while not exiting.is_set():
        # Until the stream is subscribed every call is refused at once, as on a device.
        acl.rt.process_report(args[1])


def fetch(args):
    address, size = args
    host = bytes(size)
    check_ret("memcpy", acl.rt.memcpy(acl.util.bytes_to_ptr(host), size, address, size, 2))
    results.append(np.frombuffer(host, np.float32))


def memory(size):
    address, ret = acl.media.dvpp_malloc(size)
    check_ret("dvpp_malloc", ret)
    return address


tid, ret = acl.util.start_thread(report, [context, 100])
check_ret("start_thread", ret)
check_ret("subscribe_report", acl.rt.subscribe_report(tid, stream))
for _ in range(5):
    blocks, sets = [], []
    for count, size_of in (
        (acl.mdl.get_num_inputs(desc), acl.mdl.get_input_size_by_index),
        (acl.mdl.get_num_outputs(desc), acl.mdl.get_output_size_by_index),
    ):
        dataset = acl.mdl.create_dataset()
        for i in range(count):
            size = size_of(desc, i)
            blocks.append((memory(size), size))
            _, ret = acl.mdl.add_dataset_buffer(dataset, acl.create_data_buffer(*blocks[-1]))
            check_ret("add_dataset_buffer", ret)
        sets.append(dataset)
    for i in range(acl.mdl.get_num_inputs(desc)):
        data = np.load("{}/input_{}.npy".format(folder, i)).tobytes()
        check_ret("memcpy", acl.rt.memcpy(*blocks[i], acl.util.bytes_to_ptr(data), len(data), 1))
    check_ret("execute_async", acl.mdl.execute_async(model_id, sets[0], sets[1], stream))
    last = blocks[acl.mdl.get_num_inputs(desc) + index]
    check_ret("launch_callback", acl.rt.launch_callback(fetch, last, ACL_CALLBACK_NO_BLOCK, stream))
    check_ret("synchronize_stream", acl.rt.synchronize_stream(stream))
    for dataset in sets:
        for i in range(acl.mdl.get_dataset_num_buffers(dataset)):
            check_ret("destroy_data_buffer", acl.destroy_data_buffer(acl.mdl.get_dataset_buffer(dataset, i)))
        check_ret("destroy_dataset", acl.mdl.destroy_dataset(dataset))
    for address, _ in blocks:
        check_ret("dvpp_free", acl.media.dvpp_free(address))
check_ret("unsubscribe_report", acl.rt.unsubscribe_report(tid, stream))
exiting.set()
check_ret("stop_thread", acl.util.stop_thread(tid))
shape = tuple(acl.mdl.get_output_dims(desc, index)[0]["dims"])
check_ret("unload", acl.mdl.unload(model_id))
check_ret("destroy_desc", acl.mdl.destroy_desc(desc))
check_ret("destroy_stream", acl.rt.destroy_stream(stream))
check_ret("destroy_context", acl.rt.destroy_context(context))
check_ret("reset_device", acl.rt.reset_device(0))
check_ret("finalize", acl.finalize())
assert len(results) == 5 and all((r == results[0]).all() for r in results)
np.save(out + "/output_0.npy", results[-1].reshape(shape))
