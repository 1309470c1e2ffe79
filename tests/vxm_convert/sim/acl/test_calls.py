# SPDX-License-Identifier: Apache-2.0
"""The call surface: names, argument parsing, life cycle, handles, devices and contexts."""

from __future__ import annotations

import inspect
import logging
import threading

import numpy as np
import pytest

from vxm_convert.ascend.acl_codes import CODES
from vxm_convert.sim.acl.base import args
from vxm_convert.sim.acl.base.state import SIM


def public(namespace):
    return [name for name in dir(namespace) if not name.startswith("_")]


def test_module_has_functions_and_namespaces_and_no_constants(sim):
    acl = sim.acl
    functions = [n for n in public(acl) if n not in ("rt", "mdl", "media", "prof", "util")]
    assert all(inspect.isfunction(getattr(acl, n)) for n in functions)
    for namespace in (acl.rt, acl.mdl, acl.media, acl.prof, acl.util):
        assert public(namespace) and all(inspect.isfunction(getattr(namespace, n)) for n in public(namespace))
    # The feature test of official samples
    assert "bytes_to_ptr" in dir(acl.util)


def test_every_row_of_the_table_has_known_letters():
    for row in args.TABLE.values():
        assert set(row.letters) <= set(args.LETTERS) | {"|"}, row.name


@pytest.mark.parametrize(
    "call,arguments",
    [
        ("rt.malloc", (np.int64(64), 0)),
        ("rt.malloc", (64.0, 0)),
        ("rt.malloc", ("64", 0)),
        ("rt.malloc", (64,)),
        ("rt.malloc", (64, 0, 0)),
        ("rt.memcpy", (4096, 64, np.int64(4096), 64, 1)),
        ("rt.set_device", (0.0,)),
        ("mdl.load_from_file", (b"vxm.om",)),
        ("mdl.unload", (1.0,)),
    ],
)
def test_wrong_arguments_raise_a_type_error_that_names_the_call(sim, call, arguments):
    acl = sim.start()
    namespace, name = call.split(".")
    with pytest.raises(TypeError, match=f"acl.{call} args parse failed"):
        getattr(getattr(acl, namespace), name)(*arguments)


def test_keywords_are_refused(sim):
    acl = sim.start()
    with pytest.raises(TypeError, match="no keyword arguments"):
        acl.rt.malloc(size=64, policy=0)


def test_sizes_wrap_and_accept_bool_ids_accept_numpy(sim):
    acl = sim.start()
    address, ret = acl.rt.malloc(True, np.int64(0))
    assert ret == 0 and acl.rt.free(address) == 0
    # -1 wraps to 2**64 - 1 bytes, which no device has
    assert acl.rt.malloc(-1, 0) == (0, 207001)
    assert acl.rt.malloc((1 << 64) + 64, 0)[1] == 0
    assert acl.mdl.unload(np.int64(77)) == 145003
    with pytest.raises(OverflowError):
        acl.rt.set_device(1 << 32)


def test_calls_without_arguments_ignore_extra_ones(sim):
    acl = sim.start()
    assert acl.rt.synchronize_device(0) == 0
    assert acl.rt.get_run_mode("x") == (1, 0)


def test_init_and_finalize_answer_repeats(sim):
    acl = sim.acl
    assert acl.finalize() == 100001
    assert acl.rt.set_device(0) == 100001
    assert acl.init() == 0
    assert acl.init() == 100002
    assert acl.finalize() == 0
    assert acl.finalize() == 100037


def test_init_checks_its_configuration(sim, tmp_path):
    acl = sim.acl
    assert acl.init(str(tmp_path / "none.json")) == 100003
    bad, deep, good = tmp_path / "bad.json", tmp_path / "deep.json", tmp_path / "good.json"
    bad.write_text("{")
    deep.write_text("[" * 11 + "]" * 11)
    good.write_text('{"dump": {}}')
    assert acl.init(str(bad)) == 100006
    assert acl.init(str(deep)) == 100006
    assert acl.init(str(good)) == 0


def test_first_init_says_that_the_device_is_simulated(sim, caplog, monkeypatch):
    monkeypatch.setattr(SIM, "announced", False)
    with caplog.at_level(logging.WARNING, "vxm_convert.sim.acl.module"):
        assert sim.acl.init() == 0
    assert "SIMULATED" in caplog.text


def test_devices_are_counted_and_checked(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_DEVICES", "2")
    acl = sim.acl
    assert acl.init() == 0
    assert acl.rt.get_device_count() == (2, 0)
    assert acl.rt.set_device(1) == 0
    assert acl.rt.get_device() == (1, 0)
    assert acl.rt.set_device(2) == 107001
    assert "device id 2" in acl.get_recent_err_msg()
    assert acl.get_recent_err_msg() is None
    assert acl.get_soc_name() == "Ascend910A"


def test_a_malformed_setting_fails_init(sim, monkeypatch):
    monkeypatch.setenv("VXM_SIM_DEVICES", "many")
    assert sim.acl.init() == 100000
    assert "VXM_SIM_DEVICES" in sim.acl.get_recent_err_msg()


def test_a_thread_has_no_context_until_it_sets_one(sim):
    acl = sim.start()
    context, ret = acl.rt.create_context(0)
    assert ret == 0
    answers = []

    def other():
        answers.append(acl.rt.malloc(64, 0))
        answers.append(acl.rt.set_context(context))
        answers.append(acl.rt.malloc(64, 0)[1])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert answers == [(0, 107002), 0, 0]


def test_reset_counts_references_and_takes_the_memory(sim):
    acl = sim.start()
    assert acl.rt.set_device(0) == 0
    assert acl.rt.malloc(64, 0)[1] == 0
    assert acl.rt.reset_device(0) == 0
    assert acl.rt.malloc(64, 0)[1] == 0
    assert acl.rt.reset_device(0) == 0
    assert acl.rt.malloc(64, 0) == (0, 107002)
    assert sim.leftovers() == []


def test_teardown_order_of_careless_samples_succeeds(sim):
    acl = sim.start()
    context, _ = acl.rt.create_context(0)
    assert acl.rt.create_stream()[1] == 0
    assert acl.rt.malloc(64, 0)[1] == 0
    assert [acl.rt.destroy_context(context), acl.rt.reset_device(0), acl.finalize()] == [0, 0, 0]


def test_handles_of_the_wrong_kind_are_refused(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    assert acl.rt.destroy_event(stream) == 107017
    assert acl.mdl.destroy_dataset(stream) == 100000
    assert acl.rt.destroy_stream(stream) == 0
    assert acl.rt.synchronize_stream(stream) == 107017


def test_a_stream_belongs_to_its_context(sim):
    acl = sim.start()
    stream, _ = acl.rt.create_stream()
    acl.rt.create_context(0)
    assert acl.rt.synchronize_stream(stream) == 107003


def test_an_interceptor_makes_a_call_fail(sim):
    acl = sim.start()
    args.INTERCEPT.append(lambda name, values: 507033 if name == "rt.malloc" else 0)
    assert acl.rt.malloc(64, 0) == (0, 507033)


def test_every_code_the_simulator_returns_is_in_the_table():
    """Literal codes in the sources: a new one must get a meaning and advice first."""
    import re
    from pathlib import Path

    import vxm_convert.sim.acl.module as package

    found = set()
    for path in Path(package.__file__).parent.rglob("*.py"):
        found |= {int(code) for code in re.findall(r"\b([1235]\d{5})\b", path.read_text(encoding="utf-8"))}
    assert len(found) > 20
    assert found <= set(CODES)
