# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201, UP004, UP008, UP024, UP031, UP032
"""No acl.util at all: NumPy views over page-locked memory by ctypes, everything asynchronous on one stream."""

import ctypes
import sys

import acl
import numpy as np

HUGE_FIRST = 0
H2D, D2H = 1, 2


def ok(result):
    values, ret = (result[:-1], result[-1]) if isinstance(result, tuple) else ((), result)
    if ret:
        raise RuntimeError("pyACL error {}: {}".format(ret, acl.get_recent_err_msg()))
    return values[0] if len(values) == 1 else values


def pinned(shape, dtype):
    """An array over memory of malloc_host, and its address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    address = ok(acl.rt.malloc_host(size))
    raw = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(raw, dtype).reshape(shape), address, size


model_path, source, target = sys.argv[1:4]
ok(acl.init())
ok(acl.rt.set_device(0))
context = ok(acl.rt.create_context(0))
stream = ok(acl.rt.create_stream())
model = ok(acl.mdl.load_from_file(model_path))
desc = acl.mdl.create_desc()
ok(acl.mdl.get_desc(desc, model))

sets, ports = [], []
for count, dims_of in (
    (acl.mdl.get_num_inputs(desc), acl.mdl.get_input_dims),
    (acl.mdl.get_num_outputs(desc), acl.mdl.get_output_dims),
):
    sets.append(acl.mdl.create_dataset())
    ports.append([])
    for i in range(count):
        array, host, size = pinned(ok(dims_of(desc, i))["dims"], np.float32)
        device = ok(acl.rt.malloc(size, HUGE_FIRST))
        buffer = acl.create_data_buffer(device, size)
        ok(acl.mdl.add_dataset_buffer(sets[-1], buffer))
        ports[-1].append((array, host, device, size, buffer))

for i, (array, host, device, size, _) in enumerate(ports[0]):
    array[...] = np.load("{}/input_{}.npy".format(source, i))
    ok(acl.rt.memcpy_async(device, size, host, size, H2D, stream))
ok(acl.mdl.execute_async(model, sets[0], sets[1], stream))
for _, host, device, size, _ in ports[1]:
    ok(acl.rt.memcpy_async(host, size, device, size, D2H, stream))
ok(acl.rt.synchronize_stream(stream))
np.save(target + "/output_0.npy", ports[1][0][0])

for made, entries in zip(sets, ports):
    ok(acl.mdl.destroy_dataset(made))
    for _, host, device, _, buffer in entries:
        ok(acl.destroy_data_buffer(buffer))
        ok(acl.rt.free(device))
        ok(acl.rt.free_host(host))
ok(acl.mdl.destroy_desc(desc))
ok(acl.mdl.unload(model))
ok(acl.rt.destroy_stream(stream))
ok(acl.rt.destroy_context(context))
ok(acl.rt.reset_device(0))
ok(acl.finalize())
