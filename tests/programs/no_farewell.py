# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""No clean-up at all: work still queued on a stream, a callback thread waiting, and the interpreter simply ends."""

import sys
import threading

import acl
import numpy as np


class Model(object):
    def __init__(self, path):
        acl.init()
        acl.rt.set_device(0)
        self.context = acl.rt.get_context()[0]
        self.stream, _ = acl.rt.create_stream()
        self.id, ret = acl.mdl.load_from_file(path)
        self.desc = acl.mdl.create_desc()
        acl.mdl.get_desc(self.desc, self.id)
        self.reports = threading.Thread(target=self.process)
        self.reports.daemon = True
        self.reports.start()
        acl.rt.subscribe_report(self.reports.ident, self.stream)

    def process(self):
        acl.rt.set_context(self.context)
        while True:
            acl.rt.process_report(1000)

    def __del__(self):
        # Runs when the interpreter takes modules apart; acl must not mind.
        if self.id and acl is not None:
            acl.mdl.unload(self.id)


model = Model(sys.argv[1])
inputs, outputs = acl.mdl.create_dataset(), acl.mdl.create_dataset()
for i in range(2):
    array = np.load(sys.argv[2] + "/input_%d.npy" % i)
    address, ret = acl.rt.malloc(array.nbytes, 0)
    acl.rt.memcpy(address, array.nbytes, array.ctypes.data, array.nbytes, 1)
    acl.mdl.add_dataset_buffer(inputs, acl.create_data_buffer(address, array.nbytes))
result = np.zeros(acl.mdl.get_output_dims(model.desc, 0)[0]["dims"], np.float32)
address, ret = acl.rt.malloc(result.nbytes, 0)
acl.mdl.add_dataset_buffer(outputs, acl.create_data_buffer(address, result.nbytes))
assert acl.mdl.execute(model.id, inputs, outputs) == 0
acl.rt.memcpy(result.ctypes.data, result.nbytes, address, result.nbytes, 2)
np.save(sys.argv[3] + "/output_0.npy", result)
for _ in range(20):
    acl.mdl.execute_async(model.id, inputs, outputs, model.stream)
