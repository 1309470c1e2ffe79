# SPDX-License-Identifier: Apache-2.0
"""AclRuntime over the simulated device: names, checks, reuse, errors, and that nothing is ever left behind."""
from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from om_runner.acl_runtime import AclRuntime
from tests.vxm_convert.sim_device import COUNT, FLOW_SHAPE, MAGIC, SHAPE, contract, tensor
from vxm_convert.acl_tables import CODES, DTYPES, acl_dtype, describe_code
from vxm_convert.errors import AclError, ArtifactError, ContractError
from vxm_convert.formats.ge_ir import Desc, Model, Op
from vxm_convert.formats.om import write_om
from vxm_convert.sim import SIM_VERSION
from vxm_convert.sim.acl import args
from vxm_convert.sim.acl import model as model_module
from vxm_convert.sim.acl.state import SIM

# Every code of the public aclError reference that an offline runner can meet.
EXPECTED_CODES = set(map(int, """
100000 100001 100002 100003 100006 100011 100013 100016 100017 100018 100019 100033 100034 100035 100036 100037
200000 200001 200002 300000 500000 500001 500002 500003 500004
145000 145001 145002 145003 145006 145011 145012 145013 245000 545000 545001 545601
107000 107001 107002 107003 107017 107019 207000 207001 207018 507000 507011 507014 507015 507018 507033 507046 507899
""".split()))


def feeds(seed=0):
    random = np.random.RandomState(seed)
    return {name: random.rand(*SHAPE).astype(np.float32) for name in ("moving", "fixed")}


def runtime_of(sim, spec=None, **kwargs):
    return AclRuntime(sim.acl, sim.om_path, spec or contract(), **kwargs)


class Copies:
    """Counts host-to-device copies."""

    def __init__(self):
        self.count = 0
        args.INTERCEPT.append(self)

    def __call__(self, name, values):
        self.count += name == "rt.memcpy" and values[4] == 1
        return 0


def test_runs_and_matches_tensors_by_name(sim):
    arrays = feeds()
    with runtime_of(sim) as runtime:
        result = runtime.run(arrays)
    assert set(result.outputs) == {"moved", "flow"}
    np.testing.assert_array_equal(result.outputs["moved"], arrays["moving"] + 2 * arrays["fixed"])
    np.testing.assert_array_equal(result.outputs["flow"], np.repeat(arrays["moving"], 3, axis=-1))
    assert result.outputs["flow"].shape == FLOW_SHAPE
    assert sim.leftovers() == []
    assert not SIM.initialised and SIM.findings == []


def test_outputs_are_copies_that_outlive_the_runtime(sim):
    with runtime_of(sim) as runtime:
        first = runtime.run(feeds(1)).outputs["moved"]
        kept = first.copy()
        runtime.run(feeds(2))
    np.testing.assert_array_equal(first, kept)
    assert first.flags["OWNDATA"] and first.flags["WRITEABLE"]


def test_works_where_strict_devices_refuse(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_STRICT", "1")
    with runtime_of(sim) as runtime:
        runtime.run(feeds())
    assert sim.leftovers() == []


def test_device_seconds_measure_the_execution(sim):
    sim.program.seconds = 0.05
    with runtime_of(sim) as runtime:
        assert 0.05 <= runtime.run(feeds()).device_seconds < 5


def test_fixed_image_is_copied_once_until_it_changes(sim):
    arrays = feeds()
    with runtime_of(sim) as runtime:
        copies = Copies()
        for _ in range(3):
            runtime.run(arrays)
        assert copies.count == 3 + 1
        runtime.run({"moving": arrays["moving"], "fixed": arrays["fixed"].copy()})
        assert copies.count == 5
        # Changed in place: the same object, another image
        arrays["fixed"][0, 3, 3, 3, 0] += 1
        moved = runtime.run(arrays).outputs["moved"]
        assert copies.count == 7
    np.testing.assert_array_equal(moved, arrays["moving"] + 2 * arrays["fixed"])


def test_set_fixed_completes_the_feeds(sim):
    arrays = feeds()
    with runtime_of(sim) as runtime:
        runtime.set_fixed(arrays["fixed"])
        moved = runtime.run({"moving": arrays["moving"]}).outputs["moved"]
        other = runtime.run({"moving": arrays["moving"], "fixed": arrays["moving"]}).outputs["moved"]
        with pytest.raises(ContractError, match="fixed"):
            runtime.set_fixed(arrays["fixed"][:, :8])
    np.testing.assert_array_equal(other, 3 * arrays["moving"])
    np.testing.assert_array_equal(moved, arrays["moving"] + 2 * arrays["fixed"])


def test_a_failed_copy_of_the_fixed_image_is_repeated(sim):
    arrays = feeds()
    with runtime_of(sim) as runtime:
        runtime.run(arrays)
        arrays["fixed"] = feeds(1)["fixed"]
        args.INTERCEPT.append(lambda name, values: 507899 if name == "rt.memcpy" else 0)
        with pytest.raises(AclError):
            runtime.run(arrays)
        del args.INTERCEPT[:]
        moved = runtime.run(arrays).outputs["moved"]
    np.testing.assert_array_equal(moved, arrays["moving"] + 2 * arrays["fixed"])


@pytest.mark.parametrize("change,message", [
    (lambda f: f.pop("fixed"), "got moving, expected fixed, moving"),
    (lambda f: f.update(atlas=f["fixed"]), "atlas"),
    (lambda f: f.update(moving=f["moving"].astype(np.float64)), "dtype float64, expected float32"),
    (lambda f: f.update(moving=f["moving"][..., 0]), "resample"),
    (lambda f: f.update(moving=np.asfortranarray(np.repeat(f["moving"], 2, 1))[:, ::2]), "ascontiguousarray"),
    (lambda f: f.update(moving=f["moving"].tolist()), "got list"),
])
def test_feeds_that_do_not_fit_are_refused_before_the_device_sees_them(sim, change, message):
    with runtime_of(sim) as runtime:
        copies = Copies()
        arrays = feeds()
        change(arrays)
        with pytest.raises(ContractError, match=message):
            runtime.run(arrays)
        assert copies.count == 0


def test_use_while_closed_is_a_bug_of_the_caller(sim):
    runtime = runtime_of(sim)
    with pytest.raises(RuntimeError):
        runtime.run(feeds())
    with runtime:
        with pytest.raises(RuntimeError):
            runtime.open()
    runtime.close()
    with runtime:
        runtime.run(feeds())


def test_another_thread_may_run_and_close(sim):
    runtime = runtime_of(sim)
    runtime.open()
    shapes = []

    def use():
        shapes.append(runtime.run(feeds()).outputs["moved"].shape)
        runtime.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert shapes == [SHAPE]
    assert sim.leftovers() == []


def test_process_that_has_initialised_acl_keeps_it(sim):
    acl = sim.start()
    with runtime_of(sim) as runtime:
        runtime.run(feeds())
    assert SIM.initialised
    assert acl.rt.set_device(0) == 0
    assert acl.rt.malloc(64, 0)[1] == 0


@pytest.mark.parametrize("ports,message", [
    ({"inputs": [tensor("fixed", SHAPE), tensor("Node_Input", SHAPE)]}, "no inputs are named moving"),
    ({"inputs": [tensor("fixed", SHAPE)]}, "no inputs are named moving"),
    ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE), tensor("extra", SHAPE)]}, "has 3 inputs"),
    ({"outputs": [tensor("Node_Output_0", FLOW_SHAPE), tensor("Node_Output_1", SHAPE)]}, "no outputs are named moved:0"),
    ({"outputs": [tensor("flow_field:0:flow", FLOW_SHAPE), tensor("moved:01:moved", SHAPE)]}, "no outputs are named moved:0"),
    ({"outputs": [tensor("moved:0:flow", FLOW_SHAPE), tensor("moved:0:moved", SHAPE)]}, "2 outputs are named moved:0"),
    ({"inputs": [tensor("fixed", SHAPE), tensor("moving", (1, 32, 16, 8, 1))]}, r"dims \(1, 32, 16, 8, 1\)"),
    ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE, np.float16)]}, "dtype float16"),
    ({"outputs": [tensor("flow_field:0:flow", FLOW_SHAPE), tensor("moved:0:moved", SHAPE, np.float64)]}, "dtype float64"),
    ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE, layout="NDC1HWC0")]}, "NDC1HWC0"),
])
def test_a_model_that_is_not_the_contracts_is_refused_at_open(sim, ports, message):
    for name, tensors in ports.items():
        setattr(sim.program, name, tensors)
    with pytest.raises(ContractError, match=message):
        runtime_of(sim).open()
    assert sim.leftovers() == []


@pytest.mark.parametrize("difference,fits", [(-4, False), (0, True), (64, True), (65, False), (-COUNT * 4, False)])
def test_buffer_sizes_may_be_padded_but_not_more(sim, monkeypatch, difference, fits):
    true_size = sim.acl.mdl.get_input_size_by_index
    monkeypatch.setattr(sim.acl.mdl, "get_input_size_by_index", lambda desc, index: true_size(desc, index) + difference)
    runtime = runtime_of(sim)
    if fits:
        with runtime:
            runtime.run(feeds())
    else:
        with pytest.raises(ContractError, match=f"has {COUNT * 4 + difference} bytes"):
            runtime.open()
    assert sim.leftovers() == []


def test_missing_and_damaged_models(sim, tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        AclRuntime(sim.acl, tmp_path / "none.om", contract()).open()
    sim.om_path.write_bytes(b"frozen pb")
    with pytest.raises(AclError, match=r"acl.mdl.load_from_file returned 100003 \(invalid file\): .*copy or export it again") as caught:
        runtime_of(sim).open()
    assert (caught.value.call, caught.value.ret) == ("acl.mdl.load_from_file", 100003)
    sim.om_path.write_bytes(MAGIC + b"Ascend310")
    with pytest.raises(AclError, match="Ascend310"):
        runtime_of(sim).open()
    assert sim.leftovers() == []


def test_wrong_device_and_full_device(sim, monkeypatch):
    with pytest.raises(AclError, match=r"107001 \(invalid device id\)"):
        runtime_of(sim, device_id=3).open()
    monkeypatch.setenv("VXM_SIM_MEMORY", str((1 << 20) + (1 << 17)))
    with pytest.raises(AclError, match=r"acl.rt.malloc returned 207001 \(out of device memory\).*smaller batch"):
        runtime_of(sim).open()
    assert sim.leftovers() == []


class FailOnce:
    """Fails the call number `position` with `code`."""

    def __init__(self, position, code):
        self.left, self.code = position, code

    def __call__(self, name, values):
        self.left -= 1
        return self.code if self.left == -1 else 0


def calls_of_an_open(sim):
    seen = []
    args.INTERCEPT.append(lambda name, values: seen.append(name) or 0)
    with runtime_of(sim):
        opened = len(seen)
    del args.INTERCEPT[:]
    return seen[:opened]


def test_nothing_is_left_behind_whichever_call_of_open_fails(sim):
    names = calls_of_an_open(sim)
    assert len(names) > 30
    for position, name in enumerate(names):
        args.INTERCEPT.append(FailOnce(position, 507033))
        with pytest.raises((AclError, ContractError)):
            runtime_of(sim).open()
        del args.INTERCEPT[:]
        assert sim.leftovers() == [], f"call {position}, acl.{name}"
        assert not SIM.initialised


@pytest.mark.parametrize("name", ["rt.set_context", "rt.memcpy", "mdl.execute_async", "rt.synchronize_stream"])
def test_a_failing_call_of_run_is_reported_and_leaves_nothing(sim, name):
    with pytest.raises(AclError, match=r"507014 \(an AI core timed out\)") as caught:
        with runtime_of(sim) as runtime:
            args.INTERCEPT.append(lambda called, values: 507014 if called == name else 0)
            try:
                runtime.run(feeds())
            finally:
                del args.INTERCEPT[:]
    assert caught.value.call == "acl." + name
    assert sim.leftovers() == []


def test_close_waits_for_an_execution_whose_synchronisation_failed(sim):
    """Else the device would write into memory that the host has given to someone else."""
    gate = sim.program.gate = threading.Event()
    runtime = runtime_of(sim)
    runtime.open()
    args.INTERCEPT.append(lambda called, values: 507014 if called == "rt.synchronize_stream" else 0)
    with pytest.raises(AclError):
        runtime.run(feeds())
    del args.INTERCEPT[:]
    freed_while_running = []

    def watch(called, values):
        if called == "rt.free" and not sim.program.seen:
            freed_while_running.append(called)
        return 0

    args.INTERCEPT.append(watch)
    threading.Timer(0.1, gate.set).start()
    runtime.close()
    assert sim.program.seen and freed_while_running == []


def test_a_failing_release_does_not_stop_the_others(sim, caplog):
    runtime = runtime_of(sim)
    runtime.open()
    args.INTERCEPT.append(lambda name, values: 507899 if name == "mdl.unload" else 0)
    runtime.close()
    assert "acl.mdl.unload returned 507899" in caplog.text
    assert sim.leftovers() == []


def test_a_program_that_fails_is_an_acl_error_with_its_message(sim):
    def fail():
        raise ValueError("core on fire")

    sim.program.fault = fail
    with runtime_of(sim) as runtime:
        with pytest.raises(AclError, match=r"acl.rt.synchronize_stream returned 507011.*core on fire"):
            runtime.run(feeds())


def test_incomplete_pyacl(sim):
    class Old:
        init = staticmethod(lambda: 0)
        finalize = staticmethod(lambda: 0)

    with pytest.raises(AclError, match="has no acl.rt.set_device"):
        AclRuntime(Old(), sim.om_path, contract()).open()


def test_second_start_in_an_old_process_is_explained(sim):
    class Old:
        init = staticmethod(lambda: 100037)

    with pytest.raises(AclError, match="use a new process"):
        AclRuntime(Old(), sim.om_path, contract()).open()


def test_code_table_is_complete_and_says_what_to_do():
    assert set(CODES) == EXPECTED_CODES
    for code, row in CODES.items():
        assert row.meaning and len(row.do_this) > 15, code
    assert "does not know" in describe_code(999999).meaning


def test_dtype_table_goes_both_ways():
    for number, dtype in DTYPES.items():
        assert acl_dtype(dtype) == number
    assert acl_dtype(np.complex64) == -1


def test_only_long_standing_calls_are_made_and_none_of_util(sim):
    """All of these exist in CANN 5 already; a newer one would fail on older installations."""
    seen = set()
    args.INTERCEPT.append(lambda name, values: seen.add(name) or 0)
    with runtime_of(sim) as runtime:
        runtime.run(feeds())
    facts = ("name_by_index", "size_by_index", "dims", "data_type", "format")
    ends = {f"mdl.get_{end}_{fact}" for end in ("input", "output") for fact in facts}
    assert seen == ends | {
        "init", "finalize", "create_data_buffer", "destroy_data_buffer",
        "rt.set_device", "rt.reset_device", "rt.create_context", "rt.destroy_context", "rt.set_context", "rt.create_stream",
        "rt.destroy_stream", "rt.synchronize_stream", "rt.malloc", "rt.free", "rt.malloc_host", "rt.free_host", "rt.memcpy",
        "mdl.load_from_file", "mdl.unload", "mdl.create_desc", "mdl.destroy_desc", "mdl.get_desc", "mdl.get_num_inputs",
        "mdl.get_num_outputs", "mdl.create_dataset", "mdl.destroy_dataset", "mdl.add_dataset_buffer", "mdl.execute_async",
    }


def test_contract_with_a_batch(sim):
    shape = (2,) + SHAPE[1:]
    flow = (2,) + FLOW_SHAPE[1:]
    sim.program.inputs = [tensor("fixed", shape), tensor("moving", shape)]
    sim.program.outputs = [tensor("flow_field:0:flow", flow), tensor("moved:0:moved", shape)]
    plain = contract()
    spec = dataclasses.replace(
        plain,
        inputs=tuple(dataclasses.replace(t, shape=shape) for t in plain.inputs),
        outputs=tuple(dataclasses.replace(t, shape=flow if t.meaning == "flow" else shape) for t in plain.outputs),
    )
    arrays = {name: np.random.RandomState(3).rand(*shape).astype(np.float32) for name in ("moving", "fixed")}
    with runtime_of(sim, spec) as runtime:
        moved = runtime.run(arrays).outputs["moved"]
    assert moved.size == 2 * COUNT
    np.testing.assert_array_equal(moved, arrays["moving"] + 2 * arrays["fixed"])


def write_identity(path, version=SIM_VERSION):
    """An offline model that gives ``moving`` back as ``moved`` and ``fixed`` as ``flow_field``."""
    descs = [Desc("float32", SHAPE)] * 2
    ops = [Op(name, "Data", [], {"index": index}, [], descs[:1]) for index, name in enumerate(("moving", "fixed"))]
    ops.append(Op("Node_Output", "NetOutput", ["fixed:0", "moving:0"], {}, descs, descs))
    attrs = {
        "atc_version": version, "soc_version": "Ascend910A", "memory_size": 4096, "attr_model_out_nodes_name": ["flow_field:0", "moved:0"],
    }
    write_om(path, Model("vxm", ops, attrs), {}, "test")


def test_a_real_container_through_the_real_engine(sim, monkeypatch):
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    write_identity(sim.om_path)
    plain = contract()
    spec = dataclasses.replace(plain, outputs=tuple(dataclasses.replace(t, shape=SHAPE) for t in plain.outputs))
    arrays = feeds()
    with runtime_of(sim, spec) as runtime:
        outputs = runtime.run(arrays).outputs
    np.testing.assert_array_equal(outputs["moved"], arrays["moving"])
    np.testing.assert_array_equal(outputs["flow"], arrays["fixed"])
    assert sim.leftovers() == []


def test_real_engine_refuses_device_code_and_truncated_files(sim, monkeypatch):
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    write_identity(sim.om_path, "5.0.4")
    with pytest.raises(AclError, match="545001.*real ATC"):
        runtime_of(sim).open()
    write_identity(sim.om_path)
    sim.om_path.write_bytes(sim.om_path.read_bytes()[:-10])
    with pytest.raises(AclError, match="100003"):
        runtime_of(sim).open()
