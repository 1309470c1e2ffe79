# SPDX-License-Identifier: Apache-2.0
"""Layer by layer on a small graph: planted faults are named, and nothing else; matching, dumps, memory groups. No
TensorFlow.
"""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

from om_runner.layers import analysis, device, tensor_errors
from om_runner.layers.device import Device
from om_runner.layers.dumpfiles import index_dumps
from om_runner.layers.golden import GoldenStore
from om_runner.layers.judge import Limits, mark_sources
from om_runner.layers.layer_table import json_rows, terminal_table
from om_runner.layers.matching import GoldenGraph, in_groups, layers_of, tensor_name
from tests.support import layer_bench
from tests.support.layer_bench import by_name, make
from vxm_convert.artifacts.reports import finite
from vxm_convert.errors import ContractError, FormatError
from vxm_convert.formats.dump import parse_dump_name, plain_name, read_dump, write_dump
from vxm_convert.formats.tf_graph import read_graph
from vxm_convert.metrics.ascend import ASCEND_NAMES
from vxm_convert.sim.acl.models import loading as model_module

pytestmark = pytest.mark.usefixtures("forked_commands")
WARP_ROUNDING = 2e-3
#: makes the first product leave the range of fp16 and leaves the second weight a power of two, which fp16 holds
OVERFLOW = 0.075 * 2**15


@pytest.fixture
def acl(sim, monkeypatch):
    """The simulated device with the real engine."""
    monkeypatch.setattr(model_module, "PROGRAM_LOADER", model_module.load_from_bytes)
    return sim.acl


def names(sources):
    return [result.layer.op for result in sources]


# --- planted faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["force_fp16", "allow_mix_precision"])
def test_a_sound_model_has_no_source(acl, tmp_path, mode):
    results = make(tmp_path, mode).analyse(acl)
    assert mark_sources(results, Limits()) == []
    compared = [r for r in results if r.layer.golden is not None]
    assert all(r.entire is not None and r.single is not None or r.layer.type == "NetOutput" for r in compared)
    if mode != "force_fp16":
        assert max(r.entire_error for r in compared) < 1e-6


@pytest.mark.parametrize("single", [False, True])
def test_a_layer_that_leaves_the_range_of_fp16_is_the_only_source(acl, tmp_path, single):
    results = make(tmp_path, scale=OVERFLOW).analyse(acl, single=single)
    sources = mark_sources(results, Limits())
    assert names(sources) == ["net/one"]
    assert sources[0].overflow == "YES" and sources[0].share > 0.99 and "exceeds the fp16 range" in sources[0].advice
    # what follows is just as wrong, and innocent
    assert by_name(results)["net/two", 0].entire_error > 0.01
    # infinite figures can be written, too
    rows = json.loads(json.dumps(finite(json_rows(results)), allow_nan=False))
    row = next(row for row in rows if row["name"] == "net/one")
    assert row["source"] and row["precision"] == "fp16" and row["type"] == "Mul" and not row["discontinuous"]
    assert set(ASCEND_NAMES) <= set(row["entire"]) and (not single or set(ASCEND_NAMES) <= set(row["single"]))


def test_weights_changed_in_the_offline_model_are_found_and_not_blamed_on_precision(acl, tmp_path):
    bench = make(tmp_path, "force_fp32")

    def spoil(om):
        weight = next(op for op in om.graph if op.name == "net/w2")
        weight.data = weight.data * np.float32(1.5)

    bench.rewrite(spoil)
    results = bench.analyse(acl)
    sources = mark_sources(results, Limits())
    assert names(sources) == ["net/two"]
    assert sources[0].single_error < 1e-6 < sources[0].entire_error
    assert "correct when it runs alone" in sources[0].advice and "net/two" in sources[0].advice


def test_positions_in_fp16_are_the_source_and_the_floor_behind_them_is_not(acl, tmp_path):
    results = make(tmp_path, mesh=True).analyse(acl)
    sources = mark_sources(results, Limits())
    assert names(sources) == ["warp/position"]
    position, floor = by_name(results)["warp/position", 0], by_name(results)["warp/floor", 0]
    # By its own size the rounding of positions is like any other: only what it does to the output tells it apart.
    assert (
        position.single_error < 5e-4
        and position.effect["moved"] > 0.1
        and "--keep_dtype: warp/position" in position.advice
    )
    assert floor.flip_rate > 0.1 and not floor.source and floor.share is None and floor.layer.jumps


def test_the_integer_base_keeps_the_same_warp_sound_in_fp16(acl, tmp_path):
    results = by_name(make(tmp_path).analyse(acl))
    floor = results["warp/floor", 0]
    assert 0 < floor.flip_rate < 0.01
    # flips happen only where the input was nearer to a step than its own error
    assert floor.boundary_distance <= results["net/two", 0].entire["MaxAbsoluteError"]
    assert results["warp/part", 0].single_error < WARP_ROUNDING


def test_following_the_advice_leads_to_a_model_without_sources(acl, tmp_path):
    keep = ["warp/position"]  # the advice of the test above
    for step in range(3):
        bench = make(tmp_path / str(step), mesh=True, keep=keep)
        results = bench.analyse(acl)
        sources = mark_sources(results, Limits())
        flipping = [r.layer.op for r in results if r.single_flip_rate]
        if not sources and not flipping:
            break
        keep += names(sources) + flipping
    assert set(keep) == {"warp/position", "warp/floor", "warp/part"}
    assert max(r.entire_error for r in results if r.layer.type == "NetOutput") < 2e-3


def test_without_single_errors_the_table_says_that_they_are_needed(acl, tmp_path):
    results = make(tmp_path, mesh=True).analyse(acl, single=False)
    sources = mark_sources(results, Limits())
    assert sources == [] and "run again with --single" in terminal_table(results, sources)


# --- groups, batch, cleanliness --------------------------------------------------------------------------------------


def test_any_memory_limit_gives_the_same_figures_and_leaves_nothing_behind(acl, tmp_path, own_start):
    bench = make(tmp_path, batch=2)
    whole, pieces = bench.analyse(acl, effect=False), bench.analyse(acl, effect=False, limit_bytes=6 * 900000)
    assert [r.entire for r in whole] == [r.entire for r in pieces]
    assert [r.single_error for r in whole] == [r.single_error for r in pieces]
    left = [p.name for p in (bench.folder / "work").iterdir()]
    assert not [name for name in left if not name.endswith(".npy")], left
    # the inputs stay until the last use, everything else is gone
    assert len(left) <= len(bench.feeds)


def test_groups_respect_the_budget_and_keep_an_operator_together(tmp_path):
    bench = make(tmp_path)
    layers = layers_of(
        bench.om.graph, bench.om.attrs, bench.model.contract, GoldenGraph(read_graph(bench.model.pb_path))
    )
    groups = in_groups(layers, [10] * len(layers), 25)
    assert [layer for group in groups for layer in group] == layers
    assert all(len(group) <= 2 or len({layer.op for layer in group[1:]}) == 1 for group in groups)
    assert all(len(group) == 1 or group[0].op == group[-1].op for group in in_groups(layers, [10] * len(layers), 1))


# --- matching --------------------------------------------------------------------------------------------------------


def test_matching_goes_by_name_and_attribute(tmp_path):
    bench = make(tmp_path)
    om, graph = bench.om, GoldenGraph(read_graph(bench.model.pb_path))
    layers = {(x.op, x.output): x for x in layers_of(om.graph, om.attrs, bench.model.contract, graph)}
    assert layers["net/one", 0].golden == "net/one:0" and layers["net/one", 0].inputs == ("net/diff:0",)
    casts = [x for x in layers.values() if x.op.startswith("trans_Cast")]
    assert casts and all(x.golden is None and x.reason == "inserted by the compiler" for x in casts)
    ends = [x for x in layers.values() if x.type == "NetOutput"]
    assert [x.golden for x in ends] == ["moved:0", "flow_field:0"]
    # through the cast behind it, an output still knows what it is made of
    assert ends[0].inputs == ("warp/out:0",)
    assert all(d.origin_name for op in om.graph if op.name == "net/one" for d in op.output_descs)
    for op in om.graph:
        # an older compiler that writes the nodes only
        op.output_descs = [replace(desc, origin_name="") for desc in op.output_descs]
        if op.name == "net/one":
            op.name, op.attrs["_datadump_original_op_names"] = "fused_one_two", ["net/one", "net/two"]
            renamed = op
        op.inputs = [source.replace("net/one:", "fused_one_two:") for source in op.inputs]
    found = {x.op: x for x in layers_of(om.graph, om.attrs, bench.model.contract, graph)}
    assert found["fused_one_two"].golden == "net/two:0", "of fused nodes the last one's output counts"
    renamed.output_descs = [replace(renamed.output_descs[0], origin_name="net/one:0")]
    found = {x.op: x for x in layers_of(om.graph, om.attrs, bench.model.contract, graph)}
    assert found["fused_one_two"].golden == "net/one:0", "an output that says what it was is believed"
    renamed.output_descs = [replace(renamed.output_descs[0], origin_name="gone:0")]
    found = {x.op: x for x in layers_of(om.graph, om.attrs, bench.model.contract, graph)}
    assert found["fused_one_two"].golden is None and "no node gone" in found["fused_one_two"].reason


def test_a_model_of_another_contract_is_refused(tmp_path):
    bench = make(tmp_path)
    graph = GoldenGraph(read_graph(bench.model.pb_path))
    attrs = dict(bench.om.attrs, attr_model_out_nodes_name=["other:0", "flow_field:0"])
    with pytest.raises(ContractError, match="output 0 of the offline model is other:0"):
        layers_of(bench.om.graph, attrs, bench.model.contract, graph)
    ops = bench.om.graph
    ops[0].name = "someone"
    with pytest.raises(ContractError, match="inputs are"):
        layers_of(ops, bench.om.attrs, bench.model.contract, graph)


def test_renamed_nodes_are_reported_and_the_rest_is_compared(acl, tmp_path):
    bench = make(tmp_path)

    def rename(om):
        op = next(op for op in om.graph if op.name == "net/two")
        op.attrs["_datadump_original_op_names"] = ["net/renamed"]
        op.output_descs = [replace(op.output_descs[0], origin_name="net/renamed:0")]

    bench.rewrite(rename)
    results = by_name(bench.analyse(acl, single=False))
    assert results["net/two", 0].entire is None and "no node net/renamed" in results["net/two", 0].reason
    assert results["net/one", 0].entire is not None and results["warp/out", 0].entire is not None


def test_tensor_names():
    assert [tensor_name(n) for n in ("a", "a:1", "a/b:0", "^a")] == ["a:0", "a:1", "a/b:0", "^a:0"]


# --- dumps made elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def dumped(acl, tmp_path):
    """A model and the dump files of one execution of it."""
    bench = make(tmp_path)
    work = tmp_path / "elsewhere"
    work.mkdir()
    layers = layers_of(
        bench.om.graph, bench.om.attrs, bench.model.contract, GoldenGraph(read_graph(bench.model.pb_path))
    )
    files = Device(acl, bench.model, bench.om.name, 0, bench.feeds, work).dump([layer.op for layer in layers])
    return bench, files, layers


def test_a_dump_made_elsewhere_gives_the_same_figures(acl, dumped):
    bench, files, _ = dumped
    assert [r.entire for r in bench.analyse(acl, dump=files, single=False)] == [
        r.entire for r in bench.analyse(acl, single=False)
    ]


def test_a_real_net_output_has_inputs_only(bench_of_real_ends):
    """Its rows come from them; without them the model's outputs would have no figures."""
    ops, attrs, contract, golden = bench_of_real_ends
    ends = [layer for layer in layers_of(ops, attrs, contract, golden) if layer.type == "NetOutput"]
    assert [layer.golden for layer in ends] == [spec.tensor_name for spec in contract.outputs]


@pytest.fixture
def bench_of_real_ends(dumped):
    bench, _, _ = dumped
    om = bench.om
    ops = list(om.graph)
    ops[-1].output_descs = []
    return ops, om.attrs, bench.model.contract, GoldenGraph(read_graph(bench.model.pb_path))


def test_a_missing_dump_file_is_a_reason_and_not_the_end(acl, dumped):
    bench, files, layers = dumped
    index_dumps(files, layers)["net/one"].unlink()
    results = by_name(bench.analyse(acl, dump=files, single=False))
    assert results["net/one", 0].entire is None and results["net/one", 0].reason == "no dump file of this operator"
    assert results["net/two", 0].entire is not None


def test_a_dump_with_numbers_for_names_is_found_by_its_list(acl, dumped):
    """A device renames files whose names would be too long; mapping.csv has both names."""
    bench, files, layers = dumped
    path = index_dumps(files, layers)["net/one"]
    path.rename(path.with_name("1700000000000000123"))
    path.with_name("mapping.csv").write_text(f"1700000000000000123,{path.name}\n../../etc/passwd,x\n")
    assert index_dumps(files, layers)["net/one"].name == "1700000000000000123"
    assert by_name(bench.analyse(acl, dump=files, single=False))["net/one", 0].entire is not None


def test_truncated_and_foreign_dumps_are_refused(acl, dumped, tmp_path):
    bench, files, layers = dumped
    path = index_dumps(files, layers)["net/two"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(FormatError, match=path.name):
        bench.analyse(acl, dump=files, single=False)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="truncated"):
        bench.analyse(acl, dump=files, single=False)
    path.write_bytes(whole)
    # a file under another operator's name
    other = index_dumps(files, layers)["net/one"]
    other.write_bytes(whole)
    with pytest.raises(ContractError, match="is a dump of net/two"):
        bench.analyse(acl, dump=files, single=False)


def test_a_dump_of_another_model_is_refused(acl, dumped, tmp_path):
    bench, files, layers = dumped
    path = index_dumps(files, layers)["net/two"]
    dump = read_dump(path)
    wrong = dump.outputs[0].data.astype(np.float32)
    write_dump(
        path, dump.__class__(dump.op_name, dump.dump_time, [], [dump.outputs[0].__class__(wrong, 2, wrong.shape)])
    )
    with pytest.raises(ContractError, match="of another model"):
        bench.analyse(acl, dump=files, single=False)
    path.rename(path.with_name(path.name.replace("net_two", "conv9")))
    with pytest.raises(ContractError, match="another model: 1 operators are not in this one, such as conv9"):
        index_dumps(files, layers)


def test_two_executions_or_none_are_refused(dumped, tmp_path):
    _, files, layers = dumped
    path = index_dumps(files, layers)["net/two"]
    (path.parent / "again").mkdir()
    (path.parent / "again" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ContractError, match="two dumps of net/two"):
        index_dumps(files, layers)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContractError, match="no dump file of this model"):
        index_dumps(tmp_path / "empty", layers)


def test_names_that_dump_files_cannot_tell_apart_are_refused(dumped):
    _, files, layers = dumped
    twin = replace(layers[0], op=layers[0].op.replace("/", "_"))
    assert plain_name(twin.op) == plain_name(layers[0].op)
    with pytest.raises(ContractError, match="the same name in dump files"):
        index_dumps(files, layers + [twin])


def test_the_device_dumps_the_layers_asked_for_only(acl, tmp_path):
    bench = make(tmp_path)
    (tmp_path / "work").mkdir()
    folder = Device(acl, bench.model, bench.om.name, 0, bench.feeds, tmp_path / "work").dump(["net/one", "warp/floor"])
    files = [parse_dump_name(p.name).op_name for p in folder.rglob("*") if p.is_file()]
    assert sorted(files) == ["net_one", "warp_floor"]


def test_nothing_holds_the_inputs_of_a_layer_while_the_device_works(acl, tmp_path, monkeypatch):
    made, held, execute = [], [], acl.mdl.execute_async

    class Watched(device.HeldInputs):
        def __getitem__(self, node):
            array = super().__getitem__(node)
            made.append(weakref.ref(array))
            return array

    monkeypatch.setattr(device, "HeldInputs", Watched)
    monkeypatch.setattr(
        acl.mdl, "execute_async", lambda *args: held.append([r for r in made if r() is not None]) or execute(*args)
    )
    results = make(tmp_path).analyse(acl, effect=False)
    assert len(made) > 10 and all(r.single for r in results if r.layer.op == "warp/mix")
    assert held and not any(held)


# --- golden tensors --------------------------------------------------------------------------------------------------


def test_the_way_back_ends_at_what_is_known(tmp_path):
    bench = make(tmp_path)
    graph = GoldenGraph(read_graph(bench.model.pb_path))
    feeds, between = graph.behind("net/two:0", frozenset(["moving:0", "fixed:0"]))
    assert feeds == ["fixed:0", "moving:0"] and between == ["net/diff", "net/one", "net/two", "net/w1", "net/w2"]
    feeds, between = graph.behind("net/two:0", frozenset(["net/one:0", "moving:0"]))
    assert feeds == ["net/one:0"] and between == ["net/two", "net/w2"]
    with pytest.raises(ContractError, match="depends on the input fixed"):
        graph.behind("net/two:0", frozenset(["moving:0"]))


def test_a_replaced_tensor_changes_what_follows_and_is_not_kept(tmp_path):
    bench = make(tmp_path)
    nodes = read_graph(bench.model.pb_path)
    store = GoldenStore(tmp_path, layer_bench.NumpyReference(nodes, tmp_path), GoldenGraph(nodes))
    for meaning, array in bench.feeds.items():
        store.put(f"{meaning}:0", array)
    store.compute("net/one:0")
    before = sorted(p.name for p in tmp_path.glob("*.npy"))
    one = np.array(store.get("net/one:0"))
    doubled = store.save_made(one, lambda part: 2 * part)
    two = store.variants(["net/two:0"], {"net/one:0": doubled}, store.kept)[0]
    np.testing.assert_array_equal(two, 2 * one * np.float32(0.075))
    assert sorted(p.name for p in tmp_path.glob("*.npy")) == before
    np.testing.assert_array_equal(store.get("net/one:0"), one)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_of_special_tensors():
    zero, one = np.zeros(4), np.ones(4)
    assert tensor_errors.figures(zero, zero)["RelativeEuclideanDistance"] == 0.0
    assert tensor_errors.figures(one, zero)["RelativeEuclideanDistance"] == np.inf
    spoiled = one.copy()
    spoiled[1] = np.nan
    found = tensor_errors.figures(spoiled, one)
    assert found["not_finite"] == 1 and found["RelativeEuclideanDistance"] == np.inf and "NaN" in found["reason"]
    assert tensor_errors.overflow(spoiled) == "NaN"
    assert (
        tensor_errors.overflow(np.array([65504.0, 1], np.float16)) == "YES"
        and tensor_errors.overflow(np.array([65504.0], np.float32)) == "NO"
    )
    assert (
        tensor_errors.overflow(np.array([np.inf], np.float32)) == "YES"
        and tensor_errors.overflow(np.array([70000])) == "NO"
    )


def test_flips_and_the_distance_to_the_step():
    golden = np.array([0.9, 1.02, 2.5, -0.01])
    rate, far = tensor_errors.flips(
        np.floor(golden + [0.0, -0.03, 0, 0.02]), np.floor(golden), ("integer", golden, golden)
    )
    assert rate == 0.5 and far == pytest.approx(0.02)
    assert tensor_errors.flips(np.floor(golden), np.floor(golden), ("integer", golden, golden)) == (0.0, None)
    np.testing.assert_allclose(
        tensor_errors.boundary_distance("half", np.array([1.4, 2.5]), golden[:2]), [0.1, 0.0], atol=1e-12
    )
    np.testing.assert_allclose(tensor_errors.boundary_distance("equal", np.array([1.0]), np.array([1.25])), [0.25])


def test_a_layer_that_is_too_large_to_run_alone_says_so_and_is_still_compared(acl, tmp_path, monkeypatch):
    # as if running alone took a million times what it takes
    monkeypatch.setattr(analysis, "_ENGINE", (4e6, 8e6))
    compared = [r for r in make(tmp_path).analyse(acl) if r.layer.golden is not None and r.layer.type != "NetOutput"]
    large = [r for r in compared if r.layer.elements > 1000]
    assert len(large) > 10 and all(
        r.entire is not None and r.single is None and "the limit is 6.0" in r.reason for r in large
    )
    assert all(r.single is not None for r in compared if r not in large)
