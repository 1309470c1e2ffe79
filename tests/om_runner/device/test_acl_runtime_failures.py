# SPDX-License-Identifier: Apache-2.0
"""AclRuntime where something is wrong: models that are not the contract's, calls that fail; nothing is ever left
behind.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

import om_runner.device.acl_runtime as runtime_module
from om_runner.device.acl_runtime import AclRuntime
from tests.support.sim_device import COUNT, FLOW_SHAPE, MAGIC, SHAPE, contract, feeds, runtime_of, tensor
from vxm_convert.ascend.acl_codes import CODES, DEVICE_TO_HOST, DTYPES, acl_dtype, describe_code
from vxm_convert.errors import AclError, ArtifactError, ContractError
from vxm_convert.sim.acl.base import args
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.faults import injected

# Every code of the public aclError reference that an offline runner can meet.
EXPECTED_CODES = set(
    map(
        int,
        """
100000 100001 100002 100003 100006 100011 100013 100016 100017 100018 100019 100033 100034 100035 100036 100037
200000 200001 200002 300000 500000 500001 500002 500003 500004
145000 145001 145002 145003 145006 145011 145012 145013 245000 545000 545001 545601
107000 107001 107002 107003 107012 107017 107019 207000 207001 207018 507000 507011 507012 507014 507015 507018 507033 507046 507899
""".split(),
    )
)


@pytest.mark.parametrize(
    "ports,message",
    [
        ({"inputs": [tensor("fixed", SHAPE), tensor("Node_Input", SHAPE)]}, "no inputs are named moving"),
        ({"inputs": [tensor("fixed", SHAPE)]}, "no inputs are named moving"),
        ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE), tensor("extra", SHAPE)]}, "has 3 inputs"),
        (
            {"outputs": [tensor("Node_Output_0", FLOW_SHAPE), tensor("Node_Output_1", SHAPE)]},
            "no outputs are named moved:0",
        ),
        (
            {"outputs": [tensor("flow_field:0:flow", FLOW_SHAPE), tensor("moved:01:moved", SHAPE)]},
            "no outputs are named moved:0",
        ),
        (
            {"outputs": [tensor("moved:0:flow", FLOW_SHAPE), tensor("moved:0:moved", SHAPE)]},
            "2 outputs are named moved:0",
        ),
        ({"inputs": [tensor("fixed", SHAPE), tensor("moving", (1, 32, 16, 8, 1))]}, r"dims \(1, 32, 16, 8, 1\)"),
        ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE, np.float16)]}, "dtype float16"),
        (
            {"outputs": [tensor("flow_field:0:flow", FLOW_SHAPE), tensor("moved:0:moved", SHAPE, np.float64)]},
            "dtype float64",
        ),
        ({"inputs": [tensor("fixed", SHAPE), tensor("moving", SHAPE, layout="NDC1HWC0")]}, "NDC1HWC0"),
    ],
)
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
    with pytest.raises(
        AclError, match=r"acl.mdl.load_from_file returned 100003 \(invalid file\): .*copy or export it again"
    ) as caught:
        runtime_of(sim).open()
    assert (caught.value.call, caught.value.ret) == ("acl.mdl.load_from_file", 100003)
    sim.om_path.write_bytes(MAGIC + b"Ascend310")
    with pytest.raises(AclError, match="Ascend310"):
        runtime_of(sim).open()
    assert sim.leftovers() == []


@pytest.mark.parametrize("compiled, device", [("Ascend910A", "Ascend310P3"), ("Ascend910A", "Ascend910B3")])
def test_another_chip_is_named_before_anything_is_loaded(sim, compiled, device):
    """CANN wraps the failed check in a code that names no chip."""
    with injected(f"wrong_soc:{device}"), pytest.raises(ContractError) as caught:
        runtime_of(sim).open()
    assert f"compiled for {compiled}, device 0 is {device}; export again with --soc-version {device}" in str(
        caught.value
    )
    assert sim.loads == 0 and sim.leftovers() == []


def test_an_unknown_chip_is_left_to_cann(sim, caplog):
    with injected("wrong_soc:Ascend999"), pytest.raises(AclError, match="545001"):
        runtime_of(sim).open()
    assert "calls itself Ascend999, which is not in the table of chips; CANN decides" in caplog.text
    with injected("wrong_soc:Ascend910ProB"):
        runtime_of(sim).open()


def test_a_hung_device_ends_in_an_error_where_pyacl_can_wait_for_a_limited_time(sim, monkeypatch):
    sim.program.gate = threading.Event()
    monkeypatch.setattr(runtime_module, "_HANG_MS", 50)
    threading.Timer(0.3, sim.program.gate.set).start()
    with runtime_of(sim) as runtime, pytest.raises(AclError, match="507046"):
        runtime.run(feeds())


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
        if name == "get_soc_name":
            # Older releases have no such call: without an answer, CANN decides about the chip.
            with runtime_of(sim):
                del args.INTERCEPT[:]
        else:
            with pytest.raises((AclError, ContractError)):
                runtime_of(sim).open()
        del args.INTERCEPT[:]
        assert sim.leftovers() == [], f"call {position}, acl.{name}"
        assert not SIM.initialised


@pytest.mark.parametrize(
    "name", ["rt.set_context", "rt.memcpy", "rt.memset", "mdl.execute_async", "rt.synchronize_stream_with_timeout"]
)
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


@pytest.mark.parametrize("index,meaning,left", [(0, "flow", 3 * COUNT // 2), (1, "moved", COUNT // 2)])
def test_a_device_that_writes_half_of_an_output_is_caught(sim, index, meaning, left):
    """Without the poison the other half would be that of the run before: a plausible image of another patient."""
    with runtime_of(sim) as runtime:
        runtime.run(feeds(1))
        with injected(f"half_output:{index}"), pytest.raises(AclError, match="reported success but left") as caught:
            runtime.run(feeds(2))
        assert f"left {left} of {2 * left} values of output" in str(caught.value) and f"({meaning}) unwritten" in str(
            caught.value
        )
        assert caught.value.call == "acl.mdl.execute_async"
        arrays = feeds(2)
        np.testing.assert_array_equal(runtime.run(arrays).outputs["moved"], arrays["moving"] + 2 * arrays["fixed"])
    assert sim.leftovers() == []


def test_a_copy_back_that_copies_nothing_is_caught(sim, monkeypatch):
    """The host's side is poisoned too."""
    true_copy = sim.acl.rt.memcpy
    with runtime_of(sim) as runtime:
        runtime.run(feeds(1))
        monkeypatch.setattr(sim.acl.rt, "memcpy", lambda *a: 0 if a[4] == DEVICE_TO_HOST else true_copy(*a))
        with pytest.raises(AclError, match=f"left {3 * COUNT} of {3 * COUNT} values of output flow_field:0"):
            runtime.run(feeds(2))


def test_nan_that_the_model_computed_is_no_poison(sim, monkeypatch):
    """It is for the caller to judge: a NaN of arithmetic has another payload."""

    def nan_everywhere(arrays):
        return [np.full(FLOW_SHAPE, np.nan, np.float32), np.full(SHAPE, -np.nan, np.float32)]

    monkeypatch.setattr(sim.program, "run", nan_everywhere)
    with runtime_of(sim) as runtime:
        assert np.isnan(runtime.run(feeds()).outputs["moved"]).all()


def test_close_waits_for_an_execution_whose_synchronisation_failed(sim):
    """Else the device would write into memory that the host has given to someone else."""
    gate = sim.program.gate = threading.Event()
    runtime = runtime_of(sim)
    runtime.open()
    args.INTERCEPT.append(lambda called, values: 507014 if called == "rt.synchronize_stream_with_timeout" else 0)
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
        with pytest.raises(AclError, match=r"acl.rt.synchronize_stream_with_timeout returned 507011.*core on fire"):
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
    assert "an unknown return code" in describe_code(999999).meaning


def test_dtype_table_goes_both_ways():
    for number, dtype in DTYPES.items():
        assert acl_dtype(dtype) == number
    assert acl_dtype(np.complex64) == -1
