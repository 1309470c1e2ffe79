# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A process per device, forked and spawned, as benchmark tools start them; the parent never touches the device
itself.
"""

import multiprocessing
import sys

import numpy as np


def work(device, model_path, source, results):
    import acl

    assert acl.init() == 0 and acl.rt.set_device(device) == 0
    model_id, ret = acl.mdl.load_from_file(model_path)
    assert ret == 0, ret
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, model_id) == 0
    sets = [acl.mdl.create_dataset(), acl.mdl.create_dataset()]
    held = []
    for i in range(acl.mdl.get_num_inputs(desc)):
        data = np.load("%s/input_%d.npy" % (source, i)).tobytes()
        address, ret = acl.rt.malloc(len(data), 0)
        assert ret == 0 and acl.rt.memcpy(address, len(data), acl.util.bytes_to_ptr(data), len(data), 1) == 0
        held.append(acl.create_data_buffer(address, len(data)))
        acl.mdl.add_dataset_buffer(sets[0], held[-1])
    size = acl.mdl.get_output_size_by_index(desc, 0)
    address, ret = acl.rt.malloc(size, 0)
    held.append(acl.create_data_buffer(address, size))
    acl.mdl.add_dataset_buffer(sets[1], held[-1])
    assert acl.mdl.execute(model_id, sets[0], sets[1]) == 0
    host = bytes(size)
    assert acl.rt.memcpy(acl.util.bytes_to_ptr(host), size, address, size, 2) == 0
    dims = acl.mdl.get_output_dims(desc, 0)[0]["dims"]
    for dataset in sets:
        assert acl.mdl.destroy_dataset(dataset) == 0
    for buffer in held:
        assert acl.rt.free(acl.get_data_buffer_addr(buffer)) == 0 and acl.destroy_data_buffer(buffer) == 0
    assert acl.mdl.destroy_desc(desc) == 0 and acl.mdl.unload(model_id) == 0
    assert acl.rt.reset_device(device) == 0 and acl.finalize() == 0
    results.put((device, np.frombuffer(host, np.float32).reshape(dims)))


if __name__ == "__main__":
    import acl  # as tools do at the top of the file; using it is another matter

    assert "rt" in dir(acl)
    outputs = []
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.Queue()
        processes = [context.Process(target=work, args=(0, sys.argv[1], sys.argv[2], results)) for _ in range(2)]
        for process in processes:
            process.start()
        outputs += [results.get(timeout=50)[1] for _ in processes]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
    np.save(sys.argv[3] + "/output_0.npy", outputs[-1])
