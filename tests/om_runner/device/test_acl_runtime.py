# SPDX-License-Identifier: Apache-2.0
"""AclRuntime over the simulated device: names, checks, reuse, threads, batches; what goes wrong is in
test_acl_runtime_failures.
"""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from tests.support.sim_device import COUNT, FLOW_SHAPE, SHAPE, contract, feeds, runtime_of, tensor
from vxm_convert.errors import AclError, ContractError
from vxm_convert.formats.ge_ir import Desc, Model, Op
from vxm_convert.formats.om import write_om
from vxm_convert.sim.acl.base import args
from vxm_convert.sim.acl.base.state import SIM
from vxm_convert.sim.acl.models import loading as model_module
from vxm_convert.sim.version import SIM_VERSION


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


def test_two_sets_in_turn_keep_their_own_fixed_images(sim):
    """The host side of the inputs and the device side of the outputs are one for both sets."""
    first, second = feeds(1), feeds(2)
    second["fixed"] = second["fixed"] + 5
    runs = [first, second, first, dict(first, moving=second["moving"]), dict(second, moving=first["moving"]), second]
    found = []
    with runtime_of(sim) as runtime:
        assert runtime.reserve(2) == 2
        copies, before = Copies(), None
        for arrays in runs:
            staged = runtime.stage(arrays)
            if before is not None:
                found.append(runtime.fetch(before).outputs["moved"])
            before = runtime.collect(runtime.execute(staged))
        found.append(runtime.fetch(before).outputs["moved"])
        # For the fourth run and the last the fixed image did not change, but the set does not have it yet.
        assert copies.count == 2 * len(runs)
        for _ in range(4):
            runtime.fetch(runtime.collect(runtime.execute(runtime.stage(second))))
        assert copies.count == 2 * len(runs) + 4
    for arrays, moved in zip(runs, found):
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


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda f: f.pop("fixed"), "got moving, expected fixed, moving"),
        (lambda f: f.update(atlas=f["fixed"]), "atlas"),
        (lambda f: f.update(moving=f["moving"].astype(np.float64)), "dtype float64, expected float32"),
        (lambda f: f.update(moving=f["moving"][..., 0]), "resample"),
        (lambda f: f.update(moving=np.asfortranarray(np.repeat(f["moving"], 2, 1))[:, ::2]), "ascontiguousarray"),
        (lambda f: f.update(moving=f["moving"].tolist()), "got list"),
    ],
)
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


def test_acl_ends_with_its_last_user(sim):
    """The one that was opened first may be closed first."""
    first, second = runtime_of(sim).__enter__(), runtime_of(sim).__enter__()
    first.close()
    second.run(feeds())
    first = runtime_of(sim).__enter__()
    second.close()
    first.run(feeds())
    first.close()
    assert not SIM.initialised and sim.leftovers() == []


def test_only_long_standing_calls_are_made_and_none_of_util(sim, monkeypatch):
    """All of these exist in CANN 5 already; a newer one would fail on older installations, so two are used only where
    they are.
    """
    monkeypatch.delattr(sim.acl, "get_soc_name")
    monkeypatch.delattr(sim.acl.rt, "synchronize_stream_with_timeout")
    seen = set()
    args.INTERCEPT.append(lambda name, values: seen.add(name) or 0)
    with runtime_of(sim) as runtime:
        runtime.run(feeds())
    facts = ("name_by_index", "size_by_index", "dims", "data_type", "format")
    ends = {f"mdl.get_{end}_{fact}" for end in ("input", "output") for fact in facts}
    assert seen == ends | {
        "init",
        "finalize",
        "create_data_buffer",
        "destroy_data_buffer",
        "rt.set_device",
        "rt.reset_device",
        "rt.create_context",
        "rt.destroy_context",
        "rt.set_context",
        "rt.create_stream",
        "rt.destroy_stream",
        "rt.synchronize_stream",
        "rt.malloc",
        "rt.free",
        "rt.malloc_host",
        "rt.free_host",
        "rt.memcpy",
        "rt.memset",
        "mdl.load_from_file",
        "mdl.unload",
        "mdl.create_desc",
        "mdl.destroy_desc",
        "mdl.get_desc",
        "mdl.get_num_inputs",
        "mdl.get_num_outputs",
        "mdl.create_dataset",
        "mdl.destroy_dataset",
        "mdl.add_dataset_buffer",
        "mdl.execute_async",
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
        "atc_version": version,
        "soc_version": "Ascend910A",
        "memory_size": 4096,
        "attr_model_out_nodes_name": ["flow_field:0", "moved:0"],
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
