# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""A hurried script: wrong copy kinds, nothing freed, the context destroyed before its stream. Devices put up with
it.
"""

import sys

import acl
import numpy as np

acl.init()
acl.rt.set_device(0)
context, _ = acl.rt.create_context(0)
stream, _ = acl.rt.create_stream()
model_id, ret = acl.mdl.load_from_file(sys.argv[1])
desc = acl.mdl.create_desc()
acl.mdl.get_desc(desc, model_id)
inputs, outputs = acl.mdl.create_dataset(), acl.mdl.create_dataset()
for i in range(acl.mdl.get_num_inputs(desc)):
    array = np.load(sys.argv[2] + "/input_%d.npy" % i)
    address, ret = acl.rt.malloc(array.nbytes, 2)
    acl.rt.memcpy(address, array.nbytes, int(array.ctypes.data), array.nbytes, 3)
    acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(address, array.nbytes))
size = acl.mdl.get_output_size_by_index(desc, 0)
address, ret = acl.rt.malloc(size, 2)
acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(address, size))
if acl.mdl.execute(model_id, inputs, outputs) == 0:
    result = np.zeros(acl.mdl.get_output_dims(desc, 0)[0]["dims"], np.float32)
    acl.rt.memcpy(int(result.ctypes.data), result.nbytes, address, size, 2)
    np.save(sys.argv[3] + "/output_0.npy", result)
acl.mdl.unload(model_id)
codes = [acl.rt.destroy_context(context), acl.rt.reset_device(0), acl.finalize()]
sys.exit(any(codes))
