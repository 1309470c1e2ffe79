# SPDX-License-Identifier: Apache-2.0
"""Which layer is a source, from figures written by hand; the table's lines."""

from __future__ import annotations

import csv
import io
import math

import pytest

from om_runner.layers.judge import EUCLID, LayerResult, Limits, mark_sources
from om_runner.layers.layer_table import ASCEND_COLUMNS, OUR_COLUMNS, csv_text, json_rows, terminal_table
from om_runner.layers.matching import Layer
from vxm_convert.artifacts.reports import finite
from vxm_convert.formats.ge_ir import Desc


def result(name, inputs=(), entire=None, single=None, effect=None, kind="Mul", dtype="float16", flip=None):
    layer = Layer(name, kind, 0, Desc(dtype, (2, 3)), f"{name}:0", (name,), tuple(f"{i}:0" for i in inputs))
    made = LayerResult(
        layer, None if entire is None else {EUCLID: entire}, None if single is None else {EUCLID: single}
    )
    made.effect, made.flip_rate = effect or {}, flip
    return made


def sources(*results):
    return [r.layer.op for r in mark_sources(results, Limits())]


def test_bad_output_of_good_inputs():
    assert sources(result("a", entire=1e-4), result("b", ["a"], entire=0.2), result("c", ["b"], entire=0.3)) == ["b"]


def test_growth_that_the_inputs_explain_is_no_source():
    assert sources(result("a", entire=5e-3), result("b", ["a"], entire=2e-2)) == []


def test_an_error_is_looked_for_behind_layers_that_were_not_compared():
    assert sources(result("a", entire=0.2), result("gap", ["a"]), result("b", ["gap"], entire=0.3)) == ["a"]


def test_behind_a_flip_entire_errors_say_nothing_and_single_errors_do():
    chain = [
        result("f", entire=1e-3, kind="Floor", flip=0.01),
        result("s", ["f"], entire=0.5),
        result("t", ["s"], entire=0.6),
    ]
    assert sources(*chain) == []
    chain[2].single = {EUCLID: 0.4}
    assert sources(*chain) == ["t"]


def test_without_flips_a_floor_spoils_nothing():
    assert sources(result("f", entire=0.0, kind="Floor", flip=0.0), result("s", ["f"], entire=0.5)) == ["s"]


@pytest.mark.parametrize(
    "kind, dtype", [("Floor", "float16"), ("Rint", "float32"), ("Add", "int32"), ("Cast", "int32"), ("Less", "bool")]
)
def test_discontinuous_layers_are_never_ranked(kind, dtype):
    found = result("f", entire=0.9, single=0.9, effect={"moved": 0.9}, kind=kind, dtype=dtype, flip=0.5)
    assert sources(found) == [] and found.share is None


def test_a_gather_is_not_blamed_for_its_indices_but_for_its_own_error():
    index = result("i", entire=0.1, kind="Cast", dtype="int32", flip=0.2)
    gather = result("g", ["i"], entire=0.5, kind="GatherV2D")
    assert sources(index, gather) == [] and gather.flip_rate == 0.2
    gather.single = {EUCLID: 0.4}
    assert sources(index, gather) == ["g"]


def test_effects_rank_before_single_errors_and_shares_add_up():
    results = [
        result("a", single=4e-4, entire=4e-4, effect={"moved": 3e-3, "flow": 0.0}),
        result("b", single=6e-4, entire=6e-4, effect={"moved": 4e-3}),
    ]
    assert sources(*results) == ["b", "a"]
    assert [r.share for r in results] == pytest.approx([9 / 25, 16 / 25])


def test_values_that_are_not_finite_outweigh_everything():
    results = [
        result("a", entire=1e-4),
        result("b", ["a"], entire=math.inf, single=math.inf),
        result("c", ["a"], entire=0.3),
    ]
    results[1].overflow = "NaN"
    assert sources(*results) == ["b", "c"] and results[1].share == 1.0 and "exceeds the fp16 range" in results[1].advice
    assert finite(json_rows(results))[1]["entire"][EUCLID] is None


def test_advice_for_what_is_fp32_already():
    found = result("a", entire=0.5, single=0.5, dtype="float32")
    assert sources(found) == ["a"] and "computes in fp32" in found.advice


def test_limits_are_the_callers():
    found = result("a", entire=2e-3)
    assert mark_sources([found], Limits(1e-3, 1e-3)) == [found] and mark_sources([found], Limits(0.1, 0.1)) == []


def test_csv_has_every_digit_and_one_cell_per_column():
    found = result("a", entire=0.1)
    found.entire.update(CosineSimilarity=1 - 1e-8, StandardDeviation="(0.1;0.2),(0.1;0.2)")
    found.reason = "with, comma"
    bare = LayerResult(
        Layer("trans_Cast_0", "Cast", 0, Desc("float16", (2,)), None, (), ()), reason="inserted by the compiler"
    )
    head, row, cast = csv.reader(io.StringIO(csv_text([found, bare])))
    assert head == ASCEND_COLUMNS + OUR_COLUMNS and len(row) == len(cast) == len(head)
    cells = dict(zip(head, row))
    assert (
        1 - float(cells["CosineSimilarity"]) == pytest.approx(1e-8, rel=1e-6)
        and cells["CompareFailReason"] == "with, comma"
    )
    assert cells["GroundTruth"] == "a" and cells["TensorIndex"] == "a:output:0" and cells["Shape"] == "[2, 3]"
    assert dict(zip(head, cast))["GroundTruth"] == "*" and dict(zip(head, cast))["CosineSimilarity"] == "NaN"


def test_the_table_names_layer_error_and_remedy():
    results = [result("a", entire=1e-4), result("warp/add", ["a"], entire=0.2)]
    text = terminal_table(results, mark_sources(results, Limits()))
    assert "2 of 2 tensors compared, 1 sources" in text and "warp/add" in text and "--keep_dtype: warp/add" in text
    assert "0 of 0 tensors compared" in terminal_table([], [])
