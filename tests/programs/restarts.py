# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A service that opens and closes the device again and again, calls init twice, and runs in a folder that is gone by
then.
"""

import gc
import os
import sys
import tempfile

import acl
import numpy as np

model_path, source, target = (os.path.abspath(name) for name in sys.argv[1:4])
feeds = [np.load("%s/input_%d.npy" % (source, i)) for i in range(2)]


def serve():
    assert acl.rt.set_device(0) == 0
    assert acl.rt.set_device(0) == 0
    model_id, ret = acl.mdl.load_from_file(model_path)
    assert ret == 0, ret
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc(desc, model_id) == 0
    result = np.zeros(acl.mdl.get_output_dims(desc, 0)[0]["dims"], np.float32)
    sets, addresses, buffers = [], [], []
    for arrays in (feeds, [result]):
        sets.append(acl.mdl.create_dataset())
        for array in arrays:
            address, ret = acl.rt.malloc_align32(array.nbytes, 0)
            assert ret == 0 and acl.rt.memcpy(address, array.nbytes, array.ctypes.data, array.nbytes, 1) == 0
            addresses.append(address)
            buffers.append(acl.create_data_buffer(address, array.nbytes))
            assert acl.mdl.add_dataset_buffer(sets[-1], buffers[-1]) == (sets[-1], 0)
    assert acl.mdl.execute(model_id, sets[0], sets[1]) == 0
    assert acl.rt.synchronize_device(0) == 0
    assert acl.rt.memcpy(result.ctypes.data, result.nbytes, addresses[-1], result.nbytes, 2) == 0
    codes = [acl.mdl.destroy_dataset(made) for made in sets] + [acl.destroy_data_buffer(buffer) for buffer in buffers]
    codes += [acl.rt.free(address) for address in addresses] + [acl.mdl.destroy_desc(desc), acl.mdl.unload(model_id)]
    # Opened twice, so closed twice.
    codes += [acl.rt.reset_device(0), acl.rt.reset_device(0)]
    assert not any(codes), codes
    assert acl.mdl.unload(model_id) != 0
    gc.collect()
    return result


folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
assert acl.init() == 0
assert acl.init() == 100002
results = [serve() for _ in range(3)]
assert acl.finalize() == 0
assert acl.finalize() == 100037
assert all(np.array_equal(result, results[0]) for result in results)
np.save(target + "/output_0.npy", results[-1])
